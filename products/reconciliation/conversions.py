"""A conversion pairs two lines: money left a fund's bank account in one currency and came to its account in another.

Currencies cross through a conversion account, one in each, with the rate recorded: in each currency the books balance by
themselves, and what the two conversion accounts hold, valued, is what converting has cost.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Final
from uuid import UUID

from ledger.accounts import open_accounts
from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.money import exponent
from ledger.posting import Posting
from ledger.reconciliation.pairings import BY_HAND
from products import chart
from products.reconciliation import postings
from products.reconciliation.effects import Effect, pair
from products.remittances.context import Books

RATE_DIGITS: Final = 10
"""Decimals of the rate as it is recorded; the amounts are what is exact."""
DAYS_APART_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two open lines that may be one conversion; `evidence` is the reference that both carry."""

    from_line: UUID
    to_line: UUID
    booked_on: date
    evidence: str


def convert(
    tx: Tx,
    books: Books,
    from_line: UUID,
    to_line: UUID,
    *,
    remark: str,
    actor: str,
    funds: Collection[UUID] | None = None,
) -> tuple[UUID, UUID]:
    """Book a conversion, and pair both of its lines: the one that went out and the one that came in; the two pairings.

    ``funds``: those whose lines the caller may touch, None for all. Raises NotFound, InvalidInput for lines that can't be one conversion, Conflict `already_paired`.
    """
    [out], [came] = postings.lines(tx, [from_line]), postings.lines(tx, [to_line])
    here, there = postings.mirrored(tx, out.bank_account_id), postings.mirrored(tx, came.bank_account_id)
    if funds is not None and not {here.fund_id, there.fund_id} <= set(funds):
        raise NotFound("There is no such statement line.")
    if out.amount > 0 or came.amount < 0:
        raise InvalidInput("a conversion goes out of one account and comes to another", pointer="/from")
    if here.fund_id != there.fund_id or out.currency == came.currency:
        raise InvalidInput("a conversion is between two currencies of one fund", pointer="/to")
    specs = [chart.spec(chart.CONVERSION, here.fund_id, "", one) for one in (out.currency, came.currency)]
    sold, bought = open_accounts(tx, specs)
    told = {
        "from": {"amount": -out.amount, "currency": out.currency},
        "to": {"amount": came.amount, "currency": came.currency},
        "rate": rate(-out.amount, out.currency, came.amount, came.currency),
    }
    transaction = postings.book(
        tx,
        books,
        there,
        max(out, came, key=lambda line: line.booked_on),
        "currency_converted",
        [
            Posting(sold, here.account_id, -out.amount, out.currency),
            Posting(there.account_id, bought, came.amount, came.currency),
        ],
        funds=[here.fund_id],
        details=told,
    )
    effects = [Effect("conversion", None, transaction)]
    made = [
        pair(
            tx,
            books,
            at,
            [line],
            effects,
            rule=BY_HAND,
            evidence={"remark": remark, "conversion": told, "other": other.public_id},
            made_by=actor,
        )
        for at, line, other in ((here, out, came), (there, came, out))
    ]
    return made[0], made[1]


def rate(sold: int, from_currency: str, bought: int, to_currency: str) -> str:
    """How many units of one currency a unit of the other gave, as a decimal: for people, and never calculated with."""
    exact = Fraction(bought, 10 ** exponent(to_currency)) / Fraction(sold, 10 ** exponent(from_currency))
    digits = str(round(exact * 10**RATE_DIGITS)).rjust(RATE_DIGITS + 1, "0")
    return f"{digits[:-RATE_DIGITS]}.{digits[-RATE_DIGITS:]}".rstrip("0").rstrip(".")


def candidates(tx: Tx, *, limit: int = 200) -> list[Candidate]:
    """Open lines that may be two sides of a conversion: of one fund, in two currencies, under one reference, days apart."""
    rows = cursor(tx).execute(
        """
        SELECT o.id, c.id, greatest(o.booked_on, c.booked_on), k.name
        FROM ledger.statement_line o
        JOIN ledger.bank_account b ON b.id = o.bank_account_id
        JOIN ledger.bank_account d ON d.fund_id = b.fund_id AND d.currency <> b.currency
        JOIN ledger.statement_line c ON c.bank_account_id = d.id AND c.amount > 0 AND c.duplicate_of IS NULL
             AND c.booked_on BETWEEN o.booked_on - %(apart)s AND o.booked_on + %(apart)s
        CROSS JOIN LATERAL (
            SELECT name FROM unnest(ARRAY[o.end_to_end, o.reference]) AS name
            WHERE name IN (c.end_to_end, c.reference) LIMIT 1) AS k
        WHERE o.amount < 0 AND o.duplicate_of IS NULL
          AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id IN (o.id, c.id))
        ORDER BY o.id, c.id LIMIT %(limit)s
        """,
        {"apart": DAYS_APART_MAX, "limit": limit},
    )
    return [Candidate(*row) for row in rows]
