"""`mizan endpoint` and `mizan listen`, on the database of a deployment."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.bootstrap import Services, bootstrap
from api.cli import listen
from api.cli.app import app
from api.jobs import expand_events
from api.settings import Settings
from integrations.outbound.delivery import Deliverer, Delivering
from ledger.ids import new_id, public_id
from tests.conftest import environment_of
from tests.integration.outbound.receiver import Reply, receiving
from tests.integration.outbound.told import RETENTION, Told


@pytest.fixture
def mizan(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def deliver(services: Services) -> None:
    with_ = Delivering(services.worker, services.keyring, services.clock, loopback=True)
    deliverer = Deliverer(with_)
    expand_events(services.worker, services.clock, RETENTION, deliverer)
    deliverer.wake()
    assert deliverer.wait(60)
    deliverer.close()


def test_an_endpoint_is_made_looked_at_and_replayed_on_the_command_line(
    settings: Settings, mizan: Callable[..., Result]
) -> None:
    services = bootstrap(settings)
    told = Told(services.worker)
    partner = told.partner()

    def shown(*arguments: str) -> Any:
        result = mizan(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    with receiving(lambda _: Reply(404)) as receiver:
        made = shown("endpoint", "create", "acme", receiver.url, "--event", "payout.paid")
        assert made["secret"].startswith("whsec_")
        endpoint = made["id"]
        assert [one["id"] for one in shown("endpoint", "list", "--partner", "acme")["data"]] == [endpoint]
        told.publish(partner, [new_id(), new_id()])
        deliver(services)
        assert shown("endpoint", "show", endpoint)["deliveries"] == {
            "waiting": 2,
            "delivered": 0,
            "failed": 0,
        }
        rows = shown("endpoint", "deliveries", endpoint, "--state", "waiting")["data"]
        assert {(one["attempts"], one["last_status"]) for one in rows} == {(1, 404)}
        one = shown("endpoint", "deliveries", endpoint, "--event", rows[0]["event"])
        assert [(attempt["number"], attempt["status"]) for attempt in one["history"]] == [(1, 404)]
        assert "404" in mizan("endpoint", "deliveries", endpoint, "--event", rows[0]["event"]).stdout
        assert shown("endpoint", "rotate-secret", endpoint)["secret"] != made["secret"]
        assert shown("endpoint", "disable", endpoint)["state"] == "disabled"
        refused = mizan("endpoint", "replay", endpoint, "--event", rows[0]["event"])
        assert (refused.exit_code, refused.stderr) == (
            1,
            "error: The endpoint is disabled: enable it first.\n",
        )
        assert shown("endpoint", "enable", endpoint)["state"] == "enabled"
        assert shown("endpoint", "replay", endpoint, "--event", rows[0]["event"])["queued"] == 1
        assert shown("endpoint", "replay", endpoint, "--since", "2026-01-01", "--failed")["queued"] == 1
        receiver.reply = lambda _: Reply()
        deliver(services)
        assert shown("endpoint", "show", endpoint)["deliveries"]["delivered"] == 2
        changed = shown("endpoint", "change", endpoint, "--description", "theirs", "--event", "payout.failed")
        assert (changed["url"], changed["description"]) == (receiver.url, "theirs")
        assert changed["event_types"] == ["payout.failed"]
        changed = shown("endpoint", "change", endpoint, "--url", "https://a.example.com/", "--every-event")
        assert (changed["url"], changed["description"]) == ("https://a.example.com/", "theirs")
        assert shown("endpoint", "show", endpoint)["event_types"] == []
        assert mizan("endpoint", "change", endpoint, "--url", "http://10.0.0.1/").exit_code == 1
        assert mizan("endpoint", "change", endpoint).exit_code == 2
    assert mizan("endpoint", "remove", endpoint).exit_code == 0
    assert "no endpoint" in mizan("endpoint", "list").stdout
    for arguments in (("create", "acme", "http://10.0.0.1/"), ("show", endpoint), ("show", "whe_1"), ("create", "acme", "https://a.example.com", "--event", "x")):  # fmt: skip
        assert mizan("endpoint", *arguments).exit_code == 1
    audited = told.rows("SELECT DISTINCT action FROM ledger.audit_entry WHERE action LIKE 'endpoint.%%'")
    assert len(audited) == 7
    services.close()


def test_the_feed_is_read_on_the_command_line(settings: Settings, mizan: Callable[..., Result]) -> None:
    services = bootstrap(settings)
    told = Told(services.worker)
    partner, members = told.partner(), [new_id(), new_id()]
    told.partner("bolt")
    payouts = told.publish(partner, [*members, members[0]])
    told.expand()

    def read(*arguments: str) -> Any:
        result = mizan("endpoint", "events", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["data"]

    feed = read("acme")
    assert [one["data"]["id"] for one in feed] == payouts
    assert [one["type"] for one in feed] == ["payout.paid"] * 3
    first = read("acme", "--limit", "1")
    assert first == feed[:1]
    assert read("acme", "--after", first[0]["id"]) == feed[1:]
    member = public_id("mem", members[0])
    assert read("acme", "--member", member, "--type", "payout.paid") == [feed[0], feed[2]]
    assert read("acme", "--type", "payout.failed") == read("bolt") == []
    assert member in mizan("endpoint", "events", "acme").stdout
    for arguments in (("nobody",), ("acme", "--type", "x"), ("bolt", "--after", first[0]["id"])):
        assert mizan("endpoint", "events", *arguments).exit_code == 1
    services.close()


def test_listen_shows_what_comes_and_leaves_nothing_behind(
    settings: Settings, mizan: Callable[..., Result]
) -> None:
    services = bootstrap(settings)
    told = Told(services.worker)
    partner = told.partner()
    results: list[Result] = []
    thread = threading.Thread(
        target=lambda: results.append(mizan("listen", "--partner", "acme", "--count", "1", "--json"))
    )
    thread.start()
    for _ in range(3_000):
        if told.rows("SELECT FROM integrations.webhook_endpoint WHERE state = 'enabled'"):
            break
        thread.join(0.02)
    (payout,) = told.publish(partner, [new_id()])
    deliver(services)
    thread.join(60)
    (result,) = results
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["data"]["id"] == payout
    assert told.rows("SELECT state, description FROM integrations.webhook_endpoint") == [
        ("removed", listen.DESCRIPTION)
    ]
    services.close()
