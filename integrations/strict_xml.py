"""XML from outside, read so that it can do nothing but be read: no entities, no DTD, no network, and bounded in every way.

Documents are looked at by the local names of their elements, as banks answer in whatever version of a message they speak.
"""

import time
from collections.abc import Iterator
from typing import Final

from lxml import etree

BYTES_MAX: Final = 16 * 1024 * 1024
DEPTH_MAX: Final = 32
ELEMENTS_MAX: Final = 300_000
SECONDS_MAX: Final = 10.0
_CHUNK: Final = 64 * 1024

Element = etree._Element


class NotStrictXml(ValueError):
    """The bytes are not XML that is read here. The message says what is wrong, without quoting the document."""


def loads(body: bytes) -> Element:
    """The root element of `body`, without comments and processing instructions. Raises `NotStrictXml`.

    Refused: what is not well-formed, any document type declaration (so any entity beside the five of XML), nesting over 32
    levels, over 300,000 elements, over 16 MiB, and what takes longer than 10 seconds.
    """
    if len(body) > BYTES_MAX:
        raise NotStrictXml(f"it has more than {BYTES_MAX} bytes")
    parser = etree.XMLPullParser(
        events=("start", "end"),
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    until = time.monotonic() + SECONDS_MAX
    depth = elements = 0
    try:
        for start in range(0, len(body), _CHUNK):
            parser.feed(body[start : start + _CHUNK])
            for event, element in parser.read_events():
                if event == "end":
                    depth -= 1
                    continue
                depth += 1
                elements += 1
                if elements == 1 and _is_declared(element):
                    raise NotStrictXml("it has a document type declaration")
                if depth > DEPTH_MAX:
                    raise NotStrictXml(f"it is nested more than {DEPTH_MAX} levels deep")
                if elements > ELEMENTS_MAX:
                    raise NotStrictXml(f"it has more than {ELEMENTS_MAX} elements")
            if time.monotonic() > until:
                raise NotStrictXml(f"reading it takes longer than {SECONDS_MAX:.0f} seconds")
        root = parser.close()
    except etree.XMLSyntaxError as error:
        line, column = error.position
        raise NotStrictXml(f"it is not well-formed at line {line}, column {column}") from None
    if root is None:
        raise NotStrictXml("it is empty")
    return root


def _is_declared(root: object) -> bool:
    """Whether the document has a document type declaration; its entities are not resolved in any case."""
    return isinstance(root, etree._Element) and bool(root.getroottree().docinfo.doctype)  # type: ignore[attr-defined]  # missing in the stubs


def name(element: Element) -> str:
    """The element's name without its namespace."""
    tag = element.tag
    return etree.QName(tag).localname if isinstance(tag, str) else ""


def children(element: Element, *path: str) -> Iterator[Element]:
    """The elements at a path of local names below `element`, in the document's order."""
    if not path:
        yield element
        return
    for child in element:
        if name(child) == path[0]:
            yield from children(child, *path[1:])


def child(element: Element, *path: str) -> Element | None:
    """The first element at a path of local names."""
    return next(children(element, *path), None)


def text_at(element: Element, *path: str) -> str | None:
    """The text of the first element at a path, without space around it; None where there is none."""
    found = child(element, *path)
    return (found.text or "").strip() or None if found is not None else None


def first(*elements: Element | None) -> Element | None:
    """The first that is there; elements are not compared by truth, as one without children counts as false."""
    return next((one for one in elements if one is not None), None)
