"""Claims from sponsors and remittals to agencies over the API: two persons, scopes, files, and what is refused."""

import hashlib
import json
from datetime import date
from itertools import count
from typing import Any

import httpx
import pytest

from api.jobs import book_claims
from ledger.ids import public_id
from products.facts import Fact
from tests.conftest import Databases
from tests.http.operators import Person, person
from tests.http.served import Served
from tests.integration.claims.conftest import ARREARS
from tests.integration.remittals.conftest import SSF, Agencies
from tests.world import World

keys = count(1)
DAY = "2026-03-02"


@pytest.fixture
def world(api: Served, databases: Databases) -> World:
    """Members of the running API's own keys."""
    made = World(databases, api.clock)
    made.books = api.services.books
    return made


def ok(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def post(who: Person, path: str, body: object = None) -> httpx.Response:
    return who.post(path, body, key=f"key-{next(keys)}")


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return str(answer.json()["detail"])


def test_a_claim_is_made_certified_by_two_persons_and_booked(api: Served, world: World) -> None:
    source = ARREARS.replace("slug: ejoheza", "slug: arrears", 1)
    world.programme("arrears", source)
    partner = world.partner("late", programme="arrears")
    category = Fact("income_category", 1, date(2020, 1, 1), api.clock.now(), "institution")
    member = world.member(partner, programme="arrears", facts=[category])
    world.send(partner, world.completed(member))
    manager, second = person(api, "manager"), person(api, "manager")
    elsewhere = person(
        api,
        "manager",
        programmes=[api.rows("SELECT id FROM products.programme WHERE slug = 'ejoheza'")[0][0]],
    )
    claim = {"programme": "arrears", "sponsor": "gov-rw", "through": DAY}

    assert post(elsewhere, "/v1/claim-packs", claim).status_code == 404
    pack = ok(post(manager, "/v1/claim-packs", claim), 201)
    assert (pack["state"], pack["lines"], pack["total"]["amount"]) == ("made", 1, 18_000)
    refused(post(manager, "/v1/claim-packs", claim), 409, "claim_open")
    refused(post(manager, "/v1/claim-packs", claim | {"sponsor": "gov"}), 404, "not_found")
    path = f"/v1/claim-packs/{pack['id']}"
    assert elsewhere.get(path).status_code == 404
    file = manager.get(f"{path}/file")
    lines = file.content.splitlines(keepends=True)
    assert (
        hashlib.sha256(b"".join(lines[:-1])).hexdigest() == pack["sha256"] == json.loads(lines[-1])["sha256"]
    )
    [line] = ok(manager.get(f"{path}/lines"))["data"]
    assert (line["kind"], line["rate"], line["amount"]["amount"]) == ("match", "100", 18_000)

    certified = {"sha256": pack["sha256"], "reference": "MIN/1", "certified_on": DAY}
    refused(post(manager, f"{path}/certification", certified | {"sha256": "0" * 64}), 409, "claim_closed")
    refused(post(manager, f"{path}/certification", {**certified, "extra": 1}), 422, "invalid_request")
    assert post(elsewhere, f"{path}/certification", certified).status_code == 404
    approval = ok(post(manager, f"{path}/certification", certified), 202)
    assert "18000 RWF" in approval["description"]
    refused(manager.approve(approval["id"]), 409, "second_person_required")
    ok(second.approve(approval["id"]))
    assert book_claims(api.services.worker, api.services.books, seconds_max=10) == 1
    assert ok(manager.get(path))["booked_at"] is not None
    refused(post(manager, f"{path}/withdrawal"), 409, "claim_closed")
    [listed] = ok(manager.get("/v1/claim-packs", params={"sponsor": "gov-rw"}))["data"]
    assert listed["certification"] == "MIN/1"
    sponsor = next(one for one in ok(manager.get("/v1/sponsors"))["data"] if one["programme"] == "arrears")
    assert (sponsor["receivable"]["amount"], sponsor["committed"]["amount"], sponsor["low"]) == (
        18_000,
        18_000,
        False,
    )
    logged = {row[0] for row in api.rows("SELECT action FROM ledger.audit_entry")}
    assert {"claim_pack.made", "approval.requested", "approval.approved"} <= logged


def test_a_remittal_is_sent_by_two_persons_above_a_limit_and_answered(api: Served, world: World) -> None:
    ssf = Agencies(world, world.partner("ssf", programme=SSF))
    people = [ssf.person(f"SSF-{number}") for number in (1, 2, 3)]
    for one in people:
        ssf.pay(one)
    ssf.pay(ssf.person())
    ssf.settle(213_300 * 4)
    manager, second = person(api, "manager"), person(api, "manager")
    auditor = person(api, "auditor")
    [agency] = ok(manager.get("/v1/agencies"))["data"]
    assert (agency["owed"]["amount"], agency["without_number"]) == (853_200, "hold")
    setting = f"/v1/agencies/{SSF}/{SSF}"
    refused(
        manager.call("PUT", setting, {"columns": {"columns": [{"header": "x", "field": "phone"}]}}),
        422,
        "invalid_mapping",
    )
    ok(manager.call("PUT", setting, {"second_person_above": 100_000}))

    wanted = {"programme": SSF, "agency": SSF, "through": DAY}
    made = ok(post(manager, "/v1/remittals", wanted), 201)
    remittal = made["remittal"]
    assert (remittal["lines"], made["held_lines"], made["held_amount"]["amount"]) == (3, 1, 213_300)
    path = f"/v1/remittals/{remittal['id']}"
    refused(auditor.get(f"{path}/schedule"), 403, "insufficient_scope")
    schedule = manager.get(f"{path}/schedule")
    assert hashlib.sha256(schedule.content).hexdigest() == remittal["sha256"]
    assert b"SSF3" in schedule.content
    assert "SSF" not in ok(auditor.get(f"{path}/lines"))["data"][0].values()

    payment = {"reference": "PAY-1", "on": DAY}
    approval = ok(post(manager, f"{path}/payment", payment), 202)
    refused(post(manager, f"{path}/confirmation", {"on": DAY}), 409, "remittal_closed")
    ok(second.approve(approval["id"]))
    assert ok(post(manager, f"{path}/confirmation", {"on": DAY}))["state"] == "cleared"

    lines = [{"line": 1, "outcome": "accepted"}, {"line": 2, "outcome": "rejected", "reason": "E07"}]
    detail = refused(
        post(manager, f"{path}/answers", {"lines": lines, "total_accepted": 1}), 422, "answer_refused"
    )
    assert "-213299 of difference" in detail
    done = ok(post(manager, f"{path}/answers", {"lines": lines, "total_accepted": 213_300, "total_lines": 2}))
    assert (done["returned"]["amount"], done["duplicate"]) == (213_300, False)
    again = {"lines": lines[::-1], "total_accepted": 213_300, "total_lines": 2}
    assert ok(post(manager, f"{path}/answers", again))["duplicate"]
    csv = b"line,outcome,accepted,reason,number\r\n3,corrected,2000.00,pay,SSF-33\r\n#total,1,2000.00\r\n"
    answered = ok(
        api.http.post(
            "/v1/remittal-answers",
            params={"remittal": remittal["id"]},
            content=csv,
            headers={
                "Authorization": f"Bearer {manager.token}",
                "Content-Type": "text/csv",
                "Idempotency-Key": "file-1",
            },
        )
    )
    assert answered["returned"]["amount"] == 13_300
    rejected = ok(auditor.get(f"{path}/lines", params={"state": "rejected"}))["data"]
    assert [(one["position"], one["reason"]) for one in rejected] == [(2, "E07")]
    assert ok(manager.get(path))["answered"] == 3
    # the member sees the money in the balance, and why it came back; who sees another's accounts does not
    mine, other = (public_id("mem", one.link_id) for one in (people[1], people[0]))
    balance = ok(auditor.get(f"/v1/members/{mine}/balances"))
    assert (balance["unapplied"]["amount"], balance["products"][0]["settled"]["amount"]) == (213_300, 0)
    why = ok(auditor.get(f"/v1/members/{mine}/explanations/unapplied"))
    [returned] = why["returned_by_agencies"]
    assert (returned["reason"], returned["applies_to"], returned["returned"]["amount"]) == (
        "E07",
        "2026-03-01",
        213_300,
    )
    assert ok(auditor.get(f"/v1/members/{other}/explanations/unapplied"))["returned_by_agencies"] == []
    entries = ok(auditor.get(f"/v1/members/{mine}/statement", params={"part": "unapplied"}))["data"]
    assert [entry["kind"] for entry in entries] == ["remittal_returned"]
    assert api.acme.get(f"/v1/members/{mine}/explanations/unapplied").status_code == 404
    # below the limit one person sends
    ok(manager.call("PUT", setting, {"second_person_above": 10_000_000, "without_number": "send"}))
    later = ok(post(manager, "/v1/remittals", wanted), 201)["remittal"]
    assert ok(post(manager, f"/v1/remittals/{later['id']}/payment", payment))["state"] == "sent"
    refused(post(manager, f"/v1/remittals/{later['id']}/withdrawal"), 409, "remittal_closed")
    log = api.rows(
        "SELECT coalesce(string_agg(detail::text || coalesce(object, ''), ''), '') FROM ledger.audit_entry"
    )
    assert "SSF3" not in log[0][0]
