"""Cells of a spreadsheet's file that no spreadsheet runs.

A spreadsheet runs a cell that begins as a formula, and some of what is in a cell was chosen by others. Such a cell gets an
apostrophe in front, which spreadsheets take for "this is text"; numbers are ours, and stay numbers.
"""

import json
import unicodedata
from datetime import date, datetime
from typing import Final

FORMULA: Final = frozenset("=+-@\t\r\n")
"""What a formula, or a cell that hides one, begins with; full-width forms are taken for the same characters."""


def cell(value: object) -> str:
    """A value as a cell that no spreadsheet runs."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"'{text}" if _begins_a_formula(text) else text


def _begins_a_formula(text: str) -> bool:
    if text[:1] in FORMULA and text:
        return True
    for character in unicodedata.normalize("NFKC", text[:64]):
        # what can't be seen is skipped by some spreadsheets before they look
        if character.isspace() or unicodedata.category(character) in ("Cf", "Cc"):
            continue
        return character in FORMULA
    return False
