"""Figures: each number of a close pack says which transactions it is the sum of, and they can be listed.

A figure selects sides of postings: those on accounts of a fund, some codes, perhaps one group of them, in a span of days, perhaps
of one flow. The same expressions add them up for the pack (`products.closing.balances`) and list them here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Final, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput
from ledger.periods import BELONGS_ON
from products import chart

Measure = Literal["debit", "credit", "debits", "credits", "gross"]
"""How sides are added up. ``debit``: debits less credits; ``credit``: the other way round; ``debits``, ``credits``: one of them
alone; ``gross``: the amounts of postings, each once."""

Flow = Literal[
    "contributions",
    "match",
    "vesting",
    "forfeiture",
    "payouts",
    "fees",
    "between_members",
    "paid_in",
    "committed",
    "bank",
    "other_funds",
    "other",
]

PAGE_MAX: Final = 200
GROUPED: Final = (
    chart.CONTRIBUTIONS_PENDING.name,
    chart.MEMBER_SAVINGS.name,
    chart.MATCH_UNVESTED.name,
    chart.MATCH_VESTED.name,
)
"""Accounts of enrolments: grouped by product."""
MEMBERS: Final = (*GROUPED, chart.MEMBER_UNAPPLIED.name, chart.MEMBER_RECEIVABLE.name)
"""All that lies with members."""
SPONSORS: Final = (
    chart.SPONSOR_UNCOMMITTED.name,
    chart.SPONSOR_COMMITTED.name,
    chart.SPONSOR_RECEIVABLE.name,
)


def _codes(*codes: chart.Code | str) -> str:
    return ", ".join(f"'{one if isinstance(one, str) else one.name}'" for one in codes)


def _either(codes: str) -> str:
    return f"(a.code IN ({codes}) OR c.code IN ({codes}))"


_MATCH_CODES: Final = _codes(chart.MATCH_UNVESTED, chart.MATCH_VESTED)

FLOW: Final = f"""
    CASE
        WHEN a.code IN ({_codes(*MEMBERS)}) AND c.code IN ({_codes(*MEMBERS)}) THEN
            CASE WHEN a.code IN ({_MATCH_CODES}) AND c.code IN ({_MATCH_CODES}) THEN 'vesting' ELSE 'between_members' END
        WHEN t.kind LIKE 'match_forfeit%%' OR c.code = '{chart.FORFEITED_MATCH.name}'
             OR a.code IN ({_MATCH_CODES}) AND c.code = '{chart.RETURN_FOR_ALLOCATION.name}' THEN 'forfeiture'
        WHEN a.code IN ({_codes(*SPONSORS)}) AND c.code IN ({_codes(*SPONSORS)}) THEN 'committed'
        WHEN a.code IN ({_codes(*SPONSORS)}) AND c.code IN ({_codes(chart.BANK, chart.UNIDENTIFIED_RECEIPTS)}) THEN 'paid_in'
        WHEN {_either(_codes(*SPONSORS))} AND {_either(_MATCH_CODES)} THEN 'match'
        WHEN c.code IN ({_codes(chart.PARTNER_RECEIVABLE, chart.PARTNER_PREFUND, chart.GUARANTOR_RECEIVABLE, chart.UNALLOCATED)})
            THEN 'contributions'
        WHEN c.code = '{chart.PAYOUT_CLEARING.name}' THEN 'payouts'
        WHEN c.code IN ({_codes(chart.PAYOUT_CHARGES, chart.FEES_PAYABLE)}) THEN 'fees'
        WHEN c.code IN ({_codes(chart.BANK, chart.BANK_CLEARING, chart.RAIL_FLOAT, chart.UNIDENTIFIED_RECEIPTS)}) THEN 'bank'
        WHEN c.code IN ({_codes(chart.DUE_TO_FUNDS, chart.DUE_FROM_FUNDS)}) THEN 'other_funds'
        ELSE 'other'
    END"""
"""What a side of a posting is about, by its account ``a``, the one across ``c`` and the transaction ``t``.

What is listed for packs that were made long ago goes by it too: change it by adding flows for accounts that are new.
"""

ENROLMENT: Final = f"""
    LEFT JOIN products.enrolment e ON e.id = CASE WHEN a.code IN ({_codes(*GROUPED)}) THEN CAST(a.owner AS uuid) END"""
"""The enrolment that an account ``a`` belongs to, for `GROUP`."""

GROUP: Final = f"""
    CASE WHEN a.code IN ({_codes(*GROUPED)}) THEN coalesce(e.product, '')
         WHEN a.code IN ({_codes(chart.MEMBER_UNAPPLIED, chart.MEMBER_RECEIVABLE)}) THEN ''
         ELSE a.owner END"""
"""What accounts of one code are told apart by: a member's by product, all others by their owner."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Which transactions a number is the sum of. ``measure`` says how; None leaves a thing open.

    ``side``: only accounts whose balance at `through` lies on that side. ``belongs``: only what belongs to that month and was
    booked later, as its period was closed; ``kind``: of one kind.
    """

    fund: UUID
    currency: str
    measure: Measure
    through: date
    since: date | None = None
    codes: tuple[str, ...] | None = None
    group: str | None = None
    flows: tuple[Flow, ...] | None = None
    side: Literal["debit", "credit"] | None = None
    kind: str | None = None
    belongs: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For a pack; what is open is left out."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else str(value)
            for name, value in shown.items()
            if value is not None
        }

    @classmethod
    def from_json(cls, shown: dict[str, Any]) -> "Figure":
        """Reads what `to_json` wrote."""
        dates: dict[str, Any] = {
            name: date.fromisoformat(shown[name]) for name in ("through", "since") if name in shown
        }
        tuples: dict[str, Any] = {name: tuple(shown[name]) for name in ("codes", "flows") if name in shown}
        return cls(**{**shown, **dates, **tuples, "fund": UUID(shown["fund"])})


@dataclass(frozen=True, slots=True)
class Part:
    """A transaction, and what of it is in the figure, signed as the figure is."""

    transaction_id: UUID
    kind: str
    reference: str
    effective_on: date
    amount: int


def transactions(
    tx: Tx,
    figure: Figure,
    *,
    seen: tuple[int, str] | None = None,
    after: UUID | None = None,
    limit: int = PAGE_MAX,
) -> list[Part]:
    """The transactions that a figure is the sum of, in the order of their ids, from ``after`` on.

    ``seen``: the era and the snapshot of a close: only what was in the books then. What adds up to nothing is left out.
    """
    if not 1 <= limit <= PAGE_MAX + 1:
        raise InvalidInput(f"a page has 1 to {PAGE_MAX} transactions")
    parameters: dict[str, Any] = {
        "fund": figure.fund,
        "currency": figure.currency,
        "codes": list(figure.codes) if figure.codes is not None else None,
        "group": figure.group,
        "since": figure.since,
        "through": figure.through,
        "flows": list(figure.flows) if figure.flows is not None else None,
        "side": figure.side,
        "kind": figure.kind,
        "belongs": figure.belongs,
        "era": seen[0] if seen else None,
        "snapshot": seen[1] if seen else None,
        "after": after,
        "limit": limit,
    }
    with cursor(tx) as sql:
        rows: Sequence[tuple[Any, ...]] = sql.execute(
            _listed(figure.measure, figure.side is not None), parameters, prepare=False
        ).fetchall()
    return [Part(*row) for row in rows]


_AMOUNT: Final[dict[Measure, str]] = {
    "debit": "a.debit - a.credit",
    "credit": "a.credit - a.debit",
    "debits": "a.debit",
    "credits": "a.credit",
    # a posting has two sides in its fund
    "gross": "a.debit",
}


def _listed(measure: Measure, by_side: bool) -> str:
    seen = """
        (CAST(%(snapshot)s AS text) IS NULL OR t.era < %(era)s
         OR pg_visible_in_snapshot(t.xid, CAST(%(snapshot)s AS pg_snapshot)))"""
    span = """
        p.effective_on <= %(through)s AND (CAST(%(since)s AS date) IS NULL OR p.effective_on >= %(since)s)
        AND p.currency = %(currency)s"""
    sided = f"""
        , sided AS (
            SELECT a.account_id FROM side a JOIN ledger.transaction t ON t.id = a.transaction_id WHERE {seen}
            GROUP BY a.account_id
            HAVING CASE %(side)s WHEN 'debit' THEN sum(a.debit) > sum(a.credit) ELSE sum(a.credit) > sum(a.debit) END
        )"""
    return f"""
        WITH chosen AS MATERIALIZED (
            SELECT a.id, a.code FROM ledger.account a {ENROLMENT}
            WHERE a.fund_id = %(fund)s AND a.currency = %(currency)s
              AND (CAST(%(codes)s AS text[]) IS NULL OR a.code = ANY (%(codes)s))
              AND (CAST(%(group)s AS text) IS NULL OR %(group)s = {GROUP})
        ), side AS (
            SELECT p.transaction_id, o.id AS account_id, o.code, p.credit_account AS other, p.amount AS debit, 0 AS credit
            FROM ledger.posting p JOIN chosen o ON o.id = p.debit_account WHERE {span}
            UNION ALL
            SELECT p.transaction_id, o.id, o.code, p.debit_account, 0, p.amount
            FROM ledger.posting p JOIN chosen o ON o.id = p.credit_account WHERE {span}
        ){sided if by_side else ""}
        SELECT t.id, t.kind, t.reference, t.effective_on, CAST(sum({_AMOUNT[measure]}) AS bigint) AS amount
        FROM side a JOIN ledger.transaction t ON t.id = a.transaction_id JOIN ledger.account c ON c.id = a.other
        WHERE {seen}
          AND (CAST(%(after)s AS uuid) IS NULL OR t.id > %(after)s)
          AND (CAST(%(kind)s AS text) IS NULL OR t.kind = %(kind)s)
          AND (CAST(%(belongs)s AS text) IS NULL OR starts_with(t.details->>'{BELONGS_ON}', %(belongs)s))
          AND (CAST(%(flows)s AS text[]) IS NULL OR {FLOW} = ANY (%(flows)s))
          {"AND a.account_id IN (SELECT account_id FROM sided)" if by_side else ""}
        GROUP BY t.id, t.kind, t.reference, t.effective_on
        HAVING sum({_AMOUNT[measure]}) <> 0
        ORDER BY t.id LIMIT %(limit)s
    """
