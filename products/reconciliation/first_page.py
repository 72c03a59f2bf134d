"""The daily first page, fund by fund and currency by currency: what is there, what is owed, and what needs a hand today.

Everything is read in one snapshot and in sets. The lines of a fund's position are those of the trial balance of that snapshot, so
its assets less its liabilities are its equity and its income less its expenses, to the last unit. How each figure is made, from
which accounts and rows: docs/reference/money-proven.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound
from ledger.periods import effective_day
from ledger.trial_balance import FundBalance, trial_balance
from products import chart
from products.programmes import registry
from products.reconciliation import page_reading as reading
from products.reconciliation.page_reading import (
    BankPosition,
    Fund,
    Key,
    RailNeed,
    Remittals,
    Tied,
    Unidentified,
    Unknown,
    Waiting,
)
from products.remittances.context import Books
from products.settlements import limits, obligations
from products.settlements.calendar import Calendar, business_days, is_known
from products.settlements.obligations import BUCKETS, Bucket, Obligation

CASH: Final = (chart.BANK.name, chart.RAIL_FLOAT.name)
"""The accounts whose balances are money at hand: at the bank, and prepaid at rails."""
WORK_MEMORY: Final = "64MB"
"""For each step of a query: half a million balances are joined in memory."""
_RECEIVABLE: Final = chart.PARTNER_RECEIVABLE.name


@dataclass(frozen=True, slots=True)
class Line:
    """All accounts of a code in a fund and currency, on the code's normal side, in minor units."""

    code: str
    kind: str
    amount: int


@dataclass(frozen=True, slots=True)
class Position:
    """A fund in one currency, as the trial balance has it; ``waiting`` is known of now alone."""

    lines: tuple[Line, ...]
    waiting: Waiting | None

    def of(self, *kinds: str) -> tuple[Line, ...]:
        """The lines of these kinds of accounts."""
        return tuple(line for line in self.lines if line.kind in kinds)

    def total(self, *kinds: str) -> int:
        """What accounts of these kinds hold together."""
        return sum(line.amount for line in self.of(*kinds))

    def amount(self, *codes: str) -> int:
        """What these codes hold together."""
        return sum(line.amount for line in self.lines if line.code in codes)

    @property
    def cash(self) -> int:
        """Money at hand: at the bank, and prepaid at rails."""
        return self.amount(*CASH)

    @property
    def owed(self) -> int:
        """All that the fund owes: to members, agencies, pools, sponsors, partners, other funds and payees."""
        return self.total("liability")

    @property
    def result(self) -> int:
        """Equity, and income less expenses."""
        return self.total("equity", "income") - self.total("expense")

    @property
    def owed_and_settled(self) -> int | None:
        """What of it money at hand has to cover: not what partners still have, but also what they may leave out."""
        return None if self.waiting is None else self.owed - self.waiting.net + self.waiting.credits

    @property
    def surplus(self) -> int | None:
        """Money at hand less what is owed and settled; negative: a shortfall."""
        covered = self.owed_and_settled
        return None if covered is None else self.cash - covered

    @property
    def because(self) -> tuple[tuple[str, int], ...]:
        """What the surplus is made of, by name; the amounts add up to it.

        ``result``; ``advanced``; each other asset that is not money yet, by its code; and ``receivable_unexplained``, what
        partners' receivables hold beyond what they collected and still have, less their credits: nothing, or `verify` says so.
        """
        if self.waiting is None:
            return ()
        beyond = self.amount(_RECEIVABLE) - (
            self.waiting.net + self.waiting.guaranteed - self.waiting.credits
        )
        parts = [("result", self.result), ("advanced", -self.waiting.guaranteed)]
        parts += [
            (line.code, -line.amount) for line in self.of("asset") if line.code not in (*CASH, _RECEIVABLE)
        ]
        parts.append(("receivable_unexplained", -beyond))
        return tuple((name, amount) for name, amount in parts if amount)


@dataclass(frozen=True, slots=True)
class Exposure:
    """A partner at a fund: what it owes by the books less its credits, by how late it is, and its ceiling."""

    partner: str
    account_id: UUID | None
    balance: int
    ceiling: int | None
    warned: bool
    by_bucket: Mapping[Bucket, int]
    fees: int
    credits: int

    @property
    def tenths_used(self) -> int | None:
        """How much of the ceiling is used, in tenths of a per cent, rounded up; None without one, or for one of nothing."""
        return None if not self.ceiling else -(-self.balance * 1_000 // self.ceiling)


@dataclass(frozen=True, slots=True)
class CashNeed:
    """What has to leave by the end of the next business day, and what should come, in minor units.

    ``bank_need`` is what rails that pay from the bank, and remittals, take of the bank account.
    """

    day: date
    rails: tuple[RailNeed, ...]
    remittals: Remittals
    expected: int
    overdue: int
    credits: int

    @property
    def bank_need(self) -> int:
        """What leaves the bank account."""
        return (
            sum(one.need for one in self.rails if one.funded == "bank")
            + self.remittals.made
            + self.remittals.sent
        )


@dataclass(frozen=True, slots=True)
class Present:
    """What is known of now alone: for a day that is past it is not read."""

    receivables: tuple[Exposure, ...]
    unidentified: Unidentified
    unknown: tuple[Unknown, ...]
    need: CashNeed

    @property
    def by_bucket(self) -> dict[Bucket, int]:
        """What partners owe by how late it is."""
        return {bucket: sum(one.by_bucket[bucket] for one in self.receivables) for bucket in BUCKETS}


@dataclass(frozen=True, slots=True)
class FundPage:
    """The page of one fund in one currency. ``mirrored``: a bank account mirrors its `bank` account."""

    fund: Fund
    currency: str
    on: date
    position: Position
    bank_accounts: tuple[BankPosition, ...]
    tied: tuple[Tied, ...]
    present: Present | None

    @property
    def mirrored(self) -> bool:
        """Whether the bank can be asked at all."""
        return any(one.code == chart.BANK.name for one in self.bank_accounts)


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The first page: its funds by code and currency."""

    read_at: datetime
    funds: tuple[FundPage, ...]


def first_page(
    tx: Tx,
    books: Books,
    *,
    programme: str | None = None,
    on: date | None = None,
    programmes: frozenset[UUID] | None = None,
) -> FirstPage:
    """The page of today, or the part of it that the books and statements still tell of a day that is past.

    ``programmes``: those that whoever asks may see; None: all, and funds that are no programme's. ``tx`` must see one snapshot,
    of every row. Raises `InvalidInput` for a day to come, `NotFound` for no such programme.
    """
    if programme is not None:
        wanted = registry.find(tx, programme)
        if programmes is not None and wanted not in programmes:
            raise NotFound(f"there is no programme “{programme}”")
        programmes = frozenset((wanted,))
    tx.execute(text("SELECT set_config('work_mem', :memory, true)"), {"memory": WORK_MEMORY})
    now = books.clock.now()
    funds = {one.id: one for one in reading.funds(tx, programmes)}
    today = {id_: effective_day(now, one.time_zone) for id_, one in funds.items()}
    past = on is not None and any(on < day for day in today.values())
    if on is not None and any(on > day for day in today.values()):
        raise InvalidInput("that day has not come yet", pointer="/on")
    days = {id_: on or day for id_, day in today.items()}
    balances = {
        (one.fund_id, one.currency): one
        for one in trial_balance(tx, as_of=on if past else None)
        if one.fund_id in funds
    }
    keys = sorted(
        {*balances, *((one.id, currency) for one in funds.values() for currency in one.currencies)},
        key=lambda key: (funds[key[0]].code, key[1]),
    )
    bank = reading.bank_accounts(tx, days, past=past)
    tied = reading.tied(tx, days)
    waiting = None if past else reading.waiting(tx)
    present = {} if past else _present(tx, books, funds, days, keys)
    return FirstPage(
        now,
        tuple(
            FundPage(
                funds[key[0]], key[1], days[key[0]], _position(balances.get(key), waiting, key), tuple(bank.get(key, ())), tuple(tied.get(key, ())),
                present.get(key),
            )
            for key in keys
        ),
    )  # fmt: skip


def _position(balance: FundBalance | None, waiting: Mapping[Key, Waiting] | None, key: Key) -> Position:
    lines = [
        Line(
            one.code,
            one.kind,
            one.debit - one.credit if one.kind in ("asset", "expense") else one.credit - one.debit,
        )
        for one in (balance.accounts if balance is not None else ())
    ]
    return Position(tuple(lines), None if waiting is None else waiting.get(key, Waiting()))


def _present(
    tx: Tx, books: Books, funds: Mapping[UUID, Fund], days: Mapping[UUID, date], keys: Sequence[Key]
) -> dict[Key, Present]:
    owed = obligations.obligations(tx, books.clock)
    credits_ = obligations.standing_credits(tx)
    standings = [one for one in limits.standings(tx, books.clock) if one.kind == "exposure"]
    unidentified = reading.unidentified(tx, days)
    unknown = reading.unknown(tx)
    rails = reading.rail_needs(tx)
    remittals = reading.remittals(tx)
    calendars = _calendars(tx, books, funds)
    found = {}
    for key in keys:
        fund, currency = funds[key[0]], key[1]
        own = [one for one in owed if (one.fund, one.currency) == (fund.code, currency)]
        left_out = {
            one.partner: one.amount for one in credits_ if (one.fund, one.currency) == (fund.code, currency)
        }
        next_day = calendars[fund.programme_id].on_or_after(days[fund.id] + timedelta(days=1))
        found[key] = Present(
            _exposures(own, left_out, [one for one in standings if (one.fund, one.currency) == (fund.code, currency)]),
            unidentified.get(key, Unidentified()),
            tuple(unknown.get(key, ())),
            CashNeed(
                next_day,
                tuple(rails.get(key, ())),
                remittals.get(key, Remittals()),
                sum(one.amounts.owed for one in own if days[fund.id] < one.expected_on <= next_day),
                sum(one.amounts.owed for one in own if one.expected_on <= days[fund.id]),
                sum(left_out.values()),
            ),
        )  # fmt: skip
    return found


def _exposures(
    owed: Sequence[Obligation], credits_: Mapping[str, int], standings: Sequence[limits.Standing]
) -> tuple[Exposure, ...]:
    at = {one.partner: one for one in standings}
    found = []
    for partner in sorted({*at, *credits_, *(one.partner for one in owed)}):
        own = [one for one in owed if one.partner == partner]
        standing = at.get(partner)
        exposure = Exposure(
            partner,
            standing.account_id if standing else None,
            standing.balance if standing else 0,
            standing.ceiling if standing else None,
            standing.crossed if standing else False,
            {bucket: sum(one.amounts.owed for one in own if one.bucket == bucket) for bucket in BUCKETS},
            sum(one.amounts.fees for one in own),
            credits_.get(partner, 0),
        )
        if exposure.balance or exposure.credits or own or exposure.ceiling is not None:
            found.append(exposure)
    return tuple(found)


def _calendars(tx: Tx, books: Books, funds: Mapping[UUID, Fund]) -> dict[UUID | None, Calendar]:
    """Programmes' business days: those of the countries that their corridors lead to, where their money is paid."""
    found: dict[UUID | None, Calendar] = {None: Calendar(())}
    for programme_id in {one.programme_id for one in funds.values() if one.programme_id is not None}:
        programme = books.programmes.versions(tx, programme_id)[-1].programme
        countries = {country for corridor in programme.corridors for country in corridor.destinations}
        found[programme_id] = business_days([one for one in countries if is_known(one)])
    return found
