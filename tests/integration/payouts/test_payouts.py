"""Payouts from request to their end: what each step holds and posts, what refuses them, and what two at once may have."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest

from ledger.errors import Conflict, MizanError, NotFound
from products.members import payees, registry
from products.members.payees import PayeeNotUsable
from products.payouts import cancel
from products.payouts.approve import refuse_release, release
from products.payouts.errors import (
    ApprovalDiffers,
    LimitReached,
    NameDiffers,
    NoRail,
    NotAvailable,
    QueueFull,
    WrongState,
)
from products.payouts.request import request
from products.payouts.terms import Arrival, Fee
from tests.integration.payouts.paying import LIMITS, Paying
from tests.racing import at_once
from tests.world import Person

FROM_500 = replace(LIMITS, amount_min=500)


def test_a_payout_is_held_captured_and_paid_and_each_step_posts_its_row_of_the_table(
    paying_on: Callable[..., Paying],
) -> None:
    paying = paying_on(fee=Fee(100, 50, "member"), limits=FROM_500, checks=True)
    person = paying.person()
    payee = paying.payee(person)
    payout = paying.ask(person, payee, 5_000)
    assert paying.state(payout) == "requested"
    (hold,) = paying.rows("SELECT * FROM ledger.hold")
    assert (hold["amount"], hold["state"], hold["expires_at"]) == (5_000, "active", None)
    paying.work.submit()
    assert (paying.state(payout), paying.row(payout)["payee_name"]) == ("awaiting_member", "matches")
    assert paying.postings(payout) == []
    paying.approve(person, payout)
    assert paying.work.submit() == 1
    assert paying.history(payout) == ["requested", "awaiting_member", "approved", "submitted", "paid"]
    # 1.00 and half a percent, rounded up: 125 of 5,000, which the payee does not get
    assert paying.postings(payout) == [
        ("payout_submitted", "member_savings", "payout_clearing", 4_875),
        ("payout_submitted", "member_savings", "fees_payable", 125),
        ("payout_paid", "payout_clearing", "bank", 4_875),
    ]
    assert paying.balance("member_savings") == 15_000
    told = paying.rows("SELECT payload FROM ledger.outbox WHERE topic = 'payout.changed' ORDER BY id")
    assert [one["payload"]["state"] for one in told] == paying.history(payout)


def test_what_fails_or_comes_back_is_put_where_it_came_from_with_the_fee(
    paying_on: Callable[..., Paying],
) -> None:
    paying = paying_on(fee=Fee(100, 0, "member"), limits=FROM_500, funded="float", options={"fee": 7})
    person = paying.person()
    payee = paying.payee(person)
    failed = paying.approved(person, payee, 5_121)  # 5,021 to the payee: unknown to the rail
    returned = paying.approved(person, payee, 3_151)
    paying.work.submit()
    assert paying.state(failed) == "failed: payee_unknown"
    assert paying.postings(failed) == [
        ("payout_submitted", "member_savings", "payout_clearing", 5_021),
        ("payout_submitted", "member_savings", "fees_payable", 100),
        ("payout_failed", "payout_clearing", "member_savings", 5_021),
        ("payout_failed", "fees_payable", "member_savings", 100),
    ]
    assert paying.state(returned) == "paid"
    paying.clock.advance(timedelta(days=3))
    paying.work.ask()
    assert paying.state(returned) == "returned: payee_closed"
    assert paying.postings(returned) == [
        ("payout_submitted", "member_savings", "payout_clearing", 3_051),
        ("payout_submitted", "member_savings", "fees_payable", 100),
        ("payout_paid", "payout_clearing", "rail_float", 3_051),
        ("payout_charged", "payout_charges", "rail_float", 7),
        ("payout_returned", "rail_float", "member_savings", 3_051),
        ("payout_returned", "fees_payable", "member_savings", 100),
    ]
    assert (paying.balance("member_savings"), paying.balance("fees_payable")) == (20_000, 0)
    # and the member may ask for all of it again
    paying.ask(person, payee, 20_000)


def test_what_is_cancelled_or_not_approved_in_time_is_released(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    cancelled, forgotten = paying.ask(person, payee, 5_000), paying.ask(person, payee, 6_000)
    paying.databases.worker.run(
        lambda tx: cancel.cancel(
            tx, paying.world.books, cancelled, reason="cancelled_by_member", actor="mem_x"
        )
    )
    assert paying.state(cancelled) == "cancelled: cancelled_by_member"
    paying.clock.advance(timedelta(days=7) - timedelta(seconds=1))
    assert paying.work.expire() == 0
    paying.clock.advance(timedelta(seconds=1))
    with pytest.raises(WrongState, match="expired"):
        paying.approve(person, forgotten)
    assert paying.work.expire() == 1
    assert paying.state(forgotten) == "cancelled: not_approved"
    paid = paying.approved(person, payee, 20_000)  # all of it is there again
    paying.work.submit()
    with pytest.raises(WrongState, match="is paid"):
        paying.databases.worker.run(
            lambda tx: cancel.cancel(tx, paying.world.books, paid, reason="mistake", actor="mem_x")
        )


def test_a_refusal_says_why_and_when_it_changes(paying: Paying) -> None:
    person = paying.person(birth_date=date(1990, 5, 1))
    payee = paying.payee(person)
    with pytest.raises(NotAvailable) as refused:
        paying.ask(person, payee, 1_000)
    # EjoHeza opens at 55: 1 May 2045
    assert (refused.value.reason, refused.value.until, refused.value.available) == (
        "before_age_55",
        date(2045, 5, 1),
        0,
    )
    old = paying.person(2)
    theirs = paying.payee(old)
    paying.ask(old, theirs, 15_000)
    with pytest.raises(NotAvailable) as refused:
        paying.ask(old, theirs, 6_000)
    assert (refused.value.reason, refused.value.available) == ("held", 5_000)
    with pytest.raises(NotFound):
        paying.ask(old, payee, 1_000)  # another member's payee
    with pytest.raises(NotAvailable) as refused:
        paying.ask(old, theirs, 1, product=None)
    assert (refused.value.reason, refused.value.available) == ("not_enough", 0)


def test_money_that_fitted_no_product_is_paid_out_too(paying: Paying) -> None:
    person = paying.person(saved=0)
    paying.world.send(paying.partner, paying.world.completed(person, received=100_000, collected=20_000))
    unapplied = paying.balance("member_unapplied")
    assert unapplied > 0
    payee = paying.payee(person)
    payout = paying.approved(person, payee, unapplied, product=None)
    paying.work.submit()
    assert paying.postings(payout)[0] == (
        "payout_submitted",
        "member_unapplied",
        "payout_clearing",
        unapplied,
    )
    assert paying.balance("member_unapplied") == 0


def test_a_new_payee_waits_and_one_that_is_removed_is_paid_no_more_at_any_step(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person, waited=False)
    with pytest.raises(PayeeNotUsable, match="2026-03-05 09:30 UTC"):
        paying.ask(person, payee, 1_000)
    paying.clock.advance(timedelta(hours=72))
    asked, approved = paying.ask(person, payee, 1_000), paying.approved(person, payee, 2_000)
    with paying.databases.worker.begin() as tx:
        member = registry.find(tx, paying.world.books.keyring, person.link_id)
        payees.remove(tx, paying.world.books.keyring, member, payee, paying.clock.now())
    with pytest.raises(PayeeNotUsable):
        paying.approve(person, asked)
    assert paying.work.submit() == 0
    assert paying.state(approved) == "cancelled: payee_removed"
    with paying.databases.worker.begin() as tx:
        cancel.cancel(tx, paying.world.books, asked, reason="cancelled_by_member", actor="mem_x")
    again = paying.payee(person, ending="3457")
    approved = paying.approved(person, again, 20_000)
    with paying.databases.worker.begin() as tx:
        tx.exec_driver_sql(
            "UPDATE products.member_link SET ended_at = now() WHERE id = %s", (person.link_id,)
        )
    assert paying.work.submit() == 0
    assert paying.state(approved) == "cancelled: link_ended"


def test_the_approval_names_payee_amount_and_fee_as_shown(paying_on: Callable[..., Paying]) -> None:
    paying = paying_on(fee=Fee(10, 0, "member"), limits=FROM_500, checks=True)
    person = paying.person()
    payee = paying.payee(person)
    other = paying.payee(person, ending="9961")
    payout = paying.ask(person, payee, 5_000)
    with pytest.raises(WrongState, match="requested"):
        paying.approve(person, payout)
    paying.work.submit()
    for changes in ({"amount": 5_001}, {"fee": 0}, {"payee_id": other}):
        with pytest.raises(ApprovalDiffers):
            paying.approve(person, payout, **changes)
    stranger = paying.person(2)
    with pytest.raises(NotFound):
        paying.approve(stranger, payout)
    paying.approve(person, payout)
    with pytest.raises(WrongState):
        paying.approve(person, payout)
    differing = paying.ask(person, other, 5_000)
    paying.work.submit()
    assert paying.row(differing)["payee_name"] == "differs"
    with pytest.raises(NameDiffers):
        paying.approve(person, differing)
    paying.approve(person, differing, accepts_name=True)
    unreachable = paying.payee(person, ending="9962")
    lost = paying.ask(person, unreachable, 1_000)
    paying.work.submit()
    assert paying.state(lost) == "cancelled: payee_unreachable"


def test_limits_of_the_rail_the_day_and_the_level_are_kept_and_say_when_they_end(
    paying_on: Callable[..., Paying],
) -> None:
    paying = paying_on(
        limits=replace(LIMITS, amount_min=100, amount_max=9_000, per_member_day=10_000, per_day=12_000)
    )
    aline, nobody, other = paying.person(), paying.person(2, level=None), paying.person(3)
    payee_of = {one.link_id: paying.payee(one, waited=False) for one in (aline, nobody, other)}
    paying.clock.advance(timedelta(hours=72))  # to 5 March

    def refusal(person: Person, amount: int) -> tuple[str, date | None, int | None]:
        with pytest.raises(LimitReached) as refused:
            paying.ask(person, payee_of[person.link_id], amount)
        return refused.value.reason, refused.value.until, refused.value.available

    tomorrow = date(2026, 3, 6)
    assert refusal(aline, 99) == ("below_minimum", None, None)
    assert refusal(aline, 9_001) == ("above_maximum", None, 9_000)
    assert refusal(nobody, 100) == ("verification_level", None, 0)
    first = paying.ask(aline, payee_of[aline.link_id], 9_000)
    assert refusal(aline, 1_001) == ("member_day", tomorrow, 1_000)
    assert refusal(other, 3_001) == ("rail_day", tomorrow, 3_000)
    with paying.databases.worker.begin() as tx:
        cancel.cancel(tx, paying.world.books, first, reason="cancelled_by_member", actor="mem_x")
    paying.ask(other, payee_of[other.link_id], 9_000)
    paying.clock.advance(timedelta(days=1))
    paying.ask(aline, payee_of[aline.link_id], 9_000)


def test_the_queue_of_a_rail_is_limited(paying_on: Callable[..., Paying]) -> None:
    paying = paying_on(limits=replace(LIMITS, queue_max=2))
    person = paying.person()
    payee = paying.payee(person)
    for _ in range(2):
        paying.approved(person, payee, 1_000)
    with pytest.raises(QueueFull):
        paying.ask(person, payee, 1_000)
    paying.work.submit()
    paying.ask(person, payee, 1_000)
    with pytest.raises(NoRail):
        paying.ask(person, payee, 1_000, rail="elsewhere")


def test_above_a_limit_operators_release_or_refuse(paying_on: Callable[..., Paying]) -> None:
    paying = paying_on(limits=replace(LIMITS, release_above=4_999))
    person = paying.person()
    payee = paying.payee(person)
    below, above, refused = (paying.approved(person, payee, amount) for amount in (4_999, 5_000, 6_000))
    assert [paying.state(one) for one in (below, above)] == ["approved", "awaiting_operators"]
    books = paying.world.books
    paying.databases.worker.run(lambda tx: release(tx, books, above, actor="opr_2"))
    paying.databases.worker.run(lambda tx: refuse_release(tx, books, refused, actor="opr_2"))
    with pytest.raises(WrongState):
        paying.databases.worker.run(lambda tx: release(tx, books, refused, actor="opr_2"))
    assert paying.state(refused) == "cancelled: refused_by_operators"
    assert paying.work.submit() == 2


def test_two_at_once_never_get_more_than_is_there(paying: Paying) -> None:
    person = paying.person()
    payee = paying.payee(person)
    books = paying.world.books

    answers: list[str] = []

    def ask() -> None:
        try:
            paying.databases.worker.run(lambda tx: request(tx, books, paying.asking(person, payee, 6_000)))
            answers.append("held")
        except Conflict as refused:
            answers.append(refused.code)

    at_once(*[ask] * 5)
    assert sorted(answers) == ["held"] * 3 + ["payout_not_available"] * 2
    (row,) = paying.rows("SELECT sum(held)::bigint AS held FROM ledger.account_balance")
    assert row["held"] == 18_000
    # and in one set, in order
    many = [paying.asking(person, payee, amount) for amount in (3_000, 2_000, 1)]
    answered = paying.ask_many(*many)
    assert [isinstance(one, MizanError) for one in answered] == [True, False, True]


def test_a_payout_arrives_on_business_days_where_its_rail_counts_them(
    paying_on: Callable[..., Paying],
) -> None:
    paying = paying_on(arrival=Arrival("business_days", 1, 2, ("RW",)))
    person = paying.person()
    payee = paying.payee(person)  # Thursday, 5 March 2026, 11:30 in Kigali
    row = paying.row(paying.ask(person, payee, 1_000))
    assert (row["arrival_earliest"].isoformat(), row["arrival_latest"].isoformat()) == (
        "2026-03-05T22:00:00+00:00",
        "2026-03-09T21:59:59+00:00",
    )
