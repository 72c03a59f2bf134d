"""A file as a stream of bytes with bounds and progress, and as lines of text in the encoding that it turns out to have."""

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO, Final

from charset_normalizer import from_bytes

from integrations.bank_statements.canonical import InvalidStatement, Progress
from integrations.bank_statements.detect import HEAD_BYTES, byte_order

BYTES_MAX: Final = 1024**3
LINE_CHARACTERS_MAX: Final = 64 * 1024
_CHUNK: Final = 64 * 1024

_SAMPLE_BYTES: Final = 16 * 1024
WESTERN: Final = "cp1252"
_CANDIDATES: Final = [
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1256", "cp1257", "cp1258"),
    *("iso8859_2", "iso8859_5", "iso8859_7", "iso8859_9", "iso8859_15", "cp850", "cp852", "cp437"),
]
"""Encodings of one byte that banks write, as charset-normalizer names them."""


class Source:
    """A stream whose head was looked at. Not to be read twice."""

    def __init__(self, stream: BinaryIO, progress: Progress | None = None) -> None:
        self._stream = stream
        self._progress = progress
        self._read = 0
        self.head = self._take(HEAD_BYTES)

    def chunks(self) -> Iterator[bytes]:
        """All bytes, from the first on."""
        chunk = self.head
        while chunk:
            self._read += len(chunk)
            if self._read > BYTES_MAX:
                raise InvalidStatement(f"the file has more than {BYTES_MAX} bytes")
            yield chunk
            if self._progress is not None:
                self._progress(self._read)
            chunk = self._take(_CHUNK)

    def _take(self, wanted: int) -> bytes:
        """As many bytes as wanted, fewer only at the end, whatever pieces the stream gives."""
        pieces: list[bytes] = []
        while wanted > 0:
            piece = self._stream.read(wanted)
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def lines(self, encoding: str | None = None) -> Iterator[str]:
        r"""The lines, each with its end as ``\n``. Raises `InvalidStatement` where they are not in the encoding.

        An encoding that is told counts; beside it only a byte order mark does. Where none is told: UTF-8, or UTF-16 by its zeros,
        or, if the first bytes beyond ASCII are no UTF-8, what charset-normalizer finds most likely in what surrounds them.
        """
        rest = ""
        number = 0
        for text in self._texts(encoding):
            if "\x00" in text:
                raise InvalidStatement(
                    "there are NUL bytes in it: it is no text", where=f"after line {number}"
                )
            *lines, rest = (rest + text).split("\n")
            number += len(lines)
            if len(rest) > LINE_CHARACTERS_MAX or any(len(line) > LINE_CHARACTERS_MAX for line in lines):
                raise InvalidStatement(
                    f"a line has more than {LINE_CHARACTERS_MAX} characters", where=f"near line {number + 1}"
                )
            for line in lines:
                yield line + "\n"
        if rest:
            yield rest

    def _texts(self, told: str | None) -> Iterator[str]:
        order = byte_order(self.head) if told is None else None
        if told is not None and codecs.lookup(told).name in ("utf-8", "utf-16"):
            order = byte_order(self.head)
            order = order if order and order[0].startswith(codecs.lookup(told).name) else (told, 0)
        skipped = order[1] if order else 0
        encoding = order[0] if order else told
        decoder: codecs.IncrementalDecoder | None = None
        ends = io.IncrementalNewlineDecoder(None, translate=True)
        number = 0
        for chunk in self.chunks():
            content, skipped = chunk[skipped:], 0
            if decoder is None and (encoding is not None or not content.isascii()):
                encoding = encoding or _likely(content)
                decoder = codecs.getincrementaldecoder(encoding)()
            try:
                text = ends.decode(content.decode("ascii") if decoder is None else decoder.decode(content))
            except UnicodeError:
                raise InvalidStatement(f"it is not {encoding}", where=f"after line {number}") from None
            number += text.count("\n")
            yield text
        try:
            yield ends.decode(decoder.decode(b"", True) if decoder is not None else "", final=True)
        except UnicodeError:
            raise InvalidStatement(
                f"it ends within a character of {encoding}", where=f"after line {number}"
            ) from None


def _likely(content: bytes) -> str:
    """The encoding of bytes that are not all ASCII; they may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeError:
        first = next(index for index, byte in enumerate(content) if byte > 127)
        sample = content[max(0, first - _SAMPLE_BYTES // 2) : first + _SAMPLE_BYTES]
        matches = from_bytes(sample, cp_isolation=_CANDIDATES)
        best = matches.best()
        # A few letters with marks look as good in several encodings: then it is the one that most banks write.
        as_good = [one for one in matches if best is not None and one.chaos <= best.chaos]
        if best is None or any(WESTERN in one.could_be_from_charset for one in as_good):
            return WESTERN
        return best.encoding
    return "utf-8"
