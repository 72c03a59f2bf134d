"""What partners pay in: settlements, what each paid for, and what is still owed."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.approvals.service import origin_of
from api.approvals.settlements import request_return
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
    MoneyIn,
    MoneyOut,
    Out,
    Page,
    Slug,
    Text,
    errors,
)
from ledger.errors import NotFound
from ledger.ids import public_id
from products.remittances import partners
from products.settlements import obligations as owing
from products.settlements import reading
from products.settlements.obligations import BUCKETS
from products.settlements.pair import record_settlement
from products.settlements.reading import PaidFor, Read

router = APIRouter(prefix="/v1/settlements", tags=["settlements"], route_class=ROUTE_CLASS)

LISTED_MAX = 5_000

Reading = Annotated[Call, calling("settlements:read")]
Writing = Annotated[Call, writing("settlements:write")]
SettlementId = Annotated[str, Path(max_length=64, examples=[f"stl_{'0' * 26}"])]
PartnerQuery = Annotated[
    str | None,
    Query(max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$", description="one partner's alone, by slug"),
]
State = Literal["recorded", "pairing", "paired", "returning", "returned"]


class SettlementIn(In):
    """What a partner paid, and for what: what it collected through a day, of some days, or certain remittances."""

    partner: Annotated[Slug, Field(examples=["acme"])]
    amount: MoneyIn
    through: Annotated[Day, Field(description="the last day that it pays for, by the partner's cut-off")]
    since: Annotated[Day | None, Field(description="the first day; null: from the oldest on")] = None
    remittances: Annotated[
        list[Annotated[str, Field(max_length=64)]] | None,
        Field(min_length=1, max_length=LISTED_MAX, description="these alone, by our ids `rmt_…`"),
    ] = None
    reference: Annotated[
        Text | None,
        Field(
            max_length=200,
            description="names the payment: the same is recorded once",
            examples=["TT-2026-0311"],
        ),
    ] = None


class SettlementOut(Out):
    """A settlement: `amount` + `credits` + `fees` = `paired` + `unidentified` + `topped_up` + `carried`.

    A long one is paired in the background: `recorded` and `pairing` until then. `kind` is `payment`, or `default` or `fee` where
    another bears what the partner owed.
    """

    id: Annotated[str, Field(examples=[f"stl_{'0' * 26}"])]
    partner: str
    programme: str
    reference: str
    kind: Literal["payment", "default", "fee"]
    state: State
    amount: MoneyOut
    since: Day | None
    through: Day
    paired: Annotated[MoneyOut, Field(description="contributions that it paid for, gross")]
    fees: Annotated[MoneyOut, Field(description="what the partner kept of them, borne by the administrator")]
    credits: Annotated[MoneyOut, Field(description="what it left out, as reversals had been paid in before")]
    unidentified: Annotated[MoneyOut, Field(description="what paid for no whole contribution")]
    topped_up: Annotated[MoneyOut, Field(description="what went to its prefund")]
    carried: Annotated[
        MoneyOut,
        Field(description="what paid for no whole contribution, and for one with a later settlement"),
    ]
    contributions: int
    effective_on: Day
    recorded_at: Instant
    returned_on: Day | None
    return_reason: str | None


class PaidForOut(Out):
    """A contribution that a settlement paid for."""

    remittance: str
    remittance_id: Annotated[str, Field(description="the partner's own id")]
    fund: str
    product: str | None
    amount: MoneyOut
    fee: MoneyOut
    collected_on: Day
    state: Literal["pending", "settled", "reversed"]


class ReturnIn(In):
    """Why the bank took a settlement back."""

    reason: Annotated[Text, Field(max_length=500, examples=["AC04: the account was closed"])]


class ObligationOut(Out):
    """What a partner collected for a fund on a day: `collected` = `reversed` + `settled` + `fees` + `owed`."""

    partner: str
    programme: str
    fund: Annotated[str, Field(examples=["ejoheza/savers"])]
    collected_on: Annotated[Day, Field(description="by the partner's cut-off")]
    collected: MoneyOut
    reversed: MoneyOut
    settled: MoneyOut
    fees: Annotated[MoneyOut, Field(description="what the partner will keep of what is open")]
    owed: MoneyOut
    expected_on: Day
    days_overdue: int


class CreditOut(Out):
    """What a fund owes a partner for what was reversed after it had been paid in; it nets against the next settlement."""

    partner: str
    programme: str
    fund: str
    amount: MoneyOut


class ObligationsOut(Page[ObligationOut]):
    """One page of days, and all credits."""

    credits: list[CreditOut]


class AgeingOut(Out):
    """What a partner owes by days after the day on which it was expected; all of it is `owed`."""

    partner: str
    programme: str
    not_due: MoneyOut
    days_1_to_7: MoneyOut
    days_8_to_30: MoneyOut
    days_31_to_90: MoneyOut
    over_90_days: MoneyOut
    owed: MoneyOut
    credits: MoneyOut


class AgeingsOut(Out):
    """Partners with something owed, or a credit."""

    data: list[AgeingOut]


@router.get("", operation_id="list_settlements", summary="List settlements", responses=errors())
def list_settlements(
    call: Reading,
    partner: PartnerQuery = None,
    state: State | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[SettlementOut]:
    """Settlements in the order in which they were recorded; a partner's own."""
    after = call.read_position(cursor, "settlements", partner=partner, state=state)
    rows = reading.settlements(
        call.tx,
        partner_id=_whose(call, partner),
        state=state,
        after=after,
        limit=limit + 1,
    )
    last = rows[limit - 1].position if len(rows) > limit else None
    return Page(
        data=[_shown(row) for row in rows[:limit]],
        next_cursor=call.write_position(last, "settlements", partner=partner, state=state),
    )


@router.post(
    "",
    operation_id="record_settlement",
    summary="Record what a partner paid in",
    status_code=201,
    response_model=SettlementOut,
    responses={
        200: {"model": SettlementOut, "description": "It was on record already.", **REPLAYED},
        201: REPLAYED,
        **errors(409),
    },
)
def record(body: SettlementIn, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Record a payment and pair it: what was pending becomes the members' savings, and the match it earned is granted.

    The oldest contributions are paid first, each whole. A long list is paired in the background.
    """

    def effect() -> tuple[int, SettlementOut]:
        partner = _partner(call, body.partner, body.amount.currency)
        listed = body.remittances
        done = record_settlement(
            call.tx,
            call.services.books,
            partner,
            currency=body.amount.currency,
            amount=body.amount.amount,
            through=body.through,
            since=body.since,
            remittances=None if listed is None else [path_id("rmt", one) for one in listed],
            reference=body.reference,
        )
        found = reading.settlement(call.tx, done.id, partner_id=None)
        if not done.replayed:
            call.audit(
                "settlement.recorded",
                public_id("stl", done.id),
                programme_id=found.programme_id,
                partner=found.partner,
                amount=done.amount,
                currency=done.currency,
            )
        return (200 if done.replayed else 201), _shown(found)

    return call.once(idempotency_key, "record_settlement", effect)


@router.get(
    "/obligations", operation_id="list_obligations", summary="Read what partners owe", responses=errors()
)
def list_obligations(
    call: Reading,
    partner: PartnerQuery = None,
    since: Day | None = None,
    through: Day | None = None,
    everything: Annotated[
        bool, Query(description="also days on which nothing is owed; needs `since` and `through`")
    ] = False,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> ObligationsOut:
    """What partners collected and owe by fund, day and currency, oldest day first, and when it is expected."""
    filters = {"partner": partner, "since": since, "through": through, "everything": everything}
    at = call.read_cursor(cursor, "obligations", **filters)
    whose = _whose(call, partner)
    found = owing.obligations(
        call.tx, call.services.clock, whose, since=since, through=through, everything=everything
    )
    keyed = [
        ([str(one.collected_on), one.partner, one.programme, one.fund, str(one.expected_on)], one)
        for one in found
    ]
    after = [str(part) for part in at] if at else []
    rest = [(key, one) for key, one in keyed if key > after]
    page = rest[:limit]
    return ObligationsOut(
        data=[_obligation(one) for _, one in page],
        next_cursor=call.write_cursor(
            [*page[-1][0]] if len(rest) > limit else None, "obligations", **filters
        ),
        credits=[
            CreditOut(
                partner=one.partner,
                programme=one.programme,
                fund=one.fund,
                amount=MoneyOut.of(one.amount, one.currency),
            )
            for one in owing.standing_credits(call.tx, whose)
        ],
    )


@router.get("/ageing", operation_id="list_ageing", summary="Read how late partners are", responses=errors())
def list_ageing(call: Reading, partner: PartnerQuery = None) -> AgeingsOut:
    """What each partner owes by how many days it is late, and its credits."""
    return AgeingsOut(
        data=[_aged(one) for one in owing.ageing(call.tx, call.services.clock, _whose(call, partner))]
    )


@router.get("/{settlement}", operation_id="get_settlement", summary="Read a settlement", responses=errors())
def get_settlement(settlement: SettlementId, call: Reading) -> SettlementOut:
    """A settlement and how far it is paired."""
    return _shown(_found(call, settlement))


@router.get(
    "/{settlement}/contributions",
    operation_id="list_settled_contributions",
    summary="List what a settlement paid for",
    responses=errors(),
)
def list_settled_contributions(
    settlement: SettlementId, call: Reading, limit: Limit = LIMIT_DEFAULT, cursor: CursorText = None
) -> Page[PaidForOut]:
    """The contributions that a settlement paid for, as it paired them; none once it is returned: they are owed again."""
    at = call.read_cursor(cursor, "settled_contributions", settlement=settlement)
    rows = reading.paid_for(
        call.tx,
        _found(call, settlement).id,
        after=(int(at[0]), UUID(str(at[1])), int(at[2])) if at else None,
        limit=limit + 1,
    )
    last = rows[limit - 1][0] if len(rows) > limit else None
    return Page(
        data=[_paid_for(one) for _, one in rows[:limit]],
        next_cursor=call.write_cursor(
            [last[0], str(last[1]), last[2]] if last else None, "settled_contributions", settlement=settlement
        ),
    )


@router.post(
    "/{settlement}/return",
    operation_id="request_settlement_return",
    summary="Ask for a settlement to be returned",
    status_code=202,
    response_model=ApprovalOut,
    responses={202: REPLAYED, **errors(409)},
)
def request_settlement_return(
    settlement: SettlementId, body: ReturnIn, call: Writing, idempotency_key: KeyHeader = None
) -> Response:
    """Ask for a settlement that the bank took back to be taken back, when another manager approves.

    Its contributions are pending again then, match that was granted is committed again, and the partner owes them again.
    """
    return call.once(
        idempotency_key,
        "request_settlement_return",
        lambda: (
            202,
            shown_out(
                request_return(
                    call.tx,
                    call.services,
                    call.actor,
                    path_id("stl", settlement),
                    body.reason,
                    origin=origin_of(call),
                )
            ),
        ),
    )


def _whose(call: Call, partner: str | None) -> UUID | None:
    """The partner that is asked about: a partner's client asks about itself alone, staff about one or all."""
    if partner is None:
        return call.actor.partner_id
    found = partners.find(call.tx, partner)
    if call.actor.partner_id not in (None, found.id):
        raise NotFound("There is no such partner.")
    return found.id


def _found(call: Call, settlement: str) -> Read:
    return reading.settlement(call.tx, path_id("stl", settlement), partner_id=call.actor.partner_id)


def _partner(call: Call, slug: str, currency: str) -> partners.Partner:
    """The partner, if it collects for a programme that the caller's role is for: the worker's role sees every one."""
    found = partners.find(call.tx, slug)
    limits = call.actor.sight(("settlements:write",)).programmes
    if limits is not None and not limits & partners.programmes_of(call.tx, found.id, currency):
        raise NotFound("There is no such partner.")
    return found


def _shown(one: Read) -> SettlementOut:
    return SettlementOut(
        id=public_id("stl", one.id),
        partner=one.partner,
        programme=one.programme,
        reference=one.reference,
        kind=one.kind,
        state=one.state,
        amount=MoneyOut.of(one.amount, one.currency),
        since=one.since,
        through=one.through,
        paired=MoneyOut.of(one.paired, one.currency),
        fees=MoneyOut.of(one.fees, one.currency),
        credits=MoneyOut.of(one.credits, one.currency),
        unidentified=MoneyOut.of(one.unidentified, one.currency),
        topped_up=MoneyOut.of(one.topped_up, one.currency),
        carried=MoneyOut.of(one.carried, one.currency),
        contributions=one.contributions,
        effective_on=one.effective_on,
        recorded_at=one.recorded_at,
        returned_on=one.returned_on,
        return_reason=one.return_reason,
    )


def _paid_for(one: PaidFor) -> PaidForOut:
    return PaidForOut(
        remittance=public_id("rmt", one.remittance),
        remittance_id=one.remittance_id,
        fund=one.fund,
        product=one.product,
        amount=MoneyOut.of(one.amount, one.currency),
        fee=MoneyOut.of(one.fee, one.currency),
        collected_on=one.collected_on,
        state=one.state,
    )


def _obligation(one: owing.Obligation) -> ObligationOut:
    return ObligationOut(
        partner=one.partner,
        programme=one.programme,
        fund=one.fund,
        collected_on=one.collected_on,
        collected=MoneyOut.of(one.amounts.collected, one.currency),
        reversed=MoneyOut.of(one.amounts.reversed, one.currency),
        settled=MoneyOut.of(one.amounts.settled, one.currency),
        fees=MoneyOut.of(one.amounts.fees, one.currency),
        owed=MoneyOut.of(one.amounts.owed, one.currency),
        expected_on=one.expected_on,
        days_overdue=one.days_overdue,
    )


def _aged(one: owing.Ageing) -> AgeingOut:
    not_due, week, month, quarter, older = (
        MoneyOut.of(one.by_bucket[name], one.currency) for name in BUCKETS
    )
    return AgeingOut(
        partner=one.partner,
        programme=one.programme,
        not_due=not_due,
        days_1_to_7=week,
        days_8_to_30=month,
        days_31_to_90=quarter,
        over_90_days=older,
        owed=MoneyOut.of(one.owed, one.currency),
        credits=MoneyOut.of(one.credits, one.currency),
    )
