"""Breaks: what does not tie between the bank, the partners and the books, and how people end it."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from starlette.responses import Response

from api.approvals import breaks as approvals
from api.approvals.breaks import BREAK, RESOLUTION
from api.approvals.service import origin_of
from api.csv_export import CSV, AsCsv, export
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit
from api.v1.approvals import ApprovalOut, shown_out
from api.v1.break_shapes import (
    AssignmentIn,
    BreakConfirmationIn,
    BreakDetailOut,
    BreakLimitIn,
    BreakLimitOut,
    BreakOut,
    BreakResolutionIn,
    LearningIn,
    ResolutionOut,
    SuggestionsOut,
    UndoingIn,
    break_out,
    details_out,
    event_out,
    fields,
    item_out,
    line_out,
    resolution_out,
    suggestion_out,
)
from api.v1.finding import require_programme
from api.v1.schemas import REPLAYED, ROUTE_CLASS, Currency, MoneyOut, Page, Slug, Text, errors
from ledger.errors import InvalidInput, NotFound
from ledger.ids import public_id
from ledger.reconciliation import reading
from ledger.reconciliation.sealing import LineText
from products.programmes.registry import find
from products.programmes.registry import unknown as unknown_programme
from products.reconciliation.breaks import limits, queries, resolve
from products.reconciliation.breaks.queries import Break, Filters, Sort, State
from products.reconciliation.breaks.suggestions import learn, suggestions
from products.reconciliation.breaks.typing import BreakType
from products.remittances import partners

router = APIRouter(tags=["reconciliation"], route_class=ROUTE_CLASS)

UNKNOWN: Final = "There is no such break."
SCOPE: Final = "reconciliation:write"
LIMITS: Final = "limits:write"
Reading = Annotated[Call, calling("reconciliation:read")]
Writing = Annotated[Call, writing(SCOPE)]
Limiting = Annotated[Call, writing(LIMITS)]
BreakId = Annotated[
    str, Path(max_length=64, description="a break's id, `brk_…`", examples=[f"{BREAK}_{'0' * 26}"])
]
ResolutionId = Annotated[
    str, Path(max_length=64, description="a resolution's id, `brs_…`", examples=[f"{RESOLUTION}_{'0' * 26}"])
]
ProgrammeSlug = Annotated[Slug, Path(description="the programme's name", examples=["ejoheza"])]


@router.get(
    "/v1/breaks",
    operation_id="list_breaks",
    summary="List breaks",
    response_model=Page[BreakOut],
    responses={200: CSV, **errors()},
)
def list_breaks(
    call: Reading,
    as_csv: AsCsv,
    type: Annotated[  # noqa: A002  the parameter's published name
        list[BreakType] | None, Query(max_length=17, description="only those of these types")
    ] = None,
    state: Annotated[
        list[State] | None, Query(max_length=4, description="`open` and `waiting` when left out")
    ] = None,
    programme: Annotated[Slug | None, Query(description="only this programme's")] = None,
    bank_account: Annotated[Slug | None, Query(description="only this bank account's")] = None,
    fund: Annotated[Text | None, Query(description="only this fund's", examples=["ejoheza/savers"])] = None,
    partner: Annotated[Slug | None, Query(description="only this partner's")] = None,
    owner: Annotated[Text | None, Query(description="only those assigned to this one")] = None,
    currency: Annotated[Currency | None, Query(description="only those in this currency")] = None,
    older_than: Annotated[
        int | None, Query(ge=0, le=36_600, description="only those of more than so many days")
    ] = None,
    sort: Annotated[
        Sort, Query(description="`value`: by currency, the largest first; `age`: the oldest first")
    ] = "value",
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[BreakOut] | Response:
    """Breaks by value or by age. Values of two currencies are never compared: each currency is a list of its own."""
    filters = Filters(
        types=sorted(set(type or ())),
        states=sorted(set(state or ("open", "waiting"))),
        programme=programme,
        bank_account=bank_account,
        fund=fund,
        partner=partner,
        owner=owner,
        currency=currency,
        older_than=older_than,
    )
    of: dict[str, Any] = {"filters": repr(filters), "sort": sort}

    def page(limit: int, cursor: str | None) -> Page[BreakOut]:
        at = call.read_cursor(cursor, "breaks", **of)
        after = (str(at[0]), int(at[1]), UUID(str(at[2]))) if at else None
        rows = queries.breaks(call.tx, call.services.clock, filters, sort=sort, after=after, limit=limit + 1)
        shown = rows[:limit]
        first, second, last = queries.place(shown[-1], sort) if len(rows) > limit else ("", 0, None)
        return Page(
            data=[break_out(one) for one in shown],
            next_cursor=call.write_cursor([first, second, str(last)] if last else None, "breaks", **of),
        )

    if as_csv:
        return export(call, "breaks", BreakOut, lambda after: page(LIMIT_MAX, after), cursor)
    return page(limit, cursor)


@router.get("/v1/breaks/{break_id}", operation_id="get_break", summary="Read a break", responses=errors())
def get_break(break_id: BreakId, call: Reading) -> BreakDetailOut:
    """A break with its lines and items, what was found, its history, and what was learned from others like it."""
    return _detail(call, queries.one_of(call.tx, call.services.clock, path_id(BREAK, break_id)))


@router.get(
    "/v1/breaks/{break_id}/suggestions",
    operation_id="get_break_suggestions",
    summary="What was learned for a break",
    responses=errors(),
)
def get_break_suggestions(break_id: BreakId, call: Reading) -> SuggestionsOut:
    """How breaks like this one were ended before, with the evidence. None is ever applied by itself."""
    found = queries.one_of(call.tx, call.services.clock, path_id(BREAK, break_id))
    return SuggestionsOut(data=[suggestion_out(one) for one in suggestions(call.tx, found)])


@router.post(
    "/v1/breaks/{break_id}/counterparty",
    operation_id="learn_break_counterparty",
    summary="Know a break's other side as a partner",
    responses=errors(),
)
def learn_break_counterparty(break_id: BreakId, body: LearningIn, call: Writing) -> BreakDetailOut:
    """Act on a suggestion: lines from this account, open ones and those to come, are the partner's. The next run pairs by that."""
    found = _of_the_callers(call, break_id)
    known = learn(
        call.tx, call.services.books, found, partners.find(call.tx, body.partner), actor=call.actor.id
    )
    call.audit(
        "break.counterparty_learned",
        break_id,
        programme_id=found.programme_id,
        partner=known.party,
        ending=known.ending,
    )
    return _detail(call, queries.one_of(call.tx, call.services.clock, found.id))


@router.post(
    "/v1/breaks/{break_id}/assignment",
    operation_id="assign_break",
    summary="Assign a break",
    responses=errors(409),
)
def assign_break(break_id: BreakId, body: AssignmentIn, call: Writing) -> BreakDetailOut:
    """Say whose a break is, and what is known of it. It moves nothing."""
    found = _of_the_callers(call, break_id)
    resolve.assign(
        call.tx, call.services.clock, found.id, body.owner, remark=body.remark, actor=call.actor.id
    )
    call.audit("break.assigned", break_id, programme_id=found.programme_id, owner=body.owner)
    return _detail(call, queries.one_of(call.tx, call.services.clock, found.id))


@router.post(
    "/v1/breaks/{break_id}/resolutions",
    operation_id="preview_break_resolution",
    summary="Preview how to end a break",
    status_code=201,
    responses=errors(409),
)
def preview_break_resolution(break_id: BreakId, body: BreakResolutionIn, call: Writing) -> ResolutionOut:
    """Choose how to end a break and see exactly what that posts and pairs. Nothing is done before it is confirmed."""
    found = _of_the_callers(call, break_id)
    for place, part in enumerate(body.parts):
        if part.amount.currency != found.currency:
            raise InvalidInput(f"the break is in {found.currency}", pointer=f"/parts/{place}/amount/currency")
    seen = resolve.preview(call.tx, call.services.books, found.id, body.choice(), actor=call.actor.id)
    call.audit(
        "break_resolution.previewed",
        public_id(RESOLUTION, seen.id),
        programme_id=found.programme_id,
        of=break_id,
        method=seen.method,
    )
    return _resolution(call, seen, found.currency)


@router.post(
    "/v1/breaks/{break_id}/resolutions/{resolution_id}/confirmation",
    operation_id="confirm_break_resolution",
    summary="End a break as previewed",
    response_model=ResolutionOut,
    responses={
        200: REPLAYED,
        202: {"model": ApprovalOut, "description": "Above the limit: another manager approves.", **REPLAYED},
        **errors(409),
    },
)
def confirm_break_resolution(
    break_id: BreakId,
    resolution_id: ResolutionId,
    body: BreakConfirmationIn,
    call: Writing,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Do what the preview showed. When the books have changed since, it is refused: 409 `stale_preview`.

    Above the programme's limit it is asked for, and another manager approves (`break_resolution`).
    """

    def effect() -> tuple[int, BaseModel]:
        found = _of_the_callers(call, break_id)
        asked = resolve.resolution(call.tx, path_id(RESOLUTION, resolution_id))
        if asked.break_id != found.id:
            raise NotFound("There is no such resolution.")
        digest = bytes.fromhex(body.digest)
        if resolve.takes_two(call.tx, asked):
            filed = approvals.request_resolution(
                call.tx,
                call.services,
                call.actor,
                asked.id,
                digest=digest,
                remark=body.remark,
                origin=origin_of(call),
            )
            return 202, shown_out(filed)
        done = resolve.confirm(
            call.tx, call.services.books, asked.id, digest=digest, remark=body.remark, actor=call.actor.id
        )
        call.audit(
            "break.resolved" if done.method != "wait" else "break.waits",
            break_id,
            programme_id=found.programme_id,
            resolution=resolution_id,
            method=done.method,
            remark=body.remark,
        )
        return 200, _resolution(call, done, found.currency)

    return call.once(idempotency_key, "confirm_break_resolution", effect)


@router.post(
    "/v1/breaks/{break_id}/undo",
    operation_id="undo_break_resolution",
    summary="Take back how a break was ended",
    response_model=BreakDetailOut,
    responses={200: REPLAYED, **errors(409)},
)
def undo_break_resolution(
    break_id: BreakId, body: UndoingIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Reverse what was posted, undo the pairings, and open the break again, with its history. One that waits waits no longer."""

    def effect() -> tuple[int, BreakDetailOut]:
        found = _of_the_callers(call, break_id)
        resolve.undo(call.tx, call.services.books, found.id, remark=body.remark, actor=call.actor.id)
        call.audit("break.undone", break_id, programme_id=found.programme_id, remark=body.remark)
        return 200, _detail(call, queries.one_of(call.tx, call.services.clock, found.id))

    return call.once(idempotency_key, "undo_break_resolution", effect)


@router.put(
    "/v1/break-limits/{programme}",
    operation_id="put_break_limit",
    summary="Say from which value on two decide a break",
    responses=errors(),
)
def put_break_limit(programme: ProgrammeSlug, body: BreakLimitIn, call: Limiting) -> BreakLimitOut:
    """From now on a second person decides how breaks of more than this are ended. Said by who ends none: an administrator."""
    programme_id = find(call.tx, programme)
    require_programme(call, LIMITS, programme_id, unknown_programme(programme))
    before = limits.second_person_above(call.tx, programme_id, body.currency)
    limits.put(call.tx, call.services.clock, programme_id, body.currency, body.second_person_above)
    call.audit(
        "break_limit.put",
        programme,
        programme_id=programme_id,
        before={"second_person_above": before},
        after=body.model_dump(),
    )
    return BreakLimitOut(
        programme=programme, second_person_above=MoneyOut.of(body.second_person_above, body.currency)
    )


@router.get(
    "/v1/break-limits/{programme}",
    operation_id="get_break_limit",
    summary="Read from which value on two decide a break",
    responses=errors(),
)
def get_break_limit(
    programme: ProgrammeSlug,
    call: Reading,
    currency: Annotated[
        Currency | None, Query(description="in this currency; the programme's when left out")
    ] = None,
) -> BreakLimitOut:
    """From which value on a second person decides; 0 (always) where nobody has said."""
    programme_id = find(call.tx, programme)
    require_programme(call, "reconciliation:read", programme_id, unknown_programme(programme))
    wanted = currency or limits.currency_of(call.tx, programme_id)
    above = limits.second_person_above(call.tx, programme_id, wanted)
    return BreakLimitOut(programme=programme, second_person_above=MoneyOut.of(above, wanted))


def _of_the_callers(call: Call, break_id: str) -> Break:
    """The break, if the caller writes for its programme: row-level security does not hold there."""
    found = queries.one_of(call.tx, call.services.clock, path_id(BREAK, break_id))
    require_programme(call, SCOPE, found.programme_id, UNKNOWN)
    return found


def _resolution(call: Call, one: resolve.Resolution, currency: str) -> ResolutionOut:
    return resolution_out(one, currency, second_person=resolve.takes_two(call.tx, one))


def _detail(call: Call, one: Break) -> BreakDetailOut:
    line_ids, item_ids = queries.lines_and_items(one)
    lines = reading.lines_by_id(call.tx, line_ids)
    texts = reading.texts(call.tx, call.services.keyring, line_ids)
    return BreakDetailOut(
        **fields(one),
        details=details_out(one),
        other_account=one.other_account,
        lines=[line_out(lines[id_], texts.get(id_, LineText())) for id_ in line_ids if id_ in lines],
        items=[item_out(item) for item in queries.items(call.tx, item_ids)],
        history=[event_out(event) for event in queries.history(call.tx, one.id)],
        resolutions=[
            _resolution(call, done, one.currency) for done in resolve.resolutions_of(call.tx, one.id)
        ],
        suggestions=[suggestion_out(each) for each in suggestions(call.tx, one)],
    )
