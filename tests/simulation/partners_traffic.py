"""Partners' systems under load: signed webhooks over HTTP, each repeated under its id until it is acknowledged."""

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import aiohttp
from standardwebhooks import Webhook

from tests.world import Person

CONNECTIONS = 16
EVENTS_MAX = 6_000
GIVE_UP_SECONDS = 60.0
ANSWER_SECONDS_MAX = 15.0
PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sent:
    """One event: a remittance of which `collected` minor units were taken, or the reversal of one."""

    webhook_id: str
    slug: str
    remittance_id: str
    person: Person
    collected: int
    is_reversal: bool
    body: bytes
    twice: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A partner with its secret and the members it sends for."""

    partner_id: UUID
    slug: str
    secret: str
    people: tuple[Person, ...]
    reverses: bool


@dataclass
class Traffic:
    """What partners send between `start` and `finish`, at most `per_second`, and what was acknowledged.

    Every event is repeated until it is acknowledged; some are sent twice at once, and some remittances are reversed,
    the reversal at times overtaking what it reverses.
    """

    url: str
    sources: tuple[Source, ...]
    per_second: float
    seed: int
    acknowledged: dict[str, tuple[str, Sent]] = field(default_factory=dict)
    attempts: int = 0
    failures: int = 0
    unexpected: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._completed_at = datetime.now(UTC) - timedelta(seconds=30)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), name="partners")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def finish(self) -> None:
        """Begin nothing new, and return when all that was begun is acknowledged."""
        self._stop.set()
        self._thread.join()
        assert self.unexpected == []

    def remittances(self) -> dict[str, Sent]:
        """The acknowledged remittances by their id."""
        return {sent.remittance_id: sent for _, sent in self.acknowledged.values() if not sent.is_reversal}

    def reversed(self) -> set[str]:
        """The ids of the remittances whose reversal was acknowledged."""
        return {sent.remittance_id for _, sent in self.acknowledged.values() if sent.is_reversal}

    async def _send(self) -> None:
        events = self._events()
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS * 2)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._partner(session, events) for _ in range(CONNECTIONS)))

    async def _partner(self, session: aiohttp.ClientSession, events: Iterator[Sent]) -> None:
        for sent in events:
            copies = 2 if sent.twice else 1
            await asyncio.gather(*(self._deliver(session, sent) for _ in range(copies)))
            await asyncio.sleep(CONNECTIONS / self.per_second)

    async def _deliver(self, session: aiohttp.ClientSession, sent: Sent) -> None:
        signer = Webhook(next(one.secret for one in self.sources if one.slug == sent.slug))
        until = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            self.attempts += 1
            now = datetime.now(UTC)
            headers = {
                "content-type": "application/json",
                "webhook-id": sent.webhook_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": signer.sign(sent.webhook_id, now, sent.body.decode()),
            }
            try:
                async with session.post(
                    f"{self.url}/hooks/{sent.slug}", data=sent.body, headers=headers
                ) as response:
                    answer = await response.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.failures += 1  # nobody knows whether it arrived: the same id is sent again
            else:
                if response.status == 202:
                    self._acknowledge(sent, answer["id"])
                    return
                self.failures += 1
                if response.status != 503:
                    self.unexpected.append(f"{sent.webhook_id}: {response.status} {answer}")
                    return
            await asyncio.sleep(PAUSE_SECONDS)
        self.unexpected.append(f"{sent.webhook_id}: not acknowledged within {GIVE_UP_SECONDS:.0f} s")

    def _acknowledge(self, sent: Sent, delivery: str) -> None:
        known, _ = self.acknowledged.setdefault(sent.webhook_id, (delivery, sent))
        if known != delivery:
            self.unexpected.append(f"{sent.webhook_id}: acknowledged as {known} and as {delivery}")

    def _events(self) -> Iterator[Sent]:
        for number in itertools.islice(itertools.count(), EVENTS_MAX):
            if self._stop.is_set():
                return
            source = self.sources[number % len(self.sources)]
            person = self._random.choice(source.people)
            completed = self._completed(number, source, person)
            if source.reverses and number % 5 == 1:
                pair = [completed, self._reversed(completed)]
                yield from pair if number % 2 else reversed(pair)
            else:
                yield completed

    def _completed(self, number: int, source: Source, person: Person) -> Sent:
        collected = self._random.randint(50, 900)
        data = {
            "remittance_id": f"{source.slug}-{number}",
            "member": {"id": person.key.value},
            "sent": {"amount": collected, "currency": "AED"},
            "received": {"amount": collected * 20, "currency": "RWF"},
            "fee": None,
            "collected": {"amount": collected, "currency": "RWF"},
            "origin_country": "AE",
            "destination_country": "RW",
            "completed_at": self._completed_at.isoformat(),
            "quote_id": None,
        }
        return Sent(
            f"msg_{source.slug}_{number}",
            source.slug,
            f"{source.slug}-{number}",
            person,
            collected,
            False,
            self._body("remittance.completed", data),
            twice=number % 7 == 0,
        )

    def _reversed(self, completed: Sent) -> Sent:
        data = {
            "remittance_id": completed.remittance_id,
            "reversed_at": self._completed_at.isoformat(),
            "reason": "the sender cancelled",
        }
        return Sent(
            f"{completed.webhook_id}_reversed",
            completed.slug,
            completed.remittance_id,
            completed.person,
            completed.collected,
            True,
            self._body("remittance.reversed", data),
            twice=False,
        )

    def _body(self, type_: str, data: Mapping[str, object]) -> bytes:
        return json.dumps({"type": type_, "timestamp": self._completed_at.isoformat(), "data": data}).encode()


@contextmanager
def sending(traffic: Traffic) -> Iterator[Traffic]:
    """Traffic for the length of a block; at its end everything that was begun is acknowledged."""
    traffic.start()
    try:
        yield traffic
    except BaseException:
        traffic._stop.set()
        traffic._thread.join()
        raise
    traffic.finish()
