"""`mizan listen`: a receiver on this machine that registers itself in the sandbox, and shows the events that come."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, Final

import typer

from api.bootstrap import Services
from api.cli import acting, output, session
from api.cli.endpoint import types_said
from api.cli.serve import running_url
from integrations.outbound import endpoints
from integrations.outbound.endpoints import Endpoint, Wanted
from integrations.partners.port import SignatureInvalid, SignatureStale
from integrations.partners.standard_webhooks import Secret, parse_secret, verify
from ledger.clock import SystemClock
from ledger.database import Tx
from products.remittances import partners

BODY_BYTES_MAX: Final = 1024 * 1024
DESCRIPTION: Final = "mizan listen"
LOOK_SECONDS: Final = 0.2


def add_to(app: typer.Typer) -> None:
    """Add this command to the tree."""
    app.command(rich_help_panel="Try")(session.command(listen))


def listen(
    partner: Annotated[str, typer.Option(help="The partner whose events to show.")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="A type of event; repeat it for more. All when left out.", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    count: Annotated[
        int | None, typer.Option(help="End after so many events.", min=1, show_default=False)
    ] = None,
    as_json: session.AsJson = False,
) -> None:
    """Show a partner's events as they are delivered, verified, until Ctrl-C. Only in a sandbox, beside `mizan serve`.

    It registers an endpoint on this machine, and removes it when it ends.
    """
    types = types_said(event)
    given = session.settings()
    if given.embedded and running_url(given.data_dir) is None:
        session.say("no `mizan serve` runs for this data directory: events come when one does")
    with session.services(given) as services, _receiver(port) as receiver:
        if not services.loopback_endpoints:
            raise session.Refused("endpoints on this machine are for the sandbox")
        with _registered(services, partner, receiver.url, types) as (endpoint, secret):
            receiver.secret = parse_secret(secret)
            session.say(f"{endpoint.public_id} at {receiver.url}; Ctrl-C ends it")
            shown = 0
            while count is None or shown < count:
                try:
                    got = receiver.got.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                shown += 1
                _show(got, as_json=as_json)


@contextmanager
def _registered(
    services: Services, partner: str, url: str, types: tuple[str, ...]
) -> Iterator[tuple[Endpoint, str]]:
    def work(tx: Tx) -> tuple[Endpoint, str]:
        owner = partners.find(tx, partner).id
        wanted = Wanted(url, types, DESCRIPTION)
        return endpoints.create(tx, services.keyring, services.clock, owner, wanted, loopback=True)

    made = acting.run(services, work, "endpoint.created", lambda done: done[0].public_id, partner=partner)
    try:
        yield made
    finally:
        acting.run(
            services,
            lambda tx: endpoints.remove(tx, services.clock, made[0]),
            "endpoint.removed",
            made[0].public_id,
        )


class _Receiver(ThreadingHTTPServer):
    """Verifies what is posted to it, and hands it on."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.got: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.secret: Secret | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take one event: 204 when its signature is good, else 401."""
        receiver = self.server
        assert isinstance(receiver, _Receiver)  # noqa: S101  who else
        body = self.rfile.read(min(int(self.headers.get("content-length", "0")), BODY_BYTES_MAX))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = HTTPStatus.NO_CONTENT
        try:
            verify(headers, body, [receiver.secret] if receiver.secret else [], SystemClock().now())
        except (SignatureInvalid, SignatureStale):
            status = HTTPStatus.UNAUTHORIZED
        else:
            receiver.got.put(json.loads(body))
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Nothing: what matters is shown."""


@contextmanager
def _receiver(port: int) -> Iterator[_Receiver]:
    with _Receiver(port) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _show(got: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(got, ensure_ascii=False), flush=True)
        return
    output.fields({"event": f"{got['type']}  {got['id']}", "at": got["timestamp"], **_flat(got["data"])})
    print(flush=True)


def _flat(data: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in data.items()
        if value is not None
    }
