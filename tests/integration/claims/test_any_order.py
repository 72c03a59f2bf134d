"""Whatever happens in whichever order: what packs claim, less approved adjustments, is what is committed and granted."""

import random

import pytest
from sqlalchemy import text

from ledger.errors import InvalidInput
from products.claims.packs import ClaimOpen, Pack
from products.savings import adjustments
from tests.integration.claims.conftest import Claims


@pytest.mark.parametrize("seed", [3, 8])
def test_packs_less_adjustments_are_what_is_committed_and_granted(claims: Claims, seed: int) -> None:
    chance = random.Random(seed)
    world = claims.world
    people = [world.member(claims.partner, category=chance.choice([1, 3])) for _ in range(8)]
    sent: list[str] = []
    certified: list[Pack] = []
    made: list[Pack] = []

    def send() -> None:
        name = f"S-{len(sent)}-{seed}"
        collected = chance.choice([3_000, 9_000, 16_000, 20_000])
        event = world.completed(chance.choice(people), collected=collected, remittance_id=name)
        world.send(claims.partner, event)
        sent.append(name)

    def take_back() -> None:
        if sent:
            world.send(claims.partner, world.reversed(chance.choice(sent)), approved=True)

    def settle() -> None:
        world.settle(claims.partner, chance.randrange(1_000, 40_000))

    def make() -> None:
        try:
            made.append(claims.make())
        except (InvalidInput, ClaimOpen):
            return

    def certify() -> None:
        if made:
            pack = made.pop()
            claims.certify(pack, f"MIN-{pack.number}")
            claims.book(pack, limit=2)
            certified.append(pack)

    def adjust() -> None:
        for adjustment, amount in claims.proposed()[:1]:
            world.databases.worker.run(
                lambda tx: adjustments.approve(tx, world.books, adjustment, amount)  # noqa: B023  run at once
            )

    def fallen() -> int:
        with world.databases.owner.begin() as tx:
            found = (
                "SELECT coalesce(sum(certified), 0) FROM products.match_adjustment WHERE state = 'approved'"
            )
            return int(tx.execute(text(found)).scalar_one())

    for _ in range(150):
        chance.choice([send, send, send, take_back, settle, make, certify, certify, adjust])()
        committed, unvested, vested, awaiting, of_packs = claims.shares()
        claimed = sum(pack.claimed for pack in certified)
        assert claimed - fallen() == of_packs == claims.owes() == committed + unvested + vested
        assert awaiting == claims.queue()
    certify()
    while claims.proposed():
        adjust()
    make()
    certify()
    while claims.proposed():
        adjust()
    committed, unvested, vested, awaiting, _ = claims.shares()
    with world.databases.owner.begin() as tx:
        entitled = int(tx.execute(text("SELECT sum(entitled) FROM products.match_state")).scalar_one())
    assert (awaiting, committed + unvested + vested) == (0, entitled)
    assert claims.owes() == entitled  # nothing was paid yet: the sponsor owes what members are entitled to
    assert len(certified) > 2
    assert fallen()
