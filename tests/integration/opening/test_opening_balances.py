"""Opening balances come in whole, match the products' own records, and can be taken back until they are final."""

from datetime import date

import pytest
from sqlalchemy import text

from api.jobs import vest_all
from products.opening import load
from products.opening.load import OpeningFaulty, OpeningMovedOn, OpeningNotZero, OpeningState
from tests.integration.opening.conftest import EVE, HEADER, Opening, xlsx
from tests.world import Person

NEW_YEAR = date(2026, 1, 15)
PAID_ON = date(2026, 2, 20)


def whole(opening: Opening, *, bank: int = 169_000) -> tuple[bytes, Person, Person]:
    """A file in which all adds up: savings of this year and of earlier ones, match, and what a partner still owes."""
    anna, berta = opening.member(), opening.member()
    one, two = anna.key.value, berta.key.value
    content = xlsx(
        [
            HEADER,
            ("bank", None, None, bank),
            ("sponsor_uncommitted", None, None, "50 000", None, None, None, "gov-rw"),
            ("partner_receivable", "acme", None, 12_000),
            ("partner_prefund", "acme", None, "1,000"),
        ],
        [
            HEADER,
            ("member_savings", "acme", one, 60_000),
            ("member_savings", "acme", one, 15_000, NEW_YEAR),
            ("match_unvested", "acme", one, 15_000, NEW_YEAR),
            ("member_savings", "acme", two, 10_000, "2026-02-01"),
            ("member_contributions_pending", "acme", two, 12_000, PAID_ON, None, "ACME-77"),
            ("sponsor_committed", "acme", two, 18_000, PAID_ON),
        ],
    )
    return content, anna, berta


def test_a_file_is_staged_looked_at_posted_and_final_and_the_members_go_on_from_there(
    books_to_open: Opening,
) -> None:
    opening, world = books_to_open, books_to_open.world
    content, anna, berta = whole(opening)
    staged, new = opening.stage(content)
    assert (new, staged.state, staged.rows, staged.effective_on) == (True, "loaded", 10, EVE)
    assert opening.stage(content) == (staged, False)
    assert opening.transactions() == 0
    with world.databases.api.begin() as tx:
        tx.execute(text("SELECT set_config('mizan.access', 'staff', true)"))
        shown = {(one.fund, one.code): (one.rows, one.amount) for one in load.totals(tx, staged.id)}
        assert [(one.of_load, one.now) for one in load.controls(tx, staged.id)] == [(0, 0)]
    assert shown["ejoheza/savers", "member_savings"] == (3, 85_000)
    assert shown["ejoheza/savers", "sponsor_committed"] == (1, 18_000)

    with pytest.raises(OpeningState):
        opening.finalise(staged)
    assert opening.commit(staged).state == "committed"
    assert opening.finalise(staged).state == "final"
    opening.require_verified()
    savings = anna.enrolments["savings"]
    assert world.balance("member_savings", savings) == 75_000
    assert world.balance("match_unvested", savings) == 15_000
    assert world.balance("partner_receivable", "acme") == 12_000
    assert world.balance("bank") == 169_000
    with pytest.raises(OpeningState):
        opening.take_back(staged)

    # what was opened counts: berta's settlement grants her match, the partner's late word is no second remittance
    assert (
        world.send(opening.partner, world.completed(berta, remittance_id="ACME-77"))[0].state == "quarantined"
    )
    world.settle(opening.partner, 12_000)
    assert world.balance("match_unvested", berta.enrolments["savings"]) == 18_000
    world.send(opening.partner, world.completed(anna, collected=10_000))
    assert world.balance("sponsor_committed", "gov-rw") == 3_000
    opening.require_verified()


def test_a_load_is_not_final_before_its_control_account_is_at_zero_and_says_by_how_much(
    books_to_open: Opening,
) -> None:
    opening = books_to_open
    content, _, _ = whole(opening, bank=168_000)
    short, _ = opening.stage(content)
    opening.commit(short)
    with pytest.raises(OpeningNotZero, match=r"ejoheza/savers: 1,000 RWF too much on the debit side"):
        opening.finalise(short)
    opening.require_verified()
    rest = xlsx([HEADER, ("partner_prefund", "acme", None, -1_000)])
    with pytest.raises(OpeningFaulty, match="D2: this account may not be below zero"):
        opening.stage(rest)
    second, _ = opening.stage(xlsx([HEADER, ("bank_charges", None, None, 1_000)]))
    opening.commit(second)
    assert opening.finalise(second).state == opening.finalise(short).state == "final"


def test_a_load_is_taken_back_whole_by_reversals_and_can_be_loaded_anew(books_to_open: Opening) -> None:
    opening, world = books_to_open, books_to_open.world
    content, anna, _ = whole(opening)
    first, _ = opening.stage(content)
    opening.commit(first)
    vest_all(world.databases.worker, world.books)  # what the worker does by itself is in nobody's way
    assert opening.take_back(first).state == "taken_back"
    assert opening.take_back(first).done == 0
    opening.require_verified()
    assert opening.balances() == {}
    again, new = opening.stage(content)
    assert new
    opening.commit(again)
    opening.finalise(again)
    opening.require_verified()
    assert world.balance("match_unvested", anna.enrolments["savings"]) == 15_000


def test_what_members_did_since_is_taken_back_before_a_load_is(books_to_open: Opening) -> None:
    opening, world = books_to_open, books_to_open.world
    content, anna, _ = whole(opening)
    staged, _ = opening.stage(content)
    opening.commit(staged)
    world.send(opening.partner, world.completed(anna, collected=1_000, remittance_id="NEW"))
    with pytest.raises(OpeningMovedOn):
        opening.take_back(staged)
    world.send(opening.partner, world.reversed("NEW"))
    assert opening.take_back(staged).state == "taken_back"
    opening.require_verified()
    assert opening.balances() == {}


def test_every_fault_is_named_by_sheet_and_cell_and_nothing_is_kept(books_to_open: Opening) -> None:
    opening = books_to_open
    one = opening.member().key.value
    with pytest.raises(OpeningFaulty) as refused:
        opening.stage(
            xlsx(
                [
                    HEADER,
                    ("bank", None, None, "=1+1"),
                    ("bank", None, None, 1.5),
                    ("bank", None, None, "12,34"),
                    ("bankk", None, None, 1),
                    ("bank", None, one, 1),
                    ("payout_clearing", None, None, 1),
                    ("sponsor_uncommitted", None, None, 1, None, None, None, "nobody"),
                    ("partner_receivable", "acme", None, 5),
                ],
                [
                    HEADER,
                    ("member_savings", "acme", "mem_00000000000000000000000000", 5),
                    ("member_savings", "else", one, 5),
                    ("member_savings", "acme", one, -5),
                    ("member_savings", "acme", one, 5, "28.02.2026"),
                    ("member_savings", "acme", one, 5, date(2026, 3, 1)),
                    ("match_vested", "acme", one, 15_001, date(2025, 5, 1)),
                    ("member_savings", "acme", one, 15_000, date(2025, 5, 1)),
                    ("match_unvested", "acme", one, 7, date(2025, 5, 1)),
                    ("member_contributions_pending", "acme", one, 7, date(2026, 2, 1)),
                    ("member_savings", "acme", one, None),
                ],
                [("account", "amount", "colour"), ("bank", 1)],
            )
        )
    told = {f"{one.sheet}!{one.cell}": one.what for one in refused.value.faults}
    assert set(told) == {
        *(f"balances!{cell}" for cell in ("D2", "D3", "D4", "A5", "B6", "A7", "H8", "D9")),
        *(f"members!{cell}" for cell in ("C2", "B3", "D4", "E5", "E6", "D7", "G10", "D11")),
        "more!C1",
    }
    assert "paste its value" in told["balances!D2"]
    assert "earn 15000" in told["members!D7"]
    assert one not in str(refused.value)
    assert opening.loads() == []


def test_one_account_is_opened_by_one_load(books_to_open: Opening) -> None:
    opening = books_to_open
    opening.stage(xlsx([HEADER, ("bank", None, None, 10)]))
    with pytest.raises(OpeningFaulty, match="another load has opened this account"):
        opening.stage(xlsx([HEADER, ("bank", None, None, 11)]))


def test_csv_is_read_like_a_spreadsheet(books_to_open: Opening) -> None:
    opening, world = books_to_open, books_to_open.world
    one = opening.member()
    content = (
        "\ufeffAccount;Partner;Member;Amount;Contributed on\r\n"
        "bank;;;30.000;\r\n"
        f'member_savings;acme;{one.key.value};"30 000";2025-12-31\r\n'
    ).encode()
    with pytest.raises(OpeningFaulty, match="earn 18000"):
        opening.stage(content)
    csv = content + f"sponsor_committed;acme;{one.key.value};0;2025-12-31\r\n".encode()
    with pytest.raises(OpeningFaulty):
        opening.stage(csv)
    csv = (
        content.replace(b"30.000", b"48.000")
        + f"match_vested;acme;{one.key.value};18.000;2025-12-31\r\n".encode()
    )
    staged, _ = opening.stage(csv)
    opening.commit(staged)
    opening.finalise(staged)
    opening.require_verified()
    assert world.balance("match_vested", one.enrolments["savings"]) == 18_000
