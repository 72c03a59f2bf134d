"""Postings on mirrored accounts become items once, behind the settled horizon, named by what the products know."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import AccountSpec, open_accounts
from ledger.clock import SystemClock
from ledger.database import Tx
from ledger.ids import new_id
from ledger.posting import Posting, Transaction, post
from ledger.reconciliation import items
from tests.conftest import Databases
from tests.integration.reconciliation.desk import desk_of
from tests.settled import all_settled


class ByKind:
    """Names every item after its kind."""

    def name(self, tx: Tx, items: Sequence[UUID]) -> None:
        """One statement for all."""
        tx.execute(
            text("UPDATE ledger.item SET reference = upper(kind) WHERE id = ANY (:ids)"), {"ids": list(items)}
        )


def _post(tx: Tx, debit: UUID, credit: UUID, amount: int, on: date = date(2026, 3, 5)) -> UUID:
    (done,) = post(
        tx,
        [Transaction(f"t:{new_id()}", "deposit", on, (Posting(debit, credit, amount, "RWF"),), bytes(32))],
        clock=SystemClock(),
    )
    assert done.transaction_id is not None
    return done.transaction_id


def test_postings_become_items_once_and_none_before_its_time(databases: Databases) -> None:
    desk_of(databases)
    worker = databases.worker
    with worker.begin() as tx:
        fund = tx.execute(text("SELECT fund_id FROM ledger.bank_account")).scalar_one()
        bank = tx.execute(text("SELECT account_id FROM ledger.bank_account")).scalar_one()
        other, second = open_accounts(
            tx, [AccountSpec(fund, code, "", "asset", "RWF") for code in ("other", "float")]
        )
        _post(tx, bank, other, 500)
        _post(tx, other, bank, 200)
        _post(
            tx, bank, other, 70, date(2026, 2, 27)
        )  # before statements are due: the bank's opening balance has it
        _post(tx, other, second, 30)

    def collect(limit: int = 2) -> int:
        return worker.run(lambda tx: items.collect(tx, [ByKind()], limit=limit))

    def amounts() -> list[tuple[int, str | None]]:
        with worker.begin() as tx:
            rows = tx.execute(text("SELECT amount, reference FROM ledger.item ORDER BY id"))
            return [(amount, reference) for amount, reference in rows]

    def everything() -> None:
        while collect():
            pass

    all_settled(worker)
    everything()
    assert sorted(amounts()) == [(-200, "DEPOSIT"), (500, "DEPOSIT")]
    everything()
    assert len(amounts()) == 2

    # one that commits late is behind nothing: what commits meanwhile waits with it
    with worker.engine.connect() as late:
        late.execute(text("SELECT pg_current_xact_id()"))
        with worker.begin() as tx:
            _post(tx, bank, other, 12)
        everything()
        assert len(amounts()) == 2
        _post(late, bank, other, 11)
        late.commit()
    all_settled(worker)
    everything()
    assert sorted(amounts()[2:]) == [(11, "DEPOSIT"), (12, "DEPOSIT")]

    # a second account that is mirrored only now has its past; between two of them a posting is an item of each
    with databases.superuser.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO ledger.bank_account (id, slug, name, fund_id, account_id, currency, identification,"
                " statements_since, opened_at) VALUES (:id, 'float', 'Float', :fund, :account, 'RWF', 'F', '2026-03-01', now())"
            ),
            {"id": new_id(), "fund": fund, "account": second},
        )
    with worker.begin() as tx:
        _post(tx, second, bank, 40)
    all_settled(worker)
    everything()
    assert sorted(amount for amount, _ in amounts()) == [-200, -40, -30, 11, 12, 40, 500]
