"""Three-way: what partners announced, what they settled, and what the bank shows, by partner, fund, currency and day.

One row has all of a day. What was collected counts for the partner's business day; what a payment brought beyond whole
contributions, or left out for credits, for the day on which it was booked; a line of the partner's that pays for nothing yet
for the day on which the bank booked it. So the rows of all days add up to what partners announced, to what their payments
were, and to the lines of the statements. What settled contributions brought counts as shown by the bank once all that the
payment posted on the fund's bank account stands paired with statement lines.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final, Literal
from uuid import UUID

from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import InvalidInput
from ledger.periods import effective_day
from products.reconciliation import evidence
from products.reconciliation.evidence import BankLine, Payment
from products.settlements.terms import load_terms, on_day

DAYS_MAX: Final = 366
DAYS_SHOWN: Final = 31
"""How many days are shown when nobody says which."""

State = Literal["overdue", "unmatched", "awaiting_bank", "credit", "not_due", "tied"]

Key = tuple[date, str, str, str, str]
"""Day, partner, programme, fund, currency: the order of rows."""


@dataclass(slots=True)
class Amounts:
    """What a row adds up, in minor units: `collected` less `reversed` is what stands announced.

    ``collected`` − ``reversed`` + ``credited`` = ``prefunded`` + ``settled`` + ``written_off`` + ``fees_open`` + ``owed``.
    ``credited``: reversed after it had been settled. ``settled``: gross, ``fees`` of it kept by the partner. ``beyond``: what
    payments brought that paid for no whole contribution; ``credits``: what they left out. ``bank``: what statement lines show of
    all this; ``charges``: what the bank kept of it. ``unmatched``: lines of the partner's that pay for nothing yet.
    """

    collected: int = 0
    reversed: int = 0
    credited: int = 0
    prefunded: int = 0
    settled: int = 0
    fees: int = 0
    written_off: int = 0
    fees_open: int = 0
    owed: int = 0
    beyond: int = 0
    credits: int = 0
    charges: int = 0
    bank: int = 0
    unmatched: int = 0

    @property
    def announced(self) -> int:
        """What the partner says that it collected and did not take back."""
        return self.collected - self.reversed

    @property
    def announced_less_settled(self) -> int:
        """What is announced and not settled; negative where it was reversed after it had been settled."""
        return self.announced - self.prefunded - self.settled - self.written_off

    @property
    def received(self) -> int:
        """The money that the books say the payments brought to the bank."""
        return self.settled - self.fees + self.beyond - self.credits - self.charges

    @property
    def settled_less_bank(self) -> int:
        """What the books received and the bank does not show; negative where it shows what the books took back."""
        return self.received - self.bank

    def add(self, other: "Amounts") -> None:
        """Count the other in."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Row:
    """One partner, fund, currency and day. ``lines``: the statement lines behind it, each with both of its dates."""

    on: date
    partner: str
    programme: str
    fund: str
    currency: str
    amounts: Amounts = field(default_factory=Amounts)
    expected_on: date | None = None
    days_since: int = 0
    days_overdue: int = 0
    settlements: list[UUID] = field(default_factory=list)
    lines: list[BankLine] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Its place among the rows."""
        return (self.on, self.partner, self.programme, self.fund, self.currency)

    @property
    def state(self) -> State:
        """What is to be done about it first."""
        amounts = self.amounts
        if amounts.owed and self.days_overdue:
            return "overdue"
        if amounts.unmatched:
            return "unmatched"
        if amounts.settled_less_bank:
            return "awaiting_bank"
        if amounts.credited:
            return "credit"
        return "not_due" if amounts.owed else "tied"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows: days, and perhaps one partner's, one programme's, one fund's, one currency's, or in one state.

    ``programmes`` are those that whoever asks may see; None: all.
    """

    since: date
    through: date
    partner: str | None = None
    programme: str | None = None
    fund: str | None = None
    currency: str | None = None
    state: State | None = None
    programmes: frozenset[UUID] | None = None

    @property
    def parameters(self) -> dict[str, object]:
        """For the queries."""
        return {
            "since": self.since,
            "through": self.through,
            "partner": self.partner,
            "programme": self.programme,
            "fund": self.fund,
            "currency": self.currency,
            "programmes": None if self.programmes is None else list(self.programmes),
        }


def span(since: date | None, through: date | None, today: date) -> tuple[date, date]:
    """The days that are shown: the last `DAYS_SHOWN` when nobody says which. Raises `InvalidInput`."""
    last = through or (today if since is None else min(since + timedelta(days=DAYS_SHOWN - 1), today))
    first = since or last - timedelta(days=DAYS_SHOWN - 1)
    if last < first:
        raise InvalidInput("the last day comes before the first", pointer="/through")
    if last - first >= timedelta(days=DAYS_MAX):
        raise InvalidInput(f"at most {DAYS_MAX} days", pointer="/through")
    return first, last


def rows(tx: Tx, clock: Clock, asked: Asked) -> list[Row]:
    """The rows of these days, by day, partner, programme, fund and currency. ``tx`` must see one snapshot, of every row."""
    counted = evidence.contributions(tx, asked.parameters)
    payments = evidence.payments(tx, asked.parameters, {one.settlement for one in counted if one.settlement})
    found: dict[Key, Row] = {}

    def at(on: date, partner: str, programme: str, fund: str, currency: str) -> Row:
        key = (on, partner, programme, fund, currency)
        return found.setdefault(key, Row(*key))

    for one in counted:
        row = at(one.on, one.partner, one.programme, one.fund, one.currency)
        _count(row, one, payments)
    for payment in payments.values():
        if asked.since <= payment.effective_on <= asked.through:
            _count_payment(at, payment)
    for line in evidence.unmatched(tx, asked.parameters):
        row = at(line.line.booked_on, line.partner, line.programme, line.fund, line.line.currency)
        row.amounts.unmatched += line.line.amount
        row.lines.append(line.line)
    _date(tx, clock, found.values(), counted)
    chosen = sorted(found.values(), key=lambda row: row.key)
    return [row for row in chosen if _shown(row, asked)]


def totals(shown: Iterable[Row]) -> dict[str, Amounts]:
    """What rows add up to, by currency."""
    sums: dict[str, Amounts] = {}
    for row in shown:
        sums.setdefault(row.currency, Amounts()).add(row.amounts)
    return dict(sorted(sums.items()))


def _shown(row: Row, asked: Asked) -> bool:
    """Rows of other funds than were asked for come from payments that paid into several."""
    return asked.fund in (None, row.fund) and asked.state in (None, row.state) and row.amounts != Amounts()


def _count(row: Row, one: evidence.Counted, payments: Mapping[UUID, Payment]) -> None:
    amounts = row.amounts
    amounts.collected += one.collected
    amounts.reversed += one.reversed
    amounts.fees_open += one.fees_open
    amounts.owed += one.owed
    if one.settlement is None:
        amounts.prefunded += one.paid
        return
    payment = payments[one.settlement]
    amounts.credited += one.reversed_since
    if payment.kind != "payment":
        amounts.written_off += one.paid
        return
    amounts.settled += one.paid
    amounts.fees += one.fees
    _show(row, payment, one.paid - one.fees)


def _count_payment(at: Callable[[date, str, str, str, str], Row], payment: Payment) -> None:
    """What a payment did beyond the contributions that it paid for, on the day on which it was booked."""
    if payment.kind != "payment":
        return
    whose = (payment.partner, payment.programme)
    beyond: defaultdict[str, int] = defaultdict(int)
    beyond[payment.home] += payment.beyond
    for fund in sorted({*beyond, *payment.credits, *payment.charges, *payment.taken_back}):
        amounts = Amounts(
            beyond=beyond[fund], credits=payment.credits.get(fund, 0), charges=payment.charges.get(fund, 0)
        )
        taken_back = payment.taken_back.get(fund, 0)
        if amounts == Amounts() and not taken_back:
            continue
        row = at(payment.effective_on, *whose, fund, payment.currency)
        row.amounts.add(amounts)
        _show(row, payment, amounts.beyond - amounts.credits - amounts.charges)
        row.amounts.bank += taken_back


def _show(row: Row, payment: Payment, amount: int) -> None:
    """Count what the bank shows of a payment's part, and the lines that show it."""
    if payment.id not in row.settlements:
        row.settlements.append(payment.id)
    if payment.shown_for(row.fund):
        row.amounts.bank += amount
    row.lines += [line for line in payment.lines_for(row.fund) if line not in row.lines]


def _date(tx: Tx, clock: Clock, found: Collection[Row], counted: Sequence[evidence.Counted]) -> None:
    """When each day's money is expected, how long it has been on its way, and how late it is."""
    terms = load_terms(tx, sorted({one.partner_id for one in counted}))
    expected: dict[Key, date] = {}
    for one in counted:
        agreed = on_day(terms[one.partner_id, one.programme_id], one.contributed_on)
        key = (one.on, one.partner, one.programme, one.fund, one.currency)
        due = agreed.expected_on(one.on)
        # of what counts for one day by two days' terms, what is owed and expected first decides
        if key not in expected or (one.owed and due < expected[key]):
            expected[key] = due
    zones = evidence.time_zones(tx, {row.programme for row in found})
    now = clock.now()
    for row in found:
        today = effective_day(now, zones[row.programme])
        row.expected_on = expected.get(row.key)
        row.days_since = max((today - row.on).days, 0)
        if row.amounts.owed and row.expected_on is not None:
            row.days_overdue = max((today - row.expected_on).days, 0)
