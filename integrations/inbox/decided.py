"""Parked reversals that a person decides: which wait, what they ask for, and how they end."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from integrations.inbox.keys import BodyUnreadable
from integrations.inbox.queries import content
from integrations.partners.formats import FORMATS
from integrations.partners.port import EventInvalid
from integrations.strict_json import NotStrictJson
from ledger.clock import Clock
from ledger.database import Tx, cursor
from products.keyring import Keyring
from products.remittances.events import RemittanceReversed

_PARKED: Final = """
    FROM integrations.delivery d
    JOIN LATERAL (SELECT * FROM integrations.delivery_outcome WHERE delivery_id = d.id ORDER BY attempt DESC LIMIT 1) o
        ON o.state = 'parked' AND o.reason = 'reversal_needs_approval'
"""


@dataclass(frozen=True, slots=True)
class ParkedReversal:
    """A delivery that asks to take back what is settled."""

    delivery_id: UUID
    partner_id: UUID
    remittance_id: UUID
    parked_at: datetime
    format: str


def parked_reversals(tx: Tx, *, limit: int) -> list[ParkedReversal]:
    """The oldest deliveries that wait for approval, each remittance's first."""
    with cursor(tx) as sql:
        sql.execute(
            f"""SELECT DISTINCT ON (o.remittance_id) d.id, d.partner_id, o.remittance_id, o.processed_at, p.format
                {_PARKED} JOIN products.partner p ON p.id = d.partner_id
                ORDER BY o.remittance_id, d.id LIMIT %s""",
            (limit,),
        )
        return [ParkedReversal(*row) for row in sql]


def reversal_of(tx: Tx, keyring: Keyring, parked: ParkedReversal) -> RemittanceReversed | None:
    """What the delivery says; None when it can't be read any more."""
    try:
        _, body = content(tx, keyring, parked.delivery_id)
        event = FORMATS[parked.format].read(body).event
    except (BodyUnreadable, NotStrictJson, EventInvalid, KeyError):
        return None
    return event if isinstance(event, RemittanceReversed) else None


def finish(
    tx: Tx,
    remittance_id: UUID,
    *,
    approved: bool,
    detail: Mapping[str, Any],
    clock: Clock,
) -> int:
    """End every parked reversal of a remittance with what was decided; how many. Those queued again end by themselves."""
    state = "reversed" if approved else "quarantined"
    reason = None if approved else "reversal_refused"
    with cursor(tx) as sql:
        sql.execute(
            f"""INSERT INTO integrations.delivery_outcome
                    (delivery_id, attempt, partner_id, state, reason, detail, remittance_id, processed_at)
                SELECT d.id, o.attempt + 1, d.partner_id, %s, %s, %s, o.remittance_id, %s {_PARKED}
                WHERE o.remittance_id = %s
                ORDER BY d.id ON CONFLICT DO NOTHING""",
            (state, reason, Jsonb(dict(detail)), clock.now(), remittance_id),
        )
        return sql.rowcount
