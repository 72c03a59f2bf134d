"""How an agency is told, and how it answers: CSV files laid out by declarative mappings. Pure.

A schedule's columns are a list of ``{"header": …, "field": …}`` (or ``"value"``: a constant). An answer names the columns
that hold a line's position, the outcome, and what goes with it. Amounts are written in major units of the currency, or in
minor ones.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, cast, get_args

from ledger.errors import InvalidInput
from ledger.money import exponent, in_major_units
from products.programmes.scalars import parse_money

Field = Literal[
    "line", "number", "applies_to", "base", "rate", "amount", "paid_on", "product", "currency", "remittal"
]
Outcome = Literal["accepted", "rejected", "corrected"]
FIELDS: Final[tuple[Field, ...]] = get_args(Field)
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
COLUMNS_MAX: Final = 40
TEXT_MAX: Final = 100
FORMULAS: Final = ("=", "+", "-", "@")
TOTAL: Final = "#"
"""What a line of control totals begins with."""

DEFAULT_COLUMNS: Final[Mapping[str, Any]] = {
    "delimiter": ",",
    "amounts": "major",
    "columns": [{"header": field, "field": field} for field in FIELDS],
}
DEFAULT_ANSWER: Final[Mapping[str, Any]] = {
    "delimiter": ",",
    "amounts": "major",
    "line": "line",
    "outcome": "outcome",
    "outcomes": {outcome: outcome for outcome in OUTCOMES},
    "amount": "accepted",
    "reason": "reason",
    "number": "number",
}


class InvalidLayout(InvalidInput):
    """The mapping describes no file."""

    code = "invalid_mapping"


class AnswerRefused(InvalidInput):
    """The answer does not fit what was sent: nothing of it is taken. The detail names the difference."""

    code = "answer_refused"


@dataclass(frozen=True, slots=True)
class ScheduleLine:
    """What an agency is told of one line; amounts in minor units."""

    position: int
    number: str | None
    applies_to: date
    base: int | None
    rate: str | None
    amount: int
    paid_on: date
    product: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What an agency says of one line. ``accepted`` in minor units; None: as it was sent."""

    position: int
    outcome: Outcome
    accepted: int | None = None
    reason: str | None = None
    number: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Control totals of an answer; None: it gave none."""

    lines: int | None = None
    accepted: int | None = None


def checked_columns(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule's mapping, if it describes one. Raises `InvalidLayout`."""
    _only(mapping, {"delimiter", "amounts", "columns"})
    columns = mapping.get("columns")
    if not isinstance(columns, list) or not 0 < len(columns) <= COLUMNS_MAX:
        raise InvalidLayout(f"columns is a list of 1 to {COLUMNS_MAX}", pointer="/columns")
    for number, column in enumerate(columns):
        at = f"/columns/{number}"
        if not isinstance(column, dict) or not {"header"} < set(column) <= {"header", "field", "value"}:
            raise InvalidLayout("a column has a header, and a field or a value", pointer=at)
        if ("field" in column) == ("value" in column) or column.get("field", "line") not in FIELDS:
            raise InvalidLayout(f"a field is one of {', '.join(FIELDS)}", pointer=at)
        _text(column["header"], at)
        _text(column.get("value", "x"), at)
    named = {column.get("field") for column in columns}
    if not {"line", "amount"} <= named:
        raise InvalidLayout(
            "a schedule has the fields line and amount, or no answer fits it", pointer="/columns"
        )
    return {"columns": columns, **_common(mapping)}


def checked_answer(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """An answer's mapping, if it describes one. Raises `InvalidLayout`."""
    names = ("line", "outcome", "amount", "reason", "number")
    _only(mapping, {"delimiter", "amounts", "outcomes", *names})
    for name in names:
        if name in mapping or name in ("line", "outcome"):
            _text(mapping.get(name), f"/{name}")
    outcomes = mapping.get("outcomes")
    if not isinstance(outcomes, dict) or not outcomes or not set(outcomes.values()) <= set(OUTCOMES):
        raise InvalidLayout(f"outcomes maps the agency's words to {', '.join(OUTCOMES)}", pointer="/outcomes")
    return {
        **{name: mapping[name] for name in names if name in mapping},
        "outcomes": outcomes,
        **_common(mapping),
    }


def by_month(lines: Iterable[ScheduleLine]) -> dict[date, tuple[int, int]]:
    """Lines and their amount for each month that they apply to, in order."""
    months: defaultdict[date, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for line in lines:
        count, amount = months[line.applies_to]
        months[line.applies_to] = (count + 1, amount + line.amount)
    return dict(sorted(months.items()))


def written(
    lines: Sequence[ScheduleLine], layout: Mapping[str, Any], *, currency: str, remittal: str
) -> bytes:
    """The schedule: a header, the lines, and control totals (lines and amount, in all and by month) behind ``#``.

    The same lines give the same bytes.
    """
    places = 0 if layout["amounts"] == "minor" else exponent(currency)
    out = io.StringIO()
    rows = csv.writer(out, delimiter=layout["delimiter"], lineterminator="\r\n")
    rows.writerow([column["header"] for column in layout["columns"]])
    for line in lines:
        values: dict[str, str] = {
            "line": str(line.position),
            # a spreadsheet runs a cell that begins so, and others have chosen what stands here
            "number": f"'{line.number}" if (line.number or "").startswith(FORMULAS) else line.number or "",
            "applies_to": f"{line.applies_to:%Y-%m}",
            "base": "" if line.base is None else in_major_units(line.base, places),
            "rate": line.rate or "",
            "amount": in_major_units(line.amount, places),
            "paid_on": line.paid_on.isoformat(),
            "product": line.product,
            "currency": currency,
            "remittal": remittal,
        }
        rows.writerow(
            [
                values[column["field"]] if "field" in column else column["value"]
                for column in layout["columns"]
            ]
        )
    total = sum(line.amount for line in lines)
    rows.writerow([f"{TOTAL}total", str(len(lines)), in_major_units(total, places)])
    for month, (count, amount) in by_month(lines).items():
        rows.writerow([f"{TOTAL}{month:%Y-%m}", str(count), in_major_units(amount, places)])
    return out.getvalue().encode()


def read_answer(data: bytes, layout: Mapping[str, Any], *, currency: str) -> tuple[list[Answered], Totals]:
    """An agency's answer as it wrote it, with the control totals of a last line ``#total,LINES,ACCEPTED`` if there is one.

    Raises `AnswerRefused` for what can't be read, naming the line of the file.
    """
    places = 0 if layout["amounts"] == "minor" else exponent(currency)
    try:
        rows = list(
            csv.reader(io.StringIO(data.decode("utf-8-sig")), delimiter=layout["delimiter"], strict=True)
        )
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnswerRefused(f"the answer is not CSV in UTF-8: {error}") from None
    if not rows:
        raise AnswerRefused("the answer is empty")
    header = {name.strip(): place for place, name in enumerate(rows[0])}
    wanted = {
        name: layout[name] for name in ("line", "outcome", "amount", "reason", "number") if name in layout
    }
    for name in ("line", "outcome"):
        if wanted[name] not in header:
            raise AnswerRefused(f"the answer has no column “{wanted[name]}”")
    answered: list[Answered] = []
    totals = Totals()
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if row[0].startswith(TOTAL):
            if row[0] == f"{TOTAL}total":
                totals = _totals(row, places, number)
            continue
        if len(row) != len(rows[0]):
            raise AnswerRefused(f"line {number} of the file has {len(row)} columns, not {len(rows[0])}")
        values = {name: row[header[title]].strip() for name, title in wanted.items() if title in header}
        answered.append(_answered(values, layout["outcomes"], places, number))
    return answered, totals


def _answered(
    values: Mapping[str, str], outcomes: Mapping[str, Outcome], places: int, number: int
) -> Answered:
    outcome = outcomes.get(values["outcome"])
    if outcome is None:
        raise AnswerRefused(f"line {number} of the file: “{values['outcome'][:TEXT_MAX]}” is no outcome")
    if not values["line"].isascii() or not values["line"].isdecimal() or len(values["line"]) > 9:
        raise AnswerRefused(f"line {number} of the file names no line of the schedule")
    accepted = _parsed(values["amount"], places, number) if values.get("amount") else None
    return Answered(
        int(values["line"]),
        outcome,
        accepted,
        values.get("reason") or None,
        values.get("number") or None,
    )


def _totals(row: Sequence[str], places: int, number: int) -> Totals:
    if len(row) < 3 or not row[1].isdecimal():
        raise AnswerRefused(
            f"line {number} of the file: control totals are {TOTAL}total, lines, accepted amount"
        )
    return Totals(int(row[1]), _parsed(row[2], places, number))


def _parsed(amount: str, places: int, number: int) -> int:
    try:
        return parse_money(amount, places)
    except ValueError as error:
        raise AnswerRefused(f"line {number} of the file: {error}") from None


def _common(mapping: Mapping[str, Any]) -> dict[str, str]:
    delimiter, amounts = mapping.get("delimiter", ","), mapping.get("amounts", "major")
    if delimiter not in (",", ";", "\t", "|"):
        raise InvalidLayout("a delimiter is a comma, a semicolon, a tab or a bar", pointer="/delimiter")
    if amounts not in ("major", "minor"):
        raise InvalidLayout("amounts are in major or minor units", pointer="/amounts")
    return {"delimiter": cast("str", delimiter), "amounts": cast("str", amounts)}


def _only(mapping: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(mapping) - known)
    if unknown:
        raise InvalidLayout(
            f"nothing is called “{unknown[0][:TEXT_MAX]}” here", pointer=f"/{unknown[0][:TEXT_MAX]}"
        )


def _text(value: object, pointer: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_MAX or value.startswith(TOTAL):
        raise InvalidLayout(
            f"a text of 1 to {TEXT_MAX} characters that does not begin with {TOTAL}", pointer=pointer
        )
