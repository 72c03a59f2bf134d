"""The shapes of the daily first page: each figure with where it comes from."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from pydantic import Field

from api import bank_statements
from api.v1.schemas import Day, Instant, MoneyOut, Out
from ledger.ids import public_id
from products import chart
from products.reconciliation.first_page import CASH, Exposure, FirstPage, FundPage
from products.reconciliation.page_reading import BankPosition, RailNeed, Tied
from products.settlements.obligations import Bucket


class Figure(Out):
    """An amount, and the rows or transactions that it is made of."""

    amount: MoneyOut
    link: Annotated[str, Field(examples=["/v1/ledger/accounts?fund=ejoheza/savers&code=bank"])]


class NamedFigure(Figure):
    """A figure of a list: an account's code, or what else it is named by."""

    name: Annotated[str, Field(examples=["member_savings"])]


class CountedFigure(Figure):
    """An amount, how many things it is made of, and since when the oldest of them is there."""

    count: int
    oldest: Day | None


class BankPositionOut(Out):
    """A bank account by the books and by its last statement."""

    bank_account: str
    code: Annotated[str, Field(description="the books' account: `bank`, or a rail's `rail_float`")]
    books: Figure
    statement: Annotated[Figure | None, Field(description="the closing balance of its last statement")]
    statement_on: Day | None
    books_then: Annotated[MoneyOut | None, Field(description="the books at the end of that day")]
    difference: Annotated[
        MoneyOut | None, Field(description="`books_then` − `statement`: open lines and items explain it")
    ]
    open_lines: Annotated[CountedFigure, Field(description="lines in no pairing: in less out")]
    open_in: MoneyOut
    open_out: MoneyOut


class AgesOut(Out):
    """What is owed by how many days it is late."""

    not_due: MoneyOut
    days_1_to_7: MoneyOut
    days_8_to_30: MoneyOut
    days_31_to_90: MoneyOut
    over_90_days: MoneyOut


class ExposureOut(Out):
    """What a partner owes a fund by the books, fees it will keep included and credits taken off; and its limit."""

    partner: str
    balance: Figure
    ages: AgesOut
    owed: Annotated[Figure, Field(description="all ages together, less the fees that it will keep")]
    fees: MoneyOut
    credits: MoneyOut
    ceiling: MoneyOut | None
    used_percent: Annotated[
        str | None, Field(description="`balance` ÷ `ceiling`, rounded up", examples=["83.4"])
    ]
    warning: bool


class RailUnknownOut(Out):
    """Payouts of a rail that may be paid or not."""

    rail: str
    payouts: Figure
    count: int
    oldest: Instant


class RailNeedOut(Out):
    """What payouts of a rail will take: queued, held for a second person, and under way; and the rail's own fees."""

    rail: str
    funded: Annotated[
        str, Field(description="`bank`: from the fund's bank account; `float`: prepaid at the rail")
    ]
    paused: bool
    queued: CountedFigure
    held: CountedFigure
    under_way: CountedFigure
    fees: MoneyOut
    need: MoneyOut
    available: Annotated[
        MoneyOut | None, Field(description="what its float holds; null when it pays from the bank")
    ]


class CashNeedOut(Out):
    """What leaves by the end of the next business day, and what should come by then."""

    day: Annotated[
        Day, Field(description="the next business day of the countries that the programme pays in")
    ]
    rails: list[RailNeedOut]
    remittals_made: CountedFigure
    remittals_sent: CountedFigure
    to_remit: Annotated[
        Figure, Field(description="paid in for agencies, and in no remittal yet; not in the need")
    ]
    bank_need: Annotated[
        MoneyOut, Field(description="rails that pay from the bank, and both kinds of remittals")
    ]
    bank_after: Annotated[MoneyOut, Field(description="the bank by the books, less the need")]
    expected_receipts: Annotated[Figure, Field(description="due by that day; in no other figure")]
    overdue_receipts: Annotated[Figure, Field(description="due today or before")]
    credits: Annotated[MoneyOut, Field(description="what partners may leave out of them")]


class TiedOut(Out):
    """Of what the books moved on the bank accounts in the last days, what statement lines show."""

    days: int
    moved: MoneyOut
    tied: MoneyOut
    percent: Annotated[
        str | None, Field(description="rounded down; null when nothing moved", examples=["98.7"])
    ]
    link: str


class FundPageOut(Out):
    """The first page of one fund in one currency. What is known of now alone is null for a day that is past."""

    fund: Annotated[str, Field(examples=["ejoheza/savers"])]
    name: str
    programme: str | None
    currency: str
    on: Day
    lacks_bank_account: Annotated[bool, Field(description="no bank account mirrors its `bank` account")]
    bank_accounts: list[BankPositionOut]
    cash: list[NamedFigure]
    cash_total: MoneyOut
    other_assets: list[NamedFigure]
    owed: list[NamedFigure]
    owed_total: MoneyOut
    result: list[NamedFigure]
    result_total: Annotated[
        MoneyOut, Field(description="equity, and income less expenses: all assets less all that is owed")
    ]
    not_paid_in: Annotated[Figure | None, Field(description="owed, but partners on net terms still have it")]
    advanced: Annotated[
        Figure | None, Field(description="the members' already, though partners still have it")
    ]
    owed_and_settled: Annotated[MoneyOut | None, Field(description="`owed_total` − `not_paid_in` + credits")]
    surplus: Annotated[
        MoneyOut | None, Field(description="`cash_total` − `owed_and_settled`; negative: a shortfall")
    ]
    surplus_because: Annotated[list[NamedFigure], Field(description="what it is made of; adds up to it")]
    receivables: list[ExposureOut] | None
    receivables_by_age: AgesOut | None
    unidentified: CountedFigure | None
    unidentified_unexplained: Annotated[
        MoneyOut | None, Field(description="the account's balance beyond that; what was booked by hand")
    ]
    payouts_unknown: list[RailUnknownOut] | None
    tomorrow: CashNeedOut | None
    tied: list[TiedOut]


class FirstPageOut(Out):
    """The first page: one snapshot of all of it."""

    read_at: Instant
    data: list[FundPageOut]


def first_page_out(page: FirstPage) -> FirstPageOut:
    """The first page, each figure with its link."""
    return FirstPageOut(read_at=page.read_at, data=[_Shown(one).page() for one in page.funds])


def tenths(value: int | None) -> str | None:
    """Tenths of a per cent as people write them: 987 is ``98.7``."""
    return None if value is None else f"{'-' if value < 0 else ''}{abs(value) // 10}.{abs(value) % 10}"


class _Shown:
    """One fund's page on its way out."""

    def __init__(self, page: FundPage) -> None:
        self._page = page
        self._currency = page.currency

    def page(self) -> FundPageOut:
        """All of it."""
        page, position = self._page, self._page.position
        present = page.present
        unidentified = position.amount(chart.UNIDENTIFIED_RECEIPTS.name)
        waiting = position.waiting
        owed_link = _link("/v1/settlements/obligations")
        return FundPageOut(
            fund=page.fund.code,
            name=page.fund.name,
            programme=page.fund.programme,
            currency=page.currency,
            on=page.on,
            lacks_bank_account=not page.mirrored,
            bank_accounts=[self._bank(one) for one in page.bank_accounts],
            cash=[self._code(code, position.amount(code)) for code in CASH],
            cash_total=self._money(position.cash),
            other_assets=[
                self._code(one.code, one.amount) for one in position.of("asset") if one.code not in CASH
            ],
            owed=[self._code(one.code, one.amount) for one in position.of("liability")],
            owed_total=self._money(position.owed),
            result=[
                self._code(one.code, -one.amount if one.kind == "expense" else one.amount)
                for one in position.of("equity", "income", "expense")
            ],
            result_total=self._money(position.result),
            not_paid_in=None if waiting is None else self._figure(waiting.net, owed_link),
            advanced=None if waiting is None else self._figure(waiting.guaranteed, owed_link),
            owed_and_settled=self._money_or_none(position.owed_and_settled),
            surplus=self._money_or_none(position.surplus),
            surplus_because=[self._because(name, amount) for name, amount in position.because],
            receivables=None if present is None else [self._exposure(one) for one in present.receivables],
            receivables_by_age=None if present is None else self._ages(present.by_bucket),
            unidentified=None
            if present is None
            else self._counted(
                present.unidentified.amount,
                present.unidentified.count,
                self._account_link(chart.UNIDENTIFIED_RECEIPTS.name),
                present.unidentified.oldest,
            ),
            unidentified_unexplained=None
            if present is None
            else self._money(unidentified - present.unidentified.amount),
            payouts_unknown=None
            if present is None
            else [
                RailUnknownOut(
                    rail=one.rail,
                    payouts=self._figure(one.amount, _link("/v1/payouts", state="unknown")),
                    count=one.count,
                    oldest=one.oldest,
                )
                for one in present.unknown
            ],
            tomorrow=self._need(),
            tied=[self._tied(one) for one in page.tied],
        )

    def _bank(self, one: BankPosition) -> BankPositionOut:
        statement = None
        if one.statement_id is not None and one.statement is not None:
            link = f"/v1/bank-statements/{public_id(bank_statements.STATEMENT, one.statement_id)}"
            statement = self._figure(one.statement, link)
        return BankPositionOut(
            bank_account=one.slug,
            code=one.code,
            books=self._figure(one.books, _statement_link(one.account_id)),
            statement=statement,
            statement_on=one.statement_on,
            books_then=self._money_or_none(one.books_then),
            difference=self._money_or_none(one.difference),
            open_lines=self._counted(
                one.open_in - one.open_out,
                one.open_lines,
                _link("/v1/breaks", bank_account=one.slug),
                one.open_since,
            ),
            open_in=self._money(one.open_in),
            open_out=self._money(one.open_out),
        )

    def _exposure(self, one: Exposure) -> ExposureOut:
        return ExposureOut(
            partner=one.partner,
            balance=self._figure(
                one.balance,
                self._account_link(chart.PARTNER_RECEIVABLE.name)
                if one.account_id is None
                else _statement_link(one.account_id),
            ),
            ages=self._ages(one.by_bucket),
            owed=self._figure(
                sum(one.by_bucket.values()), _link("/v1/settlements/obligations", partner=one.partner)
            ),
            fees=self._money(one.fees),
            credits=self._money(one.credits),
            ceiling=self._money_or_none(one.ceiling),
            used_percent=tenths(one.tenths_used),
            warning=one.warned,
        )

    def _need(self) -> CashNeedOut | None:
        if self._page.present is None:
            return None
        need, position = self._page.present.need, self._page.position
        made = _link("/v1/remittals", state="made")
        sent = _link("/v1/remittals", state="sent")
        owed = _link("/v1/settlements/obligations")
        return CashNeedOut(
            day=need.day,
            rails=[self._rail(one) for one in need.rails],
            remittals_made=self._counted(need.remittals.made, need.remittals.made_count, made),
            remittals_sent=self._counted(need.remittals.sent, need.remittals.sent_count, sent),
            to_remit=self._figure(need.remittals.to_make, self._account_link(chart.AGENCY_COLLECTED.name)),
            bank_need=self._money(need.bank_need),
            bank_after=self._money(position.amount(chart.BANK.name) - need.bank_need),
            expected_receipts=self._figure(need.expected, owed),
            overdue_receipts=self._figure(need.overdue, owed),
            credits=self._money(need.credits),
        )

    def _rail(self, one: RailNeed) -> RailNeedOut:
        return RailNeedOut(
            rail=one.rail,
            funded=one.funded,
            paused=one.paused,
            queued=self._counted(one.queued, one.queued_count, _link("/v1/payouts", state="approved")),
            held=self._counted(one.held, one.held_count, _link("/v1/payouts", state="awaiting_operators")),
            under_way=self._counted(
                one.under_way, one.under_way_count, self._account_link(chart.PAYOUT_CLEARING.name)
            ),
            fees=self._money(one.fees),
            need=self._money(one.need),
            available=self._money_or_none(one.available),
        )

    def _tied(self, one: Tied) -> TiedOut:
        return TiedOut(
            days=one.days,
            moved=self._money(one.moved),
            tied=self._money(one.tied),
            percent=tenths(one.tenths),
            link=self._awaiting_lines(),
        )

    def _awaiting_lines(self) -> str:
        """What the books moved and no line shows yet: of the bank account, or of a rail's where there is no other."""
        accounts = sorted(self._page.bank_accounts, key=lambda one: one.code != chart.BANK.name)
        return f"/v1/bank-accounts/{accounts[0].slug}/open-items"

    def _ages(self, by: Mapping[Bucket, int]) -> AgesOut:
        return AgesOut(
            not_due=self._money(by["not_due"]),
            days_1_to_7=self._money(by["1-7"]),
            days_8_to_30=self._money(by["8-30"]),
            days_31_to_90=self._money(by["31-90"]),
            over_90_days=self._money(by["over_90"]),
        )

    def _because(self, name: str, amount: int) -> NamedFigure:
        code = {"receivable_unexplained": chart.PARTNER_RECEIVABLE.name}.get(name, name)
        links = {
            "advanced": _link("/v1/settlements/obligations"),
            "result": _link("/v1/ledger/trial-balance", fund=self._page.fund.code),
        }
        return NamedFigure(
            name=name, amount=self._money(amount), link=links.get(name, self._account_link(code))
        )

    def _code(self, code: str, amount: int) -> NamedFigure:
        return NamedFigure(name=code, amount=self._money(amount), link=self._account_link(code))

    def _account_link(self, code: str) -> str:
        return _link("/v1/ledger/accounts", fund=self._page.fund.code, code=code)

    def _figure(self, amount: int, link: str) -> Figure:
        return Figure(amount=self._money(amount), link=link)

    def _counted(self, amount: int, count: int, link: str, oldest: Day | None = None) -> CountedFigure:
        return CountedFigure(amount=self._money(amount), count=count, oldest=oldest, link=link)

    def _money(self, amount: int) -> MoneyOut:
        return MoneyOut.of(amount, self._currency)

    def _money_or_none(self, amount: int | None) -> MoneyOut | None:
        return None if amount is None else self._money(amount)


def _link(path: str, **asked: str) -> str:
    return f"{path}?{urlencode(asked, safe='/:')}" if asked else path


def _statement_link(account_id: UUID) -> str:
    return f"/v1/ledger/accounts/{public_id('acc', account_id)}/statement"
