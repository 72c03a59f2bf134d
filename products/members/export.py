"""Everything that is held on a member, as one JSON document, for the member.

It is read as what `tx` may see: under row-level security what came through one partner, as the worker what came through
all. `docs/reference/registry.md` describes the document; amounts are minor units of the currency beside them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from ledger.ids import public_id
from ledger.money import Money
from ledger.statements import statement
from products.keyring import field_place
from products.members import devices, documents, people, verification, waiting
from products.members.enrolments import accounts_of, enrolments_of
from products.members.mandates import TABLE as CONSENT
from products.members.models import Member
from products.members.payees import payees_of
from products.members.registry import cipher_of, find
from products.remittals.queries import told_to_agencies
from products.remittances.context import Books
from products.savings import queries, rules

FORMAT: Final = 1
_PREFIXES: Final = {
    "payout": "pay",
    "payee": "pye",
    "remittance": "rmt",
    "quote": "quo",
    "transaction": "txn",
}


def links_of(tx: Tx, member_ids: Sequence[UUID]) -> list[UUID]:
    """The links of members who are not erased, as `tx` may see them, ended ones too, oldest first."""
    rows = tx.execute(
        text(
            "SELECT l.id FROM products.member_link l JOIN products.member m ON m.id = l.member_id"
            " WHERE l.member_id = ANY (:ids) AND m.wrapped_key IS NOT NULL ORDER BY l.id"
        ),
        {"ids": list(member_ids)},
    ).scalars()
    return list(rows)


def export(tx: Tx, books: Books, links: Iterable[UUID], at: datetime) -> dict[str, Any]:
    """All that is held on the person behind these links. Raises NotFound for an erased member."""
    return {
        "format": FORMAT,
        "exported_at": at.isoformat(),
        "registrations": [_registration(tx, books, link, at) for link in links],
    }


def _registration(tx: Tx, books: Books, link: UUID, at: datetime) -> dict[str, Any]:
    member = find(tx, books.keyring, link, with_ended=True)
    cipher = cipher_of(tx, books.keyring, member)
    known = verification.verifications_of(tx, cipher, member.member_id)
    programme = books.programmes.versions(tx, member.programme_id)[-1].programme
    today = rules.local_date(programme, at)
    held: dict[str, Any] = _plain(
        {
            "member": public_id("mem", link),
            "partner": _partner(tx, member.partner_id),
            "programme": programme.slug,
            "registered_at": member.linked_at,
            "ended_at": member.ended_at,
            **{
                name: getattr(member, name)
                for name in (
                    "phone",
                    "partner_reference",
                    "given_name",
                    "family_name",
                    "birth_date",
                    "sex",
                    "origin_country",
                    "residence_country",
                )
            },
            "verification": {"level": verification.level_of(known, today), "verifications": known},
            "documents": documents.documents_of(tx, cipher, member.member_id),
            "facts": [
                asdict(fact)
                | {
                    "counts": (declared := programme.facts.get(fact.name)) is None
                    or declared.counts(fact.evidence)
                }
                for fact in member.facts
            ],
            "consents": _consents(tx, books, member),
            "dependants": people.dependants_of(tx, cipher, member.member_id, with_ended=True),
            "beneficiaries": people.beneficiaries_of(tx, cipher, member.member_id, with_ended=True),
            "devices": [
                {"name": one.name, "registered_at": one.registered_at, "state": one.state}
                for one in devices.devices_of(tx, books.keyring, member, at)
            ],
            "payees": payees_of(tx, books.keyring, member, at),
            "changes": waiting.changes_of(tx, books.keyring, member, at),
            "notices": waiting.notices_of(tx, member),
            "enrolments": enrolments_of(tx, member.member_id),
            "balances": queries.member_balances(tx, books.programmes, member, today=today),
            "remittances": _rows(
                tx,
                "SELECT id AS remittance, remittance_id, status, reason, sent_amount, sent_currency, received_amount,"
                " received_currency, fee_amount, fee_currency, collected_amount, collected_currency, origin_country,"
                " destination_country, contributed_at, unapplied, transaction_id AS transaction, reversed_at,"
                " reversal_reason, trace FROM products.remittance WHERE link_id = :id ORDER BY id",
                link,
            ),
            "contributions": _rows(
                tx,
                "SELECT c.remittance, c.product, c.destination, c.amount, c.currency, c.contributed_on, c.entitled, c.state"
                " FROM products.contribution c JOIN products.remittance r ON r.id = c.remittance"
                " WHERE r.link_id = :id ORDER BY c.remittance, c.position",
                link,
            ),
            "remitted": [
                asdict(one) for one in told_to_agencies(tx, cipher, member.member_id, member.partner_id)
            ],
            "payouts": _payouts(tx, link),
            "quotes": _rows(
                tx,
                "SELECT id AS quote, sent_amount, sent_currency, received_amount, received_currency, collect,"
                " collect_currency, answer, created_at, expires_at FROM products.quote WHERE link_id = :id ORDER BY id",
                link,
            ),
            "statements": [_statement(tx, account) for account in accounts_of(tx, member.member_id)],
            "audit": _rows_of(
                tx,
                "SELECT recorded_at, actor_kind, actor, action, outcome FROM ledger.audit_entry"
                " WHERE object = :object ORDER BY era, xid, id",
                {"object": public_id("mem", link)},
            ),
        }
    )
    return held


def _partner(tx: Tx, partner_id: UUID) -> str | None:
    name: str | None = tx.execute(
        text("SELECT name FROM products.partner WHERE id = :id"), {"id": partner_id}
    ).scalar_one_or_none()
    return name


def _consents(tx: Tx, books: Books, member: Member) -> list[dict[str, Any]]:
    cipher = cipher_of(tx, books.keyring, member)
    rows = tx.execute(
        text("SELECT id, evidence FROM products.consent WHERE member_id = :id AND evidence IS NOT NULL"),
        {"id": member.member_id},
    )
    evidence: dict[UUID, bytes] = {row.id: row.evidence for row in rows}
    return [
        asdict(one)
        | {
            "evidence": cipher.decrypt(evidence[one.id], field_place(CONSENT, "evidence", one.id))
            if one.id in evidence
            else None
        }
        for one in member.mandates
    ]


def _payouts(tx: Tx, link: UUID) -> list[dict[str, Any]]:
    """What was asked to be paid out, to whom, and every step of it."""
    payouts = _rows(
        tx,
        "SELECT p.id AS payout, p.payee_id AS payee, r.slug AS rail, p.product, p.way, p.amount, p.fee, p.currency, p.state,"
        " p.reason, p.payee_name, p.requested_at, p.approved_at, p.submitted_at, p.ended_at"
        " FROM products.payout p JOIN products.rail r ON r.id = p.rail_id WHERE p.link_id = :id ORDER BY p.id",
        link,
    )
    for one in payouts:
        one["steps"] = _rows(
            tx,
            "SELECT state, reason, at FROM products.payout_change WHERE payout_id = :id ORDER BY number",
            one["payout"],
        )
    return payouts


def _statement(tx: Tx, account: UUID) -> dict[str, Any]:
    """Every line of one account, oldest last."""
    page = statement(tx, account, limit=200)
    lines = list(page.lines)
    while page.next is not None:
        page = statement(tx, account, limit=200, after=page.next)
        lines += page.lines
    return {"currency": page.currency, "lines": lines}


def _rows(tx: Tx, query: str, link: UUID) -> list[dict[str, Any]]:
    return _rows_of(tx, query, {"id": link})


def _rows_of(tx: Tx, query: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
    return [dict(row) for row in tx.execute(text(query), dict(parameters)).mappings()]


def _plain(value: Any, name: str = "") -> Any:  # anything that is held, on its way to JSON
    """The value as JSON has it: objects by field, times in ISO 8601, ids public where they have a name outside."""
    match value:
        case Money():
            return {"amount": value.amount, "currency": value.currency}
        case UUID():
            return public_id(_PREFIXES[name], value) if name in _PREFIXES else str(value)
        case datetime() | date():
            return value.isoformat()
        case Mapping():
            return {key: _plain(part, str(key)) for key, part in value.items()}
        case str() | int() | None:
            return value
        case Sequence():
            return [_plain(part) for part in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {key: _plain(getattr(value, key), key) for key in value.__dataclass_fields__}
        case _:
            return str(value)
