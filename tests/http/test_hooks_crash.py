"""PostgreSQL killed under load: what was acknowledged is there, what was not may be sent again, and it comes back."""

import os
import signal
import threading

from api.embedded import EmbeddedServers
from ledger.clock import SystemClock
from ledger.database import Database
from products.keyring import Keyring
from tests.http.hooked import completed, hooked
from tests.patience import eventually


def test_what_is_acknowledged_survives_the_database_and_nothing_else_is_claimed(
    durable_servers: EmbeddedServers,
) -> None:
    api = Database(durable_servers.url("mizan_api"), application_name="api")
    worker = Database(durable_servers.url("mizan_worker"), application_name="worker")
    acknowledged: list[str] = []
    statuses: set[int] = set()
    stop = threading.Event()
    with hooked(api, worker, Keyring.of(os.urandom(32)), SystemClock()) as world:
        acme = world.partner()
        assert acme.send(completed()).status_code == 202

        def send(number: int) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                name = f"m-{number}-{count}"
                answer = acme.send(completed(remittance_id=name), name)
                statuses.add(answer.status_code)
                if answer.status_code == 202:
                    acknowledged.append(answer.json()["id"])

        senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for sender in senders:
            sender.start()
        eventually(lambda: len(acknowledged) >= 20)
        pid = durable_servers.pid("postgres")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: 503 in statuses)
        durable_servers.restart("postgres")
        before = len(acknowledged)
        eventually(lambda: len(acknowledged) >= before + 20)
        stop.set()
        for sender in senders:
            sender.join()
        assert statuses == {202, 503}
        ((stored, distinct),) = world.rows(
            "SELECT count(*), count(DISTINCT delivery_key) FROM integrations.delivery"
        )
        assert stored == distinct >= len(set(acknowledged)) + 1 == len(acknowledged) + 1
    api.close()
    worker.close()
