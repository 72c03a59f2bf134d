"""Remittals to agencies: made, sent with their schedule, cleared, and answered line by line."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from api import uploads
from api.approvals import remittals as approvals
from api.approvals.service import origin_of
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.approvals import ApprovalOut, shown_out
from api.v1.schemas import (
    REPLAYED,
    ROUTE_CLASS,
    Day,
    In,
    Instant,
    MoneyOut,
    Out,
    Page,
    Slug,
    Text,
    errors,
)
from ledger.errors import NotFound
from ledger.horizon import Position
from ledger.ids import public_id
from ledger.money import AMOUNT_MAX
from products.programmes.registry import find
from products.remittals import agencies, answers, making, paying, queries
from products.remittals.agencies import Agency
from products.remittals.layouts import Answered, Totals, read_answer
from products.remittals.making import Made
from products.remittals.queries import PREFIX, Line, LineState, Remittal, State

router = APIRouter(prefix="/v1", tags=["remittals"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("remittals:read")]
Writing = Annotated[Call, writing("remittals:write")]
RemittalId = Annotated[str, Path(max_length=64, examples=[f"{PREFIX}_{'0' * 26}"])]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]
CSV: Final = "text/csv"
HELD_SHOWN_MAX: Final = 1_000
LINES_MAX: Final = 2_000


class AgencySettings(In):
    """How an agency is told and answers; what is left out stays as it is."""

    number_document: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z][a-z0-9_]{0,62}$",
            description="the type of the document that holds a member's number there",
            examples=["ssf_number"],
        ),
    ] = None
    without_number: Literal["hold", "send"] | None = None
    second_person_above: Annotated[
        int | None,
        Field(ge=0, le=AMOUNT_MAX, description="minor units; a second manager sends more than this"),
    ] = None
    columns: Annotated[
        dict[str, Any] | None,
        Field(
            description="the schedule's columns: header, and a field or a constant value",
            examples=[
                {"columns": [{"header": "Line", "field": "line"}, {"header": "Rs", "field": "amount"}]}
            ],
        ),
    ] = None
    answer: Annotated[
        dict[str, Any] | None,
        Field(
            description="where an answer's file says what",
            examples=[{"line": "Line", "outcome": "Status", "outcomes": {"OK": "accepted"}}],
        ),
    ] = None


class AgencyOut(Out):
    """An agency that a programme collects for; `owed` is collected and not sent yet."""

    programme: str
    agency: str
    owed: MoneyOut
    number_document: str
    without_number: Literal["hold", "send"]
    second_person_above: MoneyOut
    columns: dict[str, Any]
    answer: dict[str, Any]


class AgenciesOut(Out):
    """All agencies that the caller may see."""

    data: list[AgencyOut]


class RemittalIn(In):
    """What is sent: all that was paid in for an agency up to and including a day."""

    programme: Annotated[Slug, Field(examples=["ssf-nepal"])]
    agency: Annotated[Slug, Field(examples=["ssf-nepal"])]
    through: Annotated[Day, Field(description="a day of the programme's time zone, not to come")]
    without_number: Annotated[
        Literal["hold", "send"] | None, Field(description="as the agency is set up, when left out")
    ] = None


class RemittalOut(Out):
    """A remittal. `answered` lines: `accepted` is the agency's, `returned` the members', `claimed` asked for beyond it."""

    id: Annotated[str, Field(examples=[f"{PREFIX}_{'0' * 26}"])]
    programme: str
    agency: str
    number: int
    through: Day
    lines: int
    amount: MoneyOut
    sha256: Annotated[Digest, Field(description="of the schedule's file")]
    state: Literal["made", "sent", "cleared", "withdrawn"]
    made_at: Instant
    bank_reference: str | None
    sent_on: Day | None
    cleared_on: Day | None
    answered: int
    accepted: MoneyOut
    returned: MoneyOut
    claimed: MoneyOut


class HeldOut(Out):
    """A line that stays back, as the agency's number of the member is not known."""

    enrolment: str
    applies_to: Day
    amount: MoneyOut


class MadeOut(Out):
    """A new remittal, and what stays back: how many lines, what they come to, and the first thousand of them."""

    remittal: RemittalOut
    held_lines: int
    held_amount: MoneyOut
    held: list[HeldOut]


class RemittalLineOut(Out):
    """One line. Numbers and pay are in the schedule alone."""

    position: int
    enrolment: str
    product: str
    applies_to: Annotated[Day, Field(description="the first day of the month")]
    paid_on: Day
    rate: str | None
    amount: MoneyOut
    has_number: bool
    state: Literal["sent", "accepted", "rejected", "corrected"]
    accepted: MoneyOut | None
    claimed: MoneyOut
    reason: str | None


class PaymentIn(In):
    """The bank payment by which the money leaves."""

    reference: Annotated[Text, Field(examples=["PAY-2026-117"])]
    on: Day


class ConfirmationIn(In):
    """When the bank paid it."""

    on: Day


class AnsweredIn(In):
    """What the agency says of one line. `accepted` in minor units: of a correction, or left out."""

    line: Annotated[int, Field(ge=1, le=10**9)]
    outcome: Literal["accepted", "rejected", "corrected"]
    accepted: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX)] = None
    reason: Text | None = None
    number: Annotated[
        str | None, Field(min_length=1, max_length=64, pattern=r"^[ -~]+$", description="a corrected number")
    ] = None


class AnswerIn(In):
    """An agency's answer, in part or whole; with totals, they must be those of the lines."""

    lines: Annotated[list[AnsweredIn], Field(min_length=1, max_length=LINES_MAX)]
    total_lines: Annotated[int | None, Field(ge=0, le=10**9)] = None
    total_accepted: Annotated[int | None, Field(ge=0, le=AMOUNT_MAX)] = None


class AnswerOut(Out):
    """What an answer did. `returned` is the members' again, unapplied."""

    lines: int
    accepted: MoneyOut
    returned: MoneyOut
    claimed: MoneyOut
    duplicate: Annotated[bool, Field(description="it was taken before: nothing changed")]


@router.get("/agencies", operation_id="list_agencies", summary="List agencies", responses=errors())
def list_agencies(call: Reading) -> AgenciesOut:
    """The agencies that programmes collect for, and how each is told."""
    return AgenciesOut(data=[_agency(one) for one in agencies.agencies(call.tx)])


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
    _require_programme(call, known.programme_id)
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
    return _agency(changed)


@router.get("/remittals", operation_id="list_remittals", summary="List remittals", responses=errors())
def list_remittals(
    call: Reading,
    agency: Annotated[str | None, Query(max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")] = None,
    state: State | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[RemittalOut]:
    """Remittals in the order in which they were made."""
    at = call.read_cursor(cursor, "remittals", agency=agency, state=state)
    rows = queries.remittals(
        call.tx,
        agency=agency,
        state=state,
        after=Position(int(at[0]), int(at[1]), UUID(str(at[2]))) if at else None,
        limit=limit + 1,
    )
    last = rows[limit - 1].position if len(rows) > limit else None
    return Page(
        data=[_shown(row) for row in rows[:limit]],
        next_cursor=call.write_cursor(
            [last.era, last.xid, str(last.id)] if last else None, "remittals", agency=agency, state=state
        ),
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
        _require_programme(call, find(call.tx, body.programme))
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
        return 201, _made(made)

    return call.once(idempotency_key, "make_remittal", effect)


@router.get(
    "/remittals/{remittal}", operation_id="get_remittal", summary="Read a remittal", responses=errors()
)
def get_remittal(remittal: RemittalId, call: Reading) -> RemittalOut:
    """A remittal and what the agency answered so far."""
    return _shown(queries.remittal_of(call.tx, path_id(PREFIX, remittal)))


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
        data=[_line(row, found.currency) for row in rows[:limit]],
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
        return 200, _shown(sent)

    return call.once(idempotency_key, "send_remittal", effect)


@router.post(
    "/remittals/{remittal}/confirmation",
    operation_id="confirm_remittal",
    summary="Record that the bank paid a remittal",
    response_model=RemittalOut,
    responses={200: REPLAYED, **errors(409)},
)
def confirm_remittal(
    remittal: RemittalId, body: ConfirmationIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """The payment has left the bank account."""

    def effect() -> tuple[int, RemittalOut]:
        found = _of_the_callers(call, remittal)
        cleared = paying.clear(call.tx, call.services.books, found.id, on=body.on)
        call.audit("remittal.cleared", cleared.public_id, programme_id=cleared.programme_id)
        return 200, _shown(cleared)

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
        return 200, _shown(gone)

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
    _require_programme(call, found.programme_id)
    return found


def _require_programme(call: Call, programme_id: UUID) -> None:
    """As the worker's role sees every programme: one that the caller's role is not for is not there."""
    limits = call.actor.sight(("remittals:write",)).programmes
    if limits is not None and programme_id not in limits:
        raise NotFound("There is nothing of this id.")


def _agency(one: Agency) -> AgencyOut:
    return AgencyOut(
        programme=one.programme,
        agency=one.code,
        owed=MoneyOut.of(one.owed, one.currency),
        number_document=one.number_document,
        without_number=one.without_number,
        second_person_above=MoneyOut.of(one.second_person_above, one.currency),
        columns=dict(one.columns),
        answer=dict(one.answer),
    )


def _made(made: Made) -> MadeOut:
    currency = made.remittal.currency
    return MadeOut(
        remittal=_shown(made.remittal),
        held_lines=len(made.held),
        held_amount=MoneyOut.of(sum(one.amount for one in made.held), currency),
        held=[
            HeldOut(
                enrolment=public_id("enr", one.enrolment_id),
                applies_to=one.applies_to,
                amount=MoneyOut.of(one.amount, currency),
            )
            for one in made.held[:HELD_SHOWN_MAX]
        ],
    )


def _shown(one: Remittal) -> RemittalOut:
    return RemittalOut(
        id=one.public_id,
        programme=one.programme,
        agency=one.agency,
        number=one.number,
        through=one.through,
        lines=one.lines,
        amount=MoneyOut.of(one.amount, one.currency),
        sha256=one.digest.hex(),
        state=one.state,
        made_at=one.made_at,
        bank_reference=one.bank_reference,
        sent_on=one.sent_on,
        cleared_on=one.cleared_on,
        answered=one.answered,
        accepted=MoneyOut.of(one.accepted, one.currency),
        returned=MoneyOut.of(one.returned, one.currency),
        claimed=MoneyOut.of(one.claimed, one.currency),
    )


def _line(line: Line, currency: str) -> RemittalLineOut:
    return RemittalLineOut(
        position=line.position,
        enrolment=public_id("enr", line.enrolment_id),
        product=line.product,
        applies_to=line.applies_to,
        paid_on=line.paid_on,
        rate=line.rate,
        amount=MoneyOut.of(line.amount, currency),
        has_number=line.has_number,
        state=line.state,
        accepted=None if line.accepted is None else MoneyOut.of(line.accepted, currency),
        claimed=MoneyOut.of(line.claimed, currency),
        reason=line.reason,
    )
