"""What a partner is told, in tests: endpoints, messages in the outbox, and delivering them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from integrations.outbound import endpoints
from integrations.outbound.catalogue import EventType
from integrations.outbound.delivery import Deliverer, Delivering
from integrations.outbound.endpoints import Endpoint, Wanted
from integrations.outbound.events import Expanded, expand
from ledger.clock import Clock, FixedClock, SystemClock
from ledger.database import Database
from ledger.ids import new_id, public_id
from ledger.outbox import Message, publish
from products.keyring import Keyring
from products.remittances.partners import create_partner

KEYRING = Keyring({"test": bytes(range(32))}, "test")
RETENTION = timedelta(days=90)


@dataclass
class Told:
    """One database of which partners are told; `clock` is the machine's unless a test needs to move it."""

    worker: Database
    clock: Clock = field(default_factory=SystemClock)
    seconds: float = 60.0

    def partner(self, slug: str = "acme") -> UUID:
        """A partner."""
        with self.worker.begin() as tx:
            return create_partner(tx, slug=slug, name=slug, format_="standard", clock=self.clock).id

    def endpoint(self, partner_id: UUID, url: str, *types: EventType) -> tuple[Endpoint, str]:
        """An endpoint and its secret."""
        with self.worker.begin() as tx:
            return endpoints.create(tx, KEYRING, self.clock, partner_id, Wanted(url, types), loopback=True)

    def advance(self, by: timedelta) -> None:
        """Let time pass, where it is ours to move."""
        assert isinstance(self.clock, FixedClock)
        self.clock.advance(by)

    def publish(self, partner_id: UUID, members: Iterable[UUID]) -> list[str]:
        """One payout's change of state for each of these members, in order; the payouts' ids."""
        messages = [_paid(partner_id, member) for member in members]
        with self.worker.begin() as tx:
            publish(tx, messages)
        return [one.payload["payout"] for one in messages]

    def expand(self) -> list[Expanded]:
        """Turn everything in the outbox into events."""
        done: list[Expanded] = []
        while not done or done[-1].more:
            done.append(self.worker.run(lambda tx: expand(tx, self.clock, retention=RETENTION)))
        return done

    def deliverer(self) -> Deliverer:
        """A deliverer that may reach this machine."""
        return Deliverer(
            Delivering(self.worker, KEYRING, self.clock, loopback=True, timeout_seconds=self.seconds)
        )

    def deliver(self, seconds: float = 100) -> None:
        """Expand and send until nothing is due."""
        self.expand()
        deliverer = self.deliverer()
        deliverer.wake()
        assert deliverer.wait(seconds), "still delivering"
        deliverer.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query of the worker finds."""
        with self.worker.begin() as tx:
            return [tuple(row) for row in tx.exec_driver_sql(query)]


def _paid(partner_id: UUID, member: UUID) -> Message:
    payout = public_id("pay", new_id())
    return Message(
        "payout.changed",
        str(member),
        {
            "partner": public_id("ptn", partner_id),
            "member": public_id("mem", member),
            "payout": payout,
            "state": "paid",
            "reason": None,
            "product": "savings",
            "amount": {"amount": 5_000, "currency": "RWF"},
            "at": datetime.now(UTC).isoformat(),
        },
    )
