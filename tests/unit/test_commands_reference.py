"""The reference of the commands is the commands'."""

from pathlib import Path

from api.cli import reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_the_reference_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.render(), (
        "python -m api.cli.reference > docs/reference/commands.md"
    )
