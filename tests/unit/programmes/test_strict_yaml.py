"""The subset of YAML in which programmes are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.programmes import strict_yaml


def messages(text: str) -> list[str]:
    return [str(fault) for fault in strict_yaml.read(text).faults]


def test_plain_scalars_mean_what_they_look_like() -> None:
    read = strict_yaml.read(
        "a: NO\nb: 2026-01-01\nc: 010\nd: 1:30\ne: yes\nf: true\ng: 7\nh: '7'\ni:\nj: ~\nk: 1_000"
    )
    assert read.faults == []
    assert read.value == {
        "a": "NO",
        "b": "2026-01-01",
        "c": "010",
        "d": "1:30",
        "e": "yes",
        "f": True,
        "g": 7,
        "h": "7",
        "i": None,
        "j": None,
        "k": "1_000",
    }


@pytest.mark.parametrize("number", ["7.5", ".5", "1e3", "-0.1", ".nan", "-.inf", "1."])
def test_a_fractional_number_must_stand_in_quotes(number: str) -> None:
    assert messages(f"tiers:\n  - rate: {number}") == [
        f"/tiers/0/rate (line 2): {number} must stand in quotes: numbers here are whole"
    ]
    assert messages(f"rate: '{number}'") == []


def test_a_key_that_stands_twice_is_refused_where_it_stands_again() -> None:
    assert messages("a:\n  b: 1\n  c: 2\n  b: 3") == ["/a/b (line 4): “b” stands here twice"]


def test_anchors_aliases_and_tags_are_refused_all_at_once() -> None:
    told = messages("a: &x [1]\nb: *x\nc: !!python/name:os.system ''\n*x : 1\n? [k]\n: v")
    assert [message.rpartition(": ")[2] for message in told] == [
        "an anchor (&) can't be used here",
        "write it out",
        "a tag (!) can't be used here",
        "write it out",
        "a key must be text",
        "“” stands here twice",
    ]


def test_a_bomb_of_aliases_is_never_unfolded() -> None:
    bomb = "a: &a [x]\n" + "\n".join(f"{chr(98 + i)}: &{chr(98 + i)} [{'*a,' * 9}*a]" for i in range(20))
    assert len(messages(bomb)) > 200


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 1000, "nested more than 24 deep"),
        ("a: [" + "1, " * 30_000 + "]", "more than 20000 values"),
        ("a: " + "x" * 300_000, "the file is larger than 256 KiB"),
        ("k" * 200 + ": 1", "a key is longer than 100 characters"),
        ("--- 1\n--- 2", "the file holds several documents"),
        ("a: [", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: \ud800", "not YAML"),
        ("\t- a", "not YAML"),
    ],
)
def test_limits_and_broken_text_are_faults_and_not_exceptions(text: str, why: str) -> None:
    document = strict_yaml.read(text)
    assert why in str(document.faults[-1])
    assert document.value is None


@given(st.text(alphabet="ab:-[]{},&*!?#|>'\"%@ \n\t0.1~é", max_size=60))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    strict_yaml.read(text)
