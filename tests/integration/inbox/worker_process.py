"""A worker process of the real Celery application for tests: `python -m … BROKER WORKER_URL KEY`."""

import sys
from collections.abc import Sequence

from api.worker import Every, Jobs, create_worker, run_worker
from integrations.inbox.drain import drain
from ledger.clock import SystemClock
from ledger.database import Database, Tx
from ledger.ids import new_id
from products.keyring import Keyring
from products.remittances.process import Delivery, Verdict


def write_down(tx: Tx, deliveries: Sequence[Delivery]) -> list[Verdict]:
    """Slow enough to be killed in the middle."""
    for delivery in deliveries:
        tx.exec_driver_sql(
            "INSERT INTO done.event (remittance_id) SELECT %s FROM pg_sleep(0.001)",
            (delivery.event.remittance_id,),
        )
    return [Verdict("posted", None, new_id()) for _ in deliveries]


def main(broker: str, url: str, key: str) -> None:
    """Run two processes until told to stop."""

    def jobs() -> Jobs:
        database = Database(url, application_name="worker process")
        keyring = Keyring.of(bytes.fromhex(key))

        def nothing() -> None:
            return None

        return Jobs(
            drain_inbox=lambda: drain(database, write_down, SystemClock(), keyring, batch=50).more,
            drain_funds=nothing,
            book_claims=nothing,
            pair_settlements=nothing,
            watch_partners=nothing,
            take_statements=nothing,
            open_balances=nothing,
            destroy_statement_files=nothing,
            reconcile=nothing,
            warn_sponsors=nothing,
            retry_waiting=nothing,
            reevaluate=nothing,
            vest=nothing,
            expire_holds=nothing,
            fold_balances=nothing,
            seal=nothing,
            verify=nothing,
            ensure_partitions=nothing,
            destroy_inbox_keys=nothing,
            forget_answers=nothing,
            destroy_audit_keys=nothing,
            requests=nothing,
            send_notices=nothing,
            apply_changes=nothing,
            forget_tokens=nothing,
            expand_events=nothing,
            deliver_events=nothing,
            forget_events=nothing,
            submit_payouts=nothing,
            ask_payouts=nothing,
            expire_payouts=nothing,
            close=database.close,
        )

    run_worker(create_worker(broker, jobs, Every()), processes=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
