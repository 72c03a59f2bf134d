"""An inbox with deliveries in it, without HTTP."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from integrations.inbox.drain import Process, drain
from integrations.inbox.keys import InboxKeys
from integrations.inbox.received import Received, understood
from integrations.inbox.store import Receipt, store
from integrations.partners.standard import StandardFormat
from ledger.clock import FixedClock
from ledger.database import Database, Tx
from ledger.ids import new_id
from products.keyring import Keyring
from products.remittances.partners import create_partner
from products.remittances.process import Delivery, Verdict
from tests.conftest import Databases
from tests.http.hooked import completed


@dataclass(slots=True)
class Inbox:
    """One database's inbox, with a partner that fills it."""

    databases: Databases
    clock: FixedClock
    keyring: Keyring = field(default_factory=lambda: Keyring.of(os.urandom(32)))
    partner_id: UUID = field(default_factory=new_id)
    keys: InboxKeys = field(init=False)

    def __post_init__(self) -> None:
        self.keys = InboxKeys(self.databases.api, self.keyring, self.clock)
        with self.databases.worker.begin() as tx:
            partner = create_partner(tx, slug="acme", name="Acme", format_="standard", clock=self.clock)
        self.partner_id = partner.id

    def received(self, remittance_id: str, webhook_id: str | None = None, member: str = "A-1") -> Received:
        """A delivery as the hook makes it."""
        event = completed(remittance_id=remittance_id, member={"partner_reference": member})
        body = json.dumps(event).encode()
        return understood(
            self.partner_id, webhook_id or remittance_id, body, StandardFormat().read(body), self.clock.now()
        )

    def store(self, received: Sequence[Received]) -> list[Receipt]:
        """Store a group, as the API's role."""
        key = self.keys.current()
        return self.databases.api.run(lambda tx: store(tx, received, key))

    def fill(self, count: int, members: int = 50) -> list[UUID]:
        """`count` new deliveries `r-0` … of `members` members; their ids."""
        batch = [self.received(f"r-{number}", member=f"A-{number % members}") for number in range(count)]
        return [receipt.id for receipt in self.store(batch)]

    def drain(self, process: Process, **options: Any) -> int:
        """Drain as a worker; how many deliveries were processed."""
        database: Database = self.databases.worker
        return drain(database, process, self.clock, self.keyring, **options).deliveries

    def outcomes(self) -> dict[str, int]:
        """How many standing outcomes there are of each state and reason."""
        with self.databases.worker.begin() as tx:
            rows = tx.exec_driver_sql(
                "SELECT concat_ws(' ', state, reason), count(*) FROM (SELECT DISTINCT ON (delivery_id) *"
                " FROM integrations.delivery_outcome ORDER BY delivery_id, attempt DESC) o GROUP BY 1"
            )
            return {row[0]: row[1] for row in rows}

    def queued(self) -> int:
        """How many deliveries wait."""
        with self.databases.worker.begin() as tx:
            return int(tx.exec_driver_sql("SELECT count(*) FROM integrations.delivery_queue").scalar_one())


class Journal:
    """A `process` that writes one row per event into a table of its own: doing it twice, or half, would show."""

    def __init__(self, databases: Databases, poison: Sequence[str] = ()) -> None:
        self.poison = set(poison)
        self.batches: list[list[str]] = []
        self.databases = databases
        with databases.owner.begin() as tx:
            tx.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS done")
            tx.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS done.event (remittance_id text, member text, at serial)"
            )
            tx.exec_driver_sql("GRANT ALL ON SCHEMA done TO mizan_worker")
            tx.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA done TO mizan_worker")
            tx.exec_driver_sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA done TO mizan_worker")

    def __call__(self, tx: Tx, deliveries: Sequence[Delivery]) -> list[Verdict]:
        """Write them all down; raise on poison."""
        names = [delivery.event.remittance_id for delivery in deliveries]
        self.batches.append(names)
        for delivery in deliveries:
            if delivery.event.remittance_id in self.poison:
                raise ZeroDivisionError("poison")
            member = getattr(delivery.event, "member", None)
            tx.exec_driver_sql(
                "INSERT INTO done.event (remittance_id, member) VALUES (%s, %s)",
                (delivery.event.remittance_id, member and member.value),
            )
        return [Verdict("posted", None, new_id()) for _ in deliveries]

    def done(self) -> list[str]:
        """The events that were done, in order."""
        with self.databases.worker.begin() as tx:
            return list(tx.exec_driver_sql("SELECT remittance_id FROM done.event ORDER BY at").scalars())
