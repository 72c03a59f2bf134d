"""Rails: what each pays, costs and allows, how it does, and what it said."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.deps import Call, calling, writing
from api.idempotency import KeyHeader
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.finding import require_programme
from api.v1.schemas import REPLAYED, ROUTE_CLASS, Instant, MoneyOut, Out, Page, errors
from ledger.ids import public_id
from products.members.payees import Rail as PayeeKind
from products.payouts import queries, registry
from products.payouts.health import Health, health_of
from products.payouts.queries import KeptReport
from products.payouts.registry import ConfiguredRail
from products.payouts.terms import ArrivalUnit, FeeBearer

router = APIRouter(prefix="/v1/rails", tags=["rails"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("rails:read")]
Writing = Annotated[Call, writing("rails:write")]
RailSlug = Annotated[str, Path(max_length=63, description="the rail's name", examples=["simulated-ejoheza"])]


class RailFeeOut(Out):
    """What a payout costs: a fixed amount, and a share of it, rounded up."""

    fixed: MoneyOut
    basis_points: int
    bearer: FeeBearer


class RailArrivalOut(Out):
    """How long the money takes; business days are those of all the countries together."""

    unit: ArrivalUnit
    earliest: int
    latest: int
    countries: list[str]


class RailLimitsOut(Out):
    """What may be asked of the rail; null is no limit."""

    amount_min: MoneyOut
    amount_max: MoneyOut | None
    per_member_day: MoneyOut | None
    per_day: MoneyOut | None
    release_above: Annotated[MoneyOut | None, Field(description="two operators release more than this")]
    queue_max: int


class BreakerOut(Out):
    """Whether the rail is called: `open` after several calls in a row that the network failed."""

    state: Literal["closed", "open"]
    failures: int
    last_failure: str | None
    opened_at: Instant | None


class RailOut(Out):
    """A rail, its terms, and how it does."""

    slug: str
    kind: str
    currency: str
    payee_kinds: list[PayeeKind]
    checks_payees: bool
    funded: Literal["bank", "float"]
    fee: RailFeeOut
    arrival: RailArrivalOut
    limits: RailLimitsOut
    paused_at: Instant | None
    breaker: BreakerOut
    queued: Annotated[int, Field(description="approved payouts that wait for it")]
    under_way: Annotated[int, Field(description="payouts that were sent off and are not final")]
    unknown: Annotated[int, Field(description="of those, payouts that may be there or not")]
    created_at: Instant


class RailsOut(Out):
    """Every rail, by name."""

    data: list[RailOut]


class RailReportOut(Out):
    """What a rail said, beyond the answer that it was asked for."""

    id: Annotated[str, Field(examples=[f"rpt_{'0' * 26}"])]
    source: Literal["answer", "callback", "file", "hand"]
    payout: str | None
    sending: str | None
    rail_reference: str | None
    said: str
    reason: str | None
    code: str | None
    at: Instant | None
    amount: MoneyOut | None
    state: Annotated[
        Literal["applied", "repeated", "outdated", "unmatched", "contradicts"],
        Field(description="what became of it"),
    ]
    problem: str | None
    received_at: Instant


ReportState = Literal["applied", "repeated", "outdated", "unmatched", "contradicts"]


@router.get("", operation_id="list_rails", summary="List rails", responses=errors())
def list_rails(call: Reading) -> RailsOut:
    """Rails of the programmes that the caller sees."""
    rails = registry.rails(call.tx)
    healths = health_of(call.tx, [rail.id for rail in rails])
    return RailsOut(data=[_shown(rail, healths[rail.id]) for rail in rails])


@router.get("/{rail}", operation_id="get_rail", summary="Read a rail", responses=errors())
def get_rail(rail: RailSlug, call: Reading) -> RailOut:
    """One rail."""
    return _one(call, rail)


@router.get(
    "/{rail}/reports", operation_id="list_rail_reports", summary="Read what a rail said", responses=errors()
)
def list_rail_reports(
    rail: RailSlug,
    call: Reading,
    state: Annotated[ReportState | None, Query(description="what became of it")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[RailReportOut]:
    """What the rail said beyond answers, the newest first: evidence, and what nothing is known for."""
    at = call.read_cursor(cursor, "rail_reports", rail=rail, state=state)
    rows = queries.kept_reports(
        call.tx,
        rail_id=registry.find(call.tx, rail).id,
        outcome=state,
        after=UUID(str(at[0])) if at else None,
        limit=limit + 1,
    )
    last = rows[limit - 1].id if len(rows) > limit else None
    return Page(
        data=[_report(row) for row in rows[:limit]],
        next_cursor=call.write_cursor([str(last)] if last else None, "rail_reports", rail=rail, state=state),
    )


@router.post(
    "/{rail}/pause",
    operation_id="pause_rail",
    summary="Pause a rail",
    response_model=RailOut,
    responses={200: REPLAYED, **errors(409)},
)
def pause_rail(rail: RailSlug, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Stop sending through a rail: what is approved waits in its queue; what is under way goes on being asked about."""
    return call.once(idempotency_key, "pause_rail", lambda: (200, _paused(call, rail, paused=True)))


@router.post(
    "/{rail}/resumption",
    operation_id="resume_rail",
    summary="Resume a rail",
    response_model=RailOut,
    responses={200: REPLAYED, **errors(409)},
)
def resume_rail(rail: RailSlug, call: Writing, idempotency_key: KeyHeader = None) -> Response:
    """Go on sending through a rail that was paused."""
    return call.once(idempotency_key, "resume_rail", lambda: (200, _paused(call, rail, paused=False)))


def _paused(call: Call, slug: str, *, paused: bool) -> RailOut:
    found = registry.find(call.tx, slug)
    require_programme(call, "rails:write", found.programme_id, registry.unknown(slug))
    registry.pause(call.tx, slug, paused=paused, clock=call.services.clock)
    call.audit("rail.paused" if paused else "rail.resumed", slug, programme_id=found.programme_id)
    return _one(call, slug)


def _one(call: Call, slug: str) -> RailOut:
    found = registry.find(call.tx, slug)
    return _shown(found, health_of(call.tx, [found.id])[found.id])


def _shown(rail: ConfiguredRail, health: Health) -> RailOut:
    def money(amount: int | None) -> MoneyOut | None:
        return None if amount is None else MoneyOut.of(amount, rail.currency)

    limits = rail.limits
    return RailOut(
        slug=rail.slug,
        kind=rail.kind,
        currency=rail.currency,
        payee_kinds=list(rail.payee_kinds),
        checks_payees=rail.checks_payees,
        funded="bank" if rail.funded == "bank" else "float",
        fee=RailFeeOut(
            fixed=MoneyOut.of(rail.fee.fixed, rail.currency),
            basis_points=rail.fee.basis_points,
            bearer=rail.fee.bearer,
        ),
        arrival=RailArrivalOut(
            unit=rail.arrival.unit,
            earliest=rail.arrival.earliest,
            latest=rail.arrival.latest,
            countries=list(rail.arrival.countries),
        ),
        limits=RailLimitsOut(
            amount_min=MoneyOut.of(limits.amount_min, rail.currency),
            amount_max=money(limits.amount_max),
            per_member_day=money(limits.per_member_day),
            per_day=money(limits.per_day),
            release_above=money(limits.release_above),
            queue_max=limits.queue_max,
        ),
        paused_at=rail.paused_at,
        breaker=BreakerOut(
            state="closed" if health.opened_at is None else "open",
            failures=health.failures,
            last_failure=health.last_failure,
            opened_at=health.opened_at,
        ),
        queued=health.queued,
        under_way=health.under_way,
        unknown=health.unknown,
        created_at=rail.created_at,
    )


def _report(kept: KeptReport) -> RailReportOut:
    report = kept.report
    amount = (
        MoneyOut.of(report.amount, report.currency)
        if report.amount is not None and report.currency is not None
        else None
    )
    return RailReportOut(
        id=public_id("rpt", kept.id),
        source=kept.source,
        payout=public_id("pay", kept.payout_id) if kept.payout_id is not None else None,
        sending=str(report.attempt) if report.attempt is not None else None,
        rail_reference=report.rail_reference,
        said=report.state,
        reason=report.reason,
        code=report.code,
        at=report.at,
        amount=amount,
        state=kept.outcome,
        problem=kept.problem,
        received_at=kept.received_at,
    )
