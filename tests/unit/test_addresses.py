"""Whose address counts: the peer's, unless proxies that are trusted have seen another one behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.addresses import FORWARDED, UNKNOWN, X_FORWARDED_FOR, client_address, counted_address, parse_networks

TRUSTED = parse_networks("10.0.0.0/8, 192.0.2.1,2001:db8:f::/48")


def seen(peer: str | None, *told: str, header: bytes = X_FORWARDED_FOR, trusted: bool = True) -> str:
    scope = {
        "type": "http",
        "client": (peer, 4711) if peer is not None else None,
        "headers": [(b"host", b"x"), *((header, one.encode("latin-1")) for one in told)],
    }
    return client_address(scope, TRUSTED if trusted else (), header)


def test_without_trusted_proxies_the_peer_is_the_client_whatever_it_says() -> None:
    assert seen("203.0.113.9", "198.51.100.1", trusted=False) == "203.0.113.9"
    assert seen(None, "198.51.100.1") == UNKNOWN
    assert seen("testclient", "198.51.100.1") == "testclient"


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not through a proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),  # what the client made up stands left
        ("10.0.0.1", ["198.51.100.1, 10.9.9.9, 192.0.2.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1", "10.9.9.9"], "198.51.100.1"),  # several headers are one list
        ("10.0.0.1", ["10.2.2.2, 10.3.3.3"], "10.2.2.2"),  # everyone is ours: the farthest
        ("10.0.0.1", ["198.51.100.1:8080"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("10.0.0.1", ["2001:DB8::0007"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("2001:db8:f::1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),  # malformed: the last hop that is known
        ("10.0.0.1", ["198.51.100.1, , 10.1.1.1"], "10.1.1.1"),
        ("10.0.0.1", ["198.51.100.1,"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1\x0bX"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%eth0\r\nevil"], "fe80::1"),  # no zone of ours
        (
            "10.0.0.1",
            ["9.9.9.9, " + "10.1.1.1, " * 5_000 + "10.1.1.1"],
            "10.1.1.1",
        ),  # walked so far and no further
    ],
)
def test_the_first_address_from_the_right_that_is_no_proxy_is_the_client(
    peer: str, told: list[str], client: str
) -> None:
    assert seen(peer, *told) == client


@pytest.mark.parametrize(
    ("told", "client"),
    [
        (["for=198.51.100.1"], "198.51.100.1"),
        (['For="[2001:db8::7]:4711";proto=https;by=10.0.0.1'], "2001:db8::7"),
        (["for=1.1.1.1, proto=http;for=198.51.100.1;by=10.0.0.1, for=10.1.1.1"], "198.51.100.1"),
        (["for=_hidden"], "10.0.0.1"),
        (["for=unknown, for=10.1.1.1"], "10.1.1.1"),
        (["by=198.51.100.1"], "10.0.0.1"),
    ],
)
def test_the_header_of_rfc_7239_is_read_alike(told: list[str], client: str) -> None:
    assert seen("10.0.0.1", *told, header=FORWARDED) == client


def test_only_the_header_that_the_proxies_write_is_read() -> None:
    scope = {
        "type": "http",
        "client": ("10.0.0.1", 1),
        "headers": [(X_FORWARDED_FOR, b"198.51.100.1"), (FORWARDED, b"for=1.1.1.1")],
    }
    assert client_address(scope, TRUSTED, X_FORWARDED_FOR) == "198.51.100.1"
    assert client_address(scope, TRUSTED, FORWARDED) == "1.1.1.1"


@given(st.text(st.characters(max_codepoint=255)), st.sampled_from([X_FORWARDED_FOR, FORWARDED]))
def test_nothing_that_is_told_is_an_error_or_more_than_an_address(told: str, header: bytes) -> None:
    found = seen("10.0.0.1", told, header=header)
    assert counted_address(found).isprintable()
    assert parse_networks(found)


def test_a_network_of_ipv6_counts_as_one_caller() -> None:
    assert counted_address("2001:db8::1") == counted_address("2001:db8::ffff") == "2001:db8::/64"
    assert counted_address("2001:db8:0:1::1") != counted_address("2001:db8::1")
    assert counted_address("198.51.100.1") == "198.51.100.1"
    assert counted_address(UNKNOWN) == UNKNOWN


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "proxy", "10.0.0.0/8;10.1.0.0/16"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_networks(text)
