"""Statements at random, written as each format has them, are read as what they were; and whatever is broken is refused cleanly."""

import io
import random
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.bank_statements.canonical import Format, InvalidStatement, UnknownFormat
from integrations.bank_statements.csv_mapping import StatementMapping, parse
from integrations.bank_statements.detect import detect
from integrations.bank_statements.reading import read
from tests.conftest import FUZZ
from tests.unit.bank_statement_writers import (
    CSV_MAPPING,
    IBAN,
    OTHER_IBAN,
    TODAY,
    Detail,
    Entry,
    Statement,
    by_account,
    camt,
    csv_file,
    facts,
    mt940,
    statements_in,
    truth,
)

MAPPING: StatementMapping = parse(CSV_MAPPING)

words = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh0123456789"), min_size=2, max_size=12).map(
    "X".__add__
)
texts = st.lists(words, max_size=6).map(" ".join)
days = st.dates(date(2025, 12, 20), date(2026, 1, 12))


@st.composite
def entries(draw: st.DrawFn, several: bool) -> Entry:
    sign = draw(st.sampled_from((1, -1)))
    details = tuple(
        Detail(
            sign * draw(st.integers(1, 10**12)),
            draw(st.none() | words),
            draw(st.none() | words),
            draw(st.none() | words),
            draw(texts),
        )
        for _ in range(draw(st.integers(1, 4)) if several else 1)
    )
    booked = draw(days)
    return Entry(details, booked, booked + timedelta(days=draw(st.integers(-20, 20))), draw(st.booleans()))


@st.composite
def files(draw: st.DrawFn, several: bool = True) -> list[Statement]:
    """A file's statements, each of an account and currency of its own."""
    accounts = draw(
        st.lists(
            st.tuples(
                st.sampled_from((IBAN, OTHER_IBAN, "1234567890")),
                st.sampled_from(("EUR", "JPY", "KWD", "RWF")),
            ),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    return [
        Statement(
            tuple(draw(st.lists(entries(several), max_size=6))),
            draw(st.integers(-(10**12), 10**12)),
            account,
            currency,
            f"S-{at}",
            str(at),
            date(2025, 12, 20),
            date(2026, 1, 12),
        )
        for at, (account, currency) in enumerate(accounts, 1)
    ]


def reversed_sum(one: Statement) -> int:
    return sum(entry.amount for entry in one.entries if entry.reversal)


@settings(max_examples=25 * FUZZ, deadline=None)
@given(file=files(), version=st.integers(2, 13), turned=st.booleans())
def test_camt_is_read_as_it_was_written(file: list[Statement], version: int, turned: bool) -> None:
    # Where reversals come to nothing in all, the balances can't tell which way they are meant; then signs are turned.
    turned = turned or any(reversed_sum(one) == 0 for one in file)
    for one, found in zip(file, statements_in(camt(file, version, turned=turned)), strict=True):
        assert facts(found.lines) == truth(one)
        assert [line.entry for line in found.lines] == [
            at for at, entry in enumerate(one.entries, 1) for _ in entry.details
        ]
        assert [line.reversal for line in found.lines] == [
            entry.reversal for entry in one.entries for _ in entry.details
        ]
        assert found.end is not None
        assert (found.head.opening, found.end.closing) == (one.opening, one.closing)
        assert (found.head.from_on, found.head.to_on) == (one.from_on, one.to_on)
        assert (found.head.account, found.head.currency, found.head.number) == (
            one.account,
            one.currency,
            one.number,
        )


@settings(max_examples=25 * FUZZ, deadline=None)
@given(file=files(), structured=st.booleans())
def test_mt940_is_read_as_it_was_written(file: list[Statement], structured: bool) -> None:
    for one, found in zip(file, statements_in(mt940(file, structured=structured)), strict=True):
        assert facts(found.lines) == truth(one)
        assert [line.reversal for line in found.lines] == [
            entry.reversal for entry in one.entries for _ in entry.details
        ]
        assert found.end is not None
        assert (found.head.opening, found.end.closing) == (one.opening, one.closing)
        assert (found.head.account, found.head.currency, found.head.number) == (
            one.account,
            one.currency,
            one.number,
        )
        assert found.head.to_on == one.to_on


@settings(max_examples=25 * FUZZ, deadline=None)
@given(
    file=files(),
    newest_first=st.booleans(),
    encoding=st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
    shuffle=st.booleans(),
)
def test_csv_is_read_as_it_was_written(
    file: list[Statement], newest_first: bool, encoding: str, shuffle: bool
) -> None:
    file = [one for one in file if one.entries]
    header, *rows = csv_file(file, newest_first=newest_first).splitlines(keepends=True)
    if shuffle:  # the accounts' rows among each other, each account's in their order
        order = [row.split(";")[:2] for row in rows]
        random.Random(len(rows)).shuffle(order)
        waiting = {tuple(key): iter([row for row in rows if row.split(";")[:2] == key]) for key in order}
        rows = [next(waiting[tuple(key)]) for key in order]
    mapping = MAPPING.model_copy(update={"order": "newest_first" if newest_first else "oldest_first"})
    content = "".join([header, *rows]).encode(encoding)
    if not rows:
        with pytest.raises(InvalidStatement, match="no entries"):
            statements_in(content, Format.CSV, mapping=mapping)
        return
    found = by_account(statements_in(content, mapping=mapping))
    for one in file:
        ((own),) = found.pop((one.account, one.currency))
        assert facts(own.lines) == (truth(one)[::-1] if newest_first else truth(one))
        assert own.end is not None
        assert (own.head.opening, own.end.closing) == (one.opening, one.closing)
    assert found == {}


def read_or_refused(content: bytes, fmt: Format | None) -> str | None:
    """Read all of it; what is said where it is refused."""
    try:
        for event in read(io.BytesIO(content), fmt, mapping=MAPPING, today=TODAY):
            assert event
    except (InvalidStatement, UnknownFormat) as refused:
        return refused.detail
    return None


@settings(max_examples=200 * FUZZ, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.text(st.sampled_from(":2058C61FM,\n0123D-{}/?EUR<>&;\"'\x00\ufeffé\r"), max_size=200).map(
            str.encode
        ),
        st.text(st.sampled_from(":2058C61FM,\n0123D-{}/?EUR"), max_size=120).map(
            lambda it: f":20:A\n:25:B\n:60F:C260301EUR1,\n:61:{it}\n:62F:C260302EUR1,\n".encode()
        ),
    ),
    fmt=st.sampled_from([None, *Format]),
)
def test_anything_at_all_is_read_or_refused(content: bytes, fmt: Format | None) -> None:
    assert "\x00" not in (read_or_refused(content, fmt) or "")


@settings(max_examples=60 * FUZZ, deadline=None)
@given(data=st.data())
def test_a_mutated_file_is_read_or_refused(data: st.DataObject) -> None:
    file = data.draw(files())
    content = bytearray(
        data.draw(st.sampled_from((camt(file), camt(file, 2), mt940(file), csv_file(file)))).encode()
    )
    fmt = data.draw(st.sampled_from([None, detect(bytes(content))]))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        end = at + data.draw(st.integers(0, 40))
        match data.draw(st.sampled_from(("cut", "change", "insert", "repeat"))):
            case "cut":
                del content[at:end]
            case "change":
                content[at : at + 1] = data.draw(st.binary(min_size=1, max_size=3))
            case "insert":
                content[at:at] = data.draw(
                    st.binary(max_size=6) | st.sampled_from((b"-", b"\n:61:", b"<Ntry>", b'"', b"\n"))
                )
            case _:
                content[at:at] = content[at:end]
        if not content:
            break
    assert "\x00" not in (read_or_refused(bytes(content), fmt) or "")


@settings(max_examples=20 * FUZZ, deadline=None)
@given(file=files(), data=st.data())
def test_a_file_that_is_cut_off_anywhere_is_refused(file: list[Statement], data: st.DataObject) -> None:
    for written in (camt(file), mt940(file)):
        cut = written[: data.draw(st.integers(1, len(written) - 3))]
        # Between two messages, MT940 is whole.
        assert read_or_refused(cut.encode(), None) or cut.rstrip().endswith(("\n-", "\n-}"))
