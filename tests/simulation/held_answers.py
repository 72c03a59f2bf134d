"""A road to PostgreSQL on which a statement, or one commit or its answer, can be held up, so that a process can be killed just there."""

import contextlib
import os
import selectors
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

Moment = Literal["reached", "before", "after"]
"""At the marked statement itself, before the commit of its transaction, or after it: then it is done, and nobody is told."""


@dataclass(slots=True)
class Road:
    """Passes everything on, until `hold` names a moment to stop at, in a transaction that sent `marked`."""

    url: str
    marked: bytes
    hold: Moment | None = None
    held: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """One connection, until either side closes it."""
        is_marked = False
        with client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while not self._ended.is_set():
                for key, _ in ready.select(0.1):
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]  # both are sockets
                    if not data:
                        return
                    stops = False
                    if key.fileobj is client:
                        is_marked = is_marked or self.marked in data
                        awaited = self.marked if self.hold == "reached" else b"COMMIT"
                        stops = is_marked and self.hold is not None and awaited in data
                    if stops and self.hold != "after":
                        self._wait_for_the_end(client)
                        return
                    key.data.sendall(data)
                    if stops:
                        assert b"COMMIT" in server.recv(65536)  # it is done, and nobody is told
                        self._wait_for_the_end(client)
                        return

    def _wait_for_the_end(self, client: socket.socket) -> None:
        self.hold = None
        self.held.set()
        client.settimeout(30)
        with contextlib.suppress(OSError):
            client.recv(1)  # the process dies, and with it its end

    def end(self) -> None:
        """Let go of every connection."""
        self._ended.set()


@contextmanager
def road_to(url: str, marked: bytes) -> Iterator[Road]:
    """A road to the server of `url` (on a Unix socket): the same URL, by another folder."""
    parts = urlsplit(url)
    (folder,) = parse_qs(parts.query)["host"]
    name = ".s.PGSQL.5432"
    ours = Path(tempfile.mkdtemp(prefix="mizan-road-"))
    road = Road(url.replace(f"host={quote(folder, safe='/')}", f"host={ours}"), marked)
    assert road.url != url
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(ours / name))
    listener.listen(64)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(os.path.join(folder, name))
            threads.append(threading.Thread(target=road.carry, args=(client, server)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield road
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        road.end()
        accepting.join()
        for thread in threads:
            thread.join()
        shutil.rmtree(ours)
