"""Above which value a second person decides what a person finds in a statement line, by programme and currency."""

from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput


class TakesTwoPersons(Conflict):
    """What is asked for is worth more than one person decides; the detail says which way it goes."""

    code = "takes_two_persons"


def second_person_above(tx: Tx, programme_id: UUID, currency: str) -> int:
    """From which value on another person decides, in minor units; 0 (always) where nobody has said."""
    found: int | None = tx.execute(
        text(
            "SELECT second_person_above FROM products.break_limit WHERE programme_id = :programme AND currency = :currency"
        ),
        {"programme": programme_id, "currency": currency},
    ).scalar_one_or_none()
    return found or 0


def of_break(tx: Tx, break_id: UUID) -> int:
    """The same, of a break's programme and currency."""
    found: int | None = tx.execute(
        text(
            "SELECT l.second_person_above FROM products.break b LEFT JOIN products.break_limit l"
            " ON l.programme_id = b.programme_id AND l.currency = b.currency WHERE b.id = :id"
        ),
        {"id": break_id},
    ).scalar_one()
    return found or 0


def put(tx: Tx, clock: Clock, programme_id: UUID, currency: str, above: int) -> None:
    """Say from which value on another person decides."""
    if above < 0:
        raise InvalidInput("a limit is not negative", pointer="/second_person_above")
    tx.execute(
        text(
            "INSERT INTO products.break_limit (programme_id, currency, second_person_above, changed_at)"
            " VALUES (:programme, :currency, :above, :now) ON CONFLICT (programme_id, currency)"
            " DO UPDATE SET second_person_above = excluded.second_person_above, changed_at = excluded.changed_at"
        ),
        {"programme": programme_id, "currency": currency, "above": above, "now": clock.now()},
    )


def currency_of(tx: Tx, programme_id: UUID) -> str:
    """The programme's currency."""
    found: str = tx.execute(
        text("SELECT CAST(currency AS text) FROM products.programme WHERE id = :id"), {"id": programme_id}
    ).scalar_one()
    return found
