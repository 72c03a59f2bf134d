"""Killed with SIGKILL amid deliveries, again and again: every event arrives, in its members' order, under one id."""

import signal
import subprocess
import sys
from collections import defaultdict
from time import monotonic, sleep

import pytest

from ledger.ids import new_id
from tests.conftest import Databases
from tests.integration.outbound.receiver import Reply, receiving
from tests.integration.outbound.told import Told

KILLS = 4


@pytest.mark.timeout(600)
def test_killed_at_any_moment_every_event_arrives_in_order_under_its_id(databases: Databases) -> None:
    told = Told(databases.worker)
    partner = told.partner()
    members = [new_id() for _ in range(60)]
    with receiving(lambda _: Reply(seconds=0.01)) as receiver:
        told.endpoint(partner, receiver.url)
        payouts: list[str] = []
        for life in range(KILLS + 1):
            payouts += told.publish(partner, members * 12)
            begun = len(receiver.got)
            # as if it began when the leases of the one before had ended
            sender = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.integration.outbound.sender_process",
                    databases.urls["worker"],
                    str(life * 80),
                ]
            )
            try:
                until = monotonic() + 100
                while monotonic() < until and sender.poll() is None:
                    if life < KILLS and len(receiver.got) - begun > 50 + 97 * life:
                        break
                    if life == KILLS and len(set(receiver.ids)) == len(payouts):
                        break
                    sleep(0.005)
            finally:
                sender.send_signal(signal.SIGKILL)
                sender.wait()
    place = {payout: number for number, payout in enumerate(payouts)}
    first: dict[str, str] = {}
    order: dict[str, list[int]] = defaultdict(list)
    for one in receiver.got:
        data = one.event["data"]
        if data["id"] not in first:
            order[data["member"]].append(place[data["id"]])
        assert first.setdefault(data["id"], one.id) == one.id, "one event under two ids"
    assert set(first) == set(payouts)
    assert len(set(first.values())) == len(payouts)
    assert all(places == sorted(places) for places in order.values())
    again = len(receiver.got) - len(payouts)
    assert 0 < again < len(payouts) / 2, f"{again} arrived again: at least once, and not much more"
