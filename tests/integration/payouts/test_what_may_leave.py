"""What may leave is what is there, the member's, and not owed: vested in time, paid in by the partner, net of debts."""

from functools import partial
from uuid import UUID

import pytest

from products.members import registry, verification
from products.payouts import registry as rails
from products.payouts.approve import Approval, approve
from products.payouts.errors import NotAvailable
from products.payouts.registry import NewRail
from products.payouts.request import NewPayout, request
from products.payouts.terms import Arrival, Fee
from products.savings.queries import member_balances
from products.settlements import returns
from tests.integration.payouts.paying import LIMITS, Paying
from tests.integration.remittances.seen import journal
from tests.integration.savings.taking import another
from tests.racing import at_once
from tests.world import Person


def refused(
    paying: Paying, person: Person, payee: UUID, amount: int, **more: object
) -> tuple[str, int | None]:
    """Why so much is refused, and what may be had instead."""
    with pytest.raises(NotAvailable) as why:
        paying.ask(person, payee, amount, **more)
    return why.value.reason, why.value.available


def test_match_that_is_due_is_the_members_though_no_job_has_vested_it(paying: Paying) -> None:
    paying.world.fund(1_000_000)
    person = paying.person()
    payee = paying.payee(person)
    assert (paying.balance("match_unvested"), paying.balance("match_vested")) == (10_000, 0)
    payout = paying.approved(person, payee, 30_000)
    assert (paying.balance("match_unvested"), paying.balance("match_vested")) == (0, 10_000)
    paying.work.submit()
    assert paying.state(payout) == "paid"
    assert paying.balance("match_vested") == 0


def test_savings_and_vested_match_leave_in_two_parts_and_each_comes_back_to_its_own(paying: Paying) -> None:
    paying.world.fund(1_000_000)
    person = paying.person()
    payee = paying.payee(person)
    payout = paying.approved(person, payee, 25_021)  # all that was saved, and match: unknown to the rail
    paying.work.submit()
    assert paying.state(payout) == "failed: payee_unknown"
    assert paying.postings(payout) == [
        ("payout_submitted", "member_savings", "payout_clearing", 20_000),
        ("payout_submitted", "match_vested", "payout_clearing", 5_021),
        ("payout_failed", "payout_clearing", "member_savings", 20_000),
        ("payout_failed", "payout_clearing", "match_vested", 5_021),
    ]
    assert (paying.balance("member_savings"), paying.balance("match_vested")) == (20_000, 10_000)
    paying.ask(person, payee, 30_000)  # and all of it may be asked for again


def test_a_way_out_that_forfeits_match_loses_it_with_the_money_and_has_it_back_if_that_fails(
    paying: Paying,
) -> None:
    world = paying.world
    partner = world.partner("bolt", programme="pm-sym", terms="guaranteed")
    world.fund(10_000_000, programme="pm-sym", sponsor="gov-in")
    one = another(world, partner, "pm-sym")
    one.save(partner, 15_000)
    terms = NewRail("inr", "simulator", ("mobile_money",), False, "bank", Fee(0, 0, "fund"), Arrival("minutes", 0, 5, ()), LIMITS, {})  # fmt: skip
    with paying.databases.worker.begin() as tx:
        rails.create(tx, world.programmes["pm-sym"], terms, clock=paying.clock)
        member = registry.find(tx, world.books.keyring, one.person.link_id)
        cipher = registry.cipher_of(tx, world.books.keyring, member)
        verification.record(tx, cipher, member, "document", verified_by="test", at=paying.clock.now())
    payee = paying.payee(one.person)

    def approved(amount: int) -> UUID:
        asked = NewPayout(one.person.link_id, payee, amount, "INR", "pension", "ptn_test")
        payout = paying.databases.worker.run(lambda tx: request(tx, world.books, asked))
        approval = Approval(payout, one.person.link_id, payee, amount, 0, "INR", False, None)
        paying.databases.worker.run(lambda tx: approve(tx, world.books, approval))
        return payout

    def lost() -> list[tuple[str, str, int]]:
        found = [line for line in journal(world) if line.kind == "match_forfeited"]
        return [(line.debit, line.credit, line.amount) for line in found]

    failed = approved(5_021)
    assert (lost(), one.shares()) == ([], (0, 15_000, 0, 0, 0))  # lost when the money leaves, not before
    paying.work.submit()
    assert paying.state(failed) == "failed: payee_unknown"
    assert lost() == [("match_unvested", "sponsor_uncommitted", 5_021)]
    assert one.shares() == (
        0,
        9_979,
        0,
        5_021,
        0,
    )  # it is the member's again, and awaits its sponsor's funds,
    world.drain()
    assert one.shares() == (0, 15_000, 0, 0, 0)  # which the queue grants it
    assert one.balance("member_savings") == 15_000
    paid = approved(5_000)
    paying.work.submit()
    assert paying.state(paid) == "paid"
    assert lost()[1:] == [("match_unvested", "sponsor_uncommitted", 5_000)]
    assert one.shares() == (0, 10_000, 0, 0, 5_000)


def test_unapplied_money_leaves_once_its_partner_has_paid_it_in(paying: Paying) -> None:
    world = paying.world
    net = paying.partner = world.partner("slow", terms="net")
    person = paying.person(saved=0)
    payee = paying.payee(person)
    world.send(net, world.completed(person, received=100_000, collected=9_000))
    unapplied = paying.balance("member_unapplied", person.member_id.hex)
    assert unapplied > 0
    assert refused(paying, person, payee, unapplied, product=None) == ("not_settled", 0)

    settlement = world.settle(net, 9_000)
    assert refused(paying, person, payee, unapplied + 1, product=None) == ("not_enough", unapplied)
    payout = paying.approved(person, payee, unapplied, product=None)
    # returned while it is held: it was there when it was asked for; what the partner owes again is missing from the rest
    world.databases.worker.run(
        lambda tx: returns.return_settlement(tx, world.books, settlement.id, reason="AC04")
    )
    assert refused(paying, person, payee, 1, product=None) == ("not_enough", 0)
    paying.work.submit()
    assert paying.state(payout) == "paid"
    world.send(net, world.completed(person, received=100_000, collected=9_000))
    assert refused(paying, person, payee, unapplied, product=None) == ("not_settled", 0)
    world.settle(net, 18_000)
    paying.ask(person, payee, unapplied, product=None)


def test_what_a_member_owes_stays(paying: Paying) -> None:
    world = paying.world
    person = paying.person(saved=0)
    payee = paying.payee(person)
    spent = world.completed(person, received=400_000, collected=20_000)
    world.send(paying.partner, spent)
    payout = paying.approved(person, payee, 15_000)
    paying.work.submit()
    assert paying.state(payout) == "paid"
    world.send(paying.partner, world.reversed(spent.remittance_id), approved=True)
    assert paying.balance("member_receivable") == 15_000

    # 20,000 saved and 5,000 that fit nothing: of each as much stays as is owed
    world.send(paying.partner, world.completed(person, received=400_000, collected=25_000))
    unapplied = paying.balance("member_unapplied")
    assert refused(paying, person, payee, 5_001) == ("owed_by_member", 5_000)
    assert refused(paying, person, payee, 20_001) == ("not_enough", 5_000)
    assert refused(paying, person, payee, unapplied, product=None) == ("owed_by_member", 0)
    with paying.databases.worker.begin() as tx:
        member = registry.find(tx, world.books.keyring, person.link_id)
        (shown,) = member_balances(
            tx, world.books.programmes, member, today=paying.clock.now().date()
        ).products
    assert (shown.settled, shown.available) == (20_000, 5_000)
    assert [(one.amount, one.reason) for one in shown.locked] == [(15_000, "owed_by_member")]
    paying.ask(person, payee, 5_000)


def test_money_asked_for_while_its_settlement_comes_back_is_had_before_or_not_at_all(paying: Paying) -> None:
    world = paying.world
    world.fund(1_000_000)
    net = paying.partner = world.partner("slow", terms="net")
    people = [paying.person(number, saved=0) for number in range(1, 4)]
    theirs = [paying.payee(person, ending=f"34{number}0") for number, person in enumerate(people)]
    world.send(net, *(world.completed(one, received=400_000, collected=24_000) for one in people))
    settlement = world.settle(net, 72_000)
    answers: list[str] = []

    def ask(person: Person, payee: UUID, amount: int, product: str | None) -> None:
        try:
            paying.ask(person, payee, amount, product=product)
            answers.append("held")
        except NotAvailable as why:
            answers.append(why.reason)

    def come_back() -> None:
        world.databases.worker.run(
            lambda tx: returns.return_settlement(tx, world.books, settlement.id, reason="AC04")
        )

    asking = [
        partial(ask, person, payee, amount, product)
        for person, payee in zip(people, theirs, strict=True)
        # all the savings and the match that is due, and what fitted no product
        for amount, product in ((30_000, "savings"), (4_000, None))
    ]
    at_once(come_back, *asking)
    assert len(answers) == 6
    assert set(answers) <= {"held", "not_enough", "not_settled", "owed_by_member"}
    # what was held of savings before the settlement came back the member owes now; nothing is there twice
    held = paying.rows("SELECT coalesce(sum(savings), 0)::bigint AS savings FROM products.withdrawal")[0]
    assert paying.balance("member_receivable") == held["savings"]
    assert paying.balance("member_contributions_pending") == 60_000
