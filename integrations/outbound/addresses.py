"""Where we may be sent: which URLs a partner may register, and which addresses we connect to.

A partner chooses the URL that our servers call, so it must not reach what only our servers can: our own network, the cloud's
metadata, this machine. The lists are written out, from the IANA registries of special-purpose addresses (RFC 6890 and what
came since), because the standard library's `is_global` differs between releases: on 3.11 it takes NAT64, 6to4 and
multicast for global.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ledger.errors import InvalidInput

URL_CHARACTERS_MAX: Final = 2048
HTTPS_PORT: Final = 443

DENIED_V4: Final = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network (RFC 791)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # shared by carriers (RFC 6598); Alibaba's metadata is 100.100.100.200
        "127.0.0.0/8",  # loopback (RFC 1122)
        "168.63.129.16/32",  # Azure's platform, public as it looks
        "169.254.0.0/16",  # link-local (RFC 3927); the metadata of most clouds is 169.254.169.254
        "172.16.0.0/12",  # private (RFC 1918)
        "192.0.0.0/24",  # IETF protocols (RFC 6890); Oracle's metadata is 192.0.0.192
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.31.196.0/24",  # AS112 (RFC 7535)
        "192.52.193.0/24",  # AMT (RFC 7450)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "192.168.0.0/16",  # private (RFC 1918)
        "192.175.48.0/24",  # AS112 (RFC 7534)
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 1112)
        "240.0.0.0/4",  # reserved, and broadcast (RFC 1112, RFC 8190)
    )
)

GLOBAL_V6: Final = ip_network("2000::/3")
"""All that IANA has given out as unicast. What lies outside is refused whole: loopback ``::1``, IPv4-mapped ``::ffff:0:0/96`` and
-compatible ``::/96``, NAT64 ``64:ff9b::/96`` and ``64:ff9b:1::/48``, discard ``100::/64``, unique local ``fc00::/7`` (with the
metadata at ``fd00:ec2::254``), link-local ``fe80::/10``, site-local ``fec0::/10``, multicast ``ff00::/8``, SRv6 ``5f00::/16``."""

DENIED_V6: Final = tuple(
    ip_network(network)
    for network in (
        "2001::/23",  # IETF protocols: Teredo 2001::/32, ORCHID, benchmarks, AMT, drone ids (RFC 2928)
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4: an IPv4 address in disguise (RFC 3056)
        "2620:4f:8000::/48",  # AS112 (RFC 7534)
        "3ffe::/16",  # 6bone, given back (RFC 3701)
        "3fff::/20",  # documentation (RFC 9637)
    )
)

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter, so that nothing which a resolver may read as a number (0x7f.1, 2130706433) is a name.
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?", re.ASCII)
_PRINTABLE: Final = re.compile(r"[!-~]+", re.ASCII)
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "arpa", "onion")
_LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class EndpointUrlRefused(InvalidInput):
    """A URL that events are not sent to; the detail says why."""

    code = "endpoint_url_refused"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, pointer="/url")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads. `loopback`: it names this machine, which a sandbox alone allows."""

    url: str
    host: str
    port: int
    loopback: bool


def check_url(url: str, *, loopback: bool) -> Target:
    """Where an endpoint's URL leads: ``https``, a name, port 443; `loopback` lets ``http://127.0.0.1:port`` through as well.

    Raises `EndpointUrlRefused`. What the name resolves to is judged when we connect, each time.
    """
    if len(url) > URL_CHARACTERS_MAX:
        raise EndpointUrlRefused(f"The URL has more than {URL_CHARACTERS_MAX} characters.")
    if _PRINTABLE.fullmatch(url) is None or "\\" in url:
        raise EndpointUrlRefused(
            "The URL has characters other than printable ASCII; write a name in punycode."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EndpointUrlRefused("This is not a URL.") from None
    host = (parts.hostname or "").lower()
    if "@" in parts.netloc:
        raise EndpointUrlRefused("The URL carries a user or a password: what proves us is the signature.")
    if "#" in url:
        raise EndpointUrlRefused("The URL has a fragment, which is never sent.")
    if loopback and host in _LOOPBACK_HOSTS and parts.scheme in ("http", "https"):
        return Target(url, host, port or (HTTPS_PORT if parts.scheme == "https" else 80), loopback=True)
    return _public(url, parts, host, port)


def _public(url: str, parts: SplitResult, host: str, port: int | None) -> Target:
    if parts.scheme != "https":
        raise EndpointUrlRefused("Events are sent over https alone.")
    if port not in (None, HTTPS_PORT):
        raise EndpointUrlRefused("Events are sent to port 443 alone.")
    if len(host) > 253 or _NAME.fullmatch(host) is None:
        raise EndpointUrlRefused("The URL does not name a host by its full domain name.")
    if host.rpartition(".")[2] in _LOCAL_NAMES:
        raise EndpointUrlRefused("The URL names a host that only its own network knows.")
    return Target(url, host, HTTPS_PORT, loopback=False)


def may_connect(address: str, *, loopback: bool) -> bool:
    """Whether we connect to an address that a name resolved to; with `loopback`, to this machine and nowhere else."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if loopback:
        return parsed.is_loopback
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in DENIED_V4)
    return _is_open_v6(parsed)


def _is_open_v6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    return address in GLOBAL_V6 and not any(address in network for network in DENIED_V6)
