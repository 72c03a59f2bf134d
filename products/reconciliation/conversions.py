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
NAME_CHARACTERS_MIN: Final = 5
"""A reference that is shorter names nothing: `1` is in many."""
CANDIDATES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two open lines that may be one conversion (minor units, both positive); `evidence` is the reference that both carry."""

    from_line: UUID
    to_line: UUID
    fund: str
    from_account: str
    to_account: str
    sold: int
    sold_currency: str
    bought: int
    bought_currency: str
    sold_on: date
    bought_on: date
    evidence: str

    @property
    def rate(self) -> str:
        """At which it would be booked."""
        return rate(self.sold, self.sold_currency, self.bought, self.bought_currency)


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


def candidates(
    tx: Tx, *, after: tuple[UUID, UUID] | None = None, limit: int = CANDIDATES_MAX
) -> list[Candidate]:
    """Open lines that may be two sides of a conversion: of one fund, in two currencies, under one reference, days apart.

    In the order of their lines, from after a pair on. A line may be in several: a person says which is which.
    """
    rows = cursor(tx).execute(
        f"""
        WITH line AS MATERIALIZED (
            SELECT l.id, b.id AS bank_account_id, b.slug, b.fund_id, l.amount, l.currency, l.booked_on,
                   {_NAMES} AS names
            FROM ledger.statement_line l JOIN ledger.bank_account b ON b.id = l.bank_account_id
            WHERE l.duplicate_of IS NULL AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id)
              AND EXISTS (SELECT FROM ledger.bank_account d WHERE d.fund_id = b.fund_id AND d.currency <> b.currency)
        ), named AS MATERIALIZED (SELECT line.*, unnest(names) AS name FROM line)
        SELECT DISTINCT ON (o.id, c.id) o.id, c.id, f.code, o.slug, c.slug, -o.amount, o.currency, c.amount, c.currency,
               o.booked_on, c.booked_on, o.name
        FROM named o JOIN named c ON c.name = o.name AND c.fund_id = o.fund_id AND c.currency <> o.currency AND c.amount > 0
             AND abs(c.booked_on - o.booked_on) <= %(apart)s
        JOIN ledger.fund f ON f.id = o.fund_id
        WHERE o.amount < 0 AND (o.id, c.id) > (%(from)s, %(to)s)
        ORDER BY o.id, c.id, o.name LIMIT %(limit)s
        """,
        {
            "apart": DAYS_APART_MAX,
            "from": after[0] if after else UUID(int=0),
            "to": after[1] if after else UUID(int=0),
            "limit": limit,
        },
    )
    return [Candidate(*row) for row in rows]


# as banks may have spelled them
_NAMES: Final = rf"""
    ARRAY(SELECT DISTINCT spelled FROM unnest(l.identifiers || l.end_to_end || l.reference) AS name
          CROSS JOIN LATERAL (SELECT upper(regexp_replace(name, '[^A-Za-z0-9]', '', 'g')) AS spelled) AS s
          WHERE length(spelled) >= {NAME_CHARACTERS_MIN})
"""
