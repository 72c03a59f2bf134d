"""Lists as CSV (RFC 4180), for spreadsheets: ``?format=csv``, or ``Accept: text/csv``.

No cell is run by a spreadsheet (`api.cells`). Columns are the
fields of the JSON, with a dot between the levels; money is in minor units beside its currency.

An export goes on over the pages of a list, up to `ROWS_MAX`; when there are more, ``Link: <…>; rel="next"`` leads on.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from fastapi import Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.cells import cell
from api.deps import Call
from api.v1.schemas import Page

MEDIA_TYPE: Final = "text/csv"
ROWS_MAX: Final = 10_000
"""Rows of one answer at most."""

Item = TypeVar("Item", bound=BaseModel)


def _asked(
    request: Request,
    format_: Annotated[
        Literal["json", "csv"] | None,
        Query(alias="format", description="`csv`: as a file for spreadsheets; so does `Accept: text/csv`"),
    ] = None,
) -> bool:
    if format_ is not None:
        return format_ == "csv"
    first = request.headers.get("accept", "").partition(",")[0]
    return first.partition(";")[0].strip().lower() == MEDIA_TYPE


AsCsv = Annotated[bool, Depends(_asked)]
"""Whether the caller wants a list as CSV."""

CSV: Final[dict[str, Any]] = {
    "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    "headers": {
        "Link": {
            "description": 'CSV only: `<…>; rel="next"`, where the export goes on',
            "schema": {"type": "string"},
        },
        "Content-Disposition": {
            "description": "CSV only: the file's name",
            "schema": {"type": "string"},
        },
    },
}
"""For a route's `responses`, under 200: that it also answers as CSV."""


def export(
    call: Call, name: str, item: type[Item], page: Callable[[str | None], Page[Item]], cursor: str | None
) -> Response:
    """The list of `item` from `cursor` on, as the file `name`.csv; `page` gives the page at a cursor."""
    rows: list[Item] = []
    while True:
        found = page(cursor)
        rows += found.data
        cursor = found.next_cursor
        if cursor is None or len(rows) >= ROWS_MAX:
            break
    answer = file(name, columns(item), (row for one in rows for row in flat(one)))
    if cursor is not None:
        there = call.request.url.include_query_params(cursor=cursor)
        link = f"{call.services.settings.public_url}{there.path}?{there.query}"
        answer.headers["Link"] = f'<{link}>; rel="next"'
    return answer


def file(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """Rows under a header, as a file to keep."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([cell(value) for value in row] for row in rows)
    return Response(
        text.getvalue().encode(),
        media_type=f"{MEDIA_TYPE}; charset=utf-8; header=present",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def columns(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The columns of a model: its fields, those of models within it dotted; a list of models gives each a row."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        within = _model_in(field.annotation)
        if within is None:
            found.append(f"{prefix}{name}")
        else:
            found += columns(within, f"{prefix}{name}.")
    return found


def flat(one: BaseModel) -> Iterator[list[object]]:
    """The rows of a model: one, or one for each item of the list of models within it."""
    rows: list[list[object]] = [[]]
    for name, field in type(one).model_fields.items():
        value = getattr(one, name)
        within = _model_in(field.annotation)
        if within is None:
            parts: list[list[object]] = [[value]]
        elif isinstance(value, list):
            parts = [row for item in value for row in flat(item)] or [[None] * len(columns(within))]
        elif value is None:
            parts = [[None] * len(columns(within))]
        else:
            parts = list(flat(value))
        rows = [[*row, *part] for row in rows for part in parts]
    yield from rows


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation: itself, optional, or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, UnionType, Annotated):
        for part in get_args(annotation):
            within = _model_in(part)
            if within is not None:
                return within
    return None
