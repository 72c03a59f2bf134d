"""Token exchange (RFC 8693): a partner that proved itself gets a member's token for a member who is logged in with it.

The partner vouches with a subject token that it signs with its registered key. Whom it names is looked up in one
statement, so that a member that is unknown, another partner's, ended, or without consent is the same refusal at the same price.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from api.auth import assertions, standing, tokens
from api.auth.clients import Client
from api.auth.tokens import InvalidToken
from ledger.database import Tx
from ledger.errors import InvalidId
from ledger.ids import parse_public_id

GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
SUBJECT_TOKEN: Final = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105  a type's name
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a type's name
TYPE: Final = "mizan-member+jwt"
LIFETIME_SECONDS_MAX: Final = 120
METHODS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """The member that a partner vouched for, as the ``mem_`` id that this partner sees."""

    member: str


def subject_of(
    tx: Tx, client: Client, token: str, audiences: Collection[str], now: datetime
) -> Subject | None:
    """The member that a subject token of `client` names, which is thereby used; None for any reason why not.

    Commit `tx` whatever the answer: what was used is used.
    """
    proved = assertions.prove_once(tx, token, (TYPE,), client.client_id, audiences, LIFETIME_SECONDS_MAX, now)
    if proved is None:
        return None
    try:
        member = tokens.text_of(proved.claims, "sub")
        _require_authentication(proved.claims, now)
    except InvalidToken:
        return None
    return Subject(member) if standing.shows(tx, client, _link(member), now) else None


def _require_authentication(claims: dict[str, Any], now: datetime) -> None:
    """When and how the member logged in with the partner: ``auth_time``, and ``amr`` (RFC 8176)."""
    if not 0 < tokens.integer_of(claims, "auth_time") <= int(now.timestamp()) + tokens.SKEW_SECONDS_MAX:
        raise InvalidToken("The member did not log in yet.")
    methods = claims.get("amr")
    if not isinstance(methods, list) or not 0 < len(methods) <= METHODS_MAX:
        raise InvalidToken("The token has no amr.")
    if not all(isinstance(method, str) and method for method in methods):
        raise InvalidToken("The token has no amr.")


def _link(member: str) -> UUID | None:
    try:
        return parse_public_id("mem", member)
    except InvalidId:
        return None
