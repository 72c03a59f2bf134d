"""The edge under attack: slow, oversized and endless requests, headers that lie, and what browsers are told."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from sqlalchemy import text
from starlette.types import ASGIApp

from api.connections import HEAD_BYTES_MAX, UNREAD_BYTES_MAX, bounded
from api.settings import Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.hooked import Signer, completed
from tests.http.served import Served, a_person, served
from tests.patience import eventually

BODY_SECONDS = 1.0
REQUEST_SECONDS = 3.0
HEAD_SECONDS = 1.5
BODY_BYTES_MAX = 256 * 1024
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def public(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """An API that is reached by https."""
    with served(settings, databases.worker, clock, public_url="https://mizan.example") as api:
        yield api


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    where = urlsplit(url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=15) as connection:
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes, or cuts off."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionError:
        pass
    return received


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """The first answer on a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received or b"}" not in received.partition(b"\r\n\r\n")[2]:
        part = connection.recv(65536)
        if not part:
            break
        received += part
    return int(received.split(b" ", 2)[1]) if received else 0, received


def sent_until_cut_off(connection: socket.socket, part: bytes) -> int:
    """How much the other side let be sent before it ended the connection."""
    for times in range(10_000):
        try:
            connection.sendall(part)
        except OSError:
            return times * len(part)
    raise AssertionError("it was never cut off")


# Slow


@contextmanager
def trickling(url: str) -> Iterator[socket.socket]:
    """A request whose body comes byte by byte, for hours."""
    with connected(url) as connection:
        connection.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"a")
                except OSError:
                    return

        sender = threading.Thread(target=trickle)
        sender.start()
        try:
            yield connection
        finally:
            stop.set()
            sender.join()


def test_a_body_that_trickles_is_answered_before_its_end(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    with served(settings, databases.worker, clock, request_body_seconds_max=BODY_SECONDS) as api:
        began = time.monotonic()
        with trickling(api.url) as connection:
            status, answer = answer_of(connection)
            assert (status, b'"request_timeout"' in answer) == (408, True)
            assert time.monotonic() - began >= BODY_SECONDS


def test_a_body_that_trickles_holds_nobody_up(api: Served) -> None:
    with trickling(api.url) as connection:
        assert api.acme.get("/v1/programmes").status_code == 200
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):  # it has no answer yet
            connection.recv(1)
        connection.setblocking(True)


@contextmanager
def behind(app: ASGIApp, connections_max: int = 100, head_seconds: float = HEAD_SECONDS) -> Iterator[str]:
    """An application behind the protocol that `mizan serve` uses, with tighter bounds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app,
            http=bounded(connections_max, head_seconds),
            loop="asyncio",
            log_level="error",
            lifespan="off",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


async def greet(scope, receive, send) -> None:  # type: ignore[no-untyped-def]  # any ASGI application
    """Answers at once, whatever is still to come."""
    content = (b"content-length", b"2")
    await send({"type": "http.response.start", "status": 200, "headers": [content]})
    await send({"type": "http.response.body", "body": b"{}"})


def test_heads_that_trickle_and_connections_that_say_nothing_are_cut_off() -> None:
    began = time.monotonic()
    with behind(greet) as url, connected(url) as silent, connected(url) as slow, connected(url) as busy:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")

        def is_cut_off() -> bool:
            # meanwhile a client that sends whole requests keeps its connection
            busy.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_of(busy)[0] == 200
            try:
                slow.sendall(b"X-A: b\r\n")
            except OSError:
                return True
            time.sleep(0.05)
            return False

        eventually(is_cut_off)
        assert time.monotonic() - began >= HEAD_SECONDS
        assert everything(silent) == b""


def test_a_second_head_on_a_connection_is_bounded_as_the_first() -> None:
    with behind(greet) as url, connected(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection)[0] == 200
        connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert everything(connection) == b""  # it was waited for, and not for ever


# Oversized


@pytest.mark.parametrize("head", [b"X-A: ", b"X-"])
def test_a_head_without_an_end_is_cut_off(head: bytes) -> None:
    with behind(greet, head_seconds=30) as url, connected(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + head)
        assert sent_until_cut_off(connection, b"a" * 16_384) < 64 * HEAD_BYTES_MAX


def test_a_body_that_goes_on_after_its_answer_is_cut_off() -> None:
    with behind(greet, head_seconds=30) as url, connected(url) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert answer_of(connection)[0] == 200
        chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
        assert sent_until_cut_off(connection, chunk) < 64 * UNREAD_BYTES_MAX
    with behind(greet) as url, connected(url) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert answer_of(connection)[0] == 200
        assert everything(connection) == b""  # it was waited for, and not for ever


def test_connections_beyond_the_limit_are_closed_and_the_others_served() -> None:
    with behind(greet, connections_max=3, head_seconds=30) as url:
        with connected(url) as first, connected(url) as second, connected(url) as third:
            for one in (first, second, third):
                one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert answer_of(one)[0] == 200
            with connected(url) as fourth:
                assert everything(fourth) == b""
            first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_of(first)[0] == 200

        def is_served() -> bool:
            with connected(url) as again:
                try:
                    again.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    return answer_of(again)[0] == 200
                except ConnectionError:
                    return False

        eventually(is_served)  # once the server has seen that they are gone


def test_bodies_over_the_limit_are_refused_however_they_come(public: Served) -> None:
    body = b"{" + b" " * BODY_BYTES_MAX + b"}"
    told = public.acme.call("POST", "/v1/members", content=body)
    chunked = public.acme.call("POST", "/v1/members", content=iter([body[:200_000], body[200_000:]]))
    for answer in (told, chunked):
        assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
    with connected(public.url) as connection:  # refused by what it declares, before a byte of it
        connection.sendall(b"POST /v1/members HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n")
        assert answer_of(connection)[0] == 413
    # a client that sends all of it before it reads has its answer, and is told not to go on with this connection
    length, chunk = 8 * UNREAD_BYTES_MAX, b"%x\r\n%b\r\n" % (65_536, bytes(65_536))
    for how, content in (
        (b"Content-Length: %d" % length, bytes(length)),
        (b"Transfer-Encoding: chunked", chunk * (length // 65_536) + b"0\r\n\r\n"),
    ):
        for path in (b"/v1/members", b"/v1/bank-statements", b"/hooks/acme"):
            with connected(public.url) as connection:
                connection.sendall(
                    b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + how + b"\r\n\r\n" + content
                )
                answered = everything(connection)
            assert (answered.split(b" ", 2)[1], b"\r\nconnection: close\r\n" in answered) == (b"413", True)
    for lie in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
    ):
        with connected(public.url) as connection:  # two lengths are how requests are smuggled
            connection.sendall(
                b"POST /v1/members HTTP/1.1\r\nHost: x\r\n" + lie + b"\r\nConnection: close\r\n\r\n0\r\n\r\n"
            )
            assert everything(connection).split(b" ", 2)[1] == b"400", lie


def test_json_is_read_to_32_levels(public: Served) -> None:
    for depth, code in ((31, "invalid_request"), (33, "malformed_request"), (100_000, "malformed_request")):
        body = b'{"facts": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        answer = public.acme.call("POST", "/v1/members", content=body, headers=JSON)
        assert answer.json()["code"] == code, depth


def test_heads_over_the_limit_are_refused(public: Served) -> None:
    many = public.http.get("/healthz", headers={f"X-{n}": "a" for n in range(200)})
    large = public.http.get("/healthz", headers={"X-Large": "a" * 40_000})
    for answer in (many, large):
        assert (answer.status_code, answer.json()["code"]) == (431, "headers_too_large")
    long = public.http.get("/v1/members?cursor=" + "a" * 9_000)
    assert (long.status_code, long.json()["code"]) == (414, "address_too_long")


# Too many and too long


@contextmanager
def members_locked(databases: Databases) -> Iterator[None]:
    """Requests that read members wait for the length of the block."""
    with databases.owner.begin() as tx:
        tx.execute(text("LOCK TABLE products.member_link IN ACCESS EXCLUSIVE MODE"))
        yield


def test_requests_beyond_those_under_way_are_asked_to_come_back_and_deliveries_are_not(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    with (
        served(settings, databases.worker, clock, request_concurrency_max=3) as api,
        ThreadPoolExecutor(3) as threads,
    ):
        assert api.acme.partner is not None
        signer = Signer(api.acme.partner, "acme", api.webhook_secret, clock, api.http)
        with members_locked(databases):
            waiting = [threads.submit(api.acme.get, f"/v1/members/mem_{'0' * 26}") for _ in range(3)]

            def refusal() -> httpx.Response | None:
                answer = api.http.get("/problems")
                return answer if answer.status_code == 503 else None

            refused = eventually(refusal)
            assert refused is not None
            assert refused.json()["code"] == "unavailable"
            assert 1 <= int(refused.headers["Retry-After"]) <= 3
            assert signer.send(completed()).status_code == 202
        assert {one.result().status_code for one in waiting} == {404}
        assert api.acme.get("/v1/programmes").status_code == 200


def test_a_request_that_takes_too_long_is_answered_and_its_work_ends_in_its_own_time(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    """The database itself would give up as well, but later than the caller."""
    with served(
        settings,
        databases.worker,
        clock,
        request_seconds_max=REQUEST_SECONDS,
        request_concurrency_max=3,
        lock_timeout_seconds=100,
        statement_timeout_seconds=100,
    ) as api:
        with members_locked(databases):
            began = time.monotonic()
            late = api.acme.get(f"/v1/members/mem_{'0' * 26}")
            assert (late.status_code, late.json()["code"]) == (503, "unavailable")
            assert time.monotonic() - began >= REQUEST_SECONDS
        for _ in range(5):  # the connection, its place and its database connection are whole
            assert api.acme.get(f"/v1/members/mem_{'0' * 26}").status_code == 404
        # the general ledger takes as long as it takes, and comes whole
        with ThreadPoolExecutor(1) as reading:
            with databases.owner.begin() as tx:
                tx.execute(text("LOCK TABLE ledger.posting IN ACCESS EXCLUSIVE MODE"))
                export = reading.submit(api.auditor.get, "/v1/books/export")
                time.sleep(REQUEST_SECONDS + 1)
            assert export.result().text.splitlines()[-1].startswith("# {")


# What browsers and others are told


def test_every_answer_says_what_it_is_not_for(public: Served) -> None:
    data = (
        public.http.get("/healthz"),
        public.http.get("/nowhere"),
        public.http.get("/.well-known/jwks.json"),
        public.http.post("/hooks/nobody", content=b"{}"),
        public.acme.get("/v1/programmes"),
        public.acme.post("/v1/members", {}),
        public.acme.authenticate(),
    )
    for answer in data:
        headers = answer.headers
        assert headers["Strict-Transport-Security"].startswith("max-age=")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")
        assert headers["Referrer-Policy"] == "no-referrer"
        assert (
            headers["Cross-Origin-Resource-Policy"] == headers["Cross-Origin-Opener-Policy"] == "same-origin"
        )
        assert "camera=()" in headers["Permissions-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers
        assert len(set(headers)) == len(headers.multi_items()), "a header is said twice"


def test_pages_say_their_own_policy(api: Served) -> None:
    for path, needs in (("/problems", "style-src 'unsafe-inline'"), ("/docs", "script-src")):
        policy = api.http.get(path).headers.get_list("Content-Security-Policy")
        assert len(policy) == 1
        assert needs in policy[0]
        assert "frame-ancestors 'none'" in policy[0]
    assert "script-src" not in api.http.get("/problems").headers["Content-Security-Policy"]


def test_over_http_nobody_is_told_to_use_https(api: Served) -> None:
    assert "Strict-Transport-Security" not in api.http.get("/healthz").headers


def test_no_other_site_may_read_or_send_anything(api: Served) -> None:
    origin = {"Origin": "https://evil.example"}
    preflight = api.http.options(
        "/v1/members",
        headers=origin
        | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"},
    )
    assert preflight.status_code == 405
    for answer in (
        preflight,
        api.http.get("/healthz", headers=origin),
        api.acme.get("/v1/programmes", headers=origin),
        api.http.post("/oauth/token", headers=origin),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_links_come_from_the_public_url_whatever_host_is_claimed(public: Served) -> None:
    lies = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
    for path in ("/.well-known/oauth-authorization-server", "/openapi.json", "/docs", "/problems"):
        answer = public.http.get(path, headers=lies)
        assert answer.status_code == 200
        assert "evil.example" not in answer.text + str(answer.headers)
    assert (
        public.http.get("/.well-known/oauth-authorization-server").json()["issuer"] == "https://mizan.example"
    )


# What others wrote


EVIL = 'x\r\n{"level": "error", "event": "forged"}\x1b[2J\u2028forged'


def test_nothing_that_is_sent_writes_a_log_line_or_a_header_of_its_own(
    api: Served, caplog: pytest.LogCaptureFixture
) -> None:
    path = "/v1/members/" + "%0d%0aSet-Cookie:%20a=b%1b[31m"
    person = a_person() | {"partner_reference": EVIL, "phone": EVIL, EVIL: EVIL}
    answers = [
        api.acme.get(path),
        api.acme.post("/v1/members", person),
        api.acme.post("/v1/members", a_person(), headers={"Idempotency-Key": "a\x1b[31m"}),
        api.http.get("/nowhere%0d%0aSet-Cookie:a=b?cursor=%0d%0aX-Evil:1"),
        api.acme.get("/v1/remittances", params={"remittance_id": EVIL, "cursor": EVIL}),
        api.http.post("/oauth/token", data={"grant_type": EVIL, "client_id": EVIL, "client_secret": EVIL}),
        api.http.get("/healthz", headers={"X-Request-Id": 'a"\x1b[31m'}),
        api.http.post("/hooks/%0d%0aforged", content=EVIL.encode()),
    ]
    for answer in answers:
        assert answer.status_code < 500
        assert "set-cookie" not in answer.headers
        assert "x-evil" not in answer.headers
    ours = [
        record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "alembic"))
    ]
    for record in ours:
        shown = record.getMessage()
        assert not {"\r", "\n", "\x1b", "\u2028"} & set(shown), shown
    with connected(api.url) as connection:  # a header that holds a line break of its own is no header
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\n b\rc\r\nConnection: close\r\n\r\n"
        )
        assert b"a\n b" not in everything(connection)


# Cursors


def test_a_cursor_of_which_anything_was_changed_is_none(api: Served, clock: FixedClock) -> None:
    assert api.acme.partner is not None
    signer = Signer(api.acme.partner, "acme", api.webhook_secret, clock, api.http)
    for number in (1, 2):
        assert signer.send(completed(remittance_id=f"R-{number}")).status_code == 202
    cursor = api.acme.get("/v1/deliveries", params={"limit": 1}).json()["next_cursor"]
    assert len(api.acme.get("/v1/deliveries", params={"cursor": cursor}).json()["data"]) == 1

    def expect_invalid(answer: httpx.Response, what: object) -> None:
        assert (answer.status_code, answer.json()["code"]) in (
            (400, "invalid_cursor"),
            (422, "invalid_request"),
        ), what

    for place in range(len(cursor)):
        changed = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        expect_invalid(api.acme.get("/v1/deliveries", params={"cursor": changed}), changed)
    for told in (
        cursor[:-1],
        cursor + "A",
        cursor * 2,
        cursor + "=",
        "",
        " ",
        "%00",
        "../",
        "null",
        "é",
        "a" * 2_000,
    ):
        expect_invalid(api.acme.get("/v1/deliveries", params={"cursor": told}), told)
    expect_invalid(api.bolt.get("/v1/deliveries", params={"cursor": cursor}), "another client's")
    expect_invalid(api.acme.get("/v1/remittances", params={"cursor": cursor}), "another list's")
    expect_invalid(
        api.acme.get("/v1/deliveries", params={"cursor": cursor, "state": "queued"}), "other filters'"
    )
    clock.advance(timedelta(days=7))
    api.acme.authenticate()
    expect_invalid(api.acme.get("/v1/deliveries", params={"cursor": cursor}), "too old")
