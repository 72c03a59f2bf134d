"""Replaying a year: day by day, under a clock that stands where that day's events stood, through the real pipeline.

Each day: events into the inbox and through the workers' own loop, what the background does, statements that end by that day and a
run of the reconciliation. No job that sends anything is among them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from api import bank_statements, opening
from api.bank_statements import Ask
from api.bootstrap import Services
from api.jobs import drain_funds, reevaluate_all, retry_waiting, settle_all, vest_all, watch_partners
from api.reconciling import reconcile
from api.shadow.given import Events, InvalidShadowInput, Joined, Line
from api.shadow.people import Into, Links, register_all
from integrations.bank_statements import csv_mapping
from integrations.bank_statements.reading import read as read_statement
from integrations.inbox.drain import drain
from integrations.inbox.keys import InboxKeys
from integrations.inbox.received import Received, rejected, understood
from integrations.inbox.store import store
from integrations.partners.port import EventInvalid
from integrations.partners.standard import StandardFormat
from integrations.strict_json import NotStrictJson
from ledger import holds
from ledger.clock import FixedClock
from ledger.database import Tx, cursor
from ledger.reconciliation import bank_accounts
from ledger.reconciliation.bank_accounts import NewBankAccount
from ledger.reconciliation.statements import StatementHead
from products.opening import load
from products.programmes.model import Programme
from products.programmes.registry import apply
from products.remittances.events import RemittanceCompleted
from products.remittances.partners import Collection, Terms, create_partner, join_programme
from products.remittances.process import process
from products.savings.sponsors import fund_sponsor

TOGETHER: Final = 1_000
"""Events that are stored in one transaction, and processed in one."""
DRAIN_SECONDS_MAX: Final = 600.0
NOT_TAKEN_KEPT_MAX: Final = 10_000
BY: Final = "shadow"
_TAKEN: Final = ("posted", "reversed", "duplicate")
_END_OF_DAY: Final = time(23, 59, 59)


@dataclass(frozen=True, slots=True)
class PartnerTerms:
    """A partner of the past year, and on which terms."""

    slug: str
    terms: Terms = "net"
    collection: Collection = "as_reported"


@dataclass(frozen=True, slots=True)
class Bank:
    """A bank account whose statements are given: the fund's role (savers) and the bank's number."""

    fund: str
    identification: str


@dataclass(frozen=True, slots=True)
class Year:
    """All that is replayed, from one day through another, both in the programme's time zone."""

    since: date
    through: date
    programmes: Sequence[str]
    partners: Sequence[PartnerTerms]
    members: Sequence[Joined]
    events: Events
    statements: Sequence[Path] = ()
    banks: Sequence[Bank] = ()
    mapping: Mapping[str, Any] | None = None
    opening: Path | None = None


@dataclass(frozen=True, slots=True)
class NotTaken:
    """An event that became no remittance of a member: the line in the file, and why."""

    line: int
    state: str
    reason: str | None
    partner: str
    member: str


@dataclass(slots=True)
class Replayed:
    """What was replayed. ``outcomes`` counts events by what became of them; ``not_taken`` are the first that weren't."""

    events: int = 0
    statements: int = 0
    pairings: int = 0
    days: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    not_taken: list[NotTaken] = field(default_factory=list)


class Replay:
    """One year on one shadow. `prepare`, then `days`, which stands at the end of each day when it gives it."""

    def __init__(self, services: Services, clock: FixedClock, year: Year, programme: Programme) -> None:
        self.services, self.clock, self.year, self.programme = services, clock, year, programme
        self.zone = ZoneInfo(programme.time_zone)
        self.done = Replayed()
        self.links: Links = {}
        self._to_join: defaultdict[date, list[Joined]] = defaultdict(list)
        self.programme_id: UUID
        self._partners: dict[str, UUID] = {}
        self._keys = InboxKeys(services.api, services.keyring, clock)
        self._reader = StandardFormat()
        self._statements: list[tuple[date, Path]] = []

    def prepare(self) -> None:
        """Apply the programme, let partners join and the members who had by then, open the books and add the bank accounts."""
        year, worker, books = self.year, self.services.worker, self.services.books
        worker.run(self._join)
        for one in year.members:
            if one.partner not in self._partners:
                raise InvalidShadowInput(
                    f"the members' file names the partner “{one.partner}”, which --partner doesn't"
                )
            self._to_join[max(one.joined_on, year.since)].append(one)
        self._members_join(year.since)
        if year.opening is not None:
            content, name = year.opening.read_bytes(), year.opening.name
            eve = year.since - timedelta(days=1)
            staged, _ = worker.run(
                lambda tx: opening.stage(
                    tx, books, content, programme=self.programme.slug, name=name, effective_on=eve, by=BY
                )
            )
            worker.run(lambda tx: load.begin_commit(tx, staged.id, by=BY, clock=self.clock))
            opening.work_on(worker, books, staged.id)
            worker.run(lambda tx: load.finalise(tx, staged.id, by=BY, clock=self.clock))
        for bank in year.banks:
            worker.run(lambda tx, bank=bank: self._add_bank(tx, bank))  # type: ignore[misc]  # a default is the way to bind a loop's name
        self._statements = sorted((self._last_day(path), path) for path in year.statements)

    def days(self) -> Iterator[date]:
        """Replay each day in turn."""
        lines = iter(self.year.events)
        waiting: Line | None = next(lines, None)
        first = datetime.combine(self.year.since, time(0), self.zone).astimezone(UTC)
        if waiting is not None and waiting.at < first:
            raise InvalidShadowInput(f"line {waiting.number} of the events is before {self.year.since}")
        day = self.year.since
        while day <= self.year.through:
            self._members_join(day)
            until = datetime.combine(day, _END_OF_DAY, self.zone).astimezone(UTC)
            self.clock.advance(until - self.clock.now())
            of_day: list[Line] = []
            while waiting is not None and waiting.at <= until + timedelta(seconds=1):
                of_day.append(waiting)
                waiting = next(lines, None)
                if len(of_day) == TOGETHER:
                    self._take(of_day)
                    of_day = []
            self._take(of_day)
            self._background()
            self._bring_in(day)
            self.done.days += 1
            if day == self.year.through and waiting is not None:
                self.done.outcomes["after the last day"] = 1 + sum(1 for _ in lines)
            yield day
            day += timedelta(days=1)

    def to_join(self) -> set[tuple[str, str, str]]:
        """Who joins on a later day, by partner, the partner's reference and product."""
        later = (one for several in self._to_join.values() for one in several)
        return {(one.partner, one.reference, one.product) for one in later}

    def _members_join(self, day: date) -> None:
        """Register those who join on a day: before it, what is sent for them is nobody's, as it was then."""
        joining = self._to_join.pop(day, [])
        if joining:
            into = Into(self.services, self.programme, self.programme_id, self._partners)
            self.links |= register_all(into, joining)

    def _join(self, tx: Tx) -> None:
        for source in self.year.programmes:
            self.programme_id = apply(tx, source, clock=self.clock).programme_id
        for one in self.year.partners:
            partner = create_partner(tx, slug=one.slug, name=one.slug, format_="standard", clock=self.clock)
            join_programme(
                tx, partner, self.programme_id, terms=one.terms, collection=one.collection, clock=self.clock
            )
            self._partners[one.slug] = partner.id

    def _add_bank(self, tx: Tx, bank: Bank) -> None:
        code = f"{self.programme.slug}/{bank.fund}"
        mirrored = bank_statements.mirrored_account(tx, code, self.programme.currency, None)
        slug = f"shadow-{bank.fund.replace(':', '-')}"
        bank_accounts.add(
            tx, self.clock, NewBankAccount(slug, slug, mirrored, bank.identification, self.year.since)
        )

    def _take(self, lines: Sequence[Line]) -> None:
        """Into the inbox and through it, in the order of their times."""
        for sponsor_paid in (one for one in lines if one.sponsor is not None):
            self._sponsor_paid(sponsor_paid)
        received: dict[UUID, tuple[Line, str]] = {}
        batch: list[Received] = []
        for line in lines:
            if line.sponsor is None:
                one, member = self._received(line)
                batch.append(one)
                received[one.id] = (line, member)
        if not batch:
            return
        key = self._keys.current()
        self.services.api.run(lambda tx: store(tx, batch, key))
        drain(
            self.services.worker,
            partial(process, books=self.services.books),
            self.clock,
            self.services.keyring,
            batch=TOGETHER,
            seconds_max=DRAIN_SECONDS_MAX,
        )
        self._tell(received)

    def _received(self, line: Line) -> tuple[Received, str]:
        partner_id = self._partners.get(line.partner)
        if partner_id is None:
            raise InvalidShadowInput(
                f"line {line.number} of the events is of “{line.partner}”, which --partner doesn't name"
            )
        name = f"shadow-{line.number}"
        try:
            reading = self._reader.read(line.body)
        except (NotStrictJson, EventInvalid) as error:
            faults = error.faults if isinstance(error, EventInvalid) else ()
            return rejected(partner_id, name, line.body, line.at, reason="invalid_event", faults=faults), ""
        member = reading.event.member.value if isinstance(reading.event, RemittanceCompleted) else ""
        return understood(partner_id, name, line.body, reading, line.at), member

    def _tell(self, received: Mapping[UUID, tuple[Line, str]]) -> None:
        with self.services.worker.begin() as tx:
            rows = cursor(tx).execute(
                "SELECT DISTINCT ON (delivery_id) delivery_id, state, reason FROM integrations.delivery_outcome"
                " WHERE delivery_id = ANY (%b) ORDER BY delivery_id, attempt DESC",
                (list(received),),
            )
            for id_, state, reason in rows.fetchall():
                self.done.events += 1
                self.done.outcomes[state if reason is None else f"{state}: {reason}"] += 1
                if state not in _TAKEN and len(self.done.not_taken) < NOT_TAKEN_KEPT_MAX:
                    line, member = received[id_]
                    self.done.not_taken.append(NotTaken(line.number, state, reason, line.partner, member))

    def _sponsor_paid(self, line: Line) -> None:
        paid = line.sponsor
        if paid is not None:
            self.services.worker.run(
                lambda tx: fund_sponsor(
                    tx,
                    self.services.books,
                    programme=self.programme.slug,
                    sponsor=paid.sponsor,
                    amount=paid.amount,
                    reference=paid.reference,
                )
            )
            self.done.events += 1
            self.done.outcomes["sponsor paid"] += 1

    def _background(self) -> None:
        """What the worker's jobs would have done by the end of the day, and nothing that sends."""
        worker, books, clock = self.services.worker, self.services.books, self.clock
        worker.run(lambda tx: retry_waiting(tx, clock))
        jobs: tuple[Callable[[], object], ...] = (
            lambda: drain(
                worker,
                partial(process, books=books),
                clock,
                self.services.keyring,
                seconds_max=DRAIN_SECONDS_MAX,
            ),
            lambda: reevaluate_all(worker, books),
            lambda: drain_funds(worker, books),
            lambda: vest_all(worker, books),
            lambda: settle_all(worker, books),
            lambda: watch_partners(worker, clock),
            lambda: worker.run(lambda tx: holds.expire(tx, clock=clock)),
        )
        for job in jobs:
            job()

    def _bring_in(self, day: date) -> None:
        """Bring in the statements that end by this day, and reconcile."""
        due = [path for last, path in self._statements if last <= day]
        if not due:
            return
        self._statements = self._statements[len(due) :]
        for path in due:
            with path.open("rb") as content:
                ask = Ask(name=path.name, by=BY, mapping=self.year.mapping)
                self.services.worker.run(
                    lambda tx, content=content, ask=ask: bank_statements.bring_in(
                        tx, self.services, content, ask
                    )  # type: ignore[misc]  # a default is the way to bind a loop's name
                )
            self.done.statements += 1
        self.done.pairings += reconcile(self.services, made_by=BY).pairings
        settle_all(self.services.worker, self.services.books)

    def _last_day(self, path: Path) -> date:
        """The last day of a file's statements."""
        mapping = csv_mapping.parse(self.year.mapping) if self.year.mapping is not None else None
        with path.open("rb") as content:
            events = read_statement(content, None, mapping=mapping, today=self.year.through)
            days = [one.to_on for one in events if isinstance(one, StatementHead)]
        if not days:
            raise InvalidShadowInput(f"{path.name} holds no statement")
        return max(days)
