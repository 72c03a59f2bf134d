"""How many requests one caller may send: windows of one minute, counted in Valkey and told in every answer.

Two budgets. *Per client*, after authentication: what a token may ask in a minute. *Per address*, before it: requests
without a token, and refused proofs (a bad token, client secret or webhook signature), which weigh ten times as much. A
request with a good token and a delivery with a good signature cost its address nothing, so that a partner may send
everything from one.

The library `limits` counts: fixed windows, as one counter per caller is one round trip and one key (a moving window keeps
every request of the minute). Windows begin at another second for each caller, so that not all come back at once, and
``Retry-After`` is spread on top. A busy client's requests are counted several at a time (`_lease`).

It protects the service, not the books: with Valkey away each process counts alone, against the whole budget, and looks
for Valkey again every second; nobody waits for it longer than `VALKEY_SECONDS_MAX`.
"""

import logging
import random
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import redis
from limits.storage import MemoryStorage, RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry
from starlette.requests import Request

from api.observability import metrics
from api.problems import ProblemError
from ledger.clock import Clock

if TYPE_CHECKING:
    from api.bootstrap import Services

log = logging.getLogger("mizan.api")

WINDOW_SECONDS: Final = 60
REFUSED_COSTS: Final = 10
"""A refused proof weighs as much as this many requests without one."""
RETRY_SPREAD_SECONDS: Final = 5
"""`Retry-After` is up to so much later than the window's end: what was refused together does not come back together."""
VALKEY_SECONDS_MAX: Final = 0.25
"""The longest that a request may wait for Valkey, connecting and asking together."""
VALKEY_PAUSE_SECONDS: Final = 1.0
"""How long Valkey is left alone once it did not answer."""
LOCAL_KEYS_MAX: Final = 100_000
"""Callers that are counted in the process at most, about 50 MB; beyond, counting starts anew."""
LEASE_PARTS: Final = 500
"""A lease is at most this part of the budget: what other processes may hold of it unused stays small."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one kind of caller may spend in a window."""

    name: str
    amount: int

    @property
    def lease(self) -> int:
        """How much a process takes at a time for a caller that keeps asking."""
        return max(1, self.amount // LEASE_PARTS)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands after a request: whether it may go on, what is left, and when the window ends."""

    budget: Budget
    allowed: bool
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """The rate limit as headers: one each, and as the IETF draft has them (RateLimit, RateLimit-Policy)."""
        return {
            "RateLimit-Limit": str(self.budget.amount),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
            "RateLimit-Policy": f'"{self.budget.name}";q={self.budget.amount};w={WINDOW_SECONDS}',
            "RateLimit": f'"{self.budget.name}";r={self.remaining};t={self.reset_seconds}',
        }

    def problem(self, detail: str) -> ProblemError:
        """The 429 for a caller that has spent its budget."""
        spread = random.randrange(RETRY_SPREAD_SECONDS + 1)  # noqa: S311  a pause, no secret
        metrics.RATE_LIMITED.labels(self.budget.name).inc()
        return ProblemError(
            "rate_limited", detail, headers={"Retry-After": str(self.reset_seconds + spread), **self.headers}
        )


@dataclass(slots=True)
class _Lease:
    """What this process may still answer for a caller in a window without asking Valkey."""

    window: int
    used: int
    unused: int


class Limits:
    """The budgets of one deployment, as one process counts them. Safe for threads."""

    def __init__(
        self,
        redis_url: str,
        clock: Clock,
        *,
        requests_per_minute: int,
        anonymous_requests_per_minute: int,
        connections_max: int = 50,
    ) -> None:
        self.client = Budget("client", requests_per_minute)
        self.address = Budget("address", anonymous_requests_per_minute)
        self._clock = clock
        # one attempt, and a bounded wait in it
        self._pool = redis.ConnectionPool.from_url(
            redis_url,
            max_connections=connections_max,
            socket_connect_timeout=VALKEY_SECONDS_MAX / 2,
            socket_timeout=VALKEY_SECONDS_MAX / 2,
            retry=Retry(NoBackoff(), 0),
        )
        # the address only names the kind of server here: what connects is the pool
        self._shared = RedisStorage("redis://", connection_pool=self._pool, key_prefix="mizan:limits")
        self._local: MemoryStorage | None = None
        self._away_until = 0.0
        self._is_away = False
        self._leases: dict[str, _Lease] = {}
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def degraded(self) -> bool:
        """Whether this process counts alone, as Valkey does not answer."""
        return self._is_away

    def close(self) -> None:
        """Give back the connections."""
        self._pool.disconnect()

    def by_client(self, caller: str) -> Standing:
        """Count one request of an authenticated caller."""
        window, reset = self._window(caller)
        with self._lock:
            lease = self._leases.get(caller)
            busy = lease is not None and lease.window == window
            if lease is not None and busy and lease.unused > 0:
                lease.unused -= 1
                lease.used += 1
                return self._standing(self.client, lease.used, reset)
        # the first request of a window is counted alone: most callers send few
        wanted = self.client.lease if busy else 1
        counted = self._count(self.client, caller, window, wanted)
        used = counted - wanted + 1
        unused = max(0, min(counted, self.client.amount) - used)
        with self._lock:
            lease = self._leases.get(caller)
            if lease is None or lease.window != window:
                if len(self._leases) >= LOCAL_KEYS_MAX:
                    self._leases.clear()
                self._leases[caller] = _Lease(window, used, unused)
            else:
                # another request may have taken a lease meanwhile: neither is lost
                lease.used = max(lease.used, used)
                lease.unused += unused
        return self._standing(self.client, used, reset)

    def by_address(self, caller: str, cost: int) -> Standing:
        """Count what an address spends: 1 for a request without a token, `REFUSED_COSTS` for a refused proof, 0 to ask."""
        window, reset = self._window(caller)
        standing = self._standing(self.address, self._count(self.address, caller, window, cost), reset)
        if not standing.allowed:
            with self._lock:
                if len(self._spent) >= LOCAL_KEYS_MAX:
                    self._spent.clear()
                self._spent[caller] = window
        return standing

    def spent(self, caller: str) -> Standing | None:
        """Where an address stands that has spent its budget, as far as this process knows: nobody has to be asked."""
        known = self._spent.get(caller)
        if known is None:
            return None
        window, reset = self._window(caller)
        if known != window:
            self._spent.pop(caller, None)
            return None
        return Standing(self.address, allowed=False, remaining=0, reset_seconds=reset)

    def _window(self, caller: str) -> tuple[int, int]:
        """The number of the caller's present window, and the seconds until it ends."""
        offset = zlib.crc32(caller.encode()) % WINDOW_SECONDS
        window, spent = divmod(int(self._clock.now().timestamp()) + offset, WINDOW_SECONDS)
        return window, WINDOW_SECONDS - spent

    @staticmethod
    def _standing(budget: Budget, used: int, reset: int) -> Standing:
        return Standing(budget, used <= budget.amount, max(0, budget.amount - used), reset)

    def _count(self, budget: Budget, caller: str, window: int, cost: int) -> int:
        """What the caller has spent in the window, `cost` included."""
        key = f"{budget.name}/{caller}/{window}"
        if time.monotonic() >= self._away_until:
            # one request asks whether Valkey is back; the others go on counting here
            if self._is_away:
                self._away_until = time.monotonic() + VALKEY_PAUSE_SECONDS
            try:
                counted = self._shared.incr(key, 2 * WINDOW_SECONDS, cost)
            except redis.RedisError as error:
                self._away_until = time.monotonic() + VALKEY_PAUSE_SECONDS
                if not self._is_away:
                    self._is_away = True
                    log.warning("requests are counted in the process alone: %s", type(error).__name__)
            else:
                if self._is_away:
                    self._is_away = False
                    log.warning("requests are counted in Valkey again")
                return counted
        return self._locally().incr(key, 2 * WINDOW_SECONDS, cost)

    def _locally(self) -> MemoryStorage:
        with self._lock:
            if self._local is None:
                self._local = MemoryStorage()
            if len(self._local.storage) > LOCAL_KEYS_MAX:
                self._local.reset()
            return self._local


def count(request: Request, services: "Services", caller: str) -> None:
    """Count one request of an authenticated caller (its id) and tell in the answer where it stands.

    Raises the problem `rate_limited`, with ``Retry-After``, beyond the limit.
    """
    standing = services.limits.by_client(caller)
    if not standing.allowed:
        raise standing.problem(f"A client may send {standing.budget.amount} requests a minute.")
    request.scope["state"]["answer_headers"].update(standing.headers)
