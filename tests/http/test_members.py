"""The registry over HTTP: registered, read, changed and left, as the contract says."""

import pytest

from tests.http.served import Served, a_person


def test_a_partner_registers_reads_and_enrols_a_member(api: Served) -> None:
    registered = api.acme.post("/v1/members", a_person())
    assert registered.status_code == 201, registered.text
    member = registered.json()["id"]
    assert member.startswith("mem_")
    read = api.acme.get(f"/v1/members/{member}").json()
    assert read == registered.json()
    assert read["phone"] == "+250780000001"
    assert read["facts"][0]["value"] == 1
    assert read["mandates"][0]["state"] == "in_force"
    enrolled = api.acme.post(
        f"/v1/members/{member}/enrolments", {"product": "savings", "choice": {"percent": "5"}}
    )
    assert enrolled.status_code == 201, enrolled.text
    assert api.acme.get(f"/v1/members/{member}/enrolments").json() == {"data": [enrolled.json()]}
    again = api.acme.post(f"/v1/members/{member}/enrolments", {"product": "savings"})
    assert (again.status_code, again.json()["code"]) == (409, "already_enrolled")
    left = api.acme.call("DELETE", f"/v1/members/{member}/enrolments/{enrolled.json()['id']}")
    assert left.json()["ended_at"] is not None


def test_a_known_phone_is_answered_with_the_partners_own_id(api: Served) -> None:
    member = api.acme.post("/v1/members", a_person()).json()["id"]
    again = api.acme.post("/v1/members", a_person(partner_reference="other"))
    assert (again.status_code, again.json()["code"], again.json()["member"]) == (409, "member_exists", member)


def test_another_partners_member_does_not_exist(api: Served) -> None:
    member = api.acme.post("/v1/members", a_person()).json()["id"]
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"facts": []}),
        ("DELETE", "", None),
        ("GET", "/facts", None),
        ("GET", "/consents", None),
        ("GET", "/enrolments", None),
        ("POST", "/enrolments", {"product": "savings"}),
    ):
        answer = api.bolt.call(method, f"/v1/members/{member}{path}", body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)
    assert api.bolt.post("/v1/members", a_person()).status_code == 201


def test_facts_are_added_and_judged_by_the_programme(api: Served) -> None:
    member = api.acme.post("/v1/members", a_person()).json()["id"]
    fact = {"name": "income_category", "value": 3, "from": "2026-02-01", "evidence": "document"}
    assert api.acme.post(f"/v1/members/{member}/facts", fact).status_code == 201
    facts = api.acme.get(f"/v1/members/{member}/facts").json()["data"]
    assert [one["value"] for one in facts] == [1, 3]
    for wrong in (fact | {"value": 9}, fact | {"name": "religion"}, fact | {"value": "3"}):
        answer = api.acme.call("PATCH", f"/v1/members/{member}", {"facts": [wrong]})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fact"), wrong
        assert answer.json()["errors"][0]["pointer"].startswith("/facts/0/")


def test_a_mandate_is_paused_resumed_replaced_and_ended(api: Served) -> None:
    member = api.acme.post("/v1/members", a_person()).json()["id"]
    consents = f"/v1/members/{member}/consents"
    for state in ("paused", "in_force", "ended"):
        answer = api.acme.call("PATCH", consents, {"state": state})
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert api.acme.call("PATCH", consents, {"state": "paused"}).status_code == 404
    given = {
        "text_version": "2026-2",
        "language": "rw",
        "limit_per_month": {"amount": 500000, "currency": "RWF"},
    }
    assert api.acme.post(consents, given).status_code == 201
    states = [one["state"] for one in api.acme.get(consents).json()["data"]]
    assert states == ["ended", "ended", "in_force"]


def test_deleting_ends_the_partners_link_only(api: Served) -> None:
    member = api.acme.post("/v1/members", a_person()).json()["id"]
    assert api.acme.call("DELETE", f"/v1/members/{member}").status_code == 204
    assert api.acme.get(f"/v1/members/{member}").status_code == 404
    assert api.rows("SELECT count(*) FROM products.member WHERE wrapped_key IS NOT NULL") == [(1,)]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"phone": 971501234567}, "/phone"),
        ({"birth_date": "1990-02-30"}, "/birth_date"),
        ({"birth_date": 641520000}, "/birth_date"),
        ({"birth_date": "1799-01-01"}, "/birth_date"),
        ({"sex": "f"}, "/sex"),
        ({"origin_country": "Rwanda"}, "/origin_country"),
        ({"religion": "any"}, "/religion"),
        ({"programme": None}, "/programme"),
        ({"phone": "+999"}, "/phone"),
        ({"partner_reference": "a b"}, "/partner_reference"),
        ({"mandate": {"text_version": "1"}}, "/mandate/language"),
    ],
)
def test_a_value_that_does_not_fit_is_pointed_at(
    api: Served, change: dict[str, object], pointer: str
) -> None:
    answer = api.acme.post("/v1/members", a_person(**change))
    assert answer.status_code == 422, answer.text
    assert pointer in [error.get("pointer") for error in answer.json()["errors"]], answer.text


def test_nobody_registers_in_a_programme_that_the_partner_is_not_in(api: Served) -> None:
    answer = api.acme.post("/v1/members", a_person(programme="pm-sym"))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
