"""Breaks over the API: found, listed, assigned, previewed, confirmed by one or by two managers, learned from, taken back."""

import csv
import io
from typing import Any

import httpx
import pytest

from ledger.clock import FixedClock
from ledger.ids import public_id
from tests.conftest import Databases
from tests.http.operators import Person, person
from tests.http.served import Served
from tests.integration.reconciliation.bank import entry
from tests.integration.reconciliation.breaking import TODAY, Breaking, days
from tests.tying import expect_all_ties

CHARGES = {"method": "book", "to": {"account": "bank_charges"}}


@pytest.fixture
def world(api: Served, databases: Databases, clock: FixedClock) -> Breaking:
    made = Breaking(databases, clock)
    made.statement(made.savers, days(0), since=days(60))
    return made


@pytest.fixture
def manager(api: Served) -> Person:
    return person(api, "manager")


def listed(who: Person, query: str = "") -> list[dict[str, Any]]:
    answer = who.get(f"/v1/breaks{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def preview(who: Person, break_id: str, choice: dict[str, Any]) -> dict[str, Any]:
    answer = who.call("POST", f"/v1/breaks/{break_id}/resolutions", choice)
    assert answer.status_code == 201, answer.text
    seen: dict[str, Any] = answer.json()
    return seen


def confirm(who: Person, seen: dict[str, Any], key: str = "", **changes: str) -> httpx.Response:
    body = {"digest": seen["digest"], "remark": "as agreed with the bank"} | changes
    path = f"/v1/breaks/{seen['break_id']}/resolutions/{seen['id']}/confirmation"
    return who.post(path, body, key=key or seen["id"])


def limit(api: Served, above: int) -> None:
    body = {"currency": "RWF", "second_person_above": above}
    said = person(api, "administrator").call("PUT", "/v1/break-limits/ejoheza", body)
    assert said.status_code == 200, said.text


def test_breaks_are_listed_by_value_and_age_filtered_assigned_and_exported(
    api: Served, world: Breaking, manager: Person
) -> None:
    small = world.line(-250, kind="NCHG", on=days(9))
    large = world.booked(-90_000, on=days(10), kind="payout_paid")
    world.line(7_000, party="umoja", on=days(1))
    world.refresh()
    found = listed(manager)
    assert [(one["type"], one["amount"]["amount"]) for one in found] == [
        ("rail_paid_bank_silent", -90_000),
        ("missing_in_books", 7_000),
        ("fee", -250),
    ]
    assert [one["share_basis_points"] for one in found] == [9254, 720, 26]
    assert (found[0]["age_days"], found[0]["fund"], found[0]["bank_account"]) == (
        10,
        "ejoheza/savers",
        "kigali-savers",
    )
    assert found[0]["subject"] == {"kind": "item", "id": public_id("itm", large)}
    assert [one["age_days"] for one in listed(manager, "?sort=age")] == [10, 9, 1]
    assert [one["type"] for one in listed(manager, "?type=fee&type=short")] == ["fee"]
    assert [one["partner"] for one in listed(manager, "?partner=umoja")] == ["umoja"]
    assert len(listed(manager, "?older_than=9")) == 1
    assert len(listed(manager, "?bank_account=kigali-savers&fund=ejoheza/savers&currency=RWF")) == 3
    assert listed(manager, "?bank_account=kigali-office") == listed(manager, "?state=resolved") == []
    first = manager.get("/v1/breaks?limit=2").json()
    rest = manager.get("/v1/breaks", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["id"] for one in first["data"] + rest["data"]] == [one["id"] for one in found]
    assert rest["next_cursor"] is None

    fee = found[2]
    assert fee["subject"]["id"] == public_id("bsl", small)
    assigned = manager.call(
        "POST", f"/v1/breaks/{fee['id']}/assignment", {"owner": "treasury", "remark": "asks the bank"}
    ).json()
    assert (assigned["owner"], assigned["remark"]) == ("treasury", "asks the bank")
    assert [event["what"] for event in assigned["history"]] == ["found", "assigned"]
    assert assigned["lines"][0]["amount"] == {"amount": -250, "currency": "RWF"}
    assert [one["id"] for one in listed(manager, "?owner=treasury")] == [fee["id"]]
    exported = manager.get("/v1/breaks?format=csv")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [row["amount.amount"] for row in rows] == ["-90000", "7000", "-250"]

    # partners have no business here, nor has staff of another programme
    assert api.acme.get("/v1/breaks").status_code == 403
    assert api.acme.get(f"/v1/breaks/{fee['id']}").status_code == 403
    assert manager.get(f"/v1/breaks/{public_id('brk', small)}").status_code == 404
    assert api.auditor.get(f"/v1/breaks/{fee['id']}").status_code == 200


def test_one_manager_ends_what_is_small_as_it_was_seen_and_takes_it_back(
    api: Served, world: Breaking, manager: Person, databases: Databases
) -> None:
    world.line(-250, kind="NCHG")
    world.refresh()
    [fee] = listed(manager)
    raised = manager.call(
        "PUT", "/v1/break-limits/ejoheza", {"currency": "RWF", "second_person_above": 10**9}
    )
    assert raised.status_code == 403  # who ends breaks does not say how far
    limit(api, 250)
    seen = preview(manager, fee["id"], CHARGES)
    assert (seen["state"], seen["second_person"]) == ("previewed", False)
    assert [(one["fund"], one["debit"], one["credit"], one["amount"]) for one in seen["postings"]] == [
        ("ejoheza/savers", "due_from_funds", "bank", {"amount": 250, "currency": "RWF"}),
        ("ejoheza/administrator", "bank_charges", "due_to_funds", {"amount": 250, "currency": "RWF"}),
    ]
    assert confirm(manager, seen, digest="0" * 64).json()["code"] == "stale_preview"
    without_key = manager.post(
        f"/v1/breaks/{fee['id']}/resolutions/{seen['id']}/confirmation",
        {"digest": seen["digest"], "remark": "x"},
    )
    assert without_key.status_code == 400
    done = confirm(manager, seen, "once")
    assert done.status_code == 200, done.text
    assert (done.json()["state"], done.json()["postings"]) == ("done", seen["postings"])
    again = confirm(manager, seen, "once")
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (done.json(), "true")
    assert confirm(manager, seen, "twice").json()["code"] == "break_ended"
    shown = manager.get(f"/v1/breaks/{fee['id']}").json()
    assert (shown["state"], shown["remark"]) == ("resolved", "as agreed with the bank")
    assert [one["transactions"] for one in shown["resolutions"]] == [done.json()["transactions"]]
    undone = manager.post(f"/v1/breaks/{fee['id']}/undo", {"remark": "the bank gave it back"}, key="u")
    assert undone.status_code == 200, undone.text
    assert (undone.json()["state"], undone.json()["resolutions"][0]["state"]) == ("open", "undone")
    assert [event["what"] for event in undone.json()["history"]] == ["found", "resolved", "undone"]
    expect_all_ties(databases)


def test_above_the_limit_another_manager_decides(api: Served, world: Breaking, manager: Person) -> None:
    world.line(-90_000)
    world.refresh()
    [found] = listed(manager)
    assert manager.get("/v1/break-limits/ejoheza?currency=RWF").json()["second_person_above"]["amount"] == 0
    limit(api, 89_999)
    seen = preview(manager, found["id"], {"method": "write_off"})
    assert seen["second_person"] is True
    asked = confirm(manager, seen)
    assert asked.status_code == 202, asked.text
    request = asked.json()
    assert (request["kind"], request["object"]) == ("break_resolution", found["id"])
    assert listed(manager)[0]["state"] == "open"
    assert manager.approve(request["id"]).json()["code"] == "second_person_required"
    other = person(api, "manager")
    approved = other.approve(request["id"])
    assert approved.status_code == 200, approved.text
    shown = manager.get(f"/v1/breaks/{found['id']}").json()
    assert shown["state"] == "resolved"
    [done] = shown["resolutions"]
    assert (done["confirmed_by"], done["approved_by"]) == (
        request["requested_by"],
        approved.json()["decided_by"],
    )
    assert [event["what"] for event in shown["history"]] == ["found", "requested", "resolved"]


def test_what_was_learned_is_suggested_with_its_evidence_and_never_applied(
    api: Served, world: Breaking, manager: Person
) -> None:
    limit(api, 10**9)
    for number, account in enumerate(["bank_charges", "bank_charges", "fees_payable"]):
        world.line(-250 - number, kind="NCHG", party="bank")
        world.refresh()
        [found] = listed(manager)
        done = confirm(manager, preview(manager, found["id"], {"method": "book", "to": {"account": account}}))
        assert done.status_code == 200, done.text
    world.line(-900, kind="NCHG", party="bank")
    world.refresh()
    [found] = listed(manager)
    learned = manager.get(f"/v1/breaks/{found['id']}/suggestions").json()["data"]
    assert [(one["likeness"], one["to"]["account"], one["agree"], one["disagree"]) for one in learned] == [
        ("party", "bank_charges", 2, 1),
        ("party", "fees_payable", 1, 2),
    ]
    assert len(learned[0]["resolutions"]) == 2
    assert manager.get(f"/v1/breaks/{found['id']}").json()["state"] == "open"


def test_a_person_says_whose_account_it_is_and_its_lines_are_the_partners_from_then_on(
    api: Served, world: Breaking, manager: Person
) -> None:
    world.bank.keyring = api.services.keyring  # under which the deployment reads what the bank wrote
    sent = [entry(number, 5_000 + number, TODAY, payer="U. LTD", account="RW77") for number in (1, 2)]
    world.bank.sends(world.bank.says([*sent, entry(3, -9, TODAY)], account=world.savers.identification))
    world.refresh()
    second, first, charge = listed(manager, "?bank_account=kigali-savers")
    assert (first["type"], first["amount"]["amount"], charge["amount"]["amount"]) == (
        "unknown_party",
        5_001,
        -9,
    )

    def learn(break_id: str, partner: str) -> httpx.Response:
        return manager.call("POST", f"/v1/breaks/{break_id}/counterparty", {"partner": partner})

    assert learn(first["id"], "nobody").status_code == 404
    assert learn(charge["id"], "umoja").json()["code"] == "invalid_request"
    known = learn(first["id"], "umoja")
    assert known.status_code == 200, known.text
    assert (known.json()["state"], known.json()["lines"][0]["party"]) == ("open", "umoja")
    assert manager.get(f"/v1/breaks/{second['id']}").json()["lines"][0]["party"] == "umoja"
    (kept,) = manager.get("/v1/bank-accounts/kigali-savers/counterparties").json()["data"]
    assert (kept["party"], kept["source"], kept["ending"]) == ("umoja", "learned", "RW77")
    world.refresh()
    assert "unknown_party" not in {one["type"] for one in listed(manager)}
    # what a person has entered is not unlearned
    entered = {"identification": "RW77", "party": "acme"}
    assert manager.post("/v1/bank-accounts/kigali-savers/counterparties", entered, key="e").status_code == 201
    assert "entered" in learn(first["id"], "umoja").text
