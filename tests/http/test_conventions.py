"""What is true of every answer: ids, headers, problems, limits, and no 5xx for bad input."""

import html
import socket
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import text

from api.access import OPEN
from api.limits import RETRY_SPREAD_SECONDS, WINDOW_SECONDS
from api.problem_catalogue import CATALOGUE
from api.settings import Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.served import Served, a_person, served


def raw(api: Served, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are: what no client library would let through."""
    where = urlsplit(api.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]) if answer else 0, answer


def test_every_answer_says_its_request_and_where_it_comes_from(api: Served) -> None:
    for path in ("/healthz", "/nowhere", "/v1/programmes", "/problems"):
        answer = api.http.get(path, headers={"X-Request-Id": "trace-17"})
        assert answer.headers["X-Request-Id"] == "trace-17"
        assert answer.headers["Mizan-Environment"] == "sandbox"
    made = api.http.get("/nowhere", headers={"X-Request-Id": "<script>"})
    assert made.headers["X-Request-Id"].startswith("req_")
    assert made.json()["request_id"] == made.headers["X-Request-Id"]


def test_every_problem_has_a_page(api: Served) -> None:
    missing = api.http.get("/nowhere").json()
    assert missing["type"] == "/problems/not_found"
    for code in CATALOGUE:
        page = api.http.get(f"/problems/{code}")
        assert page.status_code == 200
        assert html.escape(CATALOGUE[code].title) in page.text
    assert api.http.get("/problems/none").status_code == 404


def test_readiness_is_truthful(api: Served) -> None:
    assert api.http.get("/readyz").json() == {
        "status": "ok",
        "database": "ok",
        "worker_database": "ok",
        "migrations": "ok",
        "stamp": "ok",
        "queue": "ok",
        "inbox": "ok",
        "seals": "ok",
    }


def test_bodies_that_are_not_strict_json_are_a_400(api: Served) -> None:
    bodies = [
        b"{",
        b"\xff",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"phone": "\\u0000"}',
        b'{"phone": "\\ud800"}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ]
    for body in bodies:
        answer = api.acme.call(
            "POST", "/v1/members", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request"), body[:40]


def test_values_of_the_wrong_kind_are_a_422(api: Served) -> None:
    member = {"phone": "+250780000001"}
    good: dict[str, Any] = {
        "remittance_id": "R",
        "member": member,
        "sent": {"amount": 1, "currency": "AED"},
        "received": {"amount": 1, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": "2026-03-02T09:20:00Z",
    }
    amounts: list[object] = [-1, 0, 1.5, True, "1", None, 2**53, 10**15 * 10**4, {}]
    for amount in amounts:
        answer = api.acme.post(
            "/v1/remittances",
            good | {"received": {"amount": amount, "currency": "RWF"}},
            headers={"Idempotency-Key": "k"},
        )
        assert answer.status_code == 422, (amount, answer.text)
        assert answer.json()["errors"][0]["pointer"] == "/received/amount"
    for change in (
        {"sent": {"amount": 1, "currency": "XXX1"}},
        {"sent": {"amount": 1, "currency": "ZZZ"}},
        {"completed_at": "2026-03-02T09:20:00"},
        {"completed_at": "0001-01-01T00:00:00+14:00"},
        {"completed_at": 1772443200},
        {"member": {}},
        {"member": member | {"partner_reference": "x"}},
        {"unknown": 1},
        {"quote_id": "quo_x"},
    ):
        answer = api.acme.post("/v1/remittances", good | change, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 422, (change, answer.text)


def test_limits_on_bodies_and_pages(api: Served) -> None:
    large = api.acme.call(
        "POST",
        "/v1/members",
        content=b" " * (256 * 1024 + 1),
        headers={"Content-Type": "application/json"},
    )
    assert (large.status_code, large.json()["code"]) == (413, "content_too_large")
    encoded = api.acme.post("/v1/members", a_person(), headers={"Content-Encoding": "gzip"})
    assert (encoded.status_code, encoded.json()["code"]) == (415, "unsupported_media_type")
    for limit in ("0", "201", "x", "1.5", "9" * 400):
        answer = api.acme.get("/v1/deliveries", params={"limit": limit})
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "limit")


def test_nothing_in_an_address_or_a_header_becomes_a_500(api: Served) -> None:
    token = api.acme.token.encode()
    heads = [
        b"GET /v1/members/%00 HTTP/1.1\r\n",
        b"GET /v1/members/%ff%fe HTTP/1.1\r\n",
        b"GET /v1/members/mem_%ED%A0%80 HTTP/1.1\r\n",
        b"GET /v1/remittances?remittance_id=%00 HTTP/1.1\r\n",
        b"GET /v1/remittances?remittance_id=%ED%A0%80 HTTP/1.1\r\n",
        b"GET /v1/remittances?remittance_id=%F0%9F%92%B0 HTTP/1.1\r\n",
        b"GET /v1/members/../../etc HTTP/1.1\r\n",
        b"GET /v1/programmes HTTP/1.1\r\nX-Request-Id: \xff\xfe\r\n",
        b"GET /v1/programmes HTTP/1.1\r\nX: a\x00b\r\n",
        b"GET /.well-known/mizan-seals?after=99999999999999999999 HTTP/1.1\r\n",
        b"GET /problems/%00 HTTP/1.1\r\n",
        b"DELETE /v1/members HTTP/1.1\r\n",
        b"TRACE / HTTP/1.1\r\n",
    ]
    for head in heads:
        status, answer = raw(
            api, head + b"Host: x\r\nAuthorization: Bearer " + token + b"\r\nConnection: close\r\n\r\n"
        )
        assert 200 <= status < 500, (head, answer[:200])


def test_requests_beyond_the_limit_wait(settings: Settings, databases: Databases, clock: FixedClock) -> None:
    with served(settings, databases.worker, clock, requests_per_minute=2) as api:
        first = api.acme.get("/v1/programmes")
        assert (first.headers["RateLimit-Limit"], first.headers["RateLimit-Remaining"]) == ("2", "1")
        api.acme.get("/v1/programmes")
        third = api.acme.get("/v1/programmes")
        assert (third.status_code, third.json()["code"]) == (429, "rate_limited")
        assert 0 < int(third.headers["Retry-After"]) <= WINDOW_SECONDS + RETRY_SPREAD_SECONDS
        assert api.bolt.get("/v1/programmes").status_code == 200


def test_a_commit_that_fails_never_follows_a_2xx(api: Served, databases: Databases) -> None:
    """Regression: FastAPI ends a `yield` dependency after the answer, unless its scope is the function."""
    with databases.owner.begin() as tx:
        tx.execute(
            text(
                "CREATE FUNCTION products.fail() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'no commit today'; END $$"
            )
        )
        tx.execute(
            text(
                "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON products.member DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION products.fail()"
            )
        )
    answer = api.acme.post("/v1/members", a_person())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "no commit" not in answer.text
    assert api.rows("SELECT count(*) FROM products.member") == [(0,)]


def test_the_victim_of_a_deadlock_is_served_again(api: Served, databases: Databases) -> None:
    with databases.owner.begin() as tx:
        tx.execute(text("CREATE SEQUENCE products.tries"))
        tx.execute(text("GRANT USAGE ON SEQUENCE products.tries TO PUBLIC"))
        tx.execute(
            text(
                "CREATE FUNCTION products.deadlock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " IF nextval('products.tries') < 3 THEN RAISE EXCEPTION 'victim' USING ERRCODE = '40P01'; END IF;"
                " RETURN NULL; END $$"
            )
        )
        tx.execute(
            text(
                "CREATE CONSTRAINT TRIGGER deadlock AFTER INSERT ON products.member DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION products.deadlock()"
            )
        )
    assert api.acme.post("/v1/members", a_person()).status_code == 201
    assert api.rows("SELECT count(*) FROM products.member") == [(1,)]


def test_every_route_but_the_public_ones_declares_what_opens_it(api: Served) -> None:
    document = api.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    ids = []
    for operations in document["paths"].values():
        for operation in operations.values():
            ids.append(operation["operationId"])
            ways = [name for way in operation.get("security", []) for name in way]
            if operation["operationId"] in OPEN:
                assert not {"oauth2", "member", "session"} & set(ways), operation["operationId"]
            else:
                assert {"oauth2", "member", "session"} & set(ways), operation["operationId"]
    assert len(ids) == len(set(ids))
    assert {"oauth2", "member", "session"} <= set(document["components"]["securitySchemes"])
    balances = document["paths"]["/v1/members/{member}/balances"]["get"]["security"]
    assert balances == [
        {"oauth2": ["balances:read"]},
        {"member": ["balances:read"]},
        {"session": ["auditor", "caseworker", "manager"]},
    ]
