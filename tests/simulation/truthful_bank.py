"""What the bank says of a programme's weeks: each thing as it was, or disturbed in one way; written as real files and brought in.

What a reconciliation must say of each disturbance is beside it; docs/reference/breaks.md says the same in words.
"""

import io
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from hashlib import sha256
from itertools import groupby
from typing import Final
from uuid import UUID

from integrations.bank_statements.canonical import Format
from integrations.bank_statements.csv_mapping import parse
from integrations.bank_statements.reading import read
from ledger.reconciliation import importing, rules
from ledger.reconciliation.files import NewFile
from tests.simulation.banking import DAY, FIRST, GAP, LAST, Case, Known, Said, Weeks, names
from tests.unit.bank_statement_writers import CSV_MAPPING, Detail, Entry, Statement, camt, csv_file, mt940

CURRENCIES = {"savers": "RWF", "office": "RWF", "dollars": "USD"}


@dataclass
class File:
    """One statement as it goes out, and what its lines are in truth."""

    account: str
    days: tuple[date, date]
    number: int
    opening: int
    lines: list[Said]


@dataclass
class TruthfulBank:
    """The bank of some weeks: `cases` is the truth, `files` what it sends, in an order that has its reasons."""

    weeks: Weeks
    rng: random.Random = field(init=False)
    fmt: Format = field(init=False)
    cases: list[Case] = field(init=False)
    lines: dict[UUID, Said] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.weeks.seed + 1)
        self.fmt = [*Format][self.weeks.seed % len(Format)]
        self.cases = self.weeks.cases
        by_kind: defaultdict[tuple[str, bool], list[Known]] = defaultdict(list)
        for item in self.weeks.known():
            by_kind[self.weeks.kind_of(item), item.amount > 0].append(item)
        for kind, came in sorted(by_kind):
            self.cases += self._of_kind(kind, by_kind[kind, came])
        self.cases += self._of_nobody()
        self._write()

    # what happened, thing by thing

    def _of_kind(self, kind: str, items: Sequence[Known]) -> list[Case]:
        if items[0].amount < 0:
            groups = [items] if kind in ("batch", "twins") else [[item] for item in items]
            return [PAYOUT_CASES[kind](self, group) for group in groups]
        disturbed = PARTNER_CASES.get(kind)
        if disturbed is None:
            return [self.plain(item) for item in items]
        many, case = disturbed
        at = (
            0
            if kind == "shifted"
            else len(items) - 1
            if kind == "cut-off"
            else self.rng.randrange(len(items) - many + 1)
        )
        chosen, rest = items[at : at + many], [*items[:at], *items[at + many :]]
        return [case(self, chosen), *(self.plain(item) for item in rest)]

    def day(self, since: date, least: int = 0, most: int = 2) -> date:
        """A day of the bank's, so many after another."""
        assert since + least * DAY <= LAST, "the bank has no such day"
        found = since
        while found <= FIRST or found == GAP or found > LAST or found < since + least * DAY:
            found = min(since + self.rng.randint(least, most) * DAY, LAST)
            if found == GAP:
                found += DAY
        return found

    def paid_out(self, item: Known, amount: int | None = None, **says: object) -> Said:
        """A payment, as the bank shows it when all goes well."""
        told: dict[str, object] = {
            "end_to_end": item.end_to_end,
            "reference": self.own_reference(),
            "text": "SALARY",
            **says,
        }
        on = told.pop("on", None) or self.day(item.on)
        return Said(on, item.amount if amount is None else amount, **told)  # type: ignore[arg-type]  # its own fields

    def paid_in(self, item: Known, amount: int | None = None, **says: object) -> Said:
        """What a partner or a sponsor paid, as the bank shows it when all goes well."""
        if " " not in item.name and not item.name.startswith("stl_"):
            told = self.rng.choice(SPONSORS_SAY)(item.name)
        else:
            told = {"name": f"{str(item.party).title()} {'Telecom' if item.party == 'acme' else 'Money'} Ltd"}
            told["end_to_end"] = f"{item.party}/{item.on:%d%m}/{item.amount}"
        told = {"text": "PAYMENT", **told, **says}
        on = told.pop("on", None) or self.day(item.on, most=3)
        return Said(on, item.amount if amount is None else amount, **told)  # type: ignore[arg-type]  # its own fields

    def own_reference(self) -> str | None:
        """What the bank itself calls a movement, if it says."""
        return f"BK{self.rng.randrange(10**9):09}X" if self.rng.random() < 0.5 else None

    def plain(self, item: Known) -> Case:
        """As it should be."""
        return as_it_is(self, [item])

    def _of_nobody(self) -> list[Case]:
        came = Said(self.day(FIRST, 1, 12), self.weeks.amount(1_000, 90_000), text="GIFT", name="Jean Bosco")
        went = Said(self.day(FIRST, 1, 12), -self.weeks.amount(1_000, 9_000), text="STANDING ORDER")
        first, second = (Said(LAST, self.weeks.amount(1_000, 9_000), account="office") for _ in range(2))
        return [
            Case("unknown sender", lines=(came,), finds=names("unknown_party")),
            Case("not in the books", lines=(went,), finds=names("missing_in_books")),
            Case("two versions", lines=(first, second), finds=names("unknown_party"), versions=True),
        ]

    # statements

    def _write(self) -> None:
        """Daily statements of the savers; one of the others' weeks, and two of the last day that disagree."""
        said: defaultdict[str, list[Said]] = defaultdict(list)
        versions: list[Said] = []
        for case in self.cases:
            for line in case.lines:
                versions.append(line) if case.versions else said[line.account].append(line)
        for lines in said.values():
            self.rng.shuffle(lines)
        opening = 0
        number = 0
        by_day: dict[date, File] = {}
        for day in [FIRST + timedelta(days) for days in range((LAST - FIRST).days + 1)]:
            todays = [line for line in said["savers"] if line.on == day]
            todays.sort(key=lambda line: line.entry or "")
            if not todays and self.fmt is Format.CSV:
                continue
            number += 1
            by_day[day] = File("savers", (day, day), number, opening, todays)
            opening += sum(line.amount for line in todays)
        del by_day[GAP]
        self.files = [*by_day.values(), *self._overlap(by_day)]
        for account in ("office", "dollars"):
            self.files.append(
                File(account, (FIRST, LAST - DAY), 1, 0, [one for one in said[account] if one.on < LAST])
            )
            assert all(line.on < LAST for line in said[account])
        office = sum(line.amount for line in said["office"])
        self.files += [File("office", (LAST, LAST), 2, office, [version]) for version in versions]

    def _overlap(self, by_day: Mapping[date, File]) -> list[File]:
        """Two days once more, in one statement."""
        pairs = [
            (file, by_day[day + DAY])
            for day, file in by_day.items()
            if day + DAY in by_day and file.lines and by_day[day + DAY].lines
        ]
        first, second = self.rng.choice(pairs)
        lines = [*first.lines, *second.lines]
        return [File("savers", (first.days[0], second.days[1]), first.number, first.opening, lines)]

    def sends(self, files: Sequence[File]) -> None:
        """Bring files in, each as the real parsers read it."""
        for file in files:
            self._import(file)

    def _import(self, file: File) -> None:
        content = self.written(file).encode()
        weeks = self.weeks
        new = NewFile(sha256(content).digest(), "statement", self.fmt.value, len(content), "test")
        reads = partial(
            read, fmt=self.fmt, mapping=parse(CSV_MAPPING) if self.fmt is Format.CSV else None, today=LAST
        )
        imported = weeks.databases.worker.run(
            lambda tx: importing.import_(
                tx,
                weeks.counting.world.books.keyring,
                weeks.clock,
                io.BytesIO(content),
                new,
                reads,
                rules_of=rules.of_account,
            )
        )
        [statement] = imported.statements
        rows = weeks.counting.paying.rows(
            "SELECT id, amount FROM ledger.statement_line WHERE statement_id = %s ORDER BY entry, detail",
            statement.id,
        )
        assert [row["amount"] for row in rows] == [line.amount for line in file.lines]
        self.lines |= {row["id"]: line for row, line in zip(rows, file.lines, strict=True)}

    def written(self, file: File) -> str:
        """The file as its bank writes it."""
        entries = [
            Entry(tuple(detail(line) for line in lines), booked_on=on, value_on=on)
            for (on, _, _), lines in (
                (key, [*grouped])
                for key, grouped in groupby(
                    file.lines, lambda line: (line.on, line.entry, None if line.entry else id(line))
                )
            )
        ]
        one = Statement(
            tuple(entries),
            opening=file.opening,
            account=self.weeks.accounts[file.account].identification,
            currency=CURRENCIES[file.account],
            identification=f"{file.account}-{file.number}",
            number=str(file.number),
            from_on=file.days[0],
            to_on=file.days[1],
        )
        match self.fmt:
            case Format.CAMT053:
                return camt([one], self.rng.randint(2, 13))
            case Format.MT940:
                return mt940([one], structured=self.weeks.seed % 2 == 0)
            case Format.CSV:
                return csv_file([one])


def detail(line: Said) -> Detail:
    """A line as a transaction of an entry."""
    return Detail(line.amount, line.end_to_end, line.reference, line.name, line.text)


# -- each disturbance, and what must be found of it ------------------------------------------------------------------

Disturbs = Callable[[TruthfulBank, Sequence[Known]], Case]
SPONSORS_SAY: Final[Sequence[Callable[[str], dict[str, object]]]] = (
    lambda name: {"reference": name},
    lambda name: {"text": f"TRANCHE {name} PAID"},
    lambda name: {"text": f"tranche {name.lower().replace('/', '-')}"},
    lambda _: {},
)


def _case(
    what: str,
    items: Sequence[Known],
    *lines: Said,
    right: Sequence[tuple[Said, ...]] | None = None,
    paired: bool = False,
    finds: frozenset[str] = frozenset(),
    allows: frozenset[str] = frozenset(),
) -> Case:
    return Case(
        what,
        frozenset(item.name for item in items),
        lines,
        tuple([lines] if right is None else right),
        paired,
        finds,
        allows,
    )


def _one(what: str, says: Callable[[TruthfulBank, Known], Said], **must: object) -> Disturbs:
    """One line for one item."""

    def disturbs(bank: TruthfulBank, items: Sequence[Known]) -> Case:
        [item] = items
        return _case(what, items, says(bank, item), **must)  # type: ignore[arg-type]  # of _case

    return disturbs


def _out(what: str, says: Callable[[Known], dict[str, object]], **must: object) -> Disturbs:
    """One line for one payment, which says something else than it should."""
    return _one(what, lambda bank, item: bank.paid_out(item, None, **says(item)), **must)


def as_it_is(bank: TruthfulBank, items: Sequence[Known]) -> Case:
    """As it should be."""
    [item] = items
    says = bank.paid_out if item.amount < 0 else bank.paid_in
    return _case("as it should be", items, says(item), paired=True)


def nothing(what: str, finds: frozenset[str], allows: frozenset[str] = frozenset()) -> Disturbs:
    """The bank shows nothing of it."""
    return lambda _, items: _case(what, items, right=(), finds=finds, allows=allows)


def otherwise(basis_points: tuple[int, int], what: str, finds: str) -> Disturbs:
    """Another amount than it should be: so much more came in (or, negative, less), in hundredths of a percent of it."""

    def disturbs(bank: TruthfulBank, items: Sequence[Known]) -> Case:
        [item] = items
        amount = item.amount + abs(item.amount) * bank.rng.randint(*basis_points) // 10_000
        says = bank.paid_out if amount < 0 else bank.paid_in
        return _case(what, items, says(item, amount), finds=names(finds))

    return disturbs


def in_a_batch(bank: TruthfulBank, items: Sequence[Known]) -> Case:
    """The bank books a file of payments as one."""
    amount = sum(item.amount for item in items)
    line = bank.paid_out(items[0], amount, end_to_end=None, text=f"SALA {items[0].batch}-01")
    return _case("one debit for a batch", items, line, paired=True)


def twins(bank: TruthfulBank, items: Sequence[Known]) -> Case:
    """Two payments alike, which the bank shows without a name: nobody can tell which is which."""
    lines = [bank.paid_out(item, end_to_end=None, reference=None) for item in items]
    return _case(
        "alike, without a name",
        items,
        *lines,
        right=(),
        finds=names("timing"),
        allows=names("missing_in_bank"),
    )


def in_a_gap(bank: TruthfulBank, items: Sequence[Known]) -> Case:
    """Booked on a day whose statement is missing."""
    line = bank.paid_out(items[0], on=GAP)
    return _case("its statement is missing", items, line, right=(), finds=names("missing_in_bank"))


def twice(bank: TruthfulBank, items: Sequence[Known], *, days_later: int = 0) -> Case:
    """The bank shows it twice: either line is it, and one is too many."""
    [item] = items
    first = bank.paid_out(item) if item.amount < 0 else bank.paid_in(item)
    says = {"end_to_end": first.end_to_end, "reference": first.reference, "name": first.name}
    again = Said(bank.day(first.on + days_later * DAY, most=0), first.amount, text=first.text, **says)  # type: ignore[arg-type]  # its own fields
    return _case(
        f"twice, {days_later} days apart",
        items,
        first,
        again,
        right=[(first,), (again,)],
        finds=names("duplicate"),
        allows=names("timing"),
    )


def back(bank: TruthfulBank, items: Sequence[Known], *, days_later: int, finds: str) -> Case:
    """It is as it should be, and then the bank takes it back, or the other side's bank does."""
    [item] = items
    first = bank.paid_out(item) if item.amount < 0 else bank.paid_in(item)
    again = Said(
        bank.day(first.on + days_later * DAY, most=0),
        -first.amount,
        first.end_to_end,
        name=first.name,
        text="RETURN",
    )
    return _case(
        f"taken back {days_later} days later",
        items,
        first,
        again,
        right=[(first,)],
        finds=names(finds),
        allows=names("timing"),
    )


def split(bank: TruthfulBank, items: Sequence[Known], *, days_apart: int) -> Case:
    """One settlement in two lines."""
    [item] = items
    part = item.amount * bank.rng.randint(30, 45) // 100
    on = bank.day(item.on, most=1)
    lines = [
        bank.paid_in(item, part, end_to_end=None, on=on),
        bank.paid_in(item, item.amount - part, end_to_end=None, on=bank.day(on + days_apart * DAY, most=0)),
    ]
    return _case(f"in two lines, {days_apart} days apart", items, *lines, paired=True)


def two_days(bank: TruthfulBank, items: Sequence[Known]) -> Case:
    """Two settlements in one line."""
    line = bank.paid_in(items[1], sum(item.amount for item in items), on=bank.day(items[1].on, most=1))
    return _case("two days in one line", items, line, paired=True)


PAYOUT_CASES: Final[Mapping[str, Disturbs]] = {
    "clean": as_it_is,
    "confirmed": as_it_is,
    "upper": _out("in upper case", lambda one: {"end_to_end": str(one.end_to_end).upper()}, paired=True),
    "dashed": _out("with dashes", lambda one: {"end_to_end": str(UUID(one.end_to_end))}, paired=True),
    "kept": _out("as much as fits", lambda one: {"end_to_end": str(one.end_to_end)[:16]}, paired=True),
    "in_text": _out(
        "in a text", lambda one: {"end_to_end": None, "text": f"SALARY {one.end_to_end} MARCH"}, paired=True
    ),
    "split_text": _out(
        "broken in a text",
        lambda one: {
            "end_to_end": None,
            "text": f"SALARY {str(one.end_to_end)[:18]} {str(one.end_to_end)[18:]}",
        },
        paired=True,
    ),
    "batch_named": _out(
        "with its batch",
        lambda one: {"end_to_end": None, "text": f"{one.batch} {one.end_to_end}"},
        paired=True,
    ),
    "batch": in_a_batch,
    "batch_entries": _out(
        "details of one entry",
        lambda one: {"entry": one.batch, "on": one.on + (2 if one.on + DAY == GAP else 1) * DAY},
        paired=True,
    ),
    "late": _out("after the month's end", lambda _: {"on": LAST - DAY}, paired=True),
    "unnamed": _out(
        "without a name", lambda _: {"end_to_end": None, "reference": None}, allows=names("timing")
    ),
    "twins": twins,
    "mangled": _out(
        "mangled beyond recognition",
        lambda one: {"end_to_end": str(one.end_to_end)[5:]},
        allows=names("timing", "missing_in_books", "missing_in_bank"),
    ),
    "small_fee": _one(
        "with a small fee",
        lambda bank, one: bank.paid_out(one, one.amount + one.amount * bank.rng.randint(5, 50) // 10_000 + 1),
        paired=True,
    ),
    "fee": otherwise((-190, -60), "with a fee", "fee"),
    "short": otherwise((-3_000, -500), "more went out", "short"),
    "over": otherwise((500, 3_000), "less went out", "over"),
    "silent": nothing("the rail says paid", names("rail_paid_bank_silent")),
    "missing": nothing("not at the bank", names("missing_in_bank")),
    "cut_off": nothing("still to be shown", names("timing")),
    "gap": in_a_gap,
    "twice": twice,
    "twice_later": partial(twice, days_later=4),
    "wrong_account": _out(
        "on another account", lambda _: {"account": "office"}, finds=names("wrong_account")
    ),
    "fx": _one(
        "in another currency",
        lambda bank, one: bank.paid_out(one, one.amount // 13, account="dollars"),
        finds=names("fx"),
    ),
    "returned": partial(back, days_later=0, finds="missing_in_books"),
    "returned_later": partial(back, days_later=4, finds="missing_in_books"),
}
PARTNER_CASES: Final[Mapping[str, tuple[int, Disturbs]]] = {
    "short": (1, otherwise((-3_000, -500), "less came in", "short")),
    "over": (1, otherwise((500, 2_000), "more came in", "over")),
    "fee": (1, otherwise((-190, -60), "a fee was kept", "fee")),
    "missing": (1, nothing("not at the bank", names("missing_in_bank"))),
    "cut-off": (1, nothing("still to be shown", names("timing"))),
    "twice": (1, twice),
    "split-day": (1, partial(split, days_apart=0)),
    "split-days": (1, partial(split, days_apart=2)),
    "two-days": (2, two_days),
    "elsewhere": (
        1,
        _one(
            "on another account",
            lambda bank, one: bank.paid_in(one, account="office"),
            finds=names("wrong_account"),
        ),
    ),
    "returned": (1, partial(back, days_later=4, finds="returned_settlement")),
    "returned-at-once": (1, partial(back, days_later=0, finds="returned_settlement")),
    "shifted": (
        1,
        _one(
            "after a week",
            lambda bank, one: bank.paid_in(one, on=bank.day(one.on, 7, 9)),
            allows=names("timing"),
        ),
    ),
}
"""By the partner: how many of its days it takes, and what happens to them."""
