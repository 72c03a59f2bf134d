"""`POST /hooks/{slug}`: the contract's table, row by row, over a real server and a real database."""

import hmac
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest

from integrations.partners.secrets import rotate_secret
from ledger.clock import FixedClock
from products.keyring import Keyring
from products.remittances.partners import set_state
from tests.conftest import Databases
from tests.http.hooked import Signer, World, completed, hooked
from tests.patience import eventually


@pytest.fixture
def keyring() -> Keyring:
    return Keyring.of(os.urandom(32))


@pytest.fixture
def world(databases: Databases, keyring: Keyring, clock: FixedClock) -> Iterator[World]:
    with hooked(databases.api, databases.worker, keyring, clock) as running:
        yield running


def test_the_documented_route_answers_as_the_front_does(
    databases: Databases, keyring: Keyring, clock: FixedClock
) -> None:
    with hooked(databases.api, databases.worker, keyring, clock, in_front=False) as world:
        acme = world.partner()
        assert acme.send(completed(), "msg_1").json()["duplicate"] is False
        assert acme.send(completed(), "msg_1").json()["duplicate"] is True
        problem(acme.send(b"{}"), 400, "invalid_event")
        problem(world.client.post("/hooks/nobody"), 401, "signature_invalid")


@pytest.fixture
def acme(world: World) -> Signer:
    return world.partner("acme")


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The problem document of an answer that must be this one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = response.json()
    assert document["code"] == code
    return document


def kinds(world: World) -> list[tuple[object, ...]]:
    """What is stored: kind, state and reason of each delivery, and whether it waits for a worker."""
    return world.rows(
        "SELECT d.kind, o.state, o.reason, q.id IS NOT NULL FROM integrations.delivery d"
        " LEFT JOIN integrations.delivery_outcome o ON o.delivery_id = d.id"
        " LEFT JOIN integrations.delivery_queue q ON q.id = d.id ORDER BY d.id"
    )


def test_a_new_delivery_is_stored_then_accepted_then_announced(world: World, acme: Signer) -> None:
    answer = acme.send(completed())
    assert answer.status_code == 202
    assert answer.json()["duplicate"] is False
    assert answer.json()["id"].startswith("dlv_")
    assert kinds(world) == [("new", None, None, True)]
    eventually(lambda: world.woken)


def test_the_same_event_under_the_same_id_is_a_duplicate_whatever_its_spelling(
    world: World, acme: Signer
) -> None:
    first = acme.send(completed(), "msg_1")
    again = acme.send(json.dumps(completed(), indent=3).encode(), "msg_1")
    assert again.status_code == 202
    assert again.json() == {"id": first.json()["id"], "duplicate": True}
    assert kinds(world) == [("new", None, None, True)]


def test_another_event_under_the_same_id_is_a_conflict_and_kept_as_evidence_once(
    world: World, acme: Signer
) -> None:
    first = acme.send(completed(), "msg_1")
    for _ in range(3):
        refused = acme.send(completed(remittance_id="other"), "msg_1")
        assert problem(refused, 409, "delivery_conflict")["delivery"] == first.json()["id"]
    assert kinds(world) == [("new", None, None, True), ("evidence", "conflict", "delivery_conflict", False)]


def test_two_partners_may_use_the_same_id(world: World, acme: Signer) -> None:
    assert acme.send(completed(), "msg_1").json()["duplicate"] is False
    assert world.partner("beta").send(completed(), "msg_1").json()["duplicate"] is False


def test_an_event_against_the_schema_is_named_quarantined_and_leaves_its_id_free(
    world: World, acme: Signer
) -> None:
    wrong = completed(received={"amount": True, "currency": "XXY"})
    document = problem(acme.send(wrong, "msg_1"), 400, "invalid_event")
    assert [error["pointer"] for error in document["errors"]] == [  # type: ignore[attr-defined]
        "/data/received/amount",
        "/data/received/currency",
    ]
    problem(acme.send(wrong, "msg_1"), 400, "invalid_event")
    assert acme.send(completed(), "msg_1").status_code == 202
    assert kinds(world) == [("rejected", "quarantined", "invalid_event", False), ("new", None, None, True)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"type": "remittance.completed", "type": "x"}',
        b'{"a": NaN}',
        b"[" * 100_000,
        b'"\\ud800"',
        b'{"a": "\\u0000"}',
        b"",
        b"not json",
        b'{"a": 1' + b"0" * 400 + b"}",
    ],
)
def test_an_authentic_body_that_is_not_strict_json_is_refused_and_stored(
    world: World, acme: Signer, body: bytes
) -> None:
    document = problem(acme.send(body), 400, "malformed_request")
    assert str(document["delivery"]).startswith("dlv_")
    assert kinds(world) == [("rejected", "quarantined", "not_strict_json", False)]


def test_a_body_that_is_no_text_is_refused_and_stored(world: World, acme: Signer) -> None:
    problem(acme.send(b'{"a": "\xff\xfe"}'), 400, "malformed_request")
    assert kinds(world) == [("rejected", "quarantined", "not_strict_json", False)]


def test_an_unknown_type_is_accepted_and_ignored(world: World, acme: Signer) -> None:
    answer = acme.send({"type": "payout.created", "data": {}})
    assert answer.status_code == 202
    assert kinds(world) == [("ignored", "ignored", "unknown_type", False)]


def test_all_who_are_not_believed_get_the_same_answer(world: World, acme: Signer) -> None:
    body = json.dumps(completed()).encode()
    disabled = world.partner("disabled")
    with world.database.begin() as tx:
        set_state(tx, "disabled", "disabled")
    good = acme.headers(body, "msg_1")
    answers = [
        world.client.post("/hooks/nobody", content=body, headers=good),
        world.client.post("/hooks/%00", content=body, headers=good),
        world.client.post("/hooks/acme", content=body),
        world.client.post("/hooks/acme", content=body + b" ", headers=good),
        world.client.post("/hooks/acme", content=body, headers=good | {"webhook-signature": "v1 v1, ,"}),
        world.client.post("/hooks/acme", content=body, headers=good | {"webhook-timestamp": "1.5"}),
        world.client.post("/hooks/acme", content=body, headers={**good, "webhook-id": "é".encode("latin-1")}),
        world.client.post("/hooks/acme", content=body, headers={**good, "webhook-signature": b"\xff\xfe"}),
        disabled.send(completed()),
    ]
    documents = [problem(answer, 401, "signature_invalid") for answer in answers]
    assert all(document == documents[0] for document in documents)
    assert kinds(world) == []
    assert world.hooks.counts["unsigned"] == len(answers)


def test_unknown_and_wrong_take_the_same_work(
    world: World, acme: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body is hashed as often: of a large one nothing else takes time that could be told from outside."""
    body = b"x" * 200_000
    headers = acme.headers(b"something else", "msg_1")
    hashed: list[int] = []
    digest = hmac.digest

    def counted(key: bytes, content: bytes, algorithm: Any) -> bytes:
        hashed.append(len(content))
        return digest(key, content, algorithm)

    monkeypatch.setattr(hmac, "digest", counted)
    work: dict[str, list[int]] = {}
    for slug in ("nobody", "acme"):
        hashed.clear()
        problem(world.client.post(f"/hooks/{slug}", content=body, headers=headers), 401, "signature_invalid")
        work[slug] = [length for length in hashed if length > len(body)]
    assert work["nobody"] == work["acme"] != []


def test_a_good_signature_of_another_time_is_told_so(world: World, acme: Signer, clock: FixedClock) -> None:
    body = json.dumps(completed()).encode()
    headers = acme.headers(body, "msg_1")
    for away in (timedelta(minutes=5, seconds=1), timedelta(minutes=-10, seconds=-2)):
        clock.advance(away)
        answer = world.client.post("/hooks/acme", content=body, headers=headers)
        problem(answer, 401, "timestamp_out_of_tolerance")
    assert kinds(world) == []


def test_a_body_of_256_kib_is_taken_and_one_byte_more_is_not_even_read(world: World, acme: Signer) -> None:
    padded = json.dumps(completed())[:-1].encode()
    largest = padded + b" " * (256 * 1024 - len(padded) - 1) + b"}"
    assert acme.send(largest).status_code == 202
    problem(acme.send(largest[:-1] + b" }"), 413, "content_too_large")
    assert len(kinds(world)) == 1


def test_a_body_without_a_length_is_counted_while_it_is_read(world: World) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield b" " * 1024

    problem(world.client.post("/hooks/acme", content=endless()), 413, "content_too_large")


def test_a_content_encoding_is_refused(world: World, acme: Signer) -> None:
    problem(acme.send(completed(), headers={"content-encoding": "gzip"}), 415, "unsupported_media_type")


def test_both_secrets_work_while_one_replaces_the_other(
    world: World, acme: Signer, keyring: Keyring, clock: FixedClock
) -> None:
    with world.database.begin() as tx:
        new = rotate_secret(tx, keyring, clock, acme.id)
    renewed = Signer(acme.id, acme.slug, new, clock, world.client)
    assert acme.send(completed()).status_code == 202
    assert renewed.send(completed()).status_code == 202
    clock.advance(timedelta(days=1, seconds=1))
    problem(acme.send(completed()), 401, "signature_invalid")
    assert renewed.send(completed()).status_code == 202


def test_a_disabled_partner_is_refused_within_seconds(world: World, acme: Signer) -> None:
    assert acme.send(completed()).status_code == 202
    with world.database.begin() as tx:
        set_state(tx, "acme", "disabled")
    eventually(lambda: acme.send(completed()).status_code != 202)
    problem(acme.send(completed()), 401, "signature_invalid")


def test_a_storm_of_repetitions_and_conflicts_leaves_one_event_and_one_piece_of_evidence_each(
    world: World, acme: Signer
) -> None:
    def send(number: int) -> tuple[int, object]:
        name = f"msg_{number % 5}"
        changed = completed(remittance_id=f"{name}-{number % 10 >= 5 and number >= 40}")
        answer = acme.send(changed, name)
        return answer.status_code, answer.json().get("duplicate")

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(200)))
    assert {status for status, _ in answers} <= {202, 409}
    assert answers.count((202, False)) == 5
    stored = kinds(world)
    assert [kind for kind, *_ in stored].count("new") == 5
    assert [kind for kind, *_ in stored].count("evidence") <= 5


def test_workers_that_cannot_be_woken_change_no_answer(
    databases: Databases, keyring: Keyring, clock: FixedClock
) -> None:
    def publish() -> None:
        raise ConnectionError("no broker")

    with hooked(databases.api, databases.worker, keyring, clock, publish=publish) as world:
        acme = world.partner()
        assert [acme.send(completed()).status_code for _ in range(5)] == [202] * 5


def test_a_full_queue_asks_to_come_back_and_takes_nothing(
    databases: Databases, keyring: Keyring, clock: FixedClock
) -> None:
    with hooked(databases.api, databases.worker, keyring, clock, queue_max=1, gather_seconds=0.2) as world:
        acme = world.partner()
        assert acme.send(completed()).status_code == 202
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: acme.send(completed()), range(8)))
        refused = [answer for answer in answers if answer.status_code != 202]
        assert refused
        for answer in refused:
            problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
        assert len(kinds(world)) == 1 + len(answers) - len(refused)


def test_what_is_stored_says_nothing_without_its_key(world: World, acme: Signer) -> None:
    acme.send(completed())
    ((sealed, digest),) = world.rows("SELECT body_sealed, digest FROM integrations.delivery")
    assert b"971501234567" not in sealed
    assert b"ACME" not in sealed
    assert len(digest) == 32
