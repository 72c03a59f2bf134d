"""What may leave is what is there, the member's, and not owed: vested in time, paid in by the partner, net of debts."""

from functools import partial
from uuid import UUID

import pytest

from products.members import registry
from products.payouts.errors import NotAvailable
from products.savings.queries import member_balances
from products.settlements import returns
from tests.integration.payouts.paying import Paying
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
