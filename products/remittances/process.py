"""The main job: a batch of remittance events becomes ledger postings, match and messages, in one database transaction.

The order is the project's one lock order: claims on remittances (sorted), enrolments whose instalments are counted,
match states (sorted), then what `ledger.posting.post` locks. Rules are pure and see only what was loaded before.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from ledger.database import Tx
from ledger.errors import MizanError
from ledger.ids import new_id, public_id
from ledger.outbox import Message, publish
from ledger.periods import open_day
from ledger.posting import Outcome, Posting, Transaction, post
from products import chart
from products.members.batch import load_members
from products.posting import MOVED, BooksRefused
from products.remittances import instalments, monthly, quotes, record, reverse
from products.remittances.context import Books, Context, Joined, load_context, load_enrolments
from products.remittances.events import Event, RemittanceCompleted, RemittanceReversed, canonical
from products.remittances.models import Contributed, Existing
from products.remittances.plan import Leg, Plan, plan, within_partners_means
from products.remittances.record import Recorded
from products.remittances.reverse import Reversible
from products.savings import rules
from products.savings.match import MatchBook, StateKey
from products.settlements.undo import undo

State = Literal["posted", "duplicate", "reversed", "unallocated", "quarantined", "parked"]

ATTEMPTS_MAX = 4
"""How often a batch is laid out anew when an account that many share ran out between reading and posting."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An authentic, well-formed event of a partner.

    ``id``: its row in the inbox, None for one that the partner sends synchronously and sends again itself. ``approved``:
    a manager lets what is settled be reversed.
    """

    id: UUID | None
    partner_id: UUID
    event: Event
    approved: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a delivery. ``reason`` is a code of the outcomes' catalogue where there is something to say."""

    state: State
    reason: str | None
    remittance: UUID | None


class _LayOutAgain(MizanError):
    """The books moved between reading and posting; these accounts refused."""

    code = "books_moved"
    status = 409

    def __init__(self, accounts: set[UUID]) -> None:
        super().__init__("the books moved while a batch was laid out")
        self.accounts = accounts


@dataclass(slots=True)
class _Work:
    """One delivery on its way through a turn."""

    delivery: Delivery
    id: UUID
    existing: Existing | None
    digest: bytes
    verdict: Verdict | None = None
    plan: Plan | None = None
    reversible: Reversible | None = None
    joined: Joined | None = None
    quote_id: UUID | None = None
    transaction_id: UUID | None = None
    entitled: tuple[int, ...] = ()


def process(tx: Tx, deliveries: Sequence[Delivery], *, books: Books) -> list[Verdict]:
    """Take a batch of deliveries, in order; answers one verdict each.

    Everything lands or nothing does: the caller commits. Events of one remittance within the batch are taken one after
    the other, so that each sees what the one before it did.
    """
    verdicts: dict[int, Verdict] = {}
    for turn in _turns(deliveries):
        verdicts.update(zip(turn, _take(tx, [deliveries[position] for position in turn], books), strict=True))
    return [verdicts[position] for position in range(len(deliveries))]


def _turns(deliveries: Sequence[Delivery]) -> Iterator[list[int]]:
    """Positions, cut into turns in which no remittance occurs twice."""
    rest = list(range(len(deliveries)))
    while rest:
        seen: set[tuple[UUID, str]] = set()
        turn: list[int] = []
        later: list[int] = []
        for position in rest:
            delivery = deliveries[position]
            key = (delivery.partner_id, delivery.event.remittance_id)
            (later if key in seen else turn).append(position)
            seen.add(key)
        yield turn
        rest = later


def _take(tx: Tx, batch: Sequence[Delivery], books: Books) -> list[Verdict]:
    claims = record.claim(tx, [(one.partner_id, one.event.remittance_id) for one in batch])
    existing = record.load_existing(tx, [claim.id for claim in claims if not claim.new])
    exhausted: set[UUID] = set()
    for _ in range(ATTEMPTS_MAX):
        works = [
            _Work(one, claim.id, existing.get(claim.id), hashlib.sha256(canonical(one.event)).digest())
            for one, claim in zip(batch, claims, strict=True)
        ]
        attempt = tx.begin_nested()
        try:
            _lay_out(tx, works, books, exhausted)
        except _LayOutAgain as again:
            attempt.rollback()
            exhausted |= again.accounts
        except BaseException:
            attempt.rollback()
            raise
        else:
            attempt.commit()
            return [work.verdict for work in works if work.verdict is not None]
    raise _LayOutAgain(exhausted)


def _lay_out(tx: Tx, works: Sequence[_Work], books: Books, exhausted: set[UUID]) -> None:
    for work in works:
        _judge_known(work)
    context = load_context(tx, books, (work.delivery.partner_id for work in works))
    context.exhaust(exhausted)
    _plan(tx, works, context, books)
    _load_reversible(tx, works, context, books)

    match_books = {id_: MatchBook(sponsors) for id_, sponsors in context.sponsors.items()}
    for programme_id, wanted in sorted(_wanted_states(works).items()):
        match_books[programme_id].lock(tx, wanted)
    _defer_tiers(works, match_books)

    days = _OpenDays(tx)
    transactions = [_transaction(work, context, match_books, days) for work in works]
    batch = [transaction for transaction in transactions if transaction is not None]
    _write(tx, works, match_books, books)
    # Last, as it locks the accounts that every batch needs: from here to the commit nobody else posts to them.
    _check_posted(post(tx, batch, clock=books.clock))


def _judge_known(work: _Work) -> None:
    """Give what the record already answers its verdict."""
    reversal = isinstance(work.delivery.event, RemittanceReversed)
    answer = reverse.judge(work.existing) if reversal else record.judge(work.existing, work.digest)
    if answer is not None:
        work.verdict = Verdict(answer[0], answer[1], work.id)


def _plan(tx: Tx, works: Sequence[_Work], context: Context, books: Books) -> None:
    """Decide the completed events that are not decided yet."""
    open_ = [
        (work, work.delivery.event)
        for work in works
        if work.verdict is None and isinstance(work.delivery.event, RemittanceCompleted)
    ]
    if not open_:
        return
    now = books.clock.now()
    members = load_members(
        tx, books.keyring, [(work.delivery.partner_id, event.member) for work, event in open_]
    )
    people = [one for found in members.values() for one in found]
    enrolments = load_enrolments(tx, sorted({one.member_id for one in people}))
    contributed = monthly.load(tx, context, people, enrolments, now.date())
    paid = instalments.load(tx, context, enrolments)
    quoted = quotes.load(tx, [event.quote_id for _, event in open_ if event.quote_id is not None])
    for work, event in open_:
        partner_id = work.delivery.partner_id
        named = members.get((partner_id, event.member), [])
        quote = quoted.get(event.quote_id) if event.quote_id else None
        collect = quotes.collect(quote, event, partner_id, named, work.id)
        decided = plan(
            event,
            partner_id=partner_id,
            context=context,
            members=named,
            enrolments=enrolments,
            collect_by_quote=collect,
            paid=paid,
            contributed=contributed,
            now=now,
        )
        before = None if work.existing is None else work.existing.status
        awaited = before == "awaiting_original"
        if decided.status in ("posted", "unallocated") and not awaited:
            decided = within_partners_means(decided, context, at_last=before == "unallocated")
        if quote is not None and collect is not None and decided.status != "quarantined":
            quoted[quote.id] = replace(quote, used_by=work.id)
            work.quote_id = quote.id
        work.plan = decided
        _count_month(contributed, decided, awaited)
        if decided.status == "quarantined":
            work.verdict = Verdict("quarantined", decided.reason, None)
        elif awaited:
            work.verdict = Verdict("reversed", None, work.id)
        elif decided.status == "parked":
            work.verdict = Verdict("parked", decided.reason, work.id)


def _count_month(contributed: monthly.Contributed, decided: Plan, awaited: bool) -> None:
    """Let what comes later in the batch see the room that a decided remittance takes; one reversed at once takes none."""
    if awaited or decided.status != "posted" or decided.member is None or decided.contributed_on is None:
        return
    for leg in decided.legs:
        if leg.enrolment is not None:
            contributed.add(
                decided.member.member_id, decided.member.partner_id, decided.contributed_on, leg.amount
            )


def _load_reversible(tx: Tx, works: Sequence[_Work], context: Context, books: Books) -> None:
    """Load what is to be taken back: by reversals, and by allocating at last what had no member."""
    wanted = [
        work.existing
        for work in works
        if work.existing is not None
        and (
            (work.verdict is None and isinstance(work.delivery.event, RemittanceReversed))
            or (work.plan is not None and work.existing.status == "unallocated")
        )
    ]
    found = reverse.load(tx, books, wanted)
    for work in works:
        if work.existing is None or work.existing.id not in found:
            continue
        work.reversible = found[work.existing.id]
        if work.plan is None and work.reversible.remitted:
            work.verdict = Verdict("quarantined", "remitted_to_agency", work.id)
            work.reversible = None
        elif work.plan is None and work.reversible.needs_approval and not work.delivery.approved:
            work.verdict = Verdict("parked", "reversal_needs_approval", work.id)
            work.reversible = None
        elif work.plan is None and work.existing.programme_id is not None:
            work.joined = context.joined_in(work.existing.partner_id, work.existing.programme_id)
            undone = undo(tx, work.joined, work.reversible.contributions)
            work.reversible = replace(work.reversible, undone=undone)


def _wanted_states(works: Sequence[_Work]) -> dict[UUID, dict[StateKey, tuple[date, int, int]]]:
    """The match states that change, by programme."""
    wanted: dict[UUID, dict[StateKey, tuple[date, int, int]]] = {}
    for work in works:
        if work.plan is not None and work.plan.joined is not None and work.verdict is None:
            for leg in work.plan.legs:
                if leg.state_key is not None:
                    wanted.setdefault(work.plan.joined.programme_id, {})[leg.state_key] = leg.lock_values
        elif work.reversible is not None:
            for key, holding in work.reversible.holdings.items():
                wanted.setdefault(holding.programme_id, {})[key] = holding.lock_values
    return wanted


def _defer_tiers(works: Sequence[_Work], match_books: Mapping[UUID, MatchBook]) -> None:
    """Leave the tier open where a window stands under other rules than the event was planned by: a job decides it."""
    if not any(match_book.outdated for match_book in match_books.values()):
        return
    for work in works:
        if work.plan is not None and work.plan.joined is not None:
            outdated = match_books[work.plan.joined.programme_id].outdated
            legs = tuple(
                replace(leg, tier=rules.UNMATCHED) if leg.state_key in outdated else leg
                for leg in work.plan.legs
            )
            work.plan = replace(work.plan, legs=legs)


class _OpenDays:
    """The books' date of an event: its local day, or the next open one; asked once per fund and day."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._known: dict[tuple[frozenset[UUID], date], date] = {}

    def of(self, funds: frozenset[UUID], day: date) -> date:
        """The first day from ``day`` on that is open in all these funds."""
        if (funds, day) not in self._known:
            self._known[funds, day] = open_day(self._tx, sorted(funds), day)
        return self._known[funds, day]


def _transaction(
    work: _Work, context: Context, match_books: Mapping[UUID, MatchBook], days: _OpenDays
) -> Transaction | None:
    """What a delivery posts, if anything; its match states have changed in memory after this."""
    if work.verdict is not None:
        return None
    if isinstance(work.delivery.event, RemittanceReversed):
        return _reversal(work, work.delivery.event, context, match_books, days)
    if work.plan is None or work.plan.joined is None:
        return None
    if (
        work.plan.status == "unallocated"
        and work.existing is not None
        and work.existing.status == "unallocated"
    ):
        work.verdict = Verdict("unallocated", work.plan.reason, work.id)
        return None
    return _allocation(work, work.plan, work.plan.joined, match_books, days)


def _allocation(
    work: _Work, decided: Plan, joined: Joined, match_books: Mapping[UUID, MatchBook], days: _OpenDays
) -> Transaction | None:
    work.verdict = Verdict("posted" if decided.status == "posted" else "unallocated", decided.reason, work.id)
    waiting = work.reversible.contributions if work.reversible is not None else ()
    settled = waiting[0].state == "settled" if waiting else joined.settles_at_once
    postings: list[Posting] = []
    entitled: list[int] = []
    for leg in decided.legs:
        credited = record.credited_account(leg, settled=settled)
        if waiting:
            postings += _out_of_unallocated(joined, leg, credited, waiting[0])
        else:
            postings += _money_in(joined, leg, credited)
        rise = 0
        if (
            leg.state_key is not None
            and leg.match is not None
            and leg.accounts is not None
            and leg.tier is not None
        ):
            moved, rise = match_books[joined.programme_id].change(
                leg.state_key,
                leg.match,
                leg.accounts,
                joined.currency,
                tier=leg.tier,
                contributed=leg.amount,
                settled=leg.amount if settled else 0,
                at=decided.event.completed_at,
            )
            postings += moved
        entitled.append(rise)
    work.entitled = tuple(entitled)
    if not postings or decided.contributed_on is None:
        return None
    work.transaction_id = new_id()
    reference = f"remittance:{work.id}" if not waiting else f"remittance:{work.id}:allocated"
    funds = frozenset(leg.fund for leg in decided.legs) | {joined.savers}
    return Transaction(
        reference=reference,
        kind="remittance_allocated" if decided.status == "posted" else "remittance_unallocated",
        effective_on=days.of(funds, decided.contributed_on),
        postings=tuple(postings),
        digest=work.digest,
        id=work.transaction_id,
        details={"remittance": public_id("rmt", work.id)},
    )


def _money_in(joined: Joined, leg: Leg, credited: UUID) -> list[Posting]:
    """What the partner collected enters a fund. A prefund lies with the savers, so other funds are owed theirs."""
    postings = [Posting(leg.debited, credited, leg.amount, joined.currency)]
    if joined.terms == "prefunded" and leg.fund != joined.savers:
        prefund = joined.account(joined.savers, chart.PARTNER_PREFUND)
        due_to = joined.account(joined.savers, chart.DUE_TO_FUNDS, "")
        postings.insert(0, Posting(prefund, due_to, leg.amount, joined.currency))
    return postings


def _out_of_unallocated(joined: Joined, leg: Leg, credited: UUID, waiting: Contributed) -> list[Posting]:
    """Money that had no member leaves the unallocated account; what another fund gets of it crosses over."""
    currency = joined.currency
    if leg.fund == joined.savers:
        return [Posting(waiting.credited, credited, leg.amount, currency)]
    if waiting.owed:
        return [
            Posting(waiting.credited, waiting.debited, leg.amount, currency),
            Posting(leg.debited, credited, leg.amount, currency),
        ]
    due_to = joined.account(joined.savers, chart.DUE_TO_FUNDS, "")
    due_from = joined.account(leg.fund, chart.DUE_FROM_FUNDS, "")
    return [
        Posting(waiting.credited, due_to, leg.amount, currency),
        Posting(due_from, credited, leg.amount, currency),
    ]


def _reversal(
    work: _Work,
    event: RemittanceReversed,
    context: Context,
    match_books: Mapping[UUID, MatchBook],
    days: _OpenDays,
) -> Transaction | None:
    if work.existing is None:
        work.verdict = Verdict("parked", "awaiting_original", work.id)
        return None
    work.verdict = Verdict("reversed", None, work.id)
    joined = work.joined
    if work.reversible is None or work.existing.transaction_id is None or joined is None:
        return None
    postings = reverse.postings(work.reversible, joined, match_books)
    if not postings:
        return None
    versions = context.versions[joined.programme_id]
    day = rules.local_date(versions[-1].programme, event.reversed_at)
    funds = frozenset(one.fund_id for one in work.reversible.contributions) | {joined.savers}
    funds |= work.reversible.undone.funds
    work.transaction_id = new_id()
    return Transaction(
        reference=f"remittance:{work.id}:reversed",
        kind="remittance_reversed",
        effective_on=days.of(funds, day),
        postings=postings,
        digest=work.digest,
        id=work.transaction_id,
        reverses=work.existing.transaction_id,
        details={"remittance": public_id("rmt", work.id)},
    )


def _check_posted(outcomes: Sequence[Outcome]) -> None:
    refused = [outcome for outcome in outcomes if outcome.status != "posted"]
    if not refused:
        return
    if all(outcome.reason in MOVED for outcome in refused):
        raise _LayOutAgain({outcome.account_id for outcome in refused if outcome.account_id is not None})
    raise BooksRefused(refused[0])


def _write(tx: Tx, works: Sequence[_Work], match_books: Mapping[UUID, MatchBook], books: Books) -> None:
    now = books.clock.now()
    recorded = [
        Recorded(
            id=work.id,
            partner_id=work.delivery.partner_id,
            delivery_id=work.delivery.id,
            plan=work.plan,
            digest=work.digest,
            member_key=record.member_index(books.keyring, work.delivery.partner_id, work.plan.event.member)
            if work.plan.status == "unallocated"
            else None,
            transaction_id=work.transaction_id,
            entitled=work.entitled,
            waiting=work.reversible.contributions if work.reversible is not None else (),
            existing=work.existing,
        )
        for work in works
        if work.plan is not None and work.plan.status != "quarantined" and not _unchanged(work)
    ]
    record.write(tx, recorded, now)
    record.write_waiting(tx, [(work.id, work.plan) for work in works if work.plan and _waits_elsewhere(work)])
    reversed_: list[tuple[UUID, UUID | None, datetime, str]] = []
    ahead: list[tuple[UUID, UUID, str, datetime, str, UUID | None]] = []
    for work in works:
        event = work.delivery.event
        if not isinstance(event, RemittanceReversed) or work.verdict is None:
            continue
        if work.verdict.state == "reversed":
            reversed_.append((work.id, work.transaction_id, event.reversed_at, event.reason))
        elif work.verdict.reason == "awaiting_original":
            partner_id = work.delivery.partner_id
            ahead.append(
                (work.id, partner_id, event.remittance_id, event.reversed_at, event.reason, work.delivery.id)
            )
    reverse.write(tx, reversed_)
    taken_back = [
        (work.reversible, work.joined)
        for work in works
        if work.reversible is not None and work.joined is not None and work.transaction_id is not None
    ]
    reverse.write_credits(tx, taken_back, now)
    reverse.write_ahead(tx, ahead, now)
    for programme_id in sorted(match_books):
        match_books[programme_id].save(tx, now)
    quotes.use(tx, {work.quote_id: work.id for work in works if work.quote_id is not None})
    publish(tx, [message for work in works if (message := _message(work)) is not None])


def _unchanged(work: _Work) -> bool:
    """Whether a remittance that waits was decided again and still waits for the same."""
    return (
        work.existing is not None
        and work.plan is not None
        and work.existing.status == work.plan.status
        and work.plan.status in ("unallocated", "parked")
    )


def _waits_elsewhere(work: _Work) -> bool:
    """Whether a remittance that goes on waiting waits for another account's limit than it did."""
    if not _unchanged(work) or work.existing is None or work.plan is None:
        return False
    account = work.plan.no_room.account if work.plan.no_room else None
    return account != work.existing.parked_account


def _message(work: _Work) -> Message | None:
    """What the partner's systems are told of a remittance: decided, reversed; nothing where nothing happened."""
    if work.verdict is None or work.verdict.state in ("duplicate", "quarantined"):
        return None
    payload: dict[str, object] = {
        "remittance": public_id("rmt", work.id),
        "partner": public_id("ptn", work.delivery.partner_id),
        "status": work.verdict.state,
    }
    if work.verdict.reason is not None:
        payload["reason"] = work.verdict.reason
    key = work.id
    if work.plan is not None and work.plan.member is not None:
        key = work.plan.member.link_id
        payload["member"] = public_id("mem", key)
        payload["allocations"] = [
            {"product": leg.product, "amount": leg.amount, "entitled": rise}
            for leg, rise in zip(work.plan.legs, work.entitled, strict=False)
            if leg.product is not None
        ]
    elif work.existing is not None and work.existing.link_id is not None:
        key = work.existing.link_id
        payload["member"] = public_id("mem", key)
    topic = "remittance.reversed" if work.verdict.state == "reversed" else "remittance.allocated"
    return Message(topic, str(key), payload)
