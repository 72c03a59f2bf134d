"""What the close of a month leaves behind: a verification that was asked for, a word on the check-list, a close and its pack."""

from datetime import date
from typing import Final

from sqlalchemy import text

from ledger import verification
from ledger.audit import Act, record
from ledger.ids import new_id
from products.closing import checklist
from products.closing.period import find
from tests.integration.closing.month import nothing_valued
from tests.world import World

PROGRAMME: Final = "ejoheza"
MONTH: Final = date(2026, 3, 1)


def leave_closes(world: World) -> None:
    """Leave a row in every table of closes. March goes on, so that its close is written as none would be that is asked for."""
    with world.databases.worker.begin() as tx:
        verification.ask(tx, actor="test", clock=world.clock)
        period = find(tx, PROGRAMME, MONTH)
        checklist.explain(
            tx, period, "suspense", "seen", actor="test", clock=world.clock, valuing=nothing_valued
        )
        act = Act(
            "test",
            "operator",
            "period.closed",
            PROGRAMME,
            "done",
            detail={},
            programme_id=period.programme_id,
        )
        close = {
            "id": new_id(),
            "programme": period.programme_id,
            "month": MONTH,
            "through": period.through,
            "funds": list(period.fund_ids),
            "noted": record(tx, act, world.clock),
            "now": world.clock.now(),
        }
        tx.execute(
            text(
                "INSERT INTO products.close (id, programme_id, month, revision, through, funds, digest, audit_entry, era,"
                " snapshot, remark, closed_by, closed_at) VALUES (:id, :programme, :month, 1, :through, :funds,"
                " sha256('figures'), :noted, 1, pg_current_snapshot(), 'March', 'test', :now)"
            ),
            close,
        )
        tx.execute(
            text(
                "INSERT INTO products.close_file (close_id, format, content, digest)"
                " VALUES (:id, 'json', '{}', sha256('{}'))"
            ),
            close,
        )
