"""Bank statements in: a file's statements, whole or not at all.

A file is brought in within one transaction, streaming: its content is sealed piece by piece, its lines go in by COPY. Whatever ends it
in between (a refusal, a kill) leaves nothing. The same file again changes nothing; statements that were left out the first time (`only`),
and those that were withdrawn, come in the second time.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Cursor, Tx, cursor
from ledger.errors import InvalidInput
from ledger.ids import new_id
from ledger.money import AMOUNT_MAX, Money
from ledger.reconciliation import bank_accounts, counterparties, files, overlaps
from ledger.reconciliation.bank_accounts import BankAccount, UnknownBankAccount
from ledger.reconciliation.files import NewFile
from ledger.reconciliation.sealing import Cipher, Keys, LineText, seal_text
from ledger.reconciliation.statements import Line, StatementEnd, StatementEvents, StatementHead

LINES_AT_ONCE: Final = 5_000
"""Lines that are held in memory and sent by one COPY."""
FINGERPRINT: Final = "statement line"
"""The keyring's purpose of lines' fingerprints: what a line says can't be guessed from them."""

_COPY: Final = (
    "COPY ledger.statement_line (id, statement_id, bank_account_id, entry, detail, booked_on, value_on, amount, currency, kind,"
    " reversal, end_to_end, reference, identifiers, party, counterparty_index, fingerprint, text_sealed) FROM STDIN (FORMAT BINARY)"
)
_COPY_TYPES: Final = [
    "uuid",
    "uuid",
    "uuid",
    "int4",
    "int4",
    "date",
    "date",
    "int8",
    "text",
    "text",
    "bool",
    "text",
    "text",
    "text[]",
    "text",
    "bytea",
    "bytea",
    "bytea",
]


class StatementsRefused(InvalidInput):
    """What the file says can't be: it was refused whole, and nothing of it is kept."""

    code = "invalid_bank_statement"


class DoesNotAddUp(InvalidInput):
    """The opening balance and the lines don't make the closing balance; the detail names the difference."""

    code = "statement_does_not_add_up"


class Rules(Protocol):
    """What a bank account's rules read out of a line (`ledger.reconciliation.rules`)."""

    def identifiers_in(self, text: str, /) -> tuple[str, ...]:
        """What the patterns find in free text."""
        ...

    def party_of(self, counterparty: str | None, account: str | None, text: str, /) -> str | None:
        """Who the other side is, as far as the rules say."""
        ...


RulesOf = Callable[[Tx, UUID], Rules]
"""The rules of a bank account."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which statements of a file are wanted.

    `funds`: those whose accounts whoever brings it may see (None: all). `account`: the file is of this bank account, also where it
    doesn't say so. `only`: the others are left out, where otherwise an account that is not known refuses the file.
    """

    funds: Collection[UUID] | None = None
    account: BankAccount | None = None
    only: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that came in."""

    id: UUID
    account: BankAccount
    lines: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file. `duplicate`: it was here already, and nothing changed. `skipped`: statements that were left out."""

    file_id: UUID
    duplicate: bool
    statements: tuple[Statement, ...] = ()
    skipped: int = 0
    skipped_accounts: tuple[str, ...] = ()

    @property
    def lines(self) -> int:
        """How many lines came in."""
        return sum(one.lines for one in self.statements)

    @property
    def duplicates(self) -> int:
        """How many of them were in overlapping statements already."""
        return sum(one.duplicates for one in self.statements)


def import_(
    tx: Tx,
    keys: Keys,
    clock: Clock,
    content: BinaryIO,
    new: NewFile,
    read: Callable[[BinaryIO], StatementEvents],
    *,
    rules_of: RulesOf,
    wanted: Wanted = Wanted(),
    watch: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Bring in a file: all of its statements, or nothing. As the worker's role, in a transaction of its own.

    `content` is read twice from its beginning. `watch` is told the lines so far.

    Raises what `read` raises, `UnknownBankAccount`, `DoesNotAddUp`, `StatementsRefused`.
    """
    file, is_new = files.claim(tx, keys, clock, new)
    if file.wrapped_key is None or (not is_new and not file.skipped):
        return Imported(file.id, duplicate=True)
    cipher = keys.cipher(file.wrapped_key, file.id)
    if is_new:
        content.seek(0)
        files.keep(tx, cipher, file.id, content)
    content.seek(0)
    one = _Import(tx, keys, clock, cipher, file.id, rules_of, wanted, watch)
    one.known = _positions(tx, file.id)
    one.take(read(content))
    if is_new and not one.seen:
        raise StatementsRefused("The file holds no statement.")
    if is_new and not one.statements:
        raise StatementsRefused("The file holds no statement of the bank accounts that were asked for.")
    files.count(tx, file.id, statements=file.statements + len(one.statements), skipped=one.skipped)
    return Imported(
        file.id,
        duplicate=not is_new and not one.statements,
        statements=tuple(one.statements),
        skipped=one.skipped,
        skipped_accounts=tuple(one.skipped_accounts),
    )


def _positions(tx: Tx, file_id: UUID) -> frozenset[int]:
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT position FROM ledger.bank_statement WHERE file_id = %s AND withdrawn_at IS NULL",
            (file_id,),
        )
        return frozenset(row[0] for row in rows)


@dataclass(slots=True)
class _Open:
    """The statement that is being read."""

    id: UUID
    head: StatementHead
    account: BankAccount
    rules: Rules
    total: int = 0
    kept: int = 0
    read: int = 0
    waiting: list[tuple[UUID, Line]] = field(default_factory=list)


@dataclass(slots=True)
class _Import:
    tx: Tx
    keys: Keys
    clock: Clock
    cipher: Cipher
    file_id: UUID
    rules_of: RulesOf
    wanted: Wanted
    watch: Callable[[int], None]
    known: frozenset[int] = frozenset()
    seen: int = 0
    skipped: int = 0
    skipped_accounts: dict[str, None] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    lines: int = 0

    def take(self, events: Iterable[StatementHead | Line | StatementEnd]) -> None:
        """Everything that a file says, in order."""
        opened: _Open | None = None
        accounts = bank_accounts.every(self.tx, funds=self.wanted.funds)
        for event in events:
            match event:
                case StatementHead():
                    self.seen += 1
                    opened = self._open(event, accounts)
                case Line() if opened is not None:
                    self._line(opened, event)
                case StatementEnd() if opened is not None:
                    self._end(opened, event)
                    opened = None

    def _open(self, head: StatementHead, accounts: Collection[BankAccount]) -> _Open | None:
        account = self._account_of(head, accounts)
        if head.position in self.known:
            return None
        if account is None:
            self.skipped += 1
            self.skipped_accounts[head.account] = None
            return None
        if head.from_on > head.to_on:
            raise StatementsRefused(f"Statement {head.position} ends before it begins.")
        # one after the other for each account: statements that come in at once must see each other's lines
        with cursor(self.tx) as sql:
            sql.execute("SELECT 1 FROM ledger.bank_account WHERE id = %s FOR NO KEY UPDATE", (account.id,))
        return _Open(new_id(), head, account, self.rules_of(self.tx, account.id))

    def _account_of(self, head: StatementHead, accounts: Collection[BankAccount]) -> BankAccount | None:
        """The account of a statement; None: it is to be left out. Raises `UnknownBankAccount`."""
        said = self.wanted.account
        if said is not None and head.account in ("", *said.numbers):
            found = said if head.currency == said.currency else None
        else:
            found = next(
                (one for one in accounts if head.account in one.numbers and one.currency == head.currency),
                None,
            )
        if self.wanted.only is not None:
            return found if found is not None and found.slug in self.wanted.only else None
        if said is not None and found is not said:
            raise UnknownBankAccount(
                f"Statement {head.position} is of the account {head.account or '(not said)'} in {head.currency},"
                f" not of the bank account {said.slug}."
            )
        if found is None:
            raise UnknownBankAccount(
                f"Statement {head.position} is of the account {head.account or '(not said)'} in {head.currency},"
                " which is no bank account here."
            )
        return found

    def _line(self, opened: _Open, line: Line) -> None:
        opened.read += 1
        where = f"Statement {opened.head.position}, entry {line.entry}"
        if line.currency != opened.head.currency:
            raise StatementsRefused(f"{where}: {line.currency}, in a statement of {opened.head.currency}.")
        if abs(line.amount) > AMOUNT_MAX:
            raise StatementsRefused(f"{where}: the amount is larger than 2^53−1 minor units.")
        opened.total += line.amount
        if not line.amount:
            return  # it moves nothing, so there is nothing that it could be the other side of
        opened.kept += 1
        opened.waiting.append((new_id(), line))
        if len(opened.waiting) >= LINES_AT_ONCE:
            self._flush(opened)

    def _end(self, opened: _Open, end: StatementEnd) -> None:
        if end.lines != opened.read:
            raise StatementsRefused(
                f"Statement {opened.head.position} has {end.lines} lines, of which {opened.read} were read."
            )
        difference = end.closing - (end.opening + opened.total)
        if difference:
            raise DoesNotAddUp(_does_not_add_up(opened, end, difference))
        if max(abs(end.opening), abs(end.closing)) > AMOUNT_MAX:
            raise StatementsRefused(
                f"Statement {opened.head.position}: a balance is larger than 2^53−1 minor units."
            )
        self._flush(opened)
        head = opened.head
        with cursor(self.tx) as sql:
            sql.execute(
                "INSERT INTO ledger.bank_statement (id, file_id, position, bank_account_id, identification, number, from_on, to_on,"
                " opening, closing, lines, made_at, imported_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    opened.id,
                    self.file_id,
                    head.position,
                    opened.account.id,
                    head.identification,
                    head.number,
                    head.from_on,
                    head.to_on,
                    end.opening,
                    end.closing,
                    opened.kept,
                    head.created,
                    self.clock.now(),
                ),
            )
        duplicates = overlaps.mark(self.tx, opened.account.id, opened.id)
        self.statements.append(Statement(opened.id, opened.account, opened.kept, duplicates))

    def _flush(self, opened: _Open) -> None:
        if not opened.waiting:
            return
        indexes = {
            number: counterparties.index(self.keys, number)
            for number in {
                line.counterparty_account for _, line in opened.waiting if line.counterparty_account
            }
        }
        parties = counterparties.parties(self.tx, opened.account.id, indexes.values())
        with cursor(self.tx) as sql:
            self._copy(sql, opened, indexes, parties)
        self.lines += len(opened.waiting)
        opened.waiting.clear()
        self.watch(self.lines)

    def _copy(self, sql: Cursor, opened: _Open, indexes: dict[str, bytes], parties: dict[bytes, str]) -> None:
        rules = opened.rules
        with sql.copy(_COPY) as copy:
            copy.set_types(_COPY_TYPES)
            for line_id, line in opened.waiting:
                index = indexes.get(line.counterparty_account or "")
                party = (parties.get(index) if index else None) or rules.party_of(
                    line.counterparty, line.counterparty_account, line.text
                )
                copy.write_row(
                    (
                        line_id,
                        opened.id,
                        opened.account.id,
                        line.entry,
                        line.detail,
                        line.booked_on,
                        line.value_on,
                        line.amount,
                        line.currency,
                        line.kind,
                        line.reversal,
                        line.end_to_end,
                        line.reference,
                        _identifiers(rules, line),
                        party,
                        index,
                        fingerprint(self.keys, line),
                        seal_text(
                            self.cipher,
                            line_id,
                            LineText(line.text, line.counterparty, line.counterparty_account),
                        ),
                    )
                )


def fingerprint(keys: Keys, line: Line) -> bytes:
    """32 bytes that two lines share when they say the same, wherever in a statement, and however their text is spaced."""
    said = (
        line.booked_on.isoformat(),
        line.value_on.isoformat(),
        str(line.amount),
        line.currency,
        line.end_to_end or "",
        line.reference or "",
        *line.references,
        line.counterparty_account or "",
        (line.counterparty or "").casefold(),
        " ".join(line.text.casefold().split()),
    )
    return keys.blind_index(FINGERPRINT, "\x1f".join(said))


def _identifiers(rules: Rules, line: Line) -> list[str]:
    """The line's other references, and what the patterns find in its text and in each reference, each once."""
    found = dict.fromkeys(line.references)
    for said in (line.text, line.end_to_end, line.reference, *line.references):
        if said:
            found.update(dict.fromkeys(rules.identifiers_in(said)))
    return list(found)


def _does_not_add_up(opened: _Open, end: StatementEnd, difference: int) -> str:
    head = opened.head
    opening, total, closing, missing = (
        str(Money(amount, head.currency)) if abs(amount) <= AMOUNT_MAX else f"{amount} {head.currency}"
        for amount in (end.opening, opened.total, end.closing, difference)
    )
    return (
        f"Statement {head.position}{f' ({head.identification})' if head.identification else ''} of {head.account} does not add"
        f" up: it opens with {opening}, its {opened.read} lines make {total}, it closes with {closing}; the difference is {missing}."
    )
