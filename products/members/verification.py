"""How well it is known who a member is, and what that unlocks.

| level | means | raised by |
|---|---|---|
| `none` | what a partner was told | registering |
| `phone` | the member holds the phone | a code that Mizan sent there, given back (`challenges`) |
| `document` | somebody saw a document | a partner or a caseworker who saw it, for as long as the document is valid |
| `institution` | an institution confirmed it | an organisation's caseworker, or staff |

Verifications are dated, name who verified and on which evidence, and are added and ended, never overwritten. The level
is that of the best one that holds. Limits by level are the programme's (`verification` in its file); what it doesn't
say is `DEFAULTS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id, public_id
from products.keyring import FieldCipher, Keyring, field_place
from products.members.models import Member
from products.members.registry import cipher_of
from products.programmes.model import LEVELS, Level, LevelLimits, Programme

TABLE: Final = "products.member_verification"

DEFAULTS: Final[Mapping[Level, LevelLimits]] = {
    # Nobody is paid whose phone has never answered: a payout needs somebody to tell.
    "none": LevelLimits(contributions_per_month=None, payouts_per_month=0),
    "phone": LevelLimits(contributions_per_month=None, payouts_per_month=None),
    "document": LevelLimits(contributions_per_month=None, payouts_per_month=None),
    "institution": LevelLimits(contributions_per_month=None, payouts_per_month=None),
}
"""The limits where a programme says nothing."""


@dataclass(frozen=True, slots=True)
class Verification:
    """One verification. `verified_by` is who did it, as the audit log names them; `evidence` where the proof is kept."""

    id: UUID
    level: Level
    verified_by: str
    evidence: str | None
    document_id: UUID | None
    verified_at: datetime
    valid_until: date | None
    recorded_at: datetime
    ended_at: datetime | None

    def holds(self, on: date) -> bool:
        """Whether it still raises the level on a day."""
        return self.ended_at is None and (self.valid_until is None or on <= self.valid_until)


def limits(programme: Programme, level: Level) -> LevelLimits:
    """What a member of this level may move in a calendar month of the programme's time zone.

    A limit that the programme states for the level, or for one below it, goes; what it leaves open is `DEFAULTS`.
    """
    declared, otherwise = programme.limits.get(level, LevelLimits(None, None)), DEFAULTS[level]
    return LevelLimits(
        otherwise.contributions_per_month
        if declared.contributions_per_month is None
        else declared.contributions_per_month,
        otherwise.payouts_per_month if declared.payouts_per_month is None else declared.payouts_per_month,
    )


def record(
    tx: Tx,
    cipher: FieldCipher,
    member: Member,
    level: Level,
    *,
    verified_by: str,
    evidence: str | None = None,
    document_id: UUID | None = None,
    valid_until: date | None = None,
    verified_at: datetime | None = None,
    at: datetime,
) -> UUID:
    """Record that a member was verified, through the partner of the link; returns the verification's id.

    Raises InvalidInput for what verifies nothing, lies in the future or is over already.
    """
    if level == "none":
        raise InvalidInput("A verification raises the level; end one to lower it.", pointer="/level")
    when = verified_at or at
    if when > at:
        raise InvalidInput("A verification can't be dated in the future.", pointer="/verified_at")
    if valid_until is not None and valid_until < at.date():
        raise InvalidInput("What it rests on is no longer valid.", pointer="/valid_until")
    verification_id = new_id()
    tx.execute(
        text(
            "INSERT INTO products.member_verification (id, member_id, partner_id, level, verified_by, evidence,"
            " document_id, verified_at, valid_until, recorded_at) VALUES (:id, :member, :partner, :level, :by, :evidence,"
            " :document, :when, :until, :at)"
        ),
        {
            "id": verification_id,
            "member": member.member_id,
            "partner": member.partner_id,
            "level": level,
            "by": verified_by,
            "evidence": None
            if evidence is None
            else cipher.encrypt(evidence, field_place(TABLE, "evidence", verification_id)),
            "document": document_id,
            "when": when,
            "until": valid_until,
            "at": at,
        },
    )
    return verification_id


def by_code(tx: Tx, keyring: Keyring, member: Member, challenge: UUID, at: datetime) -> None:
    """A code that was sent to the member's phone came back: the member holds it. Recorded once while it holds."""
    known = verifications_of(tx, None, member.member_id)
    if not any(one.level == "phone" and one.holds(at.date()) for one in known):
        cipher = cipher_of(tx, keyring, member)
        link, evidence = public_id("mem", member.link_id), public_id("chl", challenge)
        record(tx, cipher, member, "phone", verified_by=link, evidence=evidence, at=at)


def end(tx: Tx, member: Member, verification_id: UUID, at: datetime) -> None:
    """End a verification: it raises the level no more. Raises NotFound."""
    ended = tx.execute(
        text(
            "UPDATE products.member_verification SET ended_at = coalesce(ended_at, :at)"
            " WHERE id = :id AND member_id = :member RETURNING id"
        ),
        {"id": verification_id, "member": member.member_id, "at": at},
    ).one_or_none()
    if ended is None:
        raise NotFound("There is no such verification.")


def end_of_document(tx: Tx, document_id: UUID, at: datetime) -> None:
    """End what rests on a document that ended."""
    tx.execute(
        text(
            "UPDATE products.member_verification SET ended_at = :at WHERE document_id = :id AND ended_at IS NULL"
        ),
        {"id": document_id, "at": at},
    )


def verifications_of(tx: Tx, cipher: FieldCipher | None, member_id: UUID) -> list[Verification]:
    """A member's verifications as row-level security lets `tx` see them, oldest first."""
    rows = tx.execute(
        text(
            "SELECT id, level, verified_by, evidence, document_id, verified_at, valid_until, recorded_at, ended_at"
            " FROM products.member_verification WHERE member_id = :member ORDER BY id"
        ),
        {"member": member_id},
    ).all()
    return [
        Verification(
            row.id,
            row.level,
            row.verified_by,
            None
            if row.evidence is None or cipher is None
            else cipher.decrypt(row.evidence, field_place(TABLE, "evidence", row.id)),
            row.document_id,
            row.verified_at,
            row.valid_until,
            row.recorded_at,
            row.ended_at,
        )
        for row in rows
    ]


def level_of(verifications: Sequence[Verification], on: date) -> Level:
    """The level that verifications come to on a day."""
    return max((one.level for one in verifications if one.holds(on)), key=LEVELS.index, default="none")


def levels(tx: Tx, member_ids: Sequence[UUID], on: date) -> dict[UUID, Level]:
    """The levels of many members on a day, in one query; who is not in the answer is at `none`."""
    db = cursor(tx)
    db.execute(
        "SELECT member_id, max(array_position(%s::text[], level)) FROM products.member_verification"
        " WHERE member_id = ANY (%s) AND ended_at IS NULL AND (valid_until IS NULL OR valid_until >= %s) GROUP BY 1",
        (list(LEVELS), list(member_ids), on),
    )
    return {member_id: LEVELS[position - 1] for member_id, position in db.fetchall()}
