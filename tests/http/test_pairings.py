"""Pairings over the API: made by hand once, read with rule and evidence, taken back, each programme's staff's alone."""

import pytest

from ledger.clock import FixedClock
from ledger.ids import new_id, public_id
from products.reconciliation.run import reconcile
from tests.conftest import Databases
from tests.http.operators import Person, person
from tests.http.served import Served
from tests.integration.reconciliation.breaking import TODAY, Breaking, days
from tests.settled import all_settled
from tests.tying import expect_all_ties


@pytest.fixture
def world(api: Served, databases: Databases, clock: FixedClock) -> Breaking:
    made = Breaking(databases, clock)
    made.statement(made.savers, days(0), since=days(60))
    return made


def test_lines_are_paired_by_hand_once_and_taken_back(
    api: Served, world: Breaking, databases: Databases
) -> None:
    manager = person(api, "manager")
    line, item = public_id("bsl", world.line(5_000)), world.booked(5_000, on=days(40))
    other = public_id("itm", world.booked(4_999, on=days(40)))
    (open_item, _) = manager.get("/v1/bank-accounts/kigali-savers/open-items").json()["data"]
    assert (open_item["id"], open_item["source"], open_item["amount"]["amount"]) == (
        public_id("itm", item),
        "booked",
        5_000,
    )
    body = {"lines": [line], "items": [open_item["id"]], "remark": "the same rent"}

    for wrong, status, code in (
        ({**body, "items": [other]}, 409, "pairing_does_not_add_up"),
        ({**body, "items": [public_id("itm", new_id())]}, 404, "not_found"),
        ({**body, "items": ["itm_x"]}, 422, "invalid_id"),
        ({**body, "items": []}, 422, "invalid_request"),
        ({**body, "note": "x"}, 422, "invalid_request"),
    ):
        refused = manager.post("/v1/pairings", wrong, key=str(new_id()))
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert manager.call("POST", "/v1/pairings", body, key=None).status_code in {400, 422}
    made = manager.post("/v1/pairings", body, key="once")
    assert made.status_code == 201, made.text
    pairing = made.json()
    assert (pairing["rule"], pairing["amount"]["amount"], pairing["lines"]) == ("by_hand", 5_000, [line])
    assert pairing["evidence"]["remark"] == "the same rent"
    assert manager.post("/v1/pairings", body, key="once").json() == pairing
    again = manager.post("/v1/pairings", body, key="another")
    assert (again.status_code, again.json()["code"]) == (409, "already_paired")

    path = f"/v1/pairings/{pairing['id']}"
    assert manager.get(path).json() == pairing
    all_settled(databases.worker)
    listed = manager.get("/v1/pairings", params={"bank_account": "kigali-savers", "standing": "true"})
    assert listed.json()["data"] == [pairing]
    undone = manager.post(f"{path}/undo", {"remark": "it was another"}, key="back")
    assert (undone.status_code, undone.json()["undone_remark"]) == (200, "it was another")
    twice = manager.post(f"{path}/undo", {"remark": "it was another"}, key="again")
    assert (twice.status_code, twice.json()["code"]) == (409, "pairing_already_undone")
    assert manager.get("/v1/pairings", params={"standing": "true"}).json()["data"] == []
    reader = person(api, "auditor")
    assert reader.get(path).json()["undone_by"] == pairing["made_by"]
    assert reader.post("/v1/pairings", body, key="no").status_code == 403
    actions = [row[0] for row in api.rows("SELECT action FROM ledger.audit_entry ORDER BY id")]
    assert [one for one in actions if one.startswith("pairing.")][-2:] == ["pairing.made", "pairing.undone"]


def test_a_run_pairs_says_why_and_all_ties(api: Served, world: Breaking, databases: Databases) -> None:
    manager: Person = person(api, "manager")
    world.line(7_300, reference="TT-9")
    world.booked(7_300, on=days(2))
    world.rows("UPDATE ledger.item SET reference = 'TT-9' WHERE amount = 7300 RETURNING id")
    report = reconcile(databases.worker, world.world.books)
    assert report.pairings == 1
    all_settled(databases.worker)
    (pairing,) = manager.get("/v1/pairings", params={"rule": "reference"}).json()["data"]
    assert pairing["evidence"] == {"days": -2, "reference": "TT-9"}
    assert pairing["run"] == str(report.run_id)
    assert manager.get("/v1/pairings", params={"rule": "end_to_end"}).json()["data"] == []
    expect_all_ties(databases)


def test_a_conversion_is_shown_as_two_lines_until_a_person_books_it(
    api: Served, world: Breaking, databases: Databases
) -> None:
    manager: Person = person(api, "manager")
    dollars = world.in_dollars()
    out, came = (
        world.line(-1_432_500, end_to_end="DEAL-88"),
        world.line(100_050, account=dollars, reference="DEAL88"),
    )
    world.line(100_050, account=dollars, reference="DEAL-89")  # of the same amount, and of another deal
    world.refresh()
    candidates = "/v1/conversions/candidates"
    (found,) = manager.get(candidates).json()["data"]
    assert found == {
        "from_line": public_id("bsl", out),
        "to_line": public_id("bsl", came),
        "fund": "ejoheza/savers",
        "from_account": "kigali-savers",
        "to_account": "kigali-dollars",
        "sold": {"amount": 1_432_500, "currency": "RWF"},
        "bought": {"amount": 100_050, "currency": "USD"},
        "sold_on": str(TODAY),
        "bought_on": str(TODAY),
        "rate": "0.0006984293",
        "evidence": "DEAL88",
    }
    fx = manager.get("/v1/breaks", params={"type": "fx"}).json()["data"]
    assert {one["subject"]["id"] for one in fx} == {found["from_line"], found["to_line"]}
    body = {"from_line": found["from_line"], "to_line": found["to_line"], "remark": "dollars for April"}
    booked = manager.post("/v1/conversions", body, key="c-1")
    assert booked.status_code == 201
    assert manager.post("/v1/conversions", body, key="c-2").json()["code"] == "already_paired"
    assert manager.get(candidates).json()["data"] == []
    world.refresh()
    assert manager.get("/v1/breaks", params={"type": "fx"}).json()["data"] == []
    expect_all_ties(databases)
