"""Two persons for what moves money or rules: who may decide, once, with what is there then; and the log of all of it."""

import json
import socket
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from hashlib import sha256
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api import auditing
from api.approvals import kinds
from api.auth.clients import create_client
from api.settings import Environment
from integrations.inbox.drain import drain
from integrations.inbox.keys import InboxKeys
from integrations.inbox.received import understood
from integrations.inbox.store import store
from integrations.partners.standard import StandardFormat
from ledger.audit_proof import EntryProof, verify_entry
from ledger.errors import InvalidInput
from ledger.ids import parse_public_id, public_id
from ledger.posting import Posting, Transaction, post
from ledger.seals import SealingKey, seal
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.remittances.partners import find
from products.remittances.process import process
from products.remittances.settle import record_settlement
from products.savings import sponsors
from tests.conftest import Databases
from tests.http.operators import Person, person
from tests.http.served import Caller, Served
from tests.http.test_remittances import a_member, a_remittance, send
from tests.racing import at_once

_numbers = count(100)


@pytest.fixture
def filer(api: Served) -> Person:
    return person(api, "manager")


@pytest.fixture
def approver(api: Served) -> Person:
    return person(api, "manager")


@pytest.fixture(autouse=True)
def books_hold(api: Served, databases: Databases) -> Iterator[None]:
    """Whatever a test decided, the books and the records agree after it, sealed, log and all."""
    yield
    key = SealingKey.generate()
    while True:
        with databases.sealer.begin() as tx:
            if seal(tx, key, api.clock) is None:
                break
    with databases.auditor.read() as tx:
        report = verify(tx, extra_checks=[one.run for one in PRODUCT_CHECKS])
    assert report.ok, list(report.findings())
    assert report.unsealed_audit_entries == 0


def accounts(api: Served) -> dict[str, str]:
    """The savers' fund's own accounts by code."""
    rows = api.rows(
        "select a.code, a.id from ledger.account a join ledger.fund f on f.id = a.fund_id"
        " where f.code = 'ejoheza/savers' and a.owner = ''"
    )
    return {code: public_id("acc", id_) for code, id_ in rows}


def a_transaction(api: Served, amount: int = 1_000, **changes: Any) -> dict[str, Any]:
    """Money that arrived in the bank and nobody knows from whom."""
    of = accounts(api)
    return {
        "postings": [
            {
                "debit": of["bank"],
                "credit": of["unidentified_receipts"],
                "amount": {"amount": amount, "currency": "RWF"},
            }
        ],
        "reason": "an unexplained receipt",
    } | changes


def requested(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    assert shown["state"] == "requested"
    return shown


def asked_for(filer: Person, **changes: Any) -> str:
    """A manual transaction that waits for approval."""
    body = a_transaction(filer.api, next(_numbers), **changes)
    approval: str = requested(filer.post("/v1/ledger/transactions", body, key=f"file-{next(_numbers)}"))["id"]
    return approval


def code_of(answer: httpx.Response, status: int = 409) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["code"])


def manual_transactions(api: Served) -> int:
    return int(api.rows("select count(*) from ledger.transaction where kind = 'manual'")[0][0])


def logged(auditor: Person | Caller, **filters: str) -> list[dict[str, Any]]:
    answer = auditor.get("/v1/audit", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def test_another_manager_who_just_confirmed_approves_and_it_is_posted_once(
    api: Served, filer: Person, approver: Person
) -> None:
    approval = asked_for(filer, effective_on="2026-03-01")
    assert manual_transactions(api) == 0
    done = approver.approve(approval, key="one")
    assert done.status_code == 200, done.text
    shown = done.json()
    assert (shown["state"], shown["requested_by"], shown["decided_by"]) == ("approved", filer.id, approver.id)
    auditor = person(api, "auditor")
    posted = auditor.get(f"/v1/ledger/transactions/{shown['result']['transaction']}").json()
    assert (posted["kind"], posted["effective_on"]) == ("manual", "2026-03-01")
    again = approver.approve(approval, key="one")
    assert (again.json(), again.headers["idempotency-replayed"]) == (shown, "true")
    assert code_of(approver.approve(approval)) == "request_closed"
    assert code_of(filer.post(f"/v1/approvals/{approval}/withdrawal", {})) == "request_closed"
    assert manual_transactions(api) == 1


def test_who_may_not_decide_cannot_and_the_log_says_they_tried(api: Served, filer: Person) -> None:
    (programme,) = (row[0] for row in api.rows("select id from products.programme"))
    approval = asked_for(filer)
    with api.services.worker.begin() as tx:
        machine = create_client(
            tx, name="robot", roles=["manager"], environment=Environment.SANDBOX, at=api.clock.now()
        )
    robot = Caller(api.http, machine, None)
    robot.authenticate()
    path = f"/v1/approvals/{approval}/approval"
    unconfirmed = person(api, "manager", confirmed=False)
    tried = [
        (filer, "second_person_required", 409),
        (unconfirmed, "confirmation_required", 409),
        (person(api, "administrator"), "not_found", 404),
        (person(api, "manager", programmes=[UUID(str(programme))]), None, 200),
        (person(api, "auditor"), "insufficient_scope", 403),
    ]
    for who, code, status in [tried[0], tried[1], tried[2], tried[4]]:
        assert code_of(who.approve(approval), status) == code
    headers = {"Idempotency-Key": "robot"}
    assert code_of(robot.post(path, {}, headers=headers), 403) == "insufficient_scope"
    assert code_of(api.acme.post(path, {}, headers=headers), 403) == "insufficient_scope"
    assert manual_transactions(api) == 0
    entries = logged(tried[4][0], outcome="refused")
    seen = {(one["actor"], one["action"], one["object"], one["detail"]["code"]) for one in entries}
    assert seen == {
        *((who.id, "approve_request", approval, code) for who, code, status in tried if status != 200),
        (robot.client.client_id, "approve_request", approval, "insufficient_scope"),
        (api.acme.client.client_id, "approve_request", approval, "insufficient_scope"),
    }
    assert all(one["address"] == "127.0.0.1" and one["request_id"] for one in entries)
    # a manager of this programme alone, and not one of another
    assert tried[3][0].approve(approval).status_code == 200


def test_each_look_of_an_operator_at_a_member_and_each_change_without_a_name_is_in_the_log(
    api: Served, filer: Person
) -> None:
    member = a_member(api.acme)
    assert filer.get(f"/v1/members/{member}").status_code == 200
    assert filer.get("/v1/ledger/trial-balance").status_code == 200
    assert code_of(filer.post("/v1/members", {}), 403) == "insufficient_scope"
    entries = logged(person(api, "auditor"), actor=filer.id)
    assert [(one["action"], one["object"], one["outcome"]) for one in entries] == [
        ("get_member", member, "done"),
        ("register_member", "/v1/members", "refused"),
    ]
    assert (
        logged(api.auditor, actor=api.acme.client.client_id) == []
    )  # what a partner does is with the thing itself


def test_a_confirmation_is_old_after_five_minutes_and_a_request_after_seven_days(
    api: Served, filer: Person, approver: Person
) -> None:
    first, second = asked_for(filer), asked_for(filer)
    api.clock.advance(timedelta(minutes=5))
    assert approver.approve(first).status_code == 200
    api.clock.advance(timedelta(seconds=1))
    assert code_of(approver.approve(second)) == "confirmation_required"
    api.clock.advance(timedelta(days=7))
    assert code_of(person(api, "manager").approve(second)) == "request_closed"
    kinds.request_and_expire(api.services)
    shown = filer.get(f"/v1/approvals/{second}").json()
    assert (shown["state"], shown["decided_by"]) == ("expired", None)
    assert [one["object"] for one in logged(person(api, "auditor"), action="approval.expired")] == [second]


def test_what_is_refused_or_withdrawn_does_nothing_and_stays_so(
    api: Served, filer: Person, approver: Person
) -> None:
    refused, withdrawn = asked_for(filer), asked_for(filer)
    assert approver.post(f"/v1/approvals/{refused}/refusal", {"remark": "no"}).json()["state"] == "refused"
    assert code_of(approver.post(f"/v1/approvals/{withdrawn}/withdrawal", {}), 404) == "not_found"
    assert filer.post(f"/v1/approvals/{withdrawn}/withdrawal", {}).json()["state"] == "withdrawn"
    for approval in (refused, withdrawn):
        assert code_of(approver.approve(approval)) == "request_closed"
    listed = filer.get("/v1/approvals", params={"kind": "manual_transaction"}).json()["data"]
    assert {one["id"]: one["state"] for one in listed} == {refused: "refused", withdrawn: "withdrawn"}
    assert manual_transactions(api) == 0


def test_two_who_approve_at_once_do_it_once(api: Served, filer: Person, approver: Person) -> None:
    other = person(api, "manager")
    for _ in range(5):
        before, approval = manual_transactions(api), asked_for(filer)
        answers: list[int] = []
        at_once(
            lambda: answers.append(approver.approve(approval).status_code),  # noqa: B023  run before the next turn
            lambda: answers.append(other.approve(approval).status_code),  # noqa: B023
        )
        assert sorted(answers) == [200, 409]
        assert manual_transactions(api) == before + 1


def test_an_answer_that_got_lost_is_given_again_and_nothing_twice(
    api: Served, filer: Person, approver: Person
) -> None:
    approval = asked_for(filer)
    host, port = api.url.removeprefix("http://").split(":")
    body = b"{}"
    head = (
        f"POST /v1/approvals/{approval}/approval HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {approver.token}\r\nIdempotency-Key: lost\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as line:
        line.sendall(head.encode() + body)
        line.shutdown(socket.SHUT_WR)
        line.recv(1)  # the answer is on its way: the effect is committed, and nobody reads the rest
    again = approver.post(f"/v1/approvals/{approval}/approval", {}, key="lost")
    assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true")
    assert manual_transactions(api) == 1


def test_what_no_longer_fits_is_refused_and_stays_open(api: Served, filer: Person, approver: Person) -> None:
    of = accounts(api)
    received = asked_for(filer)
    amount = filer.get(f"/v1/approvals/{received}").json()["payload"]["postings"][0]["amount"]
    assert approver.approve(received).status_code == 200
    back = {
        "debit": of["unidentified_receipts"],
        "credit": of["bank"],
        "amount": {"amount": amount, "currency": "RWF"},
    }
    sent_back = [
        requested(
            filer.post(
                "/v1/ledger/transactions",
                {"postings": [back], "reason": why},
                key=f"back-{why}",
            )
        )["id"]
        for why in ("first", "second")
    ]
    # the same postings under another remark are the same request
    assert sent_back[0] == sent_back[1]
    third = requested(
        filer.post(
            "/v1/ledger/transactions",
            {"postings": [back], "reason": "third", "effective_on": "2026-03-02"},
            key="back-third",
        )
    )["id"]
    assert approver.approve(sent_back[0]).status_code == 200
    assert code_of(approver.approve(third)) == "insufficient_funds"
    assert filer.get(f"/v1/approvals/{third}").json()["state"] == "requested"
    refused = [one for one in logged(api.auditor, outcome="refused") if one["object"] == third]
    assert [one["detail"]["code"] for one in refused] == ["insufficient_funds"]


def test_what_the_books_would_refuse_cannot_even_be_asked_for(api: Served, filer: Person) -> None:
    of = accounts(api)
    member = a_member(api.acme)
    send(api.acme, a_remittance(member))
    rows = api.rows(
        "select code, id from ledger.account where code in ('member_savings', 'match_unvested', 'partner_receivable')"
        " and owner <> ''"
    )
    savings = {code: public_id("acc", id_) for code, id_ in rows}

    def ask(debit: str, credit: str, amount: int = 10, currency: str = "RWF", **more: Any) -> httpx.Response:
        posting = {"debit": debit, "credit": credit, "amount": {"amount": amount, "currency": currency}}
        return filer.post(
            "/v1/ledger/transactions",
            {"postings": [posting], "reason": "by hand"} | more,
            key=f"ask-{next(_numbers)}",
        )

    assert code_of(ask(of["unidentified_receipts"], of["bank"])) == "insufficient_funds"
    assert code_of(ask(of["bank"], of["unidentified_receipts"], currency="PHP"), 422) == "invalid_posting"
    assert code_of(ask(of["bank"], of["bank"]), 422) == "invalid_posting"
    for derived in ("match_unvested", "partner_receivable"):
        assert code_of(ask(savings[derived], of["bank"]), 422) == "invalid_request"
    assert code_of(ask(of["bank"], public_id("acc", UUID(int=0))), 422) == "invalid_request"
    assert code_of(ask(savings["member_savings"], of["bank"]), 422) == "invalid_request"
    assert ask(savings["member_savings"], of["bank"], member_reason="a court's order").status_code == 202
    assert code_of(ask(of["bank"], of["unidentified_receipts"], amount=0), 422) in (
        "invalid_request",
        "invalid_posting",
    )
    assert filer.post("/v1/ledger/transactions", a_transaction(api)).status_code == 400
    assert manual_transactions(api) == 0


def settled_remittance(api: Served, number: int = 1) -> tuple[str, str]:
    """A remittance that its partner has paid in: its id and its member's."""
    member = a_member(api.acme, number)
    remittance = send(api.acme, a_remittance(member, remittance_id=f"R-{number}"), f"send-{number}").json()[
        "id"
    ]
    with api.services.worker.begin() as tx:
        done = record_settlement(
            tx,
            api.services.books,
            find(tx, "acme"),
            currency="RWF",
            amount=15_000,
            through=api.clock.now().date(),
            reference=f"paid-{number}",
        )
    assert done.contributions
    return remittance, member


TAKEN_BACK = {"reversed_at": "2026-03-02T09:25:00Z", "reason": "the sender cancelled"}


def test_a_reversal_of_what_is_settled_becomes_a_request(api: Served, approver: Person) -> None:
    remittance, member = settled_remittance(api)
    path = f"/v1/remittances/{remittance}/reversal"
    first = api.acme.post(path, TAKEN_BACK, headers={"Idempotency-Key": "back-1"})
    assert code_of(first) == "approval_required"
    assert first.headers["content-type"] == "application/problem+json"
    approval = first.json()["approval"]
    later = api.acme.post(path, TAKEN_BACK | {"reason": "again"}, headers={"Idempotency-Key": "back-2"})
    assert later.json()["approval"] == approval
    shown = approver.get(f"/v1/approvals/{approval}").json()
    assert (shown["kind"], shown["object"]) == ("remittance_reversal", remittance)
    assert approver.approve(approval).status_code == 200
    assert api.acme.get(f"/v1/remittances/{remittance}").json()["status"] == "reversed"
    assert api.acme.get(f"/v1/members/{member}/balances").json()["total"]["amount"] == 0
    (entry,) = logged(api.auditor, action="approval.requested")
    assert (entry["actor_kind"], entry["actor"]) == ("partner", api.acme.client.client_id)


def parked_reversal(api: Served, remittance_id: str) -> UUID:
    """A webhook that takes a settled remittance back, drained: it is parked."""
    assert api.acme.partner is not None
    event = {
        "type": "remittance.reversed",
        "timestamp": "2026-03-02T09:30:00Z",
        "data": {"remittance_id": remittance_id} | TAKEN_BACK,
    }
    body = json.dumps(event).encode()
    received = understood(api.acme.partner, remittance_id, body, StandardFormat().read(body), api.clock.now())
    services = api.services
    key = InboxKeys(services.api, services.keyring, api.clock).current()
    [receipt] = services.api.run(lambda tx: store(tx, [received], key))
    drain(services.worker, partial(process, books=services.books), api.clock, services.books.keyring)
    assert delivery(api, receipt.id)[0] == "parked"
    return receipt.id


def delivery(api: Served, delivery_id: UUID) -> tuple[str, str | None]:
    """The standing state and reason of a delivery, as its partner sees it."""
    shown = api.acme.get(f"/v1/deliveries/{public_id('dlv', delivery_id)}").json()
    return shown["state"], shown["reason"]


def test_a_reversal_that_came_as_a_webhook_is_asked_for_and_ends_with_the_decision(
    api: Served, approver: Person
) -> None:
    ids = [settled_remittance(api, number)[0] for number in (1, 2)]
    deliveries = [parked_reversal(api, f"R-{number}") for number in (1, 2)]
    kinds.request_and_expire(api.services)
    kinds.request_and_expire(api.services)
    found = {one["object"]: one for one in approver.get("/v1/approvals").json()["data"]}
    assert set(found) == set(ids)
    assert {one["requested_by"] for one in found.values()} == {
        public_id("ptn", api.acme.partner or UUID(int=0))
    }
    assert approver.approve(found[ids[0]]["id"]).status_code == 200
    assert approver.post(f"/v1/approvals/{found[ids[1]]['id']}/refusal", {}).status_code == 200
    assert delivery(api, deliveries[0]) == ("reversed", None)
    assert delivery(api, deliveries[1]) == ("quarantined", "reversal_refused")
    statuses = [api.acme.get(f"/v1/remittances/{one}").json()["status"] for one in ids]
    assert statuses == ["reversed", "posted"]
    kinds.request_and_expire(api.services)
    assert len(approver.get("/v1/approvals").json()["data"]) == 2


def test_a_write_off_of_a_partners_debt_makes_its_members_whole(
    api: Served, filer: Person, approver: Person
) -> None:
    send(api.acme, a_remittance(a_member(api.acme)))
    debt = {"partner": "acme", "currency": "RWF", "through": "2026-03-02", "cause": "default"}
    body = {"partner_debt": debt, "reason": "insolvent"}
    approval = requested(filer.post("/v1/ledger/write-offs", body, key="w-1"))
    owed = approval["payload"]["amount"]
    assert owed > 0
    assert (
        code_of(filer.post("/v1/ledger/write-offs", {"reason": "none"}, key="w-2"), 422) == "invalid_request"
    )
    done = approver.approve(approval["id"])
    assert done.status_code == 200, done.text
    assert code_of(filer.post("/v1/ledger/write-offs", body, key="w-3")) == "debt_changed"
    balances = {
        (fund, code): amount
        for fund, code, amount in api.rows(
            "select f.code, a.code, (b.debits - b.credits)::bigint from ledger.account a"
            " join ledger.fund f on f.id = a.fund_id join ledger.account_balance b on b.account_id = a.id"
            " where a.code in ('credit_loss', 'due_to_funds', 'due_from_funds', 'partner_receivable')"
        )
        if amount
    }
    assert balances[("ejoheza/administrator", "credit_loss")] == owed
    assert balances[("ejoheza/administrator", "due_to_funds")] == -owed
    assert sum(amount for (_, code), amount in balances.items() if code == "due_from_funds") == owed
    assert not any(code == "partner_receivable" for _, code in balances)


def test_a_write_off_of_a_debt_that_changed_is_refused(api: Served, filer: Person, approver: Person) -> None:
    send(api.acme, a_remittance(a_member(api.acme)))
    debt = {"partner": "acme", "currency": "RWF", "through": "2026-03-02", "cause": "fee"}
    approval = requested(
        filer.post("/v1/ledger/write-offs", {"partner_debt": debt, "reason": "fee"}, key="w-1")
    )["id"]
    settled_remittance(api, 2)
    send(api.acme, a_remittance(a_member(api.acme, 3), remittance_id="R-3"), "k-3")
    assert code_of(approver.approve(approval)) == "debt_changed"


def test_what_a_member_owes_is_written_off_up_to_what_is_owed(
    api: Served, filer: Person, approver: Person
) -> None:
    remittance, _ = settled_remittance(api)
    rows = api.rows(
        "select code, id from ledger.account where code in ('member_savings', 'member_receivable')"
    )
    of = accounts(api) | {code: public_id("acc", id_) for code, id_ in rows}
    spent = {
        "debit": of["member_savings"],
        "credit": of["bank"],
        "amount": {"amount": 15_000, "currency": "RWF"},
    }
    paid_out = requested(
        filer.post(
            "/v1/ledger/transactions",
            {"postings": [spent], "reason": "paid out", "member_reason": "paid out by hand"},
            key="spend",
        )
    )["id"]
    assert approver.approve(paid_out).status_code == 200
    asked = api.acme.post(
        f"/v1/remittances/{remittance}/reversal", TAKEN_BACK, headers={"Idempotency-Key": "b"}
    ).json()["approval"]
    assert approver.approve(asked).status_code == 200

    def ask(amount: int, key: str) -> httpx.Response:
        debt = {"account": of["member_receivable"], "amount": amount}
        return filer.post("/v1/ledger/write-offs", {"member_debt": debt, "reason": "gone"}, key=key)

    assert code_of(ask(15_001, "m-1")) == "debt_changed"
    whole = requested(ask(15_000, "m-2"))["id"]
    assert code_of(ask(5_000, "m-3")) == "request_open"
    assert approver.approve(whole).status_code == 200
    assert code_of(ask(1, "m-4")) == "debt_changed"
    (left,) = api.rows(
        "select (b.debits - b.credits)::bigint from ledger.account a join ledger.account_balance b"
        " on b.account_id = a.id where a.code = 'member_receivable'"
    )
    assert left == (0,)


def vested_beyond_entitlement(api: Served) -> int:
    """Match of a member vested, and then its remittance reversed: the excess, proposed to fall."""
    with api.services.worker.begin() as tx:
        sponsors.fund_sponsor(
            tx, api.services.books, programme="ejoheza", sponsor="gov-rw", amount=1_000_000, reference="first"
        )
    remittance = send(api.acme, a_remittance(a_member(api.acme))).json()
    with api.services.worker.begin() as tx:
        row = tx.exec_driver_sql(
            "select h.unvested, e.unvested_account, e.vested_account from products.match_share h"
            " join products.enrolment e on e.id = h.enrolment_id where h.unvested > 0"
        ).one()
        [posted] = post(
            tx,
            [
                Transaction(
                    "vested:test",
                    "match_vested",
                    date(2026, 3, 2),
                    (Posting(row.unvested_account, row.vested_account, row.unvested, "RWF"),),
                    sha256(b"vested").digest(),
                )
            ],
            clock=api.clock,
        )
        assert posted.status == "posted"
        tx.exec_driver_sql(
            "update products.match_share set vested = unvested, unvested = 0 where unvested > 0"
        )
    answer = api.acme.post(
        f"/v1/remittances/{remittance['id']}/reversal", TAKEN_BACK, headers={"Idempotency-Key": "b"}
    )
    assert answer.status_code == 200, answer.text
    return int(row.unvested)


@pytest.mark.parametrize("approved", [True, False])
def test_vested_match_falls_only_when_a_person_says_so(
    api: Served, approver: Person, *, approved: bool
) -> None:
    excess = vested_beyond_entitlement(api)
    kinds.request_and_expire(api.services)
    kinds.request_and_expire(api.services)
    (request,) = approver.get("/v1/approvals", params={"kind": "match_adjustment"}).json()["data"]
    assert (request["payload"]["amount"], request["requested_by"]) == (excess, "system")
    path = f"/v1/approvals/{request['id']}/{'approval' if approved else 'refusal'}"
    decided = approver.post(path, {}, key="adjust")
    assert decided.status_code == 200, decided.text
    kinds.request_and_expire(api.services)
    assert len(approver.get("/v1/approvals").json()["data"]) == 1
    (held,) = api.rows("select sum(vested)::bigint from products.match_share")
    assert held == (0 if approved else excess,)
    (state,) = api.rows("select state from products.match_adjustment")
    assert state == ("approved" if approved else "refused",)


def test_a_period_is_reopened_by_two(api: Served, filer: Person, approver: Person) -> None:
    with api.services.worker.begin() as tx:
        fund = tx.exec_driver_sql("select id from ledger.fund where code = 'ejoheza/savers'").scalar_one()
        tx.exec_driver_sql(
            "select ledger.move_period(%s, gen_random_uuid(), '2026-02-28', 'close', '', 'test', now())",
            (fund,),
        )
    body = {"fund": "ejoheza/savers", "through": "2026-01-31", "reason": "a late statement"}
    approval = requested(filer.post("/v1/periods/reopenings", body))["id"]
    assert requested(filer.post("/v1/periods/reopenings", body))["id"] == approval
    assert code_of(filer.post("/v1/periods/reopenings", body | {"through": "2025-12-31"})) == "request_open"
    assert code_of(filer.post("/v1/periods/reopenings", body | {"through": "2026-02-28"})) == "request_stale"
    assert code_of(filer.post("/v1/periods/reopenings", body | {"fund": "none"}), 404) == "not_found"
    assert approver.approve(approval).status_code == 200
    events = api.rows("select kind, through::text, remark, actor from ledger.period_event order by kind")
    assert events[-1][:3] == ("reopen", "2026-01-31", "a late statement")
    assert filer.id in events[-1][3]
    assert approver.id in events[-1][3]


def test_a_programme_version_is_applied_by_two_administrators(api: Served) -> None:
    one, two = person(api, "administrator"), person(api, "administrator")
    (source,) = (row[0] for row in api.rows("select source from products.programme_version"))
    assert code_of(one.post("/v1/programmes", {"source": source})) == "request_stale"
    assert code_of(one.post("/v1/programmes", {"source": "slug: [nonsense"}), 422) == "invalid_programme"
    newer = source.replace("version: 1", "version: 2", 1)
    assert newer != source
    approval = requested(one.post("/v1/programmes", {"source": newer, "remark": "second"}))["id"]
    (before,) = api.rows("select count(*) from products.programme_version")
    assert before == (1,)
    assert code_of(person(api, "manager").approve(approval), 404) == "not_found"
    assert code_of(one.approve(approval)) == "second_person_required"
    done = two.approve(approval)
    assert done.status_code == 200, done.text
    assert done.json()["result"]["version"] == 2
    (after,) = api.rows("select max(version) from products.programme_version")
    assert after == (2,)


def test_the_log_is_the_auditors_alone_page_by_page_and_proves_itself(
    api: Served, databases: Databases, filer: Person, approver: Person
) -> None:
    for _ in range(3):
        assert approver.approve(asked_for(filer)).status_code == 200
    auditor = person(api, "auditor")
    for nobody in (filer, person(api, "administrator"), api.acme):
        assert code_of(nobody.get("/v1/audit"), 403) == "insufficient_scope"
    assert len(logged(auditor, action="approval")) == 6
    assert len(logged(auditor, actor=approver.id, action="approval.approved")) == 3
    assert logged(auditor, to="2026-03-02T09:00:00Z") == []
    page = auditor.get("/v1/audit", params={"limit": "4"}).json()
    rest = auditor.get("/v1/audit", params={"limit": "4", "cursor": page["next_cursor"]}).json()
    seen = [one["id"] for one in page["data"] + rest["data"]]
    assert seen == sorted(set(seen), key=seen.index)
    assert (
        code_of(auditor.get("/v1/audit", params={"actor": "x", "cursor": page["next_cursor"]}), 400)
        == "invalid_cursor"
    )
    entry = logged(auditor, action="approval.approved")[0]
    assert entry["after"]["transaction"].startswith("txn_")

    pending = auditor.get(f"/v1/audit/{entry['id']}/proof").json()
    assert (pending["status"], pending["proof"]) == ("pending", None)
    with databases.sealer.begin() as tx:
        assert seal(tx, SealingKey.generate(), api.clock) is not None
    proven = auditor.get(f"/v1/audit/{entry['id']}/proof").json()
    published = api.http.get("/.well-known/mizan-seals").json()
    keys = {key: bytes.fromhex(value) for key, value in published["keys"].items()}
    proof = EntryProof.from_json(proven["proof"])
    verify_entry(proven["fields"], proof, keys)
    assert proof.seal.to_json() in published["seals"]
    for change in ({"actor": filer.id}, {"before_digest": "00" * 32}, {"xid": 3}, {"detail": None}):
        with pytest.raises(InvalidInput):
            verify_entry(proven["fields"] | change, proof, keys)
    with pytest.raises(InvalidInput):
        verify_entry(proven["fields"], proof, {})
    assert auditor.get(f"/v1/audit/{public_id('aud', UUID(int=5))}/proof").status_code == 404


def test_values_are_destroyed_when_their_time_is_over_and_the_log_still_verifies(
    api: Served, filer: Person, approver: Person
) -> None:
    approval = asked_for(filer)
    assert approver.approve(approval).status_code == 200
    auditor = person(api, "auditor")
    (entry,) = logged(auditor, action="approval.approved")
    assert entry["after"] is not None
    with api.services.worker.begin() as tx:
        assert auditing.destroy_keys(tx, api.clock.now() + timedelta(days=90)) == 0
        assert auditing.destroy_keys(tx, api.clock.now() + timedelta(days=91, seconds=1)) == 1
    (entry_later,) = logged(auditor, action="approval.approved")
    assert entry_later["after"] is None
    assert entry_later["after_digest"] == entry["after_digest"]
    shown = auditor.get(f"/v1/approvals/{approval}").json()
    assert (shown["payload"], shown["state"]) == (None, "approved")
    sealed = api.rows("select after from ledger.audit_entry where after is not null")
    assert all(b"txn_" not in bytes(row[0]) for row in sealed)


def test_the_database_lets_nobody_decide_for_themselves_or_twice(
    api: Served, filer: Person, approver: Person, databases: Databases
) -> None:
    open_, closed = asked_for(filer), asked_for(filer)
    assert approver.approve(closed).status_code == 200
    for approval, change in (
        (open_, "state = 'approved', decided_at = now(), decided_by = requested_by"),
        (open_, "state = 'approved', decided_at = now()"),
        (open_, "payload_digest = decode(repeat('00', 32), 'hex')"),
        (open_, "requested_by = 'opr_x'"),
        (closed, "state = 'refused', decided_by = 'opr_x'"),
        (closed, "state = 'requested', decided_at = NULL"),
    ):
        statement = text(f"UPDATE api.approval_request SET {change} WHERE id = :id")
        with pytest.raises(DBAPIError), databases.worker.begin() as tx:
            tx.execute(statement, {"id": parse_public_id("apr", approval)})
    with pytest.raises(DBAPIError), databases.worker.begin() as tx:
        tx.execute(text("DELETE FROM api.approval_request"))
