"""The configured rails with their adapters, as a process needs them: built when first used, and anew when they change."""

import json
import time
from collections.abc import Mapping
from threading import Lock
from typing import Final
from uuid import UUID

from integrations.rails import directory
from integrations.rails.setting import Setting
from ledger.clock import Clock
from ledger.database import Database, Tx, cursor
from products.keyring import Keyring
from products.payouts.rails import Rail
from products.payouts.registry import ConfiguredRail

PURPOSE: Final = "rail secrets"
SERVES_ON_SECONDS: Final = 600.0
"""How long an adapter that was replaced stays open for those who have it: much longer than any call of a rail takes."""


def keep_secrets(tx: Tx, keyring: Keyring, clock: Clock, rail_id: UUID, secrets: Mapping[str, str]) -> None:
    """Store a rail's secrets, sealed; new ones replace the old."""
    sealed = keyring.seal(PURPOSE, json.dumps(dict(secrets)).encode(), rail_id.bytes)
    cursor(tx).execute(
        "INSERT INTO integrations.rail_secret (rail_id, sealed, created_at) VALUES (%s, %s, %s)"
        " ON CONFLICT (rail_id) DO UPDATE SET sealed = excluded.sealed",
        [rail_id, sealed, clock.now()],
    )


class Rails:
    """The adapters of one process. Secrets are read as the worker; nothing is called before an adapter is used."""

    def __init__(
        self, database: Database, keyring: Keyring, clock: Clock, *, environment: str, public_url: str
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._environment = environment
        self._public_url = public_url
        self._built: dict[UUID, tuple[object, Rail]] = {}
        self._replaced: list[tuple[float, Rail]] = []
        self._building = Lock()

    @property
    def in_sandbox(self) -> bool:
        """Whether this is a sandbox, where a simulated rail pays."""
        return self._environment == "sandbox"

    def adapter(self, rail: ConfiguredRail) -> Rail:
        """The adapter of a rail, built anew when its options or secrets changed. Raises what its kind refuses to run with."""
        with self._database.begin() as tx:
            row = (
                cursor(tx)
                .execute("SELECT sealed FROM integrations.rail_secret WHERE rail_id = %s", [rail.id])
                .fetchone()
            )
        sealed = bytes(row[0]) if row else b""
        configured = (sealed, json.dumps(dict(rail.options), sort_keys=True))
        with self._building:
            built = self._built.get(rail.id)
            if built is not None and built[0] == configured:
                return built[1]
            adapter = self._build(rail, sealed)
            if built is not None:
                self._replaced.append((time.monotonic(), built[1]))
            self._built[rail.id] = (configured, adapter)
            self._close_replaced(time.monotonic() - SERVES_ON_SECONDS)
        return adapter

    def _build(self, rail: ConfiguredRail, sealed: bytes) -> Rail:
        secrets = json.loads(self._keyring.open(PURPOSE, sealed, rail.id.bytes)) if sealed else {}
        return directory.build(
            rail.kind,
            rail.options,
            secrets,
            Setting(
                clock=self._clock,
                environment=self._environment,
                public_url=self._public_url,
                database=self._database,
                keyring=self._keyring,
                slug=rail.slug,
                currency=rail.currency,
            ),
        )

    def _close_replaced(self, before: float) -> None:
        """Close what was replaced so long ago that nobody uses it any more."""
        while self._replaced and self._replaced[0][0] <= before:
            self._replaced.pop(0)[1].close()

    def close(self) -> None:
        """Give back the adapters' connections."""
        self._close_replaced(time.monotonic())
        for _, adapter in self._built.values():
            adapter.close()
        self._built.clear()
