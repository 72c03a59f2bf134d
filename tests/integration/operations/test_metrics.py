"""`/metrics`: a listener of its own, on which what all processes count is added up and the database is measured."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import tests
from api import serving
from api.observability import metrics
from api.observability.metrics import COUNTED, MEASURED
from api.observability.scrape import MetricsUnavailable, listening
from api.observability.state import HorizonWatch, look
from api.settings import Settings
from ledger.clock import FixedClock
from tests import planted
from tests.conftest import Databases
from tests.http.deployed import Deployment, deployed, now, until
from tests.http.served import a_person, served

PAGE = Path(tests.__file__).parents[1] / "docs" / "reference" / "metrics.md"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """The samples of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_the_page_about_metrics_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics.reference(), (
        "write it again: python -m api.observability.metrics > docs/reference/metrics.md"
    )


def scraped(deployment: Deployment) -> Samples:
    assert deployment.processes.metrics_url is not None
    answer = httpx.get(deployment.processes.metrics_url, timeout=10)
    assert answer.status_code == 200
    assert not planted.PERSONAL.search(answer.text)
    assert not planted.SECRET.search(answer.text)
    return read(answer.text)


def test_what_all_processes_do_is_counted_and_what_waits_is_measured(
    settings: Settings, databases: Databases
) -> None:
    with deployed(settings) as deployment:
        made = deployment.mizan("partner create acme --programme ejoheza --terms guaranteed")
        partner = deployment.partner(made)
        member = partner.member(1)
        for number in range(3):
            event: dict[str, Any] = {
                "type": "remittance.completed",
                "timestamp": now(),
                "data": {
                    "remittance_id": f"R-{number}",
                    "member": {"id": member},
                    "sent": {"amount": 100_000, "currency": "AED"},
                    "received": {"amount": 400_000, "currency": "RWF"},
                    "fee": None,
                    "collected": {"amount": 20_000, "currency": "RWF"},
                    "origin_country": "AE",
                    "destination_country": "RW",
                    "completed_at": now(),
                    "quote_id": None,
                },
            }
            assert partner.delivered(event, f"msg_{number}")["state"] == "posted"
        assert partner.hook({"type": "remittance.completed"}, "msg_bad").status_code == 400
        assert deployment.http.get("/v1/nothing/here").status_code == 404
        assert deployment.http.get("/metrics").status_code == 404  # never where the outside comes

        def sealed() -> Samples | None:
            found = scraped(deployment)
            seen = value(found, "mizan_task_seconds_count", task="mizan.seal", outcome="done") > 0
            return found if seen and not value(found, "mizan_seal_lag_seconds") else None

        samples = until(sealed, "the books were sealed")
        assert value(samples, "mizan_hook_answers_total", outcome="accepted") == 3
        assert value(samples, "mizan_hook_answers_total", outcome="invalid_event") == 1
        hooked = {"route": "/hooks/{slug}", "method": "POST"}
        assert value(samples, "mizan_request_seconds_count", status="2xx", **hooked) == 3
        assert value(samples, "mizan_request_seconds_count", status="4xx", **hooked) == 1
        assert {route for name, labels in samples if (route := dict(labels).get("route", ""))} >= {
            "/v1/members",
            "/oauth/token",
            "other",
        }
        assert value(samples, "mizan_deliveries_processed_total", state="posted") == 3
        assert value(samples, "mizan_task_seconds_count", task="mizan.drain_inbox", outcome="done") > 0
        assert value(samples, "mizan_deliveries_attention", state="quarantined") == 1
        assert value(samples, "mizan_inbox_deliveries") == 0
        assert value(samples, "mizan_up", part="database") == value(samples, "mizan_up", part="valkey") == 1
        assert {name for name, _ in samples if not name.startswith("mizan_")} == set()

        # A worker that is killed with a connection in its hand doesn't count for ever.
        os.kill(deployment.processes.pid("worker"), signal.SIGKILL)
        deployment.processes.check()
        assert value(scraped(deployment), "mizan_deliveries_processed_total", state="posted") == 3


def test_every_metric_that_is_shown_is_in_the_page_and_no_label_can_grow(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    chosen = settings.model_copy(update={"metrics_port": 0})
    with (
        served(chosen, databases.worker, clock, metrics_port=0) as api,
        listening(chosen) as url,
    ):
        assert url is not None
        member = api.acme.post("/v1/members", a_person()).json()["id"]
        for path in (f"/v1/members/{member}", "/v1/members/mem_x", f"/{planted.PHONE}", "/v1/%2e%2e/x"):
            api.acme.get(path)
        api.http.request("PROPFIND", "/v1/members")
        text = httpx.get(url, timeout=10).text
        with databases.worker.begin() as tx:  # the horizon stands still with this under way
            tx.exec_driver_sql("select pg_current_xact_id()")
            watch, standing = HorizonWatch(), []
            for _ in range(3):
                with databases.auditor.begin() as other:
                    other.exec_driver_sql("select 1")
                with databases.api.begin() as other:
                    other.exec_driver_sql("select pg_current_xact_id()")
                with databases.worker.begin() as other:
                    standing.append(watch.lag_seconds(look(other)))
            assert 0 == standing[0] < standing[1] < standing[2]
    assert member not in text
    assert not planted.PERSONAL.search(text)
    families = {family.name for family in text_string_to_metric_families(text)}
    ours = {next(iter(metric.collect())).name for metric in COUNTED} | set(MEASURED)
    assert {name for name in families if name.startswith("mizan_")} == ours
    assert set(re.findall(r'route="([^"]*)"', text)) <= {
        "other",
        *(getattr(route, "path", "") for route in all_routes(api.app.routes)),
        "/hooks/{slug}",
    }
    assert set(re.findall(r'method="([^"]*)"', text)) <= {"GET", "POST", "other"}


def all_routes(routes: Any) -> list[Any]:
    """The routes of an application, included ones too."""
    found = []
    for route in routes:
        found.append(route)
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        found += all_routes(inner.routes) if inner is not None else []
    return found


def test_a_port_that_is_taken_ends_the_start_and_says_which(settings: Settings) -> None:
    with serving.listen("127.0.0.1", 0) as taken:
        chosen = settings.model_copy(update={"metrics_port": taken.getsockname()[1]})
        with (
            pytest.raises(MetricsUnavailable, match="MIZAN_METRICS_PORT"),
            listening(chosen),
        ):
            raise AssertionError("it must not begin")
