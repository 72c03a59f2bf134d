"""Whether what a token says still holds: asked at each request, so that what was ended ends now and not with the token."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from api.auth import clients
from api.auth.clients import Client
from api.auth.tokens import Claims
from ledger.database import Tx
from ledger.errors import InvalidId
from ledger.ids import parse_public_id

_STANDING: Final = text("SELECT * FROM api.standing(:client, :token, :generation, :member, :now)")


@dataclass(frozen=True, slots=True)
class Standing:
    """The active client that a token came through, and, for a member's token, the link that it sees."""

    client: Client
    member_link: UUID | None


def of(tx: Tx, claims: Claims, now: datetime) -> Standing | None:
    """Where the token stands at `now`; None for one that holds no longer.

    It holds while its client and the partner are active and it is not revoked, alone or with all of its client's; a
    member's also while the link lasts and the member's consent is in force.
    """
    try:
        client_id = parse_public_id(clients.PREFIX, claims.client_id)
        token_id = parse_public_id("tok", claims.token_id)
        member = parse_public_id("mem", claims.subject) if claims.actor is not None else None
    except InvalidId:
        return None
    client = _client(tx, client_id, token_id, claims.generation, member, now)
    return None if client is None else Standing(client, member)


def shows(tx: Tx, client: Client, member_link: UUID | None, now: datetime) -> bool:
    """Whether the client's partner may show this member its own: the link lasts and the consent is in force.

    One statement, whatever the answer: who asks can't tell by the time why not. None is nobody's link.
    """
    asked = member_link or UUID(int=0)
    return _client(tx, client.id, None, client.generation, asked, now) is not None


def _client(
    tx: Tx, client_id: UUID, token_id: UUID | None, generation: int, member_link: UUID | None, now: datetime
) -> Client | None:
    row = tx.execute(
        _STANDING,
        {
            "client": client_id,
            "token": token_id,
            "generation": generation,
            "member": member_link,
            "now": now,
        },
    ).one_or_none()
    if row is None:
        return None
    return Client(row.id, row.name, row.partner_id, tuple(row.roles), frozenset(row.scopes), row.generation)
