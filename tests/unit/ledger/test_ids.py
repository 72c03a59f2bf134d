"""Ids and their public spelling."""

import contextlib
import itertools
import subprocess
import sys
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import InvalidId
from ledger.ids import new_id, parse_public_id, public_id

uuids = st.uuids()


def test_ids_are_uuid7_and_strictly_increase() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert {id_.version for id_ in ids} == {7}
    assert all(earlier < later for earlier, later in itertools.pairwise(ids))


FORKING = """
import os
from ledger.ids import new_id
new_id()
for _ in range(3):
    if os.fork() == 0:
        os.write(1, b"".join(new_id().bytes for _ in range(100)))
        os._exit(0)
for _ in range(3):
    os.wait()
"""


def test_processes_that_fork_make_different_ids() -> None:
    made = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True, timeout=30).stdout
    assert len({made[n : n + 16] for n in range(0, len(made), 16)}) == 300


@given(uuids)
def test_a_public_id_reads_back(value: UUID) -> None:
    text = public_id("rmt", value)
    assert len(text) == 30
    assert parse_public_id("rmt", text) == value


@given(uuids, uuids)
def test_public_ids_sort_as_the_ids_do(one: UUID, other: UUID) -> None:
    assert (public_id("mem", one) < public_id("mem", other)) == (one < other)


@given(st.text())
def test_no_other_text_is_an_id(text: str) -> None:
    with pytest.raises(InvalidId):
        parse_public_id("rmt", text)


@given(uuids, st.integers(4, 29), st.characters())
def test_a_changed_character_is_another_id_or_none(value: UUID, place: int, character: str) -> None:
    text = public_id("rmt", value)
    changed = text[:place] + character + text[place + 1 :]
    if changed != text:
        with contextlib.suppress(InvalidId):
            assert parse_public_id("rmt", changed) != value


@pytest.mark.parametrize(
    "spoil", [str.upper, lambda t: t + "\n", lambda t: "mem" + t[3:], lambda t: t[:-1] + "v"]
)
def test_only_the_one_spelling_is_read(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(InvalidId):
        parse_public_id("rmt", spoil(public_id("rmt", new_id())))
