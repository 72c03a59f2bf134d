"""Three-way and the first page over HTTP: pages, files for spreadsheets, links that lead somewhere, and whose eyes see what."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from products.programmes.loader import catalogue
from products.programmes.registry import apply
from products.reconciliation.run import reconcile
from tests.http.operators import Person, person
from tests.http.served import Served
from tests.http.test_bank_statements import manager, mt940
from tests.http.test_bank_statements import send as bring_in
from tests.http.test_remittances import a_member, a_remittance, send
from tests.settled import all_settled
from tests.unit.bank_statement_writers import (
    DAY,
    Statement,
    camt_amount,
    camt_balance,
    camt_document,
    camt_head,
    side,
)

__all__ = ["manager"]

THREE_WAY = "/v1/reconciliation/three-way"
PAGE = "/v1/reconciliation/first-page"


def rwf(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "RWF"}


def links(shown: Any) -> Iterator[str]:
    """Every link of an answer."""
    if isinstance(shown, dict):
        for name, value in shown.items():
            if name == "link":
                yield value
            else:
                yield from links(value)
    elif isinstance(shown, list):
        for one in shown:
            yield from links(one)


def test_a_day_is_compared_three_ways_and_the_first_page_leads_to_what_it_is_made_of(
    api: Served, manager: Person
) -> None:
    for number, caller in enumerate((api.acme, api.acme, api.bolt), 1):
        body = a_remittance(a_member(caller, number), remittance_id=f"R-{number}")
        assert send(caller, body, f"k-{number}").status_code == 201
    paid = {"partner": "acme", "amount": rwf(15_000), "through": "2026-03-02", "reference": "TT-1"}
    recorded = manager.post("/v1/settlements", paid, key="s-1")
    assert recorded.status_code == 201
    statement = mt940(("C15000,", recorded.json()["id"]), ("C77,", "who knows"), closing="C260302RWF16077,")
    assert bring_in(api, manager, statement).status_code == 201
    all_settled(api.services.worker)
    reconcile(api.services.worker, api.services.books)

    asked = {"since": "2026-03-01", "through": "2026-03-02"}
    whole = manager.get(THREE_WAY, params=asked).json()
    rows = {row["partner"]: row for row in whole["data"]}
    acme = rows["acme"]
    assert (acme["announced"], acme["settled"], acme["bank"], acme["owed"]) == tuple(
        map(rwf, (30_000, 15_000, 15_000, 15_000))
    )
    assert (acme["state"], acme["expected_on"], acme["booked_from"]) == (
        "not_due",
        "2026-03-03",
        "2026-03-02",
    )
    [line] = acme["lines"]
    assert (line["amount"], line["booked_on"], line["value_on"], line["paired"]) == (
        rwf(15_000), "2026-03-02", "2026-03-02", True,
    )  # fmt: skip
    [settlement] = acme["settlements"]
    assert manager.get(f"/v1/settlements/{settlement}").json()["reference"] == "TT-1"
    assert (rows["bolt"]["announced"], rows["bolt"]["settled"]) == (rwf(15_000), rwf(0))
    [total] = whole["totals"]
    assert (total["rows"], total["announced"], total["bank"]) == (2, rwf(45_000), rwf(15_000))

    first = manager.get(THREE_WAY, params=asked | {"limit": 1}).json()
    rest = manager.get(THREE_WAY, params=asked | {"limit": 1, "cursor": first["next_cursor"]}).json()
    assert first["data"] + rest["data"] == whole["data"]
    assert (rest["next_cursor"], rest["totals"]) == (None, whole["totals"])
    other = manager.get(THREE_WAY, params=asked | {"partner": "acme", "cursor": first["next_cursor"]})
    assert (other.status_code, other.json()["code"]) == (400, "invalid_cursor")
    sheet = manager.get(THREE_WAY, params=asked | {"format": "csv"})
    lines = list(csv.DictReader(io.StringIO(sheet.text)))
    assert [(one["partner"], one["settled.amount"], one["state"]) for one in lines] == [
        ("acme", "15000", "not_due"),
        ("bolt", "0", "not_due"),
    ]
    for wrong in (
        {"since": "2026-03-02", "through": "2026-03-01"},
        {"since": "2020-01-01"},
        {"state": "lost"},
    ):
        refused = manager.get(THREE_WAY, params={"through": "2026-03-02", **wrong})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")

    [savers] = manager.get(PAGE).json()["data"]
    assert (savers["fund"], savers["lacks_bank_account"]) == ("ejoheza/savers", False)
    assert (savers["cash_total"], savers["owed_and_settled"]) == (rwf(15_000), rwf(45_000))
    assert (savers["surplus"], savers["advanced"]["amount"]) == (rwf(-30_000), rwf(30_000))
    assert savers["receivables_by_age"]["not_due"] == rwf(30_000)
    [bank] = savers["bank_accounts"]
    assert (bank["statement"]["amount"], bank["open_lines"]["count"], bank["open_in"]) == (
        rwf(16_077),
        1,
        rwf(77),
    )
    assert {one["days"]: one["percent"] for one in savers["tied"]} == dict.fromkeys((1, 7, 30, 90), "100.0")
    followed = set(links(savers))
    assert len(followed) > 8
    for link in followed:
        assert manager.get(link).status_code == 200, link
    assert manager.get("/v1/reconciliation/payouts").json()["data"] == []


def test_payments_that_camt_and_csv_show_settle_and_what_is_withdrawn_is_open_again(
    api: Served, manager: Person
) -> None:
    for number, caller in enumerate((api.acme, api.bolt), 1):
        body = a_remittance(a_member(caller, number), remittance_id=f"R-{number}")
        assert send(caller, body, f"k-{number}").status_code == 201
        known = {"identification": f"AE00000000{number}", "party": ("acme", "bolt")[number - 1]}
        path = "/v1/bank-accounts/kigali-savers/counterparties"
        assert manager.call("POST", path, known).status_code in (200, 201)
    batch = "".join(
        f"<TxDtls><Refs><EndToEndId>{name}</EndToEndId></Refs>{camt_amount(amount, 'RWF')}<RltdPties>"
        f"<DbtrAcct><Id><Othr><Id>{account}</Id></Othr></Id></DbtrAcct></RltdPties></TxDtls>"
        for name, amount, account in (("A-1", 15_000, "AE000000001"), ("NOTPROVIDED", 77, "?"))
    )
    entry = (
        f"<Ntry>{camt_amount(15_077, 'RWF')}{side(15_077)}<Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2026-03-02</Dt></BookgDt>"
        f"<NtryDtls>{batch}</NtryDtls></Ntry>"
    )
    balances = camt_balance("OPBD", 1_000, "RWF", DAY) + camt_balance("CLBD", 16_077, "RWF", DAY)
    head = camt_head(Statement(account="RW380001", currency="RWF"))
    camt = bring_in(api, manager, camt_document(f"<Stmt>{head}{balances}{entry}</Stmt>", 8).encode())
    assert camt.status_code == 201, camt.text
    mapping = {
        "booked_on": {"column": "Date"},
        "amount": {"column": "Amount"},
        "balance": {"column": "Balance"},
        "counterparty_account": {"column": "From"},
    }
    account = "/v1/bank-accounts/kigali-savers"
    assert manager.call("PATCH", account, {"statement_mapping": mapping}).status_code == 200
    table = b"Date,From,Amount,Balance\n2026-03-03,AE000000002,15000,31077\n"
    csv_file = bring_in(api, manager, table, account="kigali-savers")
    assert csv_file.status_code == 201, csv_file.text
    all_settled(api.services.worker)
    reconcile(api.services.worker, api.services.books)

    all_settled(api.services.worker)
    made = manager.get("/v1/pairings").json()["data"]
    assert (
        sorted((one["rule"], one["amount"]["amount"]) for one in made) == [("party_and_amount", 15_000)] * 2
    )
    settled = manager.get("/v1/settlements").json()["data"]
    assert sorted((one["partner"], one["amount"]["amount"]) for one in settled) == [
        ("acme", 15_000),
        ("bolt", 15_000),
    ]
    [savers] = manager.get(PAGE).json()["data"]
    assert (savers["cash_total"], savers["bank_accounts"][0]["open_in"]) == (rwf(30_000), rwf(77))

    # what is paired stays; taken back, the statement can go, and nothing reads it any more
    mistaken = csv_file.json()["statements"][0]["id"]
    withdrawal = f"/v1/bank-statements/{mistaken}/withdrawal"
    kept = manager.call("POST", withdrawal, {"remark": "another bank's"})
    assert (kept.status_code, kept.json()["code"]) == (409, "statement_not_withdrawn")
    assert "1 stand in pairings" in kept.json()["detail"]
    [line] = manager.get(f"/v1/bank-statements/{mistaken}/lines").json()["data"]
    [pairing] = [one["id"] for one in made if one["lines"] == [line["id"]]]
    undone = manager.call("POST", f"/v1/pairings/{pairing}/undo", {"remark": "another bank's"}, key="u-1")
    assert undone.status_code == 200, undone.text
    assert manager.call("POST", withdrawal, {"remark": "another bank's"}).status_code == 200
    all_settled(api.services.worker)
    reconcile(api.services.worker, api.services.books)
    [bank] = next(one for one in manager.get(PAGE).json()["data"] if one["fund"] == "ejoheza/savers")[
        "bank_accounts"
    ]
    assert (bank["statement"]["amount"], bank["open_lines"]["count"], bank["open_in"]) == (
        rwf(16_077),
        1,
        rwf(77),
    )
    breaks = manager.get("/v1/breaks").json()["data"]
    assert line["id"] not in str(breaks)
    by_hand = {"lines": [line["id"]], "items": [manager.get(f"{account}/open-items").json()["data"][0]["id"]]}
    refused = manager.call("POST", "/v1/pairings", {**by_hand, "remark": "still"}, key="p-1")
    assert (refused.status_code, refused.json()["code"]) == (409, "duplicate_line")
    assert "withdrawn" in refused.json()["detail"]
    again = bring_in(api, manager, table, account="kigali-savers")
    assert (again.status_code, again.json()["lines"]) == (201, 1)
    reconcile(api.services.worker, api.services.books)
    all_settled(api.services.worker)
    all_settled(api.services.worker)
    standing = manager.get("/v1/pairings?standing=true").json()["data"]
    assert len([one for one in standing if one["lines"]]) == 2


def test_staff_of_a_programme_see_its_funds_and_partners_none(api: Served, manager: Person) -> None:
    with api.services.worker.begin() as tx:
        pesos = apply(tx, catalogue()["mp2"], clock=api.clock).programme_id
    send(api.acme, a_remittance(a_member(api.acme)))
    own = person(api, "manager", programmes=[pesos])
    assert {one["fund"] for one in manager.get(PAGE).json()["data"]} == {"ejoheza/savers", "mp2/savers"}
    assert {one["fund"] for one in own.get(PAGE).json()["data"]} == {"mp2/savers"}
    assert len(manager.get(THREE_WAY).json()["data"]) == 1
    assert own.get(THREE_WAY).json()["data"] == []
    assert own.get(PAGE, params={"programme": "ejoheza"}).json()["code"] == "not_found"
    assert manager.get(PAGE, params={"on": "2026-03-03"}).json()["code"] == "invalid_request"
    past = manager.get(PAGE, params={"on": "2026-03-01", "programme": "ejoheza"}).json()["data"][0]
    assert (past["cash_total"], past["surplus"], past["tomorrow"]) == (rwf(0), None, None)
    for path in (THREE_WAY, PAGE, "/v1/reconciliation/payouts"):
        assert api.acme.get(path).json()["code"] == "insufficient_scope"
        assert api.auditor.get(path).status_code == 200
