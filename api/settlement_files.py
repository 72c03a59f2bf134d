"""A partner's settlement file, compared: who it is of, how it is read, which days it covers. For the API and the command line."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from api.bootstrap import Services
from integrations.settlement_files import mapping as mappings
from integrations.settlement_files.reading import read
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from products.remittances import partners
from products.settlements import comparison
from products.settlements.comparison import ComparedFile, NewFile


class NoSettlementMapping(Conflict):
    """Nobody has said yet how this partner's files for this programme are read."""

    code = "no_settlement_mapping"


@dataclass(frozen=True, slots=True)
class Joined:
    """A partner in one of its programmes."""

    partner_id: UUID
    programme_id: UUID
    time_zone: str


def joined(tx: Tx, partner: str, programme: str | None, *, programmes: Collection[UUID] | None) -> Joined:
    """The partner in the programme, or in its only one; `programmes` are those that the caller sees (None: all).

    Raises NotFound, InvalidInput when the programme has to be said.
    """
    known = partners.find(tx, partner)
    with cursor(tx) as sql:
        sql.execute(
            "SELECT g.id, g.slug, g.time_zone FROM products.partner_programme j"
            " JOIN products.programme g ON g.id = j.programme_id WHERE j.partner_id = %s ORDER BY g.slug",
            (known.id,),
        )
        found = [
            (slug, Joined(known.id, id_, time_zone))
            for id_, slug, time_zone in sql
            if (programmes is None or id_ in programmes) and programme in (None, slug)
        ]
    if not found and programmes is None:
        raise NotFound("The partner has joined no such programme.")
    if not found:
        raise NotFound(partners.unknown(partner))
    if len(found) > 1:
        raise InvalidInput("Say for which programme: the partner has joined several.", pointer="/programme")
    return found[0][1]


def keep_mapping(tx: Tx, services: Services, of: Joined, given: Mapping[str, Any]) -> UUID:
    """Read the partner's files by this mapping from now on. Raises `InvalidMapping`."""
    mappings.parse(given)
    return comparison.keep_mapping(tx, services.clock, of.partner_id, of.programme_id, given)


def mapping_of(tx: Tx, of: Joined) -> dict[str, Any]:
    """The mapping by which the partner's files are read. Raises NotFound."""
    found = comparison.current_mapping(tx, of.partner_id, of.programme_id)
    if found is None:
        raise NotFound("Nobody has said yet how this partner's files are read.")
    return found[1]


def compare(
    tx: Tx,
    services: Services,
    of: Joined,
    content: bytes,
    *,
    first_on: date | None = None,
    last_on: date | None = None,
) -> tuple[ComparedFile, bool]:
    """Compare a file with the books, and whether that is new: the same file twice changes nothing. As the worker's role.

    Raises `NoSettlementMapping`, `InvalidSettlementFile`, `InvalidDays`.
    """
    found = comparison.current_mapping(tx, of.partner_id, of.programme_id)
    if found is None:
        raise NoSettlementMapping("Say first how this partner's files are read.")
    mapping_id, given = found
    mapping = mappings.parse(given)
    lines = read(content, mapping)
    first, last = comparison.days_of(lines, of.time_zone, first_on, last_on)
    file_id, new = comparison.compare(
        tx,
        services.clock,
        NewFile(
            of.partner_id,
            of.programme_id,
            mapping_id,
            hashlib.sha256(content).digest(),
            lines,
            first,
            last,
            mapping.reversals == "left_out",
        ),
    )
    return comparison.one_of(tx, file_id), new
