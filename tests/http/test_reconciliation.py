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
