"""What members may take out, for many of them at once: the rules of `products.savings.ways`, fed in sets.

Most products ask for the balance, the calendar and what was taken before: answered with a few statements for all. Where more
decides (savings of each year, match that would be forfeited, events that facts prove), `withdrawals.available` looks closer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from ledger.balances import Balance, balances
from ledger.database import Tx, cursor
from products.members import registry
from products.members.models import AccountHolder, Member
from products.payouts.payees import Holder
from products.programmes.model import Programme
from products.remittances.context import Books, version_on
from products.savings import ways
from products.savings.ways import Standing, Taken
from products.savings.withdrawals import Available, available, facts_open_ways


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolment in a savings product with the accounts that money may leave."""

    id: UUID
    product: str
    savings_account: UUID | None
    vested_account: UUID | None
    enrolled_on: date


def lock_enrolments(tx: Tx, member_ids: Sequence[UUID]) -> dict[UUID, list[Enrolled]]:
    """Every enrolment of members, ended ones too, locked: nobody else asks for its money before `tx` ends."""
    rows = cursor(tx).execute(
        "SELECT member_id, id, product, savings_account, vested_account, enrolled_on FROM products.enrolment"
        " WHERE member_id = ANY (%s) ORDER BY id FOR NO KEY UPDATE",
        [list(member_ids)],
    )
    found: dict[UUID, list[Enrolled]] = {}
    for member_id, *columns in rows:
        found.setdefault(member_id, []).append(Enrolled(*columns))
    return found


def offers(tx: Tx, books: Books, wanted: Sequence[tuple[Holder, Enrolled, date]]) -> dict[UUID, Available]:
    """What may leave each enrolment on a day, by the enrolment's id."""
    programmes = {
        (programme_id, on): version_on(books.programmes.versions(tx, programme_id), on).programme
        for programme_id, on in {(holder.programme_id, on) for holder, _, on in wanted}
    }
    accounts = [
        account
        for _, enrolled, _ in wanted
        for account in (enrolled.savings_account, enrolled.vested_account)
        if account is not None
    ]
    posted = balances(tx, accounts)
    taken = _taken(tx, [enrolled.id for _, enrolled, _ in wanted])
    return {
        enrolled.id: _at_a_glance(
            programmes[holder.programme_id, on], holder, enrolled, on, posted, taken.get(enrolled.id, ())
        )
        or available(
            tx,
            books.programmes,
            _person(tx, books, holder, programmes[holder.programme_id, on]),
            enrolled.id,
            on=on,
        )
        for holder, enrolled, on in wanted
    }


def not_settled(tx: Tx, member_ids: Collection[UUID]) -> dict[UUID, int]:
    """What of members' unapplied money partners collected and have not paid in, in minor units, by member.

    Read after the balances that it is taken from: what is collected in between is then not there yet.
    """
    rows = cursor(tx).execute(
        "SELECT member_id, sum(amount)::bigint FROM products.contribution WHERE member_id = ANY (%s)"
        " AND destination = 'unapplied' AND owed AND NOT guaranteed GROUP BY member_id",
        [list(member_ids)],
    )
    return dict(rows.fetchall())


def _taken(tx: Tx, enrolment_ids: Sequence[UUID]) -> dict[UUID, tuple[Taken, ...]]:
    """What was withdrawn from enrolments so far, and not undone, the earliest first."""
    rows = cursor(tx).execute(
        "SELECT enrolment_id, way, savings, match, taken_on FROM products.withdrawal"
        " WHERE enrolment_id = ANY (%s) AND undone_at IS NULL ORDER BY enrolment_id, taken_on",
        [list(enrolment_ids)],
    )
    found: dict[UUID, tuple[Taken, ...]] = {}
    for enrolment_id, *columns in rows:
        found[enrolment_id] = (*found.get(enrolment_id, ()), Taken(*columns))
    return found


def _at_a_glance(
    programme: Programme,
    holder: Holder,
    enrolled: Enrolled,
    on: date,
    posted: Mapping[UUID, Balance],
    taken: tuple[Taken, ...],
) -> Available | None:
    """What may leave, where balance, calendar and what was taken so far decide; None where more does."""
    if (
        enrolled.savings_account is None
        or enrolled.vested_account is None
        or enrolled.product not in programme.codes
    ):
        return None
    product = programme.product(enrolled.product)
    if (product.term is not None and product.term.starts != "enrolment") or any(
        way.match == "forfeited" or way.proven_by is not None or way.saved_each_year is not None
        for way in product.withdrawals
    ):
        return None
    savings, vested = posted[enrolled.savings_account], posted[enrolled.vested_account]
    standing = Standing(
        savings.posted - savings.held,
        vested.posted - vested.held,
        enrolled.enrolled_on,
        holder.birth_date,
        taken=taken,
    )
    return Available(
        enrolled.product,
        programme.currency,
        savings.posted,
        savings.held,
        standing.vested,
        ways.open_ways(product, standing, on),
        ways.locked(product, standing, on),
    )


def _person(tx: Tx, books: Books, holder: Holder, programme: Programme) -> Member | AccountHolder:
    """The member with what the rules may ask of them: facts are read only where facts open ways."""
    if facts_open_ways(programme):
        return registry.find(tx, books.keyring, holder.link_id)
    return AccountHolder(
        holder.link_id,
        holder.member_id,
        holder.partner_id,
        holder.programme_id,
        holder.birth_date,
        shows_whole=False,
    )
