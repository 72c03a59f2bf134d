"""The bank's statements come in, are paired, and what does not tie is a break: all of it beside what the demo knows.

A partner on guaranteed terms pays for its days by bank transfer alone: nobody records its settlements, pairing does. The bank
writes two statements, of the month before this one as camt.053 and of this one up to today as MT940; in them a payment is short,
one is from nobody known, one is a charge, one comes twice, and one that is booked is not there yet.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import text

from api.auth.clients import create_client
from api.bootstrap import Services
from api.demo import bank, world
from api.demo.bank import BankLine, Statement
from api.demo.books import Comparison
from api.demo.client import Client
from api.demo.events import Planned
from api.demo.payouts import PaidOut
from api.demo.settling import Settled
from api.jobs import settle_to_the_end
from api.reconciling import RunReport, reconcile
from ledger.database import Tx
from ledger.errors import Unavailable
from ledger.ids import parse_public_id
from ledger.periods import effective_day
from products.closing.period import find as find_period
from products.closing.period import label
from products.remittances.partners import find
from products.settlements.pair import record_settlement
from products.settlements.settlement import Landing

PROGRAMME: Final = "ejoheza"
FUND: Final = "ejoheza/savers"
CURRENCY: Final = "RWF"
ACCOUNT: Final = "kigali-savers"
IBAN: Final = "RW380004000100020003000401"
PARTNER: Final = "desert-mobile"
"""Who pays by bank transfer, day by day."""
SENDER: Final = ("DESERT MOBILE LLC", "AE070331234567890123456")
STRANGER: Final = ("K MBARUSHIMANA", "RW460002009988776655443")
GIFT: Final = 48_000
"""What nobody expects comes in from a stranger, in minor units."""
CHARGE: Final = 2_500
"""What the bank takes for keeping the account."""
SHORT_PER_CENT: Final = 10
"""By so much one payment is short."""
LIMIT: Final = 5_000
"""Breaks of more than this are ended by two persons."""
OWNER: Final = "treasury"
RUN_SECONDS_MAX: Final = 60.0
WEEKEND: Final = 5


@dataclass(frozen=True, slots=True)
class Due:
    """What the partner pays on one day: for the days that are due then, in minor units."""

    on: date
    days: tuple[date, ...]
    amount: int

    @property
    def end_to_end(self) -> str:
        """By what it names the payment."""
        return f"DM-{self.on:%Y%m%d}"


@dataclass(frozen=True, slots=True)
class Paired:
    """A line as it was paired: by which rule, and with what: the days that it paid for, or the names of items in the books."""

    rule: str
    with_: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Two statements, what was paired of them, the breaks as they were found, and how one was ended.

    ``books``: the balance of the bank account's mirror at the end, in minor units; ``deliveries``: breaks of other things than this
    bank account, by type.
    """

    month: date
    through: date
    statements: tuple[Statement, Statement]
    imported: Sequence[Mapping[str, Any]]
    again: Mapping[str, Any]
    runs: Sequence[RunReport]
    lines: Mapping[str, Paired | None]
    breaks: Sequence[Mapping[str, Any]]
    elsewhere: Mapping[str, int]
    preview: Mapping[str, Any]
    resolved: Mapping[str, Any]
    left: Sequence[Mapping[str, Any]]
    owed: Mapping[date, int]
    due: Sequence[Due]
    in_transit: Due
    short: Due
    received: int
    books: int

    @property
    def paid_in(self) -> int:
        """What the partner has paid for in full."""
        return sum(one.amount for one in self.due) - self.short.amount

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
                for form, one in zip(("camt.053", "mt940"), self.statements, strict=True)
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
            "balance_per_bank": self.statements[1].closing,
            "balance_per_books": self.books,
        }


def staff(services: Services, url: str) -> Client:
    """A client of the fund's own staff, with the role of a manager."""
    made = services.worker.run(
        lambda tx: create_client(
            tx,
            name="treasury",
            roles=("manager",),
            environment=services.environment,
            at=services.clock.now(),
        )
    )
    return Client(url, made)


def reconcile_with_the_bank(
    services: Services, manager: Client, partner: Client, settled: Settled, paid_out: PaidOut
) -> Reconciled:
    """Add the bank account, bring in its statements as they come, pair, look at the breaks, and end one."""
    with services.worker.begin() as tx:
        zone = find_period(tx, PROGRAMME, date.today()).time_zone  # noqa: DTZ011  any month knows it
        attempts = _attempts(tx, paid_out)
    today = effective_day(services.clock.now(), zone)
    first = today.replace(day=1)
    through = first - timedelta(days=1)
    month = through.replace(day=1)
    owed, due = _due(partner, today)
    arrears = [one for one in due if one.on < month]
    inside = [one for one in due if month <= one.on <= through]
    if len(inside) < 4:
        raise Unavailable(f"{PARTNER} pays on {len(inside)} days of {label(month)}: too few to show anything")
    in_transit, twice, short = inside[-1], inside[-2], inside[len(inside) // 2]
    _by_hand(services, arrears, "DM-ARREARS", month)
    _by_hand(services, [in_transit], in_transit.end_to_end, in_transit.on)
    received = settled.paid.amount

    before = [
        _received(_weekday(month), sum(one.amount for one in arrears), "DM-ARREARS", "ARREARS")
    ] if arrears else []  # fmt: skip
    before += [_paid(one) for one in inside if one not in (in_transit, short)]
    missing = short.amount * SHORT_PER_CENT // 100
    before.append(replace(_paid(short), amount=short.amount - missing, is_="short"))
    name, account = STRANGER
    before.append(
        BankLine(month + timedelta(days=11), GIFT, "FOR AUNTIE", "unknown_party", name=name, account=account)
    )
    before.append(BankLine(through, -CHARGE, "ACCOUNT KEEPING", "fee", charge=True))
    since = min(_weekday(first), today)
    after = [
        replace(_paid(in_transit), on=since, is_=frozenset({f"settlement_received {in_transit.end_to_end}"})),
        replace(_paid(twice), on=since, is_="duplicate"),
        *(_paid(one) for one in due if first <= one.on <= today),
        *_of_today(today, attempts),
    ]
    old = _statement(month, through, 0, before)
    new = _statement(first, today, old.closing, after)

    _set_up(manager, month)
    made_at = services.clock.now()
    imported, runs = [], []
    for content, form, one in ((bank.camt053(old, made_at), "xml", old), (bank.mt940(new), "sta", new)):
        path = f"/v1/bank-statements?name={ACCOUNT}-{one.to_on}.{form}"
        imported.append(manager.upload(path, content))
        runs.append(_run(services, [*old.lines, *(new.lines if one is new else ())]))
    again = manager.upload(f"/v1/bank-statements?name={ACCOUNT}-again.xml", bank.camt053(old, made_at))
    listed = manager.pages(f"/v1/breaks?programme={PROGRAMME}")
    here = [one for one in listed if one["bank_account"] == ACCOUNT]
    elsewhere = Counter(one["type"] for one in listed if one["bank_account"] is None)
    preview, resolved = _resolve(manager, next(one for one in here if one["type"] == "fee"))
    for one in here:
        if one["id"] != resolved["break_id"]:
            manager.post(
                f"/v1/breaks/{one['id']}/assignment", {"owner": OWNER, "remark": REMARKS[one["type"]]}
            )
    with services.worker.read() as tx:
        paired, books = _lines(tx), _balance(tx)
    left = manager.pages(f"/v1/breaks?programme={PROGRAMME}&bank_account={ACCOUNT}")
    return Reconciled(
        month,
        through,
        (old, new),
        imported,
        again,
        runs,
        paired,
        here,
        dict(sorted(elsewhere.items())),
        preview,
        resolved,
        left,
        owed,
        due,
        in_transit,
        short,
        received,
        books,
    )


REMARKS: Final[Mapping[str, str]] = {
    "short": "Desert Mobile was asked for the rest",
    "unknown_party": "the bank was asked who the sender is",
    "duplicate": "the bank was asked whether it was paid twice",
    "timing": "Gulf Express sent it today: the bank shows it tomorrow",
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
    for day in sorted({*collected, *found.owed}):
        comparison.expect(f"{PARTNER} owes for {day}", collected[day], found.owed.get(day, 0))
    for statement, made in zip(found.statements, found.imported, strict=True):
        comparison.expect(f"lines of the statement to {statement.to_on}", len(statement.lines), made["lines"])
    comparison.expect("the same file again", True, found.again["duplicate"])
    for statement in found.statements:
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
    old, new = found.statements
    comparison.expect("opening of the second statement", old.closing, new.opening)
    other = world.PREFUND[CURRENCY] + world.SPONSORED[PROGRAMME, "gov-rw"] - paid_out.out - CHARGE
    comparison.expect("balance per books", found.paid_in + other + found.received, found.books)
    odd = sum(line.amount for line in (*old.lines, *new.lines) if isinstance(line.is_, str) and line.is_ != "fee")  # fmt: skip
    comparison.expect("balance per bank", found.books - found.received + odd, new.closing)
    quarantined = sum(1 for one in planned if _settled_but_quarantined(one))
    comparison.expect(
        "breaks elsewhere",
        {"settled_but_quarantined": quarantined} if quarantined else {},
        found.elsewhere,
    )


def _planted(found: Reconciled) -> list[tuple[str, int, str]]:
    """The breaks that there have to be: type, amount and day."""
    odd = [line for one in found.statements for line in one.lines if isinstance(line.is_, str)]
    planted = [(str(line.is_), line.amount, line.on.isoformat()) for line in odd if line.is_ != "short"]
    for line in odd:
        if line.is_ == "short":
            planted.append(("short", line.amount - found.short.amount, line.on.isoformat()))
    planted.append(("timing", found.received, found.statements[1].to_on.isoformat()))
    return planted


def _settled_but_quarantined(one: Planned) -> bool:
    """Whether a delivery's partner has paid for today, and nobody knows what was in it, or it is of this programme."""
    if one.outcome is None or one.outcome[0] != "quarantined":
        return False
    return one.slug == "sakura-remit" or one.slug == "gulf-express"


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
    manager.put(f"/v1/break-limits/{PROGRAMME}", {"currency": CURRENCY, "second_person_above": LIMIT})


def _due(partner: Client, today: date) -> tuple[dict[date, int], list[Due]]:
    """What the partner reads that it owes by day, and what it pays of it on each day up to today."""
    owed: dict[date, int] = {}
    expected: defaultdict[date, list[date]] = defaultdict(list)
    for one in partner.pages("/v1/settlements/obligations"):
        if one["programme"] == PROGRAMME:
            day = date.fromisoformat(one["collected_on"])
            owed[day] = owed.get(day, 0) + one["owed"]["amount"]
            expected[date.fromisoformat(one["expected_on"])].append(day)
    return owed, [
        Due(on, tuple(sorted(set(days))), sum(owed[day] for day in set(days)))
        for on, days in sorted(expected.items())
        if on <= today
    ]


def _by_hand(services: Services, due: Sequence[Due], reference: str, on: date) -> None:
    """Record a settlement by the partner's advice, before the bank shows it."""
    days = sorted(day for one in due for day in one.days)
    if not days:
        return

    def record(tx: Tx) -> Any:  # the settlement
        fund = tx.execute(text("SELECT id FROM ledger.fund WHERE code = :code"), {"code": FUND}).scalar_one()
        return record_settlement(
            tx,
            services.books,
            find(tx, PARTNER),
            currency=CURRENCY,
            amount=sum(one.amount for one in due),
            through=days[-1],
            days=days,
            reference=reference,
            landing=Landing(fund, on),
        )

    settle_to_the_end(services.worker, services.books, services.worker.run(record).id)


def _paid(one: Due) -> BankLine:
    name, account = SENDER
    said = ", ".join(f"{day:%d/%m}" for day in one.days)
    days = frozenset(day.isoformat() for day in one.days)
    return BankLine(one.on, one.amount, f"COLLECTED {said}", days, one.end_to_end, name, account)


def _received(on: date, amount: int, reference: str, said: str) -> BankLine:
    name, account = SENDER
    return BankLine(
        on, amount, said, frozenset({f"settlement_received {reference}"}), reference, name, account
    )


def _of_today(today: date, attempts: Sequence[tuple[str, str, int, str]]) -> list[BankLine]:
    """What the books were told by others than the bank: a prefund, a sponsor's money, and what the rail paid."""
    prefund = world.prefunded("sakura-remit", CURRENCY)
    grant = world.paid_by_sponsor(PROGRAMME, "gov-rw")
    return [
        BankLine(
            today,
            world.PREFUND[CURRENCY],
            "PREFUND",
            frozenset({f"settlement_received {prefund}"}),
            prefund,
            "SAKURA REMIT KK",
        ),
        BankLine(
            today,
            world.SPONSORED[PROGRAMME, "gov-rw"],
            f"MATCH {grant}",
            frozenset({f"sponsor_paid_in {grant}"}),
            grant,
            "MINISTRY OF FINANCE",
        ),
        *(
            BankLine(today, amount, said, frozenset({f"{said} {payout}"}), end_to_end)
            for payout, end_to_end, amount, said in attempts
        ),
    ]


def _attempts(tx: Tx, paid_out: PaidOut) -> list[tuple[str, str, int, str]]:
    """Each payment that left, and each that came back: the payout, what it is called on its way, its amount, what the books call it."""
    found = []
    for one in paid_out.paid:
        attempt = tx.execute(
            text("SELECT replace(id::text, '-', '') FROM products.payout_attempt WHERE payout_id = :id"),
            {"id": parse_public_id("pay", str(one.payout["id"]))},
        ).scalar_one()
        for state in one.plan.ends:
            if state in ("paid", "returned") and "paid" in one.plan.ends:
                amount = -one.amount if state == "paid" else one.amount
                found.append((str(one.payout["id"]), str(attempt), amount, f"payout_{state}"))
    return found


def _statement(from_on: date, to_on: date, opening: int, lines: Sequence[BankLine]) -> Statement:
    number = from_on.year * 12 + from_on.month - 1  # without a gap from month to month
    return Statement(
        IBAN,
        CURRENCY,
        number % 100_000,
        from_on,
        to_on,
        opening,
        bank.numbered(lines, f"FT{from_on:%y%m}"),
    )


def _weekday(day: date) -> date:
    """The day, or the first after it on which banks work."""
    while day.weekday() >= WEEKEND:
        day += timedelta(days=1)
    return day


def _run(services: Services, lines: Sequence[BankLine]) -> RunReport:
    """Reconcile until what can be paired is: what was posted last is collected once nothing older is under way."""
    wanted = {one.reference for one in lines if not isinstance(one.is_, str)}
    deadline = time.monotonic() + RUN_SECONDS_MAX
    while True:
        report = reconcile(services, ACCOUNT)
        with services.worker.read() as tx:
            left = wanted - {name for name, one in _lines(tx).items() if one is not None}
        # what stays open is told as a figure that is not what it had to be
        if not left or time.monotonic() > deadline:
            return report
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
