"""Entitlement is a function of a window's totals: boundaries, sums, and what never depends on order."""

from collections import Counter
from datetime import UTC, date, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.programmes.loader import load
from products.programmes.model import Match, Programme, WindowRule
from products.savings import rules
from products.savings.rules import Window
from tests.unit.programmes.world import changed, matched, programme

EJOHEZA = matched("ejoheza", "savings")
THREE = matched("three-for-one", "project")
JOINED = date(2026, 2, 1)


def with_shares(*shares: str) -> Match:
    lines = "".join(f'        - {{sponsor: s{i}, share: "{share}"}}\n' for i, share in enumerate(shares))
    sponsors = "".join(
        f"  - {{slug: s{i}, name: S, kind: donor, funding: arrears}}\n" for i in range(len(shares))
    )
    text = changed(
        "ejoheza",
        ('        - sponsor: gov-rw\n          share: "100"\n', lines),
        ("sponsors:\n", "sponsors:\n" + sponsors),
    )
    match = load(text).product("savings").match
    assert match is not None
    return match


# --- windows ---


def test_a_year_ends_by_the_programmes_own_clock() -> None:
    ejoheza = programme("ejoheza")  # Kigali is two hours ahead of UTC
    assert rules.local_date(ejoheza, datetime(2026, 12, 31, 21, 59, 59, tzinfo=UTC)) == date(2026, 12, 31)
    assert rules.local_date(ejoheza, datetime(2026, 12, 31, 22, 0, tzinfo=UTC)) == date(2027, 1, 1)
    assert rules.window_of(EJOHEZA, date(2026, 12, 31), JOINED) == Window(
        date(2026, 1, 1), date(2026, 12, 31)
    )
    assert rules.window_of(EJOHEZA, date(2027, 1, 1), JOINED).start == date(2027, 1, 1)


def test_an_instant_without_a_zone_has_no_local_date() -> None:
    with pytest.raises(ValueError, match="zone"):
        rules.local_date(programme("ejoheza"), datetime(2026, 1, 1))  # noqa: DTZ001  that is the point


def test_an_indian_financial_year_starts_on_1_april() -> None:
    apy = matched("apy", "pension")
    assert rules.window_of(apy, date(2016, 3, 31), JOINED) == Window(date(2015, 4, 1), date(2016, 3, 31))
    assert rules.window_of(apy, date(2016, 4, 1), JOINED) == Window(date(2016, 4, 1), date(2017, 3, 31))


@pytest.mark.parametrize(
    ("rule", "day", "start", "end"),
    [
        (WindowRule("day"), "2026-03-02", "2026-03-02", "2026-03-02"),
        (WindowRule("month"), "2028-02-10", "2028-02-01", "2028-02-29"),
        (WindowRule("month"), "2026-12-31", "2026-12-01", "2026-12-31"),
        (WindowRule("quarter"), "2026-12-31", "2026-10-01", "2026-12-31"),
        (WindowRule("quarter"), "2026-05-31", "2026-04-01", "2026-06-30"),
        (WindowRule("membership_year"), "2027-01-31", "2026-02-01", "2027-01-31"),
        (WindowRule("membership_year"), "2027-02-01", "2027-02-01", "2028-01-31"),
        (WindowRule("membership_year"), "2026-01-31", "2025-02-01", "2026-01-31"),
        (WindowRule("membership_year", 3), "2029-01-31", "2026-02-01", "2029-01-31"),
        (WindowRule("membership_year", 3), "2029-02-01", "2029-02-01", "2032-01-31"),
        (WindowRule("enrolment"), "2050-01-01", "2026-02-01", "9999-12-31"),
    ],
)
def test_windows(rule: WindowRule, day: str, start: str, end: str) -> None:
    window = rules.window_containing(rule, date.fromisoformat(day), JOINED)
    assert window == Window(date.fromisoformat(start), date.fromisoformat(end))


KINDS = st.sampled_from(
    [
        WindowRule("day"),
        WindowRule("month"),
        WindowRule("quarter"),
        WindowRule("calendar_year"),
        WindowRule("financial_year", starts=(4, 1)),
        WindowRule("membership_year"),
        WindowRule("membership_year", 3),
    ]
)
DAYS = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@given(KINDS, DAYS, DAYS)
def test_windows_contain_their_day_and_leave_neither_gap_nor_overlap(
    rule: WindowRule, day: date, joined: date
) -> None:
    window = rules.window_containing(rule, day, joined)
    assert day in window
    assert rules.window_containing(rule, window.start, joined) == window
    assert rules.window_containing(rule, window.end, joined) == window
    following = rules.window_containing(rule, date.fromordinal(window.end.toordinal() + 1), joined)
    assert following.start.toordinal() == window.end.toordinal() + 1


# --- tiers ---


@pytest.mark.parametrize(("category", "tier"), [(1, 0), (2, 0), (3, 1), (4, -1)])
def test_the_income_category_decides_the_tier(category: int, tier: int) -> None:
    assert rules.tier_of(EJOHEZA, {"income_category": category}, date(2026, 3, 2), JOINED, None) == tier


def test_without_a_known_category_nothing_is_matched() -> None:
    assert rules.tier_of(EJOHEZA, {}, date(2026, 3, 2), JOINED, None) == rules.UNMATCHED


def test_years_may_be_counted_in_windows_too() -> None:
    match = (
        load(changed("ejoheza", ("counted: membership_years", "counted: windows"))).product("savings").match
    )
    assert match is not None
    poor = {"income_category": 1}
    assert rules.tier_of(match, poor, date(2028, 12, 31), JOINED, None) == 0
    assert rules.tier_of(match, poor, date(2029, 1, 1), JOINED, None) == rules.UNMATCHED


def test_tiers_may_go_by_age_at_entry_and_years_of_membership() -> None:
    young = "when:\n            - {subject: entry_age, below: 30}\n            - {subject: membership_years, at_least: 1}"
    text = changed("ejoheza", ("when:\n            - fact: income_category\n              in: [1, 2]", young))
    match = load(text).product("savings").match
    assert match is not None
    assert rules.tier_of(match, {}, date(2027, 2, 1), JOINED, 29) == 0
    assert rules.tier_of(match, {}, date(2027, 1, 31), JOINED, 29) == rules.UNMATCHED
    assert rules.tier_of(match, {}, date(2027, 2, 1), JOINED, 30) == rules.UNMATCHED
    assert rules.tier_of(match, {}, date(2027, 2, 1), JOINED, None) == rules.UNMATCHED


# --- entitlement ---


@pytest.mark.parametrize(
    ("saved", "match"), [(0, 0), (14_999, 0), (15_000, 15_000), (18_000, 18_000), (18_001, 18_000)]
)
def test_categories_1_and_2_around_their_threshold_and_cap(saved: int, match: int) -> None:
    assert rules.entitlement(EJOHEZA, {0: saved}) == match


def test_a_threshold_reached_in_november_matches_january() -> None:
    assert rules.entitlement(EJOHEZA, {0: 5_000}) == 0
    assert rules.entitlement(EJOHEZA, {0: 5_000 + 10_000}) == 15_000


def test_unmatched_contributions_count_toward_the_threshold_and_are_not_matched() -> None:
    assert rules.entitlement(EJOHEZA, {0: 5_000, rules.UNMATCHED: 10_000}) == 5_000
    assert rules.entitlement(EJOHEZA, {rules.UNMATCHED: 100_000}) == 0


def test_two_categories_in_a_year_give_together_at_most_the_greatest_cap() -> None:
    assert rules.entitlement(EJOHEZA, {0: 10_000, 1: 8_000}) == 10_000 + 4_000
    assert rules.entitlement(EJOHEZA, {0: 18_000, 1: 36_000}) == 18_000


def test_a_tier_that_is_not_met_adds_nothing() -> None:
    # 16,000 in all reaches category 1's threshold of 15,000 and not category 3's of 18,000.
    assert rules.entitlement(EJOHEZA, {0: 10_000, 1: 6_000}) == 10_000


PAID = st.lists(st.tuples(st.integers(-1, 1), st.integers(1, 40_000)), max_size=12)


def totals(paid: list[tuple[int, int]]) -> Counter[int]:
    by_tier: Counter[int] = Counter()
    for tier, amount in paid:
        by_tier[tier] += amount
    return by_tier


@given(PAID, st.randoms(use_true_random=False))
def test_entitlement_does_not_depend_on_the_order_of_contributions(
    paid: list[tuple[int, int]], chance: object
) -> None:
    shuffled = list(paid)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert rules.entitlement(EJOHEZA, totals(paid)) == rules.entitlement(EJOHEZA, totals(shuffled))


@given(st.dictionaries(st.integers(0, 99), st.tuples(st.integers(-1, 1), st.integers(1, 40_000))), st.data())
def test_repeated_events_change_nothing_once_told_apart_by_reference(
    events: dict[int, tuple[int, int]], data: st.DataObject
) -> None:
    arrivals = data.draw(st.lists(st.sampled_from(sorted(events)), max_size=30)) if events else []
    seen = {reference: events[reference] for reference in [*arrivals, *events]}
    assert rules.entitlement(EJOHEZA, totals(list(seen.values()))) == rules.entitlement(
        EJOHEZA, totals(list(events.values()))
    )


@given(PAID, st.tuples(st.integers(-1, 1), st.integers(1, 40_000)))
def test_another_contribution_never_lowers_entitlement_and_its_reversal_undoes_it(
    paid: list[tuple[int, int]], more: tuple[int, int]
) -> None:
    before, after = totals(paid), totals([*paid, more])
    assert rules.entitlement(EJOHEZA, before) <= rules.entitlement(EJOHEZA, after)
    after[more[0]] -= more[1]
    assert rules.entitlement(EJOHEZA, before) == rules.entitlement(EJOHEZA, after)


@given(PAID)
def test_entitlement_is_never_negative_nor_above_the_cap_nor_above_what_was_matched(
    paid: list[tuple[int, int]],
) -> None:
    by_tier = totals(paid)
    assert 0 <= rules.entitlement(EJOHEZA, by_tier) <= min(18_000, by_tier[0] + by_tier[1] // 2)


# --- sponsors ---


def test_a_single_sponsor_pays_all() -> None:
    assert rules.sponsor_shares(EJOHEZA, 15_000) == (("gov-rw", 15_000),)


def test_two_sponsors_share_by_largest_remainder_ties_to_the_first() -> None:
    half = with_shares("50", "50")
    assert rules.sponsor_shares(half, 3) == (("s0", 2), ("s1", 1))
    assert rules.sponsor_shares(with_shares("70", "30"), 15_001) == (("s0", 10_501), ("s1", 4_500))


def test_the_alabama_paradox_takes_nothing_from_the_smallest_sponsor() -> None:
    # Largest remainders would give the third 2 of 10 and then 1 of 11.
    three = with_shares("6/14", "6/14", "2/14")
    assert [part for _, part in rules.sponsor_shares(three, 10)] == [5, 4, 1]
    assert [part for _, part in rules.sponsor_shares(three, 11)] == [5, 5, 1]


MATCHES = {
    shares: with_shares(*shares)
    for shares in [
        ("50", "50"),
        ("70", "30"),
        ("1/3", "1/3", "1/3"),
        ("6/14", "6/14", "2/14"),
        ("90", "9", "0.9", "0.1"),
        ("40", "30", "15", "10", "5"),
    ]
}


@given(st.sampled_from(sorted(MATCHES)), st.integers(0, 10**15), st.integers(0, 50))
def test_shares_add_up_and_no_sponsor_gets_back_while_the_match_grows(
    shares: tuple[str, ...], entitled: int, more: int
) -> None:
    match = MATCHES[shares]
    before, after = (
        dict(rules.sponsor_shares(match, entitled)),
        dict(rules.sponsor_shares(match, entitled + more)),
    )
    assert sum(before.values()) == entitled
    assert all(0 <= before[sponsor] <= after[sponsor] for sponsor in before)
    assert all(abs(before[one.sponsor] - one.share * entitled) < 2 for one in match.shares)


@given(st.sampled_from([shares for shares in sorted(MATCHES) if len(shares) <= 3]), st.integers(0, 10**15))
def test_up_to_three_sponsors_are_each_within_a_unit_of_their_exact_share(
    shares: tuple[str, ...], entitled: int
) -> None:
    match = MATCHES[shares]
    parts = dict(rules.sponsor_shares(match, entitled))
    assert all(abs(parts[one.sponsor] - one.share * entitled) < 1 for one in match.shares)


@given(st.sampled_from(sorted(MATCHES)), st.integers(0, 400))
def test_shares_are_those_of_giving_out_unit_by_unit(shares: tuple[str, ...], entitled: int) -> None:
    match = MATCHES[shares]
    parts = [0] * len(match.shares)
    for _ in range(entitled):
        priorities = [
            one.share / Fraction(2 * part + 1) for one, part in zip(match.shares, parts, strict=True)
        ]
        parts[priorities.index(max(priorities))] += 1
    assert [part for _, part in rules.sponsor_shares(match, entitled)] == parts


# --- versions ---


def version(number: int, since: str, applies_to: str) -> Programme:
    return load(
        changed(
            "ejoheza",
            ("version: 1", f"version: {number}"),
            ('in_force_from: "2020-01-01"', f'in_force_from: "{since}"'),
            ("applies_to: new_windows", f"applies_to: {applies_to}"),
        )
    )


YEAR_2026, YEAR_2027 = (
    Window(date(2026, 1, 1), date(2026, 12, 31)),
    Window(date(2027, 1, 1), date(2027, 12, 31)),
)


@pytest.mark.parametrize(
    ("applies_to", "for_2025", "for_2026", "for_2027"),
    [
        ("new_windows", 1, 1, 2),
        ("open_windows", 1, 2, 2),
        ('since\nsince: "2025-06-01"', 2, 2, 2),
    ],
)
def test_a_new_version_governs_the_windows_it_says(
    applies_to: str, for_2025: int, for_2026: int, for_2027: int
) -> None:
    versions = [version(2, "2026-06-01", applies_to), version(1, "2020-01-01", "new_windows")]
    year_2025 = Window(date(2025, 1, 1), date(2025, 12, 31))
    chosen = [
        rules.rule_version_for(versions, year).validity.version for year in (year_2025, YEAR_2026, YEAR_2027)
    ]
    assert chosen == [for_2025, for_2026, for_2027]


def test_before_the_first_version_its_rules_hold() -> None:
    only = version(1, "2026-06-01", "new_windows")
    assert rules.rule_version_for([only], YEAR_2026) is only
    with pytest.raises(ValueError, match="at least one"):
        rules.rule_version_for([], YEAR_2026)


# --- why? ---


def test_an_explanation_names_tier_conditions_threshold_version_and_source() -> None:
    ejoheza = programme("ejoheza")
    told = rules.explain(
        ejoheza,
        ejoheza.product("savings"),
        contributed_on=date(2026, 3, 2),
        joined_on=JOINED,
        entry_age=None,
        facts={"income_category": 3},
        by_tier={1: 16_000, rules.UNMATCHED: 1_000},
    )
    assert (told["version"], told["window"]["end"], told["tier"]) == (1, "2026-12-31", "category-3")
    assert told["contributed"] == 17_000
    assert told["entitled"] == 0
    assert told["tiers"][1] == {
        "tier": "category-3",
        "conditions": [{"of": "income_category", "must_be": "is 3", "value": 3, "holds": True}],
        "rate": "50",
        "threshold": 18_000,
        "threshold_met": False,
        "cap": 18_000,
        "contributed": 16_000,
        "gives": 0,
    }
    assert told["source"].startswith("The published rules")


def test_an_explanation_says_why_a_contribution_is_not_matched() -> None:
    ejoheza = programme("ejoheza")

    def why(on: date, category: int) -> str:
        told = rules.explain(
            ejoheza,
            ejoheza.product("savings"),
            contributed_on=on,
            joined_on=JOINED,
            entry_age=None,
            facts={"income_category": category},
            by_tier={},
        )
        assert told["matched"] is False
        return str(told["because"])

    assert why(date(2026, 3, 2), 4) == "the conditions of no tier hold"
    assert why(date(2029, 2, 1), 1) == "after the first 3 years"
