"""What the adapter of a rail is built with, besides its own options and secrets."""

from dataclasses import dataclass, field

from ledger.clock import Clock
from ledger.database import Database
from products.keyring import Keyring


@dataclass(frozen=True, slots=True)
class Setting:
    """The deployment around one rail. ``environment`` is ``sandbox`` or ``production``; ``database`` is the worker's."""

    clock: Clock
    environment: str
    public_url: str
    database: Database = field(repr=False)
    keyring: Keyring = field(repr=False)
    slug: str
    currency: str


class InvalidRailOptions(Exception):
    """Options or secrets that a kind of rail does not take. Names the fields, never a secret's value."""
