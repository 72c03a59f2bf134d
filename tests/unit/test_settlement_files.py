"""Settlement files that can't be read, and mappings that nothing can be read by: each fault says where, and quotes nothing."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.settlement_files import reading
from integrations.settlement_files.mapping import InvalidMapping, parse, schema
from integrations.settlement_files.reading import InvalidSettlementFile, read
from products.settlements.comparison import FileLine, InvalidDays, days_of
from tests.conftest import FUZZ

SIMPLE: dict[str, Any] = {
    "remittance_id": {"column": "ref"},
    "amount": {"column": "amount"},
    "currency": {"constant": "KWD"},
}
FULL: dict[str, Any] = SIMPLE | {
    "thousands": ",",
    "currency": {"column": "ccy"},
    "kind": {"column": "type", "values": {"C": "collection", "R": "reversal", "F": "ignore"}},
    "at": {"column": "paid", "format": "%Y-%m-%d", "zone": "Africa/Kigali"},
    "sign": "reversals_negative",
    "trailer": {"column": "ref", "equals": "TOTAL", "count": "type", "total": "amount"},
}
HEADER = "ref,amount,ccy,type,paid\n"


def test_lines_are_what_the_mapping_says_of_them() -> None:
    content = HEADER + (
        'A1,"1,500.25",PHP,C,2026-03-02\n\n'
        '"A""2",-500.25,PHP,R,2026-03-03\n'
        "FEE-1,3,PHP,F,2026-03-03\n"
        "TOTAL,1000,,2,\n"
    )
    zoned = datetime(2026, 3, 1, 22, tzinfo=UTC), datetime(2026, 3, 2, 22, tzinfo=UTC)
    assert read(b"\xef\xbb\xbf" + content.encode(), parse(FULL)) == [
        FileLine(2, "A1", "collection", 150_025, "PHP", zoned[0]),
        FileLine(4, 'A"2', "reversal", 50_025, "PHP", zoned[1]),
    ]
    # three decimals, none, and minor units
    assert [it.amount for it in read(b"ref,amount\nA,1.005\nB,2\nC,3.5000", parse(SIMPLE))] == [
        1005,
        2000,
        3500,
    ]
    assert [it.amount for it in read(b"ref,amount\nA,1005", parse(SIMPLE | {"minor_units": True}))] == [1005]


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ("A1,1.2.3,PHP,C,2026-03-02", "Row 2, column “amount”"),
        ("A1,1.234,PHP,C,2026-03-02", "Row 2, column “amount”"),
        ('A1,"1,50.00",PHP,C,2026-03-02', "Row 2, column “amount”"),
        ("A1,99999999999999999,PHP,C,2026-03-02", "Row 2, column “amount”"),
        ("A1,-1,PHP,C,2026-03-02", "Row 2, column “amount”: a reversal is negative"),
        ("A1,1,PHP,R,2026-03-02", "Row 2, column “amount”: a reversal is negative"),
        ("A1,1,XXY,C,2026-03-02", "Row 2, column “ccy”"),
        ("A1,1,PHP,X,2026-03-02", "Row 2, column “type”"),
        ("A1,1,PHP,C,03/02/2026", "Row 2, column “paid”"),
        ("A 1,1,PHP,C,2026-03-02", "Row 2, column “ref”"),
        ("A1,1,PHP,C,2026-03-02\nA2,1", "Row 3, column “type”: the row is too short"),
        ("A1,1,PHP,C,2026-03-02\nTOTAL,1,,2,", "Row 3, column “type”: the trailer counts other rows"),
        ("A1,1,PHP,C,2026-03-02\nTOTAL,2,,1,", "Row 3, column “amount”: the trailer's total"),
        ("TOTAL,0,,0,\nA1,1,PHP,C,2026-03-02", "Row 3: there is a row after the trailer"),
        ("A1,1,PHP,C,2026-03-02\nA2,1,USD,C,2026-03-02\nTOTAL,2,,2,", "several currencies"),
        ('"A1,1,PHP', "Row 2 is no row of CSV"),
        ("A1,1,PHP,C,2026-03-02", "no trailer"),
        ("A1," + "1" * 1_001 + ",PHP,C,2026-03-02", "Row 2 has more than"),
    ],
)
def test_a_fault_is_named_by_row_and_column(rows: str, where: str) -> None:
    with pytest.raises(InvalidSettlementFile) as refused:
        read((HEADER + rows).encode(), parse(FULL))
    assert where in refused.value.detail
    assert "99999" not in refused.value.detail


def test_ten_faults_are_told_at_once_and_no_more() -> None:
    with pytest.raises(InvalidSettlementFile) as refused:
        read(("ref,amount\n" + "A,x\n" * 50).encode(), parse(SIMPLE))
    assert refused.value.detail.count("Row ") == 10


@pytest.mark.parametrize(
    "content", [b"", b"other,amount\nA,1", b"ref,ref,amount\nA,B,1", b"ref,amount\nA\xff,1", b"\xff\xfe\x00"]
)
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidSettlementFile):
        read(content, parse(SIMPLE))


def test_a_file_is_read_up_to_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS_MAX", 3)
    assert len(read(b"ref,amount\nA,1\nB,1", parse(SIMPLE))) == 2
    with pytest.raises(InvalidSettlementFile, match="more than 3 rows"):
        read(b"ref,amount\nA,1\nB,1\nC,1", parse(SIMPLE))


@settings(max_examples=300 * FUZZ, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.text(st.sampled_from("ref,amount\n\"A1;.'\x00-9é\r\t|TOTAL"), max_size=200).map(
            lambda it: f"ref,amount\n{it}".encode()
        ),
    ),
    mapping=st.fixed_dictionaries(
        {},
        optional={
            "encoding": st.sampled_from(["utf-8", "utf-16", "windows-1252"]),
            "header": st.just(True),
            "thousands": st.sampled_from(["", ",", " "]),
            "sign": st.sampled_from(["positive", "by_sign"]),
            "quote": st.sampled_from([None, "'", '"']),
        },
    ),
)
def test_anything_at_all_is_read_or_refused(content: bytes, mapping: dict[str, Any]) -> None:
    try:
        lines = read(content, parse(SIMPLE | mapping))
    except InvalidSettlementFile:
        return
    assert all(line.amount >= 0 and line.remittance_id.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"encoding": "ebcdic"}, "/encoding"),
        ({"colour": "blue"}, ""),
        ({"amount": {"column": 0}}, "/amount"),
        ({"amount": {"column": "a", "sum": True}}, "/amount"),
        ({"currency": {"constant": "kwd"}}, "/currency"),
        ({"currency": {"constant": "XXY"}}, "/currency"),
        ({"decimal": ",", "thousands": ","}, ""),
        ({"header": False}, ""),
        ({"sign": "reversals_negative"}, ""),
        ({"sign": "by_sign", "kind": {"column": "t", "values": {"C": "collection"}}}, ""),
        ({"at": {"column": "d", "format": "%H:%M"}}, "/at"),
        ({"at": {"column": "d", "zone": "Mars"}}, "/at"),
        ({"kind": {"column": "t", "values": {"C": "sale"}}}, "/kind"),
    ],
)
def test_a_mapping_that_nothing_can_be_read_by_is_refused_with_a_pointer(
    change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidMapping) as refused:
        parse(SIMPLE | change)
    assert (refused.value.pointer or "").startswith(pointer)
    assert schema()["additionalProperties"] is False


def test_the_days_of_a_file_are_told_or_those_of_its_lines() -> None:
    def at(*moments: datetime | None) -> list[FileLine]:
        return [FileLine(1, "A", "collection", 1, "RWF", moment) for moment in moments]

    late, early = datetime(2026, 3, 4, 22, tzinfo=UTC), datetime(2026, 3, 2, 21, tzinfo=UTC)
    assert days_of(at(late, None, early), "Africa/Kigali", None, None) == (date(2026, 3, 2), date(2026, 3, 5))
    assert days_of(at(None), "UTC", date(2026, 3, 1), date(2026, 3, 1)) == (
        date(2026, 3, 1),
        date(2026, 3, 1),
    )
    for first, last in (
        (None, None),
        (date(2026, 3, 2), date(2026, 3, 1)),
        (date(2024, 1, 1), date(2026, 3, 1)),
    ):
        with pytest.raises(InvalidDays):
            days_of(at(None), "UTC", first, last)
