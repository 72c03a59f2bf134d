"""Quotes: what a remittance would mean, shown before the migrant pays, bound to partner, member and amount."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.money import Money
from products.members.models import MemberRecord
from products.remittances.events import RemittanceCompleted

VALID_FOR = timedelta(minutes=30)
"""How long after it was given a migrant may pay by a quote; judged by when they paid, not by when we hear of it."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote on record. ``collect`` is what the partner is to take, in the programme's currency."""

    id: UUID
    partner_id: UUID
    link_id: UUID
    sent: Money
    received: Money
    collect: Money
    created_at: datetime
    expires_at: datetime
    used_by: UUID | None


def load(tx: Tx, ids: Sequence[UUID]) -> dict[UUID, Quote]:
    """The quotes of these ids, locked: each is used once."""
    if not ids:
        return {}
    cur = cursor(tx)
    cur.execute(
        """SELECT id, partner_id, link_id, sent_amount, sent_currency, received_amount, received_currency, collect,
                  collect_currency, created_at, expires_at, used_by
           FROM products.quote WHERE id = ANY (%s) ORDER BY id FOR NO KEY UPDATE""",
        (list(ids),),
    )
    return {
        row[0]: Quote(
            row[0],
            row[1],
            row[2],
            Money(row[3], row[4]),
            Money(row[5], row[6]),
            Money(row[7], row[8]),
            *row[9:],
        )
        for row in cur.fetchall()
    }


def collect(
    quote: Quote | None,
    event: RemittanceCompleted,
    partner_id: UUID,
    members: Sequence[MemberRecord],
    remittance: UUID,
) -> int | None:
    """What a quote lets the partner collect for a remittance; None where the quote is not for it.

    It has to be of the same partner, member and amount received, given before the migrant paid and not expired then,
    and not used by another remittance.
    """
    if (
        quote is None
        or quote.partner_id != partner_id
        or quote.received != event.received
        or not any(member.link_id == quote.link_id for member in members)
        # Partners write whole seconds: who pays in the second of the quote pays by it.
        or not quote.created_at.replace(microsecond=0) <= event.completed_at <= quote.expires_at
        or quote.used_by not in (None, remittance)
    ):
        return None
    return quote.collect.amount


def use(tx: Tx, used: Mapping[UUID, UUID]) -> None:
    """Mark quotes used, each by its remittance."""
    if used:
        cursor(tx).execute(
            """UPDATE products.quote q SET used_by = t.r FROM unnest(%s::uuid[], %s::uuid[]) AS t (q, r)
               WHERE q.id = t.q AND q.used_by IS NULL""",
            (list(used), list(used.values())),
        )


def write(
    tx: Tx, quote: Quote, *, programme_id: UUID, rule_version: int, member_id: UUID, answer: dict[str, Any]
) -> None:
    """Keep a quote with the answer that was shown."""
    cursor(tx).execute(
        """INSERT INTO products.quote (id, partner_id, programme_id, rule_version, link_id, member_id, sent_amount,
               sent_currency, received_amount, received_currency, collect, collect_currency, answer, created_at, expires_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            quote.id, quote.partner_id, programme_id, rule_version, quote.link_id, member_id, quote.sent.amount,
            quote.sent.currency, quote.received.amount, quote.received.currency, quote.collect.amount,
            quote.collect.currency, json.dumps(answer), quote.created_at, quote.expires_at,
        ),
    )  # fmt: skip
