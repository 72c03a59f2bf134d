"""How breaks are ended: what a preview shows is what is posted, one of two wins, and all of it can be taken back."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.clock import FixedClock
from ledger.errors import Conflict, InvalidInput
from ledger.periods import close_period
from products.reconciliation.breaks import queries, resolve
from products.reconciliation.breaks.choices import Choice, Part, Target
from products.reconciliation.breaks.resolve import BreakEnded, Resolution, StalePreview
from products.reconciliation.breaks.suggestions import suggestions
from tests.conftest import Databases
from tests.integration.reconciliation.breaking import OPERATOR, Breaking, days
from tests.racing import at_once
from tests.tying import expect_all_ties

SAVERS, OFFICE = "ejoheza/savers", "ejoheza/administrator"


@pytest.fixture
def world(databases: Databases, clock: FixedClock) -> Iterator[Breaking]:
    world = Breaking(databases, clock)
    world.statement(world.savers, days(0), since=days(60))
    world.statement(world.office, days(0), since=days(60))
    yield world
    expect_all_ties(databases)
    expect_pairings_add_up(world)


def expect_pairings_add_up(world: Breaking) -> None:
    """Every standing pairing's lines come to its items."""
    wrong = world.rows(
        "SELECT p.id FROM ledger.pairing p WHERE p.undone_at IS NULL AND ("
        " coalesce((SELECT sum(amount) FROM ledger.statement_line WHERE id = ANY (p.lines)), 0)"
        " <> (SELECT sum(amount) FROM ledger.item WHERE id = ANY (p.items)))"
    )
    assert wrong == []


def posted(world: Breaking, done: Resolution) -> list[dict[str, Any]]:
    """What stands in the books of a resolution, told as a preview tells it."""
    return [
        dict(row._mapping)
        for row in world.rows(
            "SELECT t.kind, p.effective_on::text AS effective_on, f.code AS fund, d.code AS debit, d.owner AS debit_owner,"
            " c.code AS credit, c.owner AS credit_owner, p.amount, p.currency::text AS currency"
            " FROM ledger.transaction t JOIN ledger.posting p ON p.transaction_id = t.id"
            " JOIN ledger.account d ON d.id = p.debit_account JOIN ledger.account c ON c.id = p.credit_account"
            " JOIN ledger.fund f ON f.id = d.fund_id WHERE t.id = ANY (%s) ORDER BY t.id, p.seq",
            list(done.transactions),
        )
    ]


def moves(shown: Any) -> list[tuple[str, str, str, int]]:
    """Fund, debit, credit, amount of the postings of a preview."""
    return [(one["fund"], one["debit"], one["credit"], one["amount"]) for one in shown["postings"]]


def test_a_line_is_booked_to_an_account_of_its_fund_or_across_and_the_preview_is_what_is_posted(
    world: Breaking,
) -> None:
    interest, charge, office_rent = (
        world.line(700, kind="INTR"),
        world.line(-250, kind="NCHG"),
        world.line(-90),
    )
    world.refresh()
    seen = world.preview(interest, Choice("book", to=Target("return_for_allocation")))
    assert moves(seen.preview) == [(SAVERS, "bank", "return_for_allocation", 700)]
    assert posted(world, seen) == []  # nothing is done by looking
    assert world.open()[str(interest)] == ("missing_in_books", 700)
    done = world.confirm(seen, remark="interest of February")
    assert posted(world, done) == list(seen.preview["postings"])
    # a cost is the administrator's, by due-to and due-from: no saver's money pays it
    seen = world.preview(charge, Choice("book", to=Target("bank_charges")))
    assert moves(seen.preview) == [
        (SAVERS, "due_from_funds", "bank", 250),
        (OFFICE, "bank_charges", "due_to_funds", 250),
    ]
    done = world.confirm(seen)
    assert posted(world, done) == list(seen.preview["postings"])
    world.resolve(office_rent, Choice("write_off"))
    assert world.balance(OFFICE, "administrator_cost") == 90
    assert world.balance(SAVERS, "bank") == 700 - 250 - 90
    world.refresh()
    assert world.open() == {}
    assert world.history(world.of(interest)) == ["found", "resolved"]
    # it is effective on the bank's day; where a bank books ahead, on the day on which it is done
    assert {one["effective_on"] for one in posted(world, done)} == {days(0).isoformat()}
    ahead, before = world.line(-31, on=days(-2)), world.line(-32, on=days(2))
    world.refresh()
    for line, on in ((ahead, days(0)), (before, days(2))):
        done = world.resolve(line, Choice("write_off"))
        assert {one["effective_on"] for one in posted(world, done)} == {on.isoformat()}


def test_a_line_is_paired_by_hand_with_what_it_differs_by_said(world: Breaking) -> None:
    line = world.line(99_000, end_to_end="E2E-0001")
    item = world.booked(100_000, end_to_end="E2E-0001")
    world.refresh()
    with pytest.raises(InvalidInput, match="differ by -1000") as refused:
        world.preview(line, Choice("pair", items=(item,)))
    assert refused.value.code == "resolution_does_not_add_up"
    seen = world.preview(line, Choice("pair", items=(item,), to=Target("bank_charges")))
    assert [one["amount"] for one in seen.preview["postings"]] == [1_000, 1_000]
    assert seen.amount == 99_000  # a wrong pairing is as wrong as what it pairs
    world.confirm(seen)
    world.refresh()
    assert world.open() == {}


def test_money_that_came_to_the_wrong_account_is_moved_to_where_it_is(world: Breaking) -> None:
    line = world.line(103_000, end_to_end="E2E-ELSEWHERE")
    item = world.booked(103_000, account=world.office, end_to_end="E2E-ELSEWHERE")
    world.refresh()
    seen = world.preview(line, Choice("pair", items=(item,)))
    assert moves(seen.preview) == [
        (SAVERS, "bank", "due_to_funds", 103_000),
        (OFFICE, "due_from_funds", "bank", 103_000),
    ]
    done = world.confirm(seen)
    assert len(done.pairings) == 2
    world.undo(line)
    world.refresh()
    assert world.open() == {str(line): ("wrong_account", 103_000)}


def test_a_line_is_split_among_accounts_and_items(world: Breaking) -> None:
    line = world.line(10_000, party="somebody")
    item = world.booked(6_000)
    world.refresh()
    parts = (
        Part(6_000, item=item),
        Part(3_000, to=Target("fees_payable")),
        Part(999, to=Target("bank_charges")),
    )
    with pytest.raises(InvalidInput, match="come to 9999"):
        world.preview(line, Choice("split", parts=parts))
    parts = (*parts[:2], Part(1_000, to=Target("bank_charges")))
    seen = world.preview(line, Choice("split", parts=parts))
    done = world.confirm(seen)
    assert posted(world, done) == list(seen.preview["postings"])
    world.refresh()
    assert world.open() == {}


def test_money_in_is_never_written_off_and_members_money_never_booked_by_hand(world: Breaking) -> None:
    line, item = world.line(500), world.booked(800, on=days(10))
    world.refresh()
    with pytest.raises(InvalidInput) as refused:
        world.preview(line, Choice("write_off"))
    assert refused.value.code == "not_a_loss"
    for code in ("member_savings", "partner_receivable", "payout_clearing", "match_vested", "nonsense"):
        with pytest.raises(InvalidInput, match="nothing is booked to"):
            world.preview(line, Choice("book", to=Target(code)))
    with pytest.raises(InvalidInput, match="words don't close it"):
        world.preview(line, Choice("explain"))
    # what the books have and the bank never had is a loss
    done = world.resolve(item, Choice("write_off"))
    assert moves(done.preview) == [
        (SAVERS, "due_from_funds", "bank", 800),
        (OFFICE, "administrator_cost", "due_to_funds", 800),
    ]
    world.refresh()
    assert world.open() == {str(line): ("unknown_party", 500)}
    # money of nobody is a receipt, with its own break until somebody knows
    world.resolve(line, Choice("book", to=Target("unidentified_receipts")))
    world.refresh()
    assert list(world.open().values()) == [("unapplied_receipt", 500)]
    world.undo(line)
    world.refresh()
    assert world.open() == {str(line): ("unknown_party", 500)}


def test_what_changed_since_the_preview_is_not_done(world: Breaking) -> None:
    line, item = world.line(99_000, end_to_end="E2E-0001"), world.booked(100_000, end_to_end="E2E-0001")
    world.refresh()
    seen = world.preview(line, Choice("pair", items=(item,), to=Target("bank_charges")))
    other = world.preview(line, Choice("book", to=Target("fees_payable")))
    with pytest.raises(StalePreview):  # a digest of another preview
        world.databases.worker.run(
            lambda tx: resolve.confirm(
                tx, world.world.books, seen.id, digest=other.digest, remark="x", actor=OPERATOR
            )
        )
    world.pair(world.line(100_000), item)
    with pytest.raises(StalePreview):
        world.confirm(seen)
    assert (
        world.row("SELECT state FROM products.break_resolution WHERE id = %s", seen.id).state == "previewed"
    )
    assert world.open()[str(line)] == ("fee", -1_000)
    # the period was closed meanwhile: it would land on another day
    with world.databases.worker.begin() as tx:
        close_period(tx, world.savers.fund_id, days(0), actor="test", clock=world.clock)
    with pytest.raises(StalePreview, match="something else"):
        world.confirm(other)
    world.confirm(world.preview(line, Choice("book", to=Target("fees_payable"))))
    with pytest.raises(BreakEnded):
        world.confirm(other)


def test_of_two_who_resolve_one_break_at_once_one_wins(world: Breaking) -> None:
    line = world.line(-250)
    world.refresh()
    seen = [
        world.preview(line, Choice("book", to=Target(code)), actor=f"opr_{code}")
        for code in ("bank_charges", "administrator_cost", "credit_loss", "fees_payable")
    ]

    outcomes: list[str] = []

    def confirm(one: Resolution) -> None:
        try:
            outcomes.append(world.confirm(one).method)
        except Conflict as error:
            outcomes.append(error.code)

    at_once(*(partial(confirm, one) for one in seen))
    assert sorted(outcomes) == ["book", "break_ended", "break_ended", "break_ended"]
    assert world.balance(SAVERS, "bank") == -250


def test_what_is_taken_back_is_open_again_with_its_history(world: Breaking) -> None:
    line = world.line(-250)
    world.refresh()
    found = world.of(line)
    world.resolve(line, Choice("write_off"))
    world.undo(line, "it was ours after all")
    assert world.balance(SAVERS, "bank") == 0
    assert world.balance(OFFICE, "administrator_cost") == 0
    assert world.history(found) == ["found", "resolved", "undone"]
    world.refresh()
    assert world.open() == {str(line): ("missing_in_books", -250)}
    assert world.of(line) == found
    reversals = world.rows("SELECT reverses FROM ledger.transaction WHERE reverses IS NOT NULL")
    assert len(reversals) == 1
    # and it can be ended again, otherwise
    world.resolve(line, Choice("book", to=Target("fees_payable")))
    world.undo(line)
    with pytest.raises(Conflict) as refused:
        world.undo(line)
    assert refused.value.code == "not_resolved"


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_after_any_sequence_of_resolving_and_undoing_the_books_verify_and_lines_tie(
    world: Breaking, data: st.DataObject
) -> None:
    amounts = data.draw(st.lists(st.integers(-900, 900).filter(bool), min_size=2, max_size=4))
    subjects = [world.line(amount) for amount in amounts]
    subjects.append(world.booked(data.draw(st.integers(-900, 900).filter(bool)), on=days(10)))
    world.refresh()
    before = world.balance(SAVERS, "bank")
    standing = {}
    for _ in range(data.draw(st.integers(2, 6))):
        subject = data.draw(st.sampled_from(subjects))
        if subject in standing:
            world.undo(subject)
            del standing[subject]
            continue
        to = data.draw(
            st.sampled_from(["fees_payable", "return_for_allocation", "bank_charges", "administrator_cost"])
        )
        seen = world.preview(subject, Choice("book", to=Target(to)))
        done = world.confirm(seen)
        assert posted(world, done) == list(seen.preview["postings"])
        standing[subject] = done
        if data.draw(st.booleans()):
            world.refresh()
    moved = sum(
        one["amount"] * ((one["debit"] == "bank") - (one["credit"] == "bank"))
        for done in standing.values()
        for one in done.preview["postings"]
        if one["fund"] == SAVERS
    )
    assert world.balance(SAVERS, "bank") - before == moved
    world.refresh()
    still = {str(one) for one in subjects if one not in standing}
    assert still <= set(world.open()) | {
        item
        for row in world.rows("SELECT details FROM products.break WHERE ended_at IS NULL")
        for item in row.details.get("items", [])
    }
    assert not {str(one) for one in standing} & set(world.open())
    expect_pairings_add_up(world)
    expect_all_ties(world.databases)


def test_whose_account_it_is_is_suggested_by_pairings_with_partners_alone(world: Breaking) -> None:
    sender = bytes(32)
    for amount, party in ((1_000, "umoja"), (2_000, "umoja"), (3_000, "a-rail")):
        pairing = world.pair(world.line(amount, counterparty_index=sender), world.booked(amount, party=party))
    open_line = world.line(4_000, counterparty_index=sender)
    world.refresh()
    with world.databases.worker.begin() as tx:
        [found] = suggestions(tx, queries.one_of(tx, world.clock, world.of(open_line)))
    assert (found.likeness, found.partner, found.agree, found.disagree) == ("counterparty", "umoja", 2, 0)
    assert len(found.pairings) == 2
    assert pairing not in found.pairings
    assert not world.rows("SELECT 1 FROM ledger.paired_line WHERE line_id = %s", open_line)
