"""The registry's depth over HTTP: identity, levels, consents, people, export, erasure, duplicates."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from ledger.ids import parse_public_id, public_id
from products.members import challenges, registry
from products.members.challenges import Purpose
from tests.http.served import Caller, Served, a_person
from tests.http.signing import App
from tests.integration.members.proving import code_in

REMITTANCE = {
    "sent": {"amount": 100_000, "currency": "AED"},
    "received": {"amount": 400_000, "currency": "RWF"},
    "collected": {"amount": 20_000, "currency": "RWF"},
    "origin_country": "AE",
    "destination_country": "RW",
    "completed_at": "2026-03-02T09:29:41Z",
}


def registered(caller: Caller, number: int = 1, **changes: Any) -> str:
    answer = caller.post("/v1/members", a_person(number, **changes))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def proven(api: Served, member: str, purpose: Purpose, body: dict[str, Any]) -> dict[str, Any]:
    """The body with the member's proof: the code that was sent, given back."""
    with api.services.worker.begin() as tx:
        person = registry.find(tx, api.services.keyring, parse_public_id("mem", member))
        digest = challenges.subject_digest(person, purpose, body)
        started = challenges.start(tx, api.services.keyring, person, purpose, digest, api.clock)
    assert started.outbound is not None
    code = code_in(started.outbound.text)
    return body | {"proof": {"challenge": public_id("chl", started.id), "code": code}}


def sent(api: Served, member: str, remittance_id: str, **changes: Any) -> dict[str, Any]:
    body = REMITTANCE | {"remittance_id": remittance_id, "member": {"id": member}} | changes
    answer = api.acme.post("/v1/remittances", body, headers={"Idempotency-Key": remittance_id})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_members_are_listed_and_looked_up_by_what_their_partner_knows_them_by(api: Served) -> None:
    ids = [registered(api.acme, number, given_name=f"Name {number}") for number in range(1, 6)]
    registered(api.bolt, 1)
    seen: list[str] = []
    path = "/v1/members?limit=2"
    while True:
        page = api.acme.get(path).json()
        seen += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        path = f"/v1/members?limit=2&cursor={page['next_cursor']}"
    assert seen == ids

    passport = {"type": "passport", "country": "RW", "number": "pc 123-456", "expires_on": "2030-01-01"}
    document = api.acme.post(f"/v1/members/{ids[2]}/documents", passport)
    assert document.status_code == 201, document.text
    assert (document.json()["number"], document.json()["checked"]) == ("PC123456", "nothing")
    for query, found in (
        ("phone=%2B250780000002", [ids[1]]),
        ("partner_reference=A-4", [ids[3]]),
        ("document_type=passport&document_country=RW&document_number=PC123456", [ids[2]]),
        ("phone=%2B250780000002&partner_reference=A-4", []),
        ("phone=%2B250789999999", []),
    ):
        answer = api.acme.get(f"/v1/members?{query}").json()
        assert [one["id"] for one in answer["data"]] == found, query
    assert api.acme.get("/v1/members?phone=abcd").json()["code"] == "invalid_phone"
    assert api.acme.get("/v1/members?document_type=passport").status_code == 422
    api.acme.call("DELETE", f"/v1/members/{ids[0]}")
    assert api.acme.get("/v1/members?phone=%2B250780000001").json()["data"] == []


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"type": "national_id", "country": "TR", "number": "17291716060"}, 201),
        ({"type": "national_id", "country": "TR", "number": "17291716061"}, 422),
        ({"type": "tax_id", "country": "KE", "number": "P051365947M"}, 201),
        ({"type": "passport", "country": "PH", "number": "P1", "expires_on": "2020-01-01"}, 422),
        ({"type": "residence_permit", "country": "AE", "number": "1"}, 422),
        ({"type": "visa", "country": "AE", "number": "1"}, 422),
    ],
)
def test_documents_are_checked_where_their_numbers_are_known(
    api: Served, document: dict[str, str], status: int
) -> None:
    member = registered(api.acme)
    answer = api.acme.post(f"/v1/members/{member}/documents", document)
    assert answer.status_code == status, answer.text
    if status == 201:
        assert answer.json()["checked"] == "number"
    else:
        assert answer.json()["code"] == "invalid_document"


def test_a_level_rises_with_what_was_seen_and_falls_with_it(api: Served) -> None:
    member = registered(api.acme)

    def level() -> str:
        return str(api.acme.get(f"/v1/members/{member}").json()["verification"]["level"])

    shown = api.acme.get(f"/v1/members/{member}").json()["verification"]
    assert shown["level"] == "none"
    assert shown["limits"]["payouts_per_month"] == {"amount": 0, "currency": "RWF"}
    consent = {"text_version": "2026-1", "language": "rw", "purpose": "whole_view"}
    given = api.acme.post(f"/v1/members/{member}/consents", proven(api, member, "consent", consent))
    assert given.status_code == 201, given.text
    assert level() == "phone"  # the code came back from it
    passport = {"type": "passport", "country": "RW", "number": "PC123456", "expires_on": "2026-03-03"}
    document = api.acme.post(f"/v1/members/{member}/documents", passport).json()["id"]
    seen = api.acme.post(
        f"/v1/members/{member}/verifications",
        {"level": "document", "document": document, "evidence": "branch 7"},
    )
    assert seen.status_code == 201, seen.text
    assert seen.json()["valid_until"] == "2026-03-03"
    assert level() == "document"
    # a partner that sends money is no institution, and nobody sees a document that isn't there
    for wrong in ({"level": "institution"}, {"level": "document"}, {"level": "phone"}):
        assert api.acme.post(f"/v1/members/{member}/verifications", wrong).status_code == 422
    changed = api.acme.call(
        "PATCH", f"/v1/members/{member}", {"birth_date": "1991-05-01", "given_name": "Uwase"}
    )
    assert (changed.json()["birth_date"], changed.json()["given_name"]) == ("1991-05-01", "Uwase")
    assert level() == "phone"  # who was verified is not who is on record now


def test_consents_are_given_paused_resumed_and_withdrawn_by_purpose(api: Served) -> None:
    member = registered(api.acme, mandate=None)
    api.acme.post(f"/v1/members/{member}/enrolments", {"product": "savings"})
    path = f"/v1/members/{member}/consents"
    quote = {"member": {"id": member}, **{k: REMITTANCE[k] for k in ("sent", "received")}}
    quote |= {"origin_country": "AE", "destination_country": "RW"}
    refused = api.acme.post("/v1/quotes", quote, headers={"Idempotency-Key": "q1"})
    assert (refused.status_code, refused.json()["code"]) == (409, "mandate_required")
    limit = {"amount": 30_000, "currency": "RWF"}
    text = {"text_version": "2026-1", "language": "rw"}
    given = api.acme.post(path, text | {"limit_per_month": limit})
    assert (given.json()["purpose"], given.json()["limit_per_month"]) == ("contributions", limit)
    for wrong in (
        text | {"limit_per_month": {"amount": 1, "currency": "PHP"}},
        text | {"purpose": "whole_view"},
        text | {"purpose": "everything"},
        text | {"given_at": "2026-03-02T10:30:00Z"},
    ):
        assert api.acme.post(path, wrong).status_code == 422, wrong
    assert sent(api, member, "R-1")["unapplied"]["amount"] == 0
    over = sent(api, member, "R-2")
    assert (over["unapplied"]["amount"], over["reason"]) == (10_000, "mandate_limit")
    for state, unapplied in (("paused", 20_000), ("in_force", 20_000), ("ended", 20_000)):
        api.clock.advance(timedelta(seconds=60))
        answer = api.acme.call("PATCH", path, {"state": state})
        assert (answer.status_code, answer.json()["state"]) == (200, state), answer.text
        late = sent(api, member, f"R-{state}", completed_at=api.clock.now().isoformat())
        assert late["unapplied"]["amount"] == unapplied
    assert api.bolt.call("PATCH", path, {"state": "ended"}).status_code == 404
    assert api.acme.call("PATCH", path, {"state": "ended"}).status_code == 404  # none is left


def test_a_member_pauses_and_withdraws_what_is_its_own_and_nothing_else(api: Served) -> None:
    app = App(api, api.acme)
    mine, other = registered(api.acme, 1), registered(api.acme, 2)
    me = app.member(mine)
    paused = me.call("PATCH", f"/v1/members/{mine}/consents", {"state": "paused"})
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert me.call("PATCH", f"/v1/members/{other}/consents", {"state": "ended"}).status_code == 404
    assert me.get(f"/v1/members/{mine}").status_code == 200  # a pause stops deductions, not seeing
    assert me.call("PATCH", f"/v1/members/{mine}", {"given_name": "X"}).status_code == 403
    assert me.call("PATCH", f"/v1/members/{mine}/consents", {"state": "ended"}).status_code == 200
    assert me.get(f"/v1/members/{mine}").status_code == 401  # withdrawn: read again at each request
    assert api.acme.get(f"/v1/members/{other}/consents").json()["data"][0]["state"] == "in_force"


def test_an_institutions_word_is_an_organisations_to_give(api: Served) -> None:
    with api.services.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE products.partner SET kind = 'organisation' WHERE slug = 'bolt'")
    member = registered(api.bolt)
    word = {"level": "institution", "evidence": "consulate, file 12", "valid_until": "2027-01-01"}
    given = api.bolt.post(f"/v1/members/{member}/verifications", word)
    assert given.status_code == 201, given.text
    assert api.bolt.get(f"/v1/members/{member}").json()["verification"]["level"] == "institution"
    path = f"/v1/members/{member}/verifications/{given.json()['id']}"
    assert api.acme.call("DELETE", path).status_code == 404
    assert api.bolt.call("DELETE", path).status_code == 204
    assert api.bolt.get(f"/v1/members/{member}").json()["verification"]["level"] == "none"


def test_a_proof_is_for_one_body_and_one_use(api: Served) -> None:
    member = registered(api.acme)
    consent = {"text_version": "2026-1", "language": "rw", "purpose": "whole_view"}
    body = proven(api, member, "consent", consent)
    path = f"/v1/members/{member}/consents"
    other = api.acme.post(path, body | {"purpose": "casework"})
    assert (other.status_code, other.json()["code"]) == (422, "proof_refused")
    assert api.acme.post(path, body).status_code == 201
    assert api.acme.post(path, body).json()["code"] == "proof_refused"


def test_dependants_and_beneficiaries_are_dated_and_shares_are_whole(api: Served) -> None:
    member = registered(api.acme)
    path = f"/v1/members/{member}"
    child = {"relation": "child", "given_name": "Keza", "birth_date": "2015-09-14"}
    added = api.acme.post(f"{path}/dependants", child).json()
    assert api.acme.get(f"{path}/dependants").json()["data"] == [added]
    assert api.bolt.call("DELETE", f"{path}/dependants/{added['id']}").status_code == 404
    assert api.acme.call("DELETE", f"{path}/dependants/{added['id']}").status_code == 204
    assert api.acme.get(f"{path}/dependants").json()["data"] == []
    (ended,) = api.acme.get(f"{path}/dependants?ended=true").json()["data"]
    assert ended["ended_at"] is not None

    def shares(*parts: int) -> dict[str, Any]:
        people = [
            {"relation": "child", "given_name": f"Child {part}", "share_basis_points": part} for part in parts
        ]
        return proven(api, member, "consent", {"beneficiaries": people})

    for parts, status in (((7_000, 3_000), 200), ((7_000, 2_999), 422), ((10_000,), 200), ((), 200)):
        answer = api.acme.call("PUT", f"{path}/beneficiaries", shares(*parts))
        assert answer.status_code == status, answer.text
        if status == 200:
            assert [one["share_basis_points"] for one in answer.json()["data"]] == list(parts)
    assert len(api.acme.get(f"{path}/beneficiaries?ended=true").json()["data"]) == 3
    without = api.acme.call("PUT", f"{path}/beneficiaries", {"beneficiaries": []})
    assert without.status_code == 422


def test_registering_says_and_costs_the_same_wherever_the_phone_is_known(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(api.acme, 1)
    passport = {"type": "passport", "country": "RW", "number": "PC123456"}
    member = registered(api.acme, 2)
    api.acme.post(f"/v1/members/{member}/documents", passport)

    def watched(number: int, document: str) -> tuple[list[str], list[Any]]:
        statements: list[str] = []
        execute = psycopg.Cursor.execute

        def noted(self: Any, query: Any, *args: Any, **more: Any) -> Any:
            statements.append(str(query))
            return execute(self, query, *args, **more)

        with monkeypatch.context() as watching:
            watching.setattr(psycopg.Cursor, "execute", noted)
            mine = api.bolt.post("/v1/members", a_person(number))
            path = f"/v1/members/{mine.json()['id']}/documents"
            recorded = api.bolt.post(path, passport | {"number": document})
        shapes = [mine.status_code, sorted(mine.json()), recorded.status_code, sorted(recorded.json())]
        return statements, shapes

    watched(6, "YY666666")  # what is cached at the first call is there at the next ones
    known, unknown = watched(1, "PC123456"), watched(7, "ZZ999999")
    assert known == unknown
    assert sum("INSERT INTO products.identity_index" in one for one in known[0]) == 2

    manager = api.auditor.get("/v1/duplicates")
    assert manager.status_code == 200, manager.text
    groups = {one["known_by"]: one["members"] for one in manager.json()["data"]}
    assert {kind: len(members) for kind, members in groups.items()} == {"phone": 2, "document": 2}
    assert len({one["partner"] for one in groups["phone"]}) == 2
    page = api.auditor.get("/v1/duplicates?limit=1").json()
    rest = api.auditor.get(f"/v1/duplicates?limit=1&cursor={page['next_cursor']}").json()
    assert page["data"] + rest["data"] == manager.json()["data"]
    assert rest["next_cursor"] is None
    assert api.acme.get("/v1/duplicates").status_code == 403


def test_no_partner_hands_over_or_erases_anybody_without_the_member(api: Served) -> None:
    member = registered(api.acme)
    for method, path in (("GET", "export"), ("POST", "export"), ("POST", "erasure")):
        answer = api.acme.call(method, f"/v1/members/{member}/{path}", None if method == "GET" else {})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
