"""The workers' loop: claim lanes, process their oldest deliveries, write outcomes; each batch is one transaction.

A worker holds a lane by an advisory lock for the length of its transaction, so two workers never share a member and
whatever a killed worker held is free at once. The outcome commits with what it says was done, so nothing is lost and
nothing is done twice, wherever the worker dies.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from integrations.inbox.absence import database_is_away
from integrations.inbox.keys import BodyUnreadable, InboxKey, open_keys
from integrations.inbox.received import LANES
from integrations.partners.formats import FORMATS
from integrations.partners.port import EventInvalid, PartnerFormat
from integrations.strict_json import NotStrictJson
from ledger.clock import Clock
from ledger.database import Database, Tx, cursor
from products.keyring import Keyring
from products.remittances.events import Event
from products.remittances.process import Delivery, Verdict

log = logging.getLogger("mizan.inbox")

Process = Callable[[Tx, Sequence[Delivery]], Sequence[Verdict]]

LANES_CLAIMED_MAX: Final = LANES // 2
"""So that a second worker finds lanes of its own even when little is queued."""
_LOCK_CLASS: Final = 0x4D5C

_LANES = """
SELECT g.lane FROM generate_series(0, %s) AS g (lane)
WHERE EXISTS (SELECT FROM integrations.delivery_queue q WHERE q.lane = g.lane::smallint)
"""
_OLDEST = """
SELECT q.lane, q.id, q.attempt, q.approved, d.partner_id, p.format, d.inbox_key_id, d.body_sealed
FROM (
    SELECT lane, id, attempt, approved FROM integrations.delivery_queue WHERE lane = %s ORDER BY id LIMIT %s
) q JOIN integrations.delivery d ON d.id = q.id JOIN products.partner p ON p.id = d.partner_id
"""
_NAMED = """
SELECT q.lane, q.id, q.attempt, q.approved, d.partner_id, p.format, d.inbox_key_id, d.body_sealed
FROM integrations.delivery_queue q
JOIN integrations.delivery d ON d.id = q.id JOIN products.partner p ON p.id = d.partner_id
WHERE (q.lane, q.id) IN (SELECT * FROM unnest(%b::int2[], %b::uuid[]))
"""
_OUTCOMES = """
INSERT INTO integrations.delivery_outcome
    (delivery_id, attempt, partner_id, state, reason, detail, remittance_id, processed_at)
SELECT u.*, %s::timestamptz
FROM unnest(%b::uuid[], %b::int2[], %b::uuid[], %b::text[], %b::text[], %b::jsonb[], %b::uuid[]) AS u
"""
_DONE = """
DELETE FROM integrations.delivery_queue q USING unnest(%b::int2[], %b::uuid[]) AS u (lane, id)
WHERE q.lane = u.lane AND q.id = u.id
"""


@dataclass(frozen=True, slots=True)
class Queued:
    """A delivery taken from the queue, its body still sealed."""

    lane: int
    id: UUID
    attempt: int
    approved: bool
    partner_id: UUID
    format: str
    inbox_key_id: UUID
    body_sealed: bytes


@dataclass(frozen=True, slots=True)
class Drained:
    """What one `drain` did; `more` when it stopped for the time and not for an empty queue."""

    deliveries: int
    batches: int
    more: bool


def drain(
    database: Database,
    process: Process,
    clock: Clock,
    keyring: Keyring,
    *,
    batch: int = 1000,
    seconds_max: float = 5,
    formats: Mapping[str, PartnerFormat] = FORMATS,
) -> Drained:
    """Process what is queued, at most `batch` deliveries per transaction, until nothing is left or time is up.

    `process` is called in the transaction with events in order of arrival, and answers each. When it raises, the batch
    is halved until what it can't process stands alone; that is quarantined (``internal_error``) and blocks nothing.
    Raises what the database raises when it is not there; everything stays queued.
    """
    return _Drain(database, process, clock, keyring, formats, batch).run(seconds_max)


@dataclass(frozen=True, slots=True)
class _Drain:
    database: Database
    process: Process
    clock: Clock
    keyring: Keyring
    formats: Mapping[str, PartnerFormat]
    batch: int

    def run(self, seconds_max: float) -> Drained:
        until = time.monotonic() + seconds_max
        deliveries = batches = 0
        while time.monotonic() < until:
            done = self._next_batch()
            if not done:
                return Drained(deliveries, batches, more=False)
            deliveries += done
            batches += 1
        return Drained(deliveries, batches, more=True)

    def _next_batch(self) -> int:
        claimed: list[Queued] = []
        try:
            self.database.run(partial(self._claim_and_process, claimed))
        except Exception as error:
            if database_is_away(error) or not claimed:
                raise
            log.exception("a batch of %d deliveries failed and is halved", len(claimed))
            self._halve(claimed)
        return len(claimed)

    def _claim_and_process(self, claimed: list[Queued], tx: Tx) -> None:
        claimed[:] = self._claim(tx)
        self._process(tx, claimed)

    def _claim(self, tx: Tx) -> list[Queued]:
        """The oldest deliveries of lanes that no other worker holds, in order of arrival."""
        claimed: list[Queued] = []
        with cursor(tx) as sql:
            lanes = [row[0] for row in sql.execute(_LANES, (LANES - 1,))]
            random.shuffle(lanes)
            lanes_claimed = 0
            for lane in lanes:
                if lanes_claimed == LANES_CLAIMED_MAX or len(claimed) >= self.batch:
                    break
                held = sql.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", (_LOCK_CLASS, lane)).fetchone()
                if held == (True,):
                    # In a new statement: what the lane's last holder finished must be seen as gone.
                    sql.execute(_OLDEST, (lane, self.batch - len(claimed)))
                    claimed.extend(Queued(*row) for row in sql)
                    lanes_claimed += 1
        claimed.sort(key=lambda one: one.id)
        return claimed

    def _process(self, tx: Tx, batch: Sequence[Queued]) -> None:
        """Read, process and write outcomes of `batch`, whose lanes this transaction holds."""
        if not batch:
            return
        verdicts: dict[UUID, Verdict] = {}
        deliveries: list[Delivery] = []
        read: list[UUID] = []
        keys = open_keys(tx, self.keyring, (one.inbox_key_id for one in batch))
        for one in batch:
            event = self._event(one, keys)
            if isinstance(event, Verdict):
                verdicts[one.id] = event
            else:
                deliveries.append(Delivery(one.id, one.partner_id, event, one.approved))
                read.append(one.id)
        answers = self.process(tx, deliveries) if deliveries else ()
        verdicts |= dict(zip(read, answers, strict=True))
        self._finish(tx, batch, [verdicts[one.id] for one in batch])

    def _event(self, one: Queued, keys: Mapping[UUID, InboxKey]) -> Event | Verdict:
        key = keys.get(one.inbox_key_id)
        if key is None:
            return Verdict("quarantined", "body_destroyed", None)
        try:
            _, body = key.open(one.id, one.partner_id, one.body_sealed)
            event = self.formats[one.format].read(body).event
        except (BodyUnreadable, NotStrictJson, EventInvalid, KeyError) as error:
            # It was read when it came: another release reads it differently, or the bytes were changed.
            log.warning("delivery %s can't be read any more: %s", one.id, type(error).__name__)
            return Verdict("quarantined", "unreadable", None)
        return Verdict("quarantined", "unreadable", None) if event is None else event

    def _finish(
        self,
        tx: Tx,
        batch: Sequence[Queued],
        verdicts: Sequence[Verdict],
        detail: dict[str, Any] | None = None,
    ) -> None:
        lanes, ids = [one.lane for one in batch], [one.id for one in batch]
        with cursor(tx) as sql:
            sql.execute(
                _OUTCOMES,
                (
                    self.clock.now(),
                    ids,
                    [one.attempt for one in batch],
                    [one.partner_id for one in batch],
                    [verdict.state for verdict in verdicts],
                    [verdict.reason for verdict in verdicts],
                    [None if detail is None else Jsonb(detail)] * len(batch),
                    [verdict.remittance for verdict in verdicts],
                ),
            )
            sql.execute(_DONE, (lanes, ids))
            if sql.rowcount != len(batch):
                raise RuntimeError("a claimed lane was changed by somebody else")

    def _halve(self, failed: Sequence[Queued]) -> None:
        if len(failed) == 1:
            self._alone(failed[0])
            return
        middle = len(failed) // 2
        for half in (failed[:middle], failed[middle:]):
            try:
                self.database.run(partial(self._again, half))
            except Exception as error:
                if database_is_away(error):
                    raise
                self._halve(half)

    def _alone(self, one: Queued) -> None:
        try:
            self.database.run(partial(self._again, [one]))
        except Exception as error:
            if database_is_away(error):
                raise
            log.exception("delivery %s is quarantined: it can't be processed", one.id)
            self.database.run(partial(self._quarantine, one, type(error).__name__))

    def _again(self, batch: Sequence[Queued], tx: Tx) -> None:
        self._process(tx, self._hold(tx, batch))

    def _quarantine(self, one: Queued, error: str, tx: Tx) -> None:
        held = self._hold(tx, [one])
        self._finish(tx, held, [Verdict("quarantined", "internal_error", None)] * len(held), {"error": error})

    def _hold(self, tx: Tx, batch: Sequence[Queued]) -> list[Queued]:
        """Those of `batch` that still wait, their lanes held: another worker may have had them in between."""
        with cursor(tx) as sql:
            for lane in sorted({one.lane for one in batch}):
                sql.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCK_CLASS, lane))
            sql.execute(_NAMED, ([one.lane for one in batch], [one.id for one in batch]))
            return sorted((Queued(*row) for row in sql), key=lambda one: one.id)
