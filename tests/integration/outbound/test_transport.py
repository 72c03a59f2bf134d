"""The transport against receivers that mean harm, over real sockets: it connects to what it checked, and bounds the rest."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integrations.outbound import transport as module
from integrations.outbound.transport import Answer, Lookup, Transport
from tests.integration.outbound.receiver import Reply, receiving
from tests.patience import PATIENCE_SECONDS

ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Names:
    """A resolver whose answers change: the first one is for the first question, and so on; the last one stays."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Answer the next one."""
        self.asked.append((host, port))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


def post(
    url: str, lookup: Lookup | None = None, *, times: int = 1, seconds: float = 3600, **options: object
) -> list[Answer]:
    """Post `times` over one transport, as to one endpoint. Raises `TimeoutError` when that has no end."""

    async def run() -> list[Answer]:
        settings = {"loopback": True, "timeout_seconds": seconds} | options
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            Transport(lookup or Names(["127.0.0.1"]), **settings) as transport,  # type: ignore[arg-type]  # as given
        ):
            return [await transport.post(url, b"{}", {"webhook-id": "evt_x"}) for _ in range(times)]

    return asyncio.run(run())


@contextmanager
def speaking(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """A raw server: `speak` has each connection after the request's first bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65_536)
                speak(connection)
            except OSError:
                pass  # the other side has had enough, which is the point

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> "Authority":
    return Authority(tmp_path_factory.mktemp("authority"))


class Authority:
    """A certificate authority of the test's own, that vouches for names on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A test's authority")])
        self.certificate = self._signed(self.name, self.key.public_key(), ca=True)

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool, host: str | None = None
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if ca:
            usage = dict.fromkeys(
                [
                    "digital_signature",
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ],
                False,
            )
            builder = builder.add_extension(
                x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
            )
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def server(self, host: str) -> ssl.SSLContext:
        """What a server of `host` serves with; it keeps the name that it was asked for in `asked_for`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._signed(name, key.public_key(), ca=False, host=host)
        path = self.folder / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def believed(self) -> ssl.SSLContext:
        """A client's context that believes this authority."""
        return ssl.create_default_context(
            cadata=self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        )


def test_the_name_is_in_sni_and_host_and_the_certificate_must_be_its_own(authority: Authority) -> None:
    asked: list[str | None] = []
    tls = authority.server("localhost")
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    with receiving(tls=tls) as receiver:
        (answer,) = post(receiver.url, context=authority.believed())
        assert (answer.status, answer.error) == (204, None)
        assert asked == ["localhost"]
        assert receiver.got[0].headers["host"] == receiver.url.split("/")[2]
        (strange,) = post(receiver.url)  # an authority that nobody believes
        assert (strange.status, strange.error) == (None, "tls")
    with receiving(tls=authority.server("somebody.example")) as other:
        (answer,) = post(other.url, context=authority.believed())
        assert (answer.status, answer.error) == (None, "tls")
        assert other.got == []


def test_it_connects_to_the_very_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a public name and address, so the edge of the world is the event loop: it notes where it is told to connect."""
    connected: list[tuple[str, int]] = []

    async def connect(_loop: object, _socket: object, address: tuple[str, int]) -> None:
        connected.append(address[:2])
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    names = Names(["93.184.216.34"], ["10.0.0.1"])
    (answer,) = post("https://hooks.acme.example/", names, loopback=False)
    assert answer.error == "connection"
    assert connected == [("93.184.216.34", 443)]
    assert names.asked == [
        ("hooks.acme.example", 443)
    ]  # once: nobody is asked again between checking and connecting


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "10.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
    ],
)
def test_one_address_that_is_not_public_refuses_the_name(addresses: list[str]) -> None:
    for loopback in (False, True):  # a sandbox lets nobody in by a public name either
        (answer,) = post("https://hooks.acme.example/", Names(addresses), loopback=loopback)
        assert (answer.status, answer.error) == (None, "address_refused")


def test_a_name_that_changes_its_answer_is_judged_at_each_connection() -> None:
    names = Names(OSError("not yet"), ["10.0.0.1"], ["127.0.0.1"])
    answers = post("https://rebinding.example/", names, times=3)
    assert [one.error for one in answers] == ["dns", "address_refused", "address_refused"]
    assert len(names.asked) == 3


def test_even_if_the_library_connected_elsewhere_the_socket_is_not_made() -> None:
    guard = module._Guard(Names(["8.8.8.8"]), loopback=False)
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254"):
        with pytest.raises(module.AddressRefused):
            guard.socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)))


def test_a_url_that_was_allowed_once_is_judged_again_at_each_attempt() -> None:
    with receiving() as receiver:
        (answer,) = post(receiver.url, loopback=False)  # a sandbox's endpoint, in what is production now
        assert answer.error == "url_refused"
        assert receiver.got == []


def test_redirects_are_failures_and_proxies_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        receiving() as elsewhere,
        receiving(lambda _: Reply(307, headers={"Location": elsewhere.url, "Set-Cookie": "a=b"})) as receiver,
    ):
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, elsewhere.url)
        answers = post(receiver.url, times=2)
        assert [(one.status, one.error) for one in answers] == [(307, "status")] * 2
        assert elsewhere.got == []
        assert "cookie" not in receiver.got[1].headers


def dribble(connection: socket.socket, begin: bytes, again: bytes) -> None:
    """Go on as long as somebody listens."""
    connection.sendall(begin)
    while True:
        connection.sendall(again)
        time.sleep(0.05)


def says_nothing(connection: socket.socket) -> None:
    """Until somebody hangs up."""
    connection.recv(1)


def test_a_receiver_that_dawdles_is_cut_off_wherever_it_does() -> None:
    speaks: list[Callable[[socket.socket], None]] = [
        says_nothing,
        lambda c: dribble(c, b"HTTP/1.1 200 OK\r\nX: ", b"a"),  # a header for ever
        lambda c: dribble(c, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),  # always more to come
    ]
    for speak in speaks:
        with speaking(speak) as url:
            (answer,) = post(url, seconds=0.5)
        assert (answer.status, answer.error) in ((None, "timeout"), (None, "protocol"))
        assert answer.error == "protocol" or answer.milliseconds >= 500


def test_of_an_answers_body_little_is_read_and_none_waited_for() -> None:
    with speaking(lambda c: dribble(c, b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"x")) as url:
        (answer,) = post(url)
    assert (answer.status, answer.error) == (
        200,
        None,
    )  # it has answered: what it goes on to say is nothing to us
    sent: list[int] = []

    def flood(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 99999999999\r\n\r\n"
        )
        for _ in range(10_000):
            sent.append(connection.send(b"\0" * 65_536))

    with speaking(flood) as url:
        (answer,) = post(url)
    assert answer.status == 200
    assert sum(sent) < 32 * 1024 * 1024  # the sockets' buffers


def test_headers_are_bounded_and_what_is_not_http_is_a_failure_like_any_other() -> None:
    many = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n"
    for raw in (
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        many,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"",
    ):
        with speaking(lambda c, raw=raw: c.sendall(raw)) as url:  # type: ignore[misc]  # a default is the way to bind a loop's name
            (answer,) = post(url)
        assert answer.status is None
        assert answer.error in ("protocol", "connection"), raw[:20]


def test_connections_are_used_again() -> None:
    names = Names(["127.0.0.1"])
    with receiving() as receiver:
        answers = post(receiver.url.replace("127.0.0.1", "localhost"), names, times=5)
    assert [one.status for one in answers] == [204] * 5
    assert len(names.asked) == 1
