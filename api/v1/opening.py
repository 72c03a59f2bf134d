"""Opening balances: loads of spreadsheets, staged, posted, taken back until they are final."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api import opening, uploads
from api.approvals import opening as requests
from api.approvals.service import origin_of
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.approvals import ApprovalOut, shown_out
from api.v1.schemas import REPLAYED, ROUTE_CLASS, Day, In, Instant, MoneyOut, Out, Page, Slug, Text, errors
from ledger.errors import NotFound
from ledger.ids import parse_public_id, public_id
from products.opening import load
from products.opening.load import PREFIX, Load

router = APIRouter(tags=["opening"], route_class=ROUTE_CLASS)

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

Reading = Annotated[Call, calling("periods:read")]
Writing = Annotated[Call, writing("periods:write")]
LoadId = Annotated[str, Path(max_length=64, examples=[f"opn_{'0' * 26}"])]


class OpeningLoadOut(Out):
    """A file of opening balances; `done` of its `batches` stand in the books."""

    id: Annotated[str, Field(examples=[f"opn_{'0' * 26}"])]
    programme: str
    name: str
    sha256: Annotated[str, Field(description="of the file and its day")]
    effective_on: Day
    rows: int
    batches: int
    done: int
    state: Literal["loaded", "committing", "committed", "final", "taking_back", "taken_back"]
    loaded_at: Instant


class OpeningTotalOut(Out):
    """What a load's rows of one account code come to. Not `posted`: it is told, and stands elsewhere in the file."""

    fund: str
    code: str
    rows: int
    side: Literal["debit", "credit"]
    amount: MoneyOut
    posted: bool


class OpeningControlOut(Out):
    """A fund's migration control account, credit positive: what this load leaves there, and what is there now."""

    fund: str
    of_load: MoneyOut
    now: MoneyOut


class OpeningPreviewOut(OpeningLoadOut):
    """A load with what it comes to. `duplicate`: the same file was loaded before."""

    duplicate: bool
    totals: list[OpeningTotalOut]
    control: list[OpeningControlOut]


class OpeningRequestIn(In):
    """Why a load is posted, or taken back."""

    remark: Text


@router.post(
    uploads.OPENING_LOADS,
    operation_id="load_opening_balances",
    summary="Load a file of opening balances",
    status_code=201,
    openapi_extra=uploads.described(MEDIA_TYPE, "the spreadsheet (XLSX), or CSV"),
    responses=errors(),
)
def load_opening_balances(
    call: Writing,
    programme: Annotated[Slug, Query(description="the programme whose books are opened")],
    effective_on: Annotated[Day, Query(description="the day at whose end the balances stood")],
    name: Annotated[str, Query(max_length=200, description="the file's name")] = "opening balances",
) -> OpeningPreviewOut:
    """Keep a file if it has no fault; nothing is posted. The first faults are told by sheet and cell."""
    found, new = opening.stage(
        call.tx,
        call.services.books,
        uploads.content(call),
        programme=programme,
        name=name,
        effective_on=effective_on,
        by=call.actor.id,
        programmes=_sight(call),
    )
    call.audit("opening.loaded", found.public_id, programme_id=found.programme_id, duplicate=not new)
    return _preview(call, found, duplicate=not new)


@router.get(
    uploads.OPENING_LOADS,
    operation_id="list_opening_loads",
    summary="List loads of opening balances",
    responses=errors(),
)
def list_opening_loads(
    call: Reading, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[OpeningLoadOut]:
    """Loads, the newest first."""
    at = call.read_cursor(cursor, "opening-loads")
    before = parse_public_id(PREFIX, str(at[0])) if at else None
    rows = load.loads(call.tx, before=before, limit=limit + 1)
    last: list[int | str] | None = [rows[limit - 1].public_id] if len(rows) > limit else None
    return Page(
        data=[OpeningLoadOut(**_fields(one)) for one in rows[:limit]],
        next_cursor=call.write_cursor(last, "opening-loads"),
    )


@router.get(
    f"{uploads.OPENING_LOADS}/{{opening}}",
    operation_id="get_opening_load",
    summary="Preview a load of opening balances",
    responses=errors(),
)
def get_opening_load(opening: LoadId, call: Reading) -> OpeningPreviewOut:
    """A load, what its rows come to, and where the migration control accounts end."""
    return _preview(call, load.by_id(call.tx, path_id(PREFIX, opening)), duplicate=False)


@router.post(
    f"{uploads.OPENING_LOADS}/{{opening}}/commit",
    operation_id="request_opening_commit",
    summary="Ask for a load to be posted",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_opening_commit(
    opening: LoadId, body: OpeningRequestIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Ask for a load to be posted, in the background, when another manager approves."""
    return _asked(call, requests.COMMIT, "request_opening_commit", opening, body, idempotency_key)


@router.post(
    f"{uploads.OPENING_LOADS}/{{opening}}/take-back",
    operation_id="request_opening_take_back",
    summary="Ask for a load to be taken back",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_opening_take_back(
    opening: LoadId, body: OpeningRequestIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Ask for a load to be taken back whole, by reversals, when another manager approves. Not one that is final."""
    return _asked(call, requests.TAKE_BACK, "request_opening_take_back", opening, body, idempotency_key)


@router.post(
    f"{uploads.OPENING_LOADS}/{{opening}}/final",
    operation_id="finalise_opening_load",
    summary="Make a load final",
    response_model=OpeningPreviewOut,
    responses={200: REPLAYED, **errors(409)},
)
def finalise_opening_load(opening: LoadId, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Make a committed load final, if the migration control accounts are at zero; if not, by how much is told."""

    def work() -> tuple[int, OpeningPreviewOut]:
        found = _seen(call, opening)
        done = load.finalise(call.tx, found.id, by=call.actor.id, clock=call.services.clock)
        call.audit("opening.final", done.public_id, programme_id=done.programme_id)
        return 200, _preview(call, done, duplicate=False)

    return call.once(idempotency_key, "finalise_opening_load", work)


def _asked(
    call: Call,
    kind: Literal["opening_commit", "opening_take_back"],
    operation: str,
    opening: str,
    body: OpeningRequestIn,
    key: str | None,
) -> Response:
    return call.once(
        key,
        operation,
        lambda: (
            202,
            shown_out(
                requests.request(
                    call.tx,
                    call.services,
                    call.actor,
                    kind,
                    _seen(call, opening).public_id,
                    body.remark,
                    origin=origin_of(call),
                )
            ),
        ),
    )


def _sight(call: Call) -> frozenset[UUID] | None:
    """The programmes whose books the caller may open; row-level security does not hold for who writes."""
    return call.actor.sight(["periods:write"]).programmes


def _seen(call: Call, opening: str) -> Load:
    found = load.by_id(call.tx, path_id(PREFIX, opening))
    programmes = _sight(call)
    if programmes is not None and found.programme_id not in programmes:
        raise NotFound("There is no such load of opening balances.")
    return found


def _fields(one: Load) -> dict[str, object]:
    return {
        "id": public_id(PREFIX, one.id),
        "programme": one.programme,
        "name": one.name,
        "sha256": one.digest.hex(),
        "effective_on": one.effective_on,
        "rows": one.rows,
        "batches": one.batches,
        "done": one.done,
        "state": one.state,
        "loaded_at": one.loaded_at,
    }


def _preview(call: Call, found: Load, *, duplicate: bool) -> OpeningPreviewOut:
    return OpeningPreviewOut(
        **_fields(found),
        duplicate=duplicate,
        totals=[
            OpeningTotalOut(
                fund=one.fund,
                code=one.code,
                rows=one.rows,
                side="debit" if one.debit else "credit",
                amount=MoneyOut.of(one.amount, one.currency),
                posted=one.posted,
            )
            for one in load.totals(call.tx, found.id)
        ],
        control=[
            OpeningControlOut(
                fund=one.fund,
                of_load=MoneyOut.of(one.of_load, one.currency),
                now=MoneyOut.of(one.now, one.currency),
            )
            for one in load.controls(call.tx, found.id)
        ],
    )
