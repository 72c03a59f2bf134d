"""Enrolments: a member joins a product, on terms that joining fixes.

Whether somebody may join, and what they may choose, are the programme's rules (`products.remittances.allocate`), judged
on the local day of joining under the version in force that day. Enrolling deducts nothing: that takes a mandate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id
from products import chart
from products.facts import Fact, counting
from products.members.models import AlreadyEnrolled, Enrolment, Member
from products.programmes.model import Product
from products.programmes.registry import Programmes, Version
from products.remittances.allocate import entry_terms, validate_choice
from products.remittances.context import version_on
from products.savings import rules

_COLUMNS = "id, programme_id, member_id, partner_id, product, choice, terms, rule_version, enrolled_at, enrolled_on, ended_at"


class NotEligible(InvalidInput):
    """The product's conditions are not met by what is known of the member on the day."""

    code = "not_eligible"


@dataclass(frozen=True, slots=True)
class Joining:
    """One member who wants to join one product: who, through which partner, what is known of them, what they chose."""

    member_id: UUID
    partner_id: UUID
    birth_date: date | None
    facts: Sequence[Fact]
    product: str
    choice: Mapping[str, Any] | None = None


def enrol(
    tx: Tx,
    programmes: Programmes,
    member: Member,
    product: str,
    choice: Mapping[str, Any] | None,
    at: datetime,
) -> Enrolment:
    """Enrol a member in a product of its programme and open the ledger accounts of the enrolment.

    Raises:
        UnknownProduct: the version in force has no such product.
        InvalidChoice: the choice is not one that the product offers.
        NotEligible: a condition is not met; the detail names every one.
        AlreadyEnrolled: the member is in the product, which takes a member once.
    """
    joining = Joining(member.member_id, member.partner_id, member.birth_date, member.facts, product, choice)
    (enrolment,) = enrol_many(tx, programmes, member.programme_id, [joining], at)
    return enrolment


def enrol_many(
    tx: Tx, programmes: Programmes, programme_id: UUID, joining: Sequence[Joining], at: datetime
) -> list[Enrolment]:
    """Enrol many members of one programme at once, set-based. All join or none: raises as `enrol` does."""
    version, joined_on = _in_force(tx, programmes, programme_id, at)
    enrolments = [_judged(version, one, joined_on, at) for one in joining]
    products = [version.programme.product(one.product) for one in joining]
    accounts = _open_accounts(tx, version, list(zip(enrolments, products, strict=True)))
    db = cursor(tx)
    db.execute(
        "INSERT INTO products.enrolment (id, programme_id, member_id, partner_id, product, several, choice, terms,"
        " rule_version, enrolled_at, enrolled_on, pending_account, savings_account, unvested_account, vested_account)"
        " SELECT id, %s, member_id, partner_id, product, several, choice, terms, %s, %s, %s, pending, savings, unvested,"
        " vested FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::bool[], %s::jsonb[], %s::jsonb[],"
        " %s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[]) AS t (id, member_id, partner_id, product, several, choice,"
        " terms, pending, savings, unvested, vested) ON CONFLICT DO NOTHING",
        (
            programme_id,
            version.version,
            at,
            joined_on,
            [one.id for one in enrolments],
            [one.member_id for one in enrolments],
            [one.partner_id for one in enrolments],
            [one.product for one in enrolments],
            [product.several for product in products],
            [Jsonb(one.choice) for one in enrolments],
            [Jsonb(one.terms) for one in enrolments],
            *(
                [getattr(accounts.get(one.id), name, None) for one in enrolments]
                for name in ("pending", "savings", "unvested", "vested")
            ),
        ),
    )
    if db.rowcount != len(enrolments):
        raise AlreadyEnrolled("The member is enrolled in this product already.")
    return enrolments


def enrolments_of(tx: Tx, member_id: UUID) -> list[Enrolment]:
    """A member's enrolments as row-level security lets `tx` see them, oldest first."""
    rows = tx.execute(
        text(f"SELECT {_COLUMNS} FROM products.enrolment WHERE member_id = :member ORDER BY id"),
        {"member": member_id},
    )
    return [Enrolment(*row) for row in rows]


def accounts_of_enrolment(tx: Tx, enrolment_id: UUID) -> chart.EnrolmentAccounts | None:
    """The ledger accounts of an enrolment; None where its money is an agency's or a pool's."""
    row = tx.execute(
        text(
            "SELECT pending_account, savings_account, unvested_account, vested_account FROM products.enrolment"
            " WHERE id = :id AND pending_account IS NOT NULL"
        ),
        {"id": enrolment_id},
    ).one_or_none()
    return None if row is None else chart.EnrolmentAccounts(*row)


def unapplied_account(tx: Tx, member_id: UUID) -> UUID:
    """The ledger account of what was collected for a member and fitted no product. Raises NotFound."""
    found: UUID | None = tx.execute(
        text("SELECT unapplied_account FROM products.member WHERE id = :id"), {"id": member_id}
    ).scalar_one_or_none()
    if found is None:
        raise NotFound("There is no such member.")
    return found


def accounts_of(tx: Tx, member_id: UUID) -> list[UUID]:
    """Every ledger account of a member: outside any product, and of each enrolment."""
    rows = tx.execute(
        text(
            "SELECT unnest(ARRAY[unapplied_account, receivable_account]) FROM products.member WHERE id = :id"
            " UNION ALL SELECT unnest(ARRAY[pending_account, savings_account, unvested_account, vested_account])"
            " FROM products.enrolment WHERE member_id = :id AND pending_account IS NOT NULL"
        ),
        {"id": member_id},
    ).scalars()
    return list(rows)


def end(tx: Tx, enrolment_id: UUID, at: datetime) -> Enrolment:
    """End an enrolment: what is paid from now on is not for this product. What is saved stays. Raises NotFound."""
    row = tx.execute(
        text(
            "UPDATE products.enrolment SET ended_at = coalesce(ended_at, :at) WHERE id = :id"
            f" RETURNING {_COLUMNS}"
        ),
        {"id": enrolment_id, "at": at},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such enrolment.")
    return Enrolment(*row)


def _in_force(tx: Tx, programmes: Programmes, programme_id: UUID, at: datetime) -> tuple[Version, date]:
    versions = programmes.versions(tx, programme_id)
    if not versions:
        raise NotFound("There is no such programme.")
    joined_on = rules.local_date(versions[-1].programme, at)
    return version_on(versions, joined_on), joined_on


def _judged(version: Version, joining: Joining, joined_on: date, at: datetime) -> Enrolment:
    product = version.programme.product(joining.product)
    validate_choice(product, joining.choice)
    facts = counting(version.programme.facts, joining.facts)
    terms = entry_terms(product, facts, joined_on, joining.birth_date)
    if terms.refusals:
        raise NotEligible("; ".join(refusal.detail for refusal in terms.refusals), pointer="/product")
    return Enrolment(
        id=new_id(),
        programme_id=version.programme_id,
        member_id=joining.member_id,
        partner_id=joining.partner_id,
        product=joining.product,
        choice=dict(joining.choice or {}),
        terms={} if terms.entry_age is None else {"entry_age": terms.entry_age},
        rule_version=version.version,
        enrolled_at=at,
        enrolled_on=joined_on,
        ended_at=None,
    )


def _open_accounts(
    tx: Tx, version: Version, enrolments: Sequence[tuple[Enrolment, Product]]
) -> dict[UUID, chart.EnrolmentAccounts]:
    """The ledger accounts of the enrolments whose money is held for savers; an agency's or a pool's has none."""
    held = [one for one, product in enrolments if product.destination.kind == chart.SAVERS]
    if not held:
        return {}
    savers = chart.programme_funds(tx, version.programme_id)[chart.SAVERS]
    opened = chart.open_enrolment_accounts(
        tx, savers, version.programme.currency, [(one.id, one.partner_id) for one in held]
    )
    return {one.id: accounts for one, accounts in zip(held, opened, strict=True)}
