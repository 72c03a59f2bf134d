"""Requests that touch the books: manual transactions, write-offs, vested match that falls, periods reopened."""

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from typing import Final
from uuid import UUID

from sqlalchemy import text

from api.approvals.service import NOWHERE, Origin, Payload, Request, Stale, file, register
from api.auth.actors import Actor
from api.auth.scopes import Role
from api.bootstrap import Services
from ledger import periods
from ledger.database import Tx
from ledger.errors import InvalidInput, MizanError, NotFound
from ledger.ids import new_id, parse_public_id, public_id
from ledger.posting import Outcome, Posting, Transaction, post
from products import chart
from products.remittances import partners
from products.savings import adjustments
from products.settlements import default

MANAGERS: Final[frozenset[Role]] = frozenset({"manager"})
ADJUSTMENTS_MAX: Final = 200

DERIVED: Final = frozenset(
    code.name
    for code in (
        chart.CONTRIBUTIONS_PENDING,
        chart.MATCH_UNVESTED,
        chart.MATCH_VESTED,
        chart.SPONSOR_COMMITTED,
        chart.PARTNER_RECEIVABLE,
        chart.UNALLOCATED,
    )
)
"""Accounts that hold exactly what the products' records come to: a posting by hand would make the two disagree."""

MEMBERS_OWN: Final = frozenset(
    code.name for code in (chart.MEMBER_SAVINGS, chart.MEMBER_UNAPPLIED, chart.MEMBER_RECEIVABLE)
)
"""Accounts of members: moved by hand only with a reason that says why a member's money moves."""

_REASONS: Final[Mapping[str, str]] = {
    "insufficient_funds": "insufficient_funds",
    "ceiling_exceeded": "ceiling_exceeded",
    "account_closed": "account_closed",
    "period_closed": "period_closed",
}


class _Rejected(MizanError):
    """The books refuse a manual transaction, now."""

    status = 409

    def __init__(self, outcome: Outcome) -> None:
        at = f" at {public_id('acc', outcome.account_id)}" if outcome.account_id else ""
        super().__init__(
            f"The books refuse it{at}: {outcome.reason or outcome.status}.",
            code=_REASONS.get(outcome.reason or "", "invalid_posting"),
        )


# -- manual transactions -----------------------------------------------------------------------------------------


def request_transaction(
    tx: Tx, services: Services, actor: Actor | str, payload: Payload, remark: str, *, origin: Origin = NOWHERE
) -> Request:
    """Ask for a transaction by hand: ``postings`` of debit, credit (``acc_…``), amount and currency, ``effective_on``.

    It is tried against the books at once and undone, so that what they would refuse is known before it is asked for.
    Raises what the books refuse with; `InvalidInput` for accounts that no hand may move.
    """
    programme = _may_move(tx, payload)
    attempt = tx.begin_nested()
    try:
        _post(tx, services, payload, f"manual:{new_id()}")
    finally:
        attempt.rollback()
    name = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:32]
    return file(
        tx,
        services,
        actor,
        "manual_transaction",
        payload,
        remark,
        object_=f"manual:{name}",
        programme_id=programme,
        origin=origin,
    )


def _may_move(tx: Tx, payload: Payload) -> UUID | None:
    """The programme whose books these are, where it is one. Raises for accounts that no hand may move."""
    ids = sorted(
        {parse_public_id("acc", one[side]) for one in payload["postings"] for side in ("debit", "credit")}
    )
    rows = tx.execute(
        text(
            "SELECT a.id, a.code, f.programme_id FROM ledger.account a"
            " LEFT JOIN products.programme_fund f ON f.fund_id = a.fund_id WHERE a.id = ANY (:ids)"
        ),
        {"ids": ids},
    ).all()
    if len(rows) != len(ids):
        raise InvalidInput("One of the accounts is not there.", pointer="/postings")
    for row in rows:
        if row.code in DERIVED:
            raise InvalidInput(
                f"{row.code} holds what the records come to: no hand moves it.", pointer="/postings"
            )
        if row.code in MEMBERS_OWN and not payload.get("member_reason"):
            raise InvalidInput(
                f"{row.code} is a member's: say in member_reason why it moves.", pointer="/member_reason"
            )
    programmes = {row.programme_id for row in rows}
    return programmes.pop() if len(programmes) == 1 else None


def _post(tx: Tx, services: Services, payload: Payload, reference: str) -> UUID:
    accounts = [
        parse_public_id("acc", one[side]) for one in payload["postings"] for side in ("debit", "credit")
    ]
    rows = tx.execute(
        text(
            "SELECT DISTINCT f.id, f.time_zone FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id"
            " WHERE a.id = ANY (:ids) ORDER BY f.id"
        ),
        {"ids": accounts},
    ).all()
    if not rows:
        raise InvalidInput("One of the accounts is not there.", pointer="/postings")
    given = payload.get("effective_on")
    today = periods.effective_day(services.clock.now(), rows[0].time_zone)
    on = date.fromisoformat(given) if given else periods.open_day(tx, [row.id for row in rows], today)
    transaction = Transaction(
        reference=reference,
        kind="manual",
        effective_on=on,
        postings=tuple(
            Posting(
                parse_public_id("acc", one["debit"]),
                parse_public_id("acc", one["credit"]),
                one["amount"],
                one["currency"],
            )
            for one in payload["postings"]
        ),
        digest=hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).digest(),
        details={"approval": payload.get("approval", "")},
    )
    [outcome] = post(tx, [transaction], clock=services.clock)
    if outcome.status != "posted" or outcome.transaction_id is None:
        raise _Rejected(outcome)
    return outcome.transaction_id


def _execute_transaction(tx: Tx, services: Services, payload: Payload) -> Payload:
    _may_move(tx, payload)
    return {"transaction": public_id("txn", _post(tx, services, payload, f"manual:{payload['approval']}"))}


# -- write-offs --------------------------------------------------------------------------------------------------


def request_partner_write_off(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    *,
    partner: str,
    currency: str,
    through: date,
    cause: default.Cause,
    remark: str,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for what a partner owes through a day to be written off; the amount is what it owes now."""
    known = partners.find(tx, partner)
    programme = tx.execute(
        text(
            "SELECT g.id FROM products.partner_programme pp JOIN products.programme g ON g.id = pp.programme_id"
            " WHERE pp.partner_id = :partner AND g.currency = :currency"
        ),
        {"partner": known.id, "currency": currency},
    ).scalar_one_or_none()
    if programme is None:
        raise InvalidInput(f"{partner} collects nothing in {currency}.", pointer="/currency")
    amount = default.owed_by_partner(tx, known.id, programme, currency, through)
    if not amount:
        raise default.DebtChanged(f"{partner} owes nothing for what it collected through {through}.")
    return file(
        tx,
        services,
        actor,
        "write_off",
        {
            "partner": partner,
            "currency": currency,
            "through": through.isoformat(),
            "amount": amount,
            "cause": cause,
        },
        remark,
        object_=public_id("ptn", known.id),
        programme_id=programme,
        origin=origin,
    )


def request_member_write_off(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    *,
    account: UUID,
    amount: int,
    remark: str,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for what a member owes to be written off, named by the member's receivable account."""
    row = tx.execute(
        text(
            "SELECT a.currency, a.owner, f.programme_id, b.debits - b.credits AS owed FROM ledger.account a"
            " JOIN ledger.account_balance b ON b.account_id = a.id"
            " JOIN products.programme_fund f ON f.fund_id = a.fund_id WHERE a.id = :id AND a.code = :code"
        ),
        {"id": account, "code": chart.MEMBER_RECEIVABLE.name},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such member's receivable.")
    if not 0 < amount <= row.owed:
        raise default.DebtChanged(f"The member owes {row.owed} {row.currency}.")
    return file(
        tx,
        services,
        actor,
        "write_off",
        {"account": public_id("acc", account), "currency": row.currency, "amount": amount},
        remark,
        object_=public_id("acc", account),
        programme_id=row.programme_id,
        origin=origin,
    )


def _execute_write_off(tx: Tx, services: Services, payload: Payload) -> Payload:
    reference = f"write-off:{payload['approval']}"
    if "partner" in payload:
        done = default.write_off_partner(
            tx,
            services.books,
            partners.find(tx, payload["partner"]),
            currency=payload["currency"],
            through=date.fromisoformat(payload["through"]),
            amount=payload["amount"],
            cause=payload["cause"],
            reference=reference,
        )
        return {"settlement": public_id("stl", done.id), "contributions": done.contributions}
    row = tx.execute(
        text(
            "SELECT a.owner, f.programme_id FROM ledger.account a"
            " JOIN products.programme_fund f ON f.fund_id = a.fund_id WHERE a.id = :id"
        ),
        {"id": parse_public_id("acc", payload["account"])},
    ).one()
    made = default.write_off_member(
        tx,
        services.books,
        UUID(row.owner),
        programme_id=row.programme_id,
        amount=payload["amount"],
        reference=reference,
    )
    return {"transaction": public_id("txn", made)}


def _describe_write_off(payload: Payload) -> str:
    whose = payload.get("partner") or f"a member ({payload['account']})"
    return f"Write off {payload['amount']} minor units of {payload['currency']} that {whose} owes."


# -- vested match ------------------------------------------------------------------------------------------------


def request_adjustments(tx: Tx, services: Services) -> int:
    """Ask for each proposed fall of vested match, and take back requests whose proposal has changed; how many asked."""
    waiting = adjustments.proposed(tx, limit=ADJUSTMENTS_MAX)
    asked = 0
    for one in waiting:
        name = f"{public_id('adj', one.id)}:{one.amount}"
        known = tx.execute(
            text(
                "SELECT 1 FROM api.approval_request WHERE kind = 'match_adjustment' AND object = :object"
                " AND state = 'requested' AND expires_at > :now"
            ),
            {"object": name, "now": services.clock.now()},
        ).first()
        if known is None:
            file(
                tx,
                services,
                "system",
                "match_adjustment",
                {
                    "adjustment": public_id("adj", one.id),
                    "amount": one.amount,
                    "currency": one.currency,
                    "sponsor": one.sponsor,
                    "enrolment": public_id("enr", one.enrolment_id),
                    "window": one.window_start.isoformat(),
                },
                "",
                object_=name,
                programme_id=one.programme_id,
            )
            asked += 1
    return asked


def _adjustment(payload: Payload) -> tuple[UUID, int]:
    return parse_public_id("adj", payload["adjustment"]), payload["amount"]


def _execute_adjustment(tx: Tx, services: Services, payload: Payload) -> Payload:
    reference = adjustments.approve(tx, services.books, *_adjustment(payload))
    found = tx.execute(
        text("SELECT transaction_id FROM ledger.reference WHERE reference = :reference"),
        {"reference": reference},
    ).scalar_one()
    return {"transaction": public_id("txn", found)}


def _refuse_adjustment(tx: Tx, services: Services, payload: Payload) -> None:
    adjustments.refuse(tx, services.books, *_adjustment(payload))


# -- periods -----------------------------------------------------------------------------------------------------


def request_reopening(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    *,
    fund: str,
    through: date,
    reason: str,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a fund's books to be closed only through an earlier day."""
    row = tx.execute(
        text(
            "SELECT f.closed_through, p.programme_id FROM ledger.fund f"
            " LEFT JOIN products.programme_fund p ON p.fund_id = f.id WHERE f.code = :code"
        ),
        {"code": fund},
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no fund {fund}.")
    if through >= row.closed_through:
        raise Stale("The books are not closed beyond that day.")
    return file(
        tx,
        services,
        actor,
        "period_reopen",
        {
            "fund": fund,
            "through": through.isoformat(),
            "closed_through": row.closed_through.isoformat(),
            "reason": reason,
        },
        reason,
        object_=fund,
        programme_id=row.programme_id,
        origin=origin,
    )


def _execute_reopening(tx: Tx, services: Services, payload: Payload) -> Payload:
    row = tx.execute(
        text("SELECT id, closed_through FROM ledger.fund WHERE code = :code"),
        {"code": payload["fund"]},
    ).one_or_none()
    if row is None or row.closed_through.isoformat() != payload["closed_through"]:
        raise Stale("The fund's books were closed or reopened meanwhile.")
    periods.reopen_period(
        tx,
        row.id,
        date.fromisoformat(payload["through"]),
        actor=f"{payload['requested_by']}, approved by {payload['approved_by']}",
        clock=services.clock,
        reason=payload["reason"],
    )
    return {"closed_through": payload["through"]}


register(
    "manual_transaction",
    roles=MANAGERS,
    execute=_execute_transaction,
    describe=lambda payload: f"Post a transaction of {len(payload['postings'])} postings by hand.",
)
register("write_off", roles=MANAGERS, execute=_execute_write_off, describe=_describe_write_off)
register(
    "match_adjustment",
    roles=MANAGERS,
    execute=_execute_adjustment,
    describe=lambda payload: (
        f"Take back {payload['amount']} minor units of {payload['currency']} of vested match to {payload['sponsor']}."
    ),
    refused=_refuse_adjustment,
)
register(
    "period_reopen",
    roles=MANAGERS,
    execute=_execute_reopening,
    describe=lambda payload: (
        f"Reopen {payload['fund']}: closed through {payload['through']} only, instead of {payload['closed_through']}."
    ),
)
