"""Programmes in the database: applied versions, immutable once applied, compiled once per process."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, NotFound
from ledger.ids import new_id
from products import chart
from products.programmes.loader import digest, load
from products.programmes.model import Programme
from products.remittances.partners import open_accounts_of_partners


class ProgrammeConflict(Conflict):
    """A version of a programme that can't be applied to what is there."""

    code = "programme_conflict"


@dataclass(frozen=True, slots=True)
class Version:
    """One applied version of a programme, compiled."""

    programme_id: UUID
    version: int
    programme: Programme


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a file did: ``version`` is in force from its date; ``created`` is False where it was there."""

    programme_id: UUID
    version: int
    created: bool


class Programmes:
    """Compiled programmes by version. Versions never change, so what is compiled stays valid for ever."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[UUID, int], Version] = {}
        self._lock = Lock()

    def versions(self, tx: Tx, programme_id: UUID) -> Sequence[Version]:
        """All applied versions of a programme, oldest first."""
        # asked by every request and every batch, so that no process decides by rules that were replaced
        rows = cursor(tx).execute(
            "SELECT version FROM products.programme_version WHERE programme_id = %s ORDER BY version",
            (programme_id,),
        )
        numbers = [number for (number,) in rows]
        missing = [number for number in numbers if (programme_id, number) not in self._compiled]
        if missing:
            sources = tx.execute(
                text(
                    "SELECT version, source FROM products.programme_version"
                    " WHERE programme_id = :id AND version = ANY (:versions)"
                ),
                {"id": programme_id, "versions": missing},
            )
            for row in sources:
                compiled = Version(programme_id, row.version, load(row.source))
                with self._lock:
                    self._compiled[programme_id, row.version] = compiled
        return [self._compiled[programme_id, number] for number in numbers]


def apply(tx: Tx, source: str, *, clock: Clock) -> Applied:
    """Apply a programme file: the first version opens its funds and sponsors, a later one only adds what is new.

    The same file applied again changes nothing. A file whose number is not the next, or that changes currency or time
    zone, is refused with `ProgrammeConflict`; one that does not describe a programme, with `loader.InvalidProgramme`.
    """
    programme = load(source)
    now = clock.now()
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:slug, 4711))"), {"slug": programme.slug})
    row = tx.execute(
        text("SELECT id, currency, time_zone FROM products.programme WHERE slug = :slug"),
        {"slug": programme.slug},
    ).one_or_none()
    if row is None:
        programme_id = new_id()
        tx.execute(
            text("INSERT INTO products.programme VALUES (:id, :slug, :name, :currency, :zone, :now)"),
            {
                "id": programme_id,
                "slug": programme.slug,
                "name": programme.name,
                "currency": programme.currency,
                "zone": programme.time_zone,
                "now": now,
            },
        )
    else:
        programme_id = row.id
        if (row.currency, row.time_zone) != (programme.currency, programme.time_zone):
            raise ProgrammeConflict(f"{programme.slug} keeps its currency and time zone for ever")
    versions = tx.execute(
        text(
            "SELECT version, digest FROM products.programme_version WHERE programme_id = :id ORDER BY version"
        ),
        {"id": programme_id},
    ).all()
    number = programme.validity.version
    same = next((applied for applied in versions if applied.version == number), None)
    if same is not None:
        if bytes(same.digest) == digest(source):
            return Applied(programme_id, number, created=False)
        raise ProgrammeConflict(f"version {number} of {programme.slug} is applied already and immutable")
    if versions and number <= versions[-1].version:
        raise ProgrammeConflict(
            f"version {number} of {programme.slug} is older than version {versions[-1].version}"
        )
    tx.execute(
        text(
            "INSERT INTO products.programme_version"
            " VALUES (:id, :version, :digest, :source, :in_force_from, :applies_to, :now, :reevaluated)"
        ),
        {
            "id": programme_id,
            "version": number,
            "digest": digest(source),
            "source": source,
            "in_force_from": programme.validity.in_force_from,
            "applies_to": programme.validity.applies_to,
            "now": now,
            "reevaluated": not versions,
        },
    )
    funds = chart.open_programme_funds(tx, programme_id, programme)
    open_accounts_of_partners(tx, programme_id, programme.currency)
    for sponsor in programme.sponsors:
        uncommitted, committed, receivable = chart.open_sponsor_accounts(
            tx, funds[chart.SAVERS], sponsor.slug, programme.currency
        )
        tx.execute(
            text(
                "INSERT INTO products.sponsor VALUES (:id, :programme, :slug, :name, :funding, :fund, :uncommitted,"
                " :committed, :receivable, :queueing) ON CONFLICT (programme_id, slug) DO NOTHING"
            ),
            {
                "id": new_id(),
                "programme": programme_id,
                "slug": sponsor.slug,
                "name": sponsor.name,
                "funding": sponsor.funding,
                "fund": funds[chart.SAVERS],
                "uncommitted": uncommitted,
                "committed": committed,
                "receivable": receivable,
                # Money in arrears is never there before its claim is certified: everything waits in the queue.
                "queueing": sponsor.funding == "arrears",
            },
        )
    return Applied(programme_id, number, created=True)


def unknown(slug: str) -> str:
    """What is said of a programme that is not there, or not for the caller's eyes."""
    return f"there is no programme “{slug}”; `mizan programme apply` adds one"


def find(tx: Tx, slug: str) -> UUID:
    """The programme's id; raises NotFound."""
    found: UUID | None = tx.execute(
        text("SELECT id FROM products.programme WHERE slug = :slug"), {"slug": slug}
    ).scalar_one_or_none()
    if found is None:
        raise NotFound(unknown(slug))
    return found
