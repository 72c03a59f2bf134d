"""Remittals to agencies: made, sent with their schedule, cleared, and answered line by line."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel

from api import uploads
from api.approvals import remittals as approvals
from api.approvals.service import origin_of
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.approvals import ApprovalOut, shown_out
from api.v1.finding import require_programme
from api.v1.remittal_shapes import (
    AgenciesOut,
    AgencyOut,
    AgencySettings,
    AnswerIn,
    AnswerOut,
    MadeOut,
    PaymentIn,
    RemittalConfirmationIn,
    RemittalIn,
    RemittalLineOut,
    RemittalOut,
    agency_out,
    line_out,
    made_out,
    remittal_out,
)
from api.v1.schemas import (
    REPLAYED,
    ROUTE_CLASS,
    MoneyOut,
    Page,
    errors,
)
from products.programmes.registry import find
from products.remittals import agencies, answers, making, paying, queries
from products.remittals.layouts import Answered, Totals, read_answer
from products.remittals.queries import PREFIX, LineState, Remittal, State

router = APIRouter(prefix="/v1", tags=["remittals"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("remittals:read")]
Writing = Annotated[Call, writing("remittals:write")]
RemittalId = Annotated[str, Path(max_length=64, examples=[f"{PREFIX}_{'0' * 26}"])]
CSV: Final = "text/csv"


@router.get("/agencies", operation_id="list_agencies", summary="List agencies", responses=errors())
def list_agencies(call: Reading) -> AgenciesOut:
    """The agencies that programmes collect for, and how each is told."""
    return AgenciesOut(data=[agency_out(one) for one in agencies.agencies(call.tx)])


@router.put(
    "/agencies/{programme}/{agency}",
    operation_id="set_up_agency",
    summary="Say how an agency is told",
    responses=errors(),
)
def set_up_agency(
    programme: Annotated[str, Path(max_length=64, examples=["ssf-nepal"])],
    agency: Annotated[str, Path(max_length=64, examples=["ssf-nepal"])],
    body: AgencySettings,
    call: Writing,
) -> AgencyOut:
    """Change how an agency is told from the next remittal on, and who sends it."""
    known = agencies.agency_of(call.tx, programme, agency)
    require_programme(call, "remittals:write", known.programme_id, agencies.unknown(programme, agency))
    changed = agencies.set_up(
        call.tx,
        known,
        number_document=body.number_document,
        without_number=body.without_number,
        second_person_above=body.second_person_above,
        columns=body.columns,
        answer=body.answer,
        at=call.now,
    )
    call.audit("agency.set_up", f"{programme}/{agency}", programme_id=known.programme_id)
    return agency_out(changed)


@router.get("/remittals", operation_id="list_remittals", summary="List remittals", responses=errors())
def list_remittals(
    call: Reading,
    agency: Annotated[str | None, Query(max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")] = None,
    state: State | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[RemittalOut]:
    """Remittals in the order in which they were made."""
    after = call.read_position(cursor, "remittals", agency=agency, state=state)
    rows = queries.remittals(
        call.tx,
        agency=agency,
        state=state,
        after=after,
        limit=limit + 1,
    )
    last = rows[limit - 1].position if len(rows) > limit else None
    return Page(
        data=[remittal_out(row) for row in rows[:limit]],
        next_cursor=call.write_position(last, "remittals", agency=agency, state=state),
    )


@router.post(
    "/remittals",
    operation_id="make_remittal",
    summary="Make a remittal",
    status_code=201,
    response_model=MadeOut,
    responses={201: REPLAYED, **errors(409)},
)
def make_remittal(body: RemittalIn, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Gather what was paid in for an agency: a line for each member, product and month. No money moves yet."""

    def effect() -> tuple[int, MadeOut]:
        require_programme(
            call, "remittals:write", find(call.tx, body.programme), "There is no such programme."
        )
        made = making.make(
            call.tx,
            call.services.books,
            programme=body.programme,
            agency=body.agency,
            through=body.through,
            without_number=body.without_number,
        )
        remittal = made.remittal
        call.audit(
            "remittal.made",
            remittal.public_id,
            programme_id=remittal.programme_id,
            sha256=remittal.digest.hex(),
        )
        return 201, made_out(made)

    return call.once(idempotency_key, "make_remittal", effect)


@router.get(
    "/remittals/{remittal}", operation_id="get_remittal", summary="Read a remittal", responses=errors()
)
def get_remittal(remittal: RemittalId, call: Reading) -> RemittalOut:
    """A remittal and what the agency answered so far."""
    return remittal_out(queries.remittal_of(call.tx, path_id(PREFIX, remittal)))


@router.get(
    "/remittals/{remittal}/lines",
    operation_id="list_remittal_lines",
    summary="List a remittal's lines",
    responses=errors(),
)
def list_remittal_lines(
    remittal: RemittalId,
    call: Reading,
    state: LineState | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[RemittalLineOut]:
    """The lines and what became of each."""
    found = queries.remittal_of(call.tx, path_id(PREFIX, remittal))
    at = call.read_cursor(cursor, "remittal_lines", remittal=remittal, state=state)
    rows = queries.lines_of(call.tx, found.id, state=state, after=int(at[0]) if at else 0, limit=limit + 1)
    more = len(rows) > limit
    return Page(
        data=[line_out(row, found.currency) for row in rows[:limit]],
        next_cursor=call.write_cursor(
            [rows[limit - 1].position] if more else None, "remittal_lines", remittal=remittal, state=state
        ),
    )


@router.get(
    "/remittals/{remittal}/schedule",
    operation_id="fetch_schedule",
    summary="Fetch a remittal's schedule",
    response_class=Response,
    responses={
        200: {"content": {CSV: {"schema": {"type": "string"}}}, "description": "As the agency wants it."},
        **errors(),
    },
)
def fetch_schedule(remittal: RemittalId, call: Writing) -> Response:
    """The file for the agency, with members' numbers and pay: each time that it is fetched is in the audit log."""
    found = _of_the_callers(call, remittal)
    content = queries.schedule_of(call.tx, call.services.keyring, found)
    call.audit("remittal.schedule_fetched", found.public_id, programme_id=found.programme_id)
    name = f"remittal-{found.agency}-{found.number}.csv"
    return Response(
        content,
        media_type=CSV,
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


@router.post(
    "/remittals/{remittal}/payment",
    operation_id="send_remittal",
    summary="Send a remittal",
    response_model=RemittalOut,
    responses={
        200: REPLAYED,
        202: {"model": ApprovalOut, "description": "Above the limit: another manager approves.", **REPLAYED},
        **errors(409),
    },
)
def send_remittal(
    remittal: RemittalId, body: PaymentIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Record that the bank was told to pay it. Above the agency's limit it is asked for, and another manager approves."""

    def effect() -> tuple[int, BaseModel]:
        found = _of_the_callers(call, remittal)
        if found.state == "made" and found.amount > found.second_person_above:
            filed = approvals.request_sending(
                call.tx,
                call.services,
                call.actor,
                found.id,
                reference=body.reference,
                on=body.on,
                origin=origin_of(call),
            )
            return 202, shown_out(filed)
        sent = paying.send(call.tx, call.services.books, found.id, reference=body.reference, on=body.on)
        call.audit("remittal.sent", sent.public_id, programme_id=sent.programme_id)
        return 200, remittal_out(sent)

    return call.once(idempotency_key, "send_remittal", effect)


@router.post(
    "/remittals/{remittal}/confirmation",
    operation_id="confirm_remittal",
    summary="Record that the bank paid a remittal",
    response_model=RemittalOut,
    responses={200: REPLAYED, **errors(409)},
)
def confirm_remittal(
    remittal: RemittalId, body: RemittalConfirmationIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """The payment has left the bank account."""

    def effect() -> tuple[int, RemittalOut]:
        found = _of_the_callers(call, remittal)
        cleared = paying.clear(call.tx, call.services.books, found.id, on=body.on)
        call.audit("remittal.cleared", cleared.public_id, programme_id=cleared.programme_id)
        return 200, remittal_out(cleared)

    return call.once(idempotency_key, "confirm_remittal", effect)


@router.post(
    "/remittals/{remittal}/withdrawal",
    operation_id="withdraw_remittal",
    summary="Withdraw a remittal",
    response_model=RemittalOut,
    responses={200: REPLAYED, **errors(409)},
)
def withdraw_remittal(remittal: RemittalId, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Withdraw a remittal that was not sent: what it holds can be sent anew."""

    def effect() -> tuple[int, RemittalOut]:
        gone = making.withdraw(call.tx, _of_the_callers(call, remittal).id)
        call.audit("remittal.withdrawn", gone.public_id, programme_id=gone.programme_id)
        return 200, remittal_out(gone)

    return call.once(idempotency_key, "withdraw_remittal", effect)


@router.post(
    "/remittals/{remittal}/answers",
    operation_id="answer_remittal",
    summary="Bring an agency's answer",
    response_model=AnswerOut,
    responses={200: REPLAYED, **errors(409)},
)
def answer_remittal(
    remittal: RemittalId, body: AnswerIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Take what the agency answered, line by line. An answer that does not tie is refused whole."""
    rows = [Answered(one.line, one.outcome, one.accepted, one.reason, one.number) for one in body.lines]
    totals = Totals(body.total_lines, body.total_accepted)
    return call.once(
        idempotency_key,
        "answer_remittal",
        lambda: (200, _taken(call, _of_the_callers(call, remittal), rows, totals)),
    )


@router.post(
    uploads.REMITTAL_ANSWERS.removeprefix("/v1"),
    operation_id="bring_remittal_answer",
    summary="Bring an agency's answer as a file",
    response_model=AnswerOut,
    openapi_extra=uploads.described(CSV, "the agency's answer, as its mapping says"),
    responses={200: REPLAYED, **errors(409)},
)
def bring_remittal_answer(
    call: Writing,
    remittal: Annotated[str, Query(max_length=64, examples=[f"{PREFIX}_{'0' * 26}"])],
    idempotency_key: KeyHeader = None,
) -> Response:
    """As `answer_remittal`, of the file that the agency sent."""

    def effect() -> tuple[int, AnswerOut]:
        found = _of_the_callers(call, remittal)
        rows, totals = read_answer(uploads.content(call), found.answer, currency=found.currency)
        return 200, _taken(call, found, rows, totals)

    return call.once(idempotency_key, "bring_remittal_answer", effect)


def _taken(call: Call, found: Remittal, rows: list[Answered], totals: Totals) -> AnswerOut:
    taken = answers.take(call.tx, call.services.books, found.id, rows, totals)
    call.audit(
        "remittal.answered",
        found.public_id,
        programme_id=found.programme_id,
        lines=taken.lines,
        returned=taken.returned,
    )
    return AnswerOut(
        lines=taken.lines,
        accepted=MoneyOut.of(taken.accepted, found.currency),
        returned=MoneyOut.of(taken.returned, found.currency),
        claimed=MoneyOut.of(taken.claimed, found.currency),
        duplicate=taken.replayed,
    )


def _of_the_callers(call: Call, remittal: str) -> Remittal:
    found = queries.remittal_of(call.tx, path_id(PREFIX, remittal))
    require_programme(call, "remittals:write", found.programme_id, "There is no such remittal.")
    return found
