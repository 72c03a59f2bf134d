"""The senders of codes keep one contract: the message arrives whole, or `CodeNotSent` says that it did not."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from standardwebhooks.webhooks import Webhook

from integrations.codes.console import ConsoleSender
from integrations.codes.file import FileSender
from integrations.codes.nobody import NobodySender
from integrations.codes.webhook import WebhookSender
from integrations.partners.standard_webhooks import SymmetricSecret, new_secret, parse_secret
from ledger.clock import SystemClock
from products.members.challenges import CodeNotSent, CodeSender

TO, TEXT, LANGUAGE = "+250780000001", "204917 هو رمزك\n«é»", "ar"
SECRET = new_secret()


@dataclass
class Gateway:
    """An SMS gateway on the loopback that answers as told; 0 hangs up without an answer. It answers while `answering` is set."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answering: Event = field(default_factory=Event)

    def messages(self) -> list[dict[str, str]]:
        """What it accepted, its signature verified by the library."""
        return [Webhook(SECRET).verify(body, headers)["data"] for headers, body in self.received]


@contextmanager
def a_gateway() -> Iterator[Gateway]:
    """A gateway that runs for the length of the block."""
    gateway = Gateway()
    gateway.answering.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            gateway.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
            gateway.answering.wait()
            status = gateway.answers.pop(0) if gateway.answers else 204
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            if status == 302:
                self.send_header("location", gateway.url + "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}/messages"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield gateway
    finally:
        gateway.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with a_gateway() as running:
        yield running


def webhook(url: str, waited: list[float] | None = None) -> WebhookSender:
    secret = parse_secret(SECRET)
    assert isinstance(secret, SymmetricSecret)
    waits = waited if waited is not None else []
    return WebhookSender(url, secret, SystemClock(), timeout_seconds=30, wait=waits.append)


def test_every_sender_hands_the_message_over_whole(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "messages.jsonl"
    told: dict[str, Callable[[], str]] = {
        "console": lambda: capsys.readouterr().err,
        "file": lambda: str(json.loads(path.read_text(encoding="utf-8"))),
        "webhook": lambda: str(gateway.messages()[-1]),
    }
    senders: dict[str, CodeSender] = {
        "console": ConsoleSender(),
        "file": FileSender(path),
        "webhook": webhook(gateway.url),
    }
    for name, sender in senders.items():
        sender.send(TO, TEXT, LANGUAGE)
        arrived = told[name]()
        assert TO in arrived
        assert "204917" in arrived
        assert LANGUAGE in arrived
    assert json.loads(path.read_text(encoding="utf-8")) == {"to": TO, "text": TEXT, "language": LANGUAGE}
    assert gateway.messages() == [{"to": TO, "text": TEXT, "language": LANGUAGE}]
    assert path.stat().st_mode & 0o077 == 0


def test_what_cannot_be_handed_over_is_said_and_names_nobody(tmp_path: Path, gateway: Gateway) -> None:
    gateway.answers = [500] * 3
    for sender in (
        NobodySender(),
        FileSender(tmp_path / "no" / "folder"),
        webhook("http://127.0.0.1:1/"),
        webhook(gateway.url),
    ):
        with pytest.raises(CodeNotSent) as failed:
            sender.send(TO, TEXT, LANGUAGE)
        assert TO not in str(failed.value)
        assert "204917" not in str(failed.value)


def test_a_busy_gateway_is_tried_three_times_with_one_id_and_a_fresh_signature(gateway: Gateway) -> None:
    waited: list[float] = []
    gateway.answers = [503, 0, 200]
    webhook(gateway.url, waited).send(TO, TEXT, LANGUAGE)
    assert len(gateway.received) == 3
    assert len({headers["webhook-id"] for headers, _ in gateway.received}) == 1
    assert gateway.messages()[0] == gateway.messages()[2]
    assert waited == [0.2, 1.0]
    headers, body = gateway.received[0]
    sent_at = datetime.fromisoformat(json.loads(body)["timestamp"])
    assert abs((datetime.now(UTC) - sent_at).total_seconds()) < 60
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [400, 401, 302])
def test_a_refusal_is_final_and_a_redirect_is_not_followed(gateway: Gateway, status: int) -> None:
    gateway.answers = [status]
    with pytest.raises(CodeNotSent, match=f"http_{status}"):
        webhook(gateway.url).send(TO, TEXT, LANGUAGE)
    assert len(gateway.received) == 1
