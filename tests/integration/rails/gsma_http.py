"""HTTP of the simulated mobile money provider: real sockets, which may also hang, be reset, or be dropped."""

import hashlib
import json
import select
import socket
import ssl
import struct
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.rails.gsma_simulator import Simulator

Answer = tuple[int, object, dict[str, str]]


class Hang(Exception):
    """No answer: the connection is held for some seconds, or until whoever waits has had enough, and closed."""


class Reset(Exception):
    """No answer: the connection is reset."""


class Refused(Exception):
    """An answer that isn't a success."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.answer: Answer = (status, body, headers or {})


class Server(ThreadingHTTPServer):
    """Threads for connections; knows its simulator."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], owner: "Simulator"
    ) -> None:
        self.owner = owner
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news; another failure is."""
        del request, client_address
        failure = sys.exception()
        if not isinstance(failure, OSError):
            self.owner.broken.append(repr(failure))


class RailServer(Server):
    """The rail's port; its connections can be dropped."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        owner: "Simulator",
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__(address, handler, owner)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread, so that a bad one delays nobody."""
        if self._tls is not None:
            request = self._tls.wrap_socket(request, server_side=True)
        self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            if self._tls is not None:
                request.close()

    def drop(self) -> None:
        """End the connections that are open."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """Reading and answering; what is answered is `answer`'s."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536  # an answer is one write
    server: Server

    def answer(self, owner: "Simulator", method: str, path: str, body: bytes) -> Answer:
        """The answer to a request."""
        raise NotImplementedError

    def handle_any(self) -> None:
        """Read, answer, and misbehave on the level of the connection."""
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        try:
            status, content, headers = self.answer(self.server.owner, self.command, self.path, body)
        except Refused as refused:
            status, content, headers = refused.answer
        except Hang as hang:
            select.select([self.connection], [], [], hang.args[0])
            self.close_connection = True
            return
        except Reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        sent = {"content-type": "application/json; charset=utf-8", "content-length": str(len(raw))}
        for name, value in (sent | {"x-content-hash": hashlib.sha256(raw).hexdigest()} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
        """Say nothing."""
