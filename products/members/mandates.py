"""Consent, given as a mandate: per partner and purpose, with the text that the member agreed to, since and until when.

Without one for `contributions` in force nothing is deducted; enrolling never implies one. Seeing more than what came
through the partner (`whole_view`, an organisation's `casework`) takes one of its own, with the member's proof.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Row, text

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id
from ledger.money import Money
from products.keyring import FieldCipher, Keyring, field_place
from products.members.models import Mandate, Member, NewMandate, Purpose

TABLE: Final = "products.consent"
COLUMNS: Final = (
    "id, text_version, language, given_at, limit_per_month, limit_currency, paused_at, withdrawn_at, purpose,"
    " cooling_off_until"
)
AHEAD_MAX: Final = timedelta(minutes=5)
"""How far after our clock a partner's may say that a consent was given."""


def consented(tx: Tx, member_id: UUID, partner_id: UUID, purpose: Purpose, at: datetime) -> bool:
    """Whether the member's consent to this partner for this purpose is in force at `at`: given, awake, not withdrawn."""
    found: bool = tx.execute(
        text(
            "SELECT EXISTS (SELECT 1 FROM products.consent WHERE member_id = :member AND partner_id = :partner"
            " AND purpose = :purpose AND given_at <= :at AND (paused_at IS NULL OR paused_at > :at)"
            " AND (withdrawn_at IS NULL OR withdrawn_at > :at))"
        ),
        {"member": member_id, "partner": partner_id, "purpose": purpose, "at": at},
    ).scalar_one()
    return found


def insert_mandates(
    tx: Tx, partner_id: UUID, mandates: Sequence[tuple[UUID, FieldCipher, NewMandate]], at: datetime
) -> list[UUID]:
    """Record mandates given as (member id, the member's cipher, mandate), through a partner; returns their ids.

    Raises InvalidInput for one that is said to be given in the future.
    """
    if not mandates:
        return []
    if any(one.given_at is not None and one.given_at > at + AHEAD_MAX for _, _, one in mandates):
        raise InvalidInput("A consent can't have been given in the future.", pointer="/given_at")
    ids = [new_id() for _ in mandates]
    limits = [mandate.limit_per_month for _, _, mandate in mandates]
    cursor(tx).execute(
        "INSERT INTO products.consent (id, member_id, partner_id, text_version, language, evidence, limit_per_month,"
        " limit_currency, given_at, purpose, proof, cooling_off_until)"
        " SELECT id, member_id, %s, text_version, language, evidence, amount, currency, given_at, purpose, proof, cooling"
        " FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::bytea[], %s::bigint[], %s::text[],"
        " %s::timestamptz[], %s::text[], %s::uuid[], %s::timestamptz[])"
        " AS t (id, member_id, text_version, language, evidence, amount, currency, given_at, purpose, proof, cooling)",
        (
            partner_id,
            ids,
            [member_id for member_id, _, _ in mandates],
            [mandate.text_version for _, _, mandate in mandates],
            [mandate.language for _, _, mandate in mandates],
            [
                cipher.encrypt(mandate.evidence, field_place(TABLE, "evidence", row))
                if mandate.evidence is not None
                else None
                for row, (_, cipher, mandate) in zip(ids, mandates, strict=True)
            ],
            [limit.amount if limit else None for limit in limits],
            [limit.currency if limit else None for limit in limits],
            [mandate.given_at or at for _, _, mandate in mandates],
            [mandate.purpose for _, _, mandate in mandates],
            [mandate.proof for _, _, mandate in mandates],
            [mandate.cooling_off_until for _, _, mandate in mandates],
        ),
    )
    return ids


def mandates_of(tx: Tx, member_id: UUID) -> tuple[Mandate, ...]:
    """A member's mandates for every purpose as row-level security lets `tx` see them, oldest first."""
    rows = tx.execute(
        text(f"SELECT {COLUMNS} FROM products.consent WHERE member_id = :member ORDER BY id"),
        {"member": member_id},
    )
    return tuple(_mandate(row) for row in rows)


def give(tx: Tx, keyring: Keyring, member: Member, mandate: NewMandate, at: datetime) -> Mandate:
    """Record a new mandate; the one in force for the same purpose, if any, ends now.

    Raises NotFound for an erased member, and InvalidInput where a purpose that shows more comes without proof.
    """
    if mandate.purpose != "contributions" and mandate.proof is None:
        raise InvalidInput("This consent takes the member's proof.", pointer="/proof")
    wrapped = tx.execute(
        text("SELECT wrapped_key FROM products.member WHERE id = :id"), {"id": member.member_id}
    ).scalar_one_or_none()
    if wrapped is None:
        raise NotFound("There is no such member.")
    _end(tx, member, mandate.purpose, at)
    cipher = keyring.cipher(wrapped, member.member_id)
    (mandate_id,) = insert_mandates(tx, member.partner_id, [(member.member_id, cipher, mandate)], at)
    return _read(tx, mandate_id)


def pause(tx: Tx, member: Member, at: datetime, purpose: Purpose = "contributions") -> Mandate:
    """Let the mandate sleep: nothing is deducted for what is paid from now on. Raises NotFound when none is in force."""
    return _read(tx, _touch(tx, member, purpose, "paused_at = coalesce(paused_at, :at)", at))


def withdraw(tx: Tx, member: Member, at: datetime, purpose: Purpose = "contributions") -> Mandate:
    """End the mandate for good. Raises NotFound when none is in force."""
    return _read(tx, _touch(tx, member, purpose, "withdrawn_at = :at", at))


def resume(tx: Tx, member: Member, at: datetime, purpose: Purpose = "contributions") -> Mandate:
    """Wake a sleeping mandate: the sleeping row ends where it was paused and a new one begins now.

    Both rows stay, so that a late event paid during the pause is still refused. One that doesn't sleep stays as it is.
    Raises NotFound when there is none.
    """
    row = tx.execute(
        text(
            "SELECT * FROM products.consent WHERE member_id = :member AND partner_id = :partner"
            " AND purpose = :purpose AND withdrawn_at IS NULL FOR UPDATE"
        ),
        {"member": member.member_id, "partner": member.partner_id, "purpose": purpose},
    ).one_or_none()
    if row is None:
        raise NotFound("No mandate of the member is in force.")
    if row.paused_at is None:
        return _mandate(row)
    tx.execute(text("UPDATE products.consent SET withdrawn_at = paused_at WHERE id = :id"), {"id": row.id})
    renewed = new_id()
    # evidence is bound to its row and stays on the first one
    tx.execute(
        text(
            "INSERT INTO products.consent (id, member_id, partner_id, text_version, language, limit_per_month,"
            " limit_currency, given_at, purpose, proof, cooling_off_until) VALUES (:id, :member, :partner, :version,"
            " :language, :amount, :currency, :at, :purpose, :proof, :cooling)"
        ),
        {
            "id": renewed,
            "member": row.member_id,
            "partner": row.partner_id,
            "version": row.text_version,
            "language": row.language,
            "amount": row.limit_per_month,
            "currency": row.limit_currency,
            "at": at,
            "purpose": purpose,
            "proof": row.proof,
            "cooling": row.cooling_off_until,
        },
    )
    return _read(tx, renewed)


def _end(tx: Tx, member: Member, purpose: Purpose, at: datetime) -> None:
    tx.execute(
        text(
            "UPDATE products.consent SET withdrawn_at = coalesce(paused_at, :at)"
            " WHERE member_id = :member AND partner_id = :partner AND purpose = :purpose AND withdrawn_at IS NULL"
        ),
        {"at": at, "member": member.member_id, "partner": member.partner_id, "purpose": purpose},
    )


def _touch(tx: Tx, member: Member, purpose: Purpose, change: str, at: datetime) -> UUID:
    found: UUID | None = tx.execute(
        text(
            f"UPDATE products.consent SET {change} WHERE member_id = :member AND partner_id = :partner"
            " AND purpose = :purpose AND withdrawn_at IS NULL RETURNING id"
        ),
        {"at": at, "member": member.member_id, "partner": member.partner_id, "purpose": purpose},
    ).scalar_one_or_none()
    if found is None:
        raise NotFound("No mandate of the member is in force.")
    return found


def _read(tx: Tx, mandate_id: UUID) -> Mandate:
    return _mandate(
        tx.execute(text(f"SELECT {COLUMNS} FROM products.consent WHERE id = :id"), {"id": mandate_id}).one()
    )


def _mandate(row: Row[tuple[object, ...]]) -> Mandate:
    limit = Money(row.limit_per_month, row.limit_currency) if row.limit_per_month is not None else None
    return Mandate(
        id=row.id,
        text_version=row.text_version,
        language=row.language,
        given_at=row.given_at,
        limit_per_month=limit,
        paused_at=row.paused_at,
        withdrawn_at=row.withdrawn_at,
        purpose=row.purpose,
        cooling_off_until=row.cooling_off_until,
    )
