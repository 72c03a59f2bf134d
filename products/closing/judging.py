"""The items of the check-list that the bank and the books decide: nothing here is ticked by hand."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from ledger import verification
from ledger.balances import balances_as_of
from ledger.database import Tx, cursor
from ledger.horizon import Horizon
from ledger.ids import public_id
from ledger.seals import newest
from products import chart
from products.checks import PRODUCT_CHECKS
from products.closing import bank
from products.closing.findings import Finding, Item, limited
from products.closing.period import Period

SUSPENSE: Final = (
    chart.UNIDENTIFIED_RECEIPTS.name,
    chart.UNALLOCATED.name,
    chart.CONVERSION.name,
    chart.BANK_CLEARING.name,
    chart.PAYOUT_CLEARING.name,
    chart.RETURN_FOR_ALLOCATION.name,
    chart.MIGRATION_CONTROL.name,
)
"""Accounts that money only passes through: what is left on them at the month's end is asked for."""


def statements(tx: Tx, period: Period) -> Item:
    """Each bank account's statements, without gaps to the month's end, each going on from the one before."""
    found: list[Finding] = []
    known = bank.accounts(tx, period.fund_ids, period.through)
    for account in known:
        link = f"/v1/bank-accounts/{account.slug}"
        for gap in bank.missing(tx, account, period.through):
            said = {
                "missing_days": f"no statement from {gap.from_on} to {gap.to_on}",
                "balance_differs": f"the statement of {gap.from_on} opens with another balance than the one before closed with",
                "number_skipped": "the bank's own numbers leave statements out",
                "overlap_differs": f"two statements say different things of {gap.from_on} to {gap.to_on}",
            }.get(gap.kind, gap.kind)
            amount = None if gap.expected is None or gap.found is None else gap.found - gap.expected
            found.append(
                Finding(
                    f"{account.slug}:{gap.kind}:{gap.from_on}",
                    f"{account.name}: {said}.",
                    amount,
                    account.currency if amount is not None else None,
                    link=link,
                    explainable=False,
                )
            )
    for one in bank.unproven(tx, period.fund_ids, chart.BANK.name, period.month, period.through):
        found.append(_unproven(one))
    return Item("statements", limited(found), {"bank_accounts": len(known)})


def _unproven(one: bank.Unproven) -> Finding:
    account = public_id("acc", one.account_id)
    if not one.mirrored:
        why = "and no bank account is registered for it: no statement can prove it"
    elif one.first_on is None:
        why = "and no statements are expected of that day: the bank account's dates say so"
    else:
        days = f"{one.first_on}" if one.first_on == one.last_on else f"{one.first_on} to {one.last_on}"
        why = f"which moved on days that no statements are expected of ({days}): the bank account's dates say so"
    return Finding(
        account,
        f"{one.fund} has money at a bank, {why}.",
        one.held,
        one.currency,
        link=f"/v1/ledger/accounts/{account}",
        explainable=False,
    )


def verified(tx: Tx, period: Period) -> Item:
    """A verification that saw the month's last transaction and found no lie, and seals that cover it."""
    found: list[Finding] = []
    run, sealed = verification.latest(tx), newest(tx)
    if run is None:
        found.append(_not("verification", "The books were never verified: `mizan ledger verify`."))
    elif not run.ok:
        # what they are may be of other programmes: it is the verification's report that says where
        found.append(
            _not(
                "verification",
                f"The verification of {run.verified_at:%Y-%m-%d %H:%M}Z found lies: `mizan ledger verify` says where.",
            )
        )
    else:
        since = _since(tx, period, run.horizon)
        if since:
            found.append(
                _not(
                    "verification",
                    f"{since} transactions of the month came after the verification of {run.verified_at:%Y-%m-%d %H:%M}Z:"
                    " `mizan ledger verify`.",
                    since,
                )
            )
    open_ = _since(tx, period, Horizon(sealed.era, sealed.to_xid) if sealed else Horizon(0, 0))
    if open_:
        found.append(_not("seal", f"{open_} transactions of the month are in no seal yet.", open_))
    return Item(
        "verified",
        tuple(found),
        {
            "verified_at": run.verified_at.isoformat() if run else None,
            "transactions": run.transactions if run else None,
            "seal": sealed.number if sealed else None,
        },
    )


def _not(subject: str, what: str, count: int | None = None) -> Finding:
    return Finding(subject, what, count=count, link="/.well-known/mizan-seals", explainable=False)


def _since(tx: Tx, period: Period, horizon: Horizon) -> int:
    """How many transactions of the period's funds, effective by its end, are not before a horizon."""
    with cursor(tx) as sql:
        row = sql.execute(
            """
            SELECT count(*) FROM ledger.transaction t
            WHERE (t.era, t.xid) >= (%(era)s, CAST(%(xid)s AS xid8)) AND t.effective_on <= %(through)s
              AND EXISTS (SELECT FROM ledger.posting p JOIN ledger.account a ON a.id = p.debit_account
                          WHERE p.transaction_id = t.id AND a.fund_id = ANY (%(funds)s))
            """,
            {
                "era": horizon.era,
                "xid": str(horizon.xid),
                "through": period.through,
                "funds": period.fund_ids,
            },
            prepare=False,
        ).fetchone()
    return int(row[0]) if row else 0


def sub_ledgers(tx: Tx, period: Period) -> Item:
    """The products' records beside the accounts that control them, and each bank account beside its statement."""
    found: list[Finding] = []
    for check in PRODUCT_CHECKS:
        verdict = check.run(tx)
        if verdict.violations:
            first = verdict.findings[0]
            found.append(
                Finding(
                    verdict.name,
                    f"It does not hold that {verdict.name}: {first.where} {first.what}.",
                    count=verdict.violations,
                    explainable=False,
                )
            )
    reconciled = [
        bank.reconcile(tx, one, period.through) for one in bank.accounts(tx, period.fund_ids, period.through)
    ]
    for one in reconciled:
        account = one.account
        # without a statement it is the first item that is red
        if one.before or one.difference:
            what = (
                "the first statement opens with another balance than the books had on that day"
                if one.before
                else "the books, the bank and what lies between them do not tie: collect and pair, then look at its breaks"
            )
            found.append(
                Finding(
                    account.slug,
                    f"{account.name}: {what}.",
                    one.before or one.difference,
                    account.currency,
                    link=f"/v1/bank-accounts/{account.slug}",
                    explainable=False,
                )
            )
    return Item(
        "sub_ledgers",
        limited(found),
        {"checks": len(PRODUCT_CHECKS), "bank_accounts": len(reconciled)},
    )


def suspense(tx: Tx, period: Period) -> Item:
    """What lies on accounts that money only passes through, at the month's end."""
    with cursor(tx) as sql:
        rows: Sequence[tuple[Any, ...]] = sql.execute(
            "SELECT a.id, f.code, a.code, a.owner, a.currency FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id"
            " WHERE a.fund_id = ANY (%s) AND a.code = ANY (%s) ORDER BY f.code, a.code, a.owner, a.currency",
            (period.fund_ids, list(SUSPENSE)),
        ).fetchall()
    held = balances_as_of(tx, [row[0] for row in rows], period.through)
    found = [
        _in_suspense(id_, fund, code, owner, currency, held[id_])
        for id_, fund, code, owner, currency in rows
        if held.get(id_)
    ]
    return Item("suspense", limited(found), {"accounts": len(rows), "not_at_zero": len(found)})


def _in_suspense(id_: UUID, fund: str, code: str, owner: str, currency: str, held: int) -> Finding:
    account = public_id("acc", id_)
    of = f" of {owner}" if owner else ""
    return Finding(
        account,
        f"{code}{of} in {fund} is not at zero.",
        held,
        currency,
        link=f"/v1/ledger/accounts/{account}",
    )


def breaks(tx: Tx, period: Period) -> Item:
    """Breaks dated by the month's end that stand: each has an owner and a remark, and none is beyond the value limit.

    The limit is the one above which a second person decides how a break ends (`products.break_limit`): such a break is
    explained on the check-list, or ended. A programme without a limit has none here.
    """
    with cursor(tx) as sql:
        rows = sql.execute(
            """
            SELECT b.id, b.type, b.amount, b.currency, b.on_date, b.owner, b.remark,
                   coalesce(abs(b.amount) > l.second_person_above, false)
            FROM products.break b
            LEFT JOIN products.break_limit l ON l.programme_id = b.programme_id AND l.currency = b.currency
            WHERE b.ended_at IS NULL AND b.programme_id = %s AND b.on_date <= %s ORDER BY abs(b.amount) DESC, b.id
            """,
            (period.programme_id, period.through),
        ).fetchall()
    found = []
    for id_, type_, amount, currency, on, owner, remark, beyond in rows:
        name = public_id("brk", id_)
        told = owner and remark
        if told and not beyond:
            continue
        why = "is beyond the value limit" if told else "has no owner and remark"
        found.append(
            Finding(
                name,
                f"A break ({type_.replace('_', ' ')}) of {on} {why}.",
                amount,
                currency,
                link=f"/v1/breaks/{name}",
            )
        )
    return Item("breaks", limited(found), {"standing": len(rows), "explained": len(rows) - len(found)})
