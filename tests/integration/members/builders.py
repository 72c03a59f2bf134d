"""The small world of registry tests: a programme applied from the catalogue, partners in it, people."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from uuid import UUID

from sqlalchemy import text

from ledger.clock import FixedClock
from ledger.database import Database, Tx
from products.facts import Fact
from products.keyring import Keyring
from products.members.models import NewMandate, Registration
from products.programmes.registry import Programmes, apply
from products.remittances.partners import create_partner, join_programme

CATALOGUE = files("products.programmes.catalogue")
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Registry:
    """A programme with two partners, and the keys of the deployment."""

    programme: UUID
    acme: UUID
    bolt: UUID
    keyring: Keyring
    programmes: Programmes


def a_registry(worker: Database, programme: str = "ejoheza") -> Registry:
    """Apply a programme of the catalogue and let two partners join it."""
    clock = FixedClock(NOW)
    with worker.begin() as tx:
        applied = apply(tx, CATALOGUE.joinpath(f"{programme}.yaml").read_text(), clock=clock)
        ids = []
        for slug in ("acme", "bolt"):
            partner = create_partner(tx, slug=slug, name=slug.title(), format_="standard", clock=clock)
            join_programme(
                tx,
                partner,
                applied.programme_id,
                terms="net",
                collection="as_reported",
                clock=clock,
            )
            ids.append(partner.id)
    return Registry(applied.programme_id, ids[0], ids[1], Keyring.of(bytes(range(32))), Programmes())


def a_person(number: int = 1, **changes: object) -> Registration:
    """Somebody of 35 in income category 1 who has given a mandate."""
    person: dict[str, object] = {
        "phone": f"+25078{number:07d}",
        "partner_reference": f"A-{number}",
        "birth_date": date(1990, 5, 1),
        "sex": "female",
        "origin_country": "RW",
        "residence_country": "AE",
        "facts": (Fact("income_category", 1, date(2026, 1, 1), NOW),),
        "mandate": NewMandate("2026-1", "rw"),
    }
    return Registration(**(person | changes))  # type: ignore[arg-type]


def speak_for(tx: Tx, partner: UUID) -> None:
    """Make row-level security see what this partner may see."""
    tx.execute(text("SELECT set_config('mizan.partner', :partner, true)"), {"partner": str(partner)})
