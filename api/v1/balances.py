"""What a member has, what moved, the proof of it, and why."""

from dataclasses import replace
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.csv_export import CSV, AsCsv
from api.deps import Call, calling, path_id
from api.pagination import LIMIT_DEFAULT, CursorText, Limit
from api.v1.finding import found
from api.v1.ledger import LineOut, statement_of
from api.v1.schemas import ROUTE_CLASS, Day, MemberId, MoneyOut, Out, Page, errors
from ledger import listing
from ledger.balances import balances as present_balances
from ledger.errors import NotFound
from ledger.ids import public_id
from ledger.receipts import receipt
from products.members import enrolments
from products.members.models import AccountHolder, Member
from products.members.registry import find_account_holder
from products.remittals.queries import explain_unapplied
from products.savings import queries
from products.savings.queries import MemberBalances, ProductBalance
from products.savings.rules import local_date
from products.savings.whole import see_whole, whole_balances
from products.savings.withdrawals import facts_open_ways

router = APIRouter(prefix="/v1/members/{member}", tags=["balances"], route_class=ROUTE_CLASS)

Reading = Annotated[Call, calling("balances:read")]
Part = Literal["pending", "settled", "match_unvested", "match_vested", "unapplied"]


class LockedOut(Out):
    """What is saved and can't leave yet, and why."""

    amount: MoneyOut
    reason: str
    until: Day | None


class MatchOut(Out):
    """The match: entitled = committed + unvested + vested + awaiting funds."""

    entitled: MoneyOut
    committed: MoneyOut
    unvested: MoneyOut
    vested: MoneyOut
    awaiting_funds: MoneyOut


class ProductBalanceOut(Out):
    """A member's money in one product; contributed = pending + settled."""

    product: str
    contributed: MoneyOut
    pending: MoneyOut
    settled: MoneyOut
    held: MoneyOut
    available: MoneyOut
    locked: list[LockedOut]
    match: MatchOut


class BalancesOut(Out):
    """Everything that a member has."""

    member: Annotated[str, Field(examples=[f"mem_{'0' * 26}"])]
    as_of: Day
    products: list[ProductBalanceOut]
    unapplied: Annotated[MoneyOut, Field(description="collected for the member, in no product yet")]
    total: MoneyOut


@router.get(
    "/balances",
    operation_id="get_balances",
    summary="Read balances",
    response_model=BalancesOut,
    responses=errors(),
)
def get_balances(
    member: MemberId,
    call: Reading,
    as_of: Annotated[Day | None, Query(description="the end of this day in the books; absent: now")] = None,
) -> Response:
    """What the member has in each product, now or at the end of a past day."""
    holder = find_account_holder(call.tx, call.services.keyring, path_id("mem", member), call.now)
    programmes = call.services.books.programmes
    versions = programmes.versions(call.tx, holder.programme_id)
    if any(facts_open_ways(version.programme) for version in versions):
        holder = replace(holder, facts=found(call, member).facts)
    today = local_date(versions[-1].programme, call.now)
    if as_of is not None and as_of >= today:
        as_of = None  # the day is not over: it ends in what there is now
    members = _whole(call, holder)
    shown = whole_balances(call.tx, programmes, holder, members, today=today, as_of=as_of, versions=versions)
    # rendered here: FastAPI would validate it once more, in one more thread
    return Response(rendered(holder, shown).model_dump_json(), media_type="application/json")


@router.get(
    "/statement",
    operation_id="get_statement",
    summary="Read a statement",
    response_model=Page[LineOut],
    responses={200: CSV, **errors()},
)
def get_statement(
    member: MemberId,
    call: Reading,
    as_csv: AsCsv,
    product: Annotated[
        str | None, Query(max_length=64, description="absent: the first that the member joined")
    ] = None,
    part: Annotated[Part, Query(description="which of the member's accounts")] = "settled",
    limit: Limit = LIMIT_DEFAULT,
    cursor: CursorText = None,
) -> Page[LineOut] | Response:
    """What moved on one of the member's accounts, newest first, each line with the balance after it."""
    account = _account(call, found(call, member), product, part)
    return statement_of(call, "member_statement", account, limit, cursor, as_csv=as_csv)


@router.get(
    "/receipts/{transaction}",
    operation_id="get_receipt",
    summary="Read a receipt",
    response_model=dict[str, Any],
    responses=errors(),
)
def get_receipt(
    member: MemberId,
    transaction: Annotated[str, Path(max_length=64, description="a transaction's id, `txn_…`")],
    call: Reading,
) -> dict[str, Any]:
    """The proof that one of the member's transactions stands in the sealed books; `pending` until it is sealed."""
    person = found(call, member)
    transaction_id = path_id("txn", transaction)
    if not listing.touches(call.tx, transaction_id, enrolments.accounts_of(call.tx, person.member_id)):
        raise NotFound("There is no such transaction of this member.")
    # A leaf covers postings that are not the member's (the sponsor's), and a path the leaves of others: what may be seen
    # was judged above, and what row-level security would leave out of either makes a receipt that proves nothing.
    with call.services.worker.read() as whole:
        return receipt(whole, transaction_id).to_json()


@router.get(
    "/explanations/{subject}",
    operation_id="explain",
    summary="Ask why",
    response_model=dict[str, Any],
    responses=errors(),
)
def explain(
    member: MemberId,
    subject: Annotated[
        str,
        Path(
            max_length=80,
            description="a remittance, `rmt_…`, a product's match, `match:{product}`, or its ways out,"
            " `withdrawal:{product}`, or what is `unapplied`",
        ),
    ],
    call: Reading,
) -> dict[str, Any]:
    """Why a remittance was split and matched as it was, a match stands where it stands, or money may leave or not.

    `unapplied`: what an agency returned of the member's contributions, and why it did.
    """
    person = found(call, member)
    programmes = call.services.books.programmes
    if subject == "unapplied":
        account = enrolments.unapplied_account(call.tx, person.member_id)
        [held] = present_balances(call.tx, [account]).values()
        return explain_unapplied(call.tx, person.member_id, held.posted, held.currency)
    kind, _, product = subject.partition(":")
    if kind == "match" and product:
        return queries.explain_match(call.tx, programmes, person, product, on=_today(call, person))
    if kind == "withdrawal" and product:
        return queries.explain_withdrawal(call.tx, programmes, person, product, on=_today(call, person))
    return queries.explain_remittance(call.tx, programmes, person, path_id("rmt", subject))


def _whole(call: Call, holder: AccountHolder) -> list[UUID]:
    """The members of the person that the caller may see as one account: all, where they consented to that, or this one."""
    if call.actor.partner_id is None or not holder.shows_whole:
        return [holder.member_id]
    return see_whole(call.tx, holder)


def _today(call: Call, person: Member) -> date:
    versions = call.services.books.programmes.versions(call.tx, person.programme_id)
    return local_date(versions[-1].programme, call.now)


def _account(call: Call, person: Member, product: str | None, part: Part) -> UUID:
    if part == "unapplied":
        return enrolments.unapplied_account(call.tx, person.member_id)
    for enrolment in enrolments.enrolments_of(call.tx, person.member_id):
        if product in (None, enrolment.product):
            accounts = enrolments.accounts_of_enrolment(call.tx, enrolment.id)
            if accounts is not None:
                return {
                    "pending": accounts.pending,
                    "settled": accounts.savings,
                    "match_unvested": accounts.unvested,
                    "match_vested": accounts.vested,
                }[part]
    raise NotFound("The member has no such account.")


def rendered(person: Member | AccountHolder, shown: MemberBalances) -> BalancesOut:
    """Balances in the API's shape."""

    def money(amount: int) -> MoneyOut:
        return MoneyOut.of(amount, shown.currency)

    def product(one: ProductBalance) -> ProductBalanceOut:
        return ProductBalanceOut(
            product=one.product,
            contributed=money(one.contributed),
            pending=money(one.pending),
            settled=money(one.settled),
            held=money(one.held),
            available=money(one.available),
            locked=[
                LockedOut(amount=money(lock.amount), reason=lock.reason, until=lock.until)
                for lock in one.locked
            ],
            match=MatchOut(
                entitled=money(one.match.entitled),
                committed=money(one.match.committed),
                unvested=money(one.match.unvested),
                vested=money(one.match.vested),
                awaiting_funds=money(one.match.awaiting_funds),
            ),
        )

    return BalancesOut(
        member=public_id("mem", person.link_id),
        as_of=shown.as_of,
        products=[product(one) for one in shown.products],
        unapplied=money(shown.unapplied),
        total=money(shown.total),
    )
