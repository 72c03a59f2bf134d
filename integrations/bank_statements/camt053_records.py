"""What stands in one record of camt.053 (a balance, an entry, a detail), by path; and its dates and amounts."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Final

from integrations.bank_statements import canonical
from integrations.bank_statements.canonical import InvalidStatement, UnreadableAmount

VALUES_MAX: Final = 5_000
"""Of one record. An entry with its details in records of their own has some dozens."""
CHARACTERS_MAX: Final = 256 * 1024
"""Of one record's texts."""

_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T Z+-].*)?", re.ASCII)


class Record:
    """The texts below one element, by the path of local names that leads to them; a currency (`Ccy`) stands beside its amount.

    Where `wanted` says which paths are read, no others are kept.
    """

    __slots__ = ("_path", "_paths", "_values", "_wanted", "_written", "characters", "kind")

    def __init__(self, kind: str, wanted: frozenset[str] | None = None) -> None:
        self.kind = kind
        self.characters = 0
        self._wanted = wanted
        self._values: dict[str, list[str]] = {}
        self._path = ""
        self._paths: list[str] = []
        self._written = 0

    @property
    def inside(self) -> bool:
        """Whether an element below the record's own has not ended yet."""
        return bool(self._paths)

    def enter(self, name: str, currency: str | None) -> str:
        """An element below starts. Its path."""
        self._paths.append(self._path)
        self._path = f"{self._path}/{name}" if self._path else name
        if currency is not None:
            self._keep(self._path, currency, "@")
        return self._path

    def leave(self, text: str) -> None:
        """The element ends."""
        if text:
            self._keep(self._path, text)
        self._path = self._paths.pop()

    def _keep(self, path: str, text: str, mark: str = "") -> None:
        if self._wanted is not None and path not in self._wanted:
            return
        self._written += 1
        self.characters += len(text)
        if self._written > VALUES_MAX or self.characters > CHARACTERS_MAX:
            raise ValueError(f"it has more than {VALUES_MAX} values, or {CHARACTERS_MAX} characters")
        self._values.setdefault(path + mark, []).append(text)

    def first(self, *paths: str) -> str | None:
        """The first text at the first of the paths that has one."""
        for path in paths:
            found = self._values.get(path)
            if found:
                return found[0]
        return None

    def all(self, *paths: str) -> Iterator[str]:
        """Every text at the paths."""
        for path in paths:
            yield from self._values.get(path, ())

    def amount(self, path: str) -> tuple[str, str | None] | None:
        """An amount as written, and its currency."""
        written = self.first(path)
        return None if written is None else (written, canonical.known_currency(self.first(path + "@")))


def signed(record: Record, where: str) -> tuple[int, str]:
    """The record's own amount, positive for a credit, and its currency. Raises `InvalidStatement`."""
    found = record.amount("Amt")
    if found is None:
        raise InvalidStatement("there is no amount", where=where)
    written, currency = found
    if currency is None:
        raise InvalidStatement("its currency is none (ISO 4217)", where=where)
    return direction(record, where) * magnitude(written, currency, where), currency


def direction(record: Record, where: str) -> int:
    """1 for a credit, −1 for a debit. Raises `InvalidStatement`."""
    match (record.first("CdtDbtInd") or "").upper():
        case "CRDT":
            return 1
        case "DBIT":
            return -1
    raise InvalidStatement("it is neither CRDT nor DBIT", where=where)


def magnitude(written: str, currency: str, where: str) -> int:
    """Minor units of an amount as camt has them: a decimal point, no sign. Raises `InvalidStatement`."""
    try:
        return canonical.minor_units(written.removeprefix("+"), currency, decimal=".")
    except UnreadableAmount as fault:
        raise InvalidStatement(f"the amount can't be read: {fault}", where=where) from None


def day_of(written: str | None) -> date | None:
    """The day of a date or a time, as the bank's own calendar has it; None for what is none."""
    found = _DAY.fullmatch((written or "").strip())
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None
