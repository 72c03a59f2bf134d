"""From pages to statements: lines are held until their statement has ended, so that its head can be told first.

A head names the period and a reader needs the closing balance to be sure of signs; in most formats both stand behind the lines.
Lines beyond the first thousands are therefore written to a temporary file, encrypted with a key that only this process has.
"""

import pickle  # of our own tuples, from our own file, authenticated
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from operator import attrgetter
from os import urandom
from typing import IO, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from integrations.bank_statements.canonical import InvalidStatement, shown, statement_at
from ledger.reconciliation.statements import Line, StatementEnd, StatementEvent, StatementHead

LINES_IN_MEMORY_MAX: Final = 4_000
_FIELDS: Final = attrgetter(*Line.__slots__)
_NONCE_BYTES: Final = 12


class Spool:
    """Where the lines of a file's statements wait, a few in memory and the rest on disk. A context manager."""

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(256))
        self._file: IO[bytes] | None = None
        self._holding: list[Held] = []
        self._in_memory = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def held(self) -> "Held":
        """A new, empty list of lines."""
        return Held(self)

    def count(self, held: "Held") -> None:
        """One more line is in memory; beyond the limit all of them go to disk."""
        if len(held.waiting) == 1:
            self._holding.append(held)
        self._in_memory += 1
        if self._in_memory >= LINES_IN_MEMORY_MAX:
            for one in self._holding:
                one.spill()
            self._holding = []
            self._in_memory = 0

    def forget(self, held: "Held") -> None:
        """What a list has in memory counts no longer."""
        if held.waiting:
            self._holding.remove(held)
            self._in_memory -= len(held.waiting)

    def write(self, lines: list[Line]) -> tuple[int, int]:
        """Where the lines are from now on: offset and length."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="mizan-statement-")  # noqa: SIM115  closed by __exit__
        nonce = urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, pickle.dumps([_FIELDS(line) for line in lines]), None)
        offset = self._file.seek(0, 2)
        self._file.write(sealed)
        return offset, len(sealed)

    def read(self, offset: int, length: int) -> list[Line]:
        """Lines that were written."""
        assert self._file is not None  # noqa: S101  nothing has an offset before the file is there
        self._file.seek(offset)
        sealed = self._file.read(length)
        opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        return [Line(*fields) for fields in pickle.loads(opened)]  # noqa: S301  sealed by this object, with a key nobody else has


@dataclass(slots=True, eq=False)
class Held:
    """The lines of one page, with what they add up to."""

    spool: Spool
    waiting: list[Line] = field(default_factory=list)
    written: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0
    total: int = 0
    reversed: int = 0
    """What the reversals among them add up to."""
    first_on: date | None = None
    last_on: date | None = None
    entries: int = 0

    def add(self, line: Line) -> None:
        """One more line."""
        self.waiting.append(line)
        self.count += 1
        self.total += line.amount
        if line.reversal:
            self.reversed += line.amount
        if self.first_on is None or line.booked_on < self.first_on:
            self.first_on = line.booked_on
        if self.last_on is None or line.booked_on > self.last_on:
            self.last_on = line.booked_on
        self.entries = max(self.entries, line.entry)
        self.spool.count(self)

    def spill(self) -> None:
        """Write to disk what is in memory."""
        self.written.append(self.spool.write(self.waiting))
        self.waiting = []

    def lines(self) -> Iterator[Line]:
        """The lines in order."""
        for offset, length in self.written:
            yield from self.spool.read(offset, length)
        yield from self.waiting
        self.spool.forget(self)


@dataclass(frozen=True, slots=True)
class Balance:
    """What a bank says was on the account; `intermediate` is one between the pages of a statement."""

    amount: int
    on: date | None = None
    intermediate: bool = False


@dataclass(slots=True)
class Page:
    """What a format calls a statement: the whole of one, or one page of several."""

    account: str
    currency: str
    opening: Balance
    closing: Balance
    lines: Held
    identification: str | None = None
    number: str | None = None
    sequence: int | None = None
    """The page's number within its statement."""
    goes_on: bool = False
    """It says itself that another page follows."""
    from_on: date | None = None
    to_on: date | None = None
    created: datetime | None = None
    skipped: int = 0
    reversals_either_way: bool = False
    """The format's reversal indicator is used in two ways; the balances tell which."""


def statements(pages: Iterable[Page]) -> Iterator[StatementEvent]:
    """The events of a file: each page a statement, pages that continue one another one."""
    position = 0
    pending: list[Page] = []
    for page in pages:
        if pending and _continues(pending[-1], page, position + 1):
            pending.append(page)
            continue
        if pending:
            position += 1
            yield from _statement(position, pending)
        pending = [page]
    if pending:
        yield from _statement(position + 1, pending)


def _continues(earlier: Page, page: Page, position: int) -> bool:
    follows = (
        earlier.closing.intermediate
        and page.opening.intermediate
        and (earlier.account, earlier.currency, earlier.number) == (page.account, page.currency, page.number)
        and (earlier.sequence is None or page.sequence is None or page.sequence == earlier.sequence + 1)
    )
    difference = page.opening.amount - earlier.closing.amount
    if follows and difference:
        raise InvalidStatement(
            f"a page opens with {shown(page.opening.amount, page.currency)} where the page before it closed with "
            f"{shown(earlier.closing.amount, page.currency)}: a difference of {shown(difference, page.currency)}",
            where=statement_at(position),
        )
    return follows or _repeats(earlier, page)


def _repeats(earlier: Page, page: Page) -> bool:
    """Whether both are pages of one statement that have the balances of the whole, instead of what lies between them."""
    return (
        earlier.goes_on
        and earlier.sequence is not None
        and page.sequence == earlier.sequence + 1
        and _of_the_whole(earlier) == _of_the_whole(page)
    )


def _of_the_whole(page: Page) -> tuple[object, ...]:
    """What all pages of a statement say alike, where each says it of the whole."""
    return (
        *(page.account, page.currency, page.identification, page.number),
        *(page.opening.amount, page.closing.amount),
    )


def _statement(position: int, pages: list[Page]) -> Iterator[StatementEvent]:
    first, last = pages[0], pages[-1]
    from_on, to_on = _period(position, pages)
    number = first.number
    if (
        number is not None
        and first.sequence is not None
        and (first.opening.intermediate or last.closing.intermediate)
    ):
        number = f"{number}/{first.sequence}"
    yield StatementHead(
        position=position,
        account=first.account,
        currency=first.currency,
        identification=first.identification,
        number=number,
        from_on=from_on,
        to_on=to_on,
        opening=first.opening.amount,
        created=first.created,
    )
    entries = 0
    of_the_whole = len(pages) > 1 and _repeats(pages[0], pages[1])
    for page in pages:
        turned_back = _reversals_show_their_direction(pages if of_the_whole else [page])
        for line in page.lines.lines():
            if turned_back and line.reversal:
                yield replace(line, entry=line.entry + entries, amount=-line.amount)
            else:
                yield replace(line, entry=line.entry + entries) if entries else line
        entries += page.lines.entries
    yield StatementEnd(
        closing=last.closing.amount,
        lines=sum(page.lines.count for page in pages),
        opening=first.opening.amount,
        skipped=sum(page.skipped for page in pages),
    )


def _reversals_show_their_direction(pages: list[Page]) -> bool:
    """Whether the balances tie only if reversals are taken as they are indicated, without their sign turned."""
    off = pages[0].opening.amount + sum(page.lines.total for page in pages) - pages[-1].closing.amount
    return (
        pages[0].reversals_either_way and off != 0 and off == 2 * sum(page.lines.reversed for page in pages)
    )


def _period(position: int, pages: list[Page]) -> tuple[date, date]:
    """First and last day: as told, or by the balances' dates, or by the lines'.

    An opening balance bears the date of the closing balance before it, so that the period begins on the day after; unless a
    line was booked on that very day, or it is the day of the closing balance too.
    """
    opening, closing = pages[0].opening.on, pages[-1].closing.on
    booked = [on for page in pages for on in (page.lines.first_on, page.lines.last_on) if on is not None]
    to_on = pages[-1].to_on or closing or (max(booked) if booked else None)
    from_on = pages[0].from_on
    if from_on is None and opening is not None:
        after = opening < (to_on or opening) and opening not in booked
        from_on = opening + timedelta(days=1) if after else opening
    if from_on is None:
        from_on = min(booked) if booked else to_on
    if to_on is None:
        to_on = from_on
    if from_on is None or to_on is None:
        created = pages[0].created
        if created is None:
            raise InvalidStatement(
                "it says neither its days nor those of its balances", where=statement_at(position)
            )
        return created.date(), created.date()
    if from_on > to_on:
        raise InvalidStatement(
            f"it ends on {to_on}, before it begins on {from_on}", where=statement_at(position)
        )
    return from_on, to_on
