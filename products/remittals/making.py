"""Remittals are made of what was paid in for an agency and not sent yet: one line for each enrolment and month.

Paid in: the partner has settled it, or prepaid it. A contribution applies to the month of its instalment, which is the month
(in the programme's time zone) in which the migrant paid; parts of a month's contribution travel together.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput
from ledger.horizon import START
from ledger.ids import new_id
from ledger.periods import effective_day
from products.facts import Fact, counting
from products.keyring import FieldCipher, field_place
from products.members.facts import from_text
from products.members.registry import ciphers_of
from products.programmes.registry import Version
from products.programmes.scalars import format_percent, parse_percent
from products.remittals.agencies import Agency, WithoutNumber, agency_of
from products.remittals.layouts import ScheduleLine
from products.remittals.queries import LINE_TABLE, Remittal, remittal_of, written
from products.remittances.context import Books, version_on

CONTRIBUTIONS_MAX: Final = 200_000
"""Contributions in one remittal; what is beyond them waits for the next."""


class RemittalClosed(Conflict):
    """The remittal is not in the state that this takes."""

    code = "remittal_closed"


@dataclass(frozen=True, slots=True)
class Held:
    """What stays back as the agency's number of the member is not known."""

    member_id: UUID
    enrolment_id: UUID
    applies_to: date
    amount: int


@dataclass(frozen=True, slots=True)
class Made:
    """A new remittal, and what stayed back."""

    remittal: Remittal
    held: tuple[Held, ...]


@dataclass(slots=True)
class _Draft:
    """A line on its way: what one enrolment paid for one month."""

    enrolment_id: UUID
    member_id: UUID
    partner_id: UUID
    product: str
    percent: str | None
    applies_to: date
    paid_on: date
    amount: int
    received: int
    contributions: list[tuple[UUID, int]]


def make(
    tx: Tx,
    books: Books,
    *,
    programme: str,
    agency: str,
    through: date,
    without_number: WithoutNumber | None = None,
) -> Made:
    """Gather what was paid in for an agency up to and including a local day.

    Raises `NotFound`, and `InvalidInput` for a day to come and where there is nothing to send.
    """
    known = agency_of(tx, programme, agency)
    now = books.clock.now()
    if through > effective_day(now, known.time_zone):
        raise InvalidInput("a remittal is for days that have come", pointer="/through")
    tx.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 4717))"), {"name": f"{programme}/{agency}"}
    )
    drafts = _drafts(tx, known, through)
    ciphers = ciphers_of(tx, books.keyring, {draft.member_id for draft in drafts})
    numbers = _numbers(tx, known, ciphers)
    held: tuple[Held, ...] = ()
    if (without_number or known.without_number) == "hold":
        held = tuple(
            Held(one.member_id, one.enrolment_id, one.applies_to, one.amount)
            for one in drafts
            if one.member_id not in numbers
        )
        drafts = [one for one in drafts if one.member_id in numbers]
    if not drafts:
        why = f": {len(held)} lines have no number at the agency" if held else ""
        raise InvalidInput(f"there is nothing to send to {agency} up to {through}{why}", pointer="/through")
    bases = _bases(tx, books, known, drafts, ciphers)
    lines = [
        ScheduleLine(
            position,
            numbers.get(draft.member_id),
            draft.applies_to,
            base,
            rate,
            draft.amount,
            draft.paid_on,
            draft.product,
        )
        for position, (draft, (base, rate)) in enumerate(zip(drafts, bases, strict=True), start=1)
    ]
    number = tx.execute(
        text(
            "SELECT coalesce(max(number), 0) + 1 FROM products.remittal WHERE programme_id = :id AND agency = :agency"
        ),
        {"id": known.programme_id, "agency": agency},
    ).scalar_one()
    draft_remittal = Remittal(
        new_id(), known.programme_id, programme, agency, number, known.fund_id, known.currency, through, len(lines),
        sum(line.amount for line in lines), known.columns, known.answer, known.second_person_above, b"", "made", now,
        None, None, None, 0, 0, 0, 0, START,
    )  # fmt: skip
    digest = hashlib.sha256(written(lines, draft_remittal)).digest()
    _store(tx, replace(draft_remittal, digest=digest), drafts, lines, ciphers)
    return Made(remittal_of(tx, draft_remittal.id), held)


def withdraw(tx: Tx, remittal_id: UUID) -> Remittal:
    """Withdraw a remittal that was not sent: what it holds can be sent anew. Raises `NotFound`, `RemittalClosed`."""
    remittal = remittal_of(tx, remittal_id, lock=True)
    if remittal.state != "made":
        raise RemittalClosed(f"the remittal is {remittal.state}")
    tx.execute(
        text(
            "UPDATE products.contribution c SET remittal_line = NULL FROM products.remittal_line l"
            " WHERE l.remittal_id = :id AND c.enrolment_id = l.enrolment_id AND c.remittal_line = l.id"
        ),
        {"id": remittal_id},
    )
    tx.execute(text("UPDATE products.remittal SET state = 'withdrawn' WHERE id = :id"), {"id": remittal_id})
    return replace(remittal, state="withdrawn")


def _drafts(tx: Tx, agency: Agency, through: date) -> list[_Draft]:
    """What was paid in and not sent, by enrolment and month, in the order of the first payment; its rows are locked."""
    rows = cursor(tx).execute(
        """SELECT c.remittance, c.position, c.enrolment_id, e.member_id, e.partner_id, e.product,
                  e.choice ->> 'percent', c.contributed_on, c.amount, coalesce(r.received_amount, 0)
           FROM products.contribution c JOIN products.enrolment e ON e.id = c.enrolment_id
           LEFT JOIN products.remittance r ON r.id = c.remittance
           WHERE c.destination = 'agency' AND c.remittal_line IS NULL AND c.fund_id = %s AND c.contributed_on <= %s
             AND c.credited_account = %s AND c.state = 'settled' AND NOT c.owed
           ORDER BY c.remittance, c.position LIMIT %s FOR NO KEY UPDATE OF c""",
        (agency.fund_id, through, agency.collected_account, CONTRIBUTIONS_MAX),
    )
    drafts: dict[tuple[UUID, date], _Draft] = {}
    for remittance, position, enrolment, member, partner, product, percent, on, amount, received in rows:
        month = on.replace(day=1)
        draft = drafts.get((enrolment, month))
        if draft is None:
            draft = drafts[enrolment, month] = _Draft(
                enrolment, member, partner, product, percent, month, on, 0, 0, []
            )
        draft.paid_on = max(draft.paid_on, on)
        draft.amount += amount
        draft.received += received
        draft.contributions.append((remittance, position))
    return list(drafts.values())


def _numbers(tx: Tx, agency: Agency, ciphers: Mapping[UUID, FieldCipher]) -> dict[UUID, str]:
    """Members' numbers at the agency: of the document that was recorded last, through whichever partner."""
    rows = cursor(tx).execute(
        """SELECT DISTINCT ON (member_id) member_id, id, number FROM products.member_document
           WHERE type = %s AND ended_at IS NULL AND member_id = ANY (%b) ORDER BY member_id, id DESC""",
        (agency.number_document, sorted(ciphers)),
    )
    return {
        member: ciphers[member].decrypt(number, field_place("products.member_document", "number", document))
        for member, document, number in rows
    }


def _bases(
    tx: Tx, books: Books, agency: Agency, drafts: Sequence[_Draft], ciphers: Mapping[UUID, FieldCipher]
) -> list[tuple[int | None, str | None]]:
    """What each line was a part of, in minor units, and which part, in per cent; nothing where the rule has neither."""
    versions = books.programmes.versions(tx, agency.programme_id)
    declared = _facts(tx, versions, agency, drafts, ciphers)
    found: list[tuple[int | None, str | None]] = []
    for draft in drafts:
        programme = version_on(versions, draft.paid_on).programme
        rule = programme.product(draft.product).contribution if draft.product in programme.codes else None
        if rule is None or rule.percent is None or rule.of is None:
            found.append((None, None))
            continue
        rate = parse_percent(draft.percent) if draft.percent is not None else rule.percent
        if rule.of == "received":
            found.append((draft.received, format_percent(rate)))
            continue
        held = counting(programme.facts, declared.get(draft.member_id, ())).on(draft.paid_on)
        value = held.get(rule.of)
        found.append((value if isinstance(value, int) else None, format_percent(rate)))
    return found


def _facts(
    tx: Tx,
    versions: Sequence[Version],
    agency: Agency,
    drafts: Sequence[_Draft],
    ciphers: Mapping[UUID, FieldCipher],
) -> dict[UUID, list[Fact]]:
    """The facts that the agency's products take a part of, by member."""
    names = {
        product.contribution.of
        for version in versions
        for product in version.programme.products
        if product.destination.code == agency.code and product.contribution.of not in (None, "received")
    }
    found: dict[UUID, list[Fact]] = {}
    if not names:
        return found
    rows = cursor(tx).execute(
        "SELECT id, member_id, name, value, since, recorded_at, evidence FROM products.member_fact"
        " WHERE member_id = ANY (%b) AND name = ANY (%s) ORDER BY member_id, id",
        (sorted({draft.member_id for draft in drafts} & set(ciphers)), sorted(map(str, names))),
    )
    for id_, member, name, value, since, recorded_at, evidence in rows:
        plain = ciphers[member].decrypt(value, field_place("products.member_fact", "value", id_))
        found.setdefault(member, []).append(Fact(name, from_text(plain), since, recorded_at, evidence))
    return found


def _store(
    tx: Tx,
    remittal: Remittal,
    drafts: Sequence[_Draft],
    lines: Sequence[ScheduleLine],
    ciphers: Mapping[UUID, FieldCipher],
) -> None:
    cur = cursor(tx)
    cur.execute(
        """INSERT INTO products.remittal (id, programme_id, agency, number, fund_id, currency, through, lines, amount,
               columns, answer, second_person_above, digest, made_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            remittal.id,
            remittal.programme_id,
            remittal.agency,
            remittal.number,
            remittal.fund_id,
            remittal.currency,
            remittal.through,
            remittal.lines,
            remittal.amount,
            Jsonb(remittal.columns),
            Jsonb(remittal.answer),
            remittal.second_person_above,
            remittal.digest,
            remittal.made_at,
        ),
    )
    ids = [new_id() for _ in drafts]

    def sealed(draft: _Draft, line: UUID, column: str, value: str | None) -> bytes | None:
        cipher = ciphers.get(draft.member_id)
        if value is None or cipher is None:
            return None
        return cipher.encrypt(value, field_place(LINE_TABLE, column, line))

    with cur.copy(
        "COPY products.remittal_line (id, remittal_id, position, programme_id, partner_id, member_id, enrolment_id,"
        " product, applies_to, paid_on, number, base, rate, amount) FROM STDIN"
    ) as copy:
        for id_, draft, line in zip(ids, drafts, lines, strict=True):
            row: tuple[Any, ...] = (
                id_,
                remittal.id,
                line.position,
                remittal.programme_id,
                draft.partner_id,
                draft.member_id,
                draft.enrolment_id,
                line.product,
                line.applies_to,
                line.paid_on,
                sealed(draft, id_, "number", line.number),
                sealed(draft, id_, "base", None if line.base is None else str(line.base)),
                line.rate,
                line.amount,
            )
            copy.write_row(row)
    taken = [(one, id_) for id_, draft in zip(ids, drafts, strict=True) for one in draft.contributions]
    cur.execute(
        """UPDATE products.contribution c SET remittal_line = t.l
           FROM unnest(%b::uuid[], %b::smallint[], %b::uuid[]) AS t (r, p, l)
           WHERE c.remittance = t.r AND c.position = t.p""",
        ([one[0] for one, _ in taken], [one[1] for one, _ in taken], [line for _, line in taken]),
    )
