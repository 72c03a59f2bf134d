"""Each type of break, planted and found, once and as what it is."""

from datetime import timedelta
from uuid import UUID

import pytest

from ledger.clock import FixedClock
from ledger.ids import new_id
from products.reconciliation import effects
from products.reconciliation.breaks.choices import Choice
from products.reconciliation.breaks.resolve import assign
from products.reconciliation.breaks.typing import TYPES
from products.remittances.partners import join_programme
from products.settlements.returns import return_settlement
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox
from tests.integration.reconciliation.bank import entry
from tests.integration.reconciliation.breaking import OPERATOR, Breaking, days


@pytest.fixture
def world(databases: Databases, clock: FixedClock) -> Breaking:
    return Breaking(databases, clock)


def test_lines_and_items_are_typed_by_what_is_on_the_other_side(world: Breaking) -> None:
    world.statement(world.savers, days(0), since=days(60))
    world.statement(world.office, days(0), since=days(60))
    dollars = world.in_dollars()
    planted = {
        # both sides are there
        world.line(101_000, reference="REF-TIMING"): ("timing", 101_000),
        world.line(102_000): ("timing", 102_000),
        # known by reference, of another amount
        world.line(90_000, end_to_end="E2E-SHORT"): ("short", -10_000),
        world.line(110_500, end_to_end="E2E-OVER"): ("over", 500),
        world.line(99_000, identifiers=["E2E-FEE-1"]): ("fee", -1_000),
        world.line(-50_700, end_to_end="E2E-OUT"): ("fee", -700),
        # known by the sender: what it owes of one day, or of its oldest days together
        world.line(70_000, party="acme"): ("short", -7_001),
        # elsewhere
        world.line(103_000, end_to_end="E2E-ELSEWHERE"): ("wrong_account", 103_000),
        world.line(104_321): ("wrong_account", 104_321),
        # in another currency: under its reference, of a partner that owes nothing in it, and the two sides of a conversion
        world.line(5_000, account=dollars, end_to_end="E2E-ABROAD"): ("fx", 5_000),
        world.line(6_000, account=dollars, party="abroad"): ("fx", 6_000),
        world.line(-1_432_500, end_to_end="DEAL-77/A"): ("fx", -1_432_500),
        world.line(100_050, account=dollars, identifiers=["DEAL77A"]): ("fx", 100_050),
        # the bank's own, a stranger's, and the rest
        world.line(-250, kind="ACMT/MDOP/CHRG"): ("fee", -250),
        world.line(-251, kind="NCHG"): ("fee", -251),
        world.line(105_555): ("unknown_party", 105_555),
        world.line(105_556, party="acme-bank"): ("missing_in_books", 105_556),
        world.line(-105_557): ("missing_in_books", -105_557),
        world.line(7, kind="ACMT/MCOP/INTR"): ("missing_in_books", 7),
    }
    world.booked(101_000, reference="REF-TIMING", on=days(50))  # beyond any window, but the reference says it
    world.booked(102_000, on=days(40))
    world.expected(100_000, end_to_end="E2E-SHORT")
    world.booked(110_000, end_to_end="E2E-OVER")
    world.booked(60_000, batch="E2E-FEE-1", end_to_end="one-of-batch")  # a batch is expected as one
    world.booked(40_000, batch="E2E-FEE-1", end_to_end="two-of-batch")
    world.expected(-50_000, end_to_end="E2E-OUT", source="payout", kind="payout")
    world.expected(40_000, party="acme", on=days(3))
    world.expected(37_001, party="acme", on=days(2))
    world.booked(103_000, account=world.office, end_to_end="E2E-ELSEWHERE")
    world.booked(104_321, account=world.office)
    world.expected(7_000_000, end_to_end="E2E-ABROAD")
    world.expected(8_000_000, party="abroad", on=days(1))
    # the same again: what was paired once is shown, or booked, twice
    world.paired(106_000, reference="REF-TWICE")
    planted[world.line(106_000, reference="REF-TWICE")] = ("duplicate", 106_000)
    world.paired(106_100, reference="REF-BOOKED-TWICE")
    planted[world.booked(106_100, reference="REF-BOOKED-TWICE")] = ("duplicate", 106_100)
    world.line(106_500, end_to_end="E2E-AGAIN", on=days(1), party="acme-bank")
    planted[world.line(106_500, end_to_end="E2E-AGAIN")] = ("duplicate", 106_500)
    # two lines for one item: the later one is too many, and neither is paired by guess
    planted[world.line(106_600, end_to_end="E2E-ONCE", on=days(1))] = ("timing", 106_600)
    planted[world.line(106_600, end_to_end="E2E-ONCE")] = ("duplicate", 106_600)
    world.booked(106_600, end_to_end="E2E-ONCE")
    # what comes back: a payment, and what a partner paid, before anybody paired it
    world.paired(-106_700, end_to_end="E2E-BACK")
    planted[world.line(106_700, end_to_end="E2E-BACK")] = ("missing_in_books", 106_700)
    planted[world.line(106_800, end_to_end="E2E-BOUNCED", party="umoja")] = ("missing_in_books", 106_800)
    planted[world.line(-106_800, end_to_end="E2E-BOUNCED", party="umoja")] = ("returned_settlement", -106_800)
    # in the books alone
    planted |= {
        world.booked(107_000, on=days(2)): ("timing", 107_000),
        world.booked(-107_001, on=days(10)): ("missing_in_bank", -107_001),
        world.expected(107_002, on=days(10), party="other"): ("missing_in_bank", 107_002),
        world.booked(-107_003, on=days(5), kind="payout_paid"): ("rail_paid_bank_silent", -107_003),
        world.booked(-107_004, on=days(2), kind="payout_paid"): ("timing", -107_004),
    }
    world.expected(107_005, on=days(-5))  # is still to come
    world.refresh()
    found = world.open()
    del found[next(subject for subject, told in found.items() if told == ("missing_in_books", 106_500))]
    assert found == {str(subject): told for subject, told in planted.items()}
    # a break names the other side; each thing is in one break only
    details = world.row(
        "SELECT details FROM products.break WHERE subject = %s",
        str(next(one for one, told in planted.items() if told == ("short", -7_001))),
    ).details
    assert (details["expected"], len(details["items"])) == (77_001, 2)
    of_two = world.row("SELECT details FROM products.break WHERE type = 'fx' AND amount = 100050").details
    assert (of_two["other_amount"], of_two["other_currency"]) == (-1_432_500, "RWF")
    assert {kind for kind, _ in planted.values()} < set(TYPES)


def test_what_partners_announced_settled_and_took_back_is_typed(world: Breaking) -> None:
    deep, partner = world.world, world.partner
    person = deep.member(partner)
    # quarantined: what nobody has paid for is no break yet
    inbox = Inbox(world.databases, world.clock, deep.books.keyring)
    inbox.partner_id = partner.id
    inbox.store([inbox.received("quarantined-1")])
    delivery = world.row("SELECT id FROM integrations.delivery").id
    with world.databases.superuser.begin() as tx:
        tx.exec_driver_sql(
            "INSERT INTO integrations.delivery_outcome (delivery_id, attempt, partner_id, state, reason, processed_at)"
            " VALUES (%s, 1, %s, 'quarantined', 'unreadable', now())",
            (delivery, partner.id),
        )
    world.refresh()
    assert world.open() == {}
    # reversed after it was settled: what the fund owes the partner, until a later payment leaves it out
    deep.send(partner, deep.completed(person, collected=20_000, remittance_id="R-REVERSED"))
    first = deep.settle(partner, 20_000)
    deep.send(partner, deep.reversed("R-REVERSED"), approved=True)
    world.refresh()
    credit = world.row("SELECT id FROM products.settlement_credit WHERE reason = 'reversed'").id
    assert world.open() == {
        str(credit): ("reversed_after_settlement", -20_000),
        f"{delivery}:ejoheza": ("settled_but_quarantined", 0),
    }
    broken = world.row("SELECT * FROM products.break WHERE subject_kind = 'delivery'")
    assert broken.partner_id == partner.id
    assert broken.details == {"settlement": str(first.id), "reason": "unreadable", "valued": False}
    # it has paid in another programme too: nothing says of which it is, and each has its break
    other = deep.programme("haba-haba")
    with world.databases.worker.begin() as tx:
        join_programme(
            tx,
            partner,
            other,
            terms="net",
            collection="as_reported",
            exposure_ceiling=None,
            clock=world.clock,
        )
    paid = deep.settle(partner, 700, currency="KES")
    world.refresh()
    both = {f"{delivery}:{slug}": ("settled_but_quarantined", 0) for slug in ("ejoheza", "haba-haba")}
    assert world.open() == {
        str(credit): ("reversed_after_settlement", -20_000),
        str(paid.id): ("unapplied_receipt", 700),
        **both,
    }
    # a later payment leaves the credit out; and what it pays beyond what is owed is nobody's yet
    deep.send(partner, deep.completed(person, collected=30_000))
    second = deep.settle(partner, 10_500)
    with world.databases.superuser.begin() as tx:
        tx.exec_driver_sql(
            "INSERT INTO integrations.delivery_outcome (delivery_id, attempt, partner_id, state, reason, processed_at)"
            " VALUES (%s, 2, %s, 'replayed', NULL, now())",
            (delivery, partner.id),
        )
    world.refresh()
    assert world.open() == {
        str(second.id): ("unapplied_receipt", 500),
        str(paid.id): ("unapplied_receipt", 700),
    }
    assert world.history(world.of(credit)) == ["found", "gone"]
    # the bank takes a payment back: first as a line, then as a settlement that is to be paid again
    world.statement(world.savers, days(0))
    line = world.line(-20_000, reference=reference_of(world, first.id))
    world.refresh()
    assert world.open()[str(line)] == ("returned_settlement", -20_000)
    world.databases.worker.run(
        lambda tx: return_settlement(tx, deep.books, first.id, reason="the bank took it back")
    )
    world.refresh()
    assert world.open()[str(first.id)] == ("returned_settlement", -20_000)


def reference_of(world: Breaking, settlement: UUID) -> str:
    reference: str = world.row(
        "SELECT reference FROM products.settlement WHERE id = %s", settlement
    ).reference
    return reference


def test_what_an_agency_rejects_is_a_break_until_the_bank_shows_the_money(
    databases: Databases, clock: FixedClock
) -> None:
    world = Breaking(databases, clock)
    remittal, line, other = new_id(), new_id(), new_id()
    programme = world.world.programmes["ejoheza"]
    with world.databases.superuser.begin() as tx:
        tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
        tx.exec_driver_sql(
            "INSERT INTO products.remittal (id, programme_id, agency, number, fund_id, currency, through, lines, amount, columns,"
            " answer, second_person_above, digest, made_at) VALUES (%s, %s, 'rssb', 1, %s, 'RWF', '2026-02-28', 2, 300, '[]', '{}',"
            " 0, %s, now())",
            (remittal, programme, world.savers.fund_id, bytes(32)),
        )
        for position, (id_, state, accepted) in enumerate(
            [(line, "rejected", 0), (other, "accepted", 150)], 1
        ):
            tx.exec_driver_sql(
                "INSERT INTO products.remittal_line (id, remittal_id, position, programme_id, partner_id, member_id, enrolment_id,"
                " product, applies_to, paid_on, amount, state, accepted, reason, answered_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, 'pension', '2026-02-01', '2026-02-01', 150, %s, %s, 'unknown number', now())",
                (id_, remittal, position, programme, world.partner.id, new_id(), new_id(), state, accepted),
            )
    world.refresh()
    assert world.open() == {str(line): ("agency_rejection", 150)}
    # what the agency gives back is booked, and stands in this break alone, until the bank shows it
    item = world.booked(150, kind="remittal_returned", posted_as=f"remittal:{remittal}:returned:1")
    world.refresh()
    assert world.open() == {str(line): ("agency_rejection", 150)}
    world.pair(world.line(150), item)
    world.refresh()
    assert world.open() == {}
    assert world.history(world.of(line)) == ["found", "gone"]


def test_a_gap_between_statements_and_statements_that_disagree_are_breaks(world: Breaking) -> None:
    bank = world.bank
    bank.sends(bank.says([entry(1, 1_000, days(9))], closing=1_000))
    bank.sends(
        bank.says([entry(1, 70, days(5))], opening=1_300, closing=1_370)
    )  # 300 happened that nobody told
    bank.sends(bank.says([entry(1, 71, days(5))], opening=1_300, closing=1_371))  # the same day, otherwise
    world.refresh()
    found = [told for subject, told in world.open().items() if ":" in subject]
    assert sorted(kind for kind, _ in found) == ["duplicate", "statement_gap"]
    assert ("statement_gap", 300) in found
    # explained, it stays so while the statements say what they say
    [gap] = world.rows("SELECT subject FROM products.break WHERE type = 'statement_gap'")
    world.resolve(gap.subject, Choice("explain"))
    world.refresh()
    assert not [kind for kind, _ in world.open().values() if kind == "statement_gap"]


def test_a_break_keeps_its_identity_while_it_lasts(world: Breaking) -> None:
    world.statement(world.savers, days(2), since=days(20))
    item = world.booked(-107_001, on=days(1))
    assert world.refresh() == 1
    assert world.open() == {str(item): ("timing", -107_001)}
    found = world.of(item)
    world.databases.worker.run(
        lambda tx: assign(tx, world.clock, found, "opr_berta", remark="asks the bank", actor=OPERATOR)
    )
    assert world.refresh() == 0
    # the bank has told of more days: it is the same break, of another type
    world.statement(world.savers, days(-3))
    world.refresh()
    row = world.row("SELECT * FROM products.break")
    assert (row.id, row.type, row.owner, row.remark) == (
        found,
        "missing_in_bank",
        "opr_berta",
        "asks the bank",
    )
    # it waits until a day, and is woken on it
    world.resolve(item, Choice("wait", until=days(-2)))
    assert world.refresh() == 0
    assert world.row("SELECT state, owner FROM products.break") == ("waiting", "opr_berta")
    world.clock.advance(timedelta(days=2))
    world.refresh()
    assert world.row("SELECT state, waits_until FROM products.break") == ("open", None)
    # the bank shows it after all; a mistaken pairing that is taken back is another break
    pairing = world.pair(world.line(-107_001), item)
    world.refresh()
    assert world.open() == {}
    assert world.history(found) == ["found", "assigned", "retyped", "waiting", "woken", "gone"]
    world.databases.worker.run(
        lambda tx: effects.undo(tx, world.world.books, pairing, remark="not that one", actor=OPERATOR)
    )
    world.refresh()
    assert world.of(item) == found  # both sides are there: the line's break says so
    assert sorted(world.open().values()) == [("timing", -107_001)]
