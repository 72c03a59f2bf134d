"""Rules pair what they find one answer for, in their order, and say on what evidence; what has two answers is left."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from ledger.reconciliation import rules
from ledger.reconciliation.pairings import open_lines
from ledger.reconciliation.rules import InvalidRules
from tests.conftest import Databases
from tests.integration.reconciliation.desk import DAY, Desk, desk_of


@pytest.fixture
def desk(databases: Databases) -> Desk:
    return desk_of(databases)


def test_each_rule_pairs_what_is_its_own_and_says_why(desk: Desk) -> None:
    desk.line("l-ref", 101_00, reference="TT-1")
    desk.item("i-ref", 101_00, -2, reference="TT-1")
    desk.line("l-e2e", -102_00, end_to_end="E2E-2")
    desk.item("i-e2e", -102_00, end_to_end="E2E-2", reference="ours-2")
    # the bank lost case and separators
    desk.line("l-text", 103_00, identifiers=["STL 00417"])
    desk.item("i-text", 103_00, reference="stl-00417")
    desk.line("l-amount", 104_37, reference="the bank's own")
    desk.item("i-amount", 104_37, 2, reference="ours")
    desk.line("l-party", 105_11, 5, party="acme", reference="the bank's own")
    desk.item("i-party", 105_11, 0, party="acme", reference="ours")
    desk.line("l-batch", -30_000, identifiers=["BATCH-9"])
    for number in (1, 2, 3):
        desk.item(f"i-batch{number}", -10_000, batch="batch9", end_to_end=f"P{number}")
    for number in (1, 2):
        desk.line(f"l-part{number}", 20_050, identifiers=["INV777777"])
    desk.item("i-parts", 40_100, reference="INV-777777")
    desk.line("l-day", 61_003, 3, party="kolo")
    for number in (1, 2):
        desk.item(f"i-day{number}", 30_501 + number - 1, 3, day=DAY, party="kolo")
    for number in (1, 2):
        desk.line(f"l-sum{number}", 7_777 + number, 1, party="zed")
    desk.item("i-sum", 15_557, party="zed")
    desk.line("l-search", 5_000_123, party="nile")
    for number, amount in enumerate((3_000_100, 2_000_023, 1_700_511)):
        desk.item(f"i-search{number}", amount, -number, party="nile")

    outcome = desk.run()
    paired = desk.paired

    assert {names: rule for names, (rule, _) in paired.items()} == {
        ("i-ref", "l-ref"): "reference",
        ("i-e2e", "l-e2e"): "end_to_end",
        ("i-text", "l-text"): "identifiers",
        ("i-amount", "l-amount"): "amount_and_date",
        ("i-party", "l-party"): "party_and_amount",
        ("i-batch1", "i-batch2", "i-batch3", "l-batch"): "shared_identifier_items",
        ("i-parts", "l-part1", "l-part2"): "shared_identifier_lines",
        ("i-day1", "i-day2", "l-day"): "party_and_day_items",
        ("i-sum", "l-sum1", "l-sum2"): "party_and_day_lines",
        ("i-search0", "i-search1", "l-search"): "search_items",
    }
    assert (outcome.pairings, outcome.proposals) == (10, ())
    assert paired["i-ref", "l-ref"][1] == {"reference": "TT-1", "days": -2}
    assert paired["i-text", "l-text"][1] == {"identifier": "STL00417", "days": 0}
    assert paired["i-batch1", "i-batch2", "i-batch3", "l-batch"][1] == {
        "identifier": "BATCH9",
        "items": 3,
        "sum": -30_000,
        "days": 0,
    }
    assert paired["i-search0", "i-search1", "l-search"][1] == {
        "party": "nile",
        "items": 2,
        "sum": 5_000_123,
        "searched": 3,
    }
    assert (desk.run().pairings, desk.paired) == (0, paired)  # again: nothing changes


def test_a_party_that_pays_its_oldest_debts_is_understood_though_its_sums_are_round(desk: Desk) -> None:
    owed = ((10_000, 0), (20_000, 1), (15_000, 2))
    for party, paid in (("lake", 30_000), ("moor", 35_000), ("fen", 45_000)):
        desk.line(f"l-{party}", paid, 3, party=party)
        for amount, after in owed:
            desk.item(f"i-{party}{after}", amount, after, party=party)
    # in parts; a later and a larger debt is not meant
    desk.item("i-hill", 100_000, party="hill")
    desk.item("i-hill-later", 180_000, 1, party="hill")
    desk.line("l-hill1", 60_000, 1, party="hill")
    desk.line("l-hill2", 40_000, 3, party="hill")
    # part of what is of one day may be any part of it, and an older debt that is left out says that another sum was meant
    desk.line("l-brook", 33_000, 1, party="brook")
    for number, amount in enumerate((11_000, 22_000, 5_000)):
        desk.item(f"i-brook{number}", amount, party="brook")
    desk.line("l-dune", 51_000, 1, party="dune")
    for number, amount in enumerate((90_000, 21_000, 30_000)):
        desk.item(f"i-dune{number}", amount, number, party="dune")

    desk.run()

    assert {names: rule for names, (rule, _) in desk.paired.items()} == {
        ("i-lake0", "i-lake1", "l-lake"): "search_items",
        ("i-fen0", "i-fen1", "i-fen2", "l-fen"): "search_items",
        ("i-hill", "l-hill1", "l-hill2"): "search_lines",
    }


def test_a_name_that_a_line_bears_in_two_spellings_is_one_name(desk: Desk) -> None:
    desk.line("l", -30_000, reference="SALA-9", end_to_end="sala9", identifiers=["SALA/9"])
    for number in (1, 2):
        desk.item(f"i{number}", -15_000, batch="sala9", reference="SALA_9")
    desk.run()
    assert [*desk.paired] == [("i1", "i2", "l")]
    found = rules.default().identifiers_in("SALA-20261,sala/20261,SALA20261")
    assert found == ("SALA-20261",)


def test_a_name_of_which_the_bank_kept_what_it_had_room_for_is_known(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.item(f"i{number}", -10_000 * number, end_to_end=f"019c0c1a27f07b01{number % 2:016}")
    desk.line("l1", -10_000, end_to_end="019C0C1A27F07B01")
    desk.line("l2", -20_000, reference="019c0c1a27f07b01")
    desk.line("l3", -30_000, end_to_end="019c0c1a27f07b0")  # too short to be one
    for number in (1, 2):
        desk.item(f"i-batch{number}", -4_000 * number, batch="salaries-2026-03-part-1")
        desk.item(f"i-twin{number}", -7_000, reference=f"rent-2026-03-dept-{number}")
    desk.line("l-batch", -12_000, reference="SALARIES-2026-03")
    desk.line("l-twin", -7_000, reference="RENT-2026-03-DEP")
    desk.run()
    assert {names: rule for names, (rule, _) in desk.paired.items()} == {
        ("i1", "l1"): "identifiers",
        ("i2", "l2"): "identifiers",
        ("i-batch1", "i-batch2", "l-batch"): "shared_identifier_items",
    }


def test_two_good_answers_are_no_answer(desk: Desk) -> None:
    # two lines for one item, two items for one line, and as many of both
    for side, lines, items in (("a", 2, 1), ("b", 1, 2), ("c", 2, 2)):
        for number in range(lines):
            desk.line(f"l{side}{number}", 500_00, reference=f"R-{side}")
        for number in range(items):
            desk.item(f"i{side}{number}", 500_00, reference=f"R-{side}")
    # by amount: one that is nearer is no better
    desk.line("near", 700_00)
    desk.item("same day", 700_00)
    desk.item("two days off", 700_00, 2)
    # a line that fits an item, and what a party paid that day
    desk.line("either", 900_00, party="acme")
    desk.item("alone", 900_00)
    desk.item("first", 450_00, party="acme")
    desk.item("second", 450_00, party="acme", reference="S-2")
    # two parties' days of the same sum are each other's only by the party
    desk.line("whose", 120_00)
    for number in range(4):
        desk.item(f"x{number}", 60_00, party=f"p{number % 2}")
    # sums by chance: 3 + 4 is 7 and 2 + 5 is 7
    desk.line("seven", 7_000_000, party="nile")
    for number, amount in enumerate((3_000_000, 4_000_000, 2_000_000, 5_000_000)):
        desk.item(f"n{number}", amount, -number, party="nile")

    desk.run()

    assert {names: rule for names, (rule, _) in desk.paired.items()} == {
        ("either", "first", "second"): "party_and_day_items"
    }


def test_a_sum_is_no_better_than_an_amount_and_only_the_oldest_are_oldest(desk: Desk) -> None:
    # of one party: two payments or debts of just the amount, and others that add up to it
    desk.line("day", 900_00, 3, party="lake")
    desk.item("lake", 900_00, party="lake")
    desk.item("lake again", 900_00, 1, party="lake")
    for number in (1, 2):
        desk.item(f"lake{number}", 450_00, 2, party="lake")
    desk.item("days", 700_00, 3, party="moor")
    for after, amount in enumerate((100_00, 600_00, 700_00, 700_00)):
        desk.line(f"moor{after}", amount, after, party="moor")
    # round sums of debts, while an older one is open that no payment of these days would be for
    desk.line("late", 30_000, 3, party="fen")
    for after, amount in ((-8, 50_000), (0, 10_000), (1, 20_000)):
        desk.item(f"fen{after}", amount, after, party="fen")
    desk.item("in parts", 60_000, 3, party="hill")
    for after, amount in ((-8, 90_000), (1, 20_000), (2, 40_000)):
        desk.line(f"hill{after}", amount, after, party="hill")
    desk.run()
    assert desk.paired == {}


def test_whose_a_line_is_and_what_it_is_named_contradict_a_name_and_a_sum(desk: Desk) -> None:
    # two partners number their payments alike
    desk.line("of A", 100_00, party="A", reference="INV-0001")
    desk.item("of B", 100_00, party="B", reference="INV-0001")
    desk.line("batch of A", 70_00, party="A", identifiers=["BATCH-0002"])
    desk.item("B's 1", 40_00, party="B", reference="BATCH-0002")
    desk.item("B's 2", 30_00, party="B", reference="batch 0002")
    desk.line("less of A", 99_900, party="A", identifiers=["INV-0003"])
    desk.item("more of B", 100_000, party="B", reference="INV-0003")
    # what we named ourselves says more than an account that somebody else pays from
    desk.line("ours", -20_011, party="A", reference="the bank's", identifiers=["PAY1"])
    desk.item("payout", -20_011, party="rail", reference="the rail's", identifiers=["PAY1"])
    desk.line("ours too", -30_011, party="A", identifiers=["PAY2"])
    desk.item("another payout", -30_011, party="rail", identifiers=["PAY2"])
    desk.line("cut off", 60_013, party="A", reference="SETTLEMENT-2026-")
    desk.item("of B, whole", 60_013, party="B", reference="SETTLEMENT-2026-03")
    # named as another payment, which is of another amount, or was paid before
    desk.line("wrong amount", 500_00, 2, party="C", reference="INV-0077")
    desk.item("named", 630_00, 1, party="C", reference="INV-0077")
    for number, amount in ((1, 200_00), (2, 300_00)):
        desk.item(f"C's {number}", amount, party="C")
    desk.line("first", 800_00, party="D", end_to_end="E1")
    desk.item("due", 800_00, party="D", end_to_end="E1")
    desk.run()
    desk.line("second", 800_00, 2, party="D", end_to_end="E1")
    for number, amount in ((1, 350_00), (2, 450_00)):
        desk.item(f"D's {number}", amount, number, party="D")
    desk.run()
    assert {names: rule for names, (rule, _) in desk.paired.items()} == {
        ("due", "first"): "end_to_end",
        ("ours", "payout"): "identifiers",
        ("another payout", "ours too"): "identifiers",
    }


def test_a_reversal_at_the_bank_is_no_payment_that_is_expected(desk: Desk) -> None:
    desk.line("taken back", 104_37, reversal=True)
    desk.item("owed", 104_37, party="acme", source="settlement")
    desk.line("in parts", 70_011, party="kolo", reversal=True)
    for number, amount in ((1, 30_005), (2, 40_006)):
        desk.item(f"owed{number}", amount, party="kolo", source="settlement")
    desk.line("as booked", -33_033, reversal=True)
    desk.item("returned", -33_033)
    assert desk.run().proposals == ()
    assert set(desk.paired) == {("as booked", "returned")}


def test_what_another_bank_account_knows_by_its_name_is_not_taken_for_a_stranger(desk: Desk) -> None:
    there = desk.beside()
    desk.line("came here", 100_37, end_to_end="E-9")
    there.item("meant there", 100_37, end_to_end="E-9")
    desk.item("stranger", 100_37)
    there.line("went there", -200_41, reference="R-9")
    desk.item("meant here", -200_41, reference="R-9")
    desk.line("strange", -200_41)
    # both sides of a transfer bear its name
    desk.line("left", -300_43, reference="T-9")
    desk.item("leaving", -300_43)
    there.item("arriving", 300_43, reference="T-9")
    desk.run()
    assert set(desk.paired) == {("leaving", "left")}


def test_a_later_rule_that_says_more_tells_two_apart(desk: Desk) -> None:
    for number in (1, 2):
        desk.line(f"l{number}", 250_00, reference="SALARY", end_to_end=f"E{number}")
        desk.item(f"i{number}", 250_00, reference="SALARY", identifiers=[f"E{number}"])
    desk.run()
    assert {names: rule for names, (rule, _) in desk.paired.items()} == {
        ("i1", "l1"): "identifiers",
        ("i2", "l2"): "identifiers",
    }


def test_what_contradicts_is_never_paired(desk: Desk) -> None:
    desk.line("short", 90_00, reference="TT-5")
    desk.item("due", 100_00, reference="TT-5")
    desk.item("stranger", 90_00)  # of the line's amount, but the line is named as another's
    desk.line("other sign", -300_00, end_to_end="E3")
    desk.item("sign", 300_00, end_to_end="E3")
    desk.line("named", 400_00, end_to_end="A-1")
    desk.item("named otherwise", 400_00, end_to_end="B-1")
    desk.line("of A", 410_00, party="A")
    desk.item("of B", 410_00, party="B")
    desk.line("once", 600_00, end_to_end="E6")
    desk.item("first time", 600_00, end_to_end="E6")
    duplicate = desk.line("same line again", 800_00, reference="D-8", duplicate_of=desk.ids["once"])
    desk.item("waits", 800_00, reference="D-8")
    desk.item("closed", 810_00, reference="C-8", source="payout", closed_at="2026-03-11T00:00:00Z")
    desk.line("for the closed", 810_00, reference="C-8")
    desk.line("far off", 820_00, reference="F-8")
    desk.item("long ago", 820_00, -70, reference="F-8")
    desk.run()
    assert set(desk.paired) == {("first time", "once")}
    assert duplicate not in {
        one.id for one in desk.databases.worker.run(lambda tx: open_lines(tx, desk.account))
    }

    # paid twice: the second line is named as what stands already
    desk.line("twice", 600_00, 1, end_to_end="E6")
    desk.item("unnamed", 600_00, 1)
    desk.run()
    assert set(desk.paired) == {("first time", "once")}


def test_payments_settlements_and_differences_are_proposed_not_paired(desk: Desk) -> None:
    desk.line("sent", -50_000, end_to_end="E1")
    desk.item("payout", -50_000, end_to_end="E1", source="payout")
    desk.line("batch", -90_000, identifiers=["B7"])
    for number in (1, 2):
        desk.item(f"of batch {number}", -45_000, batch="B7", source="payout")
    desk.line("mixed", 30_000, identifiers=["M8"])
    desk.item("owed", 10_000, identifiers=["M8"], source="settlement")
    desk.item("booked", 20_000, identifiers=["M8"])
    desk.line("less", 99_700, reference="S-9")
    desk.item("settlement", 100_000, reference="S-9", source="settlement")
    desk.line("too little", 98_000, reference="S-10")
    desk.item("whole", 100_000, reference="S-10")
    desk.line("more", 100_300, reference="S-11")
    desk.item("less than that", 100_000, reference="S-11")

    outcome = desk.run()

    names = {id_: name for name, id_ in desk.ids.items()}
    assert {
        tuple(names[id_] for id_ in (*one.lines, *one.items)): (one.rule, one.difference)
        for one in outcome.proposals
    } == {
        ("sent", "payout"): ("end_to_end", 0),
        ("batch", "of batch 1", "of batch 2"): ("shared_identifier_items", 0),
        ("less", "settlement"): ("tolerance", -300),
    }
    assert desk.paired == {}


def test_rules_are_data_checked_versioned_and_followed_in_their_order(desk: Desk) -> None:
    content = deepcopy(dict(rules.default().content))
    assert rules.read(yaml.safe_dump(content)) == content
    faults: tuple[dict[str, Any], ...] = (
        {"rules": []},
        {"rules": [{"name": "x", "pairs": "one_to_one", "on": ["day"], "days": 3}]},
        {"rules": [{"name": "x", "pairs": "one_line_to_many", "on": ["party"], "days": 3}]},
        {"rules": [content["rules"][0], content["rules"][0]]},
        {"rules": [{**content["rules"][6], "tolerance": {"basis_points": 5, "amount_max": 5}}]},
        {**content, "identifiers": ["("]},
        {**content, "unknown": 1},
    )
    for fault in faults:
        with pytest.raises(InvalidRules):
            rules.read(yaml.safe_dump(fault))
    with pytest.raises(InvalidRules, match="YAML"):
        rules.read("{")

    own = {"rules": [one for one in content["rules"] if one["name"] == "amount_and_date"]}
    with desk.databases.worker.begin() as tx:
        assert rules.of_account(tx, desk.account).version == 0
        applied = [
            rules.apply(tx, desk.account, each, applied_by="opr_one", clock=desk.clock)
            for each in (own, own, content)
        ]
        assert [one.version for one in applied] == [1, 1, 2]
        assert [rule.name for rule in applied[0].rules] == ["amount_and_date"]
        assert rules.of_account(tx, desk.account).content == content
    desk.line("l", 100_00, reference="R")
    desk.item("i", 100_00, reference="R")
    desk.run(applied[0])
    assert desk.paired["i", "l"][0] == "amount_and_date"


def test_free_text_gives_up_references_that_the_bank_broke() -> None:
    found = rules.default().identifiers_in("PAYMENT STL-2026-0 0417 /INV 77-12345 THANKS 2 PEOPLE")
    assert {"STL-2026-00417", "INV77-12345", "77-12345"} <= set(found)
    assert not {"PAYMENT", "THANKS", "PEOPLE"} & set(found)
    own = rules.of_content(
        1, {"rules": [], "parties": [{"party": "acme", "names": ["Acme Remit"], "accounts": ["AE07 0331"]}]}
    )
    assert own.party_of("ACME  REMIT LTD", None, "") == "acme"
    assert own.party_of(None, "ae070331", "") == "acme"
    assert own.party_of("Kolo", None, "acme remit") is None
