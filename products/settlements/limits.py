"""What a partner may owe, or has prepaid: the limit that stops accepting on its behalf, and the warning before it.

The limits are the accounts' own, which the database keeps: a partner's receivable in each fund has its exposure ceiling, its
prefund a floor of nothing. A ceiling below what is owed already is what is owed, and falls as the partner pays. Warnings are
given once per crossing: a message in the outbox, and a row that stands until it is over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import set_limits
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import InvalidInput
from ledger.ids import new_id, public_id
from ledger.outbox import Message, publish
from ledger.periods import effective_day
from products import chart
from products.settlements.terms import (
    ALWAYS,
    SettlementTerms,
    TermsOfThePast,
    checked,
    load_terms,
    on_day,
    write_terms,
)

TOPICS = {"exposure": "partner.exposure_warning", "prefund_low": "partner.prefund_low"}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a partner stands at one account: what it owes a fund, or has prepaid, in minor units; and its limits there."""

    partner_id: UUID
    partner: str
    programme_id: UUID
    programme: str
    account_id: UUID
    fund: str
    currency: str
    kind: str
    balance: int
    ceiling: int | None
    wanted_ceiling: int | None
    warning_level: int | None
    warned: bool

    @property
    def crossed(self) -> bool:
        """Whether its warning level is reached: owing as much or more, or having as little or less prepaid."""
        if self.warning_level is None:
            return False
        return (
            self.balance >= self.warning_level
            if self.kind == "exposure"
            else self.balance <= self.warning_level
        )


def set_terms(
    tx: Tx, partner_id: UUID, programme_id: UUID, terms: SettlementTerms, clock: Clock, *, since: date | None
) -> SettlementTerms:
    """Agree on terms from a day on, tomorrow at the earliest once something was collected; limits and warnings also today.

    Left out, ``since`` is the earliest day that it may be: always, while nothing was collected. Answers the terms as
    they hold. Raises InvalidInput, `TermsOfThePast`.
    """
    currency, zone = tx.execute(
        text("SELECT currency, time_zone FROM products.programme WHERE id = :id"), {"id": programme_id}
    ).one()
    if terms.currency != currency:
        raise InvalidInput(f"the programme's money is {currency}", pointer="/currency")
    agreed = checked(terms)
    tx.execute(
        text(
            "SELECT 1 FROM products.partner_programme WHERE partner_id = :p AND programme_id = :g FOR NO KEY UPDATE"
        ),
        {"p": partner_id, "g": programme_id},
    )
    history = load_terms(tx, [partner_id])[partner_id, programme_id]
    today = effective_day(clock.now(), zone)
    collected = tx.execute(
        text("SELECT 1 FROM products.remittance WHERE partner_id = :p AND programme_id = :g LIMIT 1"),
        {"p": partner_id, "g": programme_id},
    ).first()
    if collected is None:
        agreed = replace(agreed, since=since or ALWAYS)
    else:
        only_limits = not agreed.differs_for_contributions(on_day(history, today))
        # what is contributed tomorrow may be announced today
        earliest = today if only_limits else date.fromordinal(today.toordinal() + 2)
        if since is not None and since < earliest:
            raise TermsOfThePast(f"these terms can hold from {earliest} on")
        agreed = replace(agreed, since=since or earliest)
    write_terms(tx, partner_id, programme_id, agreed, clock)
    apply_limits(tx, clock, partner_id)
    return agreed


def standings(tx: Tx, clock: Clock, partner_id: UUID | None = None) -> list[Standing]:
    """How partners (or one) stand at the accounts that limit them, by slug, fund and kind."""
    cur = cursor(tx)
    cur.execute(
        """SELECT p.id, p.slug, g.id, g.slug, a.id, g.slug || '/' || pf.role, a.currency, a.code, g.time_zone, a.ceiling,
                  CASE WHEN a.kind = 'asset' THEN b.debits - b.credits ELSE b.credits - b.debits - b.held END,
                  EXISTS (SELECT 1 FROM products.partner_warning w WHERE w.account_id = a.id AND w.ended_at IS NULL)
           FROM products.partner_programme pp
           JOIN products.partner p ON p.id = pp.partner_id AND p.kind = 'remitter'
           JOIN products.programme g ON g.id = pp.programme_id
           JOIN products.programme_fund pf ON pf.programme_id = g.id
           JOIN ledger.account a ON a.fund_id = pf.fund_id AND a.owner = p.slug AND a.currency = g.currency
                                 AND a.code IN (%s, %s)
           JOIN ledger.account_balance b ON b.account_id = a.id
           WHERE %s::uuid IS NULL OR p.id = %s ORDER BY p.slug, g.slug, pf.role, a.code""",
        (chart.PARTNER_RECEIVABLE.name, chart.PARTNER_PREFUND.name, partner_id, partner_id),
    )
    rows = cur.fetchall()
    terms = load_terms(tx, sorted({row[0] for row in rows}))
    found = []
    for (
        partner,
        slug,
        programme,
        named,
        account,
        fund,
        currency,
        code,
        zone,
        ceiling,
        balance,
        warned,
    ) in rows:
        agreed = on_day(terms[partner, programme], effective_day(clock.now(), zone))
        exposure = code == chart.PARTNER_RECEIVABLE.name
        if not exposure and agreed.terms != "prefunded" and not balance and not warned:
            continue
        found.append(
            Standing(
                partner, slug, programme, named, account, fund, currency, "exposure" if exposure else "prefund_low",
                balance, ceiling, agreed.exposure_ceiling if exposure else None,
                _warning_level(agreed) if exposure else _prefund_level(agreed), warned,
            )
        )  # fmt: skip
    return found


def _warning_level(agreed: SettlementTerms) -> int | None:
    """So many percent of the ceiling, rounded up: nothing is warned of before it is there."""
    if agreed.exposure_ceiling is None:
        return None
    return -(-agreed.exposure_ceiling * agreed.warning_percent // 100)


def _prefund_level(agreed: SettlementTerms) -> int | None:
    return agreed.prefund_warning if agreed.terms == "prefunded" else None


def apply_limits(tx: Tx, clock: Clock, partner_id: UUID | None = None) -> int:
    """Give receivables the ceilings that the terms of today say, as far as what is owed lets them; how many changed."""
    changed = 0
    for one in standings(tx, clock, partner_id):
        if one.kind != "exposure":
            continue
        wanted = None if one.wanted_ceiling is None else max(one.wanted_ceiling, one.balance)
        if wanted != one.ceiling:
            _limit(tx, one.account_id, one.wanted_ceiling)
            changed += 1
    return changed


def _limit(tx: Tx, account: UUID, ceiling: int | None) -> None:
    """Set a ceiling, or what is owed where that is more; read under the lock that keeps it from moving."""
    tx.execute(text("SELECT ledger.lock_accounts(:accounts)"), {"accounts": [account]})
    balance = tx.execute(
        text("SELECT debits - credits FROM ledger.account_balance WHERE account_id = :id"), {"id": account}
    ).scalar_one()
    set_limits(tx, account, floor=None, ceiling=None if ceiling is None else max(ceiling, balance))


def make_room(tx: Tx, wanted: Mapping[UUID, int]) -> None:
    """Raise the ceilings of receivables that would not take so much more: what is owed again is owed, whatever the limit.

    `apply_limits` lowers them again as the partner pays.
    """
    some = sorted(account for account, amount in wanted.items() if amount)
    rows = tx.execute(
        text(
            "SELECT a.id, a.ceiling, b.debits - b.credits AS balance FROM ledger.account a"
            " JOIN ledger.account_balance b ON b.account_id = a.id WHERE a.id = ANY (:ids) AND a.ceiling IS NOT NULL"
            " ORDER BY a.id"
        ),
        {"ids": some},
    ).all()
    for row in rows:
        if row.balance + wanted[row.id] > row.ceiling:
            set_limits(tx, row.id, floor=None, ceiling=row.balance + wanted[row.id])


def watch(tx: Tx, clock: Clock) -> int:
    """Warn of what has crossed its level, and end the warnings that are over; how many changed."""
    now = clock.now()
    changed = 0
    for one in standings(tx, clock):
        if one.crossed and not one.warned:
            changed += _warn(tx, one, now)
        elif one.warned and not one.crossed:
            tx.execute(
                text(
                    "UPDATE products.partner_warning SET ended_at = :now WHERE account_id = :id AND ended_at IS NULL"
                ),
                {"now": now, "id": one.account_id},
            )
            changed += 1
    return changed


def _warn(tx: Tx, one: Standing, now: datetime) -> int:
    raised = tx.execute(
        text(
            "INSERT INTO products.partner_warning (id, partner_id, programme_id, account_id, kind, balance, level, raised_at)"
            " VALUES (:id, :partner, :programme, :account, :kind, :balance, :level, :now)"
            " ON CONFLICT (account_id, kind) WHERE ended_at IS NULL DO NOTHING"
        ),
        {
            "id": new_id(),
            "partner": one.partner_id,
            "programme": one.programme_id,
            "account": one.account_id,
            "kind": one.kind,
            "balance": one.balance,
            "level": one.warning_level,
            "now": now,
        },
    ).rowcount
    if raised:
        partner = public_id("ptn", one.partner_id)
        told = {
            "partner": partner,
            "programme": one.programme,
            "fund": one.fund,
            "amount": {"amount": one.balance, "currency": one.currency},
            "level": {"amount": one.warning_level, "currency": one.currency},
        }
        publish(tx, [Message(TOPICS[one.kind], partner, told)])
    return raised
