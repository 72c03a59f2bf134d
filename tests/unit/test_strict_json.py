"""What is and what is not JSON that means one thing only."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.strict_json import DEPTH_MAX, NotStrictJson, loads

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(values, st.booleans())
def test_ordinary_json_reads_as_it_was_written(value: object, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_being_refused(body: bytes) -> None:
    with contextlib.suppress(NotStrictJson):
        loads(body)


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "twice"),
        (b"NaN", "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"1e999", "too large"),
        (b"1" * 21, "more than 20 digits"),
        (b"1" * 10_000, "more than 20 digits"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),  # a surrogate, encoded as if it were a character
        (b"\xef\xbb\xbf{}", "Expecting value"),
        (b'"\x00"', "Invalid control character"),
        (b'"a\nb"', "Invalid control character"),
        (b'"\\u0000"', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"a": {"\\udc00": 1}}', "surrogate"),
        (b'{"a": "\\ude00\\ud83d"}', "surrogate"),
        (b"'a'", "Expecting value"),
        (b"{}//", "Extra data"),
        (b"01", "Extra data"),
    ],
)
def test_anything_that_two_readers_could_understand_differently_is_refused(body: bytes, finding: str) -> None:
    with pytest.raises(NotStrictJson, match=finding):
        loads(body)


def test_a_whole_surrogate_pair_is_a_character_and_an_escaped_backslash_is_no_escape() -> None:
    assert loads(b'["\\ud83d\\ude00", "\\\\u0000"]') == ["\U0001f600", "\\u0000"]


def test_nesting_is_counted_outside_strings_and_before_anything_recursive_sees_it() -> None:
    assert loads(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    assert loads(b'["' + b'\\"[{' * 100 + b'"]')
    assert len(loads(b"[" + b",".join([b"{}"] * 1000) + b"]")) == 1000
    for body in (b"[" * 33 + b"]" * 33, b"[" * 250_000, b'{"a":' * 50_000, b'[["]",' * 40):
        with pytest.raises(NotStrictJson, match="nested"):
            loads(body)
