"""The simulated rail that every programme of a sandbox has, unless it has rails of its own."""

from typing import Final

from integrations.rails import directory
from ledger.clock import Clock
from ledger.database import Tx, cursor
from products.payouts import registry
from products.payouts.registry import NewRail
from products.payouts.terms import Arrival, Fee, Limits

NAME: Final = "simulated"
RELEASE_ABOVE: Final = 100_000_000
"""Above this, in minor units, two operators release: high enough not to be in the way, low enough to be tried."""


def ensure_rails(tx: Tx, clock: Clock) -> int:
    """Give each programme without a rail a simulated one, called `simulated-` and its own name; how many."""
    rows = (
        cursor(tx)
        .execute(
            "SELECT p.id, p.slug FROM products.programme p"
            " WHERE NOT EXISTS (SELECT FROM products.rail r WHERE r.programme_id = p.id) ORDER BY p.slug"
        )
        .fetchall()
    )
    options, _ = directory.validated("simulator", {}, {})
    for programme_id, slug in rows:
        registry.create(
            tx,
            programme_id,
            NewRail(
                slug=f"{NAME}-{slug}",
                kind="simulator",
                payee_kinds=("mobile_money", "bank", "card"),
                checks_payees=True,
                funded="bank",
                fee=Fee(0, 0, "fund"),
                arrival=Arrival("minutes", 0, 5, ()),
                limits=Limits(
                    amount_min=1,
                    amount_max=None,
                    per_member_day=None,
                    per_day=None,
                    release_above=RELEASE_ABOVE,
                    queue_max=registry.QUEUE_MAX,
                ),
                options=options,
            ),
            clock=clock,
        )
    return len(rows)
