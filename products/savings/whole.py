"""The whole account of a person who is a member through several partners, with the consent that it may be seen."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from products.members.models import AccountHolder
from products.programmes.registry import Programmes, Version
from products.savings.queries import MatchBalance, MemberBalances, ProductBalance, member_balances


def see_whole(tx: Tx, member: AccountHolder) -> list[UUID]:
    """From here on in this transaction, row-level security shows the money of the person whom `member` is one of.

    Only after the consent to it was found in force: nothing below checks it again. Returns the person's members in the same
    programme, `member` first.
    """
    tx.execute(text("SELECT set_config('mizan.whole', :id, true)"), {"id": str(member.member_id)})
    others = tx.execute(
        text(
            "SELECT id FROM products.member WHERE programme_id = :programme AND id <> :id"
            " AND id = ANY (products.whole_members()) ORDER BY id"
        ),
        {"programme": member.programme_id, "id": member.member_id},
    ).scalars()
    return [member.member_id, *others]


def whole_balances(
    tx: Tx,
    programmes: Programmes,
    member: AccountHolder,
    members: Sequence[UUID],
    *,
    today: date,
    as_of: date | None = None,
    versions: Sequence[Version] | None = None,
) -> MemberBalances:
    """What a person has through all their `members` of one programme, added up by product (`member_balances`)."""
    shown = [
        member_balances(
            tx, programmes, replace(member, member_id=one), today=today, as_of=as_of, versions=versions
        )
        for one in members
    ]
    by_product: dict[str, ProductBalance] = {}
    for product in (product for balances in shown for product in balances.products):
        known = by_product.get(product.product)
        by_product[product.product] = product if known is None else _sum(known, product)
    return replace(
        shown[0],
        products=tuple(by_product.values()),
        unapplied=sum(balances.unapplied for balances in shown),
    )


def _sum(one: ProductBalance, other: ProductBalance) -> ProductBalance:
    return ProductBalance(
        one.product,
        one.pending + other.pending,
        one.settled + other.settled,
        one.held + other.held,
        (*one.locked, *other.locked),
        MatchBalance(
            one.match.committed + other.match.committed,
            one.match.unvested + other.match.unvested,
            one.match.vested + other.match.vested,
            one.match.awaiting_funds + other.match.awaiting_funds,
        ),
    )
