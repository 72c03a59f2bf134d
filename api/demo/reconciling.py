"""The bank's statements come in, are paired, and what does not tie is a break: all of it beside what the demo knows."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import text

from api.auth.clients import create_client
from api.auth.scopes import Role
from api.bootstrap import Services
from api.demo import bank, transfers, world
from api.demo.bank import BankLine
from api.demo.books import Comparison
from api.demo.client import Client
from api.demo.events import Planned
from api.demo.payouts import PaidOut
from api.demo.settling import Settled
from api.demo.transfers import (
    ACCOUNT,
    CHARGE,
    CURRENCY,
    FUND,
    IBAN,
    PARTNER,
    PROGRAMME,
    SENDER,
    Transfers,
)
from api.reconciling import reconcile
from ledger.database import Tx
from ledger.errors import Unavailable

LIMIT: Final = 5_000
"""Breaks of more than this are ended by two persons."""
OWNER: Final = "treasury"
RUN_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Paired:
    """A line as it was paired: by which rule, and with what: the days that it paid for, or the names of items in the books."""

    rule: str
    with_: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Two statements, what was paired of them, the breaks as they were found, and how one was ended.

    ``books``: the balance of the bank account's mirror at the end, and ``received``: what the books have of it and no statement, in
    minor units; ``elsewhere``: breaks of other things than the bank account, by type.
    """

    at_bank: Transfers
    imported: Sequence[Mapping[str, Any]]
    listed: Sequence[Mapping[str, Any]]
    again: Mapping[str, Any]
    lines: Mapping[str, Paired | None]
    breaks: Sequence[Mapping[str, Any]]
    elsewhere: Mapping[str, int]
    preview: Mapping[str, Any]
    resolved: Mapping[str, Any]
    left: Sequence[Mapping[str, Any]]
    received: int
    books: int

    @property
    def rules(self) -> dict[str, int]:
        """How many lines each rule paired."""
        return dict(sorted(Counter(one.rule for one in self.lines.values() if one is not None).items()))

    def to_json(self) -> dict[str, Any]:
        """The figures, for programs."""
        return {
            "bank_statements": [
                {
                    "format": form,
                    "from": one.from_on.isoformat(),
                    "to": one.to_on.isoformat(),
                    "opening": one.opening,
                    "closing": one.closing,
                    "lines": len(one.lines),
                }
                for form, one in zip(("camt.053", "mt940"), self.at_bank.statements, strict=True)
            ],
            "paired_by": self.rules,
            "breaks": [
                {
                    "type": one["type"],
                    "amount": one["amount"]["amount"],
                    "on": one["on"],
                    "age_days": one["age_days"],
                    "resolved": one["id"] == self.resolved["break_id"],
                }
                for one in self.breaks
            ],
            "breaks_elsewhere": dict(self.elsewhere),
            "balance_per_bank": self.at_bank.statements[1].closing,
            "balance_per_books": self.books,
        }


def staff(services: Services, url: str, role: Role) -> Client:
    """A client of the fund's own staff."""
    made = services.worker.run(
        lambda tx: create_client(
            tx,
            name=f"treasury, {role}",
            roles=(role,),
            environment=services.environment,
            at=services.clock.now(),
        )
    )
    return Client.of(url, made)


def reconcile_with_the_bank(
    services: Services,
    manager: Client,
    administrator: Client,
    partner: Client,
    settled: Settled,
    paid_out: PaidOut,
) -> Reconciled:
    """Add the bank account, bring in its statements as they come, pair, look at the breaks, and end one."""
    at_bank = transfers.happen(services, partner, paid_out)
    old, new = at_bank.statements
    _set_up(manager, at_bank.month)
    # who ends breaks does not say how far
    administrator.put(f"/v1/break-limits/{PROGRAMME}", {"currency": CURRENCY, "second_person_above": LIMIT})
    made_at = services.clock.now()
    imported = []
    for content, form, one in ((bank.camt053(old, made_at), "xml", old), (bank.mt940(new), "sta", new)):
        path = f"/v1/bank-statements?name={ACCOUNT}-{one.to_on}.{form}"
        imported.append(manager.upload(path, content))
        _run(services, [*old.lines, *(new.lines if one is new else ())])
    again = manager.upload(f"/v1/bank-statements?name={ACCOUNT}-again.xml", bank.camt053(old, made_at))
    listed = manager.pages("/v1/breaks")
    here = [one for one in listed if one["bank_account"] == ACCOUNT]
    elsewhere = Counter(one["type"] for one in listed if one["bank_account"] is None)
    fees = [one for one in here if one["type"] == "fee"]
    if not fees:
        raise Unavailable(
            f"the bank's charge is no break: there are {', '.join(one['type'] for one in here)}"
        )
    preview, resolved = _resolve(manager, fees[0])
    for one in here:
        if one["id"] != resolved["break_id"]:
            remark = REMARKS.get(one["type"], "nobody has looked at it yet")
            manager.post(f"/v1/breaks/{one['id']}/assignment", {"owner": OWNER, "remark": remark})
    with services.worker.read() as tx:
        paired, books = _lines(tx), _balance(tx)
    left = manager.pages(f"/v1/breaks?programme={PROGRAMME}&bank_account={ACCOUNT}")
    return Reconciled(
        at_bank,
        imported,
        manager.pages(f"/v1/bank-statements?account={ACCOUNT}"),
        again,
        paired,
        here,
        dict(sorted(elsewhere.items())),
        preview,
        resolved,
        left,
        settled.paid.amount,
        books,
    )


REMARKS: Final[Mapping[str, str]] = {
    "short": "Desert Mobile was asked for the rest",
    "unknown_party": "the bank was asked who the sender is",
    "duplicate": "the bank was asked whether it was paid twice",
    "timing": "Gulf Express sent it today",
}
"""What is known of each break that stays."""


def compare(comparison: Comparison, found: Reconciled, planned: Sequence[Planned], paid_out: PaidOut) -> None:
    """Each line is paired with what it truly is, the breaks are those that were planted, and the two balances differ by them."""
    collected: Counter[date] = Counter()
    for one in planned:
        if one.booked is not None and (one.booked.group.partner, one.booked.group.programme) == (
            PARTNER,
            PROGRAMME,
        ):
            collected[one.booked.on] += one.booked.collected
    for day in sorted({*collected, *found.at_bank.owed}):
        comparison.expect(f"{PARTNER} owes for {day}", collected[day], found.at_bank.owed.get(day, 0))
    for statement, made in zip(found.at_bank.statements, found.imported, strict=True):
        comparison.expect(f"lines of the statement to {statement.to_on}", len(statement.lines), made["lines"])
    comparison.expect(
        "the statements' days and balances",
        sorted(
            (one.from_on.isoformat(), one.to_on.isoformat(), one.opening, one.closing)
            for one in found.at_bank.statements
        ),
        sorted(
            (one["from_on"], one["to_on"], one["opening"]["amount"], one["closing"]["amount"])
            for one in found.listed
        ),
    )
    comparison.expect("the same file again", True, found.again["duplicate"])
    for statement in found.at_bank.statements:
        for line in statement.lines:
            paired = found.lines.get(line.reference)
            if line.is_ == "fee":
                expected: object = frozenset({"break_resolved"})
            else:
                expected = None if isinstance(line.is_, str) else line.is_
            comparison.expect(
                f"paired with {line.reference} ({line.text})", expected, paired.with_ if paired else None
            )
    planted = sorted(_planted(found))
    comparison.expect(
        "breaks on the bank account",
        planted,
        sorted((one["type"], one["amount"]["amount"], one["on"]) for one in found.breaks),
    )
    comparison.expect(
        "breaks left",
        [one for one in planted if one[0] != "fee"],
        sorted((one["type"], one["amount"]["amount"], one["on"]) for one in found.left),
    )
    comparison.expect("what the preview showed was posted", found.preview["postings"], found.resolved["postings"])  # fmt: skip
    old, new = found.at_bank.statements
    comparison.expect("opening of the second statement", old.closing, new.opening)
    other = world.PREFUND[CURRENCY] + world.SPONSORED[PROGRAMME, "gov-rw"] - paid_out.out - CHARGE
    comparison.expect("balance per books", found.at_bank.paid_in + other + found.received, found.books)
    odd = sum(line.amount for line in (*old.lines, *new.lines) if isinstance(line.is_, str) and line.is_ != "fee")  # fmt: skip
    comparison.expect("balance per bank", found.books - found.received + odd, new.closing)
    quarantined = sum(_settled_but_quarantined(one, found.at_bank.paid_today) for one in planned)
    comparison.expect(
        "breaks elsewhere",
        {"returned_settlement": 1} | ({"settled_but_quarantined": quarantined} if quarantined else {}),
        found.elsewhere,
    )


def _planted(found: Reconciled) -> list[tuple[str, int, str]]:
    """The breaks that there have to be: type, amount and day."""
    odd = [line for one in found.at_bank.statements for line in one.lines if isinstance(line.is_, str)]
    planted = [(str(line.is_), line.amount, line.on.isoformat()) for line in odd if line.is_ != "short"]
    for line in odd:
        if line.is_ == "short":
            planted.append(("short", line.amount - found.at_bank.short.amount, line.on.isoformat()))
    planted.append(("timing", found.received, found.at_bank.statements[1].to_on.isoformat()))
    return planted


def _settled_but_quarantined(one: Planned, paid_today: frozenset[str]) -> int:
    """In how many programmes a delivery in quarantine is a break: those that it may be of, and that its partner has paid for the day.

    Gulf Express has for EjoHeza, Sakura before it collects.
    """
    if one.outcome is None or one.outcome[0] != "quarantined":
        return 0
    paid = {group.programme for group in world.GROUPS if group.partner == one.slug} & paid_today
    match one.slug:
        case "gulf-express":
            paid &= {PROGRAMME}  # its payment for the other programme was returned
        case "desert-mobile":
            return 0  # it has paid for days that are over
    if one.outcome[1] == "remittance_conflict":  # what it contradicts is known, and whose that is
        currency = (one.data or {})["received"]["currency"]
        paid &= {group.programme for group in world.GROUPS if group.currency == currency}
    return len(paid)


def _set_up(manager: Client, month: date) -> None:
    manager.post(
        "/v1/bank-accounts",
        {
            "slug": ACCOUNT,
            "name": f"EjoHeza savers, {bank.NAME}",
            "fund": FUND,
            "currency": CURRENCY,
            "identification": IBAN,
            "servicer": bank.BIC,
            "statements_since": month.isoformat(),
        },
    )
    manager.post(
        f"/v1/bank-accounts/{ACCOUNT}/counterparties", {"identification": SENDER[1], "party": PARTNER}
    )


def _run(services: Services, lines: Sequence[BankLine]) -> None:
    """Reconcile until what can be paired is: what was posted last is collected once nothing older is under way."""
    wanted = {one.reference for one in lines if not isinstance(one.is_, str)}
    deadline = time.monotonic() + RUN_SECONDS_MAX
    while True:
        reconcile(services, ACCOUNT)
        with services.worker.read() as tx:
            left = wanted - {name for name, one in _lines(tx).items() if one is not None}
        # what stays open is told as a figure that is not what it had to be
        if not left or time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _resolve(manager: Client, fee: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """End the bank's charge: see what booking it posts, then confirm just that, with a remark."""
    path = f"/v1/breaks/{fee['id']}/resolutions"
    preview = manager.post(path, {"method": "book", "to": {"account": "bank_charges"}})
    confirmed = manager.post(
        f"{path}/{preview['id']}/confirmation",
        {"digest": preview["digest"], "remark": "the bank's charge, by its price list"},
    )
    return preview, confirmed


def _lines(tx: Tx) -> dict[str, Paired | None]:
    """Every line by the bank's reference, and what it stands paired with in the books."""
    rows = tx.execute(
        text(
            """
            SELECT l.reference, g.rule,
                   (SELECT array_agg(DISTINCT c.collected_on::text)
                    FROM products.pairing_effect e JOIN products.contribution c ON c.settlement_id = e.subject
                    WHERE e.pairing_id = g.id AND e.kind = 'settlement'),
                   array_agg(DISTINCT trim(i.kind || ' ' || coalesce(
                       CASE WHEN i.kind LIKE 'payout%' THEN i.subject ELSE i.reference END, '')))
                       FILTER (WHERE i.id IS NOT NULL)
            FROM ledger.statement_line l JOIN ledger.bank_account b ON b.id = l.bank_account_id
            LEFT JOIN ledger.paired_line p ON p.line_id = l.id LEFT JOIN ledger.pairing g ON g.id = p.pairing_id
            LEFT JOIN ledger.paired_item pi ON pi.pairing_id = g.id LEFT JOIN ledger.item i ON i.id = pi.item_id
            WHERE b.slug = :account GROUP BY l.id, l.reference, g.id, g.rule
            """
        ),
        {"account": ACCOUNT},
    )
    return {
        reference: None if rule is None else Paired(rule, frozenset(days or names))
        for reference, rule, days, names in rows
    }


def _balance(tx: Tx) -> int:
    """What the books say that is at the bank."""
    found: int = tx.execute(
        text(
            "SELECT v.debits - v.credits FROM ledger.account_balance v"
            " JOIN ledger.bank_account b ON b.account_id = v.account_id WHERE b.slug = :account"
        ),
        {"account": ACCOUNT},
    ).scalar_one()
    return found
