"""Who calls: a partner's client, a member through its partner, a member of staff's client, or an operator."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast
from uuid import UUID

from api.auth import scopes as table
from api.auth.clients import Client
from api.auth.scopes import SCOPES, Role
from ledger.ids import public_id

OPERATOR_PREFIX: Final = "opr"

_NONE: Final = UUID(int=0)
"""No partner's and no programme's id: who should see something of nothing sees nothing, rather than everything."""

_MACHINES: Final = frozenset({"manager", "administrator", "auditor"})
"""The roles that a client may have. Caseworkers are people of an organisation."""

Kind = Literal["partner", "member", "staff", "operator"]


@dataclass(frozen=True, slots=True)
class Held:
    """A role, for one programme or for all (None)."""

    role: Role
    programme_id: UUID | None


@dataclass(frozen=True, slots=True)
class Sight:
    """Whose rows a request may see: every partner's (`everyones`), one partner's, one member's link at one partner.

    `programmes` narrows it to those; None is all of them.
    """

    everyones: bool
    partner_id: UUID | None
    member_link: UUID | None = None
    programmes: frozenset[UUID] | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What row-level security is told, as ``mizan.…`` settings of the transaction; an empty one is not set."""
        programmes = "" if self.programmes is None else ",".join(map(str, sorted(self.programmes or {_NONE})))
        return {
            "access": "staff" if self.everyones else "",
            "partner": "" if self.everyones else str(self.partner_id or _NONE),
            "member": str(self.member_link or ""),
            "programmes": programmes,
        }


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls, and what they may do.

    `id` is what the audit log names: ``cli_…`` (partner, staff), ``mem_…``, ``opr_…``; `key` is the client's or the
    operator's UUID. `partner_id` is the partner or the organisation spoken for, `member_link` the one ``mem_`` that a
    member's token may see, `confirmed_at` when an operator last gave a TOTP in this session.
    """

    kind: Kind
    id: str
    key: UUID
    client: Client | None
    partner_id: UUID | None
    member_link: UUID | None
    held: frozenset[Held]
    scopes: frozenset[str]
    confirmed_at: datetime | None

    def sight(self, required: Collection[str]) -> Sight:
        """What this caller sees on a route that takes the scopes `required`, all of which it holds.

        A role that opens the route decides: for all programmes if one is held for all; a caseworker alone sees what its
        organisation sees. Without roles, or on a route that takes no scope, a caller sees what its partner sees, and a
        member what is its own.
        """
        if not self.held or not required:
            return Sight(False, self.partner_id, self.member_link)
        opening = frozenset[Role].intersection(*(SCOPES[name].roles for name in required))
        chosen = [held for held in self.held if held.role in opening]
        staff = [held for held in chosen if held.role != "caseworker"]
        limits = [held.programme_id for held in staff or chosen]
        limited = frozenset(limit for limit in limits if limit is not None)
        return Sight(bool(staff), self.partner_id, None, None if None in limits else limited)


def of_client(client: Client, granted: frozenset[str]) -> Actor:
    """A partner's client, or a staff client, with a token of the scopes `granted`."""
    return Actor(
        kind="staff" if client.partner_id is None else "partner",
        id=client.client_id,
        key=client.id,
        client=client,
        partner_id=client.partner_id,
        member_link=None,
        held=frozenset(Held(cast("Role", role), None) for role in client.roles if role in _MACHINES),
        scopes=granted & client.scopes,
        confirmed_at=None,
    )


def of_member(client: Client, member: str, link: UUID, granted: frozenset[str]) -> Actor:
    """A member, through the client of its partner."""
    return Actor(
        kind="member",
        id=member,
        key=client.id,
        client=client,
        partner_id=client.partner_id,
        member_link=link,
        held=frozenset(),
        scopes=granted & client.scopes & table.for_members(),
        confirmed_at=None,
    )


def of_operator(
    operator_id: UUID, held: frozenset[Held], organisation_id: UUID | None, confirmed_at: datetime | None
) -> Actor:
    """A person with an open session; caseworkers speak for their organisation, and without one for nobody."""
    if organisation_id is None:
        held = frozenset(one for one in held if one.role != "caseworker")
    return Actor(
        kind="operator",
        id=public_id(OPERATOR_PREFIX, operator_id),
        key=operator_id,
        client=None,
        partner_id=organisation_id,
        member_link=None,
        held=held,
        scopes=table.for_operators(one.role for one in held),
        confirmed_at=confirmed_at,
    )
