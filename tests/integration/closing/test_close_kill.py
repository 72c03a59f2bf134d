"""Whoever closes a month is killed at any step of it: the month is closed whole, with its pack, once, or not at all."""

import hashlib
import os
import signal
import threading
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import text

from api.approvals import service
from api.approvals.periods import request_close
from api.approvals.service import Request, RequestClosed
from api.bootstrap import Services, bootstrap
from api.settings import Settings
from ledger.clock import FixedClock
from ledger.database import Tx
from products.closing import close
from products.closing.close import FORMATS
from products.closing.period import LOCK_CLASS
from tests.dying import Step, die_after, expect_killed, started
from tests.integration.closing.month import MARCH, PROGRAMME, Month
from tests.tying import expect_all_ties

STEPS: Final[tuple[Step, ...]] = (
    "ledger.periods:close_period",  # of several funds, the first
    "products.closing.checklist:judge",
    "products.closing.pack:make",
    "products.closing.close:_keep",
    "api.approvals.service:_decide",
)
"""After which whoever carries out the close is killed, in their order; all of them before the commit."""
MADE: Final[Step] = "products.closing.pack:make"
COMMITTED: Final[Step] = "ledger.database:Database.run"


def _approves(
    settings: Settings, clock: FixedClock, request: UUID, step: Step, ending: signal.Signals
) -> None:
    """Carry the request out, until it is killed; runs in a process of its own."""
    services = bootstrap(settings, clock=clock, name="killed")
    die_after(step, ending)
    services.worker.run(lambda tx: _carry_out(services, tx, request))


def _carry_out(services: Services, tx: Tx, request: UUID) -> Request:
    return service.carry_out(tx, services, service.one(tx, services, request))


def test_a_close_that_is_killed_after_any_step_has_closed_nothing_and_is_done_once_in_the_end(
    month: Month, settings: Settings
) -> None:
    month.make_green()
    services = bootstrap(settings, clock=month.world.clock)
    asked = services.worker.run(
        lambda tx: request_close(tx, services, "opr_a", programme=PROGRAMME, month=MARCH, remark="March")
    )
    arguments = (settings, month.world.clock, asked.id)
    for step in STEPS:
        expect_killed(_approves, *arguments, step, signal.SIGKILL)
        expect_closes(month, 0)

    # one who is stopped amid it keeps the second out; killed, it leaves the way free
    stopped = started(_approves, *arguments, MADE, signal.SIGSTOP)
    second = threading.Thread(
        target=lambda: services.worker.run(lambda tx: _carry_out(services, tx, asked.id))
    )
    month.wait_for_lock(f"locktype = 'advisory' AND classid = {LOCK_CLASS} AND granted")
    second.start()
    month.wait_for_lock("locktype = 'transactionid' AND NOT granted")
    expect_closes(month, 0)
    assert stopped.pid is not None
    os.kill(stopped.pid, signal.SIGKILL)
    stopped.join(60)
    second.join(60)
    assert not second.is_alive()
    expect_closes(month, 1)
    with pytest.raises(RequestClosed):
        services.worker.run(lambda tx: _carry_out(services, tx, asked.id))

    # killed when it is committed, before anybody is told: it is closed, and whoever says it again is told so
    with month.world.databases.worker.begin() as tx:
        close.reopen(tx, PROGRAMME, MARCH, actor="a, approved by b", reason="again", clock=month.world.clock)
    again = services.worker.run(
        lambda tx: request_close(tx, services, "opr_a", programme=PROGRAMME, month=MARCH, remark="March")
    )
    expect_killed(_approves, settings, month.world.clock, again.id, COMMITTED, signal.SIGKILL)
    expect_closes(month, 2)
    with pytest.raises(RequestClosed):
        services.worker.run(lambda tx: _carry_out(services, tx, again.id))
    expect_closes(month, 2)
    services.close()


def expect_closes(month: Month, number: int) -> None:
    """The month was closed so often, each time whole: every fund, the log's entry, and each form of the pack as its digest says."""
    databases, funds = month.world.databases, len(month.period.funds)
    with databases.owner.begin() as tx:
        counted = tx.execute(
            text(
                "SELECT (SELECT count(*) FROM ledger.period_event WHERE kind = 'close'),"
                " (SELECT count(*) FROM products.close), (SELECT count(*) FROM products.close_file),"
                " (SELECT count(*) FROM ledger.audit_entry WHERE action = 'period.closed'),"
                " (SELECT count(*) FROM api.approval_request WHERE state = 'approved'),"
                " (SELECT count(DISTINCT closed_through) FROM ledger.fund WHERE id = ANY (:funds))"
            ),
            {"funds": month.period.fund_ids},
        ).one()
    assert tuple(counted) == (number * funds, number, number * len(FORMATS), number, number, 1)
    assert month.period.closed is (number > 0)
    if not number:
        return
    month.seal()
    with databases.worker.begin() as tx:
        last = close.one(tx, month.period)
        assert (last.revision, last.stands) == (number, True)
        for form in FORMATS:
            content = close.file(tx, last.id, form)
            assert hashlib.sha256(content).digest() == last.files[form]
            found = close.sealed(tx, last.files[form])
            assert found is not None
            assert (found[0].id, found[1], found[0].seal is not None) == (last.id, form, True)
    expect_all_ties(databases)
