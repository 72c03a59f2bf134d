"""A remittance taken back: its contributions are reversed, and the match they earned is derived anew.

What the partner has already settled is its settlement's money, so taking that back waits for a manager's approval.
What a member has already spent is owed by the member.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.posting import Posting
from products import chart
from products.remittances.context import Books, Joined
from products.remittances.models import Contributed, Existing
from products.savings.holdings import Holding, load_holdings
from products.savings.match import MatchBook, StateKey
from products.settlements import credit
from products.settlements.undo import NOTHING, Undone


@dataclass(frozen=True, slots=True)
class Reversible:
    """A recorded remittance with what of it still stands."""

    existing: Existing
    contributions: tuple[Contributed, ...]
    holdings: Mapping[StateKey, Holding]
    member_receivable: UUID | None
    undone: Undone = NOTHING

    @property
    def remitted(self) -> bool:
        """Whether some of it stands in a remittal to an agency: it is the agency's, until the agency returns it."""
        return any(
            one.destination == "agency" and one.remittal_line is not None for one in self.contributions
        )

    @property
    def needs_approval(self) -> bool:
        """Whether some of it was paid in by the partner already."""
        return any(one.settled_by is not None for one in self.contributions)

    @property
    def lock_values(self) -> dict[StateKey, tuple[date, int, int]]:
        """The match states that change, and what `MatchBook.lock` wants to know of them."""
        return {key: holding.lock_values for key, holding in self.holdings.items()}


def judge(known: Existing | None) -> tuple[Literal["duplicate"], None] | None:
    """Whether a reversal still has to be decided (None), or the verdict that the record already is."""
    if known is None:
        return None
    if known.status in ("reversed", "awaiting_original"):
        return "duplicate", None
    return None


def load(tx: Tx, books: Books, reversed_: Sequence[Existing]) -> dict[UUID, Reversible]:
    """What stands of recorded remittances, by id; locked, so that no settlement pays for it meanwhile."""
    if not reversed_:
        return {}
    cur = cursor(tx)
    cur.execute(
        """SELECT c.remittance, c.position, c.destination, c.enrolment_id, c.fund_id, c.debited_account,
                  c.credited_account, c.amount, c.currency, c.contributed_at, c.window_start, c.tier, c.state, c.owed,
                  c.settlement_id, c.contributed_on, c.fee, c.guaranteed, c.settlement_part,
                  c.remittal_line,
                  (SELECT s.kind FROM products.settlement s WHERE s.id = c.settlement_id)
           FROM products.contribution c WHERE c.remittance = ANY (%b) AND c.state <> 'reversed'
           ORDER BY c.remittance, c.position FOR NO KEY UPDATE OF c""",
        ([one.id for one in reversed_],),
    )
    contributions: dict[UUID, list[Contributed]] = {}
    for row in cur.fetchall():
        contributions.setdefault(row[0], []).append(Contributed(*row))
    keys = {one.key for parts in contributions.values() for one in parts if one.key is not None}
    holdings = load_holdings(tx, books.programmes, sorted(keys)) if keys else {}
    cur.execute(
        "SELECT id, receivable_account FROM products.member WHERE id = ANY (%b)",
        ([one.member_id for one in reversed_ if one.member_id is not None],),
    )
    receivable: dict[UUID, UUID] = dict(cur.fetchall())
    return {
        one.id: Reversible(
            one,
            tuple(contributions.get(one.id, ())),
            {part.key: holdings[part.key] for part in contributions.get(one.id, ()) if part.key in holdings},
            receivable.get(one.member_id) if one.member_id else None,
        )
        for one in reversed_
    }


def postings(
    reversible: Reversible, joined: Joined, match_books: Mapping[UUID, MatchBook]
) -> tuple[Posting, ...]:
    """The postings that take a remittance back, last part first, with what its match comes to after it."""
    result: list[Posting] = []
    for one in reversed(reversible.contributions):
        result += _money_out(joined, one, reversible.member_receivable)
        if one.key is not None and one.tier is not None:
            holding = reversible.holdings[one.key]
            moved, _ = match_books[holding.programme_id].change(
                one.key,
                holding.match,
                holding.accounts,
                holding.currency,
                tier=one.tier,
                contributed=-one.amount,
                settled=-one.amount if one.state == "settled" else 0,
                at=one.contributed_at,
            )
            result += moved
    currency = joined.currency
    result += [Posting(debit, credit, amount, currency) for debit, credit, amount in reversible.undone.moves]
    return tuple(result)


def _money_out(joined: Joined, one: Contributed, member_receivable: UUID | None) -> list[Posting]:
    owed_by_member = member_receivable if one.destination in ("savers", "unapplied") else None
    back = [Posting(one.credited, one.debited, one.amount, one.currency, owed_by_member)]
    if one.fund_id != joined.savers and one.debited == joined.account(one.fund_id, chart.DUE_FROM_FUNDS, ""):
        due_to = joined.account(joined.savers, chart.DUE_TO_FUNDS, "")
        prefund = joined.account(joined.savers, chart.PARTNER_PREFUND)
        back.append(Posting(due_to, prefund, one.amount, one.currency))
    return back


def write(tx: Tx, rows: Sequence[tuple[UUID, UUID | None, datetime, str]]) -> None:
    """Mark remittances and their contributions reversed: (id, reversing transaction, reversed at, reason)."""
    if not rows:
        return
    cur = cursor(tx)
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
    cur.execute(
        """UPDATE products.remittance r
           SET status = 'reversed', reason = NULL, reversal_transaction_id = t.x, reversed_at = t.at, reversal_reason = t.why
           FROM unnest(%b::uuid[], %b::uuid[], %b::timestamptz[], %b::text[]) AS t (id, x, at, why) WHERE r.id = t.id""",
        columns,
    )
    cur.execute(
        "UPDATE products.contribution SET state = 'reversed', owed = false WHERE remittance = ANY (%b)",
        (columns[0],),
    )


def write_credits(tx: Tx, reversed_: Sequence[tuple[Reversible, Joined]], now: datetime) -> None:
    """Note what the funds owe partners for what they had paid in and is reversed."""
    for reversible, joined in reversed_:
        entries = reversible.undone.credits
        credit.write(tx, joined.partner_id, joined.programme_id, joined.currency, entries, now)


def write_ahead(
    tx: Tx, rows: Sequence[tuple[UUID, UUID, str, datetime, str, UUID | None]], now: datetime
) -> None:
    """Record reversals that came before their originals: (id, partner, its id, reversed at, reason, delivery)."""
    if not rows:
        return
    cursor(tx).execute(
        """INSERT INTO products.remittance (id, partner_id, remittance_id, status, reversed_at, reversal_reason, delivery_id,
                                            recorded_at)
           SELECT id, p, r, 'awaiting_original', at, why, d, %s
           FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::timestamptz[], %b::text[], %b::uuid[])
                AS t (id, p, r, at, why, d)""",
        (now, *([list(column) for column in zip(*rows, strict=True)])),
    )
