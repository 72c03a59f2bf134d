"""Operators: the persons of the back office, their roles, and the sessions that they work in.

What proves who they are lies in `api.auth.passwords`, `api.auth.totp`, `api.auth.setup` and `api.auth.oidc`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import text

from api.auth.scopes import Role
from ledger.database import Tx
from ledger.errors import InvalidInput, MizanError, NotFound
from ledger.ids import new_id, public_id

PREFIX: Final = "opr"
TOKEN_PREFIX: Final = "mzn_ops_"  # noqa: S105  what tokens begin with, not one
SEEN_EVERY: Final = timedelta(minutes=1)
"""How exactly it is known when a session was used last: writing it at each request would make requests wait in line."""

_LOCK_ID: Final = 0x6D7A6E5F6F7072  # "mzn_opr"

LogIn = Literal["password", "openid"]
State = Literal["active", "disabled"]

_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}\.[^@\s\x00-\x1f.]{1,63}")


class OperatorConflict(MizanError):
    """The operator can't be changed so."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, for one programme or for all (None)."""

    role: Role
    programme_id: UUID | None


@dataclass(frozen=True, slots=True)
class Operator:
    """A person of the back office. A caseworker works for an organisation, a partner's id."""

    id: UUID
    email: str
    name: str
    log_in: LogIn
    organisation_id: UUID | None
    state: State
    grants: tuple[Grant, ...]
    set_up: bool
    created_at: datetime

    @property
    def public_id(self) -> str:
        """``opr_…``."""
        return public_id(PREFIX, self.id)


@dataclass(frozen=True, slots=True)
class OperatorSession:
    """An open session of an active operator; `confirmed_at` is when a TOTP was last given in it."""

    session_id: UUID
    operator_id: UUID
    name: str
    organisation_id: UUID | None
    held: frozenset[tuple[Role, UUID | None]]
    confirmed_at: datetime | None
    created_at: datetime
    expires_at: datetime

    @property
    def public_id(self) -> str:
        """The operator's ``opr_…``: what the audit log names."""
        return public_id(PREFIX, self.operator_id)


def digest(token: str) -> bytes:
    """What is stored of a token of 256 random bits; it can't be guessed, so a fast digest is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def session_of(tx: Tx, token: str, now: datetime) -> OperatorSession | None:
    """The session that a token (``mzn_ops_…``) opens now; None when it is unknown, ended, idle or the operator disabled.

    One statement, as role mizan_api or mizan_worker. It also notes that the session is in use, unless another request
    is just doing that.
    """
    if not token.startswith(TOKEN_PREFIX):
        return None
    row = tx.execute(
        text(
            "SELECT id, operator_id, seen_at, confirmed_at, created_at, expires_at, name, organisation_id, held"
            " FROM api.opened_session(:digest, :now)"
        ),
        {"digest": digest(token), "now": now},
    ).one_or_none()
    if row is None:
        return None
    if now - row.seen_at >= SEEN_EVERY:
        tx.execute(text("SELECT api.note_session(:digest, :now)"), {"digest": digest(token), "now": now})
    return OperatorSession(
        session_id=row.id,
        operator_id=row.operator_id,
        name=row.name,
        organisation_id=row.organisation_id,
        held=frozenset(_held(one) for one in row.held),
        confirmed_at=row.confirmed_at,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def fold_email(email: str) -> str:
    """An e-mail address as it is compared and stored: NFKC, casefolded. Raises InvalidInput for what is none."""
    folded = unicodedata.normalize("NFKC", email.strip()).casefold()
    if len(folded) > 254 or not _EMAIL.fullmatch(folded):
        raise InvalidInput("This is not an e-mail address.", pointer="/email")
    return folded


def check_grants(grants: Collection[Grant], organisation_id: UUID | None) -> None:
    """Raises InvalidInput unless there is a role, and an organisation exactly for a caseworker.

    A caseworker has no other role: what it sees is its organisation's, and another role would see past that.
    """
    roles = {grant.role for grant in grants}
    if not roles:
        raise InvalidInput("An operator holds at least one role.", pointer="/roles")
    if "caseworker" in roles and len(roles) > 1:
        raise InvalidInput("A caseworker holds no other role.", pointer="/roles")
    if ("caseworker" in roles) != (organisation_id is not None):
        raise InvalidInput(
            "A caseworker works for an organisation, and nobody else does.", pointer="/organisation"
        )


def create(
    tx: Tx,
    *,
    email: str,
    name: str,
    grants: Collection[Grant],
    organisation_id: UUID | None,
    log_in: LogIn,
    at: datetime,
    founder: int | None = None,
) -> UUID:
    """Create an operator, who can do nothing before the set-up by a link. Raises InvalidInput, OperatorConflict."""
    check_grants(grants, organisation_id)
    operator = new_id()
    made = tx.execute(
        text(
            "INSERT INTO api.operator (id, email, name, log_in, organisation_id, founder, created_at)"
            " VALUES (:id, :email, :name, :log_in, :organisation, :founder, :at) ON CONFLICT (email) DO NOTHING RETURNING id"
        ),
        {
            "id": operator,
            "email": fold_email(email),
            "name": name,
            "log_in": log_in,
            "organisation": organisation_id,
            "founder": founder,
            "at": at,
        },
    ).first()
    if made is None:
        raise OperatorConflict("There is an operator with this e-mail address.")
    _grant(tx, operator, grants)
    return operator


def change_roles(tx: Tx, operator: UUID, grants: Collection[Grant], organisation_id: UUID | None) -> None:
    """Put other roles in the place of an operator's. Raises InvalidInput, NotFound, and OperatorConflict for the last administrator."""
    check_grants(grants, organisation_id)
    alone(tx)
    before = find(tx, operator)
    if not any(grant == Grant("administrator", None) for grant in grants):
        _refuse_without_administrator(tx, before)
    tx.execute(
        text("UPDATE api.operator SET organisation_id = :organisation WHERE id = :id"),
        {"organisation": organisation_id, "id": operator},
    )
    tx.execute(text("DELETE FROM api.operator_role WHERE operator_id = :id"), {"id": operator})
    _grant(tx, operator, grants)


def disable(tx: Tx, operator: UUID, at: datetime) -> None:
    """Let an operator in no more: sessions and links end at once. Raises NotFound, and OperatorConflict for the last administrator."""
    alone(tx)
    before = find(tx, operator)
    _refuse_without_administrator(tx, before)
    tx.execute(text("UPDATE api.operator SET state = 'disabled' WHERE id = :id"), {"id": operator})
    end_sessions(tx, operator, at)
    end_links(tx, operator, at)


def enable(tx: Tx, operator: UUID) -> None:
    """Let a disabled operator in again, with the proofs it had. Raises NotFound."""
    alone(tx)
    find(tx, operator)
    tx.execute(text("UPDATE api.operator SET state = 'active' WHERE id = :id"), {"id": operator})


def end_sessions(tx: Tx, operator: UUID, at: datetime, *, but: UUID | None = None) -> int:
    """End every session of an operator, except `but`; how many ended."""
    return tx.execute(
        text(
            "UPDATE api.operator_session SET ended_at = :at WHERE operator_id = :id AND ended_at IS NULL"
            " AND id IS DISTINCT FROM CAST(:but AS uuid)"
        ),
        {"at": at, "id": operator, "but": but},
    ).rowcount


def end_links(tx: Tx, operator: UUID, at: datetime) -> None:
    """End every one-time link of an operator that was not used."""
    tx.execute(
        text(
            "UPDATE api.operator_link SET expires_at = :at WHERE operator_id = :id AND used_at IS NULL AND expires_at > :at"
        ),
        {"at": at, "id": operator},
    )


def find(tx: Tx, operator: UUID) -> Operator:
    """An operator. Raises NotFound."""
    found = _read(tx, "o.id = :id", {"id": operator})
    if not found:
        raise NotFound("There is no such operator.")
    return found[0]


def every(tx: Tx) -> list[Operator]:
    """Every operator, in the order in which they were created."""
    return _read(tx, "true", {})


def by_email(tx: Tx, email: str) -> Operator | None:
    """The operator of an e-mail address, however it is spelled."""
    found = _read(tx, "o.email = :email", {"email": fold_email(email)})
    return found[0] if found else None


def _read(tx: Tx, where: str, values: dict[str, object]) -> list[Operator]:
    rows = tx.execute(
        text(
            "SELECT o.id, o.email, o.name, o.log_in, o.organisation_id, o.state, o.created_at,"
            " EXISTS (SELECT 1 FROM api.operator_credential c WHERE c.operator_id = o.id) AS set_up,"
            " coalesce((SELECT array_agg(r.role || ':' || coalesce(r.programme_id::text, '') ORDER BY r.role, r.programme_id)"
            "  FROM api.operator_role r WHERE r.operator_id = o.id), '{}') AS held"
            f" FROM api.operator o WHERE {where} ORDER BY o.id"
        ),
        values,
    ).all()
    return [
        Operator(
            row.id,
            row.email,
            row.name,
            row.log_in,
            row.organisation_id,
            row.state,
            tuple(Grant(*_held(one)) for one in row.held),
            row.set_up,
            row.created_at,
        )
        for row in rows
    ]


def _grant(tx: Tx, operator: UUID, grants: Collection[Grant]) -> None:
    rows: Sequence[dict[str, object]] = [
        {"id": operator, "role": grant.role, "programme": grant.programme_id} for grant in set(grants)
    ]
    tx.execute(
        text(
            "INSERT INTO api.operator_role (operator_id, role, programme_id) VALUES (:id, :role, :programme)"
        ),
        rows,
    )


def _refuse_without_administrator(tx: Tx, leaving: Operator) -> None:
    """Raises OperatorConflict when nobody but `leaving` administers: what is left could not be mended by anyone."""
    if Grant("administrator", None) not in leaving.grants or leaving.state != "active":
        return
    others = tx.execute(
        text(
            "SELECT o.id FROM api.operator o WHERE o.state = 'active' AND EXISTS (SELECT 1 FROM api.operator_role r"
            " WHERE r.operator_id = o.id AND r.role = 'administrator' AND r.programme_id IS NULL)"
            " AND EXISTS (SELECT 1 FROM api.operator_credential c WHERE c.operator_id = o.id)"
        )
    ).scalars()
    if set(others) <= {leaving.id}:
        raise OperatorConflict("This is the last administrator for all programmes: make another one first.")


def alone(tx: Tx) -> None:
    """Change who may do what one after the other, until the transaction ends: two administrators can't disable each other."""
    tx.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})


def _held(spelled: str) -> tuple[Role, UUID | None]:
    role, _, programme = spelled.partition(":")
    return _role(role), UUID(programme) if programme else None


def _role(name: str) -> Role:
    roles: dict[str, Role] = {
        "manager": "manager",
        "administrator": "administrator",
        "caseworker": "caseworker",
        "auditor": "auditor",
    }
    return roles[name]
