"""What happens at the bank, and what it writes of it: a partner pays for its days, others pay in, and payouts leave.

Who pays by transfer alone has no settlement recorded by anybody, but for two: what was old, and what is under way when the month ends.
In the statements a payment is short, one is from nobody known, one is a charge, and one comes twice; and what another partner sent
today is not there yet.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

from sqlalchemy import text

from api.bootstrap import Services
from api.demo import bank, world
from api.demo.bank import BankLine, Statement
from api.demo.client import Client
from api.demo.payouts import PaidOut
from api.jobs import settle_to_the_end
from ledger.database import Tx
from ledger.errors import Unavailable
from ledger.ids import parse_public_id
from ledger.periods import effective_day
from products.closing.period import find as find_period
from products.closing.period import label
from products.remittances.partners import find
from products.settlements.pair import Settlement, record_settlement
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
WEEKEND: Final = 5
"""From this day of the week on, counted from Monday's 0, banks don't work."""
PAYING_DAYS_MIN: Final = 4
"""Days of a month on which the partner has to pay: one short, one twice, one under way, and one as it should be."""


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
class Transfers:
    """What happened at the bank in the month before this one, which ends with ``through``, and since: its two statements.

    ``owed``: what the partner read that it owes by day; ``paid_today``: programmes where what is settled through today in UTC is settled
    through today.
    """

    month: date
    through: date
    statements: tuple[Statement, Statement]
    owed: Mapping[date, int]
    due: Sequence[Due]
    in_transit: Due
    short: Due
    paid_today: frozenset[str]

    @property
    def paid_in(self) -> int:
        """What the partner has paid for in full."""
        return sum(one.amount for one in self.due) - self.short.amount


def happen(services: Services, partner: Client, paid_out: PaidOut) -> Transfers:
    """Record by hand what was told before the bank showed it, and write the bank's statements."""
    now = services.clock.now()
    with services.worker.begin() as tx:
        zones = {one: find_period(tx, one, now.date()).time_zone for one in world.PROGRAMMES}
        attempts = _attempts(tx, paid_out)
    paid_today = frozenset(one for one, zone in zones.items() if effective_day(now, zone) <= now.date())
    today = effective_day(now, zones[PROGRAMME])
    first = today.replace(day=1)
    through = first - timedelta(days=1)
    month = through.replace(day=1)
    owed, due = _due(partner, today)
    arrears = [one for one in due if one.on < month]
    inside = [one for one in due if month <= one.on <= through]
    if len(inside) < PAYING_DAYS_MIN:
        raise Unavailable(f"{PARTNER} pays on {len(inside)} days of {label(month)}: too few to show anything")
    in_transit, twice, short = inside[-1], inside[-2], inside[len(inside) // 2 - 1]
    _by_hand(services, arrears, "DM-ARREARS", month)
    _by_hand(services, [in_transit], in_transit.end_to_end, in_transit.on)

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
    return Transfers(month, through, (old, new), owed, due, in_transit, short, paid_today)


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

    def record(tx: Tx) -> Settlement:
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
            BankLine(
                today,
                amount,
                "PAYOUT" if amount < 0 else "RETURNED ACCOUNT CLOSED",
                frozenset({f"{kind} {payout}"}),
                end_to_end,
            )
            for payout, end_to_end, amount, kind in attempts
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
