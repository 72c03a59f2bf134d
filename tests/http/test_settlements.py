"""Settlements over the API: what a partner owes, what it paid for, and back again by two persons."""

from typing import Any

from api.jobs import settle_all
from tests.http.deciding import approver, books_hold, code_of, filer, requested
from tests.http.operators import Person, person
from tests.http.served import Served
from tests.http.test_remittances import a_member, a_remittance, send

__all__ = ["approver", "books_hold", "filer"]


def rwf(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "RWF"}


def test_what_a_partner_owes_is_settled_read_returned_and_owed_again(
    api: Served, filer: Person, approver: Person
) -> None:
    for number in (1, 2):
        send(api.acme, a_remittance(a_member(api.acme, number), remittance_id=f"R-{number}"), f"k-{number}")
    auditor = person(api, "auditor")
    before = auditor.get("/v1/settlements/obligations", params={"partner": "acme"}).json()
    owed = sum(day["owed"]["amount"] for day in before["data"])
    assert owed > 0
    assert {(day["fund"], day["expected_on"]) for day in before["data"]} == {("ejoheza/savers", "2026-03-03")}
    [late] = auditor.get("/v1/settlements/ageing").json()["data"]
    assert (late["partner"], late["owed"], late["not_due"]) == ("acme", rwf(owed), rwf(owed))

    body = {"partner": "acme", "amount": rwf(owed), "through": "2026-03-02", "reference": "TT-1"}
    assert code_of(filer.post("/v1/settlements", body), 400) == "idempotency_key_required"
    first = filer.post("/v1/settlements", body, key="s-1")
    assert first.status_code == 201, first.text
    settled = first.json()
    assert (settled["state"], settled["paired"], settled["unidentified"]) == ("paired", rwf(owed), rwf(0))
    assert filer.post("/v1/settlements", body, key="s-1").headers["Idempotency-Replayed"] == "true"
    assert filer.post("/v1/settlements", body, key="s-2").status_code == 200  # the reference happens once
    assert code_of(filer.post("/v1/settlements", body | {"amount": rwf(1)}, key="s-3")) == "conflict"
    listed = {"remittances": [rid(api, "R-1")], "reference": "TT-2"}
    assert code_of(filer.post("/v1/settlements", body | listed, key="s-4")) == "not_owed"
    assert code_of(filer.post("/v1/settlements", body | {"partner": "nobody"}, key="s-5"), 404) == "not_found"

    one = f"/v1/settlements/{settled['id']}"
    for reader in (filer, auditor, api.acme):
        assert reader.get(one).json() == settled
        assert reader.get("/v1/settlements", params={"state": "paired"}).json()["data"] == [settled]
    assert code_of(api.bolt.get(one), 404) == "not_found"
    assert api.bolt.get("/v1/settlements").json()["data"] == []
    assert code_of(api.bolt.get("/v1/settlements", params={"partner": "acme"}), 404) == "not_found"
    page = auditor.get(f"{one}/contributions", params={"limit": 1}).json()
    rest = auditor.get(f"{one}/contributions", params={"cursor": page["next_cursor"]}).json()
    paid = page["data"] + rest["data"]
    assert sorted(part["remittance_id"] for part in paid) == ["R-1", "R-2"]
    assert sum(part["amount"]["amount"] for part in paid) == owed

    asked = requested(filer.post(f"{one}/return", {"reason": "AC04"}, key="r-1"))
    assert code_of(filer.approve(asked["id"])) == "second_person_required"
    assert approver.approve(asked["id"]).status_code == 200
    settle_all(api.services.worker, api.services.books)
    assert auditor.get(one).json()["state"] == "returned"
    assert code_of(filer.post(f"{one}/return", {"reason": "AC04"}, key="r-2")) == "not_returnable"
    assert auditor.get("/v1/settlements/obligations").json() == before


def rid(api: Served, remittance_id: str) -> str:
    """Our id of a partner's remittance."""
    found = api.acme.get("/v1/remittances", params={"remittance_id": remittance_id}).json()["data"]
    return str(found[0]["id"])
