"""Payment files for banks: what was made, the file to take to the bank, and what the bank answers."""

from collections import Counter
from decimal import Decimal
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from api import uploads
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.payment_answers import take
from api.v1.schemas import REPLAYED, ROUTE_CLASS, Day, Instant, MoneyOut, Out, Page, Slug, errors
from integrations.rails.bank_file import store
from integrations.rails.bank_file.store import FileState, Payment, PaymentFile, Said
from ledger.ids import parse_public_id, public_id

router = APIRouter(tags=["rails"], route_class=ROUTE_CLASS)

PREFIX: Final = "pfl"
ANSWER_PREFIX: Final = "pfa"
XML: Final = "application/xml"

Reading = Annotated[Call, calling("rails:read")]
Fetching = Annotated[Call, calling("rails:write")]
Taking = Annotated[Call, writing("rails:write")]
FileId = Annotated[
    str, Path(max_length=64, description="a file's id, `pfl_…`", examples=[f"{PREFIX}_{'0' * 26}"])
]
RailSlug = Annotated[Slug, Query(description="the rail's name")]


class PaymentFileOut(Out):
    """A file of payments for a bank. `fetched`: it may be with the bank; `part`: the bank refused some of its payments."""

    id: Annotated[str, Field(examples=[f"{PREFIX}_{'0' * 26}"])]
    rail: str
    message_id: Annotated[str, Field(description="`MsgId`, which the bank's answers repeat")]
    payments: int
    control_sum: Annotated[
        str, Field(description="`CtrlSum`: all amounts in major units", examples=["1520.50"])
    ]
    execution_on: Day
    sha256: str
    state: FileState
    made_at: Instant
    fetched_at: Instant | None
    answered_at: Instant | None


class StatusOut(Out):
    """What the bank has said of a payment, at the time of its own clock."""

    status: Annotated[
        str,
        Field(description="ISO 20022 status; `RTRN` for an entry that brought it back", examples=["ACSC"]),
    ]
    code: Annotated[str | None, Field(description="the bank's reason", examples=["AC04"])]
    said_at: Instant


class PaymentInFileOut(Out):
    """One payment of a file, without the payee: who that is stands in the file alone."""

    end_to_end_id: str
    amount: MoneyOut
    statuses: Annotated[list[StatusOut], Field(description="in the order in which the bank said it")]


class PaymentFileWithPayments(PaymentFileOut):
    """A file with its payments, in their order in the file."""

    data: list[PaymentInFileOut]


class PaymentAnswerOut(Out):
    """What a bank's answer has brought, by what now stands of the payments that it speaks of."""

    id: Annotated[str, Field(examples=[f"{ANSWER_PREFIX}_{'0' * 26}"])]
    duplicate: Annotated[
        bool, Field(description="the same file was brought before: nothing changed, all counts are 0")
    ]
    payments: int
    states: Annotated[
        dict[str, int],
        Field(description="how many now stand at each of these", examples=[{"paid": 1998, "failed": 2}]),
    ]
    unread: Annotated[
        list[str], Field(description="statuses that Mizan knows no meaning of, left as they are")
    ]


@router.get(
    "/v1/payment-files", operation_id="list_payment_files", summary="List payment files", responses=errors()
)
def list_payment_files(
    call: Reading,
    rail: Annotated[Slug | None, Query(description="only this rail's")] = None,
    state: Annotated[
        list[FileState] | None, Query(max_length=5, description="only those in these states")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[PaymentFileOut]:
    """Payment files, the newest first."""
    states = sorted(set(state or ()))
    at = call.read_cursor(cursor, "payment-files", rail=rail, states=states)
    rows = store.files(
        call.tx,
        rail=rail,
        states=states,
        before=parse_public_id(PREFIX, str(at[0])) if at else None,
        limit=limit + 1,
    )
    shown = rows[:limit]
    last: list[int | str] | None = [public_id(PREFIX, shown[-1].id)] if len(rows) > limit else None
    return Page(
        data=[_shown(one) for one in shown],
        next_cursor=call.write_cursor(last, "payment-files", rail=rail, states=states),
    )


@router.get(
    "/v1/payment-files/{file}",
    operation_id="get_payment_file",
    summary="Read a payment file's standing",
    responses=errors(),
)
def get_payment_file(file: FileId, call: Reading) -> PaymentFileWithPayments:
    """The file's payments with what the bank has said of each; names and account numbers are in its content alone."""
    found = store.one_of(call.tx, path_id(PREFIX, file))
    payments = [_payment(one, said) for one, said in store.histories(call.tx, found.id)]
    return PaymentFileWithPayments(**_shown(found).model_dump(), data=payments)


@router.get(
    "/v1/payment-files/{file}/content",
    operation_id="fetch_payment_file",
    summary="Fetch a payment file",
    response_class=Response,
    responses={
        200: {"content": {XML: {"schema": {"type": "string"}}}, "description": "pain.001.001.09"},
        **errors(409),
    },
)
def fetch_payment_file(file: FileId, call: Fetching) -> Response:
    """The file as the bank takes it. It counts as fetched from the first time on; each time is in the audit log."""
    found, content = store.fetch(call.tx, call.services.keyring, call.services.clock, path_id(PREFIX, file))
    call.audit("payment_file.fetched", file, rail=found.rail, sha256=found.digest.hex())
    return Response(
        content,
        media_type=XML,
        headers={
            "Content-Disposition": f'attachment; filename="{found.message_id}.xml"',
            "Cache-Control": "no-store",
        },
    )


@router.post(
    uploads.PAYMENT_ANSWERS,
    operation_id="bring_payment_answer",
    summary="Bring a bank's answer",
    status_code=201,
    response_model=PaymentAnswerOut,
    openapi_extra=uploads.described(XML, "a pain.002 of any version from 03 on, or a camt.054 with returns"),
    responses={201: REPLAYED, **errors(409)},
)
def bring_payment_answer(call: Taking, rail: RailSlug, idempotency_key: KeyHeader = None) -> Response:
    """Take what the bank answered: payouts become paid, failed or returned by it, in the same step.

    A file that answers to no message of the rail, repeats other totals, or contradicts itself is refused whole.
    """
    content = uploads.content(call)

    def effect() -> tuple[int, PaymentAnswerOut]:
        programmes = call.actor.sight(["rails:write"]).programmes
        taken = take(call.tx, call.services, rail, content, programmes=programmes)
        answer = public_id(ANSWER_PREFIX, taken.id)
        call.audit("payment_answer.brought", answer, rail=rail, duplicate=taken.replayed)
        states = Counter(report.state for report in taken.reports)
        return 201, PaymentAnswerOut(
            id=answer,
            duplicate=taken.replayed,
            payments=len(taken.reports),
            states=dict(states),
            unread=list(taken.unread),
        )

    return call.once(idempotency_key, "bring_payment_answer", effect)


def _shown(one: PaymentFile) -> PaymentFileOut:
    return PaymentFileOut(
        id=public_id(PREFIX, one.id),
        rail=one.rail,
        message_id=one.message_id,
        payments=one.payments,
        control_sum=_major(one.control_sum),
        execution_on=one.execution_on,
        sha256=one.digest.hex(),
        state=one.state,
        made_at=one.made_at,
        fetched_at=one.fetched_at,
        answered_at=one.answered_at,
    )


def _payment(one: Payment, said: list[Said]) -> PaymentInFileOut:
    return PaymentInFileOut(
        end_to_end_id=one.attempt.hex,
        amount=MoneyOut.of(one.amount, one.currency),
        statuses=[StatusOut(status=it.status, code=it.code, said_at=it.said_at) for it in said],
    )


def _major(value: Decimal) -> str:
    return format(value, "f")
