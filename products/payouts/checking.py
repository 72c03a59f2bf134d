"""What a rail can say of a payee before anything is paid: asked outside any transaction, then shown to the member.

A payee that the rail can't reach ends the payout. A name that the rail knows otherwise is shown, and the member's approval
must then say that it is right: spellings differ more often than people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from products.payouts import payees
from products.payouts.cancel import cancel_many
from products.payouts.changes import SYSTEM, Change, change_many
from products.payouts.rails import Checked, RailPayee
from products.payouts.registry import ConfiguredRail
from products.remittances.context import Books

LEASE: Final = timedelta(seconds=60)
"""How long one worker may take to check what it took."""
GIVES_UP_AFTER: Final = timedelta(minutes=10)
"""A rail that doesn't answer so long has no say: the payout goes on, its name not checked."""


@dataclass(frozen=True, slots=True)
class ToCheck:
    """A payout whose payee a rail is asked about; ``payee`` None: it can no longer be read."""

    payout_id: UUID
    payee: RailPayee | None


def take(tx: Tx, books: Books, rail: ConfiguredRail, *, limit: int) -> list[ToCheck]:
    """Payouts to be checked, kept from other workers for `LEASE`."""
    now = books.clock.now()
    rows = (
        cursor(tx)
        .execute(
            "UPDATE products.payout SET check_after = %s WHERE id IN (SELECT id FROM products.payout WHERE rail_id = %s"
            " AND state = 'requested' AND check_after <= %s ORDER BY check_after LIMIT %s FOR NO KEY UPDATE SKIP LOCKED)"
            " RETURNING id, payee_id",
            [now + LEASE, rail.id, now, limit],
        )
        .fetchall()
    )
    addressed = payees.addressed(tx, books.keyring, [payee_id for _, payee_id in rows])
    return [ToCheck(id_, addressed.get(payee_id)) for id_, payee_id in rows]


def give_back(tx: Tx, books: Books, payout_ids: Sequence[UUID]) -> None:
    """Leave payouts that were taken and not come to for whoever is next."""
    if payout_ids:
        cursor(tx).execute(
            "UPDATE products.payout SET check_after = %s WHERE id = ANY (%s) AND state = 'requested'",
            [books.clock.now(), list(payout_ids)],
        )


def record(
    tx: Tx, books: Books, checked: Mapping[UUID, Checked | None], *, unreadable: Sequence[UUID] = ()
) -> None:
    """Write what a rail said; None is a rail that could not be asked, and is asked again until `GIVES_UP_AFTER`."""
    now = books.clock.now()
    cur = cursor(tx)
    rows = cur.execute(
        "SELECT id, requested_at FROM products.payout WHERE id = ANY (%s) AND state = 'requested'"
        " ORDER BY id FOR NO KEY UPDATE",
        [[*checked, *unreadable]],
    ).fetchall()
    given_up, on = [], []
    names: dict[UUID, str] = {}
    for payout_id, requested_at in rows:
        if payout_id in unreadable:
            given_up.append((payout_id, "member_erased", SYSTEM))
            continue
        said = checked[payout_id]
        if said is None and now - requested_at < GIVES_UP_AFTER:
            continue
        if said is not None and not said.reachable:
            given_up.append((payout_id, "payee_unreachable", SYSTEM))
            continue
        names[payout_id] = "not_checked" if said is None else said.name
        on.append(Change(payout_id, "awaiting_member"))
    if names:
        cur.execute(
            "UPDATE products.payout AS p SET payee_name = n.name, check_after = NULL"
            " FROM unnest(%s::uuid[], %s::text[]) AS n (id, name) WHERE p.id = n.id",
            [list(names), list(names.values())],
        )
    change_many(tx, on, now)
    cancel_many(tx, books, given_up)
