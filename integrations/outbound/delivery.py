"""Delivering: what is due goes out, each endpoint at its own pace, in a thread beside the worker's tasks.

A task only wakes the deliverer and returns: an answer may take twenty seconds, and the workers have an inbox to drain. The
thread runs as long as something is due and ends by itself. Each endpoint is served by a coroutine of its own, with few
connections, fewer when it is failing: one that is dead or slow holds up only what is its own. Whatever a killed process had
claimed is due again when its lease ends (`attempts`).
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from integrations.outbound import attempts
from integrations.outbound.attempts import START_WITHIN, Attempted, Claim, Claimed, Destination, Done, Pending
from integrations.outbound.signing import body_of, headers_of
from integrations.outbound.transport import TIMEOUT_SECONDS, Lookup, Transport, system_lookup
from ledger.clock import Clock
from ledger.database import Database, Tx
from products.keyring import Keyring

log = logging.getLogger("mizan.events")

T = TypeVar("T")

ENDPOINTS_MAX: Final = 64
"""Endpoints that one process serves at once."""
FAILING_ENDPOINTS_MAX: Final = 32
"""Of those, how many may be failing: the others wait for each other, and for nobody who works."""
CONNECTIONS_MAX: Final = 16
CONNECTIONS_FAILING_MAX: Final = 2
"""To one endpoint."""
FLUSH_SECONDS: Final = 0.1
"""How long what was answered waits to be recorded together."""
FLUSH_STREAMS: Final = 64
LOOK_SECONDS: Final = 0.5
DATABASE_THREADS: Final = 3
LOOKUP_THREADS: Final = 16
STOP_SECONDS_MAX: Final = 5.0

Count = Callable[[Sequence[Attempted]], None]
"""Told of every attempt that was recorded."""


@dataclass(frozen=True, slots=True)
class Delivering:
    """What delivering takes: the worker's database, keys, the time, and how to reach endpoints.

    `loopback`: endpoints on this machine are allowed. `transport` makes the connections to one endpoint.
    """

    database: Database
    keyring: Keyring
    clock: Clock
    loopback: bool
    timeout_seconds: float = TIMEOUT_SECONDS
    transport: Callable[[Lookup, "Delivering"], Transport] | None = None
    count: Count = lambda _: None


class Deliverer:
    """The deliverer of one process; `wake` may be called from anywhere, as often as one likes."""

    def __init__(self, delivering: Delivering) -> None:
        self._delivering = delivering
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = False
        self._stopping = threading.Event()

    def wake(self) -> None:
        """See to it that what is due goes out; returns at once."""
        with self._lock:
            self._woken = True
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is due or under way any more; whether that came to pass in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            thread = self._thread
            if thread is None:
                return True
            thread.join(min(0.05, seconds))
        return self._thread is None

    def close(self) -> None:
        """Stop: what is under way gets a moment, and what was claimed and not sent is given back."""
        self._stopping.set()
        thread = self._thread
        if thread is not None:
            thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._woken or self._stopping.is_set():
                    self._thread = None
                    return
                self._woken = False
            try:
                asyncio.run(_Round(self._delivering, self._stopping).run())
            except Exception:
                # Whatever it is, the schedule wakes us again in a second, and leases end by themselves.
                log.exception("delivering events stopped")


class _Round:
    """Everything that is due now, and what becomes due while it goes out."""

    def __init__(self, delivering: Delivering, stopping: threading.Event) -> None:
        self._with = delivering
        self._stopping = stopping
        self._threads = ThreadPoolExecutor(DATABASE_THREADS, "deliver-database")
        self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, "deliver-lookup")
        self._serving: dict[UUID, asyncio.Task[None]] = {}
        self._failing: set[UUID] = set()

    async def run(self) -> None:
        """Serve endpoints until none has anything due."""
        try:
            while not self._stopping.is_set():
                await self._begin_serving()
                if not self._serving:
                    return
                await asyncio.wait(
                    self._serving.values(), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                self._forget_finished()
            if self._serving:
                await asyncio.wait(self._serving.values(), timeout=STOP_SECONDS_MAX / 2)
        finally:
            for task in self._serving.values():
                task.cancel()
            await asyncio.gather(*self._serving.values(), return_exceptions=True)
            self._threads.shutdown(wait=True)
            self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _begin_serving(self) -> None:
        room = ENDPOINTS_MAX - len(self._serving)
        if room <= 0:
            return
        now, besides = self._with.clock.now(), list(self._serving)
        found = await self._database(
            lambda tx: attempts.destinations(tx, now, limit=ENDPOINTS_MAX, besides=besides)
        )
        for one in found[:room]:
            if one.failing and len(self._failing) >= FAILING_ENDPOINTS_MAX:
                continue
            if one.failing:
                self._failing.add(one.endpoint_id)
            self._serving[one.endpoint_id] = asyncio.create_task(self._serve(one))

    def _forget_finished(self) -> None:
        for endpoint_id, task in list(self._serving.items()):
            if task.done():
                del self._serving[endpoint_id]
                self._failing.discard(endpoint_id)
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.error("serving an endpoint stopped", exc_info=error)

    async def _serve(self, one: Destination) -> None:
        lookup = system_lookup(self._lookups)
        make = self._with.transport or _transport
        async with make(lookup, self._with) as transport:
            await _Endpoint(self, one, transport).serve()

    @property
    def stopping(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._stopping.is_set()

    async def claim(self, endpoint_id: UUID, streams: int) -> Claim | None:
        """Streams of an endpoint that are due."""
        with_ = self._with
        return await self._database(
            lambda tx: attempts.claim(tx, with_.keyring, with_.clock, endpoint_id, streams=streams)
        )

    async def record(self, endpoint_id: UUID, done: Sequence[Done], *, failing: bool) -> None:
        """Write down what became of an endpoint's streams; `failing`: it was, before these."""
        clock = self._with.clock
        made = [attempt for one in done for attempt in one.attempts]
        await self._database(lambda tx: attempts.record(tx, clock, done))
        if made and (failing or any(attempt.outcome != "delivered" for attempt in made)):
            await self._database(lambda tx: attempts.judge_endpoint(tx, clock, endpoint_id, made))
        self._with.count(made)

    async def _database(self, work: Callable[[Tx], T]) -> T:
        run = partial(self._with.database.run, work)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    @property
    def clock(self) -> Clock:
        """The time."""
        return self._with.clock


class _Endpoint:
    """One endpoint, served until nothing of it is due: a few streams at once, each in order."""

    def __init__(self, round_: _Round, one: Destination, transport: Transport) -> None:
        self._round = round_
        self._id = one.endpoint_id
        self._failing = self._was_failing = one.failing
        self._transport = transport
        self._ready: deque[tuple[Claim, Claimed]] = deque()
        self._under_way: set[asyncio.Task[Done]] = set()
        self._done: list[Done] = []
        self._flush_at = self._claim_at = 0.0
        self._gone = False

    async def serve(self) -> None:
        """Claim, send and record, until nothing is due."""
        try:
            while await self._claim() or self._ready or self._under_way:
                self._start()
                if self._under_way:
                    finished, self._under_way = await asyncio.wait(
                        self._under_way, timeout=FLUSH_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    self._done += [task.result() for task in finished]
                await self._flush(always=not self._under_way)
        finally:
            await self._put_down()

    @property
    def _connections(self) -> int:
        return CONNECTIONS_FAILING_MAX if self._failing else CONNECTIONS_MAX

    @property
    def _stopped(self) -> bool:
        return self._gone or self._round.stopping

    async def _claim(self) -> bool:
        """Take more streams when there is room for them; whether some were taken."""
        enough = len(self._ready) + len(self._under_way) >= self._connections
        if enough or self._stopped or time.monotonic() < self._claim_at:
            return False
        claim = await self._round.claim(self._id, self._connections * 4)
        if claim is None:
            # what comes in while a slow answer is waited for is looked for again, but not all the time
            self._claim_at = time.monotonic() + LOOK_SECONDS
            return False
        self._ready += [(claim, stream) for stream in claim.streams]
        return True

    def _start(self) -> None:
        while self._ready and len(self._under_way) < self._connections:
            claim, stream = self._ready.popleft()
            if self._stopped or self._round.clock.now() - claim.at > START_WITHIN:
                self._done.append(Done(claim.id, self._id, stream.stream))
            else:
                self._under_way.add(asyncio.create_task(self._send(claim, stream)))

    async def _send(self, claim: Claim, stream: Claimed) -> Done:
        """A stream's events, one after the other, as long as each is delivered or given up."""
        done = Done(claim.id, self._id, stream.stream)
        try:
            for event in stream.pending:
                if self._stopped or self._round.clock.now() - claim.at > START_WITHIN:
                    break
                attempt = await self._attempt(claim, event)
                done.attempts.append(attempt)
                self._failing = attempt.outcome != "delivered"
                self._gone = self._gone or attempt.outcome == "gone"
                if attempt.outcome in ("again", "gone"):
                    break
        except asyncio.CancelledError:
            pass  # we are stopping: what was answered counts, what is under way goes out again
        return done

    async def _attempt(self, claim: Claim, event: Pending) -> Attempted:
        clock = self._round.clock
        started_at = clock.now()
        body = body_of(event.event_id, event.type, event.occurred_at, event.data)
        headers = headers_of(claim.secrets, event.event_id, started_at, body)
        answer = await self._transport.post(claim.url, body, headers)
        return attempts.judge(event, started_at, answer, clock.now())

    async def _flush(self, *, always: bool = False) -> None:
        due = always or time.monotonic() >= self._flush_at or len(self._done) >= FLUSH_STREAMS
        if self._done and due:
            done, self._done = self._done, []
            was_failing, self._was_failing = self._was_failing, self._failing
            await self._round.record(self._id, done, failing=was_failing)
            self._flush_at = time.monotonic() + FLUSH_SECONDS

    async def _put_down(self) -> None:
        """On the way out, also when cancelled: what was answered is recorded, what was not begun is given back."""
        for task in self._under_way:
            task.cancel()
        finished = await asyncio.gather(*self._under_way, return_exceptions=True)
        self._done += [one for one in finished if isinstance(one, Done)]
        self._done += [Done(claim.id, self._id, stream.stream) for claim, stream in self._ready]
        self._ready.clear()
        await self._flush(always=True)


def _transport(lookup: Lookup, with_: Delivering) -> Transport:
    return Transport(
        lookup, loopback=with_.loopback, timeout_seconds=with_.timeout_seconds, connections=CONNECTIONS_MAX
    )
