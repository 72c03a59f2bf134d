"""What may stand in a log line, and what is put in the place of everything else.

By construction: a field is written when its name is in `FIELDS` and its value is of the kind that the name promises;
any other is `WITHHELD`. Texts of libraries keep their own words and numbers, and arguments that are plain names; what
else they were given is named by its type. What is left is still searched for what looks like a phone number, an
address, a token, a key or an account, and masked.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

WITHHELD: Final = "[withheld]"
TEXT_CHARACTERS_MAX: Final = 500

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:+-]{0,63}\Z")
_ID = re.compile(r"[a-z]{2,4}_[0-9A-Za-z]{8,40}\Z")
_ROUTE = re.compile(r"/[A-Za-z0-9_./{}-]{0,120}\Z")
_NAME = re.compile(r"[A-Za-z0-9_.:/{}<>\[\]=*-]{1,120}\Z")

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MASKS: Final = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("credentials", r"(?<=://)[^/\s@]+(?=@)"),
        ("query", r"(?<=[\w/])\?[^\s\"']+"),
        ("token", r"\b(?:Bearer|Basic|DPoP)\s+[^\s\"',;]+"),
        ("token", r"\beyJ[\w-]+(?:\.[\w-]*)*"),
        ("secret", r"\b(?:whsec|whsk|whpk|mzn_[a-z]+)_[^\s\"',;]+"),
        ("address", r"[\w.+-]+@[\w-]+\.[\w.-]+"),
        ("key", r"(?<![\w+/=-])[A-Za-z0-9+/]{43}=(?![\w+/=-])"),
        ("account", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"),
        ("key", rf"(?<![\w-])(?!{_UUID}(?![\w-]))(?![a-z]{{2,4}}_)[\w-]{{36,}}(?![\w-])"),
        ("number", r"(?<![\w.:-])\+?\d(?:[ ().-]{0,2}\d){7,18}(?![\w:])"),
    )
)


def masked(text: str) -> str:
    """`text`, cut to `TEXT_CHARACTERS_MAX`, with whatever looks like personal data or a secret replaced by its kind."""
    text = text[:TEXT_CHARACTERS_MAX]
    for name, pattern in _MASKS:
        text = pattern.sub(f"[{name}]", text)
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(_WORD.match(value))


def _is_id(value: object) -> bool:
    return isinstance(value, UUID) or (isinstance(value, str) and bool(_ID.match(value)))


def _is_time(value: object) -> bool:
    return isinstance(value, datetime | date)


def _is_route(value: object) -> bool:
    return isinstance(value, str) and bool(_ROUTE.match(value))


_KINDS: Final[Mapping[Callable[[object], bool], str]] = {
    _is_number: "attempt bytes count deliveries exit_code height left limit milliseconds number pid port seconds seen size"
    " status waiting",
    _is_word: "action channel check code column command constraint environment error host_role key_id kind level logger"
    " method outcome pool process programme purpose reason role scope server signal sqlstate state table task topic version",
    _is_id: "actor challenge client consent delivery dependant device enrolment event_id link member mizan_id object operator"
    " partner payee payout quote remittance request request_id session settlement span_id trace_id transaction",
    _is_time: "at since until",
    _is_route: "route",
}
FIELDS: Final[Mapping[str, Callable[[object], bool]]] = {
    name: kind for kind, names in _KINDS.items() for name in names.split()
}
"""Every field that a log line may have, and what its value has to be."""


def field(name: str, value: object) -> object:
    """The value of a field as it may be written."""
    fits = FIELDS.get(name)
    if value is None or isinstance(value, bool):
        return value if fits is not None else WITHHELD
    if fits is None or not fits(value):
        return WITHHELD
    return value if _is_number(value) else str(value)


def message(template: object, arguments: object) -> str:
    """A library's log message: its own text, with those of its arguments that say nothing about anybody."""
    if not isinstance(template, str):
        return f"<{type(template).__name__}>"
    if not arguments:
        return masked(template)
    shown: object
    if isinstance(arguments, Mapping):
        shown = {name: _argument(value) for name, value in arguments.items()}
    elif isinstance(arguments, tuple):
        shown = tuple(_argument(value) for value in arguments)
    else:
        shown = (_argument(arguments),)
    try:
        return masked(template % shown)
    except (TypeError, ValueError, KeyError):
        return masked(template)


def _argument(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | UUID | datetime | date):
        return value
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, str | Path) and _NAME.match(str(value)):
        return str(value)
    return f"<{type(value).__name__}>"
