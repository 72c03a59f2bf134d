"""What the opening of the books leaves behind: a load of a member's savings, with the match that they earned."""

from datetime import date
from typing import Final

from api import opening
from products.remittances.partners import Partner
from tests.world import World

ROWS: Final = """account,partner,member,amount,contributed_on
member_savings,{partner},{member},15000,2026-01-15
match_unvested,{partner},{member},15000,2026-01-15
"""


def leave_opening(world: World, partner: Partner, slug: str) -> None:
    """Leave a row in every table of opening balances: a file is loaded, and nothing of it is posted."""
    member = world.member(partner).key.value
    content = ROWS.format(partner=slug, member=member).encode()
    world.databases.worker.run(
        lambda tx: opening.stage(
            tx,
            world.books,
            content,
            programme="ejoheza",
            name="balances.csv",
            effective_on=date(2026, 2, 28),
            by="test",
        )
    )
