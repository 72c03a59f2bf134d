"""Stopped in good order under load: no request that was taken gets a 5xx, and nothing that was acknowledged is lost."""

import copy
import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from api.settings import Settings
from tests.conftest import Databases
from tests.http.deployed import Deployment, Partner, deployed, now, until

SENDERS = 6


def remittance(member: str, number: int) -> dict[str, Any]:
    """A webhook about a remittance of its own."""
    return {
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


class Load:
    """Senders that go on until they are told to stop, each on a kept connection; what they were answered."""

    def __init__(self, partner: Partner, member: str) -> None:
        self.partner, self.member = partner, member
        self.acknowledged: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self.unanswered = 0
        self.asked = threading.Event()

    def send(self, sender: int) -> None:
        """One sender."""
        with httpx.Client(base_url=self.partner.http.base_url, timeout=30) as http:
            mine = copy.copy(self.partner)
            mine.http = http
            for number in range(sender * 100_000, (sender + 1) * 100_000):
                if self.asked.is_set():
                    return
                try:
                    answer = mine.hook(remittance(self.member, number), f"msg_{number}")
                    shown = http.get(
                        f"/v1/members/{self.member}",
                        headers={"Authorization": f"Bearer {self.partner.token}"},
                    )
                except httpx.TransportError:
                    self.unanswered += 1  # refused or closed before it was taken: it would be sent again
                    continue
                self.statuses.update((answer.status_code, shown.status_code))
                if answer.status_code == 202:
                    self.acknowledged.add(answer.json()["id"])


def test_stopped_under_load_everything_that_was_taken_is_answered_and_kept(
    settings: Settings, databases: Databases
) -> None:
    with deployed(settings, worker_processes=2) as deployment:
        partner = deployment.partner(
            deployment.mizan("partner create acme --programme ejoheza --terms guaranteed")
        )
        load = Load(partner, partner.member(1))
        host, port = deployment.url.removeprefix("http://").split(":")
        idle = socket.create_connection((host, int(port)), timeout=10)
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: mizan\r\n\r\n")
        answered = b""
        while not answered.endswith(b"}"):  # head and body may come apart
            answered += idle.recv(65_536)
        assert answered.startswith(b"HTTP/1.1 200")
        with ThreadPoolExecutor(SENDERS) as pool:
            sending = [pool.submit(load.send, sender) for sender in range(SENDERS)]
            for role in ("worker", "api"):
                reached = len(load.acknowledged)
                until(lambda n=reached: len(load.acknowledged) > n + 30 or None, "deliveries come in")  # type: ignore[misc]  # bound in the loop
                stop(deployment, role)
            reached = len(load.acknowledged)
            until(lambda: len(load.acknowledged) > reached + 30 or None, "deliveries come in again")
            load.asked.set()
            for one in sending:
                one.result(100)
        assert set(load.statuses) == {200, 202}, load.statuses
        assert load.unanswered <= 2 * SENDERS  # at most what was on its way to a connection that closed
        idle.settimeout(60)
        assert idle.recv(1) == b""  # a kept connection was closed, not left hanging
        idle.close()

        def processed() -> bool | None:
            with databases.worker.begin() as tx:
                waiting: int = tx.exec_driver_sql(
                    "SELECT count(*) FROM integrations.delivery_queue"
                ).scalar_one()
            return waiting == 0 or None

        until(processed, "everything was processed")
        with databases.worker.begin() as tx:
            stored, posted, remittances = tx.exec_driver_sql(
                "SELECT (SELECT count(*) FROM integrations.delivery),"
                " (SELECT count(*) FROM integrations.delivery_outcome WHERE state = 'posted' AND attempt = 1),"
                " (SELECT count(*) FROM products.remittance WHERE status = 'posted')"
            ).one()
        assert stored == posted == remittances
        assert len(load.acknowledged) <= stored <= len(load.acknowledged) + load.unanswered


def stop(deployment: Deployment, role: Any) -> None:
    """Ask a process to end, see that it does so by itself and well, and start the next one."""
    pid = deployment.processes.pid(role)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while deployment.processes.pid(role) == pid:
        assert time.monotonic() < deadline, f"the {role} process did not end"
        deployment.processes.check()
        time.sleep(0.02)
