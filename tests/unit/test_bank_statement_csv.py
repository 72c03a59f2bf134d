"""Banks' CSV by mappings: where balances stand, dates without years, several accounts, and every fault by row and column."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import integrations.bank_statements
from integrations.bank_statements import csv_mapping
from integrations.bank_statements.canonical import Format, InvalidStatement, Told
from integrations.bank_statements.csv_mapping import InvalidStatementMapping, parse, schema
from tests.unit.bank_statement_writers import IBAN, TODAY, Read, statement_in, statements_in

SIMPLE: dict[str, Any] = {
    "booked_on": {"column": "Date"},
    "amount": {"column": "Amount"},
    "currency": {"constant": "EUR"},
}
TOLD = Told(account=IBAN, opening=0, closing=500)
EXPORT = '''Account;GB82 WEST 1234 5698 7654 32;;;;
Period;25.12.2025;05.01.2026;;;
Statement no;7;Currency;EUR;;
;;;;;
Date;Value;Payee;Purpose;In;Out
28.12.;02.01.;"Müller; Söhne";"Rent ""March""";1.000,50;
03.01.;;Bank;Fee;;-0,50
04.01.;;;Brought forward;;
Opening balance:;;;;100,00;
Closing balance;;;;1.100,00;
'''
EXPORTED: dict[str, Any] = {
    "delimiter": ";",
    "decimal": ",",
    "thousands": ".",
    "skip_rows": 4,
    "account": {"row": 1, "column": 2},
    "currency": {"row": 3, "column": 4},
    "number": {"label": "statement no", "column": 2},
    "from_on": {"row": 2, "column": 2, "format": "%d.%m.%Y"},
    "to_on": {"row": 2, "column": 3, "format": "%d.%m.%Y"},
    "booked_on": {"column": "Date", "format": "%d.%m."},
    "value_on": {"column": "Value", "format": "%d.%m."},
    "amount": {"credit": "In", "debit": "Out"},
    "counterparty": {"column": "Payee"},
    "text": [{"column": "Purpose"}],
    "ignore": [{"column": "Purpose", "values": ["Brought forward"]}],
    "opening": {"label": "Opening balance", "column": 5},
    "closing": {"label": "Closing balance", "column": 5},
}


def one(rows: str, change: dict[str, Any] | None = None, told: Told = TOLD, **given: Any) -> Read:
    """The statement of a simple table."""
    return statement_in(
        f"Date,Amount,X\n{rows}", fmt=Format.CSV, mapping=SIMPLE | (change or {}), told=told, **given
    )


def refused(rows: str | bytes, mapping: dict[str, Any], told: Told = TOLD, **given: Any) -> str:
    with pytest.raises(InvalidStatement) as fault:
        statements_in(rows, Format.CSV, mapping=mapping, told=told, **given)
    return fault.value.detail


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1252", "iso-8859-15"])
def test_an_export_is_read_as_its_mapping_says(encoding: str) -> None:
    for mapping in (EXPORTED, EXPORTED | {"encoding": encoding.removesuffix("-sig")}):
        found = statement_in(EXPORT.encode(encoding), fmt=Format.CSV, mapping=mapping, told=None)
        head = found.head
        assert (head.account, head.currency, head.number) == (IBAN, "EUR", "7")
        assert (head.from_on, head.to_on, head.opening) == (date(2025, 12, 25), date(2026, 1, 5), 10_000)
        first, second = found.lines
        assert (first.booked_on, first.value_on) == (date(2025, 12, 28), date(2026, 1, 2))
        assert (second.booked_on, second.value_on) == (date(2026, 1, 3), date(2026, 1, 3))
        assert (first.amount, second.amount) == (100_050, -50)
        assert (first.counterparty, first.text, second.text) == ("Müller; Söhne", 'Rent "March"', "Fee")
        assert found.end is not None
        assert found.end.closing == 110_000


def test_an_encoding_that_is_named_is_never_guessed() -> None:
    content = EXPORT.encode("windows-1252")
    assert refused(content, EXPORTED | {"encoding": "utf-8"}) == "After line 0: it is not utf-8."
    assert refused(EXPORT.encode("utf-16"), EXPORTED | {"encoding": "windows-1252"})


@pytest.mark.parametrize(
    ("written", "change", "amount"),
    [
        ("5.00", {}, 500),
        ("-5", {}, -500),
        ("+5.5", {}, 550),
        ("- 5.00", {}, -500),
        ("5.00-", {}, -500),
        ("(5.00)", {}, -500),
        ("−5.00", {}, -500),
        ('"1,234.50"', {"thousands": ","}, 123_450),
        ('"1,20,34,500.50"', {"thousands": ","}, 1_203_450_050),
        ("1\u00a0234.50", {"thousands": " "}, 123_450),
        ("1\u202f234\u202f567", {"thousands": " "}, 123_456_700),
        ("1’234.50", {"thousands": "'"}, 123_450),
        ('"5,0000"', {"decimal": ","}, 500),
        ("1500", {"currency": {"constant": "JPY"}}, 1500),
        ("1.500", {"currency": {"constant": "KWD"}}, 1500),
        ("1500.00", {"currency": {"constant": "RWF"}}, 1500),
        ("1500", {"minor_units": True}, 1500),
        ("-5", {"amount": {"column": "Amount", "inverted": True}}, 500),
    ],
)  # fmt: skip
def test_amounts_are_read_as_the_mapping_describes_them(
    written: str, change: dict[str, Any], amount: int
) -> None:
    assert one(f"2026-03-02,{written},\n", change).amounts == [amount]


@pytest.mark.parametrize(
    "written", ["", "5.005", "5,00", "1,234", "5 EUR", "1e3", "--5", "(-5)", "99999999999999999"]
)
def test_amounts_that_are_none_are_named_by_row_and_column(written: str) -> None:
    told = refused(f'Date,Amount\n2026-03-02,1\n2026-03-02,"{written}"\n', SIMPLE)
    assert told.startswith("Row 3, column “Amount”: ")
    assert written not in told or len(written) < 3


def test_a_column_may_say_the_side_or_there_may_be_two() -> None:
    sided = {"amount": {"column": "Amount", "side": "X", "credit": ["CR", "H"], "debit": ["DR", "S"]}}
    assert one("2026-03-02,5,CR\n2026-03-02,5,S\n2026-03-02,-5,DR\n2026-03-02,-5,H\n", sided).amounts == [
        500,
        -500,
        -500,
        -500,
    ]
    two = {"amount": {"credit": "Amount", "debit": "X"}}
    assert one("2026-03-02,5,\n2026-03-02,,5\n2026-03-02,0.00,-5\n", two).amounts == [500, -500, -500]
    content = "Date,Amount,X\n2026-03-02,5,?\n"
    assert "has no value for what is here" in refused(content, SIMPLE | sided)
    assert "a credit and a debit" in refused(content.replace("?", "5"), SIMPLE | two)
    assert "neither a credit nor a debit" in refused("Date,Amount,X\n2026-03-02,,\n", SIMPLE | two)


@pytest.mark.parametrize(
    ("format_", "written", "days", "read"),
    [
        ("%d.%m.", "31.12.", (date(2025, 12, 28), date(2026, 1, 3)), date(2025, 12, 31)),
        ("%d.%m.", "02.01.", (date(2025, 12, 28), date(2026, 1, 3)), date(2026, 1, 2)),
        ("%d/%m", "29/02", (date(2024, 2, 1), date(2024, 2, 29)), date(2024, 2, 29)),
        ("%d/%m", "27/12", (date(2026, 1, 1), date(2026, 1, 31)), date(2025, 12, 27)),
        ("%d %b", "03 Jan", (date(2025, 12, 1), date(2025, 12, 31)), date(2026, 1, 3)),
        # no days are known: the last such day until today, 2026-03-10
        ("%d.%m.", "10.03.", (None, None), date(2026, 3, 10)),
        ("%d.%m.", "11.03.", (None, None), date(2025, 3, 11)),
        ("%d.%m.", "29.02.", (None, None), date(2024, 2, 29)),
        ("%d.%m.%y", "02.03.26", (None, None), date(2026, 3, 2)),
        ("%d/%m/%Y %H:%M", "02/03/2026 23:59", (None, None), date(2026, 3, 2)),
        ("iso", "2026-03-02T23:59:00+05:00", (None, None), date(2026, 3, 2)),
        ("%Y%m%d", "20260302", (None, None), date(2026, 3, 2)),
    ],
)
def test_dates_have_the_year_nearest_to_the_statements_days(
    format_: str, written: str, days: tuple[date | None, date | None], read: date
) -> None:
    told = Told(account=IBAN, opening=0, closing=100, from_on=days[0], to_on=days[1])
    found = one(f"{written},1,\n", {"booked_on": {"column": "Date", "format": format_}}, told)
    assert [line.booked_on for line in found.lines] == [read]
    assert (found.head.from_on, found.head.to_on) == (days[0] or read, days[1] or read)


def test_dates_that_are_none_are_named_by_row_and_column() -> None:
    for written in ("", "2026-02-30", "02.03.2026", "x"):
        assert (
            refused(f"Date,Amount\n{written},1\n", SIMPLE)
            == "Row 2, column “Date”: this is no date as the mapping describes them."
        )
    below = EXPORT.replace("Period;25.12.2025;05.01.2026;;;\n", ";\n") + "Period;25.12.2025;05.01.2026\n"
    labelled = {"from_on": {"label": "Period", "column": 2, "format": "%d.%m.%Y"}}
    assert "need the statement's days above them" in refused(below, EXPORTED | labelled)


def test_a_running_balance_tells_both_ends_and_is_checked_at_each_row() -> None:
    rows = ["2026-03-01,1,101", "2026-03-02,2,", "2026-03-03,-3,100", "2026-03-04,0,100", "2026-03-05,5,105"]
    balanced = {"balance": {"column": "X"}}
    for order, listed in (("oldest_first", rows), ("newest_first", rows[::-1])):
        found = one("\n".join(listed), balanced | {"order": order}, Told(account=IBAN))
        assert found.end is not None
        assert (found.head.opening, found.end.closing, found.end.skipped) == (10_000, 10_500, 1)
        assert (found.head.from_on, found.head.to_on) == (date(2026, 3, 1), date(2026, 3, 5))
        broken = "Date,Amount,X\n" + "\n".join(listed).replace("-3,100", "-3,100.10")
        told = refused(broken, SIMPLE | balanced | {"order": order}, Told(account=IBAN))
        assert "Row 4, column “X”: the balance is off from that of the rows before it by 0.10 EUR." in told
    content = "Date,Amount,X\n2026-03-01,1,101\n2026-03-02,2,\n"
    assert "othing says what the closing balance is" in refused(
        content, SIMPLE | balanced, Told(account=IBAN)
    )
    two_openings = {"skip_rows": 1, "opening": {"row": 1, "column": 2}}
    told = refused(f"opening,99\n{content}", SIMPLE | balanced | two_openings, Told(IBAN, closing=300))
    assert "t opens with 99.00 EUR, and its rows begin with 100.00 EUR" in told


def test_what_the_file_leaves_out_the_caller_says() -> None:
    found = one("2026-03-02,5,\n", told=Told(IBAN, None, -100, 400, date(2026, 3, 1), date(2026, 3, 5)))
    assert found.end is not None
    assert (found.head.account, found.head.opening, found.end.closing) == (IBAN, -100, 400)
    assert (found.head.from_on, found.head.to_on) == (date(2026, 3, 1), date(2026, 3, 5))
    content = "Date,Amount\n2026-03-02,5\n"
    without = {key: value for key, value in SIMPLE.items() if key != "currency"}
    assert "othing says what the opening balance is" in refused(content, SIMPLE, Told(IBAN, closing=5))
    assert "othing says what the closing balance is" in refused(content, SIMPLE, Told(IBAN, opening=5))
    assert "nothing says of which account" in refused(content, SIMPLE, Told(opening=0, closing=5))
    assert "in which currency" in refused(content, without)
    assert statement_in(content, fmt=Format.CSV, mapping=without, told=Told(IBAN, "jpy", 0, 5)).amounts == [5]


def test_without_entries_there_is_a_head_and_an_end_where_the_account_is_known() -> None:
    found = one("", told=Told(IBAN, None, 7, 7, date(2026, 3, 1), date(2026, 3, 31)))
    assert (found.lines, found.head.opening) == ([], 7)
    assert "says neither its days" in refused("Date,Amount\n", SIMPLE, Told(IBAN, None, 7, 7))
    assert "no entries, and nothing says of which account" in refused("Date,Amount\n", SIMPLE, Told())


def test_accounts_and_currencies_among_each_other_are_told_apart() -> None:
    mapping = SIMPLE | {
        "account": {"column": "Account"},
        "currency": {"column": "Currency", "values": {"Frw": "RWF"}},
        "balance": {"column": "Balance"},
    }
    rows = "Date,Account,Currency,Amount,Balance\n2026-03-01,A,EUR,1,1\n2026-03-01,B,EUR,2,12\n2026-03-02,A,Frw,3,3\n2026-03-02,A,EUR,4,5\n"
    found = statements_in(rows, Format.CSV, mapping=mapping)
    assert [(one.head.account, one.head.currency, one.amounts, one.head.opening) for one in found] == [
        ("A", "EUR", [100, 400], 0),
        ("B", "EUR", [200], 1000),
        ("A", "RWF", [3], 0),
    ]
    assert "the file has several" in refused(rows, mapping, Told(opening=0))


def test_only_booked_rows_count_and_reversals_are_marked() -> None:
    change = {
        "status": {"column": "X", "values": {"Booked": "booked", "Storno": "booked", "Pending": "pending"}},
        "reversals": {"column": "X", "values": ["Storno"]},
    }
    rows = "2026-03-02,5,Booked\n,,Pending\n2026-03-02,-2,Storno\n"
    found = one(rows, change)
    assert [(line.entry, line.amount, line.reversal) for line in found.lines] == [
        (1, 500, False),
        (3, -200, True),
    ]
    assert found.end is not None
    assert found.end.skipped == 1
    turned = change | {"reversals": {"column": "X", "values": ["Storno"], "turns_sign": True}}
    assert one(rows, turned).amounts == [500, 200]
    assert "Row 2, column “X”: the mapping has no value" in refused(
        "Date,Amount,X\n2026-03-02,5,Maybe\n", SIMPLE | change
    )


def test_a_footer_ends_the_entries_and_columns_may_be_counted() -> None:
    mapping = SIMPLE | {
        "header": False,
        "booked_on": {"column": 1},
        "amount": {"column": 2},
        "reference": {"column": 3},
        "references": [{"column": 4}],
        "footer": {"column": 1, "values": ["Total"]},
    }
    found = statement_in(
        "2026-03-02,5,R-1,notprovided\n2026-03-03,5\nTotal,10\nthank you,\n",
        fmt=Format.CSV,
        mapping=mapping,
        told=TOLD,
    )
    assert [(line.amount, line.reference, line.references) for line in found.lines] == [
        (500, "R-1", ()),
        (500, None, ()),
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "The file has no header"),
        ("Datum,Amount\n2026-03-02,5\n", "column “Date”: the header has no such column"),
        ("Date,Date,Amount\n", "or has it twice"),
        ('Date,Amount\n"2026-03-02,5\n', "quotes don't match"),
        ("Date,Amount\n2026-03-02,5\x00\n", "NUL"),
        ("Date,Amount\n2026-03-02\n", "Row 2, column “Amount”: the row is too short"),
        (f"Date,Amount\n2026-03-02,5,{'x' * 70_000}\n", "a line has more than"),
        (f"Date,Amount\n2026-03-02,5,{'x' * 2_000}\n", "a field of over"),
    ],
)
def test_what_is_no_such_file_is_refused_with_the_place(content: str, why: str) -> None:
    assert why in refused(content, SIMPLE)


def test_ten_faults_are_told_at_once_and_no_more() -> None:
    assert refused("Date,Amount\n" + "2026-03-02,x\n" * 50, SIMPLE).count("Row ") == 10


def test_without_a_mapping_csv_is_not_read() -> None:
    with pytest.raises(InvalidStatement, match="by a mapping"):
        statements_in("Date,Amount\n2026-03-02,5\n")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"encoding": "ebcdic"}, "/encoding"),
        ({"colour": "blue"}, ""),
        ({"amount": {"column": 0}}, "/amount"),
        ({"amount": {"column": "a", "side": "b"}}, "/amount"),
        ({"amount": {"column": "a", "side": "b", "credit": ["x"], "debit": ["x"]}}, "/amount"),
        ({"amount": {"credit": "a"}}, "/amount"),
        ({"currency": {"constant": "XXY"}}, "/currency"),
        ({"decimal": ",", "thousands": ","}, ""),
        ({"header": False}, ""),
        ({"booked_on": {"column": "d", "format": "%H:%M"}}, "/booked_on"),
        ({"booked_on": {"column": "d", "format": "%d.%m.%Q"}}, "/booked_on"),
        ({"booked_on": {"column": "d", "format": "%d %d %m"}}, "/booked_on"),
        ({"from_on": {"row": 1, "column": 1, "format": "%d.%m."}}, "/from_on"),
        ({"opening": {"column": 1}}, "/opening"),
        ({"opening": {"column": 1, "row": 1, "label": "x"}}, "/opening"),
        ({"opening": {"column": 1, "row": 9}}, ""),
        ({"account": {"column": "a"}, "opening": {"column": 1, "row": 1}}, ""),
        ({"status": {"column": "s", "values": {"x": "maybe"}}}, "/status"),
    ],
)
def test_a_mapping_that_nothing_can_be_read_by_is_refused_with_a_pointer(
    change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidStatementMapping) as refusal:
        parse(SIMPLE | change)
    assert (refusal.value.pointer or "").startswith(pointer)


def test_the_published_schema_is_that_of_the_code() -> None:
    published = Path(integrations.bank_statements.__file__).parent / "mapping.schema.json"
    assert json.loads(published.read_text()) == schema(), (
        "write it again: python -m integrations.bank_statements.csv_mapping > integrations/bank_statements/mapping.schema.json"
    )
    assert schema()["additionalProperties"] is False


def test_a_file_is_read_up_to_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.bank_statements.csv_reading.ROWS_MAX", 2)
    monkeypatch.setattr("integrations.bank_statements.csv_reading.STATEMENTS_MAX", 1)
    assert one("2026-03-02,5,\n").amounts == [500]
    assert "more than 2 rows" in refused("Date,Amount\n2026-03-02,5\n2026-03-02,5\n", SIMPLE)
    assert csv_mapping.ROWS_MAX >= 1_000_000
    several = SIMPLE | {
        "header": False,
        "account": {"column": 3},
        "booked_on": {"column": 1},
        "amount": {"column": 2},
    }
    assert "more than 1 accounts" in refused("2026-03-02,5,A\n2026-03-02,5,B\n", several, today=TODAY)


def test_the_how_tos_example_is_read_by_its_mapping() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "bring-in-bank-statements.md").read_text()
    (content,), (mapping,) = (
        re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("text", "json")
    )
    found = statement_in(content, mapping=json.loads(mapping))
    assert found.end is not None
    assert (found.amounts, found.head.opening, found.end.closing) == ([100_050, -50], 10_000, 110_000)
    assert [line.booked_on for line in found.lines] == [date(2025, 12, 28), date(2026, 1, 3)]
