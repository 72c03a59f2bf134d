"""What partners pay in: paired part by part, netted, returned, defaulted on, warned of; each world is verified at its end."""

from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from uuid import UUID

import pytest
from sqlalchemy import text

from api.jobs import settle_all, watch_partners
from ledger.errors import InvalidInput
from ledger.horizon import START
from ledger.outbox import Message, read
from ledger.posting import Posting, Transaction, post
from products.checks import OWED, SETTLEMENTS
from products.remittances import waiting
from products.remittances.partners import Partner
from products.settlements import limits, obligations, pair, returns
from products.settlements.default import write_off_partner
from products.settlements.pair import NotOwed, record_settlement
from products.settlements.settlement import Settlement, by_id
from products.settlements.terms import SettlementTerms, TermsOfThePast, load_terms, on_day
from tests.world import Person, World

TODAY = date(2026, 3, 2)


def agree(
    world: World,
    partner: Partner,
    *,
    since: date | None = None,
    programme: str = "ejoheza",
    **changes: object,
) -> None:
    """Change the partner's terms of today."""
    with world.databases.worker.begin() as tx:
        programme_id = world.programmes[programme]
        standing = on_day(load_terms(tx, [partner.id])[partner.id, programme_id], TODAY)
        agreed: SettlementTerms = replace(standing, **changes)  # type: ignore[arg-type]  # values of a test
        limits.set_terms(tx, partner.id, programme_id, agreed, world.clock, since=since)


def owed(world: World, partner: Partner) -> int:
    """What the partner owes by the obligations, less its credits: what its receivables hold."""
    with world.databases.worker.begin() as tx:
        days = obligations.obligations(tx, world.clock, partner.id)
        credits_ = obligations.standing_credits(tx, partner.id)
    gross = sum(one.amounts.owed + one.amounts.fees for one in days)
    net = gross - sum(one.amount for one in credits_)
    assert net == world.balance("partner_receivable", partner.slug)
    return net


def give_back(world: World, settlement: Settlement) -> Settlement:
    """The bank takes a settlement back, to the last part."""
    world.databases.worker.run(
        lambda tx: returns.return_settlement(tx, world.books, settlement.id, reason="AC04")
    )
    settle_all(world.databases.worker, world.books)
    return world.databases.worker.run(lambda tx: by_id(tx, settlement.id))


def savings(world: World, person: Person) -> tuple[int, int, int]:
    """Pending, savings and unvested match of the member's enrolment."""
    enrolment = person.enrolments["savings"]
    codes = ("member_contributions_pending", "member_savings", "match_unvested")
    return tuple(world.balance(code, enrolment) for code in codes)  # type: ignore[return-value]  # of three


def told(world: World, topic: str) -> list[Message]:
    """The outbox's messages of a topic."""
    with world.databases.worker.begin() as tx:
        return [one.message for one in read(tx, START) if one.message.topic == topic]


def test_a_long_settlement_is_paired_part_by_part_and_whoever_pairs_twice_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "PART_MAX", 3)
    partner = world.partner()
    world.fund(1_000_000)
    people = [world.member(partner) for _ in range(4)]
    world.send(partner, *(world.completed(one) for one in people), *(world.completed(one) for one in people))

    first = world.settle(partner, 150_000)
    assert (first.state, first.paired, first.unidentified, first.contributions) == (
        "pairing",
        60_000,
        90_000,
        3,
    )
    second = world.settle(partner, 10_001)  # waits for its turn, its cash is there
    assert (second.state, second.paired) == ("recorded", 0)
    assert world.balance("unidentified_receipts") == 100_001

    assert settle_all(world.databases.worker, world.books) > 0
    done = world.settle(partner, 150_000)
    # what covered no contribution whole did so with what the partner paid next
    assert (done.replayed, done.state, done.paired, done.unidentified, done.carried, done.parts) == (
        True,
        "paired",
        140_000,
        1,
        9_999,
        3,
    )
    second = world.settle(partner, 10_001)
    assert (second.paired, second.credits, second.unidentified) == (20_000, 9_999, 0)
    assert settle_all(world.databases.worker, world.books) == 0
    assert sum(savings(world, one)[1] for one in people) == 160_000
    assert owed(world, partner) == 0


def test_what_a_partner_paid_too_much_pays_for_what_it_owes_next_and_is_owed_again_when_the_bank_takes_it_back(
    world: World,
) -> None:
    partner = world.partner()
    person = world.member(partner)
    world.send(partner, world.completed(person), world.completed(person))
    first = world.settle(partner, 25_000)
    assert (first.paired, first.unidentified) == (20_000, 5_000)

    second = world.settle(partner, 15_000)
    assert (second.paired, second.credits, second.unidentified) == (20_000, 5_000, 0)
    assert world.balance("unidentified_receipts") == 0
    assert owed(world, partner) == 0

    give_back(world, first)
    assert world.balance("bank") == 15_000
    # what the second drew on was never paid in, and what the first paid for is owed again
    assert owed(world, partner) == 25_000
    third = world.settle(partner, 25_000, through=TODAY + timedelta(days=2))
    assert (third.paired, third.credits) == (20_000, -5_000)
    assert (owed(world, partner), world.balance("bank")) == (0, 40_000)


def test_a_settlement_pays_for_certain_days_or_for_a_list(world: World) -> None:
    partner = world.partner()
    person = world.member(partner)
    days = [world.clock.now() - timedelta(days=ago) for ago in (3, 2, 1)]
    verdicts = world.send(partner, *(world.completed(person, collected=10_000, at=at) for at in days))

    def pay(amount: int, **chosen: object) -> Settlement:
        return world.databases.worker.run(
            lambda tx: record_settlement(
                tx,
                world.books,
                partner,
                currency="RWF",
                amount=amount,
                through=TODAY,
                **chosen,  # type: ignore[arg-type]
            )
        )

    assert pay(30_000, since=TODAY, reference="none").paired == 0
    middle = days[1].date()
    of_a_day = world.databases.worker.run(
        lambda tx: record_settlement(
            tx, world.books, partner, currency="RWF", amount=30_000, since=middle, through=middle
        )
    )
    assert (of_a_day.paired, of_a_day.unidentified) == (10_000, 20_000)
    listed: UUID = verdicts[2].remittance or UUID(int=0)
    assert pay(10_000, remittances=[listed], reference="one").paired == 10_000
    with world.databases.worker.begin() as tx:
        [left] = obligations.obligations(tx, world.clock, partner.id)
    assert left.collected_on == days[0].date()
    with pytest.raises(NotOwed):
        pay(10_000, remittances=[listed], reference="again")


def test_a_partner_that_pays_net_of_its_fee_keeps_it_and_the_administrator_bears_it(world: World) -> None:
    partner = world.partner()
    agree(
        world,
        partner,
        pays="net_of_fees",
        fee_borne_by="administrator",
        fee_fixed=100,
        fee_percent=Fraction(1, 100),
    )
    person = world.member(partner)
    world.send(partner, world.completed(person, remittance_id="ONE"), world.completed(person))
    assert owed(world, partner) == 40_000

    settlement = world.settle(partner, 39_400)
    assert (settlement.paired, settlement.fees, settlement.unidentified) == (40_000, 600, 0)
    assert savings(world, person)[1] == 40_000
    assert owed(world, partner) == 0

    world.send(partner, world.reversed("ONE"), approved=True)
    assert owed(world, partner) == -19_700  # what it paid for it; it gives its fee back
    assert give_back(world, settlement).state == "returned"
    assert owed(world, partner) == 20_000
    again = world.databases.worker.run(
        lambda tx: record_settlement(
            tx, world.books, partner, currency="RWF", amount=19_700, through=TODAY, reference="again"
        )
    )
    assert (again.paired, again.fees, owed(world, partner)) == (20_000, 300, 0)


def test_a_reversal_of_what_was_paid_nets_against_the_next_settlement(world: World) -> None:
    partner = world.partner()
    person = world.member(partner)
    world.send(partner, world.completed(person, remittance_id="PAID"))
    first = world.settle(partner, 20_000)
    world.send(
        partner, world.completed(person, remittance_id="OPEN"), world.completed(person, collected=15_000)
    )
    world.send(partner, world.reversed("OPEN"))
    assert owed(world, partner) == 15_000  # what is still owed just shrinks
    world.send(partner, world.reversed("PAID"), approved=True)
    assert owed(world, partner) == -5_000
    [credit] = world.databases.worker.run(lambda tx: obligations.standing_credits(tx, partner.id))
    assert (credit.fund, credit.amount) == ("ejoheza/savers", 20_000)

    world.send(partner, world.completed(person, collected=10_000))
    netted = world.settle(partner, 5_000)
    assert (netted.paired, netted.credits, netted.unidentified, owed(world, partner)) == (
        25_000,
        20_000,
        0,
        0,
    )

    # the bank takes the first back: its credit proves void, and the partner owes what the second left out
    give_back(world, first)
    assert owed(world, partner) == 20_000
    give_back(world, netted)
    assert owed(world, partner) == 25_000
    assert world.settle(partner, 25_000 + 0).paired == 25_000


def test_what_a_credit_of_one_fund_pays_in_another_crosses_between_them(world: World) -> None:
    world.programme("few-nepal")
    partner = world.partner(programme="few-nepal")
    person = world.member(partner, programme="few-nepal", products=("welfare",), category=None)
    both = world.member(partner, programme="few-nepal", products=("term-life",), category=None)

    def sent(whom: Person, amount: int, name: str) -> None:
        event = world.completed(
            whom, received=10_000_000, collected=amount, currency="NPR", remittance_id=name
        )
        [verdict] = world.send(partner, event)
        assert verdict.state == "posted", verdict

    sent(person, 150_000, "WELFARE")
    world.settle(partner, 150_000, currency="NPR")
    world.send(partner, world.reversed("WELFARE"), approved=True)
    sent(both, 352_400, "LIFE")
    settled = world.settle(partner, 202_400, currency="NPR")
    assert (settled.paired, settled.credits, settled.unidentified) == (352_400, 150_000, 0)
    assert world.balance("partner_receivable", "acme", programme="few-nepal") == 0
    assert (
        world.balance("due_from_funds", programme="few-nepal")
        == world.balance("due_to_funds", programme="few-nepal")
        > 0
    )
    give_back(world, settled)
    assert world.balance("partner_receivable", "acme", programme="few-nepal") == 202_400
    assert world.balance("due_from_funds", programme="few-nepal") == 0


def test_a_returned_settlement_turns_members_money_back_and_can_be_settled_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "PART_MAX", 2)
    partner = world.partner(exposure_ceiling=60_000)
    world.fund(1_000_000)
    people = [world.member(partner) for _ in range(3)]
    world.send(partner, *(world.completed(one) for one in people))
    settlement = world.settle(partner, 61_000)
    settle_all(world.databases.worker, world.books)
    assert savings(world, people[0]) == (0, 20_000, 18_000)
    spend(world, people[0], 15_000)
    world.send(
        partner, world.completed(people[1], collected=40_000)
    )  # owed beside it: beyond the ceiling together

    returned = give_back(world, settlement)
    assert (returned.state, owed(world, partner)) == ("returned", 100_000)
    assert [savings(world, one) for one in people] == [(20_000, 0, 0), (40_000, 0, 0), (20_000, 0, 0)]
    assert world.balance("member_receivable", people[0].member_id) == 15_000
    assert world.balance("sponsor_committed", "gov-rw") == 54_000
    assert world.balance("bank") == 985_000  # the sponsor's million, less what the member spent
    assert give_back(world, settlement).state == "returned"  # once
    assert [one.payload["settlement"] for one in told(world, "settlement.returned")] == [
        told(world, "contributions.settled")[0].payload["settlement"]
    ]

    again = world.databases.worker.run(
        lambda tx: record_settlement(
            tx, world.books, partner, currency="RWF", amount=100_000, through=TODAY, reference="again"
        )
    )
    settle_all(world.databases.worker, world.books)
    assert world.databases.worker.run(lambda tx: by_id(tx, again.id)).paired == 100_000
    assert savings(world, people[2]) == (0, 20_000, 18_000)
    # what the member had spent is exactly what the money that came again pays first
    assert savings(world, people[0]) == (0, 5_000, 18_000)
    assert world.balance("member_receivable", people[0].member_id) == 0
    # and it goes back and forth without a remainder, whatever was set off before
    again = world.databases.worker.run(lambda tx: by_id(tx, again.id))
    give_back(world, again)
    assert (savings(world, people[0]), world.balance("member_receivable", people[0].member_id)) == (
        (20_000, 0, 0),
        15_000,
    )


def spend(world: World, person: Person, amount: int) -> None:
    """Money leaves the member's savings, as a payout would take it."""
    with world.databases.worker.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT a.id FROM ledger.account a JOIN products.programme_fund f ON f.fund_id = a.fund_id"
                " WHERE f.role = 'savers' AND (a.code, a.owner) IN (('member_savings', :owner), ('bank', ''))"
                " ORDER BY a.code DESC"
            ),
            {"owner": person.enrolments["savings"].hex},
        )
        from_, bank = rows.scalars()
        [outcome] = post(
            tx,
            [Transaction("spent", "spent", TODAY, (Posting(from_, bank, amount, "RWF"),), bytes(32))],
            clock=world.clock,
        )
        assert outcome.status == "posted"


def test_a_returned_top_up_that_was_spent_is_owed(world: World) -> None:
    partner = world.partner(terms="prefunded")
    person = world.member(partner)
    topped_up = world.settle(partner, 30_000)
    assert topped_up.topped_up == 30_000
    world.send(partner, world.completed(person))
    give_back(world, topped_up)
    assert world.balance("partner_prefund", "acme") == 0
    assert owed(world, partner) == 20_000
    assert savings(world, person)[1] == 20_000
    paid = world.databases.worker.run(
        lambda tx: record_settlement(
            tx, world.books, partner, currency="RWF", amount=50_000, through=TODAY, reference="again"
        )
    )
    assert (paid.credits, paid.topped_up, owed(world, partner)) == (-20_000, 30_000, 0)


def test_a_guarantor_bears_a_default_where_the_terms_name_one_and_members_are_made_whole(
    world: World,
) -> None:
    partner = world.partner(terms="guaranteed")
    agree(world, partner, guarantor="first-bank")
    person = world.member(partner)
    world.send(partner, world.completed(person, remittance_id="ONE"), world.completed(person))
    done = world.databases.worker.run(
        lambda tx: write_off_partner(
            tx,
            world.books,
            partner,
            currency="RWF",
            through=TODAY,
            amount=40_000,
            cause="default",
            reference="w",
        )
    )
    assert (done.kind, done.paired, owed(world, partner)) == ("default", 40_000, 0)
    assert world.balance("guarantor_receivable", "first-bank") == 40_000
    world.send(partner, world.reversed("ONE"), approved=True)  # the partner paid nothing, so it gets nothing
    assert (world.balance("guarantor_receivable", "first-bank"), owed(world, partner)) == (20_000, 0)


def test_the_terms_of_the_day_of_a_contribution_hold_for_it_and_the_past_is_never_rewritten(
    world: World,
) -> None:
    partner = world.partner()
    person = world.member(partner)
    world.send(partner, world.completed(person))
    with pytest.raises(TermsOfThePast):
        agree(world, partner, since=TODAY, terms="guaranteed")
    agree(
        world, partner, terms="guaranteed", countries=("AE", "RW"), business_days=2
    )  # as early as may be: the 4th
    agree(world, partner, since=TODAY, exposure_ceiling=50_000)  # a limit is of now
    assert savings(world, person)[:2] == (20_000, 0)
    world.clock.advance(timedelta(days=2))
    world.send(partner, world.completed(person))
    assert savings(world, person)[:2] == (20_000, 20_000)
    with world.databases.worker.begin() as tx:
        days = obligations.obligations(tx, world.clock, partner.id)
    assert [(one.collected_on, one.expected_on, one.days_overdue) for one in days] == [
        (TODAY, date(2026, 3, 3), 1),
        (date(2026, 3, 4), date(2026, 3, 6), 0),
    ]
    [aged] = world.databases.worker.run(lambda tx: obligations.ageing(tx, world.clock, partner.id))
    assert (aged.by_bucket["1-7"], aged.by_bucket["not_due"], aged.owed) == (20_000, 20_000, 40_000)
    for wrong in ({"currency": "KES"}, {"countries": ("XX",)}):
        with pytest.raises(InvalidInput):
            agree(world, partner, **wrong)


def test_a_ceiling_is_warned_of_once_stops_at_its_limit_and_what_waits_goes_on_when_there_is_room(
    world: World,
) -> None:
    partner = world.partner()
    agree(world, partner, exposure_ceiling=50_000)
    person = world.member(partner)

    def watched() -> list[int]:
        watch_partners(world.databases.worker, world.clock)
        return [one.payload["amount"]["amount"] for one in told(world, "partner.exposure_warning")]

    world.send(partner, world.completed(person))
    assert watched() == []
    world.send(partner, world.completed(person))
    assert watched() == watched() == [40_000]
    parked = world.completed(person)
    [verdict] = world.send(partner, parked)
    assert (verdict.state, verdict.reason) == ("parked", "partner_ceiling_reached")
    assert ready(world) == 0
    world.settle(partner, 20_000)
    assert (ready(world), watched()) == (1, [40_000])
    assert [one.state for one in world.send(partner, parked)] == ["posted"]
    assert watched() == [40_000, 40_000]  # crossed again
    agree(
        world, partner, exposure_ceiling=10_000
    )  # below what is owed: nothing more is taken, and it falls with it
    [late] = world.send(partner, world.completed(person, collected=1_000))
    assert late.state == "parked"
    world.settle(partner, 20_001)
    watch_partners(world.databases.worker, world.clock)
    assert ready(world) == 0


def ready(world: World) -> int:
    """How many deliveries could be decided better now."""
    return len(world.databases.worker.run(waiting.ready))


def test_what_waits_for_an_agencys_ceiling_is_not_looked_at_again_until_there_is_room(world: World) -> None:
    world.programme("few-nepal")
    partner = world.partner(programme="few-nepal", exposure_ceiling=200_000)
    person = world.member(partner, programme="few-nepal", products=("welfare",), category=None)
    events = [
        world.completed(person, received=10_000_000, collected=150_000, currency="NPR"),
        world.completed(
            world.member(partner, programme="few-nepal", products=("welfare",), category=None),
            received=10_000_000,
            collected=150_000,
            currency="NPR",
        ),
    ]
    assert [one.state for one in world.send(partner, *events)] == ["posted", "parked"]
    assert ready(world) == 0
    world.settle(partner, 150_000, currency="NPR")
    assert ready(world) == 1
    assert [one.state for one in world.send(partner, events[1])] == ["posted"]


def test_a_prefund_that_runs_low_is_warned_of(world: World) -> None:
    partner = world.partner(terms="prefunded")
    agree(world, partner, prefund_warning=15_000)
    world.settle(partner, 30_000)
    watch_partners(world.databases.worker, world.clock)
    assert told(world, "partner.prefund_low") == []
    world.send(partner, world.completed(world.member(partner)))
    watch_partners(world.databases.worker, world.clock)
    [message] = told(world, "partner.prefund_low")
    assert message.payload["amount"] == {"amount": 10_000, "currency": "RWF"}
    with world.databases.worker.begin() as tx:
        [low] = [one for one in limits.standings(tx, world.clock) if one.kind == "prefund_low"]
    assert (low.crossed, low.warned) == (True, True)


def test_a_lie_about_what_is_owed_or_was_paid_is_found(world: World) -> None:
    partner = world.partner()
    person = world.member(partner)
    world.send(
        partner, world.completed(person, remittance_id="PAID"), world.completed(person, collected=5_000)
    )
    world.settle(partner, 20_000)
    world.send(partner, world.reversed("PAID"), approved=True)
    for lie, where in (
        ("UPDATE products.contribution SET owed = false WHERE owed", "contributions still owed come to 0"),
        ("UPDATE products.settlement_credit SET amount = amount - 1", "its credits to 19999"),
        ("UPDATE products.settlement SET paired = paired - 1", "has 19999 paired"),
        ("UPDATE products.contribution SET settlement_id = NULL", "come to 0"),
    ):
        with world.databases.superuser.begin() as tx:
            attempt = tx.begin_nested()
            assert tx.execute(text(lie)).rowcount
            found = [str(one) for check in (OWED, SETTLEMENTS) for one in check.run(tx).findings]
            attempt.rollback()
        assert any(where in one for one in found), (lie, found)
