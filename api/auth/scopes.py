"""Every scope and every role, in one table: what a token or a session may do, and who may have it.

The token endpoint, the routes' guards, the OpenAPI security schemes, RFC 8414 metadata and `docs/reference/access.md`
all read this, and a test walks every route with every kind of caller and compares.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["manager", "administrator", "caseworker", "auditor"]

ROLES: Final[Mapping[Role, str]] = {
    "manager": "reconciles, pays out, closes the month, decides what is requested",
    "administrator": "describes the schemes, admits partners and operators",
    "caseworker": "registers members for an organisation, and sees those that consented to it",
    "auditor": "reads the books and the audit log, and changes nothing",
}
"""What operators and staff clients are for."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope: what it allows, whether partners and members may have it, and the roles that may.

    `person`: an operator alone has it by role; a machine with the same role does not.
    """

    name: str
    allows: str
    partner: bool
    member: bool
    roles: frozenset[Role]
    person: bool


def _scope(name: str, allows: str, *who: Role | Literal["partner", "member"], person: bool = False) -> Scope:
    roles = frozenset(role for role in get_args(Role) if role in who)
    return Scope(name, allows, "partner" in who, "member" in who, roles, person)


SCOPES: Final[Mapping[str, Scope]] = {
    scope.name: scope
    for scope in (
        _scope(
            "members:read",
            "read members, their facts, consents and enrolments",
            "partner",
            "member",
            "caseworker",
            "manager",
        ),
        _scope(
            "members:write", "register members, change them, record facts, enrol", "partner", "caseworker"
        ),
        _scope("consents:write", "record, pause and withdraw consents", "partner", "member", "caseworker"),
        _scope(
            "proofs:write",
            "start a member's proof: a code, a device key",
            "partner",
            "member",
            "caseworker",
        ),
        _scope(
            "payees:write", "name who may be paid; takes effect with the member's proof", "partner", "member"
        ),
        _scope("export:read", "export all that is held on a member", "member", "caseworker"),
        _scope("erasure:write", "erase a member, with the member's proof", "member", "caseworker"),
        _scope(
            "balances:read",
            "read balances, statements, receipts and explanations",
            "partner",
            "member",
            "caseworker",
            "manager",
            "auditor",
        ),
        _scope("quotes:write", "ask for quotes", "partner"),
        _scope(
            "remittances:read", "read remittances and what became of them", "partner", "manager", "auditor"
        ),
        _scope("remittances:write", "send remittances and reverse them", "partner"),
        _scope(
            "deliveries:read", "read received webhooks and their outcomes", "partner", "manager", "auditor"
        ),
        _scope("payouts:read", "read payouts", "partner", "member", "manager", "auditor"),
        _scope(
            "payouts:write",
            "ask for payouts, cancel them, and approve them with the member's proof",
            "partner",
            "member",
        ),
        _scope("rails:read", "read rails and how they do", "manager", "administrator", "auditor"),
        _scope("rails:write", "pause and resume rails, bring in what banks answer", "manager"),
        _scope(
            "settlements:read",
            "read settlements and what partners owe",
            "partner",
            "manager",
            "auditor",
        ),
        _scope("settlements:write", "record, return and compare settlements", "manager"),
        _scope("remittals:read", "read remittals to agencies", "manager", "auditor"),
        _scope("remittals:write", "make remittals, and bring in what agencies answer", "manager"),
        _scope(
            "reconciliation:read",
            "read bank statements, pairings, breaks and the first page",
            "manager",
            "auditor",
        ),
        _scope(
            "reconciliation:write",
            "bring in bank statements, pair and unpair, resolve breaks",
            "manager",
        ),
        _scope(
            "limits:write", "say from which value on two persons decide how a break is ended", "administrator"
        ),
        _scope("periods:read", "read periods, their check-lists and close packs", "manager", "auditor"),
        _scope("periods:write", "close periods, confirm totals", "manager"),
        _scope("endpoints:read", "read webhook endpoints and what was delivered to them", "partner"),
        _scope("endpoints:write", "register webhook endpoints, change them, replay", "partner"),
        _scope("events:read", "read the feed of events", "partner"),
        _scope("programmes:read", "read programmes", "partner", "member", *get_args(Role)),
        _scope("sponsors:read", "read sponsors and their money", "manager", "administrator", "auditor"),
        _scope("sponsors:write", "claim from sponsors in arrears", "manager"),
        _scope("ledger:read", "read the books: accounts, transactions, trial balance", "manager", "auditor"),
        _scope("duplicates:read", "read which members may be one person", "manager", "auditor"),
        _scope("partners:write", "admit partners and organisations, change their terms", "administrator"),
        _scope("clients:write", "make clients, register and remove their keys", "administrator"),
        _scope("operators:read", "read operators and their roles", "administrator", "auditor"),
        _scope(
            "operators:write", "invite operators, change roles, end sessions", "administrator", person=True
        ),
        _scope(
            "approvals:read",
            "read what was requested, and who decided",
            "manager",
            "administrator",
            "auditor",
        ),
        _scope(
            "approvals:write",
            "request, approve and refuse what needs two persons",
            "manager",
            "administrator",
            person=True,
        ),
        _scope("audit:read", "read the audit log", "auditor"),
    )
}


def for_partners() -> tuple[str, ...]:
    """What a partner's client may ask for."""
    return tuple(scope.name for scope in SCOPES.values() if scope.partner)


def for_members() -> frozenset[str]:
    """What a member's token may hold at most."""
    return frozenset(scope.name for scope in SCOPES.values() if scope.member)


def carried_for_members() -> frozenset[str]:
    """What a partner's client holds for its members' tokens alone, and can't ask for itself."""
    return frozenset(scope.name for scope in SCOPES.values() if scope.member and not scope.partner)


def for_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """What a staff client of these roles may ask for: a machine, so nothing that takes a person or an organisation."""
    held = frozenset(roles) - {"caseworker"}
    return tuple(scope.name for scope in SCOPES.values() if scope.roles & held and not scope.person)


def for_operators(roles: Iterable[Role]) -> frozenset[str]:
    """What a person who holds these roles may do."""
    held = frozenset(roles)
    return frozenset(scope.name for scope in SCOPES.values() if scope.roles & held)
