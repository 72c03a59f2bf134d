"""The chart of accounts: every account code, its kind, its limits, and in which fund it lies.

Source: the posting table of the design ("What each event posts"). Funds are one per programme for the savers and
one for agency collections, one per pool, and one for the administrator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import AccountKind, AccountSpec, open_accounts, open_fund
from ledger.database import Tx
from products.programmes.model import Product, Programme

SAVERS = "savers"
AGENCY = "agency"
ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Code:
    """One line of the chart. ``hot`` accounts are shared by many events and locked last; ``floor`` is in minor units."""

    name: str
    kind: AccountKind
    hot: bool = False
    floor: int | None = None


BANK = Code("bank", "asset", hot=True)
UNIDENTIFIED_RECEIPTS = Code("unidentified_receipts", "liability", hot=True, floor=0)
PARTNER_RECEIVABLE = Code("partner_receivable", "asset", hot=True)
PARTNER_PREFUND = Code("partner_prefund", "liability", hot=True, floor=0)
GUARANTOR_RECEIVABLE = Code("guarantor_receivable", "asset")
UNALLOCATED = Code("unallocated_contributions", "liability", hot=True, floor=0)
SPONSOR_UNCOMMITTED = Code("sponsor_uncommitted", "liability", hot=True, floor=0)
SPONSOR_COMMITTED = Code("sponsor_committed", "liability", hot=True, floor=0)
SPONSOR_RECEIVABLE = Code("sponsor_receivable", "asset", hot=True)
BANK_CLEARING = Code("bank_clearing", "liability", hot=True, floor=0)
AGENCY_COLLECTED = Code("agency_contributions_collected", "liability", hot=True, floor=0)
UNEARNED_CONTRIBUTIONS = Code("unearned_contributions", "liability", hot=True, floor=0)
DUE_TO_FUNDS = Code("due_to_funds", "liability", hot=True)
DUE_FROM_FUNDS = Code("due_from_funds", "asset", hot=True)

CONTRIBUTIONS_PENDING = Code("member_contributions_pending", "liability", floor=0)
MEMBER_SAVINGS = Code("member_savings", "liability", floor=0)
MATCH_UNVESTED = Code("match_unvested", "liability", floor=0)
MATCH_VESTED = Code("match_vested", "liability", floor=0)
MEMBER_UNAPPLIED = Code("member_unapplied", "liability", floor=0)
MEMBER_RECEIVABLE = Code("member_receivable", "asset")

PAYOUT_CLEARING = Code("payout_clearing", "liability", hot=True, floor=0)
RAIL_FLOAT = Code("rail_float", "asset", hot=True)
PAYOUT_CHARGES = Code("payout_charges", "expense", hot=True)
FEES_PAYABLE = Code("fees_payable", "liability", hot=True)

RETURN_FOR_ALLOCATION = Code("return_for_allocation", "liability", hot=True)
FORFEITED_MATCH = Code("forfeited_match", "income", hot=True)

CONVERSION = Code("conversion", "asset", hot=True)
MIGRATION_CONTROL = Code("migration_control", "equity", hot=True)

BANK_CHARGES = Code("bank_charges", "expense", hot=True)
ADMINISTRATOR_COST = Code("administrator_cost", "expense", hot=True)
CREDIT_LOSS = Code("credit_loss", "expense", hot=True)

COLLECTED = {"agency": AGENCY_COLLECTED, "pool": UNEARNED_CONTRIBUTIONS}
"""The account that contributions enter whose destination is not the savers' fund, one per agency or pool."""


@dataclass(frozen=True, slots=True)
class EnrolmentAccounts:
    """The ledger accounts of one enrolment in a savings product, all in the savers' fund."""

    pending: UUID
    savings: UUID
    unvested: UUID
    vested: UUID


@dataclass(frozen=True, slots=True)
class MemberAccounts:
    """The ledger accounts of one member that belong to no product."""

    unapplied: UUID
    receivable: UUID


def fund_role(product: Product) -> str:
    """In which of the programme's funds the product's contributions lie: savers, agency or its own pool."""
    kind = product.destination.kind
    return f"pool:{product.destination.code}" if kind == "pool" else kind


def open_programme_funds(tx: Tx, programme_id: UUID, programme: Programme) -> dict[str, UUID]:
    """Open the programme's funds, each with its bank and cash accounts; where done before, it changes nothing."""
    known = programme_funds(tx, programme_id)
    roles = [SAVERS, *dict.fromkeys(fund_role(product) for product in programme.products)]
    for role in dict.fromkeys(roles):
        if role not in known:
            fund = open_fund(tx, f"{programme.slug}/{role}", f"{programme.name}: {role}", programme.time_zone)
            tx.execute(
                text("INSERT INTO products.programme_fund VALUES (:programme, :role, :fund)"),
                {"programme": programme_id, "role": role, "fund": fund},
            )
            known[role] = fund
        shared = [BANK, UNIDENTIFIED_RECEIPTS, DUE_TO_FUNDS, DUE_FROM_FUNDS]
        if role == AGENCY:
            shared.append(BANK_CLEARING)
        open_accounts(tx, [spec(code, known[role], "", programme.currency) for code in shared])
    open_accounts(
        tx,
        [
            spec(
                COLLECTED[product.destination.kind],
                known[fund_role(product)],
                product.destination.code,
                product.currency,
            )
            for product in programme.products
            if product.destination.kind in COLLECTED
        ],
    )
    return known


def open_administrator_fund(tx: Tx, slug: str, name: str, time_zone: str, currency: str) -> UUID:
    """Open the administrator's fund of a programme, which bears its costs and losses; where done before, it stays.

    It is not one of the funds that partners pay into (`programme_funds`): what it owes them lies in due-to and due-from.
    """
    fund = open_fund(tx, f"{slug}/{ADMINISTRATOR}", f"{name}: {ADMINISTRATOR}", time_zone)
    shared = [BANK, DUE_TO_FUNDS, DUE_FROM_FUNDS, ADMINISTRATOR_COST, CREDIT_LOSS]
    open_accounts(tx, [spec(code, fund, "", currency) for code in shared])
    return fund


def programme_funds(tx: Tx, programme_id: UUID) -> dict[str, UUID]:
    """The programme's funds by role."""
    rows = tx.execute(
        text("SELECT role, fund_id FROM products.programme_fund WHERE programme_id = :id"),
        {"id": programme_id},
    )
    return {row.role: row.fund_id for row in rows}


def open_partner_accounts(
    tx: Tx, funds: dict[str, UUID], slug: str, partner_id: UUID, currency: str, exposure_ceiling: int | None
) -> None:
    """Open what one partner needs in each fund of a programme. ``exposure_ceiling`` limits what it may owe, per fund."""
    specs = []
    for role, fund in funds.items():
        specs.append(spec(PARTNER_RECEIVABLE, fund, slug, currency, partner_id, ceiling=exposure_ceiling))
        if role == SAVERS:
            specs.append(spec(PARTNER_PREFUND, fund, slug, currency, partner_id))
            specs.append(spec(UNALLOCATED, fund, slug, currency, partner_id))
    open_accounts(tx, specs)


def open_sponsor_accounts(tx: Tx, fund: UUID, slug: str, currency: str) -> tuple[UUID, UUID, UUID]:
    """Open a sponsor's uncommitted, committed and receivable accounts in the fund that it finances."""
    codes = (SPONSOR_UNCOMMITTED, SPONSOR_COMMITTED, SPONSOR_RECEIVABLE)
    uncommitted, committed, receivable = open_accounts(
        tx, [spec(code, fund, slug, currency) for code in codes]
    )
    return uncommitted, committed, receivable


def open_enrolment_accounts(
    tx: Tx, savers: UUID, currency: str, enrolments: Sequence[tuple[UUID, UUID]]
) -> list[EnrolmentAccounts]:
    """Open the accounts of savings enrolments, given as (enrolment id, partner id); set-based."""
    codes = (CONTRIBUTIONS_PENDING, MEMBER_SAVINGS, MATCH_UNVESTED, MATCH_VESTED)
    ids = open_accounts(
        tx,
        [
            spec(code, savers, enrolment.hex, currency, partner)
            for enrolment, partner in enrolments
            for code in codes
        ],
    )
    return [EnrolmentAccounts(*ids[i : i + 4]) for i in range(0, len(ids), 4)]


def open_member_accounts(
    tx: Tx, savers: UUID, currency: str, members: Sequence[tuple[UUID, UUID]]
) -> list[MemberAccounts]:
    """Open the accounts of members outside any product, given as (member id, partner id); set-based."""
    codes = (MEMBER_UNAPPLIED, MEMBER_RECEIVABLE)
    ids = open_accounts(
        tx,
        [spec(code, savers, member.hex, currency, partner) for member, partner in members for code in codes],
    )
    return [MemberAccounts(*ids[i : i + 2]) for i in range(0, len(ids), 2)]


def spec(
    code: Code,
    fund: UUID,
    owner: str,
    currency: str,
    partner_id: UUID | None = None,
    *,
    ceiling: int | None = None,
) -> AccountSpec:
    """The account that a line of the chart means for one owner in one fund."""
    return AccountSpec(
        fund_id=fund,
        code=code.name,
        owner=owner,
        kind=code.kind,
        currency=currency,
        hot=code.hot,
        floor=code.floor,
        ceiling=ceiling,
        partner_id=partner_id,
    )
