"""The close pack: what a month's books come to, made once when it is closed, or as a preview before.

Trial balance, fund statements per sponsor and pool, bank reconciliation statement, aged breaks, movements of members' funds, what
belongs to earlier months, and the check-list with its explanations. Nothing in it names a person but those who closed and explained.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.ids import public_id
from products.closing import balances, bank, statements
from products.closing.bank import Reconciliation
from products.closing.document import (
    SCHEMA,
    Amount,
    Cell,
    Column,
    Figures,
    Linked,
    Row,
    Section,
    Table,
    spelled,
    to_json,
)
from products.closing.figures import Figure
from products.closing.findings import CheckList
from products.closing.period import Period
from products.closing.statements import words

BREAKS_MAX: Final = 1_000
AGES: Final = ((7, "up to 7 days"), (30, "8 to 30 days"), (90, "31 to 90 days"))
OLDEST: Final = "over 90 days"


@dataclass(frozen=True, slots=True)
class Superseded:
    """The close of the same month that a pack is in place of, and why the month was opened again."""

    revision: int
    digest: str
    reopened_at: str
    reopened_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """What a pack says of its close; a preview has none."""

    revision: int
    at: datetime
    by: str
    remark: str
    supersedes: Superseded | None = None


@dataclass(frozen=True, slots=True)
class Pack:
    """The figures of a month as a document; ``ties`` says whether every table of it adds up to what it has to."""

    document: Mapping[str, Any]
    figures: Mapping[str, Figure]
    ties: bool

    @property
    def spelled(self) -> bytes:
        """The document in its one spelling."""
        return spelled(self.document)


def make(tx: Tx, period: Period, checklist: CheckList, closed: Closed | None) -> Pack:
    """Read the month and lay it out; as a role that sees all of the books."""
    month, figures = balances.month(tx, period), Figures()
    reconciled = [
        bank.reconcile(tx, one, period.through) for one in bank.accounts(tx, period.fund_ids, period.through)
    ]
    sections = [
        statements.trial_balance(period, month, figures),
        statements.sponsors(period, month, figures),
        statements.pools(period, month, figures),
        _bank(reconciled, period, figures),
        _breaks(tx, period),
        statements.member_funds(period, month, figures),
        statements.late(period, month, figures),
        _checklist(checklist),
    ]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "programme": period.programme,
        "name": period.name,
        "time_zone": period.time_zone,
        "month": period.label,
        "from": period.month,
        "through": period.through,
        "state": "closed" if closed else "preview",
        "revision": closed.revision if closed else None,
        # a preview is of now
        "at": (closed.at if closed else checklist.judged_at).isoformat(),
        "by": closed.by if closed else None,
        "remark": closed.remark if closed else None,
        "supersedes": asdict(closed.supersedes) if closed and closed.supersedes else None,
        "funds": [{"fund": fund.code, "name": fund.name} for fund in period.funds],
        "sections": [to_json(section) for section in sections],
        "checklist": [item.to_json() for item in checklist.items],
        "figures": {name: figure.to_json() for name, figure in sorted(figures.known.items())},
    }
    ties = all(table.ties is not False for section in sections for table in section.tables)
    return Pack(document, figures.known, ties)


def _bank(reconciled: list[Reconciliation], period: Period, figures: Figures) -> Section:
    return Section(
        "bank",
        "Bank reconciliation statement",
        "From what the bank says to what the books say: each line that the books do not have yet, and each item that the bank"
        " does not have yet.",
        tuple(_reconciliation(one, period, figures) for one in reconciled),
    )


def _reconciliation(one: Reconciliation, period: Period, figures: Figures) -> Table:
    account = one.account
    role = next(fund.role for fund in period.funds if fund.id == account.fund_id)
    books = figures.cell(
        one.books,
        ("bank", role, account.currency, account.slug, "books"),
        Figure(
            account.fund_id,
            account.currency,
            "debit",
            one.on,
            codes=(account.code,),
            group=account.owner,
        ),
    )
    to_statements = f"/v1/bank-statements?account={account.slug}"
    said = f"Balance per bank, {one.statement_on}" if one.statement_on else "Balance per bank: no statement"
    bank_cell: Cell = None
    if one.bank is not None and one.statement_id is not None:
        bank_cell = Amount(one.bank, link=_statement(one.statement_id))
    dated = str(one.statement_on) if one.statement_on else None
    rows = [Row((said, None, dated, bank_cell), "subtotal")]
    for timing in one.timing:
        signed = timing.amount if timing.side == "item" else -timing.amount
        where = {
            "line": "in the bank, not in the books",
            "item": "in the books, not in the bank",
            "rest": "either",
        }
        link = to_statements
        if timing.within is not None:
            link = (
                f"{_statement(timing.within)}/lines"
                if timing.side == "line"
                else f"/v1/ledger/transactions/{public_id('txn', timing.within)}"
            )
        rows.append(
            Row((words(timing.what), where[timing.side], str(timing.since), Amount(signed, link=link)))
        )
    if one.before:
        rows.append(
            Row(("Before the first statement", None, str(account.statements_since), Amount(-one.before)))
        )
    rows.append(
        Row(
            (f"Balance per books, {one.on}", None, str(one.on), books),
            "subtotal",
            (public_id("acc", account.account_id),),
        )
    )
    rows.append(
        Row(
            (
                "Difference",
                None,
                None,
                Amount(one.difference) if one.difference is not None else None,
            ),
            "total",
        )
    )
    return Table(
        f"bank.{account.slug}",
        f"{account.name} · {account.identification} · {account.fund}",
        (
            Column("Balance or entry", "text"),
            Column("Where it is", "text"),
            Column("Dated", "date"),
            Column("Amount"),
        ),
        tuple(rows),
        account.currency,
        ties=one.difference == 0,
    )


def _statement(id_: UUID) -> str:
    return f"/v1/bank-statements/{public_id('bst', id_)}"


def _breaks(tx: Tx, period: Period) -> Section:
    with cursor(tx) as sql:
        rows = sql.execute(
            "SELECT id, type, on_date, currency, amount, owner, remark FROM products.break"
            " WHERE programme_id = %s AND on_date <= %s AND ended_at IS NULL ORDER BY currency, on_date, id",
            (period.programme_id, period.through),
        ).fetchall()
    by_age: dict[tuple[str, str], list[int]] = defaultdict(list)
    listed: dict[str, list[Row]] = defaultdict(list)
    for id_, type_, on, currency, amount, owner, remark in rows:
        age = (period.through - on).days
        by_age[currency, _age(age)].append(amount)
        if len(listed[currency]) < BREAKS_MAX:
            listed[currency].append(_break(id_, type_, on, age, owner, remark, amount))
    tables = []
    for currency in sorted(listed):
        ages = [
            Row(
                (
                    age,
                    len(amounts),
                    Amount(
                        sum(map(abs, amounts)),
                        link=f"/v1/breaks?programme={period.programme}&currency={currency}&sort=age",
                    ),
                )
            )
            for age in (*(label for _, label in AGES), OLDEST)
            if (amounts := by_age.get((currency, age)))
        ]
        tables.append(
            Table(
                f"breaks.ages.{currency}",
                "By age",
                (Column("Age", "text"), Column("Breaks", "count"), Column("Value")),
                tuple(ages),
                currency,
            )
        )
        count = sum(len(amounts) for (of, _), amounts in by_age.items() if of == currency)
        shown = listed[currency]
        if count > len(shown):
            beyond = sum(sum(amounts) for (of, _), amounts in by_age.items() if of == currency) - sum(
                cell.amount for row in shown for cell in row.cells if isinstance(cell, Amount)
            )
            rest = f"{count - len(shown)} more that are not listed here"
            shown.append(Row((rest, None, None, None, None, Amount(beyond)), "subtotal"))
        tables.append(
            Table(
                f"breaks.{currency}",
                "One by one",
                (
                    Column("Type", "text"),
                    Column("Dated", "date"),
                    Column("Days", "count"),
                    Column("Owner", "text"),
                    Column("Remark", "text"),
                    Column("Amount"),
                ),
                tuple(shown),
                currency,
            )
        )
    return Section("breaks", "Aged breaks", "What did not tie at the close, oldest first.", tuple(tables))


def _break(
    id_: UUID, type_: str, on: date, age: int, owner: str | None, remark: str | None, amount: int
) -> Row:
    link = f"/v1/breaks/{public_id('brk', id_)}"
    return Row((Linked(words(type_), link), str(on), age, owner, remark, Amount(amount, link=link)))


def _age(days: int) -> str:
    return next((label for limit, label in AGES if days <= limit), OLDEST)


def _checklist(checklist: CheckList) -> Section:
    rows: list[Row] = []
    tables = []
    for item in checklist.items:
        rows.append(Row((item.title, item.state, len(item.findings))))
        found: dict[str | None, list[Row]] = defaultdict(list)
        for one in item.findings:
            said = one.explanation
            what: Cell = Linked(one.what, one.link) if one.link else one.what
            by = f"{said.by}, {said.at:%Y-%m-%d %H:%M}Z" if said else None
            owner = said.owner if said else None
            amount = Amount(one.amount, link=one.link) if one.amount is not None else None
            found[one.currency].append(
                Row((what, one.count, said.remark if said else None, owner, by, amount))
            )
        for currency, lines in sorted(found.items(), key=lambda pair: pair[0] or ""):
            tables.append(
                Table(
                    f"checklist.{item.name}.{currency or 'none'}",
                    f"{item.title}: {item.state}",
                    (
                        Column("What was found", "text"),
                        Column("Number", "count"),
                        Column("Explanation", "text"),
                        Column("Owner", "text"),
                        Column("By", "text"),
                        Column("Amount"),
                    ),
                    tuple(lines),
                    currency,
                )
            )
    summary = Table(
        "checklist",
        "All items",
        (Column("Item", "text"), Column("State", "text"), Column("Findings", "count")),
        tuple(rows),
    )
    return Section(
        "checklist",
        "Check-list",
        "Judged from the books and the tables at the close; what was explained says by whom.",
        (summary, *tables),
    )
