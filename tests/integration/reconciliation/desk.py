"""A desk on which statement lines and items lie: put there as they are meant, paired by rules or by hand."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import AccountSpec, open_accounts, open_fund
from ledger.clock import FixedClock
from ledger.database import Tx
from ledger.ids import new_id
from ledger.reconciliation import engine, pairings, rules
from ledger.reconciliation.engine import Outcome
from ledger.reconciliation.rules import Rules
from tests.conftest import Databases

DAY = date(2026, 3, 10)


@dataclass(slots=True)
class Desk:
    """One bank account, with lines and items by the names that a test gives them."""

    databases: Databases
    account: UUID
    statement: UUID
    clock: FixedClock = field(default_factory=lambda: FixedClock(datetime(2026, 3, 20, 9, tzinfo=UTC)))
    ids: dict[str, UUID] = field(default_factory=dict)
    _waiting: list[tuple[str, dict[str, Any]]] | None = None

    def line(self, name: str, amount: int, after: int = 0, **known: Any) -> UUID:
        """A statement line, `after` days after DAY."""
        on = DAY + timedelta(days=after)
        values = {
            "booked_on": on,
            "value_on": on,
            "statement_id": self.statement,
            "entry": len(self.ids) + 1,
            "detail": 0,
            "reversal": False,
            "fingerprint": sha256(name.encode()).digest(),
        }
        return self._put("statement_line", name, amount, {**values, **known})

    def item(self, name: str, amount: int, after: int = 0, **known: Any) -> UUID:
        """A booked item, `after` days after DAY, unless another source is named."""
        values: dict[str, Any] = {"on_date": DAY + timedelta(days=after), "source": "booked", "kind": "test"}
        if known.get("source", "booked") == "booked":
            values |= {"transaction_id": new_id(), "seq": 0}
        return self._put("item", name, amount, {**values, **known})

    def beside(self) -> "Desk":
        """Another desk, of another bank account."""
        return desk_of(self.databases, "beside")

    def run(self, used: Rules | None = None) -> Outcome:
        """One run of the rules, as the worker."""
        return self.databases.worker.run(
            lambda tx: engine.pair(
                tx, self.account, used or rules.default(), run_id=new_id(), clock=self.clock
            )
        )

    def make(self, lines: Sequence[str], items: Sequence[str], *, rule: str = pairings.BY_HAND) -> UUID:
        """A pairing by hand, as the worker."""
        return self.databases.worker.run(
            lambda tx: pairings.make(
                tx,
                self.account,
                [self.ids[one] for one in lines],
                [self.ids[one] for one in items],
                rule=rule,
                evidence={},
                made_by="opr_one",
                clock=self.clock,
            )
        )

    def undo(self, pairing: UUID, remark: str = "not these") -> None:
        """A pairing taken back, as the worker."""
        self.databases.worker.run(
            lambda tx: pairings.undo(tx, pairing, remark=remark, actor="opr_one", clock=self.clock)
        )

    @property
    def paired(self) -> dict[tuple[str, ...], tuple[str, Mapping[str, Any]]]:
        """What stands: the names of lines and items of each pairing, in order, and its rule and evidence."""
        names = {id_: name for name, id_ in self.ids.items()}
        with self.databases.superuser.begin() as tx:
            rows = tx.execute(
                text("""
                    SELECT p.rule, p.evidence, array_agg(m.id) FROM ledger.pairing p JOIN (
                        SELECT pairing_id, line_id AS id FROM ledger.paired_line
                        UNION ALL SELECT pairing_id, item_id FROM ledger.paired_item
                    ) AS m ON m.pairing_id = p.id WHERE p.bank_account_id = :account GROUP BY p.id
                """),
                {"account": self.account},
            ).all()
        return {tuple(sorted(names[one] for one in ids)): (rule, evidence) for rule, evidence, ids in rows}

    def clear(self) -> None:
        """An empty desk, whatever was paired on it: for a property's next example."""
        self.ids.clear()
        with self.databases.superuser.begin() as tx:
            tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for table in ("paired_line", "paired_item", "pairing", "pairing_run", "statement_line", "item"):
                tx.exec_driver_sql(f"DELETE FROM ledger.{table}")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Whatever is put on the desk meanwhile is put there together, when it ends."""
        self._waiting = []
        yield
        waiting, self._waiting = self._waiting, None
        with self.databases.superuser.begin() as tx:
            for statement, row in waiting:
                tx.execute(text(statement), row)

    def _put(self, table: str, name: str, amount: int, values: Mapping[str, Any]) -> UUID:
        id_ = new_id()
        row = {"id": id_, "bank_account_id": self.account, "amount": amount, "currency": "RWF", **values}
        statement = f"INSERT INTO ledger.{table} ({', '.join(row)}) VALUES (:{', :'.join(row)})"
        if self._waiting is None:
            with self.databases.superuser.begin() as tx:
                tx.execute(text(statement), row)
        else:
            self._waiting.append((statement, row))
        self.ids[name] = id_
        return id_


def desk_of(databases: Databases, slug: str = "desk") -> Desk:
    """An empty desk, of a bank account of its own."""
    account, statement, file = new_id(), new_id(), new_id()
    with databases.worker.begin() as tx:
        fund = open_fund(tx, slug, "Desk", "Africa/Kigali")
        (mirrored,) = open_accounts(tx, [AccountSpec(fund, "bank", "", "asset", "RWF")])
    with databases.superuser.begin() as tx:
        tx.execute(
            text("""
                INSERT INTO ledger.bank_account (id, slug, name, fund_id, account_id, currency, identification,
                    statements_since, opened_at)
                VALUES (:account, :slug, 'Desk', :fund, :mirrored, 'RWF', :slug, '2026-03-01', now());
            """),
            {"account": account, "slug": slug, "fund": fund, "mirrored": mirrored},
        )
        _statement(tx, file, statement, account)
    return Desk(databases, account, statement)


def _statement(tx: Tx, file: UUID, statement: UUID, account: UUID) -> None:
    tx.execute(
        text("""
            INSERT INTO ledger.statement_file (id, digest, name, format, bytes, received_at, received_by, wrapped_key)
            VALUES (:file, :digest, 'desk', 'test', 1, now(), 'test', 'k')
        """),
        {"file": file, "digest": sha256(file.bytes).digest()},
    )
    tx.execute(
        text("""
            INSERT INTO ledger.bank_statement (id, file_id, position, bank_account_id, from_on, to_on, opening, closing,
                lines, imported_at)
            VALUES (:statement, :file, 1, :account, '2026-03-01', '2026-03-31', 0, 0, 0, now())
        """),
        {"file": file, "statement": statement, "account": account},
    )
