"""What follows from an answer, and what an attempt carries."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from integrations.outbound.attempts import RETRY_AFTER_MAX, SCHEDULE, Pending, judge, retry_after
from integrations.outbound.catalogue import CATALOGUE, EVENT_TYPES
from integrations.outbound.signing import body_of, headers_of
from integrations.outbound.transport import Answer
from integrations.partners.standard_webhooks import SymmetricSecret, parse_secret
from ledger.ids import public_id

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
EVENT = UUID("019580f0-0000-7000-8000-000000000001")


def pending(tries: int) -> Pending:
    return Pending(EVENT, "payout.paid", NOW, {"id": "pay_x"}, attempts=tries + 3, tries=tries)


def test_the_schedule_is_the_published_one() -> None:
    hours = [one.total_seconds() / 3600 for one in SCHEDULE]
    assert [round(one * 3600) for one in hours[:4]] == [0, 5, 300, 1800]
    assert hours[4:] == [2, 5, 10, 14, 20, 24]


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_alone_is_delivered(status: int) -> None:
    assert judge(pending(0), NOW, Answer(status, None, 1), NOW).outcome == "delivered"


def test_a_failure_is_tried_again_after_each_wait_of_the_schedule_and_then_given_up() -> None:
    for tries, wait in enumerate(SCHEDULE[1:]):
        dues = {judge(pending(tries), NOW, Answer(500, "status", 1), NOW).due_at for _ in range(20)}
        assert len(dues) > 1, "no jitter"
        assert all(due is not None and 0.9 * wait <= due - NOW <= 1.1 * wait for due in dues)
    assert judge(pending(9), NOW, Answer(None, "timeout", 20_000), NOW).outcome == "exhausted"
    assert judge(pending(0), NOW, Answer(410, "status", 1), NOW).outcome == "gone"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("9" * 40, 86_400),
        ("Mon, 02 Mar 2026 09:35:00 GMT", 300),
        ("Mon, 02 Mar 2026 09:25:00 GMT", 0),
        ("Fri, 02 Mar 2035 09:25:00 GMT", 86_400),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("²", 0),
        (None, 0),
    ],
)
def test_retry_after_is_read_and_bounded(header: str | None, seconds: int) -> None:
    assert retry_after(header, NOW) == timedelta(seconds=seconds) <= RETRY_AFTER_MAX
    due = judge(pending(0), NOW, Answer(503, "status", 1, header), NOW).due_at
    assert due is not None
    assert due - NOW >= timedelta(seconds=max(4.5, seconds))


def test_an_attempt_is_signed_by_every_secret_and_its_body_never_changes() -> None:
    texts = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "QUFB" * 14]
    secrets = [one for one in map(parse_secret, texts) if isinstance(one, SymmetricSecret)]
    at = datetime.now(UTC)
    body = body_of(EVENT, "payout.paid", NOW, {"b": 1, "a": "ä"})
    assert body == body_of(EVENT, "payout.paid", NOW, {"a": "ä", "b": 1})
    assert json.loads(body) == {
        "id": public_id("evt", EVENT),
        "type": "payout.paid",
        "timestamp": "2026-03-02T09:30:00Z",
        "data": {"a": "ä", "b": 1},
    }
    headers = headers_of(secrets, EVENT, at, body)
    for text in texts:
        assert Webhook(text).verify(body, headers) == json.loads(body)
    later = headers_of(secrets, EVENT, at + timedelta(minutes=1), body)
    assert later["webhook-id"] == headers["webhook-id"] == public_id("evt", EVENT)
    assert later["webhook-timestamp"] != headers["webhook-timestamp"]
    assert later["webhook-signature"] != headers["webhook-signature"]


def test_the_catalogue_has_every_type() -> None:
    assert set(CATALOGUE) == set(EVENT_TYPES)
    assert [name for name, kind in CATALOGUE.items() if not kind.sent] == ["cover.changed"]
