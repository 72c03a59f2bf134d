"""Giving a quote: the same rules as a remittance, run without posting anything."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.errors import InvalidInput, NotFound
from ledger.ids import new_id
from ledger.money import Money
from products.members.batch import load_members
from products.members.models import MandateRequired
from products.remittances import instalments, monthly, quotes
from products.remittances.context import Books, load_context, load_enrolments
from products.remittances.events import MemberKey, RemittanceCompleted
from products.remittances.plan import Leg, Plan, plan
from products.savings import rules


class NotQuotable(InvalidInput):
    """The remittance could not be taken; the code says why, as it would when the event came."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this remittance could not be taken: {reason}", code=reason)


@dataclass(frozen=True, slots=True)
class Part:
    """What one product would get, and by how much its match would grow; minor units of the programme's currency."""

    product: str
    amount: int
    entitled: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A quote as the send screen shows it. ``collect_sent`` is what to take in the currency sent, rounded up."""

    id: UUID
    link_id: UUID
    received: Money
    collect: Money
    collect_sent: Money
    parts: tuple[Part, ...]
    unapplied: Money
    expires_at: datetime


def give(
    tx: Tx,
    books: Books,
    partner_id: UUID,
    *,
    member: MemberKey,
    sent: Money,
    received: Money,
    origin_country: str,
    destination_country: str,
    valid_for: timedelta = quotes.VALID_FOR,
) -> Offer:
    """Quote a remittance: what the rules would collect, where it would go, and the match that it would earn now.

    Raises `NotFound` for a member whom the partner doesn't know, `MandateRequired` for one without a mandate in force,
    `NotQuotable` for what could not be taken.
    """
    if sent.amount <= 0 or received.amount <= 0:
        raise InvalidInput("a remittance has a positive amount", pointer="/received/amount")
    now = books.clock.now()
    event = RemittanceCompleted(
        "", member, sent, received, None, None, origin_country, destination_country, now, None
    )
    context = load_context(tx, books, [partner_id]).collecting_by_rule()
    members = load_members(tx, books.keyring, [(partner_id, member)]).get((partner_id, member), [])
    enrolments = load_enrolments(tx, [one.member_id for one in members])
    decided = plan(
        event,
        partner_id=partner_id,
        context=context,
        members=members,
        enrolments=enrolments,
        collect_by_quote=None,
        paid=instalments.read(tx, context, enrolments),
        contributed=monthly.read(tx, context, members, enrolments, now.date()),
        now=now,
    )
    if decided.reason == "member_unknown":
        raise NotFound("There is no such member.")
    if decided.joined is None or decided.member is None:
        raise NotQuotable(decided.reason or decided.status)
    if decided.member.mandate_at(now) is None:
        raise MandateRequired("No mandate of the member is in force: nothing may be deducted.")
    currency = decided.joined.currency
    offer = Offer(
        new_id(),
        decided.member.link_id,
        received,
        Money(decided.collected, currency),
        Money(-(-decided.collected * sent.amount // received.amount), sent.currency),
        tuple(_part(tx, leg) for leg in decided.legs if leg.product is not None),
        Money(decided.unapplied, currency),
        now + valid_for,
    )
    _keep(tx, offer, decided, partner_id, sent, now)
    return offer


def _part(tx: Tx, leg: Leg) -> Part:
    """A leg with the rise in entitlement that it would bring on top of what is recorded now."""
    if leg.match is None or leg.window is None or leg.tier is None or leg.product is None:
        return Part(leg.product or "", leg.amount, 0)
    row = (
        cursor(tx)
        .execute(
            "SELECT by_tier FROM products.match_state WHERE enrolment_id = %s AND window_start = %s",
            (leg.enrolment, leg.window.start),
        )
        .fetchone()
    )
    before = {} if row is None else {at - 1: total for at, total in enumerate(row[0])}
    after = {**before, leg.tier: before.get(leg.tier, 0) + leg.amount}
    rise = rules.entitlement(leg.match, after) - rules.entitlement(leg.match, before)
    return Part(leg.product, leg.amount, rise)


def _keep(tx: Tx, offer: Offer, decided: Plan, partner_id: UUID, sent: Money, now: datetime) -> None:
    if decided.joined is None or decided.member is None or decided.rule_version is None:
        raise LookupError("only a decided remittance is quoted")
    quote = quotes.Quote(
        offer.id, partner_id, offer.link_id, sent, offer.received, offer.collect, now, offer.expires_at, None
    )
    shown: dict[str, Any] = {
        "parts": [[part.product, part.amount, part.entitled] for part in offer.parts],
        "trace": decided.trace,
    }
    quotes.write(
        tx,
        quote,
        programme_id=decided.joined.programme_id,
        rule_version=decided.rule_version,
        member_id=decided.member.member_id,
        answer=shown,
    )
