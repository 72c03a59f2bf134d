"""YAML for files that decide over money: a small, unsurprising subset, read without recursion and within limits.

Mappings, sequences, text, whole numbers, true, false and null, as in YAML 1.2's core schema: ``NO`` is Norway and not
false, ``2026-01-01`` is text, ``010`` is text. Refused, each with a JSON pointer and a line: duplicate keys, fractional
numbers (write money and percentages in quotes), anchors and aliases, tags, keys that are not text, several documents.
"""

import re
from dataclasses import dataclass, field

import yaml

from products.programmes.faults import Fault

BYTES_MAX = 256 * 1024
DEPTH_MAX = 24
NODES_MAX = 20_000
KEY_LENGTH_MAX = 100

Plain = dict[str, "Plain"] | list["Plain"] | str | int | bool | None

_NULL = frozenset({"", "~", "null"})
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FRACTIONAL = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.IGNORECASE
)
_LEADING_ZERO = re.compile(r"0[0-9]+")


@dataclass(slots=True)
class _Open:
    """A mapping or sequence whose end hasn't been read yet."""

    content: dict[str, Plain] | list[Plain]
    pointer: str
    key: str | None = None
    seen: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Document:
    """What was read: the value (None when it couldn't be), the faults, and the line of each pointer."""

    value: Plain
    faults: list[Fault]
    lines: dict[str, int]


class _TooMuch(Exception):
    """A limit is passed: reading stops."""


def read(text: str) -> Document:
    """Read one document. Never raises for bad text: whatever is wrong is among the faults."""
    document = Document(None, [], {})
    if len(text.encode("utf-8", "surrogatepass")) > BYTES_MAX:
        document.faults.append(Fault("", f"the file is larger than {BYTES_MAX // 1024} KiB"))
        return document
    try:
        _Reader(document).read(text)
    except _TooMuch as limit:
        document.value = None
        document.faults.append(Fault("", str(limit)))
    except yaml.MarkedYAMLError as error:
        document.value = None
        line = error.problem_mark.line + 1 if error.problem_mark else None
        document.faults.append(Fault("", f"not YAML: {error.problem or error.context}", line))
    except yaml.YAMLError as error:
        document.value = None
        document.faults.append(Fault("", f"not YAML: {str(error).splitlines()[0]}"))
    return document


def escape(key: str) -> str:
    """A key as a step of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _line(event: yaml.Event) -> int | None:
    return event.start_mark.line + 1 if event.start_mark is not None else None


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._stack: list[_Open] = []
        self._nodes = 0
        self._documents = 0

    def read(self, text: str) -> None:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise _TooMuch("the file holds several documents")
                case yaml.AliasEvent():
                    self._refuse(event, "an alias (*) can't be used here: write it out")
                    if self._awaits_key():
                        self._set_key("", event)
                    else:
                        self._place(None, event)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._open(event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._stack.pop()
                case yaml.ScalarEvent():
                    self._check_markers(event)
                    self._scalar(event)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._check_markers(event)
        if len(self._stack) >= DEPTH_MAX:
            raise _TooMuch(f"nested more than {DEPTH_MAX} deep")
        content: dict[str, Plain] | list[Plain] = {} if isinstance(event, yaml.MappingStartEvent) else []
        if self._awaits_key():
            self._refuse(event, "a key must be text")
            self._set_key("", event)  # what the key holds is read past, and dropped
            pointer = self._pointer()
        else:
            pointer = self._place(content, event)
        self._stack.append(_Open(content, pointer))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if self._awaits_key():
            self._set_key(event.value, event)
            return
        if not event.implicit[0] or event.style is not None:
            self._place(event.value, event)
            return
        text = event.value
        if text in _NULL:
            self._place(None, event)
        elif text in {"true", "false"}:
            self._place(text == "true", event)
        elif _WHOLE.fullmatch(text):
            self._place(int(text), event)
        elif _FRACTIONAL.fullmatch(text) and not _LEADING_ZERO.fullmatch(text):
            self._refuse(event, f"{text} must stand in quotes: numbers here are whole")
            self._place(text, event)
        else:
            self._place(text, event)

    def _awaits_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].content, dict) and self._stack[-1].key is None

    def _set_key(self, key: str, event: yaml.Event) -> None:
        self._count()
        if len(key) > KEY_LENGTH_MAX:
            raise _TooMuch(f"a key is longer than {KEY_LENGTH_MAX} characters")
        top = self._stack[-1]
        top.key = key
        if key in top.seen:
            self._refuse(event, f"“{key}” stands here twice")
        top.seen.add(key)

    def _place(self, value: Plain, event: yaml.Event) -> str:
        self._count()
        pointer = self._pointer()
        line = _line(event)
        if line is not None:
            self._document.lines.setdefault(pointer, line)
        if not self._stack:
            self._document.value = value
            return pointer
        top = self._stack[-1]
        if isinstance(top.content, list):
            top.content.append(value)
        elif top.key is not None:
            top.content[top.key] = value
            top.key = None
        return pointer

    def _pointer(self) -> str:
        if not self._stack:
            return ""
        top = self._stack[-1]
        if isinstance(top.content, list):
            return f"{top.pointer}/{len(top.content)}"
        return f"{top.pointer}/{escape(top.key)}" if top.key is not None else top.pointer

    def _check_markers(
        self, event: yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent
    ) -> None:
        if event.anchor is not None:
            self._refuse(event, "an anchor (&) can't be used here")
        if event.tag is not None:
            self._refuse(event, "a tag (!) can't be used here")

    def _refuse(self, event: yaml.Event, message: str) -> None:
        self._document.faults.append(Fault(self._pointer(), message, _line(event)))

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _TooMuch(f"more than {NODES_MAX} values")
