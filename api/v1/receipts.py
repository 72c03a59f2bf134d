"""What a person makes of statement lines that no rule pairs: receipts, conversions, and what lines seem to be."""

from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from api import bank_statements
from api.deps import Call, calling, path_id, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.schemas import REPLAYED, ROUTE_CLASS, Day, In, Instant, MoneyOut, Out, Page, Slug, Text, errors
from ledger.ids import parse_public_id, public_id
from ledger.reconciliation import bank_accounts
from products.reconciliation import by_hand, conversions
from products.reconciliation.by_hand import RECEIPT_PREFIX, Receipt, State
from products.reconciliation.conversions import Candidate
from products.reconciliation.hand_pairing import PAIRING_PREFIX
from products.reconciliation.suggestions import Suggestion, suggestions
from products.remittances import partners

router = APIRouter(tags=["reconciliation"], route_class=ROUTE_CLASS)

DAYS_MAX: Final = 100

Reading = Annotated[Call, calling("reconciliation:read")]
Writing = Annotated[Call, writing("reconciliation:write")]
OfAccount = Annotated[Slug | None, Query(description="only this bank account's")]
ReceiptId = Annotated[str, Path(max_length=64, examples=[f"{RECEIPT_PREFIX}_{'0' * 26}"])]
LineId = Annotated[str, Field(max_length=64, examples=[f"{bank_statements.LINE}_{'0' * 26}"])]


class ReceiptOut(Out):
    """Money that came in from a sender that was not known: it lies in unidentified receipts until it is identified."""

    id: Annotated[str, Field(examples=[f"{RECEIPT_PREFIX}_{'0' * 26}"])]
    bank_account: str
    fund: str
    line: str
    amount: MoneyOut
    booked_on: Day
    state: State
    settlement: Annotated[str | None, Field(description="what it turned out to be")]
    recorded_at: Instant


class IdentificationIn(In):
    """Who sent it, and for what."""

    partner: Annotated[Slug, Field(examples=["acme"])]
    days: Annotated[
        list[Day] | None,
        Field(
            min_length=1,
            max_length=DAYS_MAX,
            description="the days that it pays for; the oldest that are owed when left out",
        ),
    ] = None


class IdentifiedOut(Out):
    """The settlement that a receipt turned out to be."""

    settlement: str
    state: Literal["recorded", "pairing", "paired", "returning", "returned"]
    paired: MoneyOut
    unidentified: MoneyOut


class ConversionIn(In):
    """The line that went out in one currency, and the one that came in in another."""

    from_line: LineId
    to_line: LineId
    remark: Annotated[Text, Field(examples=["bought dollars for the school fees"])]


class ConversionOut(Out):
    """The two pairings that a conversion is."""

    pairings: Annotated[list[str], Field(min_length=2, max_length=2)]


class ConversionCandidateOut(Out):
    """Two open lines that may be one conversion: of one fund, in two currencies, under one reference."""

    from_line: LineId
    to_line: LineId
    fund: str
    from_account: Slug
    to_account: Slug
    sold: MoneyOut
    bought: MoneyOut
    sold_on: Day
    bought_on: Day
    rate: Annotated[
        str, Field(description="how many units bought each unit sold gave", examples=["0.0006984293"])
    ]
    evidence: Annotated[str, Field(description="the reference that both lines carry")]


class SuggestionOut(Out):
    """What a line seems to be, that two managers decide on: a payout's resolution as `returned`, or a settlement's return."""

    line: str
    kind: Literal["payout_returned", "settlement_returned"]
    subject: Annotated[str, Field(description="the payout or the settlement")]
    evidence: Annotated[str, Field(description="what both have in common")]


@router.get("/v1/receipts", operation_id="list_receipts", summary="List receipts", responses=errors())
def list_receipts(
    call: Reading,
    bank_account: OfAccount = None,
    state: Annotated[State | None, Query(description="only in this state")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[ReceiptOut]:
    """Money of senders that were not known, in the order in which it was recorded."""
    at = call.read_cursor(cursor, "receipts", account=bank_account, state=state)
    rows = by_hand.receipts(
        call.tx,
        bank_account_id=_account(call, bank_account),
        state=state,
        after=parse_public_id(RECEIPT_PREFIX, str(at[0])) if at else None,
        limit=limit + 1,
    )
    last: list[int | str] | None = (
        [public_id(RECEIPT_PREFIX, rows[limit - 1].id)] if len(rows) > limit else None
    )
    return Page(
        data=[receipt_out(one) for one in rows[:limit]],
        next_cursor=call.write_cursor(last, "receipts", account=bank_account, state=state),
    )


@router.post(
    "/v1/receipts/{receipt}/identification",
    operation_id="identify_receipt",
    summary="Say who sent a receipt",
    status_code=201,
    response_model=IdentifiedOut,
    responses={201: REPLAYED, **errors(409)},
)
def identify_receipt(
    receipt: ReceiptId, body: IdentificationIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Pay what a partner owes with a receipt: its members' pending contributions become savings. What pays for none stays."""

    def effect() -> tuple[int, IdentifiedOut]:
        done = by_hand.identify(
            call.tx,
            call.services.books,
            path_id(RECEIPT_PREFIX, receipt),
            partners.find(call.tx, body.partner),
            days=body.days,
            funds=_funds(call),
        )
        settlement = public_id("stl", done.id)
        call.audit("receipt.identified", receipt, partner=body.partner, settlement=settlement)
        return 201, IdentifiedOut(
            settlement=settlement,
            state=done.state,
            paired=MoneyOut.of(done.paired, done.currency),
            unidentified=MoneyOut.of(done.unidentified, done.currency),
        )

    return call.once(idempotency_key, "identify_receipt", effect)


@router.post(
    "/v1/conversions",
    operation_id="book_conversion",
    summary="Book a conversion of two lines",
    status_code=201,
    response_model=ConversionOut,
    responses={201: REPLAYED, **errors(409)},
)
def book_conversion(body: ConversionIn, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Pair money that left a fund's account in one currency with what came to its account in another, at the rate that this makes."""

    def effect() -> tuple[int, ConversionOut]:
        made = conversions.convert(
            call.tx,
            call.services.books,
            path_id(bank_statements.LINE, body.from_line),
            path_id(bank_statements.LINE, body.to_line),
            remark=body.remark,
            actor=call.actor.id,
            funds=_funds(call),
        )
        pairings = [public_id(PAIRING_PREFIX, one) for one in made]
        call.audit("conversion.booked", body.from_line, to=body.to_line, pairings=pairings)
        return 201, ConversionOut(pairings=pairings)

    return call.once(idempotency_key, "book_conversion", effect)


@router.get(
    "/v1/conversions/candidates",
    operation_id="list_conversion_candidates",
    summary="List lines that may be conversions",
    responses=errors(),
)
def list_conversion_candidates(
    call: Reading, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[ConversionCandidateOut]:
    """Open lines, two by two, that a person may book as a conversion: nothing of it is done by itself."""
    at = call.read_cursor(cursor, "conversion-candidates")
    after = None if at is None else (UUID(str(at[0])), UUID(str(at[1])))
    rows = conversions.candidates(call.tx, after=after, limit=limit + 1)
    last: list[int | str] | None = None
    if len(rows) > limit:
        last = [str(rows[limit - 1].from_line), str(rows[limit - 1].to_line)]
    return Page(
        data=[candidate_out(one) for one in rows[:limit]],
        next_cursor=call.write_cursor(last, "conversion-candidates"),
    )


@router.get(
    "/v1/reconciliation-suggestions",
    operation_id="list_reconciliation_suggestions",
    summary="List what lines seem to be",
    responses=errors(),
)
def list_reconciliation_suggestions(
    call: Reading, bank_account: OfAccount = None, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[SuggestionOut]:
    """Open lines that seem to bring back a payment or take back a settlement: never done by itself."""
    at = call.read_cursor(cursor, "reconciliation-suggestions", account=bank_account)
    rows = suggestions(
        call.tx,
        _account(call, bank_account),
        after=parse_public_id(bank_statements.LINE, str(at[0])) if at else None,
        limit=limit + 1,
    )
    last: list[int | str] | None = (
        [public_id(bank_statements.LINE, rows[limit - 1].line)] if len(rows) > limit else None
    )
    return Page(
        data=[suggestion_out(one) for one in rows[:limit]],
        next_cursor=call.write_cursor(last, "reconciliation-suggestions", account=bank_account),
    )


def _account(call: Call, slug: str | None) -> UUID | None:
    return None if slug is None else bank_accounts.by_slug(call.tx, slug).id


def _funds(call: Call) -> frozenset[UUID] | None:
    """The funds that the caller may write for; row-level security does not hold for who writes."""
    return bank_statements.funds_of(call.tx, call.actor.sight(["reconciliation:write"]).programmes)


def receipt_out(one: Receipt) -> ReceiptOut:
    """A receipt as it is shown."""
    return ReceiptOut(
        id=public_id(RECEIPT_PREFIX, one.id),
        bank_account=one.bank_account,
        fund=one.fund,
        line=public_id(bank_statements.LINE, one.line_id),
        amount=MoneyOut.of(one.amount, one.currency),
        booked_on=one.booked_on,
        state=one.state,
        settlement=None if one.settlement_id is None else public_id("stl", one.settlement_id),
        recorded_at=one.recorded_at,
    )


def candidate_out(one: Candidate) -> ConversionCandidateOut:
    """Two lines that may be a conversion, as they are shown."""
    return ConversionCandidateOut(
        from_line=public_id(bank_statements.LINE, one.from_line),
        to_line=public_id(bank_statements.LINE, one.to_line),
        fund=one.fund,
        from_account=one.from_account,
        to_account=one.to_account,
        sold=MoneyOut.of(one.sold, one.sold_currency),
        bought=MoneyOut.of(one.bought, one.bought_currency),
        sold_on=one.sold_on,
        bought_on=one.bought_on,
        rate=one.rate,
        evidence=one.evidence,
    )


def suggestion_out(one: Suggestion) -> SuggestionOut:
    """A suggestion as it is shown."""
    return SuggestionOut(
        line=public_id(bank_statements.LINE, one.line),
        kind=one.kind,
        subject=one.subject,
        evidence=one.evidence,
    )
