"""Codes and notices leave after the commit: a gateway that is slow or gone holds up no answer, and loses no notice."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from pydantic import SecretStr

from api.settings import CodeSenderKind, Settings
from ledger.clock import FixedClock
from products.members.waiting import LENT
from tests.conftest import Databases
from tests.http.served import Served, a_person, served
from tests.integration.members.proving import Key, code_in
from tests.patience import eventually
from tests.unit.test_code_senders import SECRET, Gateway, a_gateway


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with a_gateway() as running:
        yield running


@pytest.fixture
def api(settings: Settings, databases: Databases, clock: FixedClock, gateway: Gateway) -> Iterator[Served]:
    with served(
        settings,
        databases.worker,
        clock,
        code_sender=CodeSenderKind.WEBHOOK,
        code_webhook_url=gateway.url,
        code_webhook_secret=SecretStr(SECRET),
        code_webhook_timeout_seconds=60,
    ) as running:
        yield running


def texts(gateway: Gateway) -> list[str]:
    """What arrived; the clock of the API stands, so the signature's time is not of today."""
    return [json.loads(body)["data"]["text"] for _, body in gateway.received]


def wait_for(api: Served, query: str, expected: object) -> None:
    eventually(lambda: api.rows(query) == expected)


def start(api: Served, member: str) -> httpx.Response:
    return api.acme.post(f"/v1/members/{member}/challenges", {"purpose": "device", "subject": {}})


def test_a_gateway_that_is_down_holds_up_no_answer_and_what_was_lost_is_recorded(
    api: Served, gateway: Gateway
) -> None:
    member = api.acme.post("/v1/members", a_person()).json()["id"]
    gateway.answers = [500] * 3
    gateway.answering.clear()
    assert start(api, member).status_code == 201
    assert api.rows("SELECT sending FROM products.challenge") == [("asked",)]
    gateway.answering.set()  # not before: the member's answer was there while the gateway still held its own
    wait_for(api, "SELECT sending FROM products.challenge", [("failed",)])
    assert start(api, member).status_code == 201  # asked for again
    wait_for(api, "SELECT sending FROM products.challenge ORDER BY id", [("failed",), ("sent",)])
    assert len(gateway.received) == 4


def test_a_notice_that_was_lost_is_sent_by_the_job(api: Served, gateway: Gateway) -> None:
    member = api.acme.post("/v1/members", a_person()).json()["id"]
    device = {"name": "Tecno", "key": Key().jwk}
    challenge = api.acme.post(
        f"/v1/members/{member}/challenges", {"purpose": "device", "subject": device}
    ).json()["id"]
    wait_for(api, "SELECT sending FROM products.challenge", [("sent",)])
    code = code_in(texts(gateway)[0])
    gateway.answers = [500] * 3
    registered = api.acme.post(
        f"/v1/members/{member}/devices", device | {"proof": {"challenge": challenge, "code": code}}
    )
    assert registered.status_code == 201
    wait_for(api, "SELECT tries, sent_at FROM products.notice", [(1, None)])
    eventually(lambda: len(gateway.received) == 4)
    assert api.services.codes.send_notices() == 0  # lent to who may still be trying
    api.clock.advance(LENT)
    assert api.services.codes.send_notices() == 1
    assert "/stop/" in texts(gateway)[-1]
    assert api.rows("SELECT message, next_try_at FROM products.notice") == [(None, None)]
    api.clock.advance(timedelta(days=1))
    assert api.services.codes.send_notices() == 0


def test_guesses_at_once_over_http_wait_for_no_connection_that_another_guess_holds(
    settings: Settings, databases: Databases, clock: FixedClock, gateway: Gateway
) -> None:
    """More guesses than connections: each holds its transaction's, and counts its try on another."""
    with served(
        settings,
        databases.worker,
        clock,
        database_pool_size=4,
        code_sender=CodeSenderKind.WEBHOOK,
        code_webhook_url=gateway.url,
        code_webhook_secret=SecretStr(SECRET),
    ) as api:
        member = api.acme.post("/v1/members", a_person()).json()["id"]
        challenge = start(api, member).json()["id"]
        wait_for(api, "SELECT sending FROM products.challenge", [("sent",)])
        code = int(code_in(texts(gateway)[0]))
        device = {"name": "Eve's", "key": Key().jwk}

        def guess(number: int) -> str:
            proof = {"challenge": challenge, "code": f"{(code + number) % 1_000_000:06}"}
            answer = httpx.post(
                f"{api.url}/v1/members/{member}/devices",
                json=device | {"proof": proof},
                headers={"Authorization": f"Bearer {api.acme.token}"},
                timeout=60,
            )
            return str(answer.json()["code"])

        with ThreadPoolExecutor(
            24
        ) as many:  # who waited in vain for a connection would be answered otherwise
            assert set(many.map(guess, range(1, 25))) == {"proof_refused"}
        with databases.owner.begin() as tx:
            assert tx.exec_driver_sql("SELECT tries FROM products.challenge_try").scalar_one() == 24
