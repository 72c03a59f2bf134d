"""A programme as the rules see it: plain, frozen, with every amount an integer of minor units and every rate exact.

`loader.load` builds these from a programme file; nothing here reads files, clocks or databases. Money is in minor
units of the programme's currency, percentages and rates are exact fractions (5 % is 1/20), dates are local dates in
the programme's time zone, the last day of a window belongs to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Final, Literal, get_args

from ledger.errors import NotFound
from products.facts import FactDeclaration, FactScalar

WindowKind = Literal[
    "day", "month", "quarter", "calendar_year", "financial_year", "membership_year", "enrolment"
]
Operator = Literal["is", "in", "at_least", "at_most", "below", "above"]
Subject = Literal["fact", "age", "entry_age", "joined_on", "contributed_on", "membership_years"]
Rule = Literal["fixed", "percent", "table", "remainder"]
BelowMinimum = Literal["skip", "accumulate"]
Receiver = Literal["sponsor", "savers", "pool", "administrator"]

ANY_TIME: Final = "any_time"
"""The way out of a product whose programme says nothing about withdrawals: everything, whenever."""

MATCH_PAID_OUT: Final = "match_paid_out"
"""The way of a match that is paid into the member's own bank account: all of it, whatever becomes of the savings."""

RESERVED_WAYS: Final = frozenset({ANY_TIME, MATCH_PAID_OUT})
"""Codes that a programme's own ways out can't have."""


class UnknownProduct(NotFound):
    """The programme has no product of this code."""

    code = "unknown_product"


@dataclass(frozen=True, slots=True)
class WindowRule:
    """How time is cut: contributions are counted together, or an instalment falls due, once in each such stretch.

    ``years`` counts for membership years only (3: one premium for three years); ``starts`` is the (month, day) on
    which a financial year begins.
    """

    kind: WindowKind
    years: int = 1
    starts: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operator and what it compares with; for ``in`` a tuple."""

    operator: Operator
    operand: FactScalar | tuple[FactScalar, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that must be true of a member on a date. All comparisons must hold; an unknown fact never does."""

    subject: Subject
    fact: str | None
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class ChoiceRange:
    """What a member may choose, as a fraction (percent rules) or minor units (fixed rules)."""

    minimum: Fraction | int
    maximum: Fraction | int | None
    step: Fraction | int | None
    suggested: Fraction | int | None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a member chose: a fraction for a percent rule, minor units for a fixed one; neither where nothing is chosen."""

    percent: Fraction | None = None
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a contribution table: from and to belong to it (``upto`` None: and beyond)."""

    since: int
    upto: int | None
    amount: int | None
    percent: Fraction | None


@dataclass(frozen=True, slots=True)
class Payable:
    """Until when an instalment of a month may be paid: to the end of its year, for some months into the next one."""

    late_months: tuple[int, ...]
    late_until: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Contribution:
    """How much a product asks for.

    ``of`` is ``received`` or the name of a money fact, for percentages; ``by`` is ``entry_age``, ``age`` or the name
    of a fact, for tables. ``period`` is None when the rule asks anew at each remittance. ``at_least`` raises what is
    asked; ``minimum`` is the smallest amount that is taken, and ``below_minimum`` says what becomes of less.
    """

    rule: Rule
    amount: int | None
    percent: Fraction | None
    choice: ChoiceRange | None
    of: str | None
    by: str | None
    rows: tuple[Row, ...]
    period: WindowRule | None
    payable: Payable | None
    at_least: int | None
    minimum: int | None
    maximum: int | None
    step: int | None
    below_minimum: BelowMinimum


@dataclass(frozen=True, slots=True)
class Share:
    """A sponsor's part of a match; the parts of one match add up to one."""

    sponsor: str
    share: Fraction


@dataclass(frozen=True, slots=True)
class Tier:
    """One line of a match: for whom, at which rate, from which total in the window, up to which amount in it."""

    code: str
    when: tuple[Condition, ...]
    rate: Fraction
    threshold: int
    cap: int | None


@dataclass(frozen=True, slots=True)
class MatchYears:
    """For how many years a match is given, and whether years of membership or windows are counted."""

    count: int
    counted: Literal["membership_years", "windows"]


@dataclass(frozen=True, slots=True)
class VestingStep:
    """From which age or after how many years of membership which part of the match is the member's own."""

    vested: Fraction
    after_years: int | None
    from_age: int | None


@dataclass(frozen=True, slots=True)
class Match:
    """A match: the window in which contributions are counted, its tiers, who pays, and when it becomes the member's."""

    window: WindowRule
    base: Literal["due", "paid"]
    years: MatchYears | None
    joined_from: date | None
    joined_to: date | None
    paid_from: date | None
    paid_to: date | None
    tiers: tuple[Tier, ...]
    shares: tuple[Share, ...]
    granted: Literal["on_settlement", "end_of_window"]
    into: Literal["product", "member_bank_account"]
    vesting: tuple[VestingStep, ...]
    forfeit_to: Receiver


@dataclass(frozen=True, slots=True)
class Reward:
    """Something other than money that a saved total earns: cover of a plan in the next window."""

    code: str
    when: tuple[Condition, ...]
    window: WindowRule
    threshold: int
    plan: str
    lasts: Literal["next_window", "this_window"]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """One way out: who may take how much at once, and over how many years the rest is paid monthly.

    ``proven_by`` names the boolean fact that proves the event; without it, a claim does.
    """

    code: str
    from_age: int | None
    before_age: int | None
    after_years: int | None
    before_years: int | None
    event: str | None
    proven_by: str | None
    balance_at_least: int | None
    balance_below: int | None
    saved_each_year: int | None
    lump_sum: Fraction
    rest_over_years: int | None
    interest: Literal["fund", "savings_bank", "higher_of_both"] | None
    match: Literal["paid", "forfeited"]


@dataclass(frozen=True, slots=True)
class AfterTerm:
    """A reduced return for some years after the term: ``rate_share`` of the declared rate."""

    years: int
    rate_share: Fraction


@dataclass(frozen=True, slots=True)
class Returns:
    """How investment income reaches members: declared after the year, counted by months, compounded or paid out."""

    declared: Literal["yearly"]
    counted: Literal["months_in", "days_in"]
    credited: Literal["compounded", "paid_out", "member_chooses"]
    after_term: tuple[AfterTerm, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """How long one enrolment runs, and from when."""

    years: int
    starts: Literal["enrolment", "first_contribution"]


@dataclass(frozen=True, slots=True)
class Benefit:
    """What a plan pays: an amount at once, a periodic amount, or costs up to a limit a year."""

    code: str
    kind: str
    amount: int | None
    every: Literal["month", "year"] | None
    limit_per_year: int | None
    from_age: int | None
    survivor: Literal["spouse", "family"] | None
    survivor_share: Fraction | None
    when: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Cover that a product's contributions buy."""

    code: str
    name: str
    kind: str
    term: WindowRule | None
    tail_months: int
    tail_after: str | None
    waiting_days: int
    benefits: tuple[Benefit, ...]


@dataclass(frozen=True, slots=True)
class Cession:
    """The part of a pool's risk that a regional pool carries."""

    to: str
    kind: Literal["quota_share", "excess_of_loss"]
    share: Fraction | None
    retention: int | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Destination:
    """Whose books the contribution enters: the savers' fund, a pool, or an agency for which it is collected."""

    kind: Literal["savers", "pool", "agency"]
    code: str


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Who may enrol: ages in complete years on the day of joining (both ends included), joining dates, conditions."""

    age_from: int | None
    age_to: int | None
    joined_from: date | None
    joined_to: date | None
    when: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """What a member may hold in a programme."""

    code: str
    name: str
    kind: str
    currency: str
    custody: Literal["held", "passed_through"]
    destination: Destination
    priority: int
    several: bool
    term: Term | None
    eligibility: Eligibility
    contribution: Contribution
    match: Match | None
    rewards: tuple[Reward, ...]
    withdrawals: tuple[Withdrawal, ...]
    returns: Returns | None
    plans: tuple[Plan, ...]
    cession: Cession | None


@dataclass(frozen=True, slots=True)
class Sponsor:
    """Who pays for a match. The budget is the file's proposal; what a sponsor has paid in is in the books."""

    slug: str
    name: str
    kind: Literal["government", "donor"]
    funding: Literal["prefunded", "arrears"]
    budget: int | None
    budget_per: Literal["programme", "calendar_year", "financial_year"] | None


Level = Literal["none", "phone", "document", "institution"]
"""How well it is known who a member is, in rising order."""

LEVELS: Final[tuple[Level, ...]] = get_args(Level)


@dataclass(frozen=True, slots=True)
class LevelLimits:
    """What may move in a calendar month at a level of verification, in minor units; None: no limit."""

    contributions_per_month: int | None
    payouts_per_month: int | None


@dataclass(frozen=True, slots=True)
class Corridor:
    """Where money may come from and go to; an empty tuple means anywhere."""

    origins: tuple[str, ...]
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A rule that the source leaves open, and how this file reads it."""

    topic: str
    reading: str


@dataclass(frozen=True, slots=True)
class Validity:
    """From when a version is in force, and which windows it governs (`rules.rule_version_for`)."""

    version: int
    in_force_from: date
    applies_to: Literal["new_windows", "open_windows", "since"]
    since: date | None


@dataclass(frozen=True, slots=True)
class Programme:
    """A scheme, as one version of its file describes it. Products are in priority order: the waterfall's."""

    slug: str
    name: str
    description: str
    authority: str
    source: str
    readings: tuple[Reading, ...]
    validity: Validity
    currency: str
    time_zone: str
    taken: Literal["on_top", "out_of_remittance"]
    ceiling: Fraction
    corridors: tuple[Corridor, ...]
    facts: Mapping[str, FactDeclaration]
    sponsors: tuple[Sponsor, ...]
    products: tuple[Product, ...]
    cooling_off_days: int
    limits: Mapping[Level, LevelLimits]
    _by_code: Mapping[str, Product] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_code", {product.code: product for product in self.products})

    @property
    def codes(self) -> frozenset[str]:
        """The codes of the programme's products."""
        return frozenset(self._by_code)

    def product(self, code: str) -> Product:
        """The product of this code; raises UnknownProduct."""
        try:
            return self._by_code[code]
        except KeyError:
            raise UnknownProduct(f"{self.slug} has no product “{code}”") from None

    def serves(self, origin_country: str, destination_country: str) -> bool:
        """Whether a remittance between these countries (ISO 3166-1 alpha-2) belongs to one of the corridors."""
        return any(
            (not corridor.origins or origin_country in corridor.origins)
            and (not corridor.destinations or destination_country in corridor.destinations)
            for corridor in self.corridors
        )
