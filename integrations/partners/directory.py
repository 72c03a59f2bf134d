"""Who may send webhooks, kept in the process: the hook asks the database for nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from uuid import UUID

from integrations.partners.formats import FORMATS
from integrations.partners.port import PartnerFormat
from integrations.partners.secrets import PURPOSE
from integrations.partners.standard_webhooks import Secret, parse_secret
from ledger.clock import Clock
from ledger.database import Database, cursor
from products.keyring import Keyring

_PARTNERS = """
SELECT p.slug, p.id, p.format, s.id, s.sealed, s.expires_at
FROM products.partner p JOIN integrations.webhook_secret s ON s.partner_id = p.id
WHERE p.state = 'active' AND (s.expires_at IS NULL OR s.expires_at > %s)
ORDER BY s.id DESC
"""


@dataclass(frozen=True, slots=True)
class Sender:
    """A partner that may send: its format, and its secrets with their ends, newest first."""

    partner_id: UUID
    format: PartnerFormat
    secrets: tuple[tuple[Secret, datetime | None], ...]

    def valid_secrets(self, now: datetime) -> list[Secret]:
        """The secrets that have not expired."""
        return [secret for secret, expires_at in self.secrets if expires_at is None or expires_at > now]


class Directory:
    """All active partners and their secrets as of the last `refresh`, by slug."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._refreshing = Lock()
        self._opened: dict[bytes, Secret] = {}
        self._senders: Mapping[str, Sender] = {}

    def find(self, slug: str) -> Sender | None:
        """The partner behind `slug`; None when there is none, or it is disabled."""
        return self._senders.get(slug)

    def refresh(self) -> None:
        """Read everybody anew: one query, and only secrets not seen before are opened. Blocks; one thread at a time."""
        with self._refreshing:
            with self._database.begin() as tx, cursor(tx) as sql:
                sql.execute("SELECT set_config('mizan.access', 'hook', true)")
                rows = sql.execute(_PARTNERS, (self._clock.now(),)).fetchall()
            opened = {
                sealed: self._opened.get(sealed) or self._open(secret_id, sealed)
                for *_, secret_id, sealed, _ in rows
            }
            secrets: dict[str, list[tuple[Secret, datetime | None]]] = {}
            for slug, _, _, _, sealed, expires_at in rows:
                secrets.setdefault(slug, []).append((opened[sealed], expires_at))
            self._opened = opened
            self._senders = {
                slug: Sender(partner_id, FORMATS[name], tuple(secrets[slug]))
                for slug, partner_id, name, *_ in rows
                if name in FORMATS
            }

    def _open(self, secret_id: UUID, sealed: bytes) -> Secret:
        return parse_secret(self._keyring.open(PURPOSE, sealed, secret_id.bytes).decode())
