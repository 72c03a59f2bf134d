"""The close pack as a document: sections of tables, whose cells are words or figures. What it looks like is said elsewhere."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Literal
from uuid import UUID

from products.closing.figures import Figure

SCHEMA: Final = "mizan-close-pack-1"
PACK_BYTES_MAX: Final = 64 * 1024 * 1024

ColumnKind = Literal["text", "amount", "count", "date"]
RowKind = Literal["row", "group", "subtotal", "total"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    label: str
    kind: ColumnKind = "amount"


@dataclass(frozen=True, slots=True)
class Amount:
    """A figure, in minor units of its table's currency; ``figure`` names its transactions, ``link`` what it is instead."""

    amount: int
    figure: str | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Linked:
    """Words that lead somewhere in the API."""

    text: str
    link: str


Cell = str | int | Amount | Linked | None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, a cell for each column; ``accounts``: those that its figures are of, where they are few."""

    cells: tuple[Cell, ...]
    kind: RowKind = "row"
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; ``currency`` of its amounts. ``ties``: whether it adds up to what it has to, where it has to."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    currency: str | None = None
    ties: bool | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the pack; ``note`` says how to read it."""

    id: str
    title: str
    note: str
    tables: tuple[Table, ...]


@dataclass(slots=True)
class Figures:
    """The figures of a pack by their names, which are made of what they are of."""

    known: dict[str, Figure] = field(default_factory=dict)

    def cell(self, amount: int, name: Sequence[str], figure: Figure) -> Amount:
        """A cell with an amount and the figure that it is; nothing has no transactions."""
        if not amount:
            return Amount(0)
        id_ = ".".join(part.replace(".", "-") for part in name if part)
        if self.known.setdefault(id_, figure) != figure:
            raise ValueError(f"two figures are called {id_}")
        return Amount(amount, id_)


def spelled(pack: Mapping[str, Any]) -> bytes:
    """The pack's figures in their one spelling: what its digest is of."""
    return json.dumps(
        pack, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain
    ).encode()


def digest(pack: bytes) -> bytes:
    """SHA-256 of what `spelled` made."""
    return hashlib.sha256(pack).digest()


def to_json(section: Section) -> dict[str, Any]:
    """A section for `spelled`."""
    return {
        "id": section.id,
        "title": section.title,
        "note": section.note,
        "tables": [
            {
                "id": table.id,
                "title": table.title,
                "currency": table.currency,
                "ties": table.ties,
                "columns": [{"label": one.label, "kind": one.kind} for one in table.columns],
                "rows": [
                    {
                        "kind": row.kind,
                        "accounts": list(row.accounts),
                        "cells": [_cell(cell) for cell in row.cells],
                    }
                    for row in table.rows
                ],
            }
            for table in section.tables
        ],
    }


def _cell(cell: Cell) -> object:
    if isinstance(cell, Amount):
        return {"amount": cell.amount, "figure": cell.figure, "link": cell.link}
    if isinstance(cell, Linked):
        return {"text": cell.text, "link": cell.link}
    return cell


def _plain(value: object) -> str:
    if isinstance(value, UUID | date):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no spelling")
