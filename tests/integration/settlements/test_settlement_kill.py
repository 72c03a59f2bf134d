"""A process that pairs or takes back is killed amid it, again and again: in the end all is done, once."""

import multiprocessing
import random
import signal
import time

import pytest
from sqlalchemy import text

from api.jobs import settle_all
from ledger.clock import FixedClock
from ledger.database import Database
from products.keyring import Keyring
from products.programmes.registry import Programmes
from products.remittances.context import Books
from products.settlements import pair, returns
from products.settlements.settlement import by_id
from tests.world import Person, World

KILLS = 4
PART = 4


def _at_work(url: str, clock: FixedClock, part: int) -> None:
    """Settle what there is, in small parts; runs in a process of its own, until it is killed."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(pair, "PART_MAX", part)
    books = Books(clock, Keyring({"test": bytes(range(32))}, "test"), Programmes())
    settle_all(Database(url, application_name="killed"), books)


def test_pairing_and_returning_that_are_killed_amid_it_are_done_exactly_once_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "PART_MAX", PART)
    partner = world.partner()
    world.fund(10_000_000)
    people = [world.member(partner) for _ in range(12)]
    for _ in range(8):
        world.send(partner, *(world.completed(one, collected=10_000) for one in people))
    chance = random.Random(4)
    settlement = world.settle(partner, 960_000)
    _killed_until_done(world, chance, "pairing")
    done = world.databases.worker.run(lambda tx: by_id(tx, settlement.id))
    assert (done.state, done.paired, done.contributions, done.parts) == ("paired", 960_000, 96, 25)
    assert _held(world, people, "member_savings") == 960_000

    world.databases.worker.run(
        lambda tx: returns.return_settlement(tx, world.books, settlement.id, reason="AC04")
    )
    _killed_until_done(world, chance, "returning")
    assert world.databases.worker.run(lambda tx: by_id(tx, settlement.id)).state == "returned"
    assert _held(world, people, "member_contributions_pending") == 960_000
    assert world.balance("partner_receivable", "acme") == 960_000
    assert world.balance("unidentified_receipts") == 0


def _killed_until_done(world: World, chance: random.Random, state: str) -> None:
    spawning = multiprocessing.get_context("forkserver")
    spawning.set_forkserver_preload([__name__])
    for kill in range(KILLS + 1):
        process = spawning.Process(target=_at_work, args=(world.databases.urls["worker"], world.clock, PART))
        process.start()
        if kill < KILLS and _moves(world, state):
            time.sleep(chance.uniform(0, 0.15))
            process.kill()  # unless it is done
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)


def _moves(world: World, state: str) -> bool:
    """Whether another part was done, while there is more to do."""
    first = _parts(world, state)
    for _ in range(4_000):
        now = _parts(world, state)
        if now is None:
            return False
        if now != first:
            return True
        time.sleep(0.005)
    raise AssertionError("nothing moves")


def _parts(world: World, state: str) -> int | None:
    with world.databases.worker.begin() as tx:
        return tx.execute(
            text(
                "SELECT s.parts + (SELECT count(returned_at) FROM products.settlement_part p WHERE p.settlement_id = s.id)"
                " FROM products.settlement s WHERE s.state = :state"
            ),
            {"state": state},
        ).scalar_one_or_none()


def _held(world: World, people: list[Person], code: str) -> int:
    return sum(world.balance(code, one.enrolments["savings"]) for one in people)
