"""Who is on the other side: the address of a client, seen through the proxies that are trusted to say it.

``X-Forwarded-For`` (or ``Forwarded``, RFC 7239) is anybody's claim until a proxy of ours has written it. It is read only
when the connection comes from an address of ``MIZAN_TRUSTED_PROXIES``, and from the right: each proxy appends whom it
saw, so the first address from the right that is not a proxy of ours is the client; what stands left of it, the client
may have made up. What can't be read there is no address, and the last hop that is known stands for the client. Only the
header that the proxies write is read (``MIZAN_FORWARDED_HEADER``): the other one they pass on as it came.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import Scope

Network = IPv4Network | IPv6Network

X_FORWARDED_FOR: Final = b"x-forwarded-for"
FORWARDED: Final = b"forwarded"
UNKNOWN: Final = "unknown"
"""The address of a client without one: a Unix socket's, or what a server doesn't tell."""
HOPS_MAX: Final = 20
"""How many proxies are walked through at most: more is nobody's deployment."""

_FOR: Final = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^\s;,"]+))\s*(?=;|$)', re.IGNORECASE | re.ASCII)
_WITH_PORT: Final = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([0-9.]+):\d{1,5}", re.ASCII)


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks in a comma-separated list of addresses and CIDRs. Raises ValueError for what is none."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def client_address(scope: Scope, trusted: Sequence[Network] = (), header: bytes = X_FORWARDED_FOR) -> str:
    """The address of the client behind a request, in its canonical spelling; `UNKNOWN` when there is none.

    `trusted` are the proxies whose word counts, and `header` (in lower case) is where they leave it; without any, the
    peer of the connection is the client.
    """
    peer = scope.get("client")
    if peer is None or not peer[0]:
        return UNKNOWN
    shown: str = peer[0]
    if not trusted:
        return shown
    at = _address(shown)
    if at is None:
        return shown
    for hop in _hops(scope, header):
        if not _is_in(at, trusted):
            break
        said = _address(hop)
        if said is None:
            break
        at = said
    return str(at)


def counted_address(address: str) -> str:
    """What is counted as one caller: an IPv4 address, or the /64 that an IPv6 address is in, as hosts choose the rest."""
    at = _address(address)
    if isinstance(at, IPv6Address):
        return str(IPv6Network((at, 64), strict=False))
    return address if at is None else str(at)


def _hops(scope: Scope, header: bytes) -> Iterator[str]:
    """The addresses told by the proxies, nearest first."""
    told = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == header)
    if not told:
        return
    parts = told.rsplit(",", HOPS_MAX)[-HOPS_MAX:]
    yield from (
        part.strip() if header == X_FORWARDED_FOR else _forwarded_for(part) for part in reversed(parts)
    )


def _forwarded_for(element: str) -> str:
    found = _FOR.search(element)
    return (found[1] or found[2] or "") if found else ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in a text, without its port; an IPv4 address that came by IPv6 is an IPv4 address."""
    port = _WITH_PORT.fullmatch(text)
    if port:
        text = port[1] or port[2] or ""
    try:
        at = ip_address(text)
    except ValueError:
        return None
    if isinstance(at, IPv6Address):
        if at.ipv4_mapped is not None:
            return at.ipv4_mapped
        if at.scope_id is not None:
            return IPv6Address(int(at))
    return at


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
