"""The general ledger as a file: CSV (RFC 4180) or Parquet, written while it is read, with its control totals at the end.

The totals are a last line of CSV that begins with ``#``, and the key ``mizan`` of the Parquet file's metadata. A file without
them was cut off.
"""

import io
import json
from collections.abc import Iterator
from typing import IO, Any, Final, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.database import Tx
from ledger.export import COLUMNS, Totals, Wanted, batches, lines

Format = Literal["csv", "parquet"]

MEDIA_TYPES: Final[dict[Format, str]] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "parquet": "application/vnd.apache.parquet",
}
METADATA_KEY: Final = "mizan"
TRAILER: Final = "# "

_SCHEMA: Final = pa.schema(
    [
        pa.field(name, kind, nullable=name in ("reverses", "belongs_on"))
        for name, kind in zip(
            COLUMNS,
            (
                *(
                    pa.string(),
                    pa.int16(),
                    pa.string(),
                    pa.string(),
                    pa.date32(),
                    pa.timestamp("us", tz="UTC"),
                ),
                *[pa.string()] * 7,
                *(pa.int64(), pa.string(), pa.string(), pa.string()),
            ),
            strict=True,
        )
    ]
)


def write(tx: Tx, wanted: Wanted, format_: Format, totals: Totals) -> Iterator[bytes]:
    """The file, piece by piece; ``totals`` grow with it and are in its end."""
    return _csv(tx, wanted, totals) if format_ == "csv" else _parquet(tx, wanted, totals)


def _csv(tx: Tx, wanted: Wanted, totals: Totals) -> Iterator[bytes]:
    yield (",".join(COLUMNS) + "\r\n").encode()
    for rows in batches(tx, wanted):
        written = lines(rows)
        totals.add(rows, written)
        yield written
    yield f"{TRAILER}{json.dumps(totals.to_json())}\r\n".encode()


def _parquet(tx: Tx, wanted: Wanted, totals: Totals) -> Iterator[bytes]:
    pipe = _Pipe()
    with pq.ParquetWriter(cast("IO[bytes]", pipe), _SCHEMA, compression="zstd") as writer:
        for rows in batches(tx, wanted):
            totals.add(rows, lines(rows))
            columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(columns, schema=_SCHEMA))
            yield pipe.taken()
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(totals.to_json())})
    yield pipe.taken()


class _Pipe(io.RawIOBase):
    """What is written to it is taken away by whoever sends it on."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, piece: Any) -> int:  # whatever has a buffer
        """Keep a piece until it is taken."""
        content = bytes(piece)
        self._pieces.append(content)
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        """How much was written: a file's footer points back at what is before it."""
        return self._written

    def taken(self) -> bytes:
        """What was written since it was last asked."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
