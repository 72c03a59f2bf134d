"""Changes that wait: a new phone, device or payee takes effect 72 hours after it was asked for.

The old contact, the phone in effect when it was asked, is told at once and can stop it: by the link in the notice, which needs
no partner's help, or with a proof. Whether a change is in effect follows from what is recorded when it is read; the job
that applies what is due only tidies up behind it.

Which phone finds the member: the old one until the change takes effect, the new one from the moment it was asked for (the
member has proven to hold it), and the old one for about 7 days after, for events that come late. A number that is
registered as somebody's own comes before these (`products.members.batch.load_members`).
"""

import secrets
from base64 import b32encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import psycopg
from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError

from ledger.database import Tx
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id
from products.keyring import Keyring, field_place
from products.members import duplicates
from products.members.messages import CodeMessage, language_of, notice_text
from products.members.models import Member
from products.members.registry import LINK, cipher_of, phone_index

WAIT: Final = timedelta(hours=72)
FORMER_PHONE_FINDS: Final = timedelta(days=7)
NOTICE: Final = "products.notice"
STOP_PATH: Final = "/stop/"
APPLIED_AT_ONCE_MAX: Final = 500
SENT_AT_ONCE_MAX: Final = 50
NOTICE_TRIES_MAX: Final = 12
LENT: Final = timedelta(minutes=1)
"""How long a sender has for a notice before another may try; doubled at each try, to about four hours."""

Kind = Literal["phone", "device", "payee"]
State = Literal["waiting", "in_effect", "cancelled"]
EndedBy = Literal["member", "contact", "replaced", "removed", "phone_taken"]

_STOP_PURPOSE: Final = "stop a change"
_SECRET_BYTES: Final = 15


class TooLate(Conflict):
    """The change is in effect or was cancelled before."""

    code = "change_not_waiting"


class PhoneTaken(Conflict):
    """The partner has registered this phone for a member of the programme."""

    code = "phone_taken"


@dataclass(frozen=True, slots=True)
class Change:
    """A new phone, device or payee. `subject_id` is the device or payee, `phone` the new number in full."""

    id: UUID
    kind: Kind
    subject_id: UUID | None
    state: State
    asked_at: datetime
    effective_at: datetime
    cancelled_at: datetime | None
    cancelled_by: str | None
    phone: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outbound:
    """A notice to send."""

    notice: UUID
    message: CodeMessage


@dataclass(frozen=True, slots=True)
class Notice:
    """What the member was told. `sent_at` is None until it went out, and for ever where there was no phone."""

    id: UUID
    kind: str
    change_id: UUID | None
    created_at: datetime
    sent_at: datetime | None


def state_of(effective_at: datetime, cancelled_at: datetime | None, at: datetime) -> State:
    """What a change amounts to at `at`."""
    if cancelled_at is not None:
        return "cancelled"
    return "in_effect" if effective_at <= at else "waiting"


def ask(
    tx: Tx, keyring: Keyring, member: Member, kind: Kind, subject: UUID, *, public_url: str, at: datetime
) -> Change:
    """Let a device or payee begin to wait, and tell the old contact."""
    return _ask(tx, keyring, member, kind, public_url=public_url, at=at, subject=subject)


def ask_phone(
    tx: Tx, keyring: Keyring, member: Member, phone: str, *, public_url: str, at: datetime
) -> Change:
    """Let a new phone (E.164) begin to wait, and tell the old one. Another one that waits is replaced.

    The same number again is the same change: its 72 hours go on. Raises `PhoneTaken` when the partner knows the number as
    another of its members', `Conflict` when it is the member's already.
    """
    tx.execute(
        text("SELECT id FROM products.member_link WHERE id = :link FOR NO KEY UPDATE"),
        {"link": member.link_id},
    )
    current = phone_in_effect(tx, keyring, member, at)
    if phone == current:
        raise Conflict("This is the member's phone already.", pointer="/phone")
    index = phone_index(keyring, member.partner_id, phone)
    taken = tx.execute(
        text(
            "SELECT 1 FROM products.member_link WHERE partner_id = :partner AND programme_id = :programme"
            " AND phone_index = :index AND ended_at IS NULL AND id <> :link"
        ),
        {
            "partner": member.partner_id,
            "programme": member.programme_id,
            "index": index,
            "link": member.link_id,
        },
    ).one_or_none()
    if taken is not None:
        raise PhoneTaken("The phone is registered for another member.", pointer="/phone")
    for change in changes_of(tx, keyring, member, at):
        if change.kind != "phone" or change.state != "waiting":
            continue
        if change.phone == phone:
            return change
        _end(tx, change.id, "replaced", at)
    former = phone_index(keyring, member.partner_id, current) if current is not None else None
    return _ask(
        tx,
        keyring,
        member,
        "phone",
        public_url=public_url,
        at=at,
        phone=phone,
        indexes=(index, former),
    )


def changes_of(tx: Tx, keyring: Keyring, member: Member, at: datetime) -> list[Change]:
    """The changes asked for through this link, oldest first."""
    rows = tx.execute(
        text("SELECT * FROM products.waiting_change WHERE link_id = :link ORDER BY id"),
        {"link": member.link_id},
    ).all()
    return [_change(tx, keyring, member, row, at) for row in rows]


def cancel(tx: Tx, keyring: Keyring, member: Member, change: UUID, at: datetime) -> Change:
    """Stop a change that waits, on the member's proof. Raises NotFound, `TooLate`."""
    row = tx.execute(
        text("SELECT * FROM products.waiting_change WHERE id = :id AND link_id = :link FOR NO KEY UPDATE"),
        {"id": change, "link": member.link_id},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such change.")
    # what the job has applied is in effect, even if this process's clock is a little behind the job's
    if row.applied_at is not None or state_of(row.effective_at, row.cancelled_at, at) != "waiting":
        raise TooLate("The change is in effect already, or was cancelled before.")
    _end(tx, change, "member", at)
    tell(tx, keyring, member, "change_cancelled", at, change)
    after = tx.execute(text("SELECT * FROM products.waiting_change WHERE id = :id"), {"id": change}).one()
    return _change(tx, keyring, member, after, at)


def stop(tx: Tx, keyring: Keyring, secret: str, at: datetime) -> Kind:
    """Stop the change whose notice carried `secret`. Needs no partner. Raises NotFound when there is nothing to stop."""
    row = tx.execute(
        text("SELECT kind FROM products.stop_change(:digest, :at)"),
        {"digest": keyring.blind_index(_STOP_PURPOSE, secret.lower()), "at": at},
    ).one_or_none()
    if row is None:
        raise NotFound("There is nothing to stop here: it was stopped before, or is in effect.")
    stopped: Kind = row.kind
    return stopped


def end(tx: Tx, subject: UUID, why: EndedBy, at: datetime) -> None:
    """End the wait of a device or payee that is no more; one that is in effect stays on record as it was."""
    tx.execute(
        text(
            "UPDATE products.waiting_change SET cancelled_at = :at, cancelled_by = :why"
            " WHERE subject_id = :subject AND cancelled_at IS NULL AND applied_at IS NULL AND effective_at > :at"
        ),
        {"subject": subject, "why": why, "at": at},
    )


def phone_in_effect(tx: Tx, keyring: Keyring, member: Member, at: datetime) -> str | None:
    """The phone that codes and notices go to at `at`: the registered one, or the changed one once it is due."""
    row = tx.execute(
        text(
            "SELECT * FROM products.waiting_change WHERE link_id = :link AND kind = 'phone' AND cancelled_at IS NULL"
            " AND applied_at IS NULL AND effective_at <= :at"
        ),
        {"link": member.link_id, "at": at},
    ).one_or_none()
    return member.phone if row is None else _change(tx, keyring, member, row, at).phone


def tell(
    tx: Tx,
    keyring: Keyring,
    member: Member,
    kind: str,
    at: datetime,
    change: UUID | None = None,
    *,
    effective_at: datetime | None = None,
    link: str = "",
) -> UUID:
    """Write a notice to the member's phone in effect; it goes out after the commit, now or by the job."""
    phone = phone_in_effect(tx, keyring, member, at)
    notice = new_id()
    message = None
    if phone is not None:
        language = language_of(member)
        plain = "\n".join((phone, language, notice_text(language, kind, effective_at, link)))
        message = cipher_of(tx, keyring, member).encrypt(plain, field_place(NOTICE, "message", notice))
    tx.execute(
        text(
            "INSERT INTO products.notice (id, link_id, member_id, change_id, kind, message, created_at, next_try_at)"
            " VALUES (:id, :link, :member, :change, :kind, :message, :at, :next)"
        ),
        {
            "id": notice,
            "link": member.link_id,
            "member": member.member_id,
            "change": change,
            "kind": kind,
            "message": message,
            "at": at,
            "next": at if message is not None else None,
        },
    )
    return notice


def notices_of(tx: Tx, member: Member) -> list[Notice]:
    """What the member was told through this link, newest first, at most 100."""
    rows = tx.execute(
        text(
            "SELECT id, kind, change_id, created_at, sent_at FROM products.notice WHERE link_id = :link"
            " ORDER BY id DESC LIMIT 100"
        ),
        {"link": member.link_id},
    )
    return [Notice(row.id, row.kind, row.change_id, row.created_at, row.sent_at) for row in rows]


def messages_due(
    tx: Tx, keyring: Keyring, at: datetime, *, only: UUID | None = None, limit: int = SENT_AT_ONCE_MAX
) -> list[Outbound]:
    """Notices to send now, as the worker, each lent to this sender for a minute: commit, send, then record (`told`).

    A sender that dies in between leaves them to the next one, so that a notice may come twice, and is never lost; one that
    can't be sent is tried `NOTICE_TRIES_MAX` times, later each time. `only` is one notice just written.
    """
    rows = tx.execute(
        text(
            "SELECT n.id, n.message, n.member_id, m.wrapped_key, n.tries FROM products.notice n"
            " JOIN products.member m ON m.id = n.member_id WHERE n.next_try_at <= :at AND m.wrapped_key IS NOT NULL"
            " AND (CAST(:only AS uuid) IS NULL OR n.id = :only) ORDER BY n.next_try_at LIMIT :max"
            " FOR NO KEY UPDATE OF n SKIP LOCKED"
        ),
        {"at": at, "only": only, "max": limit},
    ).all()
    due = []
    for row in rows:
        tries = row.tries + 1
        tx.execute(
            text("UPDATE products.notice SET tries = :tries, next_try_at = :next WHERE id = :id"),
            {
                "id": row.id,
                "tries": tries,
                "next": at + LENT * 2 ** min(tries - 1, 8) if tries < NOTICE_TRIES_MAX else None,
            },
        )
        cipher = keyring.cipher(row.wrapped_key, row.member_id)
        plain = cipher.decrypt(bytes(row.message), field_place(NOTICE, "message", row.id))
        to, language, body = plain.split("\n", 2)
        due.append(Outbound(row.id, CodeMessage(to, body, language)))
    return due


def told(tx: Tx, notice: UUID, at: datetime) -> None:
    """Record that a notice went out; its message is dropped."""
    tx.execute(
        text("UPDATE products.notice SET sent_at = :at, message = NULL, next_try_at = NULL WHERE id = :id"),
        {"id": notice, "at": at},
    )


def apply_due(tx: Tx, keyring: Keyring, at: datetime) -> int:
    """Write what is due into the registry, as the worker: links get their new phones. How many changes.

    A phone that the partner has registered for somebody else meanwhile is not taken away: the change is cancelled.
    """
    due = tx.execute(
        text(
            "SELECT w.id, w.kind, w.link_id FROM products.waiting_change w WHERE w.effective_at <= :at"
            " AND w.cancelled_at IS NULL AND w.applied_at IS NULL ORDER BY w.link_id, w.id LIMIT :max FOR UPDATE SKIP LOCKED"
        ),
        {"at": at, "max": APPLIED_AT_ONCE_MAX},
    ).all()
    for row in due:
        if row.kind == "phone" and not _write_phone(tx, row.id):
            _end(tx, row.id, "phone_taken", at)
            continue
        if row.kind == "phone":
            _index_phone(tx, keyring, row.link_id, at)
        tx.execute(
            text("UPDATE products.waiting_change SET applied_at = effective_at WHERE id = :id"),
            {"id": row.id},
        )
    tx.execute(
        text(
            "UPDATE products.waiting_change SET former_phone_index = NULL WHERE former_phone_index IS NOT NULL"
            " AND effective_at < :before"
        ),
        {"before": at - FORMER_PHONE_FINDS},
    )
    return len(due)


def forget(tx: Tx, member_id: UUID) -> None:
    """Drop what could find an erased member again, as the worker: blind indexes, encrypted phones, messages not sent."""
    tx.execute(
        text(
            "UPDATE products.waiting_change SET phone = NULL, phone_index = NULL, former_phone_index = NULL"
            " WHERE member_id = :member"
        ),
        {"member": member_id},
    )
    tx.execute(
        text("UPDATE products.notice SET message = NULL, next_try_at = NULL WHERE member_id = :member"),
        {"member": member_id},
    )
    tx.execute(
        text("UPDATE products.payee SET payee_index = NULL WHERE member_id = :member"), {"member": member_id}
    )
    tx.execute(
        text(
            "UPDATE products.challenge SET phone_index = NULL WHERE link_id IN"
            " (SELECT id FROM products.member_link WHERE member_id = :member)"
        ),
        {"member": member_id},
    )


def _write_phone(tx: Tx, change: UUID) -> bool:
    """Give the change's link its new phone, unless an active link of the partner holds the number."""
    written = text(
        "UPDATE products.member_link l SET phone = w.phone, phone_index = w.phone_index"
        " FROM products.waiting_change w WHERE w.id = :id AND l.id = w.link_id AND NOT EXISTS ("
        " SELECT 1 FROM products.member_link o WHERE o.partner_id = l.partner_id AND o.programme_id = l.programme_id"
        " AND o.phone_index = w.phone_index AND o.ended_at IS NULL AND o.id <> l.id)"
    )
    try:
        with tx.begin_nested():
            return bool(tx.execute(written, {"id": change}).rowcount)
    except (psycopg.errors.UniqueViolation, IntegrityError):  # registered by somebody else at this moment
        return False


def _index_phone(tx: Tx, keyring: Keyring, link: UUID, at: datetime) -> None:
    """Let managers find the person by the new phone, and no more by the old one."""
    row = tx.execute(
        text(
            "SELECT l.partner_id, l.member_id, l.phone, m.wrapped_key FROM products.member_link l"
            " JOIN products.member m ON m.id = l.member_id WHERE l.id = :link"
        ),
        {"link": link},
    ).one()
    if row.wrapped_key is None or row.phone is None:
        return  # erased
    duplicates.forget_phone(tx, link)
    cipher = keyring.cipher(row.wrapped_key, row.member_id)
    number = cipher.decrypt(bytes(row.phone), field_place(LINK, "phone", link))
    duplicates.note(tx, keyring, row.partner_id, [duplicates.phone(row.member_id, link, number)], at)


def _ask(
    tx: Tx,
    keyring: Keyring,
    member: Member,
    kind: Kind,
    *,
    public_url: str,
    at: datetime,
    subject: UUID | None = None,
    phone: str | None = None,
    indexes: tuple[bytes | None, bytes | None] = (None, None),
) -> Change:
    change = new_id()
    secret = b32encode(secrets.token_bytes(_SECRET_BYTES)).decode().lower()
    effective_at = at + WAIT
    sealed = None
    if phone is not None:
        # encrypted for the place where it will lie: applying it needs no key
        sealed = cipher_of(tx, keyring, member).encrypt(phone, field_place(LINK, "phone", member.link_id))
    tx.execute(
        text(
            "INSERT INTO products.waiting_change (id, link_id, member_id, kind, subject_id, phone, phone_index,"
            " former_phone_index, cancel_digest, asked_at, effective_at) VALUES (:id, :link, :member, :kind, :subject,"
            " :phone, :index, :former, :digest, :at, :effective)"
        ),
        {
            "id": change,
            "link": member.link_id,
            "member": member.member_id,
            "kind": kind,
            "subject": subject,
            "phone": sealed,
            "index": indexes[0],
            "former": indexes[1],
            "digest": keyring.blind_index(_STOP_PURPOSE, secret),
            "at": at,
            "effective": effective_at,
        },
    )
    stop_at = f"{public_url}{STOP_PATH}{secret}"
    tell(tx, keyring, member, kind, at, change, effective_at=effective_at, link=stop_at)
    return Change(change, kind, subject, "waiting", at, effective_at, None, None, phone)


def _end(tx: Tx, change: UUID, why: EndedBy, at: datetime) -> None:
    tx.execute(
        text(
            "UPDATE products.waiting_change SET cancelled_at = :at, cancelled_by = :why"
            " WHERE id = :id AND cancelled_at IS NULL AND applied_at IS NULL"
        ),
        {"id": change, "why": why, "at": at},
    )


def _change(tx: Tx, keyring: Keyring, member: Member, row: Row[tuple[object, ...]], at: datetime) -> Change:
    phone = None
    if row.phone is not None:
        phone = cipher_of(tx, keyring, member).decrypt(
            bytes(row.phone), field_place(LINK, "phone", member.link_id)
        )
    return Change(
        row.id,
        row.kind,
        row.subject_id,
        state_of(row.effective_at, row.cancelled_at, at),
        row.asked_at,
        row.effective_at,
        row.cancelled_at,
        row.cancelled_by,
        phone,
    )
