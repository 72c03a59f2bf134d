"""No field, fact or document type for what could expose a person to reprisal; and a mandate cools off as long as is said."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI

from api.migrations.run import metadata
from api.openapi import describe
from api.v1 import ROUTERS
from api.v1.consents import MandateIn, mandate_in
from products.members.documents import InvalidDocument, NewDocument, normalised
from products.programmes.loader import catalogue, load
from products.vocabulary import what_is_never_held
from tests.unit.programmes.world import changed, faults

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("immigration_status", "immigration status"),
        ("visaType", "immigration status"),
        ("residence-permit-number", "immigration status"),
        ("religion", "religion"),
        ("Religion", "religion"),
        ("ethnic_group", "ethnicity"),
        ("caste", "ethnicity"),
        ("residence_country", None),
        ("income_category", None),
        ("traced_at", None),
        ("embrace", None),
    ],
)
def test_names_are_judged_by_their_words(name: str, what: str | None) -> None:
    assert what_is_never_held(name) == what


def test_no_table_and_no_shape_of_the_api_has_a_field_for_it() -> None:
    columns = {f"{table}.{column.name}" for table in metadata().tables.values() for column in table.columns}
    assert len(columns) > 300
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    describe(app, "https://mizan.example")
    schemas = app.openapi()["components"]["schemas"]
    fields = {f"{name}.{field}" for name, shape in schemas.items() for field in shape.get("properties", {})}
    assert len(fields) > 200
    held = {name for name in columns | fields if what_is_never_held(name.rpartition(".")[2])}
    assert held == set()


def test_a_programme_that_asks_for_it_is_refused() -> None:
    source = changed("ejoheza", ("  income_category:\n", "  religion:\n"))
    assert faults(source)["/facts/religion"] == "Mizan holds nothing on religion"
    for slug, text in catalogue().items():
        assert not [name for name in load(text).facts if what_is_never_held(name)], slug


@pytest.mark.parametrize("type_", ["visa", "work_permit", "refugee_card", "baptism_church_certificate"])
def test_a_document_that_would_tell_it_is_refused(type_: str) -> None:
    with pytest.raises(InvalidDocument, match="Mizan holds nothing on"):
        normalised(NewDocument(type_, "AE", "123"))


def test_the_first_mandate_cools_off_as_long_as_the_programme_says() -> None:
    limits = '  ceiling: "20"\n'
    programme = load(changed("ejoheza", (limits, f"{limits}  cooling_off_days: 14\n")))
    given = MandateIn(text_version="2026-1", language="rw")
    assert mandate_in(given, programme, NOW).cooling_off_until == NOW + timedelta(days=14)
    assert mandate_in(given, programme, NOW, first=False).cooling_off_until is None
    assert mandate_in(given, programme, NOW, purpose="whole_view").cooling_off_until is None
    assert mandate_in(given, load(catalogue()["ejoheza"]), NOW).cooling_off_until is None
