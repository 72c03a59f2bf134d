"""What the pages say of events is so: the reference is the code's, and the receiver that is shown receives."""

import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import tests
from api.events_reference import render
from ledger.ids import new_id
from tests.conftest import Databases
from tests.integration.outbound.told import Told

DOCS = Path(tests.__file__).parents[1] / "docs"


def test_the_page_about_events_is_current() -> None:
    assert (DOCS / "reference" / "events.md").read_text("utf-8") == render(), (
        "write it again: python -m api.events_reference > docs/reference/events.md"
    )


def test_the_receiver_that_is_shown_takes_what_we_send_and_each_event_once(databases: Databases) -> None:
    page = (DOCS / "how-to" / "receive-events.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len([line for line in program.splitlines() if line.strip()]) <= 25
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    told = Told(databases.worker)
    partner = told.partner()
    endpoint, secret = told.endpoint(partner, f"http://127.0.0.1:{port}/events")
    receiver = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "ENDPOINT_SECRET": secret, "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = monotonic() + 60
        while not _listens(port) and monotonic() < until:
            sleep(0.02)
        payouts = told.publish(partner, [new_id(), new_id()])
        told.deliver()
        with told.worker.begin() as tx:
            tx.exec_driver_sql("UPDATE integrations.event_delivery SET state = 'waiting'")
            tx.exec_driver_sql(
                "INSERT INTO integrations.event_stream (endpoint_id, stream, partner_id, due_at)"
                " SELECT endpoint_id, stream, partner_id, now() FROM integrations.event_delivery"
            )
        told.deliver()
    finally:
        receiver.terminate()
        out, err = receiver.communicate(timeout=60)
    assert sorted(re.findall(r"pay_\w+", out)) == sorted(payouts)
    assert err.count("204") == 4  # taken each time, acted upon once
    assert told.rows("SELECT DISTINCT status, error FROM integrations.event_attempt") == [(204, None)]
    assert endpoint.state == "enabled"


def _listens(port: int) -> bool:
    with closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
