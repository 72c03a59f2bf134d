"""What a past year is made of: members, events in the order of their times, and the old system's figures. Every fault is named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from integrations.opening_files.spreadsheets import NotASpreadsheet, Sheets
from integrations.strict_json import NotStrictJson, loads
from ledger.errors import InvalidInput
from ledger.money import AMOUNT_MAX
from products.opening.given import Fault, Faulty, Row
from products.programmes.model import Programme

EVENTS_MAX: Final = 5_000_000
LINE_BYTES_MAX: Final = 256 * 1024
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
EXPECTED_ROWS_MAX: Final = 2_000_000
FAULTS_TOLD_MAX: Final = 20

Figure = Literal[
    "contributed",
    "pending",
    "settled",
    "committed",
    "unvested",
    "vested",
    "awaiting_funds",
    "entitled",
    "unapplied",
]
FIGURES: Final[tuple[Figure, ...]] = get_args(Figure)
SPONSOR_PAID: Final = "sponsor.paid"


class InvalidShadowInput(InvalidInput):
    """A file of a shadow run has faults: the first of them, each with its place."""

    code = "invalid_shadow_input"


@dataclass(frozen=True, slots=True)
class Joined:
    """A member as the old system had them, in one product; ``facts`` by name, as text."""

    line: str
    partner: str
    reference: str
    product: str
    joined_on: date
    birth_date: date | None
    phone: str | None
    choice: dict[str, Any] | None
    facts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What the old system says of one figure of a member on a day, in minor units; ``at`` is its place in the file."""

    at: str
    partner: str
    reference: str
    product: str
    figure: Figure
    on: date
    amount: int


@dataclass(frozen=True, slots=True)
class SponsorPaid:
    """A sponsor paid in."""

    sponsor: str
    amount: int
    reference: str


@dataclass(frozen=True, slots=True)
class Line:
    """One event of the file: the partner's own webhook as it was sent, or that a sponsor paid."""

    number: int
    at: datetime
    partner: str
    body: bytes
    sponsor: SponsorPaid | None = None


@dataclass(slots=True)
class Events:
    """A file of events, one JSON object in a line, read in the order of their times whatever the file's: only places are kept."""

    path: Path
    _order: list[tuple[int, int, int]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        faults: list[str] = []
        offset = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number > EVENTS_MAX:
                    raise InvalidShadowInput(f"{self.path.name} has more than {EVENTS_MAX} lines")
                try:
                    if raw.strip():
                        at = self._line(number, raw).at
                        self._order.append((int(at.timestamp() * 1_000_000), number, offset))
                except ValueError as error:
                    faults.append(f"line {number}: {error}")
                    if len(faults) == FAULTS_TOLD_MAX:
                        break
                offset += len(raw)
        if faults:
            raise InvalidShadowInput(f"{self.path.name}, {'; '.join(faults)}")
        self._order.sort()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Line]:
        with self.path.open("rb") as file:
            for _, number, offset in self._order:
                file.seek(offset)
                yield self._line(number, file.readline())

    def _line(self, number: int, raw: bytes) -> Line:
        if len(raw) > LINE_BYTES_MAX:
            raise ValueError(f"a line has at most {LINE_BYTES_MAX} bytes")
        try:
            value = loads(raw.strip())
        except NotStrictJson as error:
            raise ValueError(f"this is no strict JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError("this is no object")  # noqa: TRY004  a fault of the file, as all others
        written = value.get("timestamp")
        at = datetime.fromisoformat(written) if isinstance(written, str) else None
        if at is None or at.tzinfo is None:
            raise ValueError("“timestamp” has to be a time with a zone: when the event was sent")
        at = at.astimezone(UTC)
        if value.get("type") == SPONSOR_PAID:
            amount, sponsor, reference = (value.get(name) for name in ("amount", "sponsor", "reference"))
            if type(amount) is not int or not 0 < amount <= AMOUNT_MAX:
                raise ValueError("“amount” has to be in minor units, from 1 on")
            if not isinstance(sponsor, str) or not isinstance(reference, str):
                raise ValueError("“sponsor” and “reference” have to be there")
            return Line(number, at, "", b"", SponsorPaid(sponsor, amount, reference))
        partner = value.get("partner")
        if not isinstance(partner, str):
            raise ValueError("“partner” has to be the slug of who sent it")  # noqa: TRY004  as above
        return Line(number, at, partner, raw.strip())


def members(path: Path, programme: Programme) -> list[Joined]:
    """The members of a spreadsheet or CSV: one row for each member and product. Raises `InvalidShadowInput`."""
    facts = {f"fact_{name}" for name in programme.facts}
    known = {"partner", "member", "product", "joined_on", "birth_date", "phone", "percent", "amount"} | facts
    found: list[Joined] = []
    for row, told in _rows(path, {"partner", "member", "joined_on"}, known, 1_000_000):
        try:
            joined_on = row.day("joined_on")
            if joined_on is None or not row.text("partner") or not row.text("member"):
                raise Faulty("joined_on", "partner, member and joined_on have to be there")  # noqa: TRY301
            product = row.text("product") or (
                programme.products[0].code if len(programme.products) == 1 else ""
            )
            if product not in programme.codes:
                raise Faulty("product", "the programme has no such product")  # noqa: TRY301
            percent, amount = row.text("percent"), row.amount("amount", programme.currency)
            choice: dict[str, Any] | None = {"percent": percent} if percent else None
            if amount is not None:
                choice = {"amount": {"amount": amount, "currency": programme.currency}}
            found.append(
                Joined(
                    row.place,
                    row.text("partner"),
                    row.text("member"),
                    product,
                    joined_on,
                    row.day("birth_date"),
                    row.text("phone") or None,
                    choice,
                    {name[5:]: _fact(row, name) for name in facts if row.cells.get(name) is not None},
                )
            )
        except Faulty as faulty:
            told.add(row.fault(faulty))
    return found


def expected(path: Path, currency: str, products: Sequence[str], through: date) -> list[Expected]:
    """The old system's figures of a spreadsheet or CSV: one row for each figure. Raises `InvalidShadowInput`."""
    columns = {"partner", "member", "product", "figure", "date", "amount"}
    found: list[Expected] = []
    for row, told in _rows(path, {"partner", "member", "figure", "amount"}, columns, EXPECTED_ROWS_MAX):
        try:
            figure = next((one for one in FIGURES if one == row.text("figure").lower()), None)
            amount = row.amount("amount", currency)
            product = row.text("product") or (products[0] if len(products) == 1 else "")
            on = row.day("date") or through
            if figure is None:
                raise Faulty("figure", f"no such figure; there are {', '.join(FIGURES)}")  # noqa: TRY301
            if amount is None:
                raise Faulty("amount", "there is no amount")  # noqa: TRY301
            if product not in products and figure != "unapplied":
                raise Faulty("product", "the programme has no such product")  # noqa: TRY301
            if on > through:
                raise Faulty("date", "this is after the last day that is replayed")  # noqa: TRY301
            found.append(
                Expected(row.place, row.text("partner"), row.text("member"), product, figure, on, amount)
            )
        except Faulty as faulty:
            told.add(row.fault(faulty))
    return found


def content_of(path: Path) -> bytes:
    """A file's bytes. Raises `InvalidShadowInput` when it is too large."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise InvalidShadowInput(f"{path.name} has more than {FILE_BYTES_MAX >> 20} MiB")
    return path.read_bytes()


def _fact(row: Row, name: str) -> str:
    value = row.cells[name]
    return value.isoformat() if isinstance(value, date) else row.text(name)


def _rows(path: Path, required: set[str], known: set[str], rows_max: int) -> Iterator[tuple[Row, Sheets]]:
    """Each row of a file; its faults end the reading, after the last row."""
    sheets = Sheets(content_of(path), required=frozenset(required), known=frozenset(known), rows_max=rows_max)
    try:
        for row in sheets:
            yield row, sheets
    except NotASpreadsheet as error:
        raise InvalidShadowInput(f"{path.name}: {error}") from error
    if sheets.faulty:
        raise InvalidShadowInput(_told(path, sheets.faults, sheets.faulty))


def _told(path: Path, faults: Sequence[Fault], count: int) -> str:
    more = f" (and {count - FAULTS_TOLD_MAX} more)" if count > FAULTS_TOLD_MAX else ""
    return f"{path.name}: " + "; ".join(str(one) for one in faults[:FAULTS_TOLD_MAX]) + more
