"""Delivering to real endpoints on loopback: once or more, in order, as the schedule says, and each at its own pace."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from integrations.outbound import endpoints, queries
from integrations.outbound.attempts import FAILING_MAX, SCHEDULE, claim
from integrations.outbound.delivery import CONNECTIONS_MAX
from integrations.outbound.endpoints import Endpoint, EndpointDisabled, EndpointLimit, Wanted
from integrations.outbound.events import expand
from integrations.partners.secrets import create_secret
from integrations.partners.standard_webhooks import SymmetricSecret, parse_secret
from ledger.clock import FixedClock
from ledger.ids import new_id, parse_public_id
from tests.conftest import Databases
from tests.integration.outbound.receiver import Got, Receiver, Reply, receiving
from tests.integration.outbound.told import KEYRING, RETENTION, Told
from tests.patience import PATIENCE_SECONDS, eventually


@pytest.fixture
def told(databases: Databases) -> Told:
    return Told(databases.worker)


@pytest.fixture
def slow_time(databases: Databases) -> Told:
    """The same with a clock that is moved; it begins now, as receivers look at the time of an attempt."""
    return Told(databases.worker, FixedClock(datetime.now(UTC)))


def states(told: Told) -> dict[str, int]:
    return dict(told.rows("SELECT state, count(*) FROM integrations.event_delivery GROUP BY 1"))


def found(told: Told, endpoint: Endpoint) -> Endpoint:
    with told.worker.begin() as tx:
        return endpoints.find(tx, endpoint.id, None)


def assert_in_order(told: Told, receiver: Receiver) -> None:
    """Each member's events arrived for the first time in the order in which they happened."""
    told_order = [row[0] for row in told.rows("SELECT data->>'id' FROM integrations.event ORDER BY seq")]
    place = {payout: number for number, payout in enumerate(told_order)}
    arrived: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for one in receiver.got:
        if one.id not in seen:
            arrived[one.event["data"]["member"]].append(place[one.event["data"]["id"]])
        seen.add(one.id)
    assert all(sorted(order) == order for order in arrived.values())


def test_every_event_arrives_signed_in_its_members_order_several_at_once(told: Told) -> None:
    """Nothing is answered before as many have arrived as there are connections: one by one, nothing ever would be."""
    partner = told.partner()
    members = [new_id() for _ in range(100)]
    with receiving() as receiver:
        receiver.reply = lambda _: Reply(time=lambda: len(receiver.got) >= CONNECTIONS_MAX)
        _, secret = told.endpoint(partner, receiver.url)
        payouts = told.publish(partner, members * 15)
        told.deliver()
        assert sorted(one.event["data"]["id"] for one in receiver.got) == sorted(payouts)
        assert_in_order(told, receiver)
        for one in receiver.got[::100]:
            assert Webhook(secret).verify(one.body, dict(one.headers)) == one.event
    assert states(told) == {"delivered": 1500}
    assert told.rows("SELECT count(*) FROM integrations.event_stream") == [(0,)]


def test_a_failing_event_holds_up_its_own_member_alone_and_is_tried_with_the_same_id(slow_time: Told) -> None:
    told, partner = slow_time, slow_time.partner()
    anna, berta = new_id(), new_id()
    first, second, hers = told.publish(partner, [anna, anna, berta])

    def refuse_the_first(got: Got) -> Reply:
        return Reply(500 if got.event["data"]["id"] == first else 200)

    with receiving(refuse_the_first) as receiver:
        endpoint, _ = told.endpoint(partner, receiver.url)
        for wait in SCHEDULE[:3]:
            told.advance(wait * 1.2)
            told.deliver()
        arrived = [one.event["data"]["id"] for one in receiver.got]
        assert sorted(arrived) == sorted([first] * 3 + [hers])
        receiver.reply = lambda _: Reply()
        told.advance(SCHEDULE[3] * 1.2)
        told.deliver()
        tries = [one for one in receiver.got if one.event["data"]["id"] == first]
        assert [one.event["data"]["id"] for one in receiver.got][-2:] == [first, second]
        assert len({one.id for one in tries}) == len({one.body for one in tries}) == 1
        assert len({one.headers["webhook-timestamp"] for one in tries}) == 4
    with told.worker.begin() as tx:
        (view,) = [one for one in queries.deliveries(tx, endpoint) if one.attempts == 4]
        history = queries.history(tx, endpoint, view.event_id)
    assert [(one.number, one.status, one.error) for one in history] == [
        (1, 500, "status"),
        (2, 500, "status"),
        (3, 500, "status"),
        (4, 204, None),
    ]
    assert found(told, endpoint).failing_since is None


def test_after_the_last_attempt_it_is_given_up_kept_and_replayable_and_the_next_goes(slow_time: Told) -> None:
    told, partner = slow_time, slow_time.partner()
    anna = new_id()
    first, second = told.publish(partner, [anna, anna])
    with receiving(lambda _: Reply(302, headers={"Location": "http://127.0.0.1:1/"})) as receiver:
        endpoint, _ = told.endpoint(partner, receiver.url)
        for wait in SCHEDULE:
            told.advance(wait * 1.2)
            told.deliver()
        assert [one.event["data"]["id"] for one in receiver.got] == [first] * len(SCHEDULE) + [second]
        assert states(told) == {"failed": 1, "waiting": 1}
        receiver.reply = lambda _: Reply()
        with told.worker.begin() as tx:
            (failed,) = queries.deliveries(tx, endpoint, states=["failed"])
            assert (failed.reason, failed.attempts, failed.status) == ("exhausted", 10, 302)
            queries.replay(tx, told.clock, endpoint, failed.event_id)
        told.deliver()
        # replayed, it stands before the later one of its member again
        assert [one.event["data"]["id"] for one in receiver.got][-2:] == [first, second]
        with told.worker.begin() as tx:
            assert [one.number for one in queries.history(tx, endpoint, failed.event_id)] == [*range(1, 12)]


def test_410_disables_at_once_and_retry_after_is_waited_for(slow_time: Told) -> None:
    told, partner = slow_time, slow_time.partner()
    with (
        receiving(lambda _: Reply(410)) as gone,
        receiving(lambda _: Reply(429, headers={"Retry-After": "3600"})) as busy,
    ):
        dead, _ = told.endpoint(partner, gone.url, "payout.paid")
        told.endpoint(partner, busy.url)
        told.publish(partner, [new_id()])
        told.deliver()
        told.publish(partner, [new_id()])
        told.advance(timedelta(minutes=59))
        told.deliver()
        assert len(gone.got) == 1
        disabled = found(told, dead)
        assert (disabled.state, disabled.reason) == ("disabled", "gone")
        assert len([one for one in busy.got if one.id == busy.got[0].id]) == 1
        busy.reply = lambda _: Reply()
        told.advance(timedelta(hours=2))
        told.deliver()
        # the partner is told at its other endpoint, and in the feed
        assert "endpoint.disabled" in {one.event["type"] for one in busy.got}
        assert [one.event["data"]["reason"] for one in busy.got if "endpoint" in one.event["type"]][
            -1
        ] == "gone"
        with told.worker.begin() as tx, pytest.raises(EndpointDisabled):
            queries.replay_since(tx, told.clock, disabled, datetime(2026, 1, 1, tzinfo=UTC))


def test_an_endpoint_to_which_nothing_arrives_for_days_is_disabled_and_its_partner_told(
    slow_time: Told,
) -> None:
    told, partner = slow_time, slow_time.partner()
    endpoint, _ = told.endpoint(partner, "http://127.0.0.1:1/nobody-listens")
    told.publish(partner, [new_id()])
    told.deliver()
    assert found(told, endpoint).failing_since is not None
    told.advance(FAILING_MAX)
    told.publish(partner, [new_id()])
    told.deliver()
    disabled = found(told, endpoint)
    assert (disabled.state, disabled.reason) == ("disabled", "failing")
    assert states(told) == {"failed": 2}
    told.expand()
    assert told.rows("SELECT type FROM integrations.event ORDER BY seq DESC LIMIT 1") == [
        ("endpoint.disabled",)
    ]
    errors = told.rows("SELECT DISTINCT status, error FROM integrations.event_attempt")
    assert errors == [(None, "connection")]


def test_a_dead_and_a_slow_endpoint_delay_nobody_else(databases: Databases) -> None:
    """The slow one answers nothing until the good one has it all, the dead one nothing even when the worker stops."""
    told = Told(databases.worker, seconds=3600)
    partner = told.partner()
    payouts = set(told.publish(partner, [new_id() for _ in range(40)] * 5))

    def has_all(receiver: Receiver) -> bool:
        return {one.event["data"]["id"] for one in receiver.got} == payouts

    with (
        receiving() as good,
        receiving(lambda _: Reply(time=lambda: has_all(good))) as slow,
        receiving(lambda _: Reply(time=lambda: False)) as dead,
    ):
        for one in (good, slow, dead):
            told.endpoint(partner, one.url)
        told.expand()
        deliverer = told.deliverer()
        deliverer.wake()  # a task doesn't wait for endpoints
        eventually(lambda: has_all(good))
        eventually(lambda: has_all(slow))
        assert 0 < len(dead.got) <= CONNECTIONS_MAX
        deliverer.close()
        assert deliverer.wait(PATIENCE_SECONDS), "a worker that stops waits for endpoints"
        assert states(told) == {"delivered": 2 * len(payouts), "waiting": len(payouts)}


def test_a_secret_is_rotated_with_both_signing_for_a_day(slow_time: Told) -> None:
    told, partner = slow_time, slow_time.partner()
    with receiving() as receiver:
        endpoint, former = told.endpoint(partner, receiver.url)
        with told.worker.begin() as tx:
            secret, ends = endpoints.rotate_secret(tx, KEYRING, told.clock, endpoint)
        told.publish(partner, [new_id()])
        told.deliver()
        (got,) = receiver.got
        assert got.headers["webhook-signature"].count("v1,") == 2
        for one in (former, secret):
            assert Webhook(one).verify(got.body, dict(got.headers)) == got.event
        assert ends - told.clock.now() == timedelta(days=1)
    with told.worker.begin() as tx:
        for _ in range(3):
            endpoints.rotate_secret(tx, KEYRING, told.clock, endpoint)
        assert len(endpoints.secrets_of(tx, KEYRING, [endpoint.id], told.clock.now())[endpoint.id]) == 2
        assert len(endpoints.secrets_of(tx, KEYRING, [endpoint.id], ends)[endpoint.id]) == 1


def test_what_we_sign_with_is_never_what_a_partner_signs_with(told: Told) -> None:
    partner = told.partner()
    with told.worker.begin() as tx:
        incoming = [create_secret(tx, KEYRING, told.clock, partner) for _ in range(20)]
    _, first = told.endpoint(partner, "http://127.0.0.1:1/")
    lengths = set()
    for text in [*incoming, first]:
        secret = parse_secret(text)
        assert isinstance(secret, SymmetricSecret)
        lengths.add((text in incoming, len(secret.key)))
    assert lengths == {
        (True, 32),
        (False, endpoints.SECRET_BYTES),
    }  # apart by their length, whatever chance does


def test_replaying_since_a_time_sends_what_the_filter_lets_through_in_order_with_the_same_ids(
    told: Told,
) -> None:
    partner = told.partner()
    members = [new_id(), new_id()]
    with receiving() as receiver:
        endpoint, _ = told.endpoint(partner, receiver.url)
        told.publish(partner, members * 3)
        told.deliver()
        since = told.clock.now()
        with told.worker.begin() as tx:
            endpoints.disable(tx, told.clock, endpoint)
        told.publish(partner, members * 2)
        told.deliver()
        before = receiver.ids
        assert len(before) == 6
        with told.worker.begin() as tx:
            enabled = endpoints.enable(tx, told.clock, endpoint)
        told.deliver()
        assert receiver.ids == before  # what it missed is not sent unasked
        with told.worker.begin() as tx:
            assert queries.replay_since(tx, told.clock, enabled, since, "failed").queued == 4
            assert queries.replay_since(tx, told.clock, enabled, since, "failed").queued == 0
        told.deliver()
        assert len(set(receiver.ids)) == len(receiver.ids) == 10
        with told.worker.begin() as tx:
            assert queries.replay_since(tx, told.clock, enabled, since - timedelta(hours=1)).queued == 10
        told.deliver()
        assert sorted(receiver.ids[10:]) == sorted(receiver.ids[:10])
        receiver.got = receiver.got[10:]
        assert_in_order(told, receiver)


def test_an_endpoint_gets_the_types_it_asked_for_and_a_partner_has_ten_at_most(told: Told) -> None:
    partner = told.partner()
    with receiving() as all_, receiving() as some:
        told.endpoint(partner, all_.url)
        told.endpoint(partner, some.url, "payout.failed", "endpoint.disabled")
        told.publish(partner, [new_id()])
        told.deliver()
        assert (len(all_.got), len(some.got)) == (1, 0)
    for _ in range(8):
        told.endpoint(partner, "https://hooks.acme.example/")
    with pytest.raises(EndpointLimit), told.worker.begin() as tx:
        endpoints.create(
            tx, KEYRING, told.clock, partner, Wanted("https://hooks.acme.example/"), loopback=False
        )


def test_a_stream_whose_sender_was_killed_is_due_again_and_the_late_one_changes_nothing(
    slow_time: Told,
) -> None:
    """The lease: a claim that nobody recorded ends by itself; what is recorded under it afterwards is history only."""
    told, partner = slow_time, slow_time.partner()
    with receiving() as receiver:
        endpoint, _ = told.endpoint(partner, receiver.url)
        told.publish(partner, [new_id()])
        told.expand()

        def take() -> UUID | None:
            with told.worker.begin() as tx:
                taken = claim(tx, KEYRING, told.clock, endpoint.id, streams=9)
            return taken.streams[0].pending[0].event_id if taken else None

        first = take()
        assert first is not None
        assert take() is None
        told.deliver()
        assert receiver.got == []
        told.advance(timedelta(seconds=76))
        told.deliver()
        assert [parse_public_id("evt", one) for one in receiver.ids] == [first]


def test_an_endpoint_that_is_disabled_while_its_events_are_queued_keeps_none_of_them_waiting(
    told: Told,
) -> None:
    partner = told.partner()
    endpoint, _ = told.endpoint(partner, "http://127.0.0.1:1/")
    told.publish(partner, [new_id()])
    with told.worker.begin() as tx:
        assert expand(tx, told.clock, retention=RETENTION).deliveries == 1
    with told.worker.begin() as tx:
        endpoints.remove(tx, told.clock, endpoint)
        assert endpoints.secrets_of(tx, KEYRING, [endpoint.id], told.clock.now()) == {}
        assert endpoints.endpoints_of(tx, partner) == []
    assert states(told) == {"failed": 1}
