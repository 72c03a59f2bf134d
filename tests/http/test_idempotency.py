"""One effect for each key: on every route that moves or promises money, over real sockets, fifty at once."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from api.auth.scopes import SCOPES
from api.settings import Settings
from api.v1 import ROUTERS
from ledger.clock import FixedClock
from products.remittances.partners import set_state
from tests.conftest import Databases
from tests.http.served import Served, a_person, served
from tests.racing import at_once

MONEY = {
    "remittances:write",
    "quotes:write",
    "approvals:write",
    "sponsors:write",
    "payouts:write",
    "remittals:write",
    "rails:write",
    "settlements:write",
    "reconciliation:write",
    "periods:write",
}
"""Who may do what these allow moves or promises money by a POST."""
MOVES_NOTHING = {
    "refuse_request",
    "withdraw_request",
    "request_reopening",
    "request_programme_version",
    "compare_settlement_file",
    "load_opening_balances",
    "assign_break",
    "learn_break_counterparty",
    "preview_break_resolution",
    "request_verification",
    "import_bank_statement",
    "withdraw_bank_statement",
    "add_bank_account",
    "add_bank_counterparty",
}
"""What such a scope also allows: it ends a request, files one that no money follows from, compares, says what a bank's accounts
are, or keeps a file: once by its content, and nothing is posted before it is paired or committed."""
NO_MONEY = {
    "limits:write",
    "members:write",
    "consents:write",
    "payees:write",
    "proofs:write",
    "erasure:write",
    "operators:write",
    "clients:write",
    "partners:write",
    "endpoints:write",
    "export:read",
    "duplicates:read",
}
"""What these allow is about persons, access and what is told: done twice it is refused, or moves nothing twice."""


def posts() -> Iterator[tuple[APIRoute, frozenset[str]]]:
    """Every POST route of the API with the scopes it asks for."""
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and "POST" in (route.methods or ()):
                asked = [name for one in route.dependant.dependencies for name in one.own_oauth_scopes or ()]
                yield route, frozenset(asked)


def takes_a_key(route: APIRoute) -> bool:
    return any(one.alias == "Idempotency-Key" for one in route.dependant.header_params)


def test_every_route_that_moves_or_promises_money_takes_a_key() -> None:
    writing = {name for name in SCOPES if name.endswith(":write")}
    assert writing <= MONEY | NO_MONEY, "say here whether what the new scope allows moves or promises money"
    seen = set()
    for route, scopes in posts():
        assert scopes <= MONEY | NO_MONEY, route.operation_id
        moves = bool(scopes & MONEY) and route.operation_id not in MOVES_NOTHING
        assert takes_a_key(route) or not moves, (
            f"{route.operation_id} moves money and takes no Idempotency-Key"
        )
        seen.add(route.operation_id)
    assert {"send_remittance", "reverse_remittance", "create_quote", "approve_request"} <= seen
    assert seen >= MOVES_NOTHING


def test_the_document_says_that_the_key_is_required(api: Served) -> None:
    paths = api.http.get("/openapi.json").json()["paths"]
    for route, _ in posts():
        if not takes_a_key(route):
            continue
        operation = paths[route.path_format]["post"]
        (key,) = [one for one in operation["parameters"] if one["name"] == "Idempotency-Key"]
        assert key["required"] is True
        assert key["schema"]["type"] == "string"


@pytest.fixture
def api_of_many(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """An API that serves 60 requests at once."""
    with served(settings, databases.worker, clock, database_pool_size=20) as api:
        yield api


def a_remittance(member: str, **changes: Any) -> dict[str, Any]:
    return {
        "remittance_id": "ACME-000123",
        "member": {"id": member},
        "sent": {"amount": 100_000, "currency": "AED"},
        "received": {"amount": 300_000, "currency": "RWF"},
        "collected": {"amount": 15_000, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": "2026-03-02T09:29:41Z",
    } | changes


def a_member(api: Served) -> str:
    member: str = api.acme.post("/v1/members", a_person()).json()["id"]
    enrolled = api.acme.post(
        f"/v1/members/{member}/enrolments", {"product": "savings", "choice": {"percent": "5"}}
    )
    assert enrolled.status_code == 201, enrolled.text
    return member


def sent_at_once(api: Served, path: str, bodies: list[dict[str, Any]], key: str) -> list[httpx.Response]:
    """Each body on a connection of its own, all at the same moment, with one key."""
    headers = {"Authorization": f"Bearer {api.acme.token}", "Idempotency-Key": key}
    answers: list[httpx.Response] = []

    def send(body: dict[str, Any]) -> None:
        with httpx.Client(base_url=api.url, timeout=60) as client:
            answers.append(client.post(path, json=body, headers=headers))

    at_once(*[lambda body=body: send(body) for body in bodies])
    return answers


def test_fifty_requests_with_one_key_at_once_have_one_effect(api_of_many: Served) -> None:
    api = api_of_many
    member = a_member(api)
    answers = sent_at_once(api, "/v1/remittances", [a_remittance(member)] * 50, "race")
    told = Counter(
        (answer.status_code, answer.json().get("code"), answer.headers.get("Idempotency-Replayed"))
        for answer in answers
    )
    assert set(told) <= {(201, None, None), (201, None, "true"), (409, "idempotency_key_in_use", None)}, told
    assert told[201, None, None] == 1
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    assert all(int(one.headers["Retry-After"]) >= 1 for one in answers if one.status_code == 409)
    again = api.acme.post("/v1/remittances", a_remittance(member), headers={"Idempotency-Key": "race"})
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.text == next(answer.text for answer in answers if answer.status_code == 201)
    assert api.rows("SELECT count(*) FROM products.remittance") == [(1,)]
    assert api.rows("SELECT count(*) FROM ledger.transaction WHERE kind LIKE 'remittance%%'") == [(1,)]
    assert api.rows("SELECT count(*) FROM api.idempotent_answer") == [(1,)]
    savings = api.acme.get(f"/v1/members/{member}/balances").json()["products"][0]
    assert savings["contributed"]["amount"] == 15_000


def test_fifty_different_requests_with_one_key_are_one_and_refusals(api_of_many: Served) -> None:
    api = api_of_many
    member = a_member(api)
    bodies = [a_remittance(member, remittance_id=f"R-{number}") for number in range(50)]
    answers = sent_at_once(api, "/v1/remittances", bodies, "one for all")
    told = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
    assert told[201, None] == 1
    assert set(told) <= {(201, None), (409, "idempotency_key_in_use"), (422, "idempotency_key_reused")}, told
    assert api.rows("SELECT count(*) FROM products.remittance") == [(1,)]


def test_fifty_reversals_and_quotes_under_one_key_are_one(api_of_many: Served) -> None:
    api = api_of_many
    member = a_member(api)
    sent = api.acme.post("/v1/remittances", a_remittance(member), headers={"Idempotency-Key": "a"}).json()
    reversal = {"reversed_at": "2026-03-02T09:30:00Z", "reason": "the sender cancelled"}
    asked = [reversal] * 25
    taken = sent_at_once(api, f"/v1/remittances/{sent['id']}/reversal", asked, "back")
    assert {answer.status_code for answer in taken} <= {200, 409}
    quote = {
        name: value
        for name, value in a_remittance(member).items()
        if name in ("member", "sent", "received", "origin_country", "destination_country")
    }
    quoted = sent_at_once(api, "/v1/quotes", [quote] * 25, "quote")
    assert {answer.status_code for answer in quoted} <= {201, 409}
    assert len({answer.json()["id"] for answer in quoted if answer.status_code == 201}) == 1
    assert api.rows("SELECT count(*) FROM products.quote") == [(1,)]


@pytest.mark.parametrize("key", [None, "", "k" * 256, "é", "a\tb", "ключ"])
def test_what_is_no_key_is_told_so_and_has_no_effect(api: Served, key: str | None) -> None:
    headers = {"Idempotency-Key": key.encode()} if key is not None else {}
    answer = api.acme.post("/v1/remittances", a_remittance(a_member(api)), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_required")
    assert api.rows("SELECT count(*) FROM products.remittance") == [(0,)]


def test_255_printable_characters_are_a_key(api: Served) -> None:
    member = a_member(api)
    for key in ("k", "k" * 255, "~ !\"#$%&'()*+,-./"):
        body = a_remittance(member, remittance_id=f"R-{len(key)}")
        assert api.acme.post("/v1/remittances", body, headers={"Idempotency-Key": key}).status_code == 201


def test_a_repeat_is_authorised_again(api: Served, databases: Databases) -> None:
    """Whoever has lost access does not get the first answer either."""
    member = a_member(api)
    headers = {"Idempotency-Key": "k"}
    first = api.acme.post("/v1/remittances", a_remittance(member), headers=headers)
    assert first.status_code == 201
    whole = api.acme.token
    api.acme.authenticate(scope="remittances:read")
    refused = api.acme.post("/v1/remittances", a_remittance(member), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    api.acme.token = whole
    with databases.worker.begin() as tx:
        set_state(tx, "acme", "disabled")
    assert api.acme.post("/v1/remittances", a_remittance(member), headers=headers).status_code == 401


def test_spelling_makes_no_other_request_and_content_does(api: Served) -> None:
    member = a_member(api)
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    body = a_remittance(member)
    first = api.acme.call("POST", "/v1/remittances", content=json.dumps(body), headers=headers)
    assert first.status_code == 201
    spelled = json.dumps(dict(reversed(body.items())), indent=3).replace("ACME", "\\u0041CME")
    again = api.acme.call("POST", "/v1/remittances", content=spelled, headers=headers)
    assert (again.status_code, again.text) == (201, first.text)
    for other in (body | {"quote_id": None}, body | {"collected": {"amount": 15_001, "currency": "RWF"}}):
        answer = api.acme.call("POST", "/v1/remittances", content=json.dumps(other), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


def test_an_answer_is_kept_for_thirty_days_whoever_asks_at_once(api: Served, clock: FixedClock) -> None:
    member = a_member(api)
    headers = {"Idempotency-Key": "k"}
    first = api.acme.post("/v1/remittances", a_remittance(member), headers=headers)
    clock.advance(timedelta(days=29, hours=23))
    api.acme.authenticate()
    with ThreadPoolExecutor(5) as threads:
        again = list(
            threads.map(
                lambda _: api.acme.post("/v1/remittances", a_remittance(member), headers=headers), range(5)
            )
        )
    replayed = [answer for answer in again if answer.status_code == 201]
    assert replayed
    assert {answer.text for answer in replayed} == {first.text}
    assert {answer.headers["Idempotency-Replayed"] for answer in replayed} == {"true"}
