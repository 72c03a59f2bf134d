"""The HTTP transport of events: it connects to the very address that it has checked, and to nothing else.

A name is resolved once for each connection; every address that comes back is judged by `addresses.may_connect`, and one that
is denied refuses them all. The socket is opened to what was judged, and judged again as it is made; the name itself goes into
TLS (SNI, and the certificate must be its own) and into ``Host``. Redirects are answers like any other, proxies and anything
else of the environment are ignored, cookies are forgotten. Of an answer only the status and ``Retry-After`` count: headers
are bounded, the body is read no further than it takes to use the connection again, and the whole has a time limit.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult

from integrations.outbound.addresses import EndpointUrlRefused, check_url, may_connect

TIMEOUT_SECONDS: Final = 20.0
"""For a whole attempt: resolving, connecting, sending, and the answer's headers."""
BODY_BYTES_MAX: Final = 64 * 1024
BODY_SECONDS_MAX: Final = 1.0
"""What is read of an answer's body, so that the connection can be used again; beyond, the connection is closed."""
HEADER_BYTES_MAX: Final = 8 * 1024
HEADERS_MAX: Final = 64
RETRY_AFTER_CHARACTERS_MAX: Final = 64
KEEP_SECONDS: Final = 5.0

Error = Literal["status", "timeout", "url_refused", "address_refused", "dns", "tls", "connection", "protocol"]
"""Why an attempt failed: it was answered with another status than 2xx, or not at all."""

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, as texts. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt came to. `error`: None when it was delivered; `status`: None when nothing was answered."""

    status: int | None
    error: Error | None
    milliseconds: int
    retry_after: str | None = None


class AddressRefused(OSError):
    """A name leads to an address that we don't connect to."""


def system_lookup(executor: Executor) -> Lookup:
    """The system's resolver, in threads of `executor`: a name server that doesn't answer holds up one of those."""

    async def lookup(host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            executor, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    return lookup


class Transport:
    """The connections to one endpoint, for as long as there is something to send to it.

    `loopback`: this machine's own addresses are allowed, for URLs that name them, in a sandbox alone. `context`: whose
    certificates are believed; the public authorities' without it. An asynchronous context manager.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        loopback: bool,
        timeout_seconds: float = TIMEOUT_SECONDS,
        connections: int = 16,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._loopback = loopback
        self._timeout_seconds = timeout_seconds
        guard = _Guard(lookup, loopback=loopback)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=context or public_authorities(),
                resolver=guard,
                socket_factory=guard.socket,
                use_dns_cache=False,
                happy_eyeballs_delay=None,
                limit=connections,
                keepalive_timeout=KEEP_SECONDS,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            auto_decompress=False,
            trust_env=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post once. What goes wrong on the way is in the answer, never raised."""
        began = time.monotonic()

        def answer(
            status: int | None = None, error: Error | None = None, retry_after: str | None = None
        ) -> Answer:
            return Answer(status, error, round((time.monotonic() - began) * 1000), retry_after)

        try:
            target = check_url(url, loopback=self._loopback)
        except EndpointUrlRefused:
            return answer(error="url_refused")
        try:
            # The library's own limit lets go of a lookup that hangs, but not at once: this one does.
            async with asyncio.timeout(self._timeout_seconds):
                got = await self._session.post(target.url, data=body, headers=headers, allow_redirects=False)
        except Exception as failure:
            error = _class_of(failure)
            if error is None:
                raise
            return answer(error=error)
        judged = answer(
            got.status,
            None if 200 <= got.status < 300 else "status",
            got.headers.get("Retry-After", "")[:RETRY_AFTER_CHARACTERS_MAX] or None,
        )
        await _finish(got)
        return judged


def public_authorities() -> ssl.SSLContext:
    """A context that believes the public authorities, whatever the environment says."""
    return httpx.create_ssl_context(trust_env=False)


async def _finish(got: aiohttp.ClientResponse) -> None:
    """Read what little of a body is left, and give the connection back; close it when there is more, or it dawdles."""
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            left = BODY_BYTES_MAX
            while left > 0:
                chunk = await got.content.read(left)
                if not chunk:
                    got.release()
                    return
                left -= len(chunk)
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    got.close()


def _class_of(failure: Exception) -> Error | None:
    """How a failure is called in the history; None for what is no failure of the network's."""
    match failure:
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorDNSError():
            return "address_refused" if isinstance(failure.os_error, AddressRefused) else "dns"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls"
        case aiohttp.ClientConnectorError() if isinstance(failure.os_error, AddressRefused):
            return "address_refused"
        case aiohttp.ClientConnectionError() | OSError():
            return "connection"
        case aiohttp.ClientError():
            return "protocol"
        case _:
            return None


class _Guard(AbstractResolver):
    """Resolves names to addresses that we may connect to, and opens sockets to no others."""

    def __init__(self, lookup: Lookup, *, loopback: bool) -> None:
        self._lookup = lookup
        self._loopback = loopback

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  the library's; we ask for both
    ) -> list[ResolveResult]:
        """Every address of a name. Raises `AddressRefused` when one of them is denied."""
        found = await self._lookup(host, port)
        if not found:
            raise OSError(f"{host} has no address")
        for address in found:
            if not self._allows(host, address):
                raise AddressRefused(f"{host} leads to an address that is not public")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    def socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """A socket to an address, which is judged once more: whatever the library does between, it connects to no other."""
        family, kind, protocol, _, address = info
        allowed = may_connect(str(address[0]), loopback=False) or (
            self._loopback and may_connect(str(address[0]), loopback=True)
        )
        if not allowed:
            raise AddressRefused("this address is not public")
        return socket.socket(family, kind, protocol)

    def _allows(self, host: str, address: str) -> bool:
        local = self._loopback and host == "localhost"
        return may_connect(address, loopback=local)

    async def close(self) -> None:
        """Nothing to give back."""
