"""Which format a file is in, told by its first bytes; its name and its media type are nobody's word."""

import codecs
import re
from typing import Final

from integrations.bank_statements.camt053 import OTHER_MESSAGES
from integrations.bank_statements.canonical import Format, UnknownFormat

HEAD_BYTES: Final = 64 * 1024
"""What `detect` looks at."""

_SIGNATURES: Final = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet (XLSX); save the sheet as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet (XLS); save the sheet as CSV"),
    (b"\x1f\x8b", "a compressed file (gzip); unpack it"),
    (b"7z\xbc\xaf", "an archive (7z); unpack it"),
    (b"Rar!", "an archive (RAR); unpack it"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"PAR1", "a Parquet file"),
    (b"{\\rtf", "a text document (RTF)"),
)
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SWIFT_BLOCK = re.compile(r"\{1:[A-Z0-9]{3}")
_SWIFT_TYPE = re.compile(r"\{2:[IO]([0-9]{3})")
_MT940_FIELDS = re.compile(r"^:(?:25P?|28C?|60[FM]|61|62[FM]):", re.MULTILINE)
_CAMT = re.compile(r"camt\.053\.|<(?:[\w.-]+:)?BkToCstmrStmt[\s>/]")
_OTHER_CAMT = re.compile(r"\b((?:camt|pain|pacs|head)\.[0-9]{3})\.[0-9]{3}\.[0-9]{2}")
_OTHER_ROOT = re.compile(r"<(?:[\w.-]+:)?(" + "|".join(OTHER_MESSAGES) + r")[\s>/]")
_MESSAGES: Final = {named.split(",", 1)[0]: named for named in OTHER_MESSAGES.values()}


def byte_order(head: bytes) -> tuple[str, int] | None:
    """The encoding that a byte order mark tells, and the mark's length; or UTF-16 without a mark, told by its zeros."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    sample = head[:256]
    half = len(sample) // 2
    if half >= 2:
        even, odd = sample[0 : 2 * half : 2].count(0), sample[1 : 2 * half : 2].count(0)
        if odd > half * 0.7 and even == 0:
            return "utf-16-le", 0
        if even > half * 0.7 and odd == 0:
            return "utf-16-be", 0
    return None


def detect(head: bytes) -> Format:
    """The format of a file that begins with these bytes. Raises `UnknownFormat`, saying what else it is where that is known."""
    if not head.strip():
        raise UnknownFormat("The file is empty.")
    for signature, named in _SIGNATURES:
        if head.startswith(signature):
            raise UnknownFormat(f"This is {named}; statements are read from camt.053, MT940 and CSV.")
    order = byte_order(head)
    encoding, skipped = order or ("utf-8", 0)
    text = head[skipped:HEAD_BYTES].decode(encoding, "replace").lstrip()
    if text.startswith("<"):
        return _xml(text)
    if _SWIFT_BLOCK.match(text) or _begins_mt940(text):
        kind = _SWIFT_TYPE.search(text)
        if kind is not None and kind[1] != "940":
            raise UnknownFormat(
                f"This is an MT{kind[1]}; of SWIFT's messages statements are read from MT940."
            )
        return Format.MT940
    if text.startswith(("OFXHEADER", "!Type:", "{", "[")):
        named = {"O": "an OFX file", "!": "a QIF file"}.get(text[0], "JSON")
        raise UnknownFormat(f"This is {named}; statements are read from camt.053, MT940 and CSV.")
    if _looks_like_a_table(text):
        return Format.CSV
    raise UnknownFormat(
        "This is no bank statement: neither camt.053 nor MT940, and no table as CSV has them."
    )


def _xml(text: str) -> Format:
    if _CAMT.search(text):
        return Format.CAMT053
    other = _OTHER_ROOT.search(text)
    if other is not None:
        raise UnknownFormat(f"This is {OTHER_MESSAGES[other[1]]}; statements are read from camt.053.")
    message = next((one[1] for one in _OTHER_CAMT.finditer(text) if not one[1].startswith("head.")), None)
    if message is not None:
        raise UnknownFormat(f"This is {_MESSAGES.get(message, message)}; statements are read from camt.053.")
    folded = text[:2_000].lower()
    if "<html" in folded or "<!doctype html" in folded:
        raise UnknownFormat("This is a web page; maybe the download needed a log-in.")
    if "<ofx" in folded:
        raise UnknownFormat("This is an OFX file; statements are read from camt.053, MT940 and CSV.")
    raise UnknownFormat("This is XML, but no camt.053.")


def _begins_mt940(text: str) -> bool:
    """Some banks put lines of their own before the first field."""
    lines = "\n".join(text.splitlines()[:60])
    return re.search(r"^:20:", lines, re.MULTILINE) is not None and _MT940_FIELDS.search(lines) is not None


def _looks_like_a_table(text: str) -> bool:
    if "\x00" in text or sum(not one.isprintable() and not one.isspace() for one in text) * 50 > len(text):
        return False
    lines = [line for line in text.splitlines()[:200] if line.strip()]
    return any(sum(mark in line for line in lines) * 2 >= max(len(lines), 1) for mark in ",;\t|")
