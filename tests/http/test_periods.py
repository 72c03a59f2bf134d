"""A programme's months over the API: the check-list, explanations, the close by two persons, packs, figures, the books as a file."""

import hashlib
import io
import json
from datetime import timedelta
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from api.auth.clients import create_client
from api.closing import verify_asked
from api.settings import Environment
from integrations.inbox.drain import drain
from integrations.inbox.keys import InboxKeys
from integrations.inbox.received import understood
from integrations.inbox.store import store
from integrations.partners.standard import StandardFormat
from ledger.ids import new_id, public_id
from ledger.reconciliation import items
from ledger.seals import SealingKey, seal
from products.programmes.loader import catalogue
from products.programmes.registry import apply
from products.remittances.process import process
from tests.conftest import Databases
from tests.http.deciding import a_transaction, code_of, requested, settled_remittance
from tests.http.operators import Person, person
from tests.http.served import Caller, Served
from tests.http.test_remittances import a_remittance, send

MARCH = "/v1/periods/ejoheza/2026-03"


@pytest.fixture
def manager(api: Served) -> Person:
    """March is over: money came in and a delivery nobody could read; a manager logs in."""
    settled_remittance(api)
    quarantined(api)
    api.clock.advance(timedelta(days=32))
    return person(api, "manager")


def quarantined(api: Served, name: str = "Q-1", *, ago: timedelta = timedelta(0)) -> None:
    """A delivery of 12.34 Emirati dirhams, which are not the programme's currency, that came so long ago."""
    assert api.acme.partner is not None
    body = {
        "type": "remittance.completed",
        "timestamp": "2026-03-02T09:30:00Z",
        "data": {
            "remittance_id": name,
            "member": {"phone": "+971501234567"},
            "sent": {"amount": 50_000, "currency": "AED"},
            "received": {"amount": 50_000, "currency": "AED"},
            "collected": {"amount": 1_234, "currency": "AED"},
            "origin_country": "AE",
            "destination_country": "RW",
            "completed_at": "2026-03-02T09:29:41Z",
        },
    }
    raw = json.dumps(body).encode()
    received = understood(api.acme.partner, name, raw, StandardFormat().read(raw), api.clock.now() - ago)
    services = api.services
    key = InboxKeys(services.api, services.keyring, api.clock).current()
    services.api.run(lambda tx: store(tx, [received], key))
    drain(services.worker, partial(process, books=services.books), api.clock, services.books.keyring)


def item_of(checklist: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [one for one in checklist["items"] if one["item"] == name]
    return dict(found)


def the_bank_says_nothing_moved(api: Served) -> None:
    """The savers' account is registered, its statement of March is empty, and what the books have is collected."""
    account, file = new_id(), new_id()
    with api.services.worker.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO ledger.bank_account (id, slug, name, fund_id, account_id, currency, identification,"
                " statements_since, opened_at) SELECT :id, 'savers', 'Bank of Kigali', a.fund_id, a.id, 'RWF', 'RW01',"
                " '2026-03-01', :now FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id"
                " WHERE f.code = 'ejoheza/savers' AND a.code = 'bank'"
            ),
            {"id": account, "now": api.clock.now()},
        )
        tx.execute(
            text(
                "INSERT INTO ledger.statement_file (id, digest, name, format, bytes, received_at, received_by, wrapped_key)"
                " VALUES (:id, sha256('x'), 'x', 'camt.053', 1, :now, 'test', 'k')"
            ),
            {"id": file, "now": api.clock.now()},
        )
        tx.execute(
            text(
                "INSERT INTO ledger.bank_statement (id, file_id, position, bank_account_id, from_on, to_on, opening, closing,"
                " lines, imported_at) VALUES (:id, :file, 1, :account, '2026-03-01', '2026-03-31', 0, 0, 0, :now)"
            ),
            {"id": new_id(), "file": file, "account": account, "now": api.clock.now()},
        )
    while api.services.worker.run(lambda tx: items.collect(tx, [])):
        pass


def everything_is_sealed(api: Served, databases: Databases) -> None:
    key = SealingKey.generate()
    while databases.sealer.run(lambda tx: seal(tx, key, api.clock)) is not None:
        pass


def staff(api: Served) -> Caller:
    """A machine of the fund's own, with a manager's role."""
    with api.services.worker.begin() as tx:
        made = create_client(
            tx, name="staff", roles=["manager"], environment=Environment.SANDBOX, at=api.clock.now()
        )
    caller = Caller(api.http, made, None)
    caller.authenticate()
    return caller


def make_green(api: Served, manager: Person, databases: Databases) -> None:
    """What is missing is brought in, what may be explained is explained, the worker verifies."""
    the_bank_says_nothing_moved(api)
    verified_and_sealed(api, manager, databases)
    manager.get(f"{MARCH}/checklist")  # finds the breaks
    for [break_id] in api.rows("select id from products.break where ended_at is null"):
        path = f"/v1/breaks/{public_id('brk', break_id)}/assignment"
        assert manager.post(path, {"owner": manager.id, "remark": "the bank was asked"}).status_code == 200
    for item in ("event_totals", "quarantine"):
        said = {"remark": "acme's e-mail of 1 April"} | (
            {"owner": manager.id} if item == "quarantine" else {}
        )
        assert manager.call("PUT", f"{MARCH}/explanations/{item}", said).json()["state"] == "explained"
    assert red(manager) == set()


def verified_and_sealed(api: Served, manager: Person, databases: Databases) -> None:
    everything_is_sealed(api, databases)
    assert manager.post(f"{MARCH}/verification").status_code == 202
    assert verify_asked(api.services)


def red(manager: Person) -> set[str]:
    """The lines of the check-list that are red."""
    shown = manager.get(f"{MARCH}/checklist").json()
    assert shown["green"] is all(one["state"] != "red" for one in shown["items"])
    return {one["item"] for one in shown["items"] if one["state"] == "red"}


def test_each_line_of_the_checklist_that_is_broken_is_red_and_keeps_the_month_open_though_the_close_was_asked_for(
    api: Served, manager: Person, databases: Databases
) -> None:
    make_green(api, manager, databases)
    approver = person(api, "manager")
    closing = requested(manager.post(f"{MARCH}/close", {"remark": "March"}, key="c"))["id"]

    def is_red(*lines: str) -> None:
        assert red(manager) == set(lines)
        assert code_of(approver.approve(closing)) == "checklist_not_green"
        assert (
            code_of(manager.post(f"{MARCH}/close", {"remark": "March"}, key=f"again-{lines}"))
            == "checklist_not_green"
        )
        assert manager.get(MARCH).json()["state"] == "open"

    # to expect statements later is no way around them
    savers = "/v1/bank-accounts/savers"
    assert manager.call("PATCH", savers, {"statements_since": "2026-04-01"}).status_code == 200
    is_red("statements")
    assert manager.call("PATCH", savers, {"statements_since": "2026-03-01"}).status_code == 200
    assert red(manager) == set()

    # another delivery of the month that nobody can read: not what was listed and owned
    quarantined(api, "Q-2", ago=timedelta(days=31))
    is_red("quarantine")
    owned = {"remark": "they send them again", "owner": manager.id}
    assert manager.call("PUT", f"{MARCH}/explanations/quarantine", owned).status_code == 200
    assert red(manager) == set()

    # money of the month that nobody knows, posted by hand: not verified, in suspense, and the bank has no such line
    by_hand = a_transaction(api, 700, effective_on="2026-03-30")
    asked = requested(manager.post("/v1/ledger/transactions", by_hand, key="by-hand"))["id"]
    assert approver.approve(asked).status_code == 200
    is_red("verified", "sub_ledgers", "suspense")
    while api.services.worker.run(lambda tx: items.collect(tx, [])):
        pass
    verified_and_sealed(api, manager, databases)
    is_red("breaks", "suspense")
    for item in ("breaks", "suspense"):
        assert manager.call("PUT", f"{MARCH}/explanations/{item}", {"remark": "asked for"}).status_code == 200
    assert red(manager) == set()

    # an event that came late: not verified, and not the total that was confirmed
    api.acme.authenticate()
    [(member,)] = api.rows("select id from products.member_link")
    late = a_remittance(public_id("mem", member), remittance_id="LATE", completed_at="2026-03-29T09:20:00Z")
    assert send(api.acme, late, "late").status_code == 201
    is_red("verified", "event_totals")
    told = {"remark": "acme's second e-mail"}
    assert manager.call("PUT", f"{MARCH}/explanations/event_totals", told).status_code == 200
    verified_and_sealed(api, manager, databases)
    assert red(manager) == set()

    # records that do not tie to their accounts; then books that were changed
    with databases.superuser.begin() as tx:
        tx.execute(
            text(
                "UPDATE products.contribution SET amount = amount + 1 WHERE remittance IN (SELECT id FROM products.remittance WHERE remittance_id = 'LATE')"
            )
        )
    is_red("sub_ledgers")
    with databases.superuser.begin() as tx:
        tx.execute(
            text(
                "UPDATE products.contribution SET amount = amount - 1 WHERE remittance IN (SELECT id FROM products.remittance WHERE remittance_id = 'LATE')"
            )
        )
    assert red(manager) == set()
    with databases.superuser.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text("UPDATE ledger.transaction SET reference = 'another' WHERE kind = 'manual'"))
    verified_and_sealed(api, manager, databases)
    is_red("verified")
    with databases.superuser.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(
            text("UPDATE ledger.transaction SET reference = :was WHERE reference = 'another'"),
            {"was": f"manual:{asked}"},
        )


def test_a_month_closes_with_its_pack_when_two_have_seen_that_its_checklist_is_green(
    api: Served, manager: Person, databases: Databases
) -> None:
    asked = {"remark": "March"}
    listed = manager.get("/v1/periods", params={"programme": "ejoheza"}).json()["data"]
    assert {one["month"]: (one["state"], one["over"]) for one in listed} == {
        "2026-04": ("open", False),
        **({"2026-03": ("open", True)} if len(listed) > 1 else {}),
    }
    shown = manager.get(f"{MARCH}/checklist").json()
    assert shown["green"] is False
    states = {one["item"]: one["state"] for one in shown["items"]}
    assert states == {
        "statements": "red",
        "breaks": "red",  # settled, and one of its deliveries quarantined
        "verified": "red",
        "sub_ledgers": "green",
        "suspense": "green",
        "quarantine": "red",
        "event_totals": "red",
    }
    [parked] = item_of(shown, "quarantine")["findings"]
    assert (parked["amount"], parked["count"]) == ({"amount": 1_234, "currency": "AED"}, 1)
    assert code_of(manager.post(f"{MARCH}/close", asked, key="c-1")) == "checklist_not_green"
    assert code_of(manager.post("/v1/periods/ejoheza/2026-04/close", asked, key="c-2")) == "period_not_over"

    # what is missing is brought in, what may be explained is explained, the worker verifies
    the_bank_says_nothing_moved(api)
    everything_is_sealed(api, databases)
    asked_for = manager.post(f"{MARCH}/verification").json()
    assert manager.post(f"{MARCH}/verification").json() == asked_for
    assert verify_asked(api.services) is True
    assert verify_asked(api.services) is False
    explaining = f"{MARCH}/explanations"
    said = {"remark": "acme's e-mail of 1 April"}
    assert code_of(manager.call("PUT", f"{explaining}/statements", said)) == "not_explainable"
    assert code_of(manager.call("PUT", f"{explaining}/suspense", said), 404) == "not_found"
    assert code_of(manager.call("PUT", f"{explaining}/quarantine", said), 422) == "invalid_request"
    assert manager.call("PUT", f"{explaining}/event_totals", said).json()["state"] == "explained"
    owned = said | {"owner": manager.id}
    assert manager.call("PUT", f"{explaining}/quarantine", owned).json()["state"] == "explained"
    # what the books have and the bank has not is a break too, which is found when the check-list is judged
    assert code_of(manager.post(f"{MARCH}/close", asked, key="c-3")) == "checklist_not_green"
    broken = item_of(manager.get(f"{MARCH}/checklist").json(), "breaks")["findings"]
    assert {"amount": 15_000, "currency": "RWF"} in [one["amount"] for one in broken]
    with api.services.worker.begin() as tx:
        tx.exec_driver_sql("update products.break set owner = 'opr_x', remark = 'the bank was asked'")
    unexplained = manager.get(f"{MARCH}/checklist").json()
    assert unexplained["green"], unexplained

    preview = manager.get(f"{MARCH}/pack", params={"preview": "true"})
    assert "PREVIEW" in preview.text
    assert preview.headers["content-security-policy"].startswith("default-src 'none'")
    assert code_of(manager.get(f"{MARCH}/pack"), 404) == "not_found"

    approval = requested(manager.post(f"{MARCH}/close", asked, key="c-4"))["id"]
    assert (
        code_of(manager.post(f"/v1/approvals/{approval}/approval", {}, key="a-1")) == "second_person_required"
    )
    approver = person(api, "manager")
    done = approver.approve(approval)
    assert done.status_code == 200, done.text
    assert code_of(manager.post(f"{MARCH}/close", asked, key="c-5")) == "period_not_next"
    everything_is_sealed(api, databases)
    period = manager.get(MARCH).json()
    assert (period["state"], period["close"]["revision"]) == ("closed", 1)
    assert period["close"]["seal"] >= 1
    assert period["close"]["closed_by"] == f"{manager.id}, approved by {approver.id}"
    auditor = person(api, "auditor")
    for form, digest in period["close"]["files"].items():
        content = auditor.get(f"{MARCH}/pack", params={"format": form}).content
        assert hashlib.sha256(content).hexdigest() == digest

    # each figure of the pack is exactly its transactions
    document = auditor.get(f"{MARCH}/pack", params={"format": "json"}).json()
    cells = [
        cell
        for section in document["sections"]
        for table in section["tables"]
        for row in table["rows"]
        for cell in row["cells"]
        if isinstance(cell, dict) and cell.get("figure")
    ]
    for cell in cells[:: len(cells) // 8]:
        path = f"{MARCH}/figures/{cell['figure']}/transactions"
        parts, cursor = [], None
        while True:
            page = auditor.get(path, params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
            parts += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sum(one["amount"]["amount"] for one in parts) == cell["amount"], cell
    assert code_of(auditor.get(f"{MARCH}/figures/none/transactions"), 404) == "not_found"

    # what comes late for it lands in the open month, and says where it belongs
    api.acme.authenticate()
    [(member,)] = api.rows("select id from products.member_link")
    late = a_remittance(public_id("mem", member), remittance_id="LATE", completed_at="2026-03-29T09:20:00Z")
    booked = manager.get(
        f"/v1/ledger/transactions/{send(api.acme, late, 'late').json()['transaction']}"
    ).json()
    assert (booked["effective_on"], booked["belongs_on"]) == ("2026-04-01", "2026-03-29")

    # two persons open it again: a machine is none
    refused = staff(api).post(f"{MARCH}/reopen", {"reason": "x"}, headers={"Idempotency-Key": "m"})
    assert code_of(refused) == "second_person_required"
    again = requested(manager.post(f"{MARCH}/reopen", {"reason": "a fee came late"}, key="r-1"))["id"]
    assert code_of(manager.approve(again)) == "second_person_required"
    assert approver.approve(again).json()["result"]["superseded"] == ["2026-03 revision 1"]
    reopened = manager.get(MARCH).json()
    assert (reopened["state"], reopened["close"]["superseded"]) == ("reopened", True)
    assert reopened["close"]["reopen_reason"] == "a fee came late"


def test_only_staff_of_the_programme_see_its_months(api: Served, manager: Person) -> None:
    other = api.services.worker.run(lambda tx: apply(tx, catalogue()["mp2"], clock=api.clock)).programme_id
    elsewhere = person(api, "manager", programmes=[other])
    for path in (MARCH, f"{MARCH}/checklist", f"{MARCH}/pack?preview=true", "/v1/periods?programme=ejoheza"):
        assert manager.get(path).status_code == 200
        assert code_of(elsewhere.get(path), 404) == "not_found"
    assert code_of(elsewhere.post(f"{MARCH}/close", {}, key="x"), 404) == "not_found"
    api.acme.authenticate()
    assert code_of(api.acme.get(MARCH), 403) == "insufficient_scope"
    assert code_of(manager.get("/v1/periods/ejoheza/2026-13"), 422) == "invalid_request"
    assert elsewhere.get("/v1/books/export").text.count("\r\n") == 2  # a header and the totals of nothing
    assert code_of(elsewhere.get("/v1/books/export?fund=ejoheza/savers"), 404) == "not_found"


def test_the_general_ledger_is_a_file_with_its_control_totals(api: Served, manager: Person) -> None:
    answer = manager.get("/v1/books/export", params={"fund": "ejoheza/savers", "through": "2026-03-31"})
    assert answer.status_code == 200
    header, *rows, last = answer.text.splitlines()
    totals = json.loads(last.removeprefix("# "))
    assert header.startswith("transaction,seq,reference,kind,effective_on")
    assert totals["postings"] == len(rows) > 0
    assert totals["sha256"] == hashlib.sha256("".join(f"{row}\r\n" for row in rows).encode()).hexdigest()
    parquet = manager.get("/v1/books/export", params={"format": "parquet", "through": "2026-03-31"})
    opened = pq.ParquetFile(io.BytesIO(parquet.content))
    assert opened.metadata.num_rows == json.loads((opened.metadata.metadata or {})[b"mizan"])["postings"]
    for _ in range(3):  # a place is given back each time
        assert manager.get("/v1/books/export").status_code == 200
    assert (
        code_of(manager.get("/v1/books/export?from=2026-04-01&through=2026-03-01"), 422) == "invalid_request"
    )
