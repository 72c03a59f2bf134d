"""What the readers of all formats share: what a format is called, what is refused, and how amounts, dates and references
that banks write in a dozen ways become one.

A refusal names the statement and the entry; of the file itself it quotes figures and codes, never names or free text.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from stdnum import iban

from ledger.errors import InvalidInput, InvalidMoney
from ledger.money import AMOUNT_MAX, exponent, in_major_units

Progress = Callable[[int], None]
"""Told how many bytes of the file were read so far."""

REFERENCE_CHARACTERS_MAX: Final = 140
"""Longer references are none of a bank's: camt's have at most 35 characters, creditor references 140."""
TEXT_CHARACTERS_MAX: Final = 4_000
ACCOUNT_CHARACTERS_MAX: Final = 70
REFERENCES_MAX: Final = 10_000
"""References kept of one line; more than a batch of payments has."""


class Format(StrEnum):
    """The formats that are read."""

    CAMT053 = "camt.053"
    MT940 = "mt940"
    CSV = "csv"


class UnknownFormat(InvalidInput):
    """The file is no bank statement in a format that is read here; the detail says what it is, where that is known."""

    code = "unknown_statement_format"


class InvalidStatement(InvalidInput):
    """The file is cut off, contradicts itself, or lacks what a statement can't do without. `where` says where."""

    code = "invalid_bank_statement"

    def __init__(self, what: str, *, where: str | None = None) -> None:
        sentence = what if where is None else f"{where}: {what}"
        super().__init__(sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith(".") else "."))
        self.where = where


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller says of a file that doesn't say it itself: some CSV has no balances, no period, or no account number.

    Balances are signed minor units. What the file does say, counts.
    """

    account: str | None = None
    currency: str | None = None
    opening: int | None = None
    closing: int | None = None
    from_on: date | None = None
    to_on: date | None = None


def statement_at(position: int, entry: int | None = None, detail: int | None = None) -> str:
    """How a place is named in a refusal."""
    where = f"statement {position}"
    if entry is not None:
        where += f", entry {entry}"
    if detail:
        where += f", detail {detail}"
    return where


def known_currency(code: str | None) -> str | None:
    """The code in upper case if it is a currency (ISO 4217) with a minor unit."""
    folded = (code or "").strip().upper()
    try:
        exponent(folded)
    except InvalidMoney:
        return None
    return folded


_PLAIN = re.compile(r"([0-9]*)(?:([.,])([0-9]*))?", re.ASCII)
_GROUPED = re.compile(
    r"[0-9]{1,3}(?:([.,'’ \u00a0\u202f])[0-9]{3})(?:\1[0-9]{3})*(?:([.,])([0-9]*))?", re.ASCII
)


class UnreadableAmount(ValueError):
    """An amount that can't be read, or only in two ways. The message says why, without quoting it."""


def minor_units(written: str, currency: str, *, decimal: str) -> int:
    """Minor units of an amount without a sign; `decimal` is the mark that the format itself prescribes.

    ``1234.5``, ``1234,50``, ``1.234,50``, ``1,234.50``, ``1'234.50`` and ``1234,`` are read in every format. Where the other mark
    stands before three digits (``1,234`` where a point is prescribed) nobody knows whether it is one or a thousand: refused,
    as are digits beyond the currency's decimals, unless they are zeros. Raises `UnreadableAmount`.
    """
    text, places = written.strip(), exponent(currency)
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        whole, mark, decimals = plain[1], plain[2], plain[3] or ""
        if mark not in (None, decimal) and len(decimals) == 3 and whole.strip("0") and len(whole) <= 3:
            raise UnreadableAmount("its mark may stand for decimals or for thousands")
        return scaled(whole, decimals, places, currency)
    grouped = _GROUPED.fullmatch(text)
    if grouped is None or grouped[1] == grouped[2]:
        raise UnreadableAmount("it is no amount")
    whole = text[: grouped.start(2)] if grouped[2] else text
    return scaled(whole.replace(grouped[1], ""), grouped[3] or "", places, currency)


def scaled(whole: str, decimals: str, places: int, currency: str) -> int:
    """Minor units of digits before and after the decimal mark. Raises `UnreadableAmount`."""
    if not whole and not decimals:
        raise UnreadableAmount("there is no amount")
    if decimals[places:].strip("0"):
        raise UnreadableAmount(f"{currency} has {places} decimals")
    digits = (whole + decimals[:places].ljust(places, "0")).lstrip("0")
    if len(digits) > 16 or int(digits or "0") > AMOUNT_MAX:
        raise UnreadableAmount("it is larger than 2^53−1 minor units")
    return int(digits or "0")


def shown(amount: int, currency: str) -> str:
    """A signed amount for people."""
    return f"{'-' if amount < 0 else ''}{in_major_units(abs(amount), exponent(currency))} {currency}"


_UNSAID = frozenset(
    {"NOTPROVIDED", "NOTAVAILABLE", "NOTAPPLICABLE", "NONREF", "NOREF", "NOREFERENCE", "NONE", "NULL", "NA", "NIL", "UNKNOWN"}
)  # fmt: skip
_MARKS = re.compile(r"[\W_]+")
_LINE_ENDS = re.compile(r"[ \t]*[\r\n]+[ \t]*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff\u200b\u2028\u2029]+")


def text_of(*parts: str | None) -> str:
    """Free text on one line: parts joined by a space, control characters and runs of space made one space."""
    joined = " ".join([part for part in parts if part])
    if not joined:
        return ""
    if not joined.isprintable():
        joined = _CONTROLS.sub(" ", joined)
    return " ".join(joined.split())[:TEXT_CHARACTERS_MAX]


def reference_of(written: str | None) -> str | None:
    """A reference as it was given, put together where it goes over lines; None for blanks and the banks' words for having none."""
    if not written:
        return None
    whole = written if written.isprintable() else _LINE_ENDS.sub("", written)
    found = text_of(whole)[:REFERENCE_CHARACTERS_MAX].strip()
    bare = found.upper() if found.isalnum() else _MARKS.sub("", found).upper()
    return None if bare in _UNSAID or not bare.strip("0") else found


def references_of(written: Iterable[str | None], *, besides: Iterable[str | None] = ()) -> tuple[str, ...]:
    """Each reference once, in order, without those that stand elsewhere on the line."""
    found = dict.fromkeys(reference for one in written if (reference := reference_of(one)) is not None)
    for one in besides:
        if one is not None:
            found.pop(one, None)
    return tuple(found)[:REFERENCES_MAX]


def account_of(written: str | None, currency: str | None = None) -> str | None:
    """An account's number without spaces and in upper case; an IBAN freed of what banks put around it.

    ``DEUTDEFF/NL91 ABNA…`` and ``NL91ABNA…EUR`` are that IBAN; any other number stays whole.
    """
    if not written:
        return None
    number = "".join(text_of(written).split()).upper()
    if not number:
        return None
    if currency is None and number.isalnum() and not number.startswith("IBAN"):
        return number[:ACCOUNT_CHARACTERS_MAX]
    last = number.rpartition("/")[2]
    for candidate in (number, last, number.removeprefix("IBAN"), number.removesuffix(currency or "")):
        if is_iban(candidate):
            return candidate
    without = last.removesuffix(currency or "")
    return without if is_iban(without) else number[:ACCOUNT_CHARACTERS_MAX]


_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", re.ASCII)


def is_iban(number: str) -> bool:
    """Whether the check digits and the form are an IBAN's."""
    return _IBAN.fullmatch(number) is not None and iban.is_valid(number, check_country=False)


def nearest_year(month: int, day: int, to: date) -> date | None:
    """The day of that month nearest to another; None if no such day is in the years around it (a 29 February)."""
    candidates = []
    for year in (to.year - 1, to.year, to.year + 1):
        try:
            candidates.append(date(year, month, day))
        except ValueError:
            continue
    return min(candidates, key=lambda one: abs((one - to).days), default=None)
