"""A sponsor in arrears is claimed from in signed packs; what it certified changes by approved adjustment alone."""

import json
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger.errors import InvalidInput
from ledger.horizon import START
from ledger.outbox import READ_MAX, read
from products.checks import PRODUCT_CHECKS
from products.claims import packs
from products.claims.packs import ClaimClosed, ClaimOpen
from products.savings import sponsors
from tests.integration.claims.conftest import Claims
from tests.integration.remittances.seen import journal
from tests.racing import at_once
from tests.world import World


def lines(file: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.splitlines()]


def test_a_pack_lists_what_awaits_the_sponsor_and_certified_it_is_owed_and_committed(claims: Claims) -> None:
    world = claims.world
    anna, berta = world.member(claims.partner), world.member(claims.partner, category=3)
    world.send(claims.partner, world.completed(anna), world.completed(anna, collected=5_000))
    world.settle(claims.partner, 25_000)
    world.send(claims.partner, world.completed(berta))
    assert claims.shares() == (0, 0, 0, 28_000, 0)  # 18,000 of Anna's, half of Berta's 20,000
    before = len(journal(world))

    pack = claims.make()
    header, first, second, _ = shown = lines(claims.file(pack))
    assert (header["format"], header["lines"], header["total"]) == ("mizan-claim-pack-1", 2, 28_000)
    assert (first["contributions"], first["contributed"], first["rate"], first["amount"]) == (
        2,
        25_000,
        "100",
        18_000,
    )
    assert (second["contributed"], second["rate"], second["amount"]) == (20_000, "50", 10_000)
    named = json.dumps(shown)
    for secret in (anna.member_id, anna.link_id, anna.enrolments["savings"]):
        assert str(secret) not in named
        assert secret.hex not in named
    assert claims.file(pack) == claims.file(pack)
    with pytest.raises(ClaimOpen):
        claims.make()
    with pytest.raises(ClaimClosed, match="another file"):
        claims.certify(pack, digest=bytes(32))
    assert len(journal(world)) == before  # nothing is owed before it is certified

    claims.certify(pack)
    claims.certify(pack)  # the same again changes nothing
    with pytest.raises(ClaimClosed):
        claims.certify(pack, "MIN-2")
    assert claims.book(pack, limit=1) == 2  # in sets of one line
    assert [(one.debit, one.credit, one.amount) for one in journal(world)[before:]] == [
        ("sponsor_receivable", "sponsor_committed", 18_000),
        ("sponsor_committed", "match_unvested", 18_000),  # Anna's contributions are settled: granted at once
        ("sponsor_receivable", "sponsor_committed", 10_000),
    ]
    assert (claims.owes(), claims.queue(), claims.shares()) == (28_000, 0, (10_000, 18_000, 0, 0, 28_000))
    assert claims.book(pack) == 0

    # what settles later is granted out of what was certified, as for any sponsor
    world.settle(claims.partner, 20_000)
    assert claims.shares() == (0, 28_000, 0, 0, 28_000)

    # the sponsor pays its debt first; a reference that is known books nothing
    world.fund(20_000, reference="t-1")
    with world.databases.worker.begin() as tx:
        again = sponsors.fund_sponsor(
            tx, world.books, programme="ejoheza", sponsor="gov-rw", amount=20_000, reference="t-1"
        )
    assert (again.replayed, again.paid_off, claims.owes()) == (True, 20_000, 8_000)
    world.fund(10_000, reference="t-2")
    assert (claims.owes(), world.balance("sponsor_uncommitted", "gov-rw")) == (0, 2_000)
    with pytest.raises(InvalidInput, match="nothing awaits"):
        claims.make()


def test_a_pack_takes_what_was_contributed_up_to_its_day_and_leaves_the_rest_for_the_next(
    claims: Claims,
) -> None:
    world = claims.world
    anna = world.member(claims.partner)
    world.send(claims.partner, world.completed(anna, collected=16_000))
    world.clock.advance(timedelta(days=3))
    world.send(claims.partner, world.completed(anna, collected=2_000))
    first = claims.make(claims.today - timedelta(days=1))
    assert first.claimed == 16_000
    claims.certify(first)
    claims.book(first)
    assert (claims.queue(), claims.shares()) == (2_000, (16_000, 0, 0, 2_000, 16_000))
    second = claims.claim()
    assert (second.number, second.since, second.claimed) == (2, first.through + timedelta(days=1), 2_000)
    with pytest.raises(InvalidInput, match="have come"):
        claims.make(claims.today + timedelta(days=2))


def test_what_was_certified_falls_by_approved_adjustment_and_stands_in_the_next_pack(claims: Claims) -> None:
    world = claims.world
    anna, berta = world.member(claims.partner), world.member(claims.partner)
    world.send(claims.partner, world.completed(anna, collected=16_000, remittance_id="A"))
    world.send(claims.partner, world.completed(berta, collected=17_000, remittance_id="B"))
    pack = claims.make()
    # taken back between the claim and its certification: certified all the same
    world.send(claims.partner, world.reversed("A"))
    claims.certify(pack)
    claims.book(pack)
    assert (claims.owes(), claims.shares()) == (33_000, (33_000, 0, 0, 0, 33_000))
    world.settle(claims.partner, 17_000)
    world.send(claims.partner, world.reversed("B"), approved=True)
    # Berta's came back from her account, and to nobody else
    assert (claims.owes(), claims.shares()) == (33_000, (33_000, 0, 0, 0, 33_000))
    assert sorted(amount for _, amount in claims.proposed()) == [16_000, 17_000]

    assert claims.adjust() == 33_000
    assert (claims.owes(), claims.shares()) == (0, (0, 0, 0, 0, 0))
    world.send(claims.partner, world.completed(anna, collected=20_000))
    second = claims.claim()
    assert (second.claimed, second.adjusted, second.total, second.adjustments) == (18_000, 33_000, -15_000, 2)
    assert [line["amount"] for line in lines(claims.file(second))[1:-1]] == [18_000, -16_000, -17_000]
    assert claims.owes() == 18_000
    assert pack.total + second.total == claims.owes()


def test_a_certified_pack_is_immutable_even_for_the_worker(claims: Claims) -> None:
    world = claims.world
    world.send(claims.partner, world.completed(world.member(claims.partner)))
    pack = claims.claim()
    tried = [
        "UPDATE products.claim_line SET amount = 1",
        "DELETE FROM products.claim_line",
        "UPDATE products.claim_pack SET claimed = 1",
        "UPDATE products.claim_pack SET digest = decode(repeat('00', 32), 'hex')",
        "UPDATE products.claim_pack SET state = 'made', certified_at = NULL",
        "UPDATE products.claim_pack SET certification = 'another'",
        "UPDATE products.claim_pack SET booked_lines = 0, booked_at = NULL",
        "DELETE FROM products.claim_pack",
        "TRUNCATE products.claim_pack CASCADE",
        (
            "INSERT INTO products.claim_line SELECT pack_id, position + 1, programme_id, kind, enrolment_id, window_start,"
            " window_end, product, member, account, contributions, contributed, rate, amount FROM products.claim_line"
        ),
    ]
    for database in (world.databases.worker, world.databases.owner):
        for statement in tried:
            with database.begin() as tx, pytest.raises(DBAPIError) as refused, tx.begin_nested():
                tx.exec_driver_sql(statement)
            assert isinstance(refused.value.orig, psycopg.Error)
            assert refused.value.orig.sqlstate in ("MZ002", "42501"), (statement, refused.value)
    with world.databases.worker.begin() as tx, pytest.raises(ClaimClosed):
        packs.withdraw(tx, pack.id)


def test_a_withdrawn_pack_is_claimed_anew_and_a_sponsor_that_pays_ahead_is_not_claimed_from(
    claims: Claims,
) -> None:
    world = claims.world
    world.send(claims.partner, world.completed(world.member(claims.partner)))
    first = claims.make()
    world.fund(50_000)  # money that is there serves nothing that stands in an open claim
    assert world.drain() == 0
    world.databases.worker.run(lambda tx: packs.withdraw(tx, first.id))
    with pytest.raises(ClaimClosed):
        claims.certify(first)
    assert world.drain() == 1
    assert claims.shares() == (18_000, 0, 0, 0, 0)
    with pytest.raises(InvalidInput):
        claims.make()


def test_a_prefunded_sponsor_is_warned_once_below_its_level_and_again_after_it_paid_in(world: World) -> None:
    partner = world.partner()
    world.fund(100_000)

    def warned() -> list[dict[str, object]]:
        world.databases.worker.run(lambda tx: sponsors.warn(tx, world.clock.now()))
        with world.databases.worker.begin() as tx:
            found = read(tx, START, limit=READ_MAX)
        return [dict(one.message.payload) for one in found if one.message.topic == "sponsor.fund_low"]

    for _ in range(4):
        world.send(partner, world.completed(world.member(partner)))
    assert warned() == []  # 28,000 of 100,000 are left
    world.send(partner, world.completed(world.member(partner)))
    [low] = warned()
    assert low == {
        "programme": "ejoheza",
        "sponsor": "gov-rw",
        "uncommitted": {"amount": 10_000, "currency": "RWF"},
        "filled_to": {"amount": 100_000, "currency": "RWF"},
        "percent": 20,
    }
    assert len(warned()) == 1
    world.fund(10_000, reference="second")
    assert len(warned()) == 1  # 20,000 of 20,000
    world.send(partner, world.completed(world.member(partner)))
    assert len(warned()) == 2
    world.databases.worker.run(
        lambda tx: sponsors.set_warning(tx, programme="ejoheza", sponsor="gov-rw", percent=0)
    )
    assert len(warned()) == 2
    with world.databases.owner.begin() as tx:
        assert tx.execute(text("SELECT warn_percent FROM products.sponsor")).scalar_one() == 0


LIES = [
    ("UPDATE products.match_share SET certified = certified - 1", "packs and adjustments come to"),
    ("UPDATE products.claim_line SET amount = amount + 1", "totals are not those of its lines"),
    ("UPDATE products.claim_pack SET booked_lines = 0", "its receivable was charged with"),
]


def test_a_planted_lie_about_a_claim_is_found(claims: Claims) -> None:
    world = claims.world
    world.send(claims.partner, world.completed(world.member(claims.partner)))
    claims.claim()
    with world.databases.superuser.begin() as tx:
        tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for lie, told in LIES:
            planted = tx.begin_nested()
            tx.exec_driver_sql(lie)
            found = [str(one) for check in PRODUCT_CHECKS for one in check.run(tx).findings]
            planted.rollback()
            assert any(told in one for one in found), (lie, found)


def test_two_who_book_a_pack_at_once_book_each_line_once(claims: Claims) -> None:
    world = claims.world
    world.send(claims.partner, *(world.completed(world.member(claims.partner)) for _ in range(8)))
    pack = claims.make()
    claims.certify(pack)
    booked: list[int] = []
    at_once(*[lambda: booked.append(claims.book(pack, limit=1))] * 4)
    assert sum(booked) == 8
    claims.book(pack)
    assert (claims.owes(), claims.queue(), claims.shares()[0]) == (144_000, 0, 144_000)
