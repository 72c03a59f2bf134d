"""The reference page is the schema's."""

from pathlib import Path

from products.programmes.reference import render


def test_the_page_about_the_format_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "programme-format.md"
    assert page.read_text(encoding="utf-8") == render(), (
        "run: python -m products.programmes.reference > docs/reference/programme-format.md"
    )
