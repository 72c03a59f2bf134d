"""What was collected for an agency is sent with its schedule, and comes back line by line as the agency answers."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from ledger.errors import InvalidInput
from ledger.horizon import START
from ledger.outbox import READ_MAX, read
from products.checks import PRODUCT_CHECKS
from products.remittals import making
from products.remittals.layouts import Answered, AnswerRefused, Totals
from products.remittals.making import RemittalClosed
from products.remittances.partners import Terms
from tests.integration.remittals.conftest import SSF, Agencies
from tests.integration.remittances.seen import journal


def test_a_remittal_takes_what_was_paid_in_and_its_schedule_says_what_for(ssf: Agencies) -> None:
    first, second, unpaid = ssf.person("S-1"), ssf.person("S-2", pay=2_000_000), ssf.person("S-3")
    # February's in two parts, and March's; pay of 20,000 is 4,266 a month
    ssf.pay(first, 100_000, at=datetime(2026, 2, 3, tzinfo=UTC))
    ssf.pay(first, 113_300, at=datetime(2026, 2, 20, tzinfo=UTC))
    ssf.pay(first, at=datetime(2026, 3, 1, tzinfo=UTC))
    ssf.pay(second, 426_600, at=datetime(2026, 3, 1, 1, tzinfo=UTC))
    ssf.settle(853_200)
    ssf.pay(unpaid)  # its partner has not paid it in: it is not sent
    before = len(journal(ssf.world))
    remittal = ssf.make().remittal
    assert (remittal.lines, remittal.amount) == (3, 853_200)
    assert ssf.schedule(remittal).decode().splitlines() == [
        "line,number,applies_to,base,rate,amount,paid_on,product,currency,remittal",
        f"1,S1,2026-02,10000.00,21.33,2133.00,2026-02-20,social-security,NPR,{remittal.public_id}",
        f"2,S1,2026-03,10000.00,21.33,2133.00,2026-03-01,social-security,NPR,{remittal.public_id}",
        f"3,S2,2026-03,20000.00,21.33,4266.00,2026-03-01,social-security,NPR,{remittal.public_id}",
        "#total,3,8532.00",
        "#2026-02,1,2133.00",
        "#2026-03,2,6399.00",
    ]
    assert hashlib.sha256(ssf.schedule(remittal)).digest() == remittal.digest
    with pytest.raises(InvalidInput, match="nothing to send"):
        ssf.make()  # it is in the first one
    assert len(journal(ssf.world)) == before

    with pytest.raises(RemittalClosed):
        ssf.clear(remittal)
    ssf.send(remittal)
    ssf.send(remittal)  # the same again changes nothing
    with pytest.raises(RemittalClosed):
        ssf.send(remittal, "PAY-2")
    assert (ssf.holds("agency_contributions_collected"), ssf.holds("bank_clearing")) == (213_300, 853_200)
    ssf.clear(remittal)
    ssf.clear(remittal)
    assert [(one.debit, one.credit, one.fund, one.amount) for one in journal(ssf.world)[before:]] == [
        ("agency_contributions_collected", "bank_clearing", "agency", 853_200),
        ("bank_clearing", "bank", "agency", 853_200),
    ]
    # nothing of it lies in the clear
    stored = ssf.one("SELECT string_agg(l::text, '') FROM products.remittal_line l")
    assert "S1" not in str(stored)


def test_who_has_no_number_stays_back_or_is_sent_without(ssf: Agencies) -> None:
    for person in (ssf.person("S-1"), ssf.person()):
        ssf.pay(person)
    ssf.settle(426_600)
    made = ssf.make()
    assert (made.remittal.lines, [one.amount for one in made.held]) == (1, [213_300])
    ssf.world.databases.worker.run(lambda tx: making.withdraw(tx, made.remittal.id))
    with pytest.raises(RemittalClosed):
        ssf.send(made.remittal)
    again = ssf.make(without_number="send")
    assert (again.remittal.lines, again.remittal.number, again.held) == (2, 2, ())
    assert ",,2026-03," in ssf.schedule(again.remittal).decode()
    ssf.set_up(
        without_number="send",
        columns={
            "columns": [
                {"header": "Ref", "field": "line"},
                {"header": "Rs", "field": "amount"},
                {"header": "Scheme", "value": "FE"},
            ],
            "delimiter": ";",
            "amounts": "minor",
        },
    )
    ssf.pay(ssf.person())
    ssf.settle(213_300)
    told = ssf.schedule(ssf.make().remittal).decode().splitlines()
    assert told == ["Ref;Rs;Scheme", "1;213300;FE", "#total;1;213300", "#2026-03;1;213300"]


def test_an_agency_accepts_rejects_and_corrects_line_by_line(ssf: Agencies) -> None:
    people = [ssf.person(f"S-{number}") for number in range(1, 6)]
    for number, person in enumerate(people):
        ssf.pay(person, name=f"R{number}")
    ssf.settle(213_300 * 5)
    remittal = ssf.sent()
    before = len(journal(ssf.world))
    rows = (
        Answered(1, "accepted"),
        Answered(2, "rejected", reason="unknown number"),
        Answered(3, "corrected", 200_000, reason="pay"),
        Answered(4, "corrected", 220_000),
        Answered(5, "corrected", number="S-55"),
    )
    done = ssf.answer(remittal, *rows, totals=Totals(5, 213_300 * 2 + 200_000 + 220_000))
    assert (done.lines, done.accepted, done.returned, done.claimed) == (
        5,
        213_300 * 3 + 200_000,
        226_600,
        6_700,
    )
    assert ssf.states(remittal) == [
        ("accepted", 213_300, 0, None),
        ("rejected", 0, 0, "unknown number"),
        ("corrected", 200_000, 0, "pay"),
        ("corrected", 213_300, 6_700, "amount_corrected"),
        ("corrected", 213_300, 0, None),
    ]
    assert [(one.debit, one.credit, one.fund, one.amount) for one in journal(ssf.world)[before:]] == [
        ("bank", "due_to_funds", "agency", 213_300),
        ("due_from_funds", "member_unapplied", "savers", 213_300),
        ("bank", "due_to_funds", "agency", 13_300),
        ("due_from_funds", "member_unapplied", "savers", 13_300),
    ]
    assert [ssf.unapplied(person) for person in people] == [0, 213_300, 13_300, 0, 0]
    with ssf.world.databases.worker.begin() as tx:
        told = [
            one.message.payload
            for one in read(tx, START, limit=READ_MAX)
            if one.message.topic == "remittal.returned"
        ]
    assert [(one["outcome"], one["returned"]["amount"]) for one in told] == [
        ("rejected", 213_300),
        ("corrected", 13_300),
    ]

    # the same answer again, whatever its order, changes nothing
    assert ssf.answer(remittal, *reversed(rows), totals=Totals(5, 213_300 * 2 + 200_000 + 220_000)).replayed
    # the corrected number is the one that the agency is told next
    ssf.world.clock.advance(timedelta(days=30))
    for person in people:
        ssf.pay(person)
    ssf.settle(213_300 * 5)
    assert "5,S55,2026-04" in ssf.schedule(ssf.make().remittal).decode()

    # what came back to a member can be taken back from the member; what the agency has, can't
    [refused] = ssf.world.send(ssf.partner, ssf.world.reversed("R0"), approved=True)
    assert (refused.state, refused.reason) == ("quarantined", "remitted_to_agency")
    [taken] = ssf.world.send(ssf.partner, ssf.world.reversed("R1"), approved=True)
    assert (taken.state, ssf.unapplied(people[1])) == ("reversed", 0)


def test_a_rejected_month_can_be_paid_anew(ssf: Agencies) -> None:
    person = ssf.person("S-1")
    ssf.pay(person)
    ssf.settle(213_300)
    first = ssf.sent()
    ssf.pay(person)  # the month is paid: nothing more of it is due
    assert ssf.unapplied(person) == 213_300
    ssf.answer(first, Answered(1, "rejected", reason="late"))
    ssf.pay(person)
    ssf.settle(213_300 * 2)
    assert ssf.unapplied(person) == 213_300 * 2
    second = ssf.sent()
    assert (second.amount, second.number) == (213_300, 2)


@pytest.mark.parametrize("terms", ["prefunded", "guaranteed"])
def test_a_prefunded_partners_money_crosses_from_the_savers_and_a_guaranteed_one_has_to_pay_first(
    ssf: Agencies, terms: Terms
) -> None:
    if terms == "prefunded":
        ssf.settle(1_000_000)
    person = ssf.person("S-1")
    ssf.pay(person, name="ONE")
    if terms == "guaranteed":
        with pytest.raises(InvalidInput):
            ssf.make()
        ssf.settle(213_300)
    before = len(journal(ssf.world))
    remittal = ssf.sent()
    crossing = [("due_to_funds", "bank", "savers"), ("bank", "due_from_funds", "agency")]
    assert [(one.debit, one.credit, one.fund) for one in journal(ssf.world)[before:]] == [
        *(crossing if terms == "prefunded" else []),
        ("agency_contributions_collected", "bank_clearing", "agency"),
        ("bank_clearing", "bank", "agency"),
    ]
    ssf.answer(remittal, Answered(1, "corrected", 100_000))
    assert ssf.unapplied(person) == 113_300
    assert ssf.holds("due_from_funds") == ssf.holds("due_to_funds") == 113_300


REFUSED = [
    ((Answered(3, "accepted"),), Totals(), "line 3 was never sent: there are 2"),
    ((Answered(1, "accepted"), Answered(1, "accepted")), Totals(), "line 1 is answered twice"),
    ((Answered(1, "accepted", 1),), Totals(), "accepted with 1, and 213300 was sent"),
    ((Answered(1, "rejected"),), Totals(), "rejected without a reason"),
    ((Answered(1, "corrected"),), Totals(), "nothing of it is another"),
    ((Answered(1, "accepted"),), Totals(2, None), "says 2 lines and has 1"),
    ((Answered(1, "accepted"),), Totals(1, 213_000), "-300 of difference"),
    ((), Totals(), "has no line"),
]


def test_an_answer_that_does_not_tie_is_refused_whole_with_the_difference_named(ssf: Agencies) -> None:
    for number in (1, 2):
        ssf.pay(ssf.person(f"S-{number}"))
    ssf.settle(426_600)
    remittal = ssf.make().remittal
    with pytest.raises(RemittalClosed):
        ssf.answer(remittal, Answered(1, "accepted"))
    ssf.send(remittal)
    before = len(journal(ssf.world))
    for rows, totals, why in REFUSED:
        with pytest.raises(AnswerRefused, match=why):
            ssf.answer(remittal, *rows, totals=totals)
    with pytest.raises(AnswerRefused, match="never sent"):
        ssf.answer(remittal, Answered(1, "rejected", reason="x"), Answered(9, "accepted"))
    assert len(journal(ssf.world)) == before
    assert {state for state, *_ in ssf.states(remittal)} == {"sent"}
    # one line now, the other later, and neither twice
    ssf.answer(remittal, Answered(1, "accepted"))
    ssf.answer(remittal, Answered(2, "rejected", reason="x"))
    with pytest.raises(AnswerRefused, match="it is accepted"):
        ssf.answer(remittal, Answered(1, "rejected", reason="x"))
    ssf.clear(remittal)


LIES = [
    ("UPDATE products.remittal_line SET amount = amount + 1", "its contributions come to"),
    ("UPDATE products.remittal SET amount = amount + 1", "totals are not those"),
    ("UPDATE products.contribution SET amount = amount + 1 WHERE remittal_line IS NOT NULL", "come to"),
    ("UPDATE products.remittal SET state = 'made'", "its contributions not sent come to"),
    ("UPDATE products.remittal SET state = 'sent'", "is with the bank"),
    ("UPDATE products.remittal_line SET accepted = accepted + 1", "came back into the books"),
]


def test_a_planted_lie_about_a_remittal_is_found(ssf: Agencies) -> None:
    ssf.pay(ssf.person("S-1"))
    ssf.settle(213_300)
    ssf.answer(ssf.sent(), Answered(1, "corrected", 200_000))
    with ssf.world.databases.superuser.begin() as tx:
        for lie, told in LIES:
            planted = tx.begin_nested()
            tx.exec_driver_sql(lie)
            found = [str(one) for check in PRODUCT_CHECKS for one in check.run(tx).findings]
            planted.rollback()
            assert any(told in one for one in found), (lie, found)


def test_agencies_of_a_programme_are_told_apart(ssf: Agencies) -> None:
    assert ssf.world.balance("agency_contributions_collected", SSF, programme=SSF) == 0
    with pytest.raises(InvalidInput, match="days that have come"):
        ssf.make(through=ssf.today + timedelta(days=2))
