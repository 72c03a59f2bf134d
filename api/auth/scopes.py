"""Every scope there is, in one table: what a token may do, and which clients may ask for it.

The token endpoint, the routes' guards, the OpenAPI security scheme and the documents all read this.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["manager", "auditor", "administrator"]


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope: its name, what it allows, whether partners may have it, and the staff roles that may."""

    name: str
    allows: str
    partner: bool
    roles: frozenset[Role]


_EVERY_ROLE: Final[frozenset[Role]] = frozenset({"manager", "auditor", "administrator"})
_BOOKS: Final[frozenset[Role]] = frozenset({"manager", "auditor"})
_MANAGER: Final[frozenset[Role]] = frozenset({"manager"})
_NOBODY: Final[frozenset[Role]] = frozenset()

SCOPES: Final[Mapping[str, Scope]] = {
    scope.name: scope
    for scope in (
        Scope("members:read", "read members, their facts, mandates and enrolments", True, _MANAGER),
        Scope("members:write", "register members, record facts and mandates, enrol", True, _NOBODY),
        Scope("balances:read", "read balances, statements, receipts and explanations", True, _BOOKS),
        Scope("quotes:write", "ask for quotes", True, _NOBODY),
        Scope("remittances:read", "read remittances and what became of them", True, _BOOKS),
        Scope("remittances:write", "send remittances and reverse them", True, _NOBODY),
        Scope("deliveries:read", "read received webhooks and their outcomes", True, _BOOKS),
        Scope("programmes:read", "read programmes and their sponsors", True, _EVERY_ROLE),
        Scope("ledger:read", "read the books: accounts, transactions, trial balance", False, _BOOKS),
    )
}


def for_partners() -> tuple[str, ...]:
    """What a partner's client may ask for."""
    return tuple(scope.name for scope in SCOPES.values() if scope.partner)


def for_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """What a staff client of these roles may ask for."""
    held = frozenset(roles)
    return tuple(scope.name for scope in SCOPES.values() if scope.roles & held)
