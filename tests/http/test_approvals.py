"""Two persons for what moves money or rules: who may decide, once, with what is there then; and the log of all of it."""

import socket
from datetime import timedelta
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
from ledger.audit_proof import EntryProof, verify_entry
from ledger.errors import InvalidInput
from ledger.ids import parse_public_id, public_id
from ledger.seals import SealingKey, seal
from tests.conftest import Databases
from tests.http.deciding import (
    a_transaction,
    accounts,
    approver,
    asked_for,
    books_hold,
    code_of,
    filer,
    logged,
    manual_transactions,
    numbers,
    requested,
)
from tests.http.operators import Person, person
from tests.http.served import Caller, Served
from tests.http.test_remittances import a_member, a_remittance, send
from tests.patience import eventually
from tests.racing import at_once

__all__ = ["approver", "books_hold", "filer"]


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
    assert [one["action"] for one in logged(auditor, actor=approver.id)] == ["approval.approved"]
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
        line.sendall(head.encode() + body)  # and nobody is there any more when the answer comes
    path = f"/v1/approvals/{approval}/approval"

    def is_given_again() -> bool:
        again = approver.post(path, {}, key="lost")
        assert again.status_code == 200 or code_of(again) == "idempotency_key_in_use"
        return again.status_code == 200

    eventually(is_given_again)
    assert code_of(approver.approve(approval)) == "request_closed"
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
            key=f"ask-{next(numbers)}",
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
