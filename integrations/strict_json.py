"""JSON that means one thing only: what a partner signed is what we act on (RFC 8259, kept to I-JSON, RFC 7493).

Python's decoder forgives what another reader of the same signed bytes may understand differently: a key given twice,
``NaN``, half a surrogate pair. :func:`loads` refuses all of it, and bounds the nesting and the length of numbers, so
that no body can exhaust the stack.
"""

import json
import math
import re
from typing import Any, Final, NoReturn

DEPTH_MAX: Final = 32
INTEGER_DIGITS_MAX: Final = 20
"""Longer integers are refused as JSON; those that merely exceed an amount are named by the schema's check."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[\]{}]")
_FORBIDDEN_IN_TEXT = re.compile("[\x00\ud800-\udfff]")


class NotStrictJson(ValueError):
    """The bytes are not strict JSON. The message says what is wrong, without quoting the body."""


def loads(body: bytes) -> Any:
    """The value of `body`. Raises `NotStrictJson` for anything two readers could understand differently.

    Refused: bytes that are not UTF-8 (a byte order mark too), duplicate keys, ``NaN`` and ``Infinity``, numbers beyond
    a double or of more than 20 digits, nesting over 32 levels, and NUL or lone surrogates in a string or key.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"byte {error.start} is not UTF-8") from None
    # Only a body with this many brackets can be too deep, and ordinary events have a handful.
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX and _depth(body) > DEPTH_MAX:
        raise NotStrictJson(f"it is nested more than {DEPTH_MAX} levels deep")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotStrictJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    # Raw control characters are refused by the decoder: only an escape can smuggle one in.
    if b"\\u" in body and _contains_forbidden_text(value):
        raise NotStrictJson("a string holds NUL or half a surrogate pair")
    return value


def _depth(body: bytes) -> int:
    """The deepest nesting outside strings, found without recursion, before anything recursive sees the body."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", body)):
        depth += 1 if bracket in b"{[" else -1
        deepest = max(deepest, depth)
    return deepest


def _contains_forbidden_text(value: Any) -> bool:
    if isinstance(value, str):
        return _FORBIDDEN_IN_TEXT.search(value) is not None
    if isinstance(value, dict):
        return any(
            _contains_forbidden_text(key) or _contains_forbidden_text(item) for key, item in value.items()
        )
    return isinstance(value, list) and any(map(_contains_forbidden_text, value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise NotStrictJson("a key is given twice in one object")
    return unique


def _integer(digits: str) -> int:
    if len(digits) > INTEGER_DIGITS_MAX:
        raise NotStrictJson(f"an integer has more than {INTEGER_DIGITS_MAX} digits")
    return int(digits)


def _fraction(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotStrictJson("a number is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise NotStrictJson(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
)
