"""Three-way reconciliation of partners and rails, and the daily first page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Generic, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.responses import Response

from api.csv_export import CSV, AsCsv, export
from api.deps import Call, calling
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit, Position
from api.v1 import reconciliation_shapes as shapes
from api.v1.first_page_shapes import FirstPageOut, first_page_out
from api.v1.reconciliation_shapes import (
    RailDayOut,
    RailDaysPage,
    ThreeWayOut,
    ThreeWayPage,
)
from api.v1.schemas import ROUTE_CLASS, Currency, Day, Page, Slug, errors
from ledger.database import Tx
from products.reconciliation import first_page as daily
from products.reconciliation import rail_days, three_way

router = APIRouter(prefix="/v1/reconciliation", tags=["reconciliation"], route_class=ROUTE_CLASS)

SCOPE = "reconciliation:read"

Item = TypeVar("Item")
Shape = TypeVar("Shape", bound=BaseModel)
Reading = Annotated[Call, calling(SCOPE)]
Since = Annotated[
    Day | None,
    Query(description=f"the first day; {three_way.DAYS_SHOWN} days before the last when left out"),
]
Through = Annotated[Day | None, Query(description="the last day; today (UTC) when left out")]
OfPartner = Annotated[Slug | None, Query(description="one partner's alone")]
OfRail = Annotated[Slug | None, Query(description="one rail's alone")]
OfProgramme = Annotated[Slug | None, Query(description="one programme's alone")]
OfFund = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[!-~]+$", description="one fund's alone", examples=["ejoheza/savers"]),
]
OfCurrency = Annotated[Currency | None, Query(description="in one currency alone")]


@router.get(
    "/three-way",
    operation_id="list_three_way",
    summary="Compare what partners announced, what they settled and what the bank shows",
    response_model=ThreeWayPage,
    responses={200: CSV, **errors()},
)
def list_three_way(
    call: Reading,
    as_csv: AsCsv,
    since: Since = None,
    through: Through = None,
    partner: OfPartner = None,
    programme: OfProgramme = None,
    fund: OfFund = None,
    currency: OfCurrency = None,
    state: Annotated[three_way.State | None, Query(description="in one state alone")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> ThreeWayPage | Response:
    """One row for each partner, fund, currency and day, the oldest first; all of one snapshot. Days are partners' business days.

    What was announced stands on the day that it was collected for. A line of the partner's that pays for nothing yet stands on the
    day on which the bank booked it.
    """
    first, last = three_way.span(since, through, call.now.date())
    asked = three_way.Asked(
        first, last, partner, programme, fund, currency, state, call.actor.sight([SCOPE]).programmes
    )
    filters = {
        "since": since, "through": through, "partner": partner, "programme": programme, "fund": fund,
        "currency": currency, "state": state,
    }  # fmt: skip
    with _whole(call) as tx:
        rows = three_way.rows(tx, call.services.clock, asked)
    paging = _Paging(call, "three_way", filters, rows, lambda row: [str(part) for part in row.key])
    if as_csv:
        return export(
            call,
            "three-way",
            ThreeWayOut,
            lambda after: paging.page(shapes.three_way_flat, LIMIT_MAX, after),
            cursor,
        )
    shown, following = paging.cut(limit, cursor)
    counts = _counts([row.currency for row in rows])
    return ThreeWayPage(
        data=[shapes.three_way_row(row) for row in shown],
        next_cursor=following,
        since=first,
        through=last,
        totals=[
            shapes.three_way_totals(of, amounts, counts[of]) for of, amounts in three_way.totals(rows).items()
        ],
    )


@router.get(
    "/payouts",
    operation_id="list_payouts_by_rail",
    summary="Compare what rails were asked, what they confirmed and what the bank shows",
    response_model=RailDaysPage,
    responses={200: CSV, **errors()},
)
def list_payouts_by_rail(
    call: Reading,
    as_csv: AsCsv,
    since: Since = None,
    through: Through = None,
    rail: OfRail = None,
    programme: OfProgramme = None,
    currency: OfCurrency = None,
    state: Annotated[rail_days.State | None, Query(description="in one state alone")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> RailDaysPage | Response:
    """One row for each rail and day on which it was asked to pay, the oldest first; all of one snapshot."""
    first, last = three_way.span(since, through, call.now.date())
    filters = {
        "since": since, "through": through, "rail": rail, "programme": programme, "currency": currency, "state": state,
    }  # fmt: skip
    with _whole(call) as tx:
        rows = rail_days.rows(
            tx,
            call.services.clock,
            first,
            last,
            rail=rail,
            programme=programme,
            currency=currency,
            state=state,
            programmes=call.actor.sight([SCOPE]).programmes,
        )
    paging = _Paging(call, "payouts_by_rail", filters, rows, lambda day: [str(day.on), day.rail])
    if as_csv:
        return export(
            call,
            "payouts-by-rail",
            RailDayOut,
            lambda after: paging.page(shapes.rail_day, LIMIT_MAX, after),
            cursor,
        )
    shown, following = paging.cut(limit, cursor)
    counts = _counts([day.currency for day in rows])
    return RailDaysPage(
        data=[shapes.rail_day(day) for day in shown],
        next_cursor=following,
        since=first,
        through=last,
        totals=[
            shapes.rail_totals(of, amounts, counts[of]) for of, amounts in rail_days.totals(rows).items()
        ],
    )


@router.get(
    "/first-page",
    operation_id="get_first_page",
    summary="Read the daily first page",
    responses=errors(),
)
def get_first_page(
    call: Reading,
    programme: OfProgramme = None,
    on: Annotated[
        Day | None,
        Query(
            description="today in each fund's time zone when left out; of a day that is past less is known"
        ),
    ] = None,
) -> FirstPageOut:
    """What is there, what is owed and what needs a hand today, for each fund and currency; all of one snapshot.

    Every figure has a `link` to the accounts, transactions or rows that it is made of.
    """
    with _whole(call) as tx:
        page = daily.first_page(
            tx,
            call.services.books,
            programme=programme,
            on=on,
            programmes=call.actor.sight([SCOPE]).programmes,
        )
    return first_page_out(page)


@contextmanager
def _whole(call: Call) -> Iterator[Tx]:
    """One snapshot of every row: sums would be wrong where policies leave rows out, so queries name the programmes instead."""
    with call.services.worker.read() as tx:
        yield tx


class _Paging(Generic[Item]):
    """Rows that are all there, page by page: by the key that sorts them."""

    def __init__(
        self,
        call: Call,
        route: str,
        filters: Mapping[str, object],
        rows: Sequence[Item],
        key: Callable[[Item], list[str]],
    ) -> None:
        self._call, self._route, self._filters = call, route, filters
        self._rows, self._key = rows, key

    def cut(self, limit: int, cursor: str | None) -> tuple[Sequence[Item], str | None]:
        """The rows behind a cursor, and the cursor behind them."""
        at = self._call.read_cursor(cursor, self._route, **self._filters)
        rest = [row for row in self._rows if at is None or self._key(row) > [str(part) for part in at]]
        last: Position | None = [*self._key(rest[limit - 1])] if len(rest) > limit else None
        return rest[:limit], self._call.write_cursor(last, self._route, **self._filters)

    def page(self, shown: Callable[[Item], Shape], limit: int, cursor: str | None) -> Page[Shape]:
        """The same as a page."""
        rows, following = self.cut(limit, cursor)
        return Page(data=[shown(row) for row in rows], next_cursor=following)


def _counts(currencies: Sequence[str]) -> dict[str, int]:
    return {one: currencies.count(one) for one in set(currencies)}
