"""The design's table “What each event posts”, row by row, as far as remittances, settlements and sponsors go.

A row says what was there, what happened, and the postings that the journal gained: debit, credit, fund, minor units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from ledger.posting import Posting, Transaction, post
from products.facts import Fact
from products.remittances.events import MemberKey
from products.remittances.partners import Partner, Terms
from tests.integration.remittances.seen import journal
from tests.world import Person, World

PHONE = "+971501234567"
NAMELESS = MemberKey("phone", PHONE)

Line = tuple[str, str, str, int]
"""Debited account, credited account, fund, amount."""


@dataclass(slots=True)
class Scene:
    """A partner in one programme and a member whom it knows; remittances in the programme's currency."""

    world: World
    programme: str
    currency: str
    partner: Partner
    person: Person
    received: int

    def collect(self, amount: int, *, of: Person | MemberKey | None = None, name: str = "ONE") -> None:
        """The partner announces a remittance of which it collected this amount."""
        event = self.world.completed(
            of or self.person,
            received=self.received,
            collected=amount,
            currency=self.currency,
            remittance_id=name,
            at=self.world.clock.now(),
        )
        [verdict] = self.world.send(self.partner, event)
        assert verdict.state in ("posted", "unallocated"), verdict

    def take_back(self, name: str = "ONE") -> None:
        """The partner takes a remittance back, with a manager's approval where that is needed."""
        [verdict] = self.world.send(self.partner, self.world.reversed(name), approved=True)
        assert verdict.state == "reversed", verdict

    def settle(self, amount: int) -> None:
        """The partner pays in."""
        self.world.settle(self.partner, amount, currency=self.currency)

    def spend(self, amount: int) -> None:
        """Money leaves the member's savings, as a payout would take it."""
        self._move("member_savings", self.person.enrolments["savings"].hex, "bank", "", amount)

    def certify(self, amount: int) -> None:
        """The sponsor owes money on a certified claim."""
        self._move("sponsor_receivable", "gov-rw", "sponsor_uncommitted", "gov-rw", amount)

    def _move(self, debit: str, debit_owner: str, credit: str, credit_owner: str, amount: int) -> None:
        with self.world.databases.worker.begin() as tx:

            def account(code: str, owner: str) -> UUID:
                found: UUID = tx.execute(
                    text(
                        "SELECT a.id FROM ledger.account a JOIN products.programme_fund f ON f.fund_id = a.fund_id"
                        " WHERE a.code = :code AND a.owner = :owner AND f.role = 'savers'"
                    ),
                    {"code": code, "owner": owner},
                ).scalar_one()
                return found

            moved = Posting(account(debit, debit_owner), account(credit, credit_owner), amount, self.currency)
            day = self.world.clock.now().date()
            [outcome] = post(
                tx, [Transaction("arranged", "arranged", day, (moved,), bytes(32))], clock=self.world.clock
            )
            assert outcome.status == "posted"


def savings(
    terms: Terms = "net", *, category: int = 1, choice: dict[str, object] | None = None
) -> Callable[[World], Scene]:
    """EjoHeza, whose sponsor has paid in; a prefunded partner has prepaid RWF 100,000."""

    def given(world: World) -> Scene:
        partner = world.partner(terms=terms)
        world.fund(1_000_000)
        if terms == "prefunded":
            world.settle(partner, 100_000)
        person = world.member(partner, category=category, choice=choice)
        return Scene(world, "ejoheza", "RWF", partner, person, 400_000)

    return given


def abroad(
    slug: str, products: tuple[str, ...], fact: tuple[str, int], terms: Terms = "net", currency: str = "NPR"
) -> Callable[[World], Scene]:
    """A programme of the catalogue without a sponsor's money; a prefunded partner has prepaid 10,000.00."""

    def given(world: World) -> Scene:
        partner = world.partner(programme=slug, terms=terms)
        if terms == "prefunded":
            world.settle(partner, 1_000_000, currency=currency)
        known = Fact(*fact, date(2020, 1, 1), world.clock.now(), "document")
        person = world.member(partner, programme=slug, products=products, facts=[known])
        return Scene(world, slug, currency, partner, person, 10_000_000)

    return given


def agency(terms: Terms = "net") -> Callable[[World], Scene]:
    """Nepal's Social Security Fund: 21.33 % of a basic pay of NPR 10,000."""
    return abroad("ssf-nepal", ("social-security",), ("basic_pay", 1_000_000), terms)


def pools(terms: Terms = "net") -> Callable[[World], Scene]:
    """Nepal's welfare fund (NPR 1,500) and term life (NPR 3,524), each a pool."""
    return abroad("few-nepal", ("welfare", "term-life"), ("contract_months", 24), terms)


def instalments(terms: Terms = "net") -> Callable[[World], Scene]:
    """PM-SYM, joined at 35: INR 150 a month."""
    return abroad("pm-sym", ("pension",), ("monthly_income", 1_000_000), terms, "INR")


def voluntary(world: World) -> Scene:
    """Pag-IBIG MP2: at least PHP 500 a time."""
    partner = world.partner(programme="mp2")
    choice: dict[str, object] = {"amount": {"amount": 50_000, "currency": "PHP"}}
    person = world.member(partner, programme="mp2", products=("mp2",), choice=choice)
    return Scene(world, "mp2", "PHP", partner, person, 10_000_000)


def nothing(_: Scene) -> None:
    """Nothing happened before."""


def member_comes(scene: Scene) -> None:
    """The phone number of the money without a member is registered, and the remittance is looked at again."""
    facts = [Fact("basic_pay", 1_000_000, date(2020, 1, 1), scene.world.clock.now(), "document")]
    products = tuple(scene.person.enrolments)
    scene.world.member(
        scene.partner,
        phone=PHONE,
        programme=scene.programme,
        products=products,
        facts=facts if scene.programme == "ssf-nepal" else (),
    )
    scene.collect(213_300 if scene.programme == "ssf-nepal" else 20_000, of=NAMELESS)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    event: str
    given: Callable[[World], Scene]
    when: Callable[[Scene], object]
    posts: tuple[Line, ...]
    before: Callable[[Scene], object] = nothing


MATCHED: Line = ("sponsor_uncommitted", "sponsor_committed", "savers", 18_000)
GRANTED: Line = ("sponsor_committed", "match_unvested", "savers", 18_000)


def line(debit: str, credit: str, amount: int, fund: str = "savers") -> Line:
    """A posting among the savers, unless another fund is named."""
    return debit, credit, fund, amount


TABLE = [
    Row(
        "collected by a net partner; match at the event",
        savings("net"),
        lambda scene: scene.collect(20_000),
        (line("partner_receivable", "member_contributions_pending", 20_000), MATCHED),
    ),
    Row(
        "collected by a prefunded partner",
        savings("prefunded"),
        lambda scene: scene.collect(20_000),
        (line("partner_prefund", "member_savings", 20_000), MATCHED, GRANTED),
    ),
    Row(
        "collected by a guaranteed partner",
        savings("guaranteed"),
        lambda scene: scene.collect(20_000),
        (line("partner_receivable", "member_savings", 20_000), MATCHED, GRANTED),
    ),
    Row(
        "collected for an agency's scheme",
        agency("net"),
        lambda scene: scene.collect(213_300),
        (line("partner_receivable", "agency_contributions_collected", 213_300, "agency"),),
    ),
    Row(
        "collected for an agency's scheme by a prefunded partner: crossing funds",
        agency("prefunded"),
        lambda scene: scene.collect(213_300),
        (
            line("partner_prefund", "due_to_funds", 213_300),
            line("due_from_funds", "agency_contributions_collected", 213_300, "agency"),
        ),
    ),
    Row(
        "collected for two pools",
        pools("guaranteed"),
        lambda scene: scene.collect(502_400),
        (
            line("partner_receivable", "unearned_contributions", 150_000, "pool:welfare-nepal"),
            line("partner_receivable", "unearned_contributions", 352_400, "pool:term-life-nepal"),
        ),
    ),
    Row(
        "collected for two pools by a prefunded partner: crossing funds",
        pools("prefunded"),
        lambda scene: scene.collect(502_400),
        (
            line("partner_prefund", "due_to_funds", 150_000),
            line("due_from_funds", "unearned_contributions", 150_000, "pool:welfare-nepal"),
            line("partner_prefund", "due_to_funds", 352_400),
            line("due_from_funds", "unearned_contributions", 352_400, "pool:term-life-nepal"),
        ),
    ),
    Row(
        "member unknown",
        savings("net"),
        lambda scene: scene.collect(20_000, of=NAMELESS),
        (line("partner_receivable", "unallocated_contributions", 20_000),),
    ),
    Row(
        "member unknown, prefunded",
        savings("prefunded"),
        lambda scene: scene.collect(20_000, of=NAMELESS),
        (line("partner_prefund", "unallocated_contributions", 20_000),),
    ),
    Row(
        "the unknown member comes",
        savings("net"),
        member_comes,
        (line("unallocated_contributions", "member_contributions_pending", 20_000), MATCHED),
        before=lambda scene: scene.collect(20_000, of=NAMELESS),
    ),
    Row(
        "the unknown member of a guaranteed partner comes",
        savings("guaranteed"),
        member_comes,
        (line("unallocated_contributions", "member_savings", 20_000), MATCHED, GRANTED),
        before=lambda scene: scene.collect(20_000, of=NAMELESS),
    ),
    *(
        Row(
            f"the unknown member of a {terms} partner comes, whose contribution is an agency's",
            agency(terms),
            member_comes,
            (
                line("unallocated_contributions", "partner_receivable", 213_300),
                line("partner_receivable", "agency_contributions_collected", 213_300, "agency"),
            ),
            before=lambda scene: scene.collect(213_300, of=NAMELESS),
        )
        for terms in ("net", "guaranteed")
    ),
    Row(
        "the unknown member of a prefunded partner comes, whose contribution is an agency's: crossing funds",
        agency("prefunded"),
        member_comes,
        (
            line("unallocated_contributions", "due_to_funds", 213_300),
            line("due_from_funds", "agency_contributions_collected", 213_300, "agency"),
        ),
        before=lambda scene: scene.collect(213_300, of=NAMELESS),
    ),
    *(
        Row(
            f"the unknown member of a {terms} partner comes after the settlement, whose contribution is an agency's",
            agency(terms),
            member_comes,
            (
                line("unallocated_contributions", "due_to_funds", 213_300),
                line("due_from_funds", "agency_contributions_collected", 213_300, "agency"),
            ),
            before=lambda scene: (scene.collect(213_300, of=NAMELESS), scene.settle(213_300)),
        )
        for terms in ("net", "guaranteed")
    ),
    Row(
        "below the minimum",
        voluntary,
        lambda scene: scene.collect(49_900),
        (line("partner_receivable", "member_unapplied", 49_900),),
    ),
    Row(
        "in excess",
        savings("net", category=4, choice={"percent": "5"}),
        lambda scene: scene.collect(23_000),
        (
            line("partner_receivable", "member_contributions_pending", 20_000),
            line("partner_receivable", "member_unapplied", 3_000),
        ),
    ),
    Row(
        "an instalment, and what is collected beyond it",
        instalments("net"),
        lambda scene: scene.collect(20_000),
        (
            line("partner_receivable", "member_contributions_pending", 15_000),
            line("partner_receivable", "member_unapplied", 5_000),
        ),
    ),
    Row(
        "the rest of the month's instalment",
        instalments("guaranteed"),
        lambda scene: scene.collect(10_000, name="TWO"),
        (
            line("partner_receivable", "member_savings", 4_000),
            line("partner_receivable", "member_unapplied", 6_000),
        ),
        before=lambda scene: scene.collect(11_000),
    ),
    Row(
        "settlement received, unidentified → paired; contribution settled; match on settlement",
        savings("net"),
        lambda scene: scene.settle(21_500),
        (
            line("bank", "unidentified_receipts", 21_500),
            line("unidentified_receipts", "partner_receivable", 20_000),
            line("member_contributions_pending", "member_savings", 20_000),
            GRANTED,
        ),
        before=lambda scene: scene.collect(20_000),
    ),
    Row(
        "settlement received for an agency; what pays nothing whole stays unidentified",
        agency("net"),
        lambda scene: scene.settle(213_301),
        (
            line("bank", "unidentified_receipts", 1),
            line("bank", "unidentified_receipts", 213_300, "agency"),
            line("unidentified_receipts", "partner_receivable", 213_300, "agency"),
        ),
        before=lambda scene: scene.collect(213_300),
    ),
    Row(
        "settlement received from a guaranteed partner: what it owes is paid, savings were there",
        savings("guaranteed"),
        lambda scene: scene.settle(20_000),
        (
            line("bank", "unidentified_receipts", 20_000),
            line("unidentified_receipts", "partner_receivable", 20_000),
        ),
        before=lambda scene: scene.collect(20_000),
    ),
    Row(
        "a prefunded partner pays in",
        savings("prefunded"),
        lambda scene: scene.settle(5_000),
        (line("bank", "partner_prefund", 5_000),),
    ),
    Row(
        "sponsor pays in",
        savings("net"),
        lambda scene: scene.world.fund(70_000, reference="again"),
        (line("bank", "sponsor_uncommitted", 70_000),),
    ),
    Row(
        "sponsor pays in, and owed something",
        savings("net"),
        lambda scene: scene.world.fund(70_000, reference="again"),
        (line("bank", "sponsor_receivable", 30_000), line("bank", "sponsor_uncommitted", 40_000)),
        before=lambda scene: scene.certify(30_000),
    ),
    Row(
        "remittance reversed: pending, committed",
        savings("net"),
        Scene.take_back,
        (
            line("member_contributions_pending", "partner_receivable", 20_000),
            line("sponsor_committed", "sponsor_uncommitted", 18_000),
        ),
        before=lambda scene: scene.collect(20_000),
    ),
    Row(
        "remittance reversed: savings, granted",
        savings("guaranteed"),
        Scene.take_back,
        (
            line("member_savings", "partner_receivable", 20_000),
            line("match_unvested", "sponsor_uncommitted", 18_000),
        ),
        before=lambda scene: scene.collect(20_000),
    ),
    Row(
        "remittance reversed: a prefunded partner's",
        savings("prefunded"),
        Scene.take_back,
        (
            line("member_savings", "partner_prefund", 20_000),
            line("match_unvested", "sponsor_uncommitted", 18_000),
        ),
        before=lambda scene: scene.collect(20_000),
    ),
    Row(
        "remittance reversed: settled, with approval",
        savings("net"),
        Scene.take_back,
        (
            line("member_savings", "partner_receivable", 20_000),
            line("match_unvested", "sponsor_uncommitted", 18_000),
        ),
        before=lambda scene: (scene.collect(20_000), scene.settle(20_000)),
    ),
    Row(
        "remittance reversed: what is already spent is owed by the member",
        savings("guaranteed", category=4),
        Scene.take_back,
        (
            line("member_savings", "partner_receivable", 5_000),
            line("member_receivable", "partner_receivable", 15_000),
        ),
        before=lambda scene: (scene.collect(20_000), scene.spend(15_000)),
    ),
    Row(
        "remittance reversed: an agency's",
        agency("net"),
        Scene.take_back,
        (line("agency_contributions_collected", "partner_receivable", 213_300, "agency"),),
        before=lambda scene: scene.collect(213_300),
    ),
    Row(
        "remittance reversed: pools', crossing back, the last part first",
        pools("prefunded"),
        Scene.take_back,
        (
            line("unearned_contributions", "due_from_funds", 352_400, "pool:term-life-nepal"),
            line("due_to_funds", "partner_prefund", 352_400),
            line("unearned_contributions", "due_from_funds", 150_000, "pool:welfare-nepal"),
            line("due_to_funds", "partner_prefund", 150_000),
        ),
        before=lambda scene: scene.collect(502_400),
    ),
    Row(
        "remittance reversed: unapplied",
        instalments("net"),
        Scene.take_back,
        (
            line("member_unapplied", "partner_receivable", 5_000),
            line("member_contributions_pending", "partner_receivable", 15_000),
        ),
        before=lambda scene: scene.collect(20_000),
    ),
    Row(
        "remittance reversed: member unknown",
        savings("net"),
        Scene.take_back,
        (line("unallocated_contributions", "partner_receivable", 20_000),),
        before=lambda scene: scene.collect(20_000, of=NAMELESS),
    ),
    Row(
        "remittance reversed: the unknown member had come, to an agency",
        agency("guaranteed"),
        Scene.take_back,
        (line("agency_contributions_collected", "partner_receivable", 213_300, "agency"),),
        before=lambda scene: (scene.collect(213_300, of=NAMELESS), member_comes(scene)),
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.event)
def test_an_event_posts_what_the_table_says(world: World, row: Row) -> None:
    scene = row.given(world)
    row.before(scene)
    there = len(journal(world))

    row.when(scene)

    gained = journal(world)[there:]
    assert [(one.debit, one.credit, one.fund, one.amount) for one in gained] == [*row.posts]


def test_a_programme_opens_its_funds_each_with_the_accounts_that_it_needs(world: World) -> None:
    world.partner(programme="few-nepal")
    shared = {"bank", "unidentified_receipts", "due_to_funds", "due_from_funds", "partner_receivable"}
    with world.databases.owner.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT f.role, array_agg(a.code), bool_and(a.hot), bool_and(a.currency = 'NPR') FROM ledger.account a"
                " JOIN products.programme_fund f ON f.fund_id = a.fund_id GROUP BY f.role"
            )
        ).all()
    pool = {*shared, "unearned_contributions"}
    assert {row[0]: set(row[1]) for row in rows} == {
        "savers": {*shared, "partner_prefund", "unallocated_contributions"},
        "pool:welfare-nepal": pool,
        "pool:term-life-nepal": pool,
    }
    assert all(row[2] and row[3] for row in rows)


def test_a_months_instalment_is_due_once_whatever_the_number_of_remittances(world: World) -> None:
    scene = instalments("net")(world)
    first = world.clock.now()
    amounts = [4_000, 8_000, 9_000]
    events = [
        world.completed(scene.person, received=1_000_000, collected=amount, currency="INR", at=at)
        for at, amount in ((first + timedelta(seconds=n), amount) for n, amount in enumerate(amounts))
    ]
    world.send(scene.partner, *events[:2])
    world.send(scene.partner, events[2])
    next_month = world.completed(
        scene.person, received=1_000_000, collected=9_000, currency="INR", at=first - timedelta(days=10)
    )
    world.send(scene.partner, next_month)

    enrolment = scene.person.enrolments["pension"]
    assert world.balance("member_contributions_pending", enrolment, programme="pm-sym") == 15_000 + 9_000
    assert world.balance("member_unapplied", scene.person.member_id, programme="pm-sym") == 6_000
    with world.databases.owner.begin() as tx:
        entitled = tx.execute(text("SELECT entitled FROM products.match_state")).scalars().all()
    assert entitled == [24_000]  # only due instalments are matched, one to one
