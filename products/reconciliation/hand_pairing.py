"""Lines and items that a person pairs: the same as a rule does, with what it means for the books."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.reconciliation import pairings
from ledger.reconciliation.pairings import BY_HAND, MEMBERS_MAX, DoesNotAddUp, Pairing, Proposal
from products.reconciliation import effects, postings
from products.reconciliation.breaks import limits
from products.remittances.context import Books

ITEM_PREFIX: Final = "itm"
"""Prefix of the public ids of items."""
PAIRING_PREFIX: Final = "par"
"""Prefix of the public ids of pairings."""


def pair(
    tx: Tx,
    books: Books,
    lines: Sequence[UUID],
    items: Sequence[UUID],
    *,
    remark: str,
    actor: str,
    funds: Collection[UUID] | None = None,
) -> Pairing:
    """Pair lines with items of their bank account, if it is of one of the `funds` (None: of any).

    Payments that were sent are confirmed by it, and what a partner owes is settled: up to the programme's limit, above which
    the break's resolution takes two (`TakesTwoPersons`). Raises NotFound; `DoesNotAddUp` where the sums differ; `AlreadyPaired`
    where somebody, or a run, was first.
    """
    if not lines or not items:
        raise InvalidInput("A pairing takes lines and items.")
    if len(lines) + len(items) > MEMBERS_MAX:
        raise InvalidInput(f"A pairing has at most {MEMBERS_MAX} lines and items.")
    pairings.require_remark(remark)
    account, line_sum, item_sum = _sums(tx, lines, items, funds)
    if line_sum != item_sum:
        raise DoesNotAddUp(f"The lines come to {line_sum}, the items to {item_sum} (minor units).")
    postings.lines(tx, lines)  # a line that takes part in nothing is refused as such, before anybody is asked
    _require_one_person(tx, account, items)
    made = effects.confirm(
        tx,
        books,
        Proposal(account, tuple(lines), tuple(items), BY_HAND, {"remark": remark.strip()}, 0),
        made_by=actor,
    )
    return pairings.get(tx, made)


def undo(
    tx: Tx,
    books: Books,
    pairing_id: UUID,
    *,
    remark: str,
    actor: str,
    funds: Collection[UUID] | None = None,
) -> Pairing:
    """Take a pairing back, with what it did to the books, if it is of one of the `funds`. Raises NotFound, and Conflict."""
    pairings.require_remark(remark)
    row = (
        cursor(tx)
        .execute(
            "SELECT b.fund_id FROM ledger.pairing p JOIN ledger.bank_account b ON b.id = p.bank_account_id WHERE p.id = %s",
            [pairing_id],
        )
        .fetchone()
    )
    if row is None or (funds is not None and row[0] not in funds):
        raise NotFound("There is no such pairing.")
    effects.undo(tx, books, pairing_id, remark=remark, actor=actor)
    return pairings.get(tx, pairing_id)


def _require_one_person(tx: Tx, bank_account_id: UUID, items: Sequence[UUID]) -> None:
    """What is booked already is only told where it shows at the bank; what is expected is posted by it, and that has its limit."""
    row = (
        cursor(tx)
        .execute(
            "SELECT sum(abs(amount))::bigint, min(currency) FROM ledger.item WHERE id = ANY (%s) AND source <> 'booked'",
            [list(items)],
        )
        .fetchone()
    )
    posted, currency = row if row is not None else (None, None)
    if posted is None:
        return
    above = limits.second_person_above(tx, postings.mirrored(tx, bank_account_id).programme_id, currency)
    if posted > above:
        raise limits.TakesTwoPersons(
            f"This posts {posted} {currency}, and one person decides up to {above} (minor units): pair them by resolving the"
            " line's break, which a second person approves."
        )


def _sums(
    tx: Tx, lines: Sequence[UUID], items: Sequence[UUID], funds: Collection[UUID] | None
) -> tuple[UUID, int, int]:
    """The one bank account that all are of, and what lines and items come to."""
    rows = (
        cursor(tx)
        .execute(
            """
            SELECT b.id, b.fund_id, sum(o.line)::bigint, sum(o.item)::bigint, count(*) FROM (
                SELECT bank_account_id, amount AS line, 0 AS item FROM ledger.statement_line WHERE id = ANY (%(lines)s)
                UNION ALL SELECT bank_account_id, 0, amount FROM ledger.item WHERE id = ANY (%(items)s)
            ) AS o JOIN ledger.bank_account b ON b.id = o.bank_account_id GROUP BY b.id, b.fund_id
            """,
            {"lines": list(lines), "items": list(items)},
        )
        .fetchall()
    )
    if len(rows) != 1 or rows[0][4] != len(set(lines)) + len(set(items)):
        raise NotFound("There are no such lines and items of one bank account.")
    account, fund, line_sum, item_sum, _ = rows[0]
    if funds is not None and fund not in funds:
        raise NotFound("There are no such lines and items of one bank account.")
    return account, line_sum, item_sum
