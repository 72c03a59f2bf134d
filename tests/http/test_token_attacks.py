"""What attackers send instead of tokens: each is the same 401, or the refusal of RFC 6749, and nothing is a 5xx.

Three places take JWTs: the ``Authorization`` header, ``client_assertion`` and ``subject_token``. What can be wrong with
one is put together by hand, by a key that the attacker holds, or by one that is stolen from the right place.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from api.auth import client_keys
from ledger.ids import new_id
from tests.http.served import Served
from tests.http.signing import App, Key, b64, told
from tests.racing import at_once

Forge = Callable[[dict[str, Any], dict[str, Any]], str]


@pytest.fixture(scope="module")
def api(shared_api: Served) -> Served:
    """One API for all of this."""
    return shared_api


@pytest.fixture(scope="module")
def app(api: Served) -> App:
    """Acme's app, which has registered a key."""
    return App(api, api.acme)


def stolen(api: Served) -> Key:
    """Our own signing key, as if it had leaked: what it signs is refused for what it says alone."""
    signing = api.services.keys.signing()
    private = load_pem_private_key(signing.pem.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return Key(private, signing.kid)


def by_hand(header: bytes, payload: bytes, signature: bytes = bytes(64)) -> str:
    """Three segments of whatever bytes."""
    return ".".join(map(b64, (header, payload, signature)))


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def forgeries(key: Key, header: dict[str, Any], claims: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every way to get a good token wrong that needs no more than to know it; `key` is the one that it belongs to."""
    good = key.sign(header, claims)
    head, body, signature = good.split(".")
    stranger = Key(kid=key.kid)

    yield "forged by another key", stranger.sign(header, claims)
    yield "no signature", by_hand(as_json(header), as_json(claims))
    yield "an empty signature", f"{head}.{body}."
    algorithms: list[Any] = [
        "none",
        "None",
        "NONE",
        "",
        "HS256",
        "RS256",
        "ES384",
        "es256",
        None,
        ["ES256"],
        {},
        7,
    ]
    for algorithm in algorithms:
        yield f"alg {algorithm!r}", key.sign(header | {"alg": algorithm}, claims)
    yield "alg none, unsigned", by_hand(as_json(header | {"alg": "none"}), as_json(claims), b"")
    hs256 = b".".join(b64(as_json(one)).encode() for one in (header | {"alg": "HS256"}, claims))
    for what, secret in {
        "PEM": key.public_pem,
        "DER": key.public_der,
        "JWK": as_json(key.jwk),
        "kid": key.kid.encode(),
        "nothing": b"",
    }.items():
        mac = hmac.digest(secret, hs256, hashlib.sha256)
        yield f"HS256 with the public key as {what}", f"{hs256.decode()}.{b64(mac)}"
        yield f"the same, as long as ES256's: {what}", f"{hs256.decode()}.{b64(mac + mac)}"

    own = {"jwk": stranger.jwk, "jku": "http://127.0.0.1:9/jwks.json", "x5u": "http://127.0.0.1:9/x.pem"}
    for name, value in {**own, "x5c": [b64(stranger.public_der)], "x5t": "x", "crit": ["exp"]}.items():
        yield f"a header with {name}", stranger.sign(header | {name: value}, claims)
        yield f"a header with {name}, well signed", key.sign(header | {name: value}, claims)
    yield "b64 false", key.sign(header | {"b64": False, "crit": ["b64"]}, claims)
    yield "zip", key.sign(header | {"zip": "DEF"}, claims)
    for kid in (
        "' OR '1'='1",
        "x'; DROP TABLE api.signing_key; --",
        "../../../../dev/null",
        "/dev/null",
        f"{key.kid}\x00",
        "\x00",
        "",
        "nobody's",
        "é" * 10,
        "\ud800",
        "k" * 300,
        "{{7*7}}",
        "a\r\nSet-Cookie: x=y",
        None,
        7,
        True,
        [key.kid],
        {"$ne": 1},
    ):
        yield f"kid {kid!r}", key.sign(header | {"kid": kid}, claims)
    yield "no kid", key.sign({name: value for name, value in header.items() if name != "kid"}, claims)
    for typ in ("", "at+JWT", "AT+JWT", "application/at+jwt", "dpop+jwt", "jwt", None, [header["typ"]], 7):
        yield f"typ {typ!r}", key.sign(header | {"typ": typ}, claims)
    yield "no typ", key.sign({name: value for name, value in header.items() if name != "typ"}, claims)

    twice = as_json(claims)[:-1] + b', "sub": "mem_00000000000000000000000000"}'
    yield "a claim given twice", key.sign(header, twice)
    yield "a header given twice", key.sign(as_json(header)[:-1] + b', "alg": "ES256"}', claims)
    for what, payload in {
        "nested arrays": b"[" * 1200,
        "nested objects": b'{"a":' * 400 + b"1" + b"}" * 400,
        "an array": as_json([claims]),
        "a text": b'"text that is long enough"',
        "a number": b"1" * 40,
        "NaN": as_json(claims)[:-1] + b', "x": NaN}',
        "not UTF-8": b"\xff\xfe" * 20,
        "a byte order mark": b"\xef\xbb\xbf" + as_json(claims),
        "NUL in a claim": as_json(claims | {"x": "\x00"}),
        "half a surrogate pair": as_json(claims | {"x": "\ud800"}),
        "a huge number": as_json(claims)[:-1] + b', "x": ' + b"9" * 500 + b"}",
        "2 KB": as_json(claims | {"x": "y" * 4000}),
    }.items():
        yield f"claims: {what}", key.sign(header, payload)
        if len(payload) < 380:
            yield f"header: {what}", key.sign(payload, claims)
    yield "a header nested until the stack ends", key.sign(b"[" * 370, claims)

    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other_spelling = alphabet[alphabet.index(last) ^ 1]  # differs in bits that no byte holds
    for what, text in {
        "padding": f"{head}.{body}.{signature}==",
        "padding within": f"{head}=.{body}.{signature}",
        "another spelling of the signature": good[:-1] + other_spelling,
        "a fourth segment": f"{good}.{signature}",
        "two segments": f"{head}.{body}",
        "a trailing dot": f"{good}.",
        "base64 instead of base64url": f"{head}.{body}.{'+/' * 43}",
        "a newline": f"{head}.{body[:20]}\n{body[20:]}.{signature}",
        "a blank": f"{head}. {body}.{signature}",
        "JSON serialisation": as_json({"payload": body, "protected": head, "signature": signature}).decode(),
        "a JWE": f"{head}.{body}.{signature}.{body}.{signature}",
        "DER instead of r and s": f"{head}.{body}.{b64(key.private.sign(f'{head}.{body}'.encode(), ec.ECDSA(SHA256())))}",
        "zeros": f"{head}.{body}.{b64(bytes(64))}",
        "huge": good + "A" * 100_000,
        "empty": "",
    }.items():
        yield f"text: {what}", text


def wrong_claims(claims: dict[str, Any], lifetime: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Claims that the right key may have signed and that still are no token; `lifetime` is the longest."""
    second = claims["iat"]
    for name in claims:
        yield f"no {name}", {key: value for key, value in claims.items() if key != name}
        empty: list[Any] = [True, "", {}]
        for value in empty:
            yield f"{name} {value!r}", claims | {name: value}
    for name in ("iat", "exp"):
        yield f"{name} as a text", claims | {name: str(claims[name])}
    yield "expired", claims | {"iat": second - 60, "exp": second}
    yield "too long", claims | {"exp": second + lifetime + 1}
    yield "issued too early to live", claims | {"iat": second - lifetime, "exp": second + 1}
    yield "issued in the future", claims | {"iat": second + 60, "exp": second + 90}
    yield "ends before it begins", claims | {"iat": second + 20, "exp": second + 10}
    yield "not before", claims | {"nbf": second + 60}
    yield "beyond time", claims | {"exp": 10**19}
    for audience in (
        "https://elsewhere.example",
        [claims["aud"]],
        claims["aud"] + "/",
        "HTTP://127.0.0.1:8000",
    ):
        yield f"audience {audience!r}", claims | {"aud": audience}
    for issuer in ("https://elsewhere.example", f"cli_{'0' * 26}", claims["iss"] + " "):
        yield f"issuer {issuer!r}", claims | {"iss": issuer}


def test_no_forged_access_token_opens_anything(api: Served, app: App) -> None:
    app.caller.authenticate()
    key, header, claims = stolen(api), told(app.caller.token, 0), told(app.caller.token)
    assert read(api, key.sign(header, claims)).status_code == 200
    attacks = list(forgeries(key, header, claims))
    attacks += [(what, key.sign(header, wrong)) for what, wrong in wrong_claims(claims, 900)]
    lies: dict[str, dict[str, Any]] = {
        "another subject": {"sub": api.bolt.client.client_id},
        "another client": {"client_id": api.bolt.client.client_id},
        "an unknown client": {"client_id": f"cli_{'0' * 26}", "sub": f"cli_{'0' * 26}"},
        "SQL as a client": {"client_id": "cli_' OR 1=1", "sub": "cli_' OR 1=1"},
        "a member without its actor": {"sub": f"mem_{'0' * 26}"},
        "an actor that is another": {"sub": f"mem_{'0' * 26}", "act": {"sub": api.bolt.client.client_id}},
        "an actor who acts for another": {"act": {"sub": app.client_id, "act": {"sub": "x"}}},
        "an unknown member": {"sub": f"mem_{'0' * 26}", "act": {"sub": app.client_id}},
        "a generation to come": {"gen": 1},
        "a generation beyond an integer": {"gen": 2**40},
        "an id that is none of ours": {"jti": "tok_1"},
    }
    attacks += [(what, key.sign(header, claims | lie)) for what, lie in lies.items()]
    for what, token in attacks:
        answer = read(api, token)
        assert answer.status_code == 401, (what, answer.status_code, answer.text)
        assert answer.json()["code"] == "unauthorised", what
    assert read(api, key.sign(header, claims)).status_code == 200


def each_new(wrong: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same claims, each with a ``jti`` of its own: none is refused because another used it."""
    for what, claims in wrong:
        yield what, claims | {"jti": new_id().hex} if len(str(claims.get("jti"))) > 5 else claims


def read(api: Served, token: str) -> httpx.Response:
    """A read with whatever text as its token, as far as HTTP can carry it."""
    if not token or "\n" in token or len(token) > 50_000:  # it ends the header, or the head: no token arrives
        return httpx.Response(401, json={"code": "unauthorised"})
    return api.http.get("/v1/programmes", headers={b"Authorization": b"Bearer " + token.encode()})


def test_no_forged_assertion_proves_a_client(api: Served, app: App) -> None:
    header = {"alg": "ES256", "kid": app.key.kid, "typ": "JWT"}
    assert app.ask(app.key.sign(header, app.assertion_claims())).status_code == 200
    claims = app.assertion_claims()
    attacks = list(forgeries(app.key, header, claims))
    attacks += [(what, app.key.sign(header, wrong)) for what, wrong in each_new(wrong_claims(claims, 300))]
    bolt = App(api, api.bolt)
    attacks += [
        ("another client's key", bolt.key.sign(header | {"kid": bolt.key.kid}, claims)),
        ("another client's key and our kid", bolt.key.sign(header, claims)),
        ("another as its subject", app.assertion(sub=api.bolt.client.client_id)),
        ("a subject token", app.subject(app.registers())),
        ("an access token", app.caller.token),
        ("a subject token's typ", app.assertion({"typ": "mizan-member+jwt"})),
        ("an access token's typ", app.assertion({"typ": "at+jwt"})),
    ]
    for what, assertion in attacks:
        answer = app.ask(assertion)
        expected = (400, "invalid_request") if assertion == "" else (401, "invalid_client")
        assert (answer.status_code, answer.json().get("error")) == expected, (what, answer.text)
    assert app.ask(app.key.sign(header, claims)).status_code == 200


def test_no_forged_subject_token_names_a_member(api: Served, app: App) -> None:
    member = app.registers()
    header = {"alg": "ES256", "kid": app.key.kid, "typ": "mizan-member+jwt"}
    claims = app.subject_claims(member)
    attacks = list(forgeries(app.key, header, claims))
    attacks += [(what, app.key.sign(header, wrong)) for what, wrong in each_new(wrong_claims(claims, 120))]
    bolt = App(api, api.bolt)
    attacks += [
        ("another partner's word", bolt.subject(member)),
        ("another partner's word in our name", bolt.subject(member, {"kid": app.key.kid}, iss=app.client_id)),
        ("a member of another's", app.subject(bolt.registers())),
        ("an assertion", app.assertion()),
        ("an assertion that names a member", app.assertion(sub=member)),
        ("an access token", app.caller.token),
        ("a member's access token", app.member(member).token),
        ("a log-in to come", app.subject(member, auth_time=app.second + 60)),
        ("a log-in before time", app.subject(member, auth_time=0)),
        ("no method that is a text", app.subject(member, amr=[7])),
        ("an empty method", app.subject(member, amr=[""])),
        ("a hundred methods", app.subject(member, amr=["pin"] * 100)),
    ]
    for what, token in attacks:
        answer = app.exchange(token)
        assert (answer.status_code, answer.json().get("error")) == (400, "invalid_request"), (
            what,
            answer.text,
        )
    assert app.exchange(app.key.sign(header, claims)).status_code == 200


def test_an_assertion_is_accepted_once_also_by_two_at_once_and_when_valkey_forgot(app: App) -> None:
    assertion = app.assertion()
    assert app.ask(assertion).status_code == 200
    app.api.services.valkey.flushall()
    again = app.ask(assertion)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")
    assert app.ask(app.assertion(jti=told(assertion)["jti"])).status_code == 401
    raced = app.assertion()
    answers: list[int] = []
    at_once(*[lambda: answers.append(app.ask(raced).status_code)] * 4)
    assert sorted(answers) == [200, 401, 401, 401]
    # used is used, whatever became of the request
    spoiled = app.assertion()
    assert app.ask(spoiled, scope="nonsense").json()["error"] == "invalid_scope"
    assert app.ask(spoiled).json()["error"] == "invalid_client"


def test_what_is_stored_of_a_used_token_is_no_token(app: App) -> None:
    assertion = app.assertion(jti="a-jti-to-look-for")
    assert app.ask(assertion).status_code == 200
    rows = app.api.rows("SELECT * FROM api.used_jti")
    assert rows
    assert all(len(bytes(digest)) == 32 for digest, _ in rows)
    assert not any(b"a-jti-to-look-for" in bytes(digest) for digest, _ in rows)


def test_a_token_of_another_environment_opens_nothing(api: Served, app: App) -> None:
    foreign = Key()
    app.caller.authenticate()
    header, claims = told(app.caller.token, 0), told(app.caller.token)
    for token in (
        foreign.sign(header | {"kid": foreign.kid}, claims),  # the same address, other keys
        foreign.sign(header, claims),
        stolen(api).sign(header, claims | {"iss": "https://live.example", "aud": "https://live.example"}),
    ):
        assert read(api, token).status_code == 401
    secret = api.acme.client.client_secret
    assert secret.startswith("mzn_test_")
    live = httpx.post(
        f"{api.url}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(app.client_id, secret.replace("mzn_test_", "mzn_live_")),
    )
    assert (live.status_code, live.json()["error"]) == (401, "invalid_client")


def test_a_removed_key_proves_nothing_more_and_others_go_on(app: App) -> None:
    api, old, new = app.api, app.key, Key()
    app.register(new)
    header = {"alg": "ES256", "typ": "JWT"}
    for key in (old, new):
        assert app.ask(key.sign(header | {"kid": key.kid}, app.assertion_claims())).status_code == 200
    with api.services.worker.begin() as tx:
        client_keys.remove(tx, app.client_id, old.kid, api.clock.now())
    assert app.ask(old.sign(header | {"kid": old.kid}, app.assertion_claims())).status_code == 401
    assert app.ask(new.sign(header | {"kid": new.kid}, app.assertion_claims())).status_code == 200
    app.key = new
