"""Ids that a statement makes by counting."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from ledger.ids import id_prefix, made_at


def test_prefixes_of_one_moment_are_of_now_and_each_its_own() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    prefixes = [id_prefix() for _ in range(100)]
    assert len(set(prefixes)) == 100
    for prefix in prefixes:
        first = UUID(f"{prefix}{1:012x}")
        assert str(first).startswith(prefix)
        made = made_at(first)
        assert made is not None
        assert before <= made <= datetime.now(UTC)
