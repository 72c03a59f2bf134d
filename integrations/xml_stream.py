"""XML from outside read in a stream: no tree, no entities, no DTD, no network, and bounded in every way.

`strict_xml` is for documents of some megabytes that are looked at as a whole; here a handler is told of each element as it starts
and ends, so that what is kept is the handler's choice, however long the document is.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

from lxml import etree

from integrations.strict_xml import DEPTH_MAX, NotStrictXml

ATTRIBUTES_MAX: Final = 64
ATTRIBUTE_CHARACTERS_MAX: Final = 4_096
TEXT_CHARACTERS_MAX: Final = 1024 * 1024
"""Of one element; libxml2 itself holds no more than 10 MB of one token."""
SECONDS_MAX: Final = 900.0
"""Of parsing; the time that the document's reader takes does not count."""
NAMES_MAX: Final = 2_000
"""Different names of elements, attributes and namespaces: libxml2 keeps each of them until the end."""


class Handler(Protocol):
    """Told of elements by local name. What it raises ends the reading."""

    def start(self, name: str, namespace: str, attributes: Mapping[str, str]) -> None:
        """An element starts; its attributes are by their names as written, so mostly without a namespace."""

    def end(self, name: str, text: str) -> None:
        """An element ends, with the text since the last tag: all of it, where the element has no children."""


def parse(chunks: Iterable[bytes], handler: Handler) -> Iterator[None]:
    """Feed the handler chunk by chunk; yields after each, so that the caller can give on what was gathered so far.

    Raises `NotStrictXml` for what is not well-formed or cut off, any document type declaration (so any entity beside the five
    of XML), more than 32 levels, over 2,000 different names, and attributes or texts beyond their bounds.
    """
    target = _Target(handler)
    parser = etree.XMLParser(
        target=target,  # type: ignore[arg-type]  # the stubs ask for comment(), and know text as bytes too
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    spent = 0.0
    blank = True
    ended = False
    try:
        for chunk in chunks:
            # Some banks' files begin with empty lines, which XML does not allow before its declaration.
            content = chunk.lstrip() if blank else chunk
            blank = blank and not content
            if content:
                began = time.monotonic()
                parser.feed(content)
                spent += time.monotonic() - began
            if spent > SECONDS_MAX:
                raise NotStrictXml(f"reading it takes longer than {SECONDS_MAX:.0f} seconds")
            yield
        if blank:
            raise NotStrictXml("it is empty")
        ended = True
        parser.close()
        yield
    except etree.XMLSyntaxError as error:
        line, column = error.position
        what = "cut off" if ended and target.depth > 0 else "not well-formed"
        if error.code == etree.ErrorTypes.ERR_INVALID_ENCODING:  # type: ignore[attr-defined]  # the stubs lack it
            what = "not in the encoding that it declares (UTF-8, where it declares none)"
        raise NotStrictXml(f"it is {what} at line {line}, column {column}") from None


class _Target:
    """What lxml calls while it parses."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._names: dict[str, tuple[str, str]] = {}
        self._attributes: set[str] = set()
        self._namespaces: set[str] = set()
        self._text: list[str] = []
        self._characters = 0
        self.depth = 0

    def doctype(self, _name: str, _public: str | None, _system: str | None) -> None:
        raise NotStrictXml("it has a document type declaration")

    def start_ns(self, prefix: str, uri: str) -> None:
        self._namespaces.add(f"{prefix}={uri}")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        if len(self._names) + len(self._attributes) + len(self._namespaces) > NAMES_MAX:
            raise NotStrictXml(f"it has more than {NAMES_MAX} different names")
        if self.depth > DEPTH_MAX:
            raise NotStrictXml(f"it is nested more than {DEPTH_MAX} levels deep")
        if attributes:
            if len(attributes) > ATTRIBUTES_MAX:
                raise NotStrictXml(f"an element has more than {ATTRIBUTES_MAX} attributes")
            self._attributes.update(attributes)
            if any(len(value) > ATTRIBUTE_CHARACTERS_MAX for value in attributes.values()):
                raise NotStrictXml(f"an attribute has more than {ATTRIBUTE_CHARACTERS_MAX} characters")
        if self._text:
            self._text = []
        self._characters = 0
        found = self._names.get(tag) or self._split(tag)
        self._handler.start(found[0], found[1], attributes)

    def data(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > TEXT_CHARACTERS_MAX:
            raise NotStrictXml(f"an element has more than {TEXT_CHARACTERS_MAX} characters of text")
        self._text.append(text)

    def end(self, tag: str) -> None:
        self.depth -= 1
        text = "".join(self._text).strip() if self._text else ""
        self._text = []
        self._characters = 0
        self._handler.end((self._names.get(tag) or self._split(tag))[0], text)

    def close(self) -> None:
        """All was said to the handler already."""

    def _split(self, tag: str) -> tuple[str, str]:
        namespace, _, name = tag.rpartition("}")
        found = name, namespace[1:]
        self._names[tag] = found
        return found
