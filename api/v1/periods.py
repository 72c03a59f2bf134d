"""A programme's months: their check-lists, their close, their packs, and the transactions behind each figure of one."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from api import closing
from api.approvals import periods as requests
from api.approvals.service import SecondPersonRequired, origin_of
from api.close_pack import MEDIA_TYPES
from api.csv_export import CSV, AsCsv, export
from api.deps import Call, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, LIMIT_MAX, CursorText, Limit
from api.security_headers import CONTENT_SECURITY_POLICY, TEXT_PAGE_POLICY
from api.v1.approvals import ApprovalOut, shown_out
from api.v1.period_shapes import (
    BooksVerificationOut,
    CheckListOut,
    CloseExplanationIn,
    CloseIn,
    CloseItemOut,
    FundOut,
    PartOut,
    PeriodOut,
    PeriodWithCloses,
    ReopenIn,
    close_out,
    item_out,
    month_out,
)
from api.v1.schemas import REPLAYED, ROUTE_CLASS, MoneyOut, Page, Slug, errors
from ledger import verification
from ledger.errors import InvalidInput
from ledger.ids import public_id
from ledger.periods import effective_day
from products.closing import close, listing
from products.closing.close import Format
from products.closing.figures import transactions
from products.closing.findings import ItemName
from products.closing.period import Period, find, label, month_of

router = APIRouter(prefix="/v1/periods", tags=["periods"], route_class=ROUTE_CLASS)

# row-level security hides what a check-list is judged from: the worker's role reads, for programmes that the caller may see
Reading = Annotated[Call, writing("periods:read")]
Writing = Annotated[Call, writing("periods:write")]
ProgrammeSlug = Annotated[Slug, Path(description="the programme's name", examples=["ejoheza"])]
MonthText = Annotated[
    str, Path(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="the month", examples=["2026-03"])
]
Revision = Annotated[
    int | None, Query(ge=1, le=10_000, description="which close of the month; the last when left out")
]


@router.get("", operation_id="list_periods", summary="List a programme's months", responses=errors())
def list_periods(
    call: Reading,
    programme: Annotated[Slug, Query(description="the programme's name")],
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[PeriodOut]:
    """The months from the first that anything moved in to the present one, the newest first."""
    at = call.read_cursor(cursor, "periods", programme=programme)
    found = listing.months(call.tx, programme, call.now, programmes=_sight(call, "periods:read"))
    rest = [one for one in found if at is None or one.period.label < str(at[0])]
    shown = rest[:limit]
    last: list[int | str] | None = [shown[-1].period.label] if len(rest) > limit else None
    return Page(
        data=[month_out(one) for one in shown],
        next_cursor=call.write_cursor(last, "periods", programme=programme),
    )


@router.get(
    "/{programme}/{month}", operation_id="get_period", summary="Read a programme's month", responses=errors()
)
def get_period(programme: ProgrammeSlug, month: MonthText, call: Reading) -> PeriodWithCloses:
    """A month, its funds, and every close that it has had."""
    period = _period(call, programme, month, "periods:read")
    closes = close.closes(call.tx, period.programme_id, month=period.month)
    today = effective_day(call.now, period.time_zone)
    shown = month_out(listing.described(period, closes[0] if closes else None, today))
    return PeriodWithCloses(
        **shown.model_dump(),
        funds=[
            FundOut(
                fund=fund.code,
                closed_through=fund.closed_through if fund.closed_through > date.min else None,
            )
            for fund in period.funds
        ],
        closes=[close_out(one) for one in closes],
    )


@router.get(
    "/{programme}/{month}/checklist",
    operation_id="get_checklist",
    summary="Read a month's check-list",
    responses=errors(),
)
def get_checklist(programme: ProgrammeSlug, month: MonthText, call: Reading) -> CheckListOut:
    """Each item, judged now from the books and the tables: what is red, and where it is to be seen."""
    judged = closing.judge(call.tx, call.services, _period(call, programme, month, "periods:read"))
    return CheckListOut(
        programme=judged.programme,
        month=label(judged.month),
        judged_at=judged.judged_at,
        green=judged.green,
        items=[item_out(one) for one in judged.items],
    )


@router.put(
    "/{programme}/{month}/explanations/{item}",
    operation_id="explain_checklist_item",
    summary="Explain an item of the check-list",
    responses=errors(409),
)
def explain_checklist_item(
    programme: ProgrammeSlug, month: MonthText, item: ItemName, body: CloseExplanationIn, call: Writing
) -> CloseItemOut:
    """Say why an item's findings, or one of them, are as they are. It holds until the amount or the number found changes."""
    period = _period(call, programme, month, "periods:write")
    if call.actor.kind != "operator":
        raise SecondPersonRequired("A person explains: a client cannot.")
    told = closing.explain(
        call.tx,
        call.services,
        period,
        item,
        body.remark,
        actor=call.actor.id,
        subject=body.subject,
        owner=body.owner,
    )
    call.audit(
        "period.explained",
        f"{programme}/{month}/{item}",
        programme_id=period.programme_id,
        after={"remark": body.remark, "subject": body.subject, "owner": body.owner},
    )
    return item_out(told)


@router.post(
    "/{programme}/{month}/verification",
    operation_id="request_verification",
    summary="Ask for the books to be verified",
    status_code=202,
    responses=errors(),
)
def request_verification(programme: ProgrammeSlug, month: MonthText, call: Writing) -> BooksVerificationOut:
    """Ask the worker to replay the books; the check-list shows the verdict. Asked again before it is there, it is the same."""
    period = _period(call, programme, month, "periods:write")
    asked = verification.ask(call.tx, actor=call.actor.id, clock=call.services.clock)
    call.audit("verification.asked", f"{programme}/{month}", programme_id=period.programme_id)
    return BooksVerificationOut(id=public_id("vfn", asked))


@router.post(
    "/{programme}/{month}/close",
    operation_id="request_close",
    summary="Ask for a month to be closed",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_close(
    programme: ProgrammeSlug,
    month: MonthText,
    body: CloseIn,
    call: Writing,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Ask for a month to be closed, with its pack, when another manager approves. The check-list is judged now and then."""
    return call.once(
        idempotency_key,
        "request_close",
        lambda: (
            202,
            shown_out(
                requests.request_close(
                    call.tx,
                    call.services,
                    call.actor,
                    programme=programme,
                    month=month_of(month),
                    remark=body.remark,
                    programmes=_sight(call, "periods:write"),
                    origin=origin_of(call),
                )
            ),
        ),
    )


@router.post(
    "/{programme}/{month}/reopen",
    operation_id="request_month_reopening",
    summary="Ask for a month to be opened again",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_month_reopening(
    programme: ProgrammeSlug,
    month: MonthText,
    body: ReopenIn,
    call: Writing,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Ask for a month, and those after it, to be opened again when another manager approves: their packs are superseded."""
    return call.once(
        idempotency_key,
        "request_month_reopening",
        lambda: (
            202,
            shown_out(
                requests.request_reopen(
                    call.tx,
                    call.services,
                    call.actor,
                    programme=programme,
                    month=month_of(month),
                    reason=body.reason,
                    programmes=_sight(call, "periods:write"),
                    origin=origin_of(call),
                )
            ),
        ),
    )


@router.get(
    "/{programme}/{month}/pack",
    operation_id="get_close_pack",
    summary="Read a close pack",
    response_class=Response,
    responses={
        200: {
            "description": "the pack, as it was made at the close",
            "content": {
                MEDIA_TYPES[name].partition(";")[0]: {"schema": {"type": "string"}} for name in close.FORMATS
            },
        },
        **errors(),
    },
)
def get_close_pack(
    programme: ProgrammeSlug,
    month: MonthText,
    call: Reading,
    format_: Annotated[Format, Query(alias="format", description="in which form")] = "html",
    revision: Revision = None,
    preview: Annotated[
        bool, Query(description="as it would be now, which says PREVIEW; nothing is closed or kept")
    ] = False,
) -> Response:
    """The pack of a month's close, byte by byte as it was sealed; or a preview."""
    period = _period(call, programme, month, "periods:read")
    if preview and revision is not None:
        raise InvalidInput("A preview has no revision.", pointer="/revision")
    if preview:
        content, name = closing.preview(call.tx, call.services, period)[1][format_], "preview"
    else:
        found = close.one(call.tx, period, revision=revision)
        content, name = close.file(call.tx, found.id, format_), f"{found.revision}"
    kept = "inline" if format_ in ("html", "json") else "attachment"
    return Response(
        content,
        media_type=MEDIA_TYPES[format_],
        headers={
            "Content-Disposition": f'{kept}; filename="{programme}-{month}-{name}.{format_}"',
            CONTENT_SECURITY_POLICY: TEXT_PAGE_POLICY,
        },
    )


@router.get(
    "/{programme}/{month}/figures/{figure}/transactions",
    operation_id="list_figure_transactions",
    summary="List the transactions of a figure",
    response_model=Page[PartOut],
    responses={200: CSV, **errors()},
)
def list_figure_transactions(
    programme: ProgrammeSlug,
    month: MonthText,
    figure: Annotated[
        str, Path(max_length=300, pattern=r"^[!-~]+$", description="a figure's name, as in the pack")
    ],
    call: Reading,
    as_csv: AsCsv,
    revision: Revision = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[PartOut] | Response:
    """Exactly the transactions that a figure of the pack is the sum of; of a month that was never closed, of its preview."""
    period = _period(call, programme, month, "periods:read")
    closes = close.closes(call.tx, period.programme_id, month=period.month)
    seen: tuple[int, str] | None = None
    if closes or revision is not None:
        found = close.one(call.tx, period, revision=revision)
        known, seen = close.figure(call.tx, found, figure), (found.era, found.snapshot)
        revision = found.revision
    else:
        known = closing.preview_figure(call.tx, call.services, period, figure)
    filters: dict[str, Any] = {"programme": programme, "month": month, "figure": figure, "revision": revision}

    def page(limit: int, cursor: str | None) -> Page[PartOut]:
        at = call.read_cursor(cursor, "figure-transactions", **filters)
        after = UUID(str(at[0])) if at else None
        rows = transactions(call.tx, known, seen=seen, after=after, limit=limit + 1)
        shown = rows[:limit]
        last: list[int | str] | None = [str(shown[-1].transaction_id)] if len(rows) > limit else None
        return Page(
            data=[
                PartOut(
                    transaction=public_id("txn", one.transaction_id),
                    kind=one.kind,
                    reference=one.reference,
                    effective_on=one.effective_on,
                    amount=MoneyOut.of(one.amount, known.currency),
                )
                for one in shown
            ],
            next_cursor=call.write_cursor(last, "figure-transactions", **filters),
        )

    if as_csv:
        return export(call, "figure", PartOut, lambda after: page(LIMIT_MAX, after), cursor)
    return page(limit, cursor)


def _sight(call: Call, scope: str) -> frozenset[UUID] | None:
    """The programmes that the caller may see; row-level security does not hold for the worker's role."""
    return call.actor.sight([scope]).programmes


def _period(call: Call, programme: str, month: str, scope: str) -> Period:
    return find(call.tx, programme, month_of(month), programmes=_sight(call, scope))
