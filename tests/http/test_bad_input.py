"""The issue's list of bad input, item by item: each gets its documented answer, loses nothing and is counted.

A row says what is sent, what is answered, what is stored, and which counter moves. `test_hooks.py` has the contract's
table of deliveries and `test_standard_format.py` every fault of the format by itself; here the whole way is tried: the
hook, the inbox, the worker, and that a good event is still served after each.
"""

import asyncio
import json
import random
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks import Webhook

from api.hooks import Hooks
from api.settings import Settings
from integrations.inbox.drain import drain
from ledger.clock import FixedClock
from products.remittances.partners import set_state
from products.remittances.process import process
from tests.conftest import Databases
from tests.http.deployed import deployed
from tests.http.hooked import Signer
from tests.http.served import Served, a_person, served

BODY_BYTES_MAX = 256 * 1024
CONNECTIONS_WANTED = 10_000
DESCRIPTORS_SPARE = 500


def completed(**changes: Any) -> dict[str, Any]:
    """A good event of a member of EjoHeza's."""
    data = {
        "remittance_id": "GOOD",
        "member": {"phone": "+250780000001"},
        "sent": {"amount": 80000, "currency": "AED"},
        "received": {"amount": 300000, "currency": "RWF"},
        "fee": None,
        "collected": {"amount": 15000, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": "2026-03-02T09:20:00Z",
        "quote_id": None,
    }
    return {"type": "remittance.completed", "timestamp": "2026-03-02T09:30:00Z", "data": data | changes}


@dataclass(frozen=True, slots=True)
class World:
    """The API over one database, a partner that signs, and a worker that is called."""

    api: Served
    acme: Signer
    databases: Databases

    @property
    def counts(self) -> dict[str, int]:
        """What the hook has counted."""
        hooks: Hooks = self.api.app.state.hooks
        return dict(hooks.counts)

    def work(self) -> None:
        """Process what waits, as a worker does."""
        services = self.api.services
        processing = partial(process, books=services.books)
        drain(self.databases.worker, processing, services.clock, services.keyring)

    def stored(self) -> list[tuple[Any, ...]]:
        """Kind, standing state and reason of each delivery."""
        return self.api.rows(
            "SELECT d.kind, o.state, o.reason FROM integrations.delivery d LEFT JOIN LATERAL"
            " (SELECT * FROM integrations.delivery_outcome WHERE delivery_id = d.id ORDER BY attempt DESC LIMIT 1) o"
            " ON true ORDER BY d.id"
        )

    @contextmanager
    def adding(
        self, name: str, stored: list[tuple[Any, ...]], counted: dict[str, int], remittances: int = 0
    ) -> Iterator[None]:
        """The block, once its deliveries are processed, adds exactly this to the inbox, the counters and the books."""
        before, counts, (books,) = self.stored(), Counter(self.counts), self.books()
        yield
        self.work()
        assert self.stored() == before + stored, name
        assert dict(Counter(self.counts) - counts) == counted, name
        assert self.books() == [(books[0] + remittances, books[1] + remittances)], name

    def books(self) -> list[tuple[Any, ...]]:
        """How many remittances and transactions there are."""
        return self.api.rows(
            "SELECT (SELECT count(*) FROM products.remittance), (SELECT count(*) FROM ledger.transaction)"
        )

    def raw(self, request: bytes) -> tuple[int, dict[str, Any]]:
        """Send bytes that no client library would: the status and the problem, 0 when there is no answer."""
        where = urlsplit(self.api.url)
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=15) as connection:
            connection.sendall(request)
            answer = b""
            with suppress(TimeoutError, ConnectionResetError):  # what it waits for never comes
                while part := connection.recv(65536):
                    answer += part
                    if b"\r\n\r\n" in answer and answer.endswith(b"}"):
                        break
        if not answer:
            return 0, {}
        head, _, body = answer.partition(b"\r\n\r\n")
        problem = json.loads(body) if b"application/problem+json" in head else {}
        return int(head.split(b" ", 2)[1]), problem


@contextmanager
def a_world(settings: Settings, databases: Databases, clock: FixedClock, **changes: Any) -> Iterator[World]:
    with served(settings, databases.worker, clock, **changes) as api:
        member = api.acme.post("/v1/members", a_person()).json()["id"]
        api.acme.post(f"/v1/members/{member}/enrolments", {"product": "savings"})
        partner_id = api.acme.partner
        assert partner_id is not None
        yield World(api, Signer(partner_id, "acme", api.webhook_secret, clock, api.http), databases)


@pytest.fixture
def world(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[World]:
    with a_world(settings, databases, clock) as running:
        yield running


def amount(value: object, currency: object = "RWF") -> dict[str, object]:
    return {"amount": value, "currency": currency}


DEEP: Any = 0
for _ in range(40):
    DEEP = {"deeper": DEEP}

MALFORMED: dict[str, bytes] = {
    "no JSON": b"remittance_id=ACME-1",
    "nothing": b"",
    "half of it": json.dumps(completed()).encode()[:-20],
    "two values": json.dumps(completed()).encode() * 2,
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(completed()).encode(),
    "another encoding": json.dumps(completed()).encode("utf-16"),
    "NaN": json.dumps(completed(received=amount(float("nan")))).encode(),
    "Infinity": json.dumps(completed(received=amount(float("inf")))).encode(),
    "a key twice": b'{"type": "remittance.completed", "type": "remittance.reversed", "data": {}}',
    "a key twice, deep inside": json.dumps(completed())
    .replace('"currency": "RWF"', '"currency": "RWF", "currency": "PHP"', 1)
    .encode(),
    "a key twice, once escaped": b'{"type": "a", "\\u0074ype": "b"}',
    "deep nesting": json.dumps(completed(extra=DEEP)).encode(),
    "very deep nesting": b'{"type": "x", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NUL, escaped": json.dumps(completed(remittance_id="A\x00B")).encode(),
    "NUL, raw": json.dumps(completed(remittance_id="A-B")).encode().replace(b"A-B", b"A\x00B"),
    "half a surrogate pair": json.dumps(completed(remittance_id="\ud800")).encode(),
    "half a surrogate pair in a key": b'{"type": "remittance.completed", "\\udfff": 1}',
    "half a surrogate pair in UTF-8": json.dumps(completed(remittance_id="A-B"))
    .encode()
    .replace(b"A-B", b"\xed\xa0\x80"),
    "a number without end": b'{"type": "x", "n": ' + b"9" * 5_000 + b"}",
    "a fraction beyond a double": b'{"type": "x", "n": 1e400}',
}


def test_what_is_not_strict_json(world: World) -> None:
    for name, body in MALFORMED.items():
        with world.adding(name, [("rejected", "quarantined", "not_strict_json")], {"not_strict_json": 1}):
            answer = world.acme.send(body, f"msg {name}".replace(" ", "_"))
            assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request"), answer.text
        a_good_event_follows(world, name)


def a_good_event_follows(world: World, name: str) -> None:
    """Nothing stands in the way of a good event, not even under the id of the refused one."""
    with world.adding(name, [("new", "posted", None)], {"accepted": 1}, remittances=1):
        answer = world.acme.send(completed(remittance_id=f"GOOD {name}"), f"msg {name}".replace(" ", "_"))
        assert answer.status_code == 202, answer.text


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "an amount of text": ({"received": amount("300000")}, "/data/received/amount"),
    "a negative amount": ({"received": amount(-300000)}, "/data/received/amount"),
    "an amount of zero": ({"received": amount(0)}, "/data/received/amount"),
    "a fractional amount": ({"received": amount(300000.5)}, "/data/received/amount"),
    "a whole amount spelled as a fraction": ({"received": amount(300000.0)}, "/data/received/amount"),
    "a huge amount": ({"received": amount(2**53)}, "/data/received/amount"),
    "an amount beyond 64 bits": ({"received": amount(2**64)}, "/data/received/amount"),
    "a boolean amount": ({"received": amount(True)}, "/data/received/amount"),
    "no amount": ({"received": amount(None)}, "/data/received/amount"),
    "an amount in a list": ({"received": amount([300000])}, "/data/received/amount"),
    "money as a number": ({"received": 300000}, "/data/received"),
    "a negative amount collected": ({"collected": amount(-1)}, "/data/collected/amount"),
    "a boolean amount collected": ({"collected": amount(False)}, "/data/collected/amount"),
    "a negative fee": ({"fee": amount(-1, "AED")}, "/data/fee/amount"),
    "an unknown currency": ({"received": amount(1, "ZZZ"), "collected": None}, "/data/received/currency"),
    "a currency in small letters": ({"sent": amount(1, "aed")}, "/data/sent/currency"),
    "a currency of another type": ({"sent": amount(1, 784)}, "/data/sent/currency"),
    "more collected than received": ({"collected": amount(300001)}, "/data/collected/amount"),
    "a time without a zone": ({"completed_at": "2026-03-02T09:20:00"}, "/data/completed_at"),
    "a date for a time": ({"completed_at": "2026-03-02"}, "/data/completed_at"),
    "a time as a number": ({"completed_at": 1772443200}, "/data/completed_at"),
    "a time that never was": ({"completed_at": "2026-02-30T09:20:00Z"}, "/data/completed_at"),
    "a time before the calendar": ({"completed_at": "0001-01-01T00:00:00+14:00"}, "/data/completed_at"),
    "a time after the calendar": ({"completed_at": "9999-12-31T23:59:59-14:00"}, "/data/completed_at"),
    "a member of another type": ({"member": "mem_1"}, "/data/member"),
    "nobody": ({"member": {}}, "/data/member"),
    "a remittance id of another type": ({"remittance_id": 7}, "/data/remittance_id"),
    "an endless remittance id": ({"remittance_id": "x" * 129}, "/data/remittance_id"),
    "a country of another type": ({"origin_country": ["AE"]}, "/data/origin_country"),
    "a quote of nobody's": ({"quote_id": "quo_'; DROP TABLE"}, "/data/quote_id"),
}


def test_what_breaks_the_schema(world: World) -> None:
    for name, (changes, pointer) in INVALID.items():
        with world.adding(name, [("rejected", "quarantined", "invalid_event")], {"invalid_event": 1}):
            answer = world.acme.send(completed(**changes), f"msg {name}".replace(" ", "_"))
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_event"), answer.text
            assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
        a_good_event_follows(world, name)


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "a currency other than the programme's": (
        {"received": amount(300000, "PHP"), "collected": None},
        "currency_not_served",
    ),
    "collected in another currency": ({"collected": amount(15000, "AED")}, "currency_not_served"),
    "in the far past": ({"completed_at": "1999-01-01T00:00:00Z"}, "time_too_long_ago"),
    "in the far future": ({"completed_at": "9999-12-30T00:00:00Z"}, "time_in_the_future"),
    "in the first year": ({"completed_at": "0001-01-02T00:00:00Z"}, "time_too_long_ago"),
    "a corridor that is not served": ({"destination_country": "PH"}, "corridor_not_served"),
    "a quote that nobody gave, on top of no amount": (
        {"quote_id": "quo_" + "0" * 26, "collected": None},
        "collected_missing",
    ),
}


def test_what_is_well_formed_and_impossible_here(world: World) -> None:
    for number, (name, (changes, reason)) in enumerate(IMPOSSIBLE.items()):
        with world.adding(name, [("new", "quarantined", reason)], {"accepted": 1}):
            answer = world.acme.send(completed(remittance_id=f"IMPOSSIBLE-{number}", **changes))
            assert answer.status_code == 202, answer.text
        shown = world.api.acme.get(f"/v1/deliveries/{answer.json()['id']}").json()
        assert (shown["state"], shown["reason"]) == ("quarantined", reason), name
        a_good_event_follows(world, name)


def test_the_largest_amount_is_money_and_overflows_nothing(world: World) -> None:
    largest = 2**53 - 1
    for number in range(3):
        event = completed(
            remittance_id=f"LARGE-{number}",
            received=amount(largest),
            collected=amount(largest),
            sent=amount(largest, "AED"),
        )
        with world.adding(f"{number}", [("new", "posted", None)], {"accepted": 1}, remittances=1):
            assert world.acme.send(event).status_code == 202
    a_good_event_follows(world, "after them")


def test_a_replayed_id_with_another_body_is_refused_kept_and_counted(world: World) -> None:
    assert world.acme.send(completed(), "msg_1").status_code == 202
    refused = world.acme.send(completed(collected=amount(14_000)), "msg_1")
    assert (refused.status_code, refused.json()["code"]) == (409, "delivery_conflict")
    world.work()
    assert world.stored() == [("new", "posted", None), ("evidence", "conflict", "delivery_conflict")]
    assert world.counts == {"accepted": 1, "conflict": 1}
    # under a new id it is a remittance that is known with other content
    assert world.acme.send(completed(collected=amount(14_000)), "msg_2").status_code == 202
    world.work()
    assert world.stored()[2:] == [("new", "quarantined", "remittance_conflict")]
    assert world.books() == [(1, 1)]


def test_a_body_over_the_limit_is_refused_however_its_length_is_told(world: World) -> None:
    body = json.dumps(completed()).encode().ljust(BODY_BYTES_MAX + 1)
    told = world.acme.send(body)
    chunked = world.acme.client.post(
        "/hooks/acme",
        content=iter([body[:100_000], body[100_000:]]),
        headers=world.acme.headers(body, "msg_1"),
    )
    for answer in (told, chunked):
        assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
    declared = b"POST /hooks/acme HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n"
    for length in (b"99999999999999999999999", b"-1", b"1e3", b"0x10", b"\xb2"):
        status, _ = world.raw(declared % length)
        assert status in (0, 400, 413), length
    assert world.stored() == []
    assert world.counts["too_large"] >= 2
    a_good_event_follows(world, "large")


def test_headers_that_no_partner_sends(world: World) -> None:
    body = json.dumps(completed()).encode()
    good = world.acme.headers(body, "msg_1")
    signature = good["webhook-signature"].encode()
    for changes, expected in (
        ({"webhook-signature": b"v1," + b"A" * 60_000}, {400, 401, 431}),
        ({"webhook-signature": b" ".join([b"v1,AAAA"] * 2_000)}, {401}),
        ({"webhook-signature": b"garbage v1 v1,, ,v1 v2,x v1a,*** \xff\xfe v1," + b"=" * 50}, {401}),
        ({"webhook-signature": b""}, {401}),
        ({"webhook-timestamp": b"1772443800.5"}, {401}),
        ({"webhook-timestamp": b"1.772443800e9"}, {401}),
        ({"webhook-timestamp": "١٧٧٢٤٤٣٨٠٠".encode()}, {401}),
        ({"webhook-timestamp": b"\xb2\xb3"}, {401}),
        ({"webhook-timestamp": b"-1772443800"}, {401}),
        ({"webhook-timestamp": b"9" * 400}, {401}),
        ({"webhook-timestamp": b""}, {401}),
        ({"webhook-id": b"x" * 256}, {401}),
        ({"webhook-id": b"a\tb"}, {400, 401}),
        ({"webhook-id": b"msg\x001"}, {400}),
        ({"webhook-signature": signature + b"\x00"}, {400}),
        ({"x-anything": b"a\x00b"}, {400}),
        ({"transfer-encoding": b"chunked"}, {400, 401}),
        ({"content-encoding": b"gzip"}, {415}),
    ):
        status, _ = world.raw(
            _request(body, {name: value.encode() for name, value in good.items()} | changes)
        )
        assert status in expected, (changes, status)
    assert world.stored() == []
    assert world.counts["unsigned"] >= 11
    assert world.counts["encoded"] == 1
    # and a good signature behind garbage is a good one
    garbage = {"webhook-signature": f"v1 v2,x v1,AAAA {good['webhook-signature']}"}
    assert world.acme.client.post("/hooks/acme", content=body, headers=good | garbage).status_code == 202


def _request(body: bytes, headers: dict[str, bytes]) -> bytes:
    lines = [b"POST /hooks/acme HTTP/1.1", b"Host: x", b"Connection: close"]
    if "transfer-encoding" not in headers:
        lines.append(b"Content-Length: %d" % len(body))
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_nobody_and_the_disabled_are_refused_alike_and_their_return_is_served(world: World) -> None:
    with world.databases.worker.begin() as tx:
        set_state(tx, "acme", "disabled")
    body = json.dumps(completed()).encode()
    headers = world.acme.headers(body, "msg_1")
    unknown = [
        world.acme.client.post(f"/hooks/{slug}", content=body, headers=headers)
        for slug in ("nobody", "ACME", "acme%00", "%F0%9F%92%B0", "x" * 2_000, "..%2Facme")
    ]
    for answer in unknown:
        assert answer.status_code in (400, 401, 404), answer.text
    # whoever is refused was looked for in the database as it is by now, which this one then finds read
    disabled = world.acme.send(completed(), "msg_1")
    assert disabled.status_code == 401
    own = ("request_id",)
    assert {k: v for k, v in disabled.json().items() if k not in own} == {
        k: v for k, v in unknown[0].json().items() if k not in own
    }
    assert world.stored() == []
    with world.databases.worker.begin() as tx:
        set_state(tx, "acme", "active")
    a_good_event_follows(world, "again")


@pytest.fixture
def connections() -> Iterator[int]:
    """Ten thousand, or what the limit on open files leaves once it is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, CONNECTIONS_WANTED + DESCRIPTORS_SPARE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    yield min(CONNECTIONS_WANTED, allowed - DESCRIPTORS_SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(900)
def test_ten_thousand_connections_at_once_are_all_answered_and_lose_nothing(
    settings: Settings, databases: Databases, connections: int
) -> None:
    """Each brings a signed delivery. Those beyond the bounded queue are asked to come back, do, and are served."""
    with deployed(settings) as deployment:
        made = deployment.mizan("partner create acme --programme ejoheza")
        answers = asyncio.run(_storm(deployment.url, made["webhook_secret"], connections))
    statuses = Counter(status for status, _ in answers)
    assert statuses.keys() <= {202, 503}, statuses
    assert statuses[202] == connections
    assert len({delivery for status, delivery in answers if status == 202}) == connections
    with databases.worker.begin() as tx:
        stored = tx.exec_driver_sql(
            "SELECT count(*), count(DISTINCT delivery_key) FROM integrations.delivery"
        )
        assert stored.one() == (connections, connections)


async def _storm(url: str, secret: str, connections: int) -> list[tuple[int, str]]:
    """Open all connections, then send on all of them at once; every answer, those that asked to come back too."""
    where = urlsplit(url)
    opening = asyncio.Semaphore(500)
    opened = asyncio.Barrier(connections)
    answers: list[tuple[int, str]] = []

    async def one(number: int) -> None:
        request = _signed(secret, number)
        async with opening:
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
        await opened.wait()
        try:
            for attempt in range(200):
                writer.write(request)
                status, retry_after, answer = await _answer(reader)
                answers.append((status, str(answer.get("id"))))
                if status != 503:
                    return
                # as partners do: not sooner than told, later each time, and not all at once
                await asyncio.sleep(retry_after + random.uniform(0, min(2**attempt, 8)))
        finally:
            writer.close()
            await writer.wait_closed()

    async with asyncio.timeout(600):
        await asyncio.gather(*(one(number) for number in range(connections)))
    return answers


def _signed(secret: str, number: int) -> bytes:
    body = json.dumps(completed(remittance_id=f"STORM-{number}"))
    at = datetime.now(UTC)
    name = f"msg_{number}"
    return (
        f"POST /hooks/acme HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nwebhook-id: {name}\r\n"
        f"webhook-timestamp: {int(at.timestamp())}\r\nwebhook-signature: {Webhook(secret).sign(name, at, body)}\r\n\r\n"
        f"{body}"
    ).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, float, dict[str, Any]]:
    """The status, how long to wait before coming back, and the document of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["content-length"]))
    status = int(first.split(" ", 2)[1])
    assert status != 503 or "retry-after" in headers
    return status, float(headers.get("retry-after", 0)), json.loads(body)
