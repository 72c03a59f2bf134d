"""What the Mobile Money API's words mean to us: amounts, names, errors, links, and how a rail is configured."""

import json
import re
import ssl
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from integrations.rails.directory import build, validated
from integrations.rails.mobile_money_format import (
    Refusal,
    amount_of,
    amount_text,
    refusal_in,
    resource_in,
    transaction_report,
)
from integrations.rails.names import is_same_name
from integrations.rails.setting import InvalidRailOptions
from ledger.errors import InvalidMoney
from ledger.ids import new_id
from ledger.money import AMOUNT_MAX
from tests.integration.rails.gsma_simulator import CALLBACK_KEY
from tests.integration.rails.gsma_world import instruction, options, secrets, setting, wallets

SPECIFIED = re.compile(r"^([0]|([1-9][0-9]{0,17}))([.][0-9]{0,3}[0-9])?$")
CURRENCIES = {"JPY": 0, "RWF": 0, "PHP": 2, "KES": 2, "KWD": 3, "BHD": 3, "CLF": 4}

currencies = st.sampled_from(sorted(CURRENCIES))
amounts = st.integers(min_value=0, max_value=AMOUNT_MAX)
words = st.text(alphabet=string.ascii_letters + "éèñçüøßłđåİığאבгджनमस्तेمحمد", min_size=1, max_size=12).filter(
    lambda word: any(sign.isalpha() for sign in word)
)
names = st.lists(words, min_size=1, max_size=4)


@given(amounts, currencies)
def test_every_amount_is_written_as_the_specification_allows_and_read_back(
    amount: int, currency: str
) -> None:
    written = amount_text(amount, currency)
    assert SPECIFIED.match(written)
    assert amount_of(written, currency) == amount
    assert len(written.partition(".")[2]) == CURRENCIES[currency]


@given(st.from_regex(SPECIFIED, fullmatch=True), currencies)
def test_an_amount_is_read_exactly_or_not_at_all(written: str, currency: str) -> None:
    whole, _, decimals = written.partition(".")
    places = CURRENCIES[currency]
    exact = int(whole + decimals.ljust(4, "0"))
    if exact % 10 ** (4 - places):
        with pytest.raises(InvalidMoney):
            amount_of(written, currency)
    else:
        assert amount_of(written, currency) * 10 ** (4 - places) == exact


@pytest.mark.parametrize(
    "written",
    ["", "5.", ".5", "-5", "+5", "00.5", "05", "1e3", "5,00", "5.55555", "1" * 19, "٥", " 5", "5\n"],
)
def test_what_the_specification_forbids_is_no_amount(written: str) -> None:
    with pytest.raises(InvalidMoney):
        amount_of(written, "PHP")


@given(names, st.randoms())
def test_a_name_is_itself_in_any_case_and_order(name: list[str], random: object) -> None:
    written = " ".join(name)
    shuffled = sorted(name, key=lambda _: random.random())  # type: ignore[attr-defined]  # st.randoms() is untyped
    assert is_same_name(written, written)
    assert is_same_name(written, ",  ".join(shuffled))
    assert is_same_name(" ".join(shuffled), written)


@given(names, names)
def test_names_are_the_same_both_ways_round(one: list[str], other: list[str]) -> None:
    first, second = " ".join(one), " ".join(other)
    assert is_same_name(first, second) == is_same_name(second, first)


@given(st.lists(st.sampled_from(["ana", "bea", "eva", "ida"]), max_size=4))
def test_no_name_is_the_same_as_one_that_shares_nothing_with_it(name: list[str]) -> None:
    assert not is_same_name(" ".join(name), "Keza Uwase")
    assert not is_same_name(" ".join(name), "")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("José Núñez", "NUNEZ, JOSE", True),
        ("Jean-Marie O’Brien", "jean marie obrien", True),
        ("Søren Łukasz Weiß", "Soren Lukasz Weiss", True),
        ("İpek Yılmaz", "IPEK YILMAZ", True),
        ("Maria Cruz Santos", "Maria Santos", True),
        ("Maria Cruz Santos", "Maria Lopez Santos", False),
        ("Maria Santos", "Maria", False),
        ("Maria", "maria", True),
        ("Ali Ali", "Ali", False),
        ("M. Santos", "Maria Santos", False),
        ("مُحَمَّد علي", "محمد علي", True),
        ("राम थापा", "रम थापा", False),
    ],
)
def test_names_of_the_field(one: str, other: str, same: bool) -> None:
    assert is_same_name(one, other) is same


def test_errors_are_read_in_either_spelling_and_nothing_else_is_an_error_of_the_provider() -> None:
    either = [{"errorCategory": "BusinessRule", "errorCode": "MaxBalanceExceeded"}]
    either += [{"errorCategory": "businessRule", "errorCode": "maxBalanceExceeded"}]
    found = [refusal_in(one) for one in either]
    assert [one.reason for one in found if one] == ["payee_limit", "payee_limit"]
    assert Refusal("serviceunavailable", "genericerror", "genericError").reason == "other"
    others: list[object] = [None, [], "text", {}, {"errorCode": "x"}, {"errorCategory": 5, "errorCode": "x"}]
    for nothing in others:
        assert refusal_in(nothing) is None


@pytest.mark.parametrize(
    ("link", "place"),
    [
        ("https://a.example/v1.2/mm/transactions/MP1", "transactions/MP1"),
        ("/requeststates/7f/", "requeststates/7f"),
        ("https://evil.example/../../transactions/a%2F..%2Fb?x=1", "transactions/a/../b"),
        ("https://a.example/accounts/msisdn/1", None),
        ("transactions/", None),
        ("MP1", None),
        ("http://[", None),
        (5, None),
    ],
)
def test_of_a_link_only_the_thing_that_it_names_counts(link: object, place: str | None) -> None:
    assert resource_in({"link": link}) == place


def test_a_transaction_that_cannot_be_understood_is_unknown() -> None:
    attempt = new_id()
    good = {"transactionStatus": "completed", "amount": "5", "currency": "RWF", "transactionReference": "MP1"}
    assert transaction_report(good, attempt).state == "paid"
    for wrong in (
        {"transactionStatus": "on the moon"},
        {"transactionStatus": None},
        {"amount": "5.5"},
        {"amount": 5},
        {"amount": None},
        {"currency": "XXX1"},
        {"requestingOrganisationTransactionReference": str(new_id())},
    ):
        assert transaction_report(good | wrong, attempt).state == "unknown", wrong
    others: list[object] = [None, [], "", 5]
    for nothing in others:
        assert transaction_report(nothing, attempt).state == "unknown"
    at = transaction_report(good | {"modificationDate": "2026-03-02T12:00:00+03:00"}, attempt).at
    assert at == datetime(2026, 3, 2, 9, tzinfo=UTC)
    assert transaction_report(good | {"modificationDate": "2026-03-02T12:00:00"}, attempt).at is None


def test_a_rail_is_built_from_what_is_kept_of_its_options() -> None:
    around = setting(environment="production")
    given = options("https://provider.example/v1.2/mm", operator_key="bankname")
    kept, keys = validated("mobile_money", given, secrets())
    rail = build("mobile_money", json.loads(json.dumps(kept)), keys, around)
    assert (rail.together_max, rail.asks_after_seconds, rail.forgets_after_seconds) == (64, 30, 3600)
    rail.close()
    around.database.close()


def test_a_rail_that_could_not_be_safe_is_not_built() -> None:
    around = setting()
    wrongs: list[dict[str, object]] = [
        {"base_url": "http://user@provider.example/mm"},
        {"debit_party": []},
        {"debit_party": [{"key": "msisdn", "value": "+250788"}]},
        {"certificate_key_file": "key.pem"},
        {"unknown": 1},
    ]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            build("mobile_money", options("https://provider.example/mm") | wrong, secrets(), around)
    for keys in (
        secrets(callback_api_key="short"),
        secrets(callback_api_key="three-keys-at-once one-more-of-those and-another-of-those"),
        secrets(api_key=CALLBACK_KEY),
        {"api_key": "only"},
    ):
        with pytest.raises(InvalidRailOptions):
            build("mobile_money", options("https://provider.example/mm"), keys, around)
    with pytest.raises(InvalidRailOptions):
        build(
            "mobile_money",
            options("http://127.0.0.1:9/mm"),
            secrets(),
            replace(around, environment="production"),
        )
    with pytest.raises(InvalidRailOptions):
        build(
            "mobile_money",
            options("https://provider.example/mm", certificate_file="nowhere.pem"),
            secrets(),
            around,
        )
    around.database.close()


def test_by_mutual_tls_only_who_has_the_certificate_is_paid_through(tmp_path: Path) -> None:
    authority = _certificate(tmp_path / "authority.pem")
    ours = _certificate(tmp_path / "ours.pem", authority)
    theirs = _certificate(tmp_path / "theirs.pem", authority)
    door = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    door.load_cert_chain(theirs)
    door.load_verify_locations(authority)
    door.verify_mode = ssl.CERT_REQUIRED
    with wallets(provider={"tls": door}, authorities_file=str(authority), certificate_file=str(ours)) as momo:
        assert momo.pay(instruction()).state == "accepted"
        with wallets(base_url=momo.provider.url) as stranger:
            assert stranger.pay(instruction()).state == "not_sent", (
                "their certificate is signed by nobody we know"
            )
        with wallets(base_url=momo.provider.url, authorities_file=str(authority)) as nobody:
            one = instruction()
            assert nobody.pay(one).state in ("not_sent", "unknown"), (
                "TLS 1.3 refuses after the request has left"
            )
            assert str(one.attempt) not in momo.provider.books.payments


def _certificate(path: Path, authority: Path | None = None) -> Path:
    """A key and a certificate for 127.0.0.1 in one file, signed by the authority (without one: by itself)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem)])
    issuer, signer = name, key
    if authority is not None:
        held = authority.read_bytes()
        issuer = x509.load_pem_x509_certificate(held).subject
        loaded = serialization.load_pem_private_key(held, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority is None,
                crl_sign=authority is None,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
