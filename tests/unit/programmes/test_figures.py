"""The published figures of real schemes, each computed from its file in the catalogue."""

from datetime import date
from fractions import Fraction

import pytest

from products.facts import Facts
from products.programmes.model import Choice, Product
from products.remittances.allocate import Enrolled, allocate, entry_terms
from products.savings import rules
from tests.unit.programmes.world import NOTHING, chosen, held, known, matched, programme

AMPLE = 10**9


def taken(
    slug: str,
    product: str,
    *,
    entry_age: int | None = None,
    facts: Facts | None = None,
    choice: Choice = NOTHING,
) -> int:
    """What a product takes by rule from an ample remittance, in major units."""
    loaded = programme(slug)
    allocation = allocate(
        loaded,
        received=AMPLE,
        collected=None,
        enrolments=[Enrolled(product, choice, entry_age)],
        facts=facts or Facts(),
        contributed_on=date(2026, 3, 2),
    )
    unit = 1 if loaded.currency == "RWF" else 100
    whole, rest = divmod(allocation.legs[0].amount, unit)
    assert rest == 0
    return whole


def savings() -> Product:
    return programme("ejoheza").product("savings")


class TestEjoHeza:
    JOINED = date(2026, 2, 1)

    def entitled(self, saved: int, category: int, on: date = date(2026, 3, 2)) -> int:
        match = matched("ejoheza", "savings")
        tier = rules.tier_of(match, held(income_category=category), on, self.JOINED, None)
        return rules.entitlement(match, {tier: saved})

    @pytest.mark.parametrize("category", [1, 2])
    def test_categories_1_and_2_are_matched_in_full_from_15_000(self, category: int) -> None:
        assert self.entitled(14_999, category) == 0
        assert self.entitled(15_000, category) == 15_000

    def test_category_3_is_matched_by_half_from_18_000(self) -> None:
        assert self.entitled(17_999, 3) == 0
        assert self.entitled(18_000, 3) == 9_000

    @pytest.mark.parametrize(
        ("category", "saved"), [(1, 18_000), (2, 1_000_000), (3, 36_000), (3, 1_000_000)]
    )
    def test_the_match_is_capped_at_18_000_a_year(self, category: int, saved: int) -> None:
        assert self.entitled(saved, category) == 18_000

    def test_category_4_gets_no_match(self) -> None:
        assert self.entitled(1_000_000, 4) == 0

    def test_the_match_lasts_the_first_three_years_of_membership(self) -> None:
        assert self.entitled(15_000, 1, on=date(2029, 1, 31)) == 15_000
        assert self.entitled(15_000, 1, on=date(2029, 2, 1)) == 0

    @pytest.mark.parametrize(
        ("category", "saved", "rewards"),
        [(4, 71_999, []), (4, 72_000, ["free-insurance"]), (1, 72_000, []), (3, 72_000, [])],
    )
    def test_category_4_earns_free_insurance_next_year_from_72_000(
        self, category: int, saved: int, rewards: list[str]
    ) -> None:
        earned = rules.rewards_earned(
            savings(),
            {"free-insurance": saved},
            held(income_category=category),
            date(2026, 12, 31),
            self.JOINED,
            None,
        )
        assert [reward.code for reward in earned] == rewards
        assert all(reward.lasts == "next_window" for reward in earned)

    def test_at_55_a_quarter_of_4_million_may_be_taken_and_the_rest_is_paid_over_20_years(self) -> None:
        large, small = savings().withdrawals
        assert (large.from_age, large.balance_at_least) == (55, 4_000_000)
        lump = large.lump_sum * 4_000_000
        assert lump == 1_000_000
        assert large.rest_over_years is not None
        assert (4_000_000 - lump) / (large.rest_over_years * 12) == 12_500
        assert (small.from_age, small.balance_below, small.lump_sum) == (55, 4_000_000, Fraction(1))


class TestAtalPensionYojana:
    PAYING = held(statutory_cover=False, income_tax_payer=False, paid_regularly=True)

    def tier(self, joined: str, on: str, **facts: bool) -> int:
        return rules.tier_of(
            matched("apy", "pension"),
            held(self.PAYING, **facts),
            date.fromisoformat(on),
            date.fromisoformat(joined),
            30,
        )

    @pytest.mark.parametrize(
        ("paid_inr", "match_inr"),
        [(0, 0), (84, 42), (1_998, 999), (2_000, 1_000), (2_001, 1_000), (17_448, 1_000)],
    )
    def test_the_match_is_half_of_the_contributions_up_to_1_000_a_year(
        self, paid_inr: int, match_inr: int
    ) -> None:
        assert rules.entitlement(matched("apy", "pension"), {0: paid_inr * 100}) == match_inr * 100

    @pytest.mark.parametrize(
        ("joined", "tier"),
        [("2015-05-31", -1), ("2015-06-01", 0), ("2015-12-31", 0), ("2016-03-31", 0), ("2016-04-01", -1)],
    )
    def test_it_is_for_those_who_joined_from_june_2015_to_march_2016(self, joined: str, tier: int) -> None:
        assert self.tier(joined, "2016-05-01") == tier

    def test_it_lasts_for_five_financial_years_to_2019_20(self) -> None:
        assert self.tier("2015-06-01", "2020-03-31") == 0
        assert self.tier("2015-06-01", "2020-04-01") == rules.UNMATCHED
        windows = {
            rules.window_of(matched("apy", "pension"), date(year, 6, 1), date(2015, 6, 1))
            for year in range(2015, 2020)
        }
        assert len(windows) == 5

    @pytest.mark.parametrize("fact", ["statutory_cover", "income_tax_payer"])
    def test_members_of_statutory_schemes_and_tax_payers_are_not_matched(self, fact: str) -> None:
        assert self.tier("2015-06-01", "2016-05-01", **{fact: True}) == rules.UNMATCHED

    def test_who_paid_irregularly_is_not_matched(self) -> None:
        assert self.tier("2015-06-01", "2016-05-01", paid_regularly=False) == rules.UNMATCHED

    def test_it_is_paid_at_the_end_of_the_year_into_the_members_own_bank_account(self) -> None:
        match = matched("apy", "pension")
        assert (match.granted, match.into) == ("end_of_window", "member_bank_account")

    @pytest.mark.parametrize(("age", "refused"), [(17, True), (18, False), (40, False), (41, True)])
    def test_members_join_from_18_to_40(self, age: int, refused: bool) -> None:
        terms = entry_terms(
            programme("apy").product("pension"), Facts(), date(2015, 6, 1), date(2015 - age, 6, 1)
        )
        assert bool(terms.refusals) is refused


class TestPmSym:
    @pytest.mark.parametrize(("age", "inr"), [(18, 55), (29, 100), (40, 200)])
    def test_the_instalment_is_that_of_the_age_at_entry(self, age: int, inr: int) -> None:
        assert taken("pm-sym", "pension", entry_age=age) == inr

    def test_instalments_rise_with_every_year_of_age(self) -> None:
        instalments = [taken("pm-sym", "pension", entry_age=age) for age in range(18, 41)]
        assert instalments == sorted(set(instalments))

    def test_the_match_is_one_to_one_without_threshold_or_cap(self) -> None:
        match = matched("pm-sym", "pension")
        assert rules.entitlement(match, {0: 5_500}) == 5_500
        assert rules.entitlement(match, {0: 12 * 20_000}) == 240_000

    def test_only_due_instalments_are_matched(self) -> None:
        allocation = allocate(
            programme("pm-sym"),
            received=AMPLE,
            collected=25_000,
            enrolments=[Enrolled("pension", NOTHING, 29)],
            facts=Facts(),
            contributed_on=date(2026, 3, 2),
        )
        assert matched("pm-sym", "pension").base == "due"
        assert (allocation.legs[0].amount, allocation.unapplied) == (10_000, 15_000)

    @pytest.mark.parametrize(("income_inr", "refused"), [(15_000, False), (15_001, True)])
    def test_income_is_at_most_15_000_a_month(self, income_inr: int, refused: bool) -> None:
        facts = known(monthly_income=income_inr * 100)
        terms = entry_terms(programme("pm-sym").product("pension"), facts, date(2026, 5, 1), date(1996, 5, 1))
        assert (terms.entry_age, bool(terms.refusals)) == (30, refused)

    def test_3_000_a_month_are_paid_from_60_and_half_of_it_to_the_spouse(self) -> None:
        (benefit,) = programme("pm-sym").product("pension").plans[0].benefits
        assert (benefit.amount, benefit.every, benefit.from_age) == (300_000, "month", 60)
        assert (benefit.survivor, benefit.survivor_share) == ("spouse", Fraction(1, 2))

    def test_who_leaves_early_forfeits_the_match_to_the_sponsor(self) -> None:
        before, after = programme("pm-sym").product("pension").withdrawals
        assert (before.before_years, before.interest, before.match) == (10, "savings_bank", "forfeited")
        assert (after.after_years, after.before_age, after.interest) == (10, 60, "higher_of_both")
        match = matched("pm-sym", "pension")
        assert (match.vesting[0].from_age, match.forfeit_to) == (60, "sponsor")


class TestHabaHaba:
    def test_25_shillings_a_day_are_saved_in_whole_twenty_fives(self) -> None:
        assert taken("haba-haba", "savings", choice=chosen(2_500)) == 25
        assert taken("haba-haba", "savings", choice=chosen(75_000)) == 750

    def test_half_after_five_years_with_4_800_a_year_the_rest_at_50_and_all_on_disability(self) -> None:
        disability, retirement, half = programme("haba-haba").product("savings").withdrawals
        assert (half.after_years, half.saved_each_year, half.lump_sum) == (5, 480_000, Fraction(1, 2))
        assert (retirement.from_age, retirement.lump_sum) == (50, Fraction(1))
        assert (disability.event, disability.lump_sum) == ("disability", Fraction(1))


class TestNepalSocialSecurityFund:
    @pytest.mark.parametrize(
        ("pay_npr", "npr"), [(15_000, Fraction("3199.50")), (9_385, 2_002), (1_000, 2_002), (100_000, 6_006)]
    )
    def test_21_33_per_cent_of_basic_pay_within_2_002_and_three_times_that(
        self, pay_npr: int, npr: Fraction
    ) -> None:
        allocation = allocate(
            programme("ssf-nepal"),
            received=AMPLE,
            collected=None,
            enrolments=[Enrolled("social-security", NOTHING, None)],
            facts=known(basic_pay=pay_npr * 100),
            contributed_on=date(2026, 3, 2),
        )
        assert Fraction(allocation.legs[0].amount, 100) == npr
        assert 3 * 2_002 == 6_006

    def test_it_is_passed_on_to_the_agency_and_never_matched(self) -> None:
        product = programme("ssf-nepal").product("social-security")
        assert (product.custody, product.destination.kind, product.destination.code) == (
            "passed_through",
            "agency",
            "ssf-nepal",
        )
        assert product.match is None

    def test_accident_care_is_paid_up_to_100_000_a_year(self) -> None:
        (plan,) = programme("ssf-nepal").product("social-security").plans
        assert plan.benefits[0].limit_per_year == 10_000_000


class TestNepalPools:
    @pytest.mark.parametrize(
        ("age", "npr"), [(18, 3_524), (35, 3_524), (36, 4_930), (50, 4_930), (51, 9_570), (64, 9_570)]
    )
    def test_the_three_year_premium_of_term_life_goes_by_age(self, age: int, npr: int) -> None:
        assert taken("few-nepal", "term-life", entry_age=age) == npr

    def test_term_life_pays_2_million_on_death_and_500_000_on_critical_illness(self) -> None:
        (plan,) = programme("few-nepal").product("term-life").plans
        assert [benefit.amount for benefit in plan.benefits] == [200_000_000, 50_000_000]
        assert (plan.tail_months, plan.tail_after) == (12, "contract_end")

    def test_the_premium_covers_three_years(self) -> None:
        contribution = programme("few-nepal").product("term-life").contribution
        period = rules.period_of(contribution, date(2027, 1, 1), date(2026, 2, 1))
        assert period == rules.Window(date(2026, 2, 1), date(2029, 1, 31))

    @pytest.mark.parametrize(("months", "npr"), [(1, 1_500), (36, 1_500), (37, 2_500)])
    def test_the_welfare_fund_asks_by_the_length_of_the_contract(self, months: int, npr: int) -> None:
        assert taken("few-nepal", "welfare", facts=known(contract_months=months)) == npr

    def test_the_welfare_funds_death_grant_is_1_million_since_december_2024(self) -> None:
        few = programme("few-nepal")
        assert few.validity.in_force_from == date(2024, 12, 1)
        assert few.product("welfare").plans[0].benefits[0].amount == 100_000_000


class TestPhilippines:
    @pytest.mark.parametrize(("collected_php", "taken_php"), [(499, 0), (500, 500)])
    def test_mp2_takes_at_least_500_at_a_time(self, collected_php: int, taken_php: int) -> None:
        allocation = allocate(
            programme("mp2"),
            received=AMPLE,
            collected=collected_php * 100,
            enrolments=[Enrolled("mp2", chosen(50_000), None)],
            facts=Facts(),
            contributed_on=date(2026, 3, 2),
        )
        assert allocation.legs[0].amount == taken_php * 100

    def test_mp2_runs_five_years_from_the_first_payment_in_several_accounts_with_yearly_dividends(
        self,
    ) -> None:
        mp2 = programme("mp2").product("mp2")
        assert mp2.several
        assert mp2.term is not None
        assert (mp2.term.years, mp2.term.starts) == (5, "first_contribution")
        assert mp2.returns is not None
        assert (mp2.returns.counted, mp2.returns.credited) == ("months_in", "member_chooses")
        assert [after.years for after in mp2.returns.after_term] == [2]

    @pytest.mark.parametrize(
        ("paid", "regular", "flexi", "unapplied"),
        [(2_760, 1_760, 1_000, 0), (1_960, 1_760, 200, 0), (1_959, 1_760, 0, 199), (1_000, 1_000, 0, 0)],
    )
    def test_flexi_fund_one_payment_fills_the_regular_contribution_first(
        self, paid: int, regular: int, flexi: int, unapplied: int
    ) -> None:
        allocation = allocate(
            programme("flexi-fund"),
            received=AMPLE,
            collected=paid * 100,
            enrolments=[Enrolled("flexi", NOTHING, None), Enrolled("regular", NOTHING, None)],
            facts=Facts(),
            contributed_on=date(2014, 3, 2),
        )
        assert [leg.amount for leg in allocation.legs] == [flexi * 100, regular * 100]
        assert allocation.unapplied == unapplied * 100

    def test_october_to_december_may_be_paid_until_31_january(self) -> None:
        payable = programme("flexi-fund").product("regular").contribution.payable
        assert payable is not None
        assert (payable.late_months, payable.late_until) == ((10, 11, 12), (1, 31))


class TestThreeForOne:
    def test_federation_state_and_municipality_treble_what_the_club_gives(self) -> None:
        match = matched("three-for-one", "project")
        entitled = rules.entitlement(match, {0: 25_000_000})
        assert entitled == 75_000_000
        assert rules.sponsor_shares(match, entitled) == (
            ("federation", 25_000_000),
            ("state", 25_000_000),
            ("municipality", 25_000_000),
        )

    def test_projects_are_matched_up_to_1_million(self) -> None:
        match = matched("three-for-one", "project")
        assert rules.entitlement(match, {0: 40_000_000}) == 75_000_000
