"""What a member may withdraw today, by which way out, and what was withdrawn before: the rules of `ways`, fed from the books.

A withdrawal is on record from the request of its payout on, so that no share of a balance is taken twice, until the payout
ends unpaid. What a payout takes beyond it (a match that is forfeited) is `products.savings.forfeiture`'s.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from ledger.balances import balances
from ledger.database import Tx, cursor
from ledger.errors import NotFound
from products.facts import Fact, counting
from products.members.models import AccountHolder, Member
from products.programmes.model import Product, Programme
from products.programmes.registry import Programmes
from products.remittances.context import version_on
from products.savings import forfeiture, ways
from products.savings.rules import anniversary
from products.savings.ways import Locked, Standing, Taken, Way


@dataclass(frozen=True, slots=True)
class Available:
    """What may leave one enrolment on a day; minor units of ``currency``.

    ``settled`` = what the best way lets out of the savings + locked + ``held``. ``vested`` is match that is the member's and
    not held. ``ways`` are the open ones, in the programme's order.
    """

    product: str
    currency: str
    settled: int
    held: int
    vested: int
    ways: tuple[Way, ...]
    locked: tuple[Locked, ...]

    @property
    def savings(self) -> int:
        """What of the savings may leave by the best way out."""
        return self.settled - self.held - sum(one.amount for one in self.locked)

    @property
    def total(self) -> int:
        """The most that may leave by one way out, savings and vested match together."""
        return max((way.total for way in self.ways), default=0)

    def way(self, amount: int, code: str | None = None) -> Way | None:
        """The way by which ``amount`` may leave: the first open one that lets out as much, or the one named."""
        return next(
            (way for way in self.ways if code in (None, way.code) and 0 < amount <= way.total),
            None,
        )


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What a payout takes out of an enrolment by a way; ``forfeits``: `Way.forfeits_with` of the savings it takes."""

    payout_id: UUID
    enrolment_id: UUID
    way: str
    savings: int
    match_vested: int
    forfeits: int
    on: date


def available(
    tx: Tx,
    programmes: Programmes,
    member: Member | AccountHolder,
    enrolment_id: UUID,
    *,
    on: date,
    events: Collection[str] = (),
) -> Available:
    """What may leave an enrolment of a member on a day, and what may not, and why. Raises NotFound.

    Locks nothing: whoever goes on to hold the money locks the enrolment's row first. ``events`` are those that a claim has
    proven; those that the member's facts prove are found here. Vesting that is due is
    seen once it is booked: `products.savings.vesting.vest`.
    """
    return _look(tx, programmes, member, enrolment_id, on=on, events=events).shown


def explain_withdrawal(
    tx: Tx, programmes: Programmes, member: Member, enrolment_id: UUID, *, on: date
) -> dict[str, Any]:
    """The ways out of an enrolment, what each asks, which of it holds, and until when; plain JSON. Raises NotFound."""
    looked = _look(tx, programmes, member, enrolment_id, on=on, whole=True)
    shown, programme = looked.shown, looked.programme
    return {
        "programme": programme.slug,
        "version": programme.validity.version,
        "source": programme.source,
        "readings": {one.topic: one.reading for one in programme.readings},
        "product": shown.product,
        "currency": shown.currency,
        "settled": shown.settled,
        "held": shown.held,
        "available": shown.savings,
        "match_vested": shown.vested,
        "locked": [
            {"amount": one.amount, "reason": one.reason, "until": one.until and one.until.isoformat()}
            for one in shown.locked
        ],
        "ways": []
        if looked.product is None or looked.standing is None
        else ways.explain(looked.product, looked.standing, on),
    }


@dataclass(frozen=True, slots=True)
class _Looked:
    programme: Programme
    product: Product | None
    standing: Standing | None
    shown: Available


def _look(
    tx: Tx,
    programmes: Programmes,
    member: Member | AccountHolder,
    enrolment_id: UUID,
    *,
    on: date,
    events: Collection[str] = (),
    whole: bool = False,
) -> _Looked:
    row = (
        cursor(tx)
        .execute(
            """SELECT product, enrolled_on, savings_account, vested_account FROM products.enrolment
               WHERE id = %s AND member_id = %s""",
            (enrolment_id, member.member_id),
        )
        .fetchone()
    )
    if row is None:
        raise NotFound("The member has no such enrolment.")
    code, enrolled_on, savings_account, vested_account = row
    programme = version_on(programmes.versions(tx, member.programme_id), on).programme
    if savings_account is None:
        settled = _passed_on(tx, enrolment_id)
        held = vested = 0
    else:
        found = balances(tx, [savings_account, vested_account])
        settled, held = found[savings_account].posted, found[savings_account].held
        vested = found[vested_account].posted - found[vested_account].held
    if code not in programme.codes:
        ended = (Locked(settled - held, "product_ended", None),) if settled > held else ()
        shown = Available(code, programme.currency, settled, held, vested, (), ended)
        return _Looked(programme, None, None, shown)
    product = programme.product(code)
    losable = 0
    if any(way.match == "forfeited" for way in product.withdrawals):
        losable = max(
            0, forfeiture.losable(tx, programmes, enrolment_id) - _about_to_be_lost(tx, enrolment_id)
        )
    standing = standing_of(
        tx,
        product,
        enrolment_id,
        enrolled_on,
        savings=settled - held,
        vested=vested,
        losable=losable,
        birth_date=member.birth_date,
        events=frozenset(events) | proven_events(programme, product, member.facts, on),
        on=on,
        whole=whole,
    )
    shown = Available(
        code,
        programme.currency,
        settled,
        held,
        vested,
        ways.open_ways(product, standing, on),
        ways.locked(product, standing, on),
    )
    return _Looked(programme, product, standing, shown)


def standing_of(
    tx: Tx,
    product: Product,
    enrolment_id: UUID,
    enrolled_on: date,
    *,
    savings: int,
    vested: int,
    birth_date: date | None,
    events: frozenset[str],
    on: date,
    losable: int = 0,
    whole: bool = False,
) -> Standing:
    """What the rules ask of an enrolment. History is read only where it can matter on this day, or for the ``whole`` picture."""
    since = member_since(tx, product, enrolment_id, enrolled_on)
    taken: tuple[Taken, ...] = ()
    saved: tuple[int, ...] = ()
    if whole or (savings + vested > 0 and ways.asks_for_history(product, birth_date, since, on)):
        taken = _taken(tx, enrolment_id, on)
        years = max((way.after_years or 0 for way in product.withdrawals if way.saved_each_year), default=0)
        saved = _saved(tx, enrolment_id, since, years, on) if years else ()
    return Standing(savings, vested, since, birth_date, losable, taken, saved, events)


def member_since(tx: Tx, product: Product, enrolment_id: UUID, enrolled_on: date) -> date:
    """From when years of membership count: enrolment, or the first contribution where the product's term says so."""
    if product.term is None or product.term.starts == "enrolment":
        return enrolled_on
    first = cursor(tx).execute(
        "SELECT min(contributed_on) FROM products.contribution WHERE enrolment_id = %s AND state <> 'reversed'",
        (enrolment_id,),
    )
    (contributed_on,) = first.fetchone() or (None,)
    return contributed_on or enrolled_on


def proven_events(programme: Programme, product: Product, facts: Sequence[Fact], on: date) -> frozenset[str]:
    """The events that a member's facts prove on a day, by evidence that counts (`proven_by` of a way out)."""
    proofs = {way.proven_by: way.event for way in product.withdrawals if way.proven_by and way.event}
    if not proofs or not facts:
        return frozenset()
    held = counting(programme.facts, facts).on(on)
    return frozenset(event for fact, event in proofs.items() if held.get(fact) is True)


def facts_open_ways(programme: Programme) -> bool:
    """Whether what may leave depends on members' facts."""
    return any(way.proven_by is not None for product in programme.products for way in product.withdrawals)


def record_withdrawals(tx: Tx, withdrawn: Sequence[Withdrawn], at: datetime) -> None:
    """Put on record what payouts take, in the transaction that holds the money. Each (payout, enrolment) once."""
    if withdrawn:
        cursor(tx).execute(
            """INSERT INTO products.withdrawal
                   (payout_id, enrolment_id, way, savings, match, forfeits, taken_on, recorded_at)
               SELECT *, %s FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[],
                                        %b::date[])""",
            (
                at,
                [one.payout_id for one in withdrawn],
                [one.enrolment_id for one in withdrawn],
                [one.way for one in withdrawn],
                [one.savings for one in withdrawn],
                [one.match_vested for one in withdrawn],
                [one.forfeits for one in withdrawn],
                [one.on for one in withdrawn],
            ),
        )


def undo_withdrawals(tx: Tx, payout_ids: Collection[UUID], at: datetime) -> None:
    """Take off the record what payouts took that end unpaid; the same again changes nothing.

    Money that had left the member's accounts is back by then: `products.savings.forfeiture.come_back` came before.
    """
    cursor(tx).execute(
        "UPDATE products.withdrawal SET undone_at = %s WHERE payout_id = ANY (%b) AND undone_at IS NULL",
        (at, list(payout_ids)),
    )


def redo_withdrawals(tx: Tx, payout_ids: Collection[UUID]) -> None:
    """Put back on record what payouts took that had been given back, and turn out to be paid after all.

    `products.savings.forfeiture.leave` follows, as when their money left for the first time.
    """
    cursor(tx).execute(
        "UPDATE products.withdrawal SET undone_at = NULL WHERE payout_id = ANY (%b) AND left_at IS NULL",
        (list(payout_ids),),
    )


def _passed_on(tx: Tx, enrolment_id: UUID) -> int:
    """What a member has settled with an agency or a pool."""
    row = (
        cursor(tx)
        .execute(
            """SELECT coalesce(sum(amount), 0)::bigint FROM products.contribution
               WHERE enrolment_id = %s AND state = 'settled'""",
            (enrolment_id,),
        )
        .fetchone()
    )
    return 0 if row is None else int(row[0])


def _about_to_be_lost(tx: Tx, enrolment_id: UUID) -> int:
    """The match that payouts on their way will forfeit once they leave."""
    row = (
        cursor(tx)
        .execute(
            """SELECT coalesce(sum(forfeits), 0)::bigint FROM products.withdrawal
               WHERE enrolment_id = %s AND undone_at IS NULL AND left_at IS NULL""",
            (enrolment_id,),
        )
        .fetchone()
    )
    return 0 if row is None else int(row[0])


def _taken(tx: Tx, enrolment_id: UUID, on: date) -> tuple[Taken, ...]:
    rows = cursor(tx).execute(
        """SELECT way, savings, match, taken_on FROM products.withdrawal
           WHERE enrolment_id = %s AND undone_at IS NULL AND taken_on <= %s ORDER BY taken_on""",
        (enrolment_id, on),
    )
    return tuple(Taken(*row) for row in rows)


def _saved(tx: Tx, enrolment_id: UUID, since: date, years: int, on: date) -> tuple[int, ...]:
    """What was contributed in each of the first years, net of what was taken back; what came before counts in the first."""
    rows = cursor(tx).execute(
        """SELECT width_bucket(contributed_on, %b::date[]), sum(amount)::bigint FROM products.contribution
           WHERE enrolment_id = %s AND state <> 'reversed' AND contributed_on <= %s GROUP BY 1""",
        ([anniversary(since, year) for year in range(1, years + 1)], enrolment_id, on),
    )
    by_year: dict[int, int] = dict(rows)
    return tuple(by_year.get(year, 0) for year in range(years))
