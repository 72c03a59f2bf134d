"""What each kind of request does when it is approved, and what is left when it is not."""

import json
from functools import partial
from uuid import UUID

import httpx
import pytest

from api.approvals import kinds
from api.jobs import vest_all
from integrations.inbox.drain import drain
from integrations.inbox.keys import InboxKeys
from integrations.inbox.received import understood
from integrations.inbox.store import store
from integrations.partners.standard import StandardFormat
from ledger.ids import public_id
from products.remittances.process import process
from products.savings import sponsors
from tests.http.deciding import (
    TAKEN_BACK,
    accounts,
    approver,
    books_hold,
    code_of,
    filer,
    logged,
    requested,
    settled_remittance,
)
from tests.http.operators import Person, person
from tests.http.served import Served
from tests.http.test_remittances import a_member, a_remittance, send

__all__ = ["approver", "books_hold", "filer"]


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
    vest_all(api.services.worker, api.services.books)
    ((vested,),) = api.rows("select sum(vested)::bigint from products.match_share")
    answer = api.acme.post(
        f"/v1/remittances/{remittance['id']}/reversal", TAKEN_BACK, headers={"Idempotency-Key": "b"}
    )
    assert answer.status_code == 200, answer.text
    return int(vested)


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
