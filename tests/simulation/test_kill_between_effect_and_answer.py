"""The API is killed between a commit and its answer: the retry gets the first answer, and the books show one effect."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from pydantic import SecretStr

from api import serving
from api.auth.clients import create_client
from api.bootstrap import bootstrap
from api.embedded import EmbeddedServers
from api.serving import Serving
from api.settings import Environment
from ledger.clock import FixedClock, SystemClock
from ledger.ids import public_id
from tests.conftest import databases_of, settings_of
from tests.simulation.held_answers import Moment, Road, road_to
from tests.simulation.running_system import System, eventually
from tests.tying import expect_all_ties
from tests.world import World

pytestmark = pytest.mark.timeout(180)
COLLECTED = 15_000


@pytest.fixture(scope="module")
def road_and_system(durable_servers: EmbeddedServers) -> Iterator[tuple[Road, System]]:
    """An API process whose writing role reaches PostgreSQL by a road on which we stand."""
    name = "answers_held"
    durable_servers.create_database(name, "mizan")
    databases = databases_of(durable_servers, name)
    settings = settings_of(durable_servers, databases, durable_servers.redis_url)
    assert settings.database_url_worker is not None
    with road_to(settings.database_url_worker.get_secret_value(), b"INTO api.idempotent_answer") as road:
        held_up = settings.model_copy(update={"database_url_worker": SecretStr(road.url), "metrics_port": 0})
        services = bootstrap(settings, name="test")
        world = World(databases, FixedClock(SystemClock().now() - timedelta(minutes=1)))
        world.books = services.books
        processes = Serving(held_up, serving.listen("127.0.0.1", 0), roles=("api",))
        try:
            processes.start()
            yield road, System(durable_servers, databases, settings, services, world, processes)
        finally:
            processes.stop(hurry=threading.Event())
            services.close()
            databases.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_retry_after_a_kill_finds_one_effect_and_one_answer(
    road_and_system: tuple[Road, System], moment: Moment
) -> None:
    road, system = road_and_system
    partner = system.world.partner(f"killed-{moment}", terms="guaranteed")
    person = system.world.member(partner)
    with system.databases.worker.begin() as tx:
        client = create_client(
            tx,
            name=moment,
            partner_id=partner.id,
            environment=Environment.SANDBOX,
            at=system.services.clock.now(),
        )
    remittance = {
        "remittance_id": f"KILLED-{moment}",
        "member": {"id": person.key.value},
        "sent": {"amount": 100_000, "currency": "AED"},
        "received": {"amount": 300_000, "currency": "RWF"},
        "collected": {"amount": COLLECTED, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": (system.services.clock.now() - timedelta(seconds=30)).isoformat(),
    }
    with httpx.Client(base_url=system.url, timeout=60) as http, ThreadPoolExecutor(1) as threads:
        issued = http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(client.client_id, client.client_secret),
        )
        assert "Server" not in issued.headers
        headers = {"Authorization": f"Bearer {issued.json()['access_token']}", "Idempotency-Key": "only once"}

        def send() -> httpx.Response:
            return http.post("/v1/remittances", json=remittance, headers=headers)

        def remittances() -> list[tuple[object, ...]]:
            return system.rows(f"SELECT id FROM products.remittance WHERE partner_id = '{partner.id}'::uuid")

        road.held.clear()
        road.hold = moment
        waiting = threads.submit(send)
        assert road.held.wait(30), "the transaction never came to its commit"
        assert len(remittances()) == (1 if moment == "after" else 0)
        killed = system.serving.pid("api")
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            waiting.result(30)  # the partner learns nothing

        eventually(lambda: _started_again(system, killed), "the API was started again")
        eventually(lambda: _answers(system.url), "the API answered again")
        first = send()
        again = send()
    assert (first.status_code, first.json()["status"]) == (201, "posted"), first.text
    assert first.headers.get("Idempotency-Replayed") == ("true" if moment == "after" else None)
    assert (again.status_code, again.text) == (201, first.text)
    assert again.headers["Idempotency-Replayed"] == "true"
    ((id_,),) = remittances()
    assert first.json()["id"] == public_id("rmt", id_)  # type: ignore[arg-type]  # a UUID of the database
    assert system.world.balance("member_savings", person.enrolments["savings"]) == COLLECTED
    expect_all_ties(system.databases)


def _started_again(system: System, killed: int) -> bool:
    system.serving.check()  # a killed process lets go of its connections before it can be seen to have ended
    return system.serving.pid("api") != killed


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
