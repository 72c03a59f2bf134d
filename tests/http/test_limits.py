"""Rate limits: per client with a token, per address without one; in Valkey, and in the process when Valkey is gone."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from limits.storage import RedisStorage

from api.embedded import EmbeddedServers
from api.limits import (
    LEASE_PARTS,
    REFUSED_COSTS,
    RETRY_SPREAD_SECONDS,
    VALKEY_PAUSE_SECONDS,
    WINDOW_SECONDS,
    Limits,
)
from api.settings import Settings
from ledger.clock import FixedClock
from ledger.database import Database
from tests.conftest import Databases
from tests.http.hooked import Signer, completed
from tests.http.served import Served, served
from tests.racing import at_once

CLOCK_AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
FORGED = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}


def expect_asked_to_wait(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited"), answer.text
    reset = int(answer.headers["RateLimit-Reset"])
    assert 0 < reset <= WINDOW_SECONDS
    assert reset <= int(answer.headers["Retry-After"]) <= reset + RETRY_SPREAD_SECONDS
    assert answer.headers["RateLimit-Remaining"] == "0"


@dataclass
class Asked:
    """How often Valkey was asked, and since when."""

    times: int = 0
    since: float = field(default_factory=time.monotonic)

    def expect_pauses(self) -> None:
        """After one answer that didn't come nobody asks again for a while."""
        assert 1 <= self.times <= 1 + (time.monotonic() - self.since) / VALKEY_PAUSE_SECONDS


@contextmanager
def asked_of_valkey(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """What is asked of it for the length of the block."""
    asked, ask = Asked(), RedisStorage.incr

    def incr(storage: RedisStorage, *arguments: Any) -> int:
        asked.times += 1
        return ask(storage, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RedisStorage, "incr", incr)
        yield asked


@pytest.fixture
def few(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[Served]:
    """An API that lets a client send 5 requests a minute, and an address 30 without a token."""
    with served(
        settings, databases.worker, clock, requests_per_minute=5, anonymous_requests_per_minute=30
    ) as api:
        yield api


def test_a_client_is_told_where_it_stands_and_waits_for_the_window_alone(
    few: Served, clock: FixedClock
) -> None:
    for left in (4, 3, 2, 1, 0):
        answer = few.acme.get("/v1/programmes")
        assert answer.status_code == 200
        assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == ("5", str(left))
        assert answer.headers["RateLimit-Policy"] == '"client";q=5;w=60'
        reset = answer.headers["RateLimit-Reset"]
        assert answer.headers["RateLimit"] == f'"client";r={left};t={reset}'
    refused = few.acme.get("/v1/programmes")
    expect_asked_to_wait(refused)
    assert refused.headers["RateLimit-Reset"] == reset
    assert few.bolt.get("/v1/programmes").status_code == 200
    clock.advance(timedelta(seconds=int(reset)))
    few.acme.authenticate()
    assert few.acme.get("/v1/programmes").status_code == 200


def test_requests_without_a_token_are_counted_by_address_whatever_they_claim_to_be(few: Served) -> None:
    answers = [
        few.http.get("/.well-known/jwks.json", headers={"X-Forwarded-For": f"203.0.113.{n}"})
        for n in range(30)
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].headers["RateLimit"].startswith('"address";r=0;t=')
    for path in ("/problems", "/.well-known/jwks.json", "/nowhere", "/oauth/token"):
        expect_asked_to_wait(few.http.post(path) if path == "/oauth/token" else few.http.get(path))
    # who proves itself is served from the same address, and whoever watches over the process is not kept waiting
    assert few.acme.get("/v1/programmes").status_code == 200
    assert few.http.get("/healthz").status_code == 200


def test_refused_proofs_weigh_more_and_a_good_one_costs_its_address_nothing(few: Served) -> None:
    assert {few.acme.authenticate().status_code for _ in range(2)} == {200}
    for _ in range(3):
        assert few.http.get("/v1/programmes", headers=FORGED).status_code == 401
    expect_asked_to_wait(few.http.get("/v1/programmes", headers=FORGED))
    # guessing secrets ends as well: the tokens' address does not even look any more
    expect_asked_to_wait(few.acme.authenticate())
    assert few.acme.get("/v1/programmes").status_code == 200


def test_guessed_client_secrets_are_soon_not_looked_at(few: Served) -> None:
    few.acme.client = replace(few.acme.client, client_secret="mzn_test_guess")
    assert [few.acme.authenticate().status_code for _ in range(5)] == [401, 401, 401, 429, 429]


def test_unsigned_deliveries_are_counted_and_signed_ones_from_the_same_address_are_not(
    few: Served, clock: FixedClock
) -> None:
    signed = signing(few, clock)
    statuses = [few.http.post("/hooks/acme", json=completed()).status_code for _ in range(3)]
    assert statuses == [401] * 3
    expect_asked_to_wait(few.http.post("/hooks/acme", json=completed()))
    expect_asked_to_wait(few.http.post("/hooks/nobody", json=completed()))
    assert {signed(f"R-{n}").status_code for n in range(10)} == {202}
    assert few.rows("SELECT count(*) FROM integrations.delivery") == [(10,)]


def signing(api: Served, clock: FixedClock) -> Callable[[str], httpx.Response]:
    assert api.acme.partner is not None
    signer = Signer(api.acme.partner, "acme", api.webhook_secret, clock, api.http)
    return lambda name: signer.send(completed(remittance_id=name))


def test_behind_a_trusted_proxy_each_client_has_its_own_budget(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    with served(
        settings,
        databases.worker,
        clock,
        anonymous_requests_per_minute=2,
        trusted_proxies="127.0.0.0/8, 10.0.0.0/8",
    ) as api:

        def ask(told: str) -> int:
            return api.http.get("/.well-known/jwks.json", headers={"X-Forwarded-For": told}).status_code

        # what stands left of the first address that is no proxy is the client's own invention
        assert [ask("198.51.100.7, 203.0.113.1"), ask("127.0.0.1, 203.0.113.1, 10.1.2.3")] == [200, 200]
        assert ask("203.0.113.2, 203.0.113.1") == 429
        assert ask("203.0.113.1, 203.0.113.2") == 200
        # hosts of one IPv6 network are one caller
        assert [ask("2001:db8::1"), ask("[2001:db8::ffff]:443"), ask("2001:db8:0:0:1::1")] == [200, 200, 429]
        assert ask("2001:db8:0:1::1") == 200


# The counting itself


@contextmanager
def counting(redis_url: str, clock: FixedClock | None = None, **budgets: int) -> Iterator[Limits]:
    """The limits of one process."""
    limits = Limits(
        redis_url,
        clock or FixedClock(CLOCK_AT),
        requests_per_minute=budgets.get("client", 6000),
        anonymous_requests_per_minute=budgets.get("address", 6000),
    )
    try:
        yield limits
    finally:
        limits.close()


def test_processes_share_a_budget_and_none_is_spent_twice(redis_url: str) -> None:
    """Leases too: what processes hold unused may refuse a little early, never late."""
    budget = LEASE_PARTS * 4
    with counting(redis_url, client=budget) as one, counting(redis_url, client=budget) as other:
        allowed: Counter[str] = Counter()

        def send(limits: Limits) -> None:
            for _ in range(budget // 2):
                allowed["yes" if limits.by_client("cli_a").allowed else "no"] += 1

        at_once(*[lambda limits=limits: send(limits) for limits in (one, one, other, other)])
    assert budget * 0.98 <= allowed["yes"] <= budget
    assert allowed.total() == budget * 2


def test_small_budgets_are_exact_under_concurrency(redis_url: str) -> None:
    with counting(redis_url, client=20) as limits, ThreadPoolExecutor(8) as threads:
        standings = list(threads.map(lambda _: limits.by_client("cli_b"), range(60)))
    assert sum(standing.allowed for standing in standings) == 20
    assert sorted(standing.remaining for standing in standings if standing.allowed) == list(range(20))


def test_callers_begin_their_windows_at_different_seconds(redis_url: str) -> None:
    with counting(redis_url) as limits:
        resets = {limits.by_client(f"cli_{n}").reset_seconds for n in range(200)}
    assert len(resets) > 40


def test_asking_costs_nothing_and_a_window_ends(redis_url: str) -> None:
    clock = FixedClock(CLOCK_AT)
    with counting(redis_url, clock, address=REFUSED_COSTS) as limits:
        for _ in range(5):
            assert limits.by_address("203.0.113.9", 0).remaining == REFUSED_COSTS
        assert limits.by_address("203.0.113.9", REFUSED_COSTS).allowed
        assert not limits.by_address("203.0.113.9", 1).allowed
        known = limits.spent("203.0.113.9")
        assert known is not None
        assert not known.allowed
        clock.advance(timedelta(seconds=known.reset_seconds))
        assert limits.spent("203.0.113.9") is None
        assert limits.by_address("203.0.113.9", 1).remaining == REFUSED_COSTS - 1


# Without Valkey


@pytest.fixture(scope="module")
def on_servers_that_die(durable_servers: EmbeddedServers) -> Iterator[Served]:
    """An API on servers that may be killed; a client may send 20 requests a minute, an address 60 without a token."""
    worker = Database(durable_servers.url("mizan_worker"), application_name="test")
    with served(
        durable_servers.settings,
        worker,
        FixedClock(datetime.now(UTC)),
        requests_per_minute=20,
        anonymous_requests_per_minute=60,
    ) as running:
        yield running
    worker.close()


def test_limits_hold_without_valkey_and_nobody_waits_for_it(
    on_servers_that_die: Served, durable_servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = on_servers_that_die

    def until_refused(send: Callable[[], httpx.Response]) -> int:
        for served_before in range(200):
            answer = send()
            if answer.status_code == 429:
                expect_asked_to_wait(answer)
                return served_before
        raise AssertionError("it was never refused")

    assert api.acme.get("/v1/programmes").headers["RateLimit-Remaining"] == "19"
    os.kill(durable_servers.pid("valkey"), signal.SIGKILL)
    try:
        with asked_of_valkey(monkeypatch) as asked:
            assert until_refused(lambda: api.acme.get("/v1/programmes")) == 20
            assert until_refused(lambda: api.http.get("/v1/programmes", headers=FORGED)) == 6
            asked.expect_pauses()
        assert api.services.limits.degraded
        ready = api.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert api.http.get("/.well-known/jwks.json").status_code == 429
    finally:
        durable_servers.restart("valkey")
    time.sleep(VALKEY_PAUSE_SECONDS + 0.1)
    assert api.bolt.get("/v1/programmes").headers["RateLimit-Remaining"] == "19"
    assert not api.services.limits.degraded


def test_a_valkey_that_hangs_is_waited_for_once_and_not_for_ever(
    durable_servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(durable_servers.redis_url, client=5) as limits:
        assert limits.by_client("cli_hung").remaining == 4
        os.kill(durable_servers.pid("valkey"), signal.SIGSTOP)
        try:
            with asked_of_valkey(monkeypatch) as asked:
                standings = [limits.by_client("cli_hung") for _ in range(7)]  # it answers none of them
                asked.expect_pauses()
            assert not standings[-1].allowed
            assert limits.degraded
        finally:
            os.kill(durable_servers.pid("valkey"), signal.SIGCONT)
        time.sleep(VALKEY_PAUSE_SECONDS + 0.1)
        # what hung was not taken back: the request that was not answered may have been counted
        assert limits.by_client("cli_other").remaining == 4
        assert not limits.degraded
