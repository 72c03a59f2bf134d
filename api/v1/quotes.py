"""Quotes: what a remittance would mean for a member, to show before the migrant pays."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from api.deps import Call, writing
from api.idempotency import KeyHeader
from api.problems import ProblemError
from api.v1.remittances import MemberKeyIn
from api.v1.schemas import REPLAYED, ROUTE_CLASS, Country, In, Instant, MoneyIn, MoneyOut, Out, errors
from ledger.ids import public_id
from products.remittances import quoting
from products.remittances.outcomes import told
from products.remittances.quoting import NotQuotable, Offer

router = APIRouter(prefix="/v1/quotes", tags=["remittances"], route_class=ROUTE_CLASS)


class QuoteIn(In):
    """A remittance that the migrant may send."""

    member: MemberKeyIn
    sent: MoneyIn
    received: MoneyIn
    origin_country: Country
    destination_country: Country


class QuotedPart(Out):
    """What a product would get, and by how much its match would grow."""

    product: str
    amount: MoneyOut
    entitled: MoneyOut


class QuoteOut(Out):
    """What to collect and where it would go; for one remittance paid before it expires."""

    id: Annotated[str, Field(examples=[f"quo_{'0' * 26}"])]
    member: str
    received: MoneyOut
    collect: Annotated[MoneyOut, Field(description="in the programme's currency")]
    collect_sent: Annotated[MoneyOut, Field(description="the same in the currency sent, rounded up")]
    allocations: list[QuotedPart]
    unapplied: MoneyOut
    expires_at: Instant


@router.post(
    "",
    operation_id="create_quote",
    summary="Quote a remittance",
    status_code=201,
    response_model=QuoteOut,
    responses={201: REPLAYED, **errors(409)},
)
def create_quote(
    body: QuoteIn,
    call: Annotated[Call, writing("quotes:write")],
    idempotency_key: KeyHeader = None,
) -> Response:
    """Say what a remittance would mean. Bound to partner, member and amount; used once; judged by when they paid."""

    def effect() -> tuple[int, QuoteOut]:
        try:
            offer = quoting.give(
                call.tx,
                call.services.books,
                call.partner,
                member=body.member.key(),
                sent=body.sent.money(),
                received=body.received.money(),
                origin_country=body.origin_country,
                destination_country=body.destination_country,
                valid_for=timedelta(seconds=call.services.settings.quote_seconds),
            )
        except NotQuotable as refused:
            raise ProblemError("quote_refused", told(refused.code), reason=refused.code) from refused
        return 201, _shown(offer)

    return call.once(idempotency_key, "create_quote", effect)


def _shown(offer: Offer) -> QuoteOut:
    currency = offer.collect.currency
    return QuoteOut(
        id=public_id("quo", offer.id),
        member=public_id("mem", offer.link_id),
        received=MoneyOut.of(offer.received.amount, offer.received.currency),
        collect=MoneyOut.of(offer.collect.amount, currency),
        collect_sent=MoneyOut.of(offer.collect_sent.amount, offer.collect_sent.currency),
        allocations=[
            QuotedPart(
                product=part.product,
                amount=MoneyOut.of(part.amount, currency),
                entitled=MoneyOut.of(part.entitled, currency),
            )
            for part in offer.parts
        ],
        unapplied=MoneyOut.of(offer.unapplied.amount, currency),
        expires_at=offer.expires_at,
    )
