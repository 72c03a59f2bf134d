"""Programme files: what is refused, with which pointer, and that everything wrong is told at once."""

from datetime import date
from fractions import Fraction

import pytest
from jsonschema import Draft202012Validator

from products.programmes.loader import InvalidProgramme, catalogue, digest, load
from products.programmes.model import UnknownProduct
from products.programmes.scalars import format_percent, parse_money, parse_percent
from products.programmes.schema import SCHEMA
from tests.unit.programmes.world import changed, faults, programme


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("slug", catalogue())
def test_every_file_of_the_catalogue_loads_under_its_own_name(slug: str) -> None:
    loaded = load(catalogue()[slug])
    assert loaded.slug == slug
    assert [product.priority for product in loaded.products] == sorted(
        product.priority for product in loaded.products
    )


def test_the_catalogue_knows_every_destination_of_a_contribution() -> None:
    kinds = {product.destination.kind for slug in catalogue() for product in programme(slug).products}
    assert kinds == {"savers", "agency", "pool"}


def test_a_product_is_found_by_its_code_only() -> None:
    ejoheza = programme("ejoheza")
    assert ejoheza.product("savings").name == "EjoHeza savings"
    assert ejoheza.codes == {"savings"}
    with pytest.raises(UnknownProduct):
        ejoheza.product("bonds")


def test_a_programme_serves_its_corridors() -> None:
    assert programme("pm-sym").serves("AE", "IN")
    assert not programme("pm-sym").serves("AE", "NP")
    narrow = load(changed("pm-sym", ("- to: [IN]", "- {from: [NO, AE], to: [IN]}")))
    assert narrow.serves("NO", "IN")
    assert not narrow.serves("SE", "IN")


def test_the_digest_is_that_of_the_bytes() -> None:
    text = catalogue()["ejoheza"]
    assert len(digest(text)) == 32
    assert digest(text) != digest(text + " ")


def test_everything_wrong_with_a_file_is_told_at_once() -> None:
    text = changed(
        "ejoheza",
        ("format: 1", "format: 2"),
        ("time_zone: Africa/Kigali", "time_zone: Africa/Nowhere"),
        ("version: 1", "version: 1\nversion: 1"),
        ('threshold: "15000"', "threshold: 15000"),
        ('rate: "50"', "rate: 50.0"),
        ("values: [1, 2, 3, 4]", "valeus: [1, 2, 3, 4]"),
        ("slug: gov-rw", "slug: Gov RW"),
    )
    assert set(faults(text)) == {
        "/format",
        "/time_zone",
        "/version",
        "/products/0/match/tiers/0/threshold",
        "/products/0/match/tiers/1/rate",
        "/facts/income_category/valeus",
        "/sponsors/0/slug",
    }


def test_the_error_tells_the_first_fault_with_its_line_and_how_many_more() -> None:
    with pytest.raises(InvalidProgramme, match=r"^/currency \(line \d+\): .*and 1 more$") as caught:
        load(changed("ejoheza", ("currency: RWF", "currency: XQQ"), ('cap: "18000"', 'cap: "-1"')))
    assert caught.value.status == 422
    assert caught.value.code == "invalid_programme"
    assert caught.value.pointer == "/currency"
    assert caught.value.faults[1].line is not None


REFUSED = {
    "decimals that the currency doesn't have": (
        "ejoheza",
        'threshold: "15000"',
        'threshold: "15000.5"',
        "/products/0/match/tiers/0/threshold",
    ),
    "an amount beyond 2^53−1": (
        "ejoheza",
        '"4000000"',
        '"999999999999999.99"',
        "/products/0/withdrawals/0/balance_at_least",
    ),
    "a percentage above the whole": (
        "ejoheza",
        'lump_sum: "25"',
        'lump_sum: "101"',
        "/products/0/withdrawals/0/lump_sum",
    ),
    "a day that no calendar has": ("ejoheza", '"2020-01-01"', '"2023-02-29"', "/in_force_from"),
    "a month-day that not every year has": (
        "pm-sym",
        'starts: "04-01"',
        'starts: "02-29"',
        "/products/0/match/window/starts",
    ),
    "an undeclared fact in a tier": (
        "ejoheza",
        "fact: income_category\n              is: 3",
        "fact: income\n              is: 3",
        "/products/0/match/tiers/1/when/0/fact",
    ),
    "a condition of another type": ("ejoheza", "is: 3", 'is: "3"', "/products/0/match/tiers/1/when/0/is"),
    "a condition that compares nothing": (
        "ejoheza",
        "is: 3",
        "in: []",
        "/products/0/match/tiers/1/when/0/in",
    ),
    "an order of truths": (
        "apy",
        "is: false",
        "at_least: false",
        "/products/0/match/tiers/0/when/0/at_least",
    ),
    "the present age in a tier": (
        "ejoheza",
        "fact: income_category\n              is: 3",
        "subject: age\n              is: 3",
        "/products/0/match/tiers/1/when/0/subject",
    ),
    "an unknown sponsor": (
        "ejoheza",
        "sponsor: gov-rw",
        "sponsor: gov-ug",
        "/products/0/match/sponsors/0/sponsor",
    ),
    "shares that leave a rest": ("three-for-one", '"1/3"', '"33.33"', "/products/0/match/sponsors"),
    "a tier's code twice": (
        "ejoheza",
        "code: category-3",
        "code: category-1-2",
        "/products/0/match/tiers/1/code",
    ),
    "a product's code twice": (
        "few-nepal",
        "code: term-life\n    name: Migrant",
        "code: welfare\n    name: Migrant",
        "/products/1/code",
    ),
    "a priority twice": ("few-nepal", "priority: 20", "priority: 10", "/products/1/priority"),
    "over-allocation": ("ejoheza", 'ceiling: "20"', 'ceiling: "19.5"', "/contributions/ceiling"),
    "a ceiling above the remittance": (
        "ejoheza",
        'ceiling: "20"',
        'ceiling: "101"',
        "/contributions/ceiling",
    ),
    "a ceiling of nothing": ("ejoheza", 'ceiling: "20"', 'ceiling: "0"', "/contributions/ceiling"),
    "a choice of percentages without end": (
        "ejoheza",
        '        maximum: "20"\n',
        "",
        "/products/0/contribution/choice",
    ),
    "a suggestion between the steps": (
        "ejoheza",
        'suggested: "5"',
        'suggested: "5.2"',
        "/products/0/contribution/choice/suggested",
    ),
    "a suggestion out of range": (
        "ejoheza",
        'suggested: "5"',
        'suggested: "50"',
        "/products/0/contribution/choice/suggested",
    ),
    "an amount besides a choice": (
        "haba-haba",
        "rule: fixed",
        'rule: fixed\n      amount: "25"',
        "/products/0/contribution",
    ),
    "a percentage of a truth": ("ssf-nepal", "type: money", "type: boolean", "/products/0/contribution/of"),
    "a table with a gap": (
        "pm-sym",
        '        - {from: 29, to: 29, amount: "100"}\n',
        "",
        "/products/0/contribution/table/11/from",
    ),
    "a table without a row for the oldest": (
        "pm-sym",
        "to: 40\n",
        "to: 41\n",
        "/products/0/contribution/table",
    ),
    "a table without a row for the youngest": (
        "pm-sym",
        "from: 18\n",
        "from: 17\n",
        "/products/0/contribution/table",
    ),
    "bounds the wrong way round": (
        "ssf-nepal",
        'at_least: "2002"',
        'at_least: "7000"',
        "/products/0/contribution/maximum",
    ),
    "due instalments where there are none": (
        "ejoheza",
        "match_base: paid",
        "match_base: due",
        "/products/0/match/match_base",
    ),
    "a remainder that others follow": ("flexi-fund", "priority: 10", "priority: 30", "/products/1/priority"),
    "a match for money passed on": (
        "ejoheza",
        "custody: held\n    fund: savers",
        "custody: passed_through\n    agency: x",
        "/products/0/match",
    ),
    "a period where there is no basis for one": (
        "pm-sym",
        "basis: per_period",
        "basis: per_remittance",
        "/products/0/contribution/period",
    ),
    "a financial year without a start": (
        "pm-sym",
        '        starts: "04-01"\n',
        "",
        "/products/0/match/window",
    ),
    "counted months as years": (
        "ejoheza",
        "kind: calendar_year\n      match_base: paid\n      years:\n        count: 3\n        counted: membership_years",
        "kind: month\n      match_base: paid\n      years:\n        count: 3\n        counted: windows",
        "/products/0/match/years/counted",
    ),
    "a reward of no plan": ("ejoheza", "plan: community-health", "plan: other", "/products/0/rewards/0/plan"),
    "a tail after what is no date": (
        "few-nepal",
        "after: contract_end",
        "after: contract_months",
        "/products/0/plans/0/tail/after",
    ),
    "no end of a condition on version": ("ejoheza", "applies_to: new_windows", "applies_to: since", ""),
}


@pytest.mark.parametrize(("slug", "old", "new", "pointer"), REFUSED.values(), ids=REFUSED)
def test_a_file_is_refused_for(slug: str, old: str, new: str, pointer: str) -> None:
    assert list(faults(changed(slug, (old, new)))) == [pointer]


def test_the_same_amount_is_right_in_a_currency_with_three_decimals() -> None:
    text = changed(
        "ejoheza", ("currency: RWF", "currency: KWD"), ('threshold: "15000"', 'threshold: "15000.125"')
    )
    match = load(text).product("savings").match
    assert match is not None
    assert match.tiers[0].threshold == 15_000_125


@pytest.mark.parametrize("text", ["", "[]", "7", "a: b"])
def test_what_is_no_programme_is_refused(text: str) -> None:
    with pytest.raises(InvalidProgramme):
        load(text)


def test_a_version_says_from_when_and_for_which_windows() -> None:
    text = changed(
        "ejoheza",
        ("version: 1", "version: 2"),
        ("applies_to: new_windows", 'applies_to: since\nsince: "2026-01-01"'),
    )
    validity = load(text).validity
    assert (validity.version, validity.applies_to, validity.since) == (2, "since", date(2026, 1, 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", Fraction(1, 20)),
        ("7.5", Fraction(3, 40)),
        ("21.33", Fraction(2133, 10_000)),
        ("1/3", Fraction(1, 3)),
        ("300", Fraction(3)),
    ],
)
def test_percentages_are_exact_and_read_back_as_written(text: str, value: Fraction) -> None:
    assert parse_percent(text) == value
    assert format_percent(value) == text


@pytest.mark.parametrize("text", ["", "5%", "05", "-5", "1/0", "5.", "٥", "1e2", "5.1234567"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="percentage"):
        parse_percent(text)


def test_money_is_read_in_major_units() -> None:
    assert parse_money("15000", 0) == 15_000
    assert parse_money("2002.5", 2) == 200_250
    assert parse_money("0.001", 3) == 1
