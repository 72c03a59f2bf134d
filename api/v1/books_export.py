"""The general ledger as a file, for whoever takes the books elsewhere."""

import threading
from collections.abc import Iterator
from datetime import date
from itertools import chain
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from api import books_export
from api.books_export import MEDIA_TYPES, Format
from api.deps import Call, calling
from api.problems import ProblemError
from api.v1.ledger import FundCode
from api.v1.schemas import ROUTE_CLASS, Day, errors
from ledger.database import Database, Tx
from ledger.errors import InvalidInput, NotFound
from ledger.export import Totals, Wanted
from products.closing.period import funds_of

router = APIRouter(prefix="/v1/books", tags=["ledger"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("ledger:read")]

TOGETHER_MAX: Final = 2
"""Exports of one process at a time: each holds a connection for as long as it is read."""
_places: Final = threading.BoundedSemaphore(TOGETHER_MAX)


@router.get(
    "/export",
    operation_id="export_books",
    summary="Export the general ledger",
    response_class=Response,
    responses={
        200: {
            "description": "every posting behind the settled horizon, of one moment; control totals at the end",
            "content": {
                name.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
                for name in MEDIA_TYPES.values()
            },
        },
        **errors(),
    },
)
def export_books(
    call: Reading,
    format_: Annotated[Format, Query(alias="format", description="`csv` or `parquet`")] = "csv",
    from_: Annotated[Day | None, Query(alias="from", description="effective on or after this day")] = None,
    through: Annotated[Day | None, Query(description="effective on or before this day")] = None,
    fund: FundCode = None,
) -> Response:
    """The postings as a file that is sent while it is read: it is whole when it ends with its control totals."""
    wanted = Wanted(from_, through, _funds(call, fund))
    if from_ is not None and through is not None and from_ > through:
        raise InvalidInput("The first day comes after the last.", pointer="/from")
    if not _places.acquire(blocking=False):
        raise ProblemError(
            "unavailable", "Two exports are under way: try again later.", headers={"Retry-After": "30"}
        )
    name = "-".join(["general-ledger", *(str(day) for day in (from_, through) if isinstance(day, date))])
    pieces = _sent(call.services.worker, wanted, format_)
    first = next(pieces)  # begun here, it gives its place back however it ends
    return StreamingResponse(
        chain([first], pieces),
        media_type=MEDIA_TYPES[format_],
        headers={"Content-Disposition": f'attachment; filename="{name}.{format_}"'},
    )


def _sent(database: Database, wanted: Wanted, format_: Format) -> Iterator[bytes]:
    """The file, in a transaction of its own: the request's is over when the answer is sent."""
    try:
        with database.read() as tx:
            tx.exec_driver_sql("SET LOCAL statement_timeout = 0")
            yield from books_export.write(tx, wanted, format_, Totals())
    finally:
        _places.release()


def _funds(call: Call, code: str | None) -> list[UUID] | None:
    """The funds that are asked for, as far as the caller may see them; None for all."""
    programmes = call.actor.sight(["ledger:read"]).programmes
    seen = None if programmes is None else funds_of(call.tx, programmes)
    if code is None:
        return seen
    return [_fund(call.tx, code, seen)]


def _fund(tx: Tx, code: str, seen: list[UUID] | None) -> UUID:
    found: UUID | None = tx.exec_driver_sql("SELECT id FROM ledger.fund WHERE code = %s", (code,)).scalar()
    if found is None or (seen is not None and found not in seen):
        raise NotFound("There is no such fund.")
    return found
