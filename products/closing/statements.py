"""The tables of the close pack that come from the accounts: trial balance, statements of sponsors, pools and members' funds."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from ledger.balances import DEBIT_NORMAL
from ledger.ids import public_id
from products import chart
from products.closing.balances import Held, Month, Moved
from products.closing.document import Amount, Cell, Column, Figures, Row, RowKind, Section, Table
from products.closing.figures import GROUPED, MEMBERS, SPONSORS, Figure, Flow, Measure
from products.closing.period import Fund, Period

T = TypeVar("T", Held, Moved)

TRIAL_COLUMNS: Final = (
    Column("Account", "text"),
    Column("Opening debit"),
    Column("Opening credit"),
    Column("Debits"),
    Column("Credits"),
    Column("Closing debit"),
    Column("Closing credit"),
)

MEMBER_FLOWS: Final[Mapping[str, tuple[Flow, ...]]] = {
    "Contributions": ("contributions",),
    "Match": ("match",),
    "Vesting": ("vesting",),
    "Forfeiture": ("forfeiture",),
    "Payouts": ("payouts",),
    "Fees": ("fees",),
    "Between accounts": ("between_members",),
    "Other": ("paid_in", "committed", "bank", "other_funds", "other"),
}
SPONSOR_FLOWS: Final[Mapping[str, tuple[Flow, ...]]] = {
    "Paid in": ("paid_in",),
    "Committed": ("committed",),
    "Match": ("match",),
    "Forfeited": ("forfeiture",),
    "Other": (
        "contributions",
        "vesting",
        "payouts",
        "fees",
        "between_members",
        "bank",
        "other_funds",
        "other",
    ),
}
POOL_FLOWS: Final[Mapping[str, tuple[Flow, ...]]] = {
    "Contributions": ("contributions",),
    "Bank": ("bank", "paid_in"),
    "Other funds": ("other_funds",),
    "Fees": ("fees",),
    "Other": ("match", "vesting", "forfeiture", "payouts", "between_members", "committed", "other"),
}


def words(code: str) -> str:
    """An account's code as it is read: ``member_savings`` is *member savings*."""
    return code.replace("_", " ")


def trial_balance(period: Period, month: Month, figures: Figures) -> Section:
    """What each account code held, what moved, what it holds: per fund and currency, and that debits and credits tie."""
    tables = []
    for fund in period.funds:
        for currency in _currencies(fund, month):
            tables.append(_trial_balance(period, fund, currency, month, figures))
    return Section(
        "trial_balance",
        "Trial balance",
        "Accounts with a debit balance and those with a credit balance are added up apart: what one partner owes is not"
        " paid by another's advance.",
        tuple(tables),
    )


def _trial_balance(period: Period, fund: Fund, currency: str, month: Month, figures: Figures) -> Table:
    at: dict[str, list[int]] = defaultdict(lambda: [0] * 6)
    accounts: dict[str, list[str]] = defaultdict(list)
    for place, held in ((0, month.opening), (4, month.closing)):
        for one in _of(held, fund, currency):
            at[one.code][place] += one.debit
            at[one.code][place + 1] += one.credit
            if place:
                accounts[one.code] += [public_id("acc", id_) for id_ in one.accounts]
    for moved in _of(month.moved, fund, currency):
        at[moved.code][2] += moved.debits
        at[moved.code][3] += moved.credits
    before = period.month - timedelta(days=1)

    def cells(name: str, codes: tuple[str, ...] | None, amounts: Sequence[int]) -> tuple[Amount, ...]:
        made = (
            Figure(fund.id, currency, "debit", before, codes=codes, side="debit"),
            Figure(fund.id, currency, "credit", before, codes=codes, side="credit"),
            Figure(fund.id, currency, "debits", period.through, period.month, codes=codes),
            Figure(fund.id, currency, "credits", period.through, period.month, codes=codes),
            Figure(fund.id, currency, "debit", period.through, codes=codes, side="debit"),
            Figure(fund.id, currency, "credit", period.through, codes=codes, side="credit"),
        )
        names = ("opening_debit", "opening_credit", "debits", "credits", "closing_debit", "closing_credit")
        return tuple(
            figures.cell(amount, ("trial_balance", fund.role, currency, name, column), figure)
            for amount, column, figure in zip(amounts, names, made, strict=True)
        )

    rows = [
        Row((words(code), *cells(code, (code,), amounts)), accounts=tuple(accounts[code]))
        for code, amounts in sorted(at.items())
    ]
    totals = [sum(column) for column in zip(*at.values(), strict=True)] or [0] * 6
    rows.append(Row(("Total", *cells("total", None, totals)), "total"))
    return Table(
        f"trial_balance.{fund.role}.{currency}",
        fund.code,
        TRIAL_COLUMNS,
        tuple(rows),
        currency,
        ties=totals[0] == totals[1] and totals[2] == totals[3] and totals[4] == totals[5],
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of a statement: which accounts, and on which side they are told."""

    label: str
    codes: tuple[str, ...]
    group: str | None
    measure: Measure = "credit"
    kind: RowKind = "row"


class _Statement:
    """A table of what accounts held, how it came to be otherwise, and what they hold: each row closes."""

    def __init__(
        self,
        section: str,
        period: Period,
        fund: Fund,
        currency: str,
        flows: Mapping[str, tuple[Flow, ...]],
        month: Month,
        figures: Figures,
    ) -> None:
        self.section, self.period, self.fund, self.currency = section, period, fund, currency
        self.flows, self.figures = flows, figures
        self.opening = list(_of(month.opening, fund, currency))
        self.closing = list(_of(month.closing, fund, currency))
        self.moved = list(_of(month.moved, fund, currency))
        self.closes = True

    @property
    def columns(self) -> tuple[Column, ...]:
        """Opening, each flow, closing."""
        return (
            Column("", "text"),
            Column("Opening"),
            *(Column(label) for label in self.flows),
            Column("Closing"),
        )

    def groups(self, codes: Iterable[str]) -> list[str]:
        """The groups that accounts of these codes are in, as far as they held or moved anything."""
        chosen = set(codes)
        known: list[Held | Moved] = [*self.opening, *self.moved, *self.closing]
        return sorted({one.group for one in known if one.code in chosen})

    def there(self, codes: Iterable[str], group: str | None) -> list[str]:
        """Which of the codes held or moved anything, in the order given."""
        known: list[Held | Moved] = [*self.opening, *self.moved, *self.closing]
        present = {one.code for one in known if group in (None, one.group)}
        return [code for code in codes if code in present]

    def row(self, line: _Line) -> Row:
        """One row, with a figure in each cell."""
        period, sign = self.period, -1 if line.measure == "debit" else 1
        chosen = set(line.codes)

        def has(one: Held | Moved) -> bool:
            return one.code in chosen and line.group in (None, one.group)

        opening = sign * sum(one.credit - one.debit for one in self.opening if has(one))
        closing = sign * sum(one.credit - one.debit for one in self.closing if has(one))
        moved = {
            label: sign
            * sum(one.credits - one.debits for one in self.moved if has(one) and one.flow in flows)
            for label, flows in self.flows.items()
        }
        self.closes &= opening + sum(moved.values()) == closing
        named = [id_ for one in self.closing if has(one) for id_ in one.accounts]
        name = (
            self.section,
            self.fund.role,
            self.currency,
            "" if line.group is None else line.group or "none",
            line.codes[0] if len(line.codes) == 1 else _named(line.label),
        )

        def figure(since: bool, through_before: bool, flows: tuple[Flow, ...] | None) -> Figure:
            return Figure(
                self.fund.id,
                self.currency,
                line.measure,
                period.month - timedelta(days=1) if through_before else period.through,
                period.month if since else None,
                codes=line.codes,
                group=line.group,
                flows=flows,
            )

        cells: list[Cell] = [line.label]
        cells.append(self.figures.cell(opening, (*name, "opening"), figure(False, True, None)))
        for label, flows in self.flows.items():
            cells.append(self.figures.cell(moved[label], (*name, _named(label)), figure(True, False, flows)))
        cells.append(self.figures.cell(closing, (*name, "closing"), figure(False, False, None)))
        return Row(
            tuple(cells),
            line.kind,
            tuple(public_id("acc", id_) for id_ in named) if line.kind == "row" else (),
        )

    def table(self, title: str, rows: Sequence[Row], *, ties: bool = True) -> Table:
        """The rows as a table of this fund and currency."""
        return Table(
            f"{self.section}.{self.fund.role}.{self.currency}",
            title,
            self.columns,
            tuple(rows),
            self.currency,
            ties=self.closes and ties,
        )


def sponsors(period: Period, month: Month, figures: Figures) -> Section:
    """What each sponsor has paid in, committed and given as match."""
    tables = []
    for statement in _statements("sponsors", period, SPONSOR_FLOWS, month, figures, lambda _: True):
        rows = []
        for sponsor in statement.groups(SPONSORS):
            rows.append(Row((sponsor, *[None] * (len(statement.columns) - 1)), "group"))
            rows += [
                statement.row(_Line(words(code.removeprefix("sponsor_")), (code,), sponsor))
                for code in statement.there(SPONSORS, sponsor)
            ]
            rows.append(statement.row(_Line("Total", SPONSORS, sponsor, kind="subtotal")))
        if rows:
            tables.append(statement.table(statement.fund.code, rows))
    return Section(
        "sponsors",
        "Fund statement per sponsor",
        "What a sponsor has paid in and not given yet: uncommitted, committed to members, and what it owes (negative).",
        tuple(tables),
    )


def pools(period: Period, month: Month, figures: Figures) -> Section:
    """What each pool, and each agency's collections, took in, paid out and holds."""
    tables = []
    for statement in _statements("pools", period, POOL_FLOWS, month, figures, _is_pool):
        known: list[Held | Moved] = [*statement.opening, *statement.moved, *statement.closing]
        rows: list[Row] = []
        closing: list[int] = []
        for title, measure, debit_normal in (
            ("Assets and expenses", "debit", True),
            ("Liabilities, equity and income", "credit", False),
        ):
            side: Measure = "debit" if measure == "debit" else "credit"
            pairs = sorted(
                {(one.code, one.group) for one in known if (one.kind in DEBIT_NORMAL) == debit_normal}
            )
            rows += [
                statement.row(_Line(words(code) + (f" · {group}" if group else ""), (code,), group, side))
                for code, group in pairs
            ]
            codes = tuple(sorted({code for code, _ in pairs}))
            if codes:
                total = statement.row(_Line(title, codes, None, side, "subtotal"))
                rows.append(total)
                last = total.cells[-1]
                closing.append(last.amount if isinstance(last, Amount) else 0)
        if rows:
            ties = len(closing) == 2 and closing[0] == closing[1]
            tables.append(statement.table(statement.fund.code, rows, ties=ties))
    return Section(
        "pools",
        "Fund statement per pool and agency",
        "Assets and expenses are told as debits, all others as credits; the two close at the same amount.",
        tuple(tables),
    )


def member_funds(period: Period, month: Month, figures: Figures) -> Section:
    """What members have, per product and in total, and how it came to be otherwise; it ties to the trial balance."""
    tables = []
    for statement in _statements("members", period, MEMBER_FLOWS, month, figures, lambda _: True):
        products = statement.groups(GROUPED)
        rows: list[Row] = []
        for product in products:
            rows.append(Row((product or "no product", *[None] * (len(statement.columns) - 1)), "group"))
            rows += [
                statement.row(_Line(words(code), (code,), product))
                for code in statement.there(GROUPED, product)
            ]
            rows.append(statement.row(_Line("Total", GROUPED, product, kind="subtotal")))
        outside = [
            statement.row(_Line(words(code), (code,), None))
            for code in statement.there((chart.MEMBER_UNAPPLIED.name, chart.MEMBER_RECEIVABLE.name), None)
        ]
        if outside:
            rows += [Row(("outside any product", *[None] * (len(statement.columns) - 1)), "group"), *outside]
        if rows:
            rows.append(statement.row(_Line("Members' funds", MEMBERS, None, kind="total")))
            tables.append(statement.table(statement.fund.code, rows))
    return Section(
        "members",
        "Movements of members' funds",
        "Contributions, match and what left, as the members see it: a receivable, what a member owes, is negative."
        " The total closes at what the trial balance has of these accounts.",
        tuple(tables),
    )


def late(period: Period, month: Month, figures: Figures) -> Section:
    """What was booked in this month and belongs to an earlier one, which was closed."""
    tables = []
    for fund in period.funds:
        for currency in sorted({one.currency for one in month.late if one.fund == fund.id}):
            rows = []
            for one in month.late:
                if (one.fund, one.currency) != (fund.id, currency):
                    continue
                figure = Figure(
                    fund.id,
                    currency,
                    "gross",
                    period.through,
                    period.month,
                    kind=one.kind,
                    belongs=one.belongs,
                )
                amount = figures.cell(
                    one.amount, ("late", fund.role, currency, one.belongs, one.kind), figure
                )
                rows.append(Row((one.belongs, words(one.kind), one.transactions, amount)))
            tables.append(
                Table(
                    f"late.{fund.role}.{currency}",
                    fund.code,
                    (
                        Column("Belongs to", "text"),
                        Column("Kind", "text"),
                        Column("Transactions", "count"),
                        Column("Amount of postings"),
                    ),
                    tuple(rows),
                    currency,
                )
            )
    return Section(
        "late",
        "Belongs to earlier months",
        "What came after a month was closed is booked on the first open day, and says which day it belongs to.",
        tuple(tables),
    )


def _named(label: str) -> str:
    """A label as a part of a figure's name."""
    return "".join(one if one.isalnum() else "_" for one in label.lower().replace("'", "").replace(",", ""))


def _is_pool(fund: Fund) -> bool:
    return fund.role == chart.AGENCY or fund.role.startswith("pool:")


def _statements(
    section: str,
    period: Period,
    flows: Mapping[str, tuple[Flow, ...]],
    month: Month,
    figures: Figures,
    wanted: Callable[[Fund], bool],
) -> Iterable[_Statement]:
    for fund in filter(wanted, period.funds):
        for currency in _currencies(fund, month):
            yield _Statement(section, period, fund, currency, flows, month, figures)


def _currencies(fund: Fund, month: Month) -> list[str]:
    known: list[Held | Moved] = [*month.opening, *month.moved, *month.closing]
    return sorted({one.currency for one in known if one.fund == fund.id})


def _of(known: Iterable[T], fund: Fund, currency: str) -> Iterable[T]:
    return (one for one in known if (one.fund, one.currency) == (fund.id, currency))
