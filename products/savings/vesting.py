"""Match becomes the member's own: by age, by years of membership, or at once. What has vested never falls by itself.

A job looks at what was granted since, and at what an age or an anniversary frees (`match_share.vests_on`); whoever asks for a
payout does so first (`vest`), so that a late job costs nobody anything. Posting table: *match unvested | match vested*.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Final
from uuid import UUID

from ledger import periods
from ledger.database import Tx, cursor
from ledger.ids import new_id, public_id
from ledger.outbox import Message, publish
from ledger.posting import Posting, Transaction
from products.members.batch import birth_dates
from products.posting import post_whole
from products.programmes.model import Match, VestingStep
from products.remittances.context import Books
from products.savings import withdrawals
from products.savings.holdings import Holding, load_holdings
from products.savings.match import MatchBook, StateKey
from products.savings.rules import anniversary, local_date

ENROLMENTS_MAX: Final = 500
"""Enrolments whose match is looked at in one database transaction, each in all its windows."""

NEVER: Final = date.max


def vested_share(match: Match, *, since: date, birth_date: date | None, on: date) -> Fraction:
    """The part of what was granted that is the member's own on a day: the greatest of the steps reached."""
    if not match.vesting or match.into == "member_bank_account":
        return Fraction(1)
    reached = [step.vested for step in match.vesting if _reached_on(step, since, birth_date) <= on]
    return max(reached, default=Fraction(0))


def vests_next(match: Match, *, since: date, birth_date: date | None, on: date) -> date:
    """The first day after this one on which time makes more of it the member's; `NEVER` where nothing is to come."""
    now = vested_share(match, since=since, birth_date=birth_date, on=on)
    days = (_reached_on(step, since, birth_date) for step in match.vesting if step.vested > now)
    return min((day for day in days if day > on), default=NEVER) if now < 1 else NEVER


def _reached_on(step: VestingStep, since: date, birth_date: date | None) -> date:
    """The day a step is reached: at its age or after its years, whichever is first."""
    days = [NEVER]
    if step.after_years is not None:
        days.append(anniversary(since, step.after_years))
    if step.from_age is not None and birth_date is not None:
        days.append(anniversary(birth_date, step.from_age))
    return min(days)


def vest_due(tx: Tx, books: Books, *, limit: int = ENROLMENTS_MAX) -> int:
    """Vest what is due of up to ``limit`` enrolments; answers how many were looked at. 0: nothing is due.

    One such job at a time, another answers 0; stopping it anywhere loses nothing.
    """
    cur = cursor(tx)
    cur.execute("SELECT pg_try_advisory_xact_lock(hashtextextended('products.savings.vesting', 4712))")
    if cur.fetchone() != (True,):
        return 0
    now = books.clock.now()
    cur.execute(
        """SELECT DISTINCT h.enrolment_id FROM products.match_share h
           JOIN products.enrolment e ON e.id = h.enrolment_id JOIN products.programme g ON g.id = e.programme_id
           WHERE h.unvested > 0 AND h.vests_on <= (%(now)s::timestamptz AT TIME ZONE 'Etc/GMT-14')::date
             AND h.vests_on <= (%(now)s::timestamptz AT TIME ZONE g.time_zone)::date
           ORDER BY 1 LIMIT %(limit)s""",
        {"now": now, "limit": limit},
    )
    due = [row[0] for row in cur.fetchall()]
    if due:
        vest(tx, books, due)
    return len(due)


def vest(tx: Tx, books: Books, enrolments: Collection[UUID], *, holding: Collection[UUID] = ()) -> int:
    """Vest what these enrolments have due; answers the amount, in minor units. One statement where nothing is.

    For who is about to hold what has vested, with their rows locked. ``holding``: the accounts that ``tx`` locks next; they
    are locked in one order with those that this posts to.
    """
    now = books.clock.now()
    # The zone that is first to reach a day: which windows are due in their own zone is looked at one by one.
    rows = cursor(tx).execute(
        """SELECT DISTINCT enrolment_id, window_start FROM products.match_share
           WHERE enrolment_id = ANY (%b::uuid[]) AND unvested > 0
             AND vests_on <= (%b::timestamptz AT TIME ZONE 'Etc/GMT-14')::date ORDER BY 1, 2""",
        (list(enrolments), now),
    )
    return _vest(tx, books, list(rows), now, holding)


@dataclass(frozen=True, slots=True)
class _Vested:
    holding: Holding
    amount: int


def _vest(
    tx: Tx, books: Books, keys: Sequence[StateKey], now: datetime, holding: Collection[UUID] = ()
) -> int:
    if not keys:
        return 0
    holdings = load_holdings(tx, books.programmes, keys)
    by_programme: defaultdict[UUID, list[StateKey]] = defaultdict(list)
    for key in sorted(holdings):
        by_programme[holdings[key].programme_id].append(key)
    joined = _joined(tx, books, holdings)
    born = birth_dates(
        tx,
        books.keyring,
        {one.member_id for one in holdings.values() if any(step.from_age for step in one.match.vesting)},
    )
    due: list[tuple[StateKey, date]] = []
    postings: defaultdict[UUID, list[Posting]] = defaultdict(list)
    vested: dict[UUID, _Vested] = {}
    match_books: list[MatchBook] = []
    for programme_id in sorted(by_programme):
        match_book = MatchBook({})
        match_book.lock(tx, {key: holdings[key].lock_values for key in by_programme[programme_id]})
        match_books.append(match_book)
        versions = books.programmes.versions(tx, programme_id)
        today = local_date(versions[-1].programme, now)
        for key in by_programme[programme_id]:
            one = holdings[key]
            since, birth_date = joined[key[0]], born.get(one.member_id)
            share = vested_share(one.match, since=since, birth_date=birth_date, on=today)
            moved, amount = match_book.vest(key, share, one.accounts, one.currency)
            due.append((key, vests_next(one.match, since=since, birth_date=birth_date, on=today)))
            if amount:
                postings[key[0]] += moved
                before = vested.get(key[0])
                vested[key[0]] = _Vested(one, amount + (before.amount if before else 0))
    if vested and holding:
        posted_to = {account for one in postings.values() for p in one for account in (p.debit, p.credit)}
        cursor(tx).execute("SELECT ledger.lock_accounts(%b::uuid[])", (sorted({*holding, *posted_to}),))
    post_whole(
        tx,
        [_transaction(tx, one.holding, postings[id_], now) for id_, one in sorted(vested.items())],
        clock=books.clock,
    )
    for match_book in match_books:
        match_book.save(tx, now)
    _look_again(tx, due)
    _tell(tx, vested, now)
    return sum(one.amount for one in vested.values())


def _transaction(tx: Tx, one: Holding, moved: Sequence[Posting], now: datetime) -> Transaction:
    id_ = new_id()
    amount = sum(posting.amount for posting in moved)
    day = periods.effective_day(now, one.time_zone)
    return Transaction(
        reference=f"match-vested:{id_}",
        kind="match_vested",
        effective_on=periods.open_day(tx, [one.fund_id], day),
        postings=(Posting(one.accounts.unvested, one.accounts.vested, amount, one.currency),),
        digest=hashlib.sha256(f"{one.enrolment_id}|{amount}|{id_}".encode()).digest(),
        id=id_,
        details={"enrolment": public_id("enr", one.enrolment_id)},
    )


def _joined(tx: Tx, books: Books, holdings: dict[StateKey, Holding]) -> dict[UUID, date]:
    """From when each enrolment's years of membership count."""
    enrolled: dict[UUID, date] = dict(
        cursor(tx).execute(
            "SELECT id, enrolled_on FROM products.enrolment WHERE id = ANY (%b::uuid[])",
            (sorted({key[0] for key in holdings}),),
        )
    )
    for one in holdings.values():
        versions = books.programmes.versions(tx, one.programme_id)
        rule = next(v.programme for v in versions if v.version == one.rule_version).product(one.product)
        if rule.term is not None:
            enrolled[one.enrolment_id] = withdrawals.member_since(
                tx, rule, one.enrolment_id, enrolled[one.enrolment_id]
            )
    return enrolled


def _look_again(tx: Tx, due: Sequence[tuple[StateKey, date]]) -> None:
    cursor(tx).execute(
        """UPDATE products.match_share h SET vests_on = t.d
           FROM unnest(%b::uuid[], %b::date[], %b::date[]) AS t (e, w, d)
           WHERE h.enrolment_id = t.e AND h.window_start = t.w AND h.vests_on IS DISTINCT FROM t.d""",
        ([key[0] for key, _ in due], [key[1] for key, _ in due], [day for _, day in due]),
    )


def _tell(tx: Tx, vested: dict[UUID, _Vested], now: datetime) -> None:
    links: dict[tuple[UUID, UUID], UUID] = {
        (member, partner): link
        for link, member, partner in cursor(tx).execute(
            "SELECT id, member_id, partner_id FROM products.member_link WHERE member_id = ANY (%b::uuid[])",
            ([one.holding.member_id for one in vested.values()],),
        )
    }
    messages: list[Message] = []
    for enrolment, one in sorted(vested.items()):
        holding = one.holding
        link = links.get((holding.member_id, holding.partner_id))
        if link is None:
            continue
        messages.append(
            Message(
                "match.vested",
                str(link),
                {
                    "partner": public_id("ptn", holding.partner_id),
                    "member": public_id("mem", link),
                    "enrolment": public_id("enr", enrolment),
                    "product": holding.product,
                    "amount": {"amount": one.amount, "currency": holding.currency},
                    "at": now.isoformat(),
                },
            )
        )
    publish(tx, messages)
