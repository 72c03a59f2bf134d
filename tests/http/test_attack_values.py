"""Addresses, queries and values that are not what they seem: each is read in one way, or refused."""

import json
import socket
from typing import Final
from urllib.parse import quote

import httpx
import pytest

from tests import planted
from tests.http.cast import Cast, assemble
from tests.http.served import Served, a_person
from tests.http.test_attacks import statements


@pytest.fixture(scope="module")
def cast(shared_api: Served) -> Cast:
    return assemble(shared_api)


def test_an_address_has_one_spelling_and_a_method_is_what_it_says(cast: Cast) -> None:
    acme, bolt = cast.everyone["acme"], cast.everyone["bolt"]
    path = f"/v1/members/{cast.member}"
    assert cast.send(acme, "GET", path).status_code == 200
    spellings = [
        f"/{path}",
        path.replace("/v1/", "/v1//"),
        f"{path}/",
        f"{path}/.",
        f"{path}/balances/..",
        f"/v1/deliveries/../members/{cast.member}",
        f"/v1/deliveries/%2e%2e/members/{cast.member}",
        f"{path}%20",
        f"{path}%00",
        f"{path};x=1",
        path.upper(),
        path.replace("mem_", "MEM_"),
        path[:-1] + path[-1].upper() if path[-1].isalpha() else path.replace("mem_", "Mem_"),
        path.replace("/v1/", "/V1/"),
        path.replace("members", "ｍembers"),
        path.replace("mem_", "mеm_"),
        f"{path}/../../ledger/accounts",
        f"http://127.0.0.1/v1/../v1/members/{cast.member}",
    ]
    for spelling in spellings:
        # httpx would tidy the path up: it is sent as it is
        raw = raw_target(cast.api, spelling, acme.token or "")
        assert raw in (400, 404), (spelling, raw)
    # %2f is a slash before anything is judged: it opens what the slash does, to whom the slash does
    for who, status in ((acme, 200), (bolt, 404)):
        assert raw_target(cast.api, f"{path}%2fbalances", who.token or "") == status
    for method in ("HEAD", "OPTIONS", "TRACE", "PROPFIND", "get"):
        assert raw_target(cast.api, path, acme.token or "", method=method) in (400, 404, 405), method
    overriding = {
        "X-HTTP-Method-Override": "DELETE",
        "X-Method-Override": "DELETE",
        "X-HTTP-Method": "DELETE",
        "X-Original-URL": "/v1/ledger/accounts",
        "X-Rewrite-URL": "/v1/ledger/accounts",
        "X-Forwarded-Prefix": "/v1/ledger",
        "Host": "evil.example",
    }
    for name, value in overriding.items():
        answer = cast.api.http.post(
            f"{path}/facts?_method=DELETE",
            json={"name": "income_category", "value": 1, "from": "2026-01-01"},
            headers={"Authorization": f"Bearer {acme.token}", name: value},
        )
        assert answer.status_code == 201, (name, answer.text)
        read = cast.api.http.get(path, headers={"Authorization": f"Bearer {bolt.token}", name: value})
        assert read.status_code == 404, name
    assert cast.send(acme, "GET", path).status_code == 200


def raw_target(api: Served, target: str, token: str, *, method: str = "GET") -> int:
    """The status of a request whose target is sent byte by byte."""
    port = int(api.url.rsplit(":", 1)[1])
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b""
        while b"\r\n" not in answer:
            got = connection.recv(4096)
            if not got:
                return 400  # cut off
            answer += got
    return int(answer.split(b" ", 2)[1])


NUMBERS: Final = [
    "-1",
    "0",
    "1.0",
    "1.5",
    "1e3",
    "1E400",
    "-0",
    "9007199254740992",
    "9223372036854775808",
    "1e999999999",
    "0x10",
    "true",
    "null",
    "[]",
    "{}",
    "NaN",
    "Infinity",
    '"15000"',
    '"1"',
    "00",
    "+1",
    "1_000",
    "١٢",
]
DAYS: Final = [
    "0000-01-01",
    "10000-01-01",
    "2026-02-30",
    "2026-13-01",
    "2026-1-1",
    "20260101",
    "2026-W01-1",
    "1e3",
    "2026-01-01T00:00:00Z",
    "٢٠٢٦-٠١-٠١",
]
INSTANTS: Final = [
    "2026-03-02T23:59:60Z",
    "2026-03-02T24:00:00Z",
    "2026-03-02T09:30:00",
    "2026-03-02T09:30:00+24:00",
    "2026-03-02T09:30:00-99:99",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-03-02",
    "1772443800",
    "now",
]


def test_numbers_and_days_are_exactly_what_they_say(cast: Cast) -> None:
    api, acme = cast.api, cast.everyone["acme"]

    def sent(raw: str, key: str) -> httpx.Response:
        return api.http.post(
            "/v1/remittances",
            content=raw.encode(),
            headers={
                "Authorization": f"Bearer {acme.token}",
                "Idempotency-Key": key,
                "Content-Type": "application/json",
            },
        )

    def remittance(amount: str = "15000", at: str = "2026-03-02T09:20:00Z", more: str = "") -> str:
        return (
            f'{{"remittance_id": "ATTACK", "member": {{"id": "{cast.member}"}},'
            ' "sent": {"amount": 80000, "currency": "AED"}, "received": {"amount": 300000, "currency": "RWF"},'
            f' "collected": {{"amount": {amount}, "currency": "RWF"}},'
            f' "origin_country": "AE", "destination_country": "RW", "completed_at": "{at}"{more}}}'
        )

    before = api.rows("SELECT count(*), sum(amount) FROM ledger.posting")
    # a fee of nothing and nothing collected are amounts; null is what the terms say
    for number in [one for one in NUMBERS if one not in ("0", "-0", "null")]:
        answer = sent(remittance(amount=number), f"n {NUMBERS.index(number)}")
        assert answer.status_code in (400, 422), (number, answer.text)
    for instant in INSTANTS:
        answer = sent(remittance(at=instant), f"i {instant}")
        assert answer.status_code == 422, (instant, answer.text)
    for at in ("0001-01-02T00:00:00Z", "9999-12-30T00:00:00Z"):
        assert sent(remittance(at=at), at).status_code in (409, 422), at  # a time, and not one to pay at
    twice = [', "remittance_id": "OTHER"', ', "member": {"id": "x"}', ', "collected": null']
    for more in twice:
        assert sent(remittance(more=more), "twice").status_code == 400, more
    assert sent(remittance().replace("member", "memb\\u0065r"), "escaped").status_code == 201  # the same text
    assert api.rows("SELECT count(*) - 1 FROM products.remittance") == [(1,)]
    after = api.rows("SELECT count(*), sum(amount) FROM ledger.posting")
    assert after[0][0] > before[0][0]

    for day in DAYS:
        body = {"name": "income_category", "value": 1, "from": day}
        answer = cast.send(acme, "POST", f"/v1/members/{cast.member}/facts", json=body)
        assert answer.status_code == 422, (day, answer.text)
        as_of = cast.send(acme, "GET", f"/v1/members/{cast.member}/balances", params={"as_of": day})
        assert as_of.status_code == 422, (day, as_of.text)
    for day in ("0001-01-01", "9999-12-31"):
        path = f"/v1/members/{cast.member}/balances"
        assert cast.send(acme, "GET", path, params={"as_of": day}).status_code == 200, day


def test_queries_are_read_once_and_bounded(cast: Cast) -> None:
    api, acme, bolt = cast.api, cast.everyone["acme"], cast.everyone["bolt"]
    for limit in ("0", "-1", "201", "1e2", "1.5", "9" * 30, "", "0x1", "1;2", "null"):
        answer = cast.send(acme, "GET", f"/v1/members?limit={limit}")
        assert answer.status_code == 422, (limit, answer.text)
    for path in ("/v1/members", "/v1/remittances", "/v1/deliveries"):
        # of two, one counts, and it is judged: neither opens what the other would not
        answer = cast.send(acme, "GET", f"{path}?limit=1&limit=1000000")
        assert answer.status_code == 422, (path, answer.text)
        assert cast.send(acme, "GET", f"{path}?limit=1&offset=-1&order=id&fields=*&partner=bolt").json() == (
            cast.send(acme, "GET", f"{path}?limit=1").json()
        )

    cast.send(acme, "POST", "/v1/members", json=a_person(70))
    following = cast.send(acme, "GET", "/v1/members?limit=1").json()["next_cursor"]
    assert following is not None
    for who, address in {
        "another partner": (bolt, "/v1/members"),
        "another list": (acme, "/v1/remittances"),
        "another filter": (acme, "/v1/members?partner_reference=A-1"),
        "staff": (cast.everyone["manager"], "/v1/members"),
        "a member": (cast.everyone["the member"], "/v1/members"),
    }.values():
        answer = cast.send(who, "GET", address, params={"cursor": following} | _query(address))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor"), who.name

    # what acme's member is known by finds nothing for others, as what nobody is known by
    sought = {"phone": planted.phone(1), "partner_reference": "A-1"}
    for name, value in sought.items():
        mine = cast.send(acme, "GET", "/v1/members", params={name: value})
        assert [one["id"] for one in mine.json()["data"]] == [cast.member]
        unknown = {"phone": planted.phone(9_999), "partner_reference": "nobody's"}[name]
        for who in (bolt, cast.everyone["caseworker"], cast.everyone["another member"]):
            with statements(api) as known_sql:
                known = cast.send(who, "GET", "/v1/members", params={name: value})
            with statements(api) as unknown_sql:
                nobody = cast.send(who, "GET", "/v1/members", params={name: unknown})
            assert known.json() == nobody.json() == {"data": [], "next_cursor": None}, who.name
            assert known_sql == unknown_sql


def _query(address: str) -> dict[str, str]:
    return dict(httpx.URL(address).params)


def test_what_is_stored_is_text_whatever_it_looks_like(cast: Cast) -> None:
    acme = cast.everyone["acme"]
    evil = [
        "Robert'); DROP TABLE products.member;--",
        "' OR '1'='1",
        "{{7*7}}${7*7}<%= 7*7 %>#{7*7}",
        "%(password)s %s {0} {member.wrapped_key}",
        "<script>alert(1)</script>",
        "=cmd|' /C calc'!A0",
        "../../etc/passwd",
        "$(id) `id` | id",
        "\u202eevil\u2066",
        "a" * 200,
        "\\x00\\u0000",
    ]
    for text in evil:
        path = f"/v1/members/{cast.member}"
        changed = cast.send(acme, "PATCH", path, json={"given_name": text, "family_name": text})
        assert changed.status_code == 200, (text, changed.text)
        assert cast.send(acme, "GET", path).json()["given_name"] == text
        found = cast.send(acme, "GET", "/v1/members", params={"partner_reference": text[:128]})
        assert found.json()["data"] == []
        sought = cast.send(acme, "GET", "/v1/remittances", params={"remittance_id": text[:128]})
        assert sought.json()["data"] == []
        for path in ("/v1/members/{}", "/v1/programmes/{}", "/v1/remittances/{}", "/problems/{}"):
            answer = cast.send(acme, "GET", path.format(quote(text, safe="")))
            assert answer.status_code in (404, 422), (path, text, answer.status_code)
            assert "49" not in answer.text.replace(answer.headers["x-request-id"], "")
            assert "<script>alert" not in answer.text
    for text in ("a\nb", "a\x00b", "", "a" * 201, "\ud800"):
        answer = cast.api.http.patch(
            f"/v1/members/{cast.member}",
            content=json.dumps({"given_name": text}),
            headers={"Authorization": f"Bearer {acme.token}", "Content-Type": "application/json"},
        )
        assert answer.status_code in (400, 422), (text, answer.text)
    for slug in ("еjoheza", "ejoheza\u200b", "EJOHEZA", "ejoheza ", "ｅjoheza"):
        refused = cast.send(acme, "POST", "/v1/members", json=a_person(71, programme=slug))
        assert refused.status_code in (404, 422), (slug, refused.text)
