"""A month to close: what happened in it, what the bank says of it, and the steps by which its check-list becomes green."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from api.close_pack import render
from ledger import verification
from ledger.audit import Act, record
from ledger.database import Tx
from ledger.fold import fold
from ledger.horizon import Horizon, horizon
from ledger.ids import new_id
from ledger.report import Report
from ledger.seals import SealingKey, seal
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.closing import checklist, close, pack
from products.closing.close import Close
from products.closing.findings import CheckList, Item, ItemName
from products.closing.pack import Pack
from products.closing.partners import Valued
from products.closing.period import Period, find
from products.remittances.partners import Partner
from tests.patience import eventually
from tests.settled import all_settled
from tests.world import Person, World

MARCH = date(2026, 3, 1)
APRIL = datetime(2026, 4, 3, 8, 0, tzinfo=UTC)
PROGRAMME = "ejoheza"


@dataclass(slots=True)
class Month:
    """February and March 2026: a sponsor's money, remittances, a settlement of part of them; now it is the third of April."""

    world: World
    partner: Partner = field(init=False)
    people: list[Person] = field(init=False)
    key: SealingKey = field(default_factory=SealingKey.generate)
    bank_account: UUID = field(init=False)

    def __post_init__(self) -> None:
        world = self.world
        self.go_to(datetime(2026, 2, 20, 10, 0, tzinfo=UTC))
        self.partner = world.partner()
        world.fund(1_500_000)
        self.people = [world.member(self.partner) for _ in range(3)]
        for when in ((2, 21), (3, 3), (3, 10), (3, 17)):
            self.go_to(datetime(2026, *when, 10, 0, tzinfo=UTC))
            world.send(self.partner, *[world.completed(one) for one in self.people])
            if when == (2, 21):
                self.go_to(datetime(2026, 3, 2, 10, 0, tzinfo=UTC))
                world.fund(500_000, reference="second")
        self.go_to(datetime(2026, 3, 20, 10, 0, tzinfo=UTC))
        world.settle(self.partner, 120_000, through=date(2026, 3, 12))
        self.go_to(APRIL)
        self.bank_account = self.open_bank_account()

    def go_to(self, at: datetime) -> None:
        """It is then."""
        self.world.clock.advance(at - self.world.clock.now())

    @property
    def period(self) -> Period:
        """March, as it stands."""
        with self.world.databases.worker.begin() as tx:
            return find(tx, PROGRAMME, MARCH)

    # -- what the bank says ------------------------------------------------------------------------------------------

    def open_bank_account(self) -> UUID:
        """Register the savers' account at the bank."""
        id_ = new_id()
        with self.world.databases.worker.begin() as tx:
            tx.execute(
                text(
                    "INSERT INTO ledger.bank_account (id, slug, name, fund_id, account_id, currency, identification,"
                    " statements_since, opened_at) SELECT :id, 'ejoheza-savers', 'Bank of Kigali', a.fund_id, a.id, 'RWF',"
                    " 'RW00BKIG0001', '2026-03-01', :now FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id"
                    " WHERE f.code = 'ejoheza/savers' AND a.code = 'bank'"
                ),
                {"id": id_, "now": self.world.clock.now()},
            )
        return id_

    def statement(
        self, lines: Sequence[tuple[date, int]], *, opening: int, closing: int, first: date, last: date
    ) -> list[UUID]:
        """A statement of the bank, with its lines."""
        file, id_ = new_id(), new_id()
        made = [new_id() for _ in lines]
        now = self.world.clock.now()
        with self.world.databases.owner.begin() as tx:
            tx.execute(
                text(
                    "INSERT INTO ledger.statement_file (id, digest, name, format, bytes, received_at, received_by,"
                    " wrapped_key) VALUES (:id, sha256(convert_to(CAST(:id AS text), 'UTF8')), 'x', 'camt.053', 1, :now,"
                    " 'test', 'k')"
                ),
                {"id": file, "now": now},
            )
            tx.execute(
                text(
                    "INSERT INTO ledger.bank_statement (id, file_id, position, bank_account_id, from_on, to_on, opening,"
                    " closing, lines, imported_at) VALUES (:id, :file, 1, :account, :first, :last, :opening, :closing,"
                    " :lines, :now)"
                ),
                {
                    "id": id_,
                    "file": file,
                    "account": self.bank_account,
                    "first": first,
                    "last": last,
                    "opening": opening,
                    "closing": closing,
                    "lines": len(lines),
                    "now": now,
                },
            )
            for number, (line, (on, amount)) in enumerate(zip(made, lines, strict=True), start=1):
                tx.execute(
                    text(
                        "INSERT INTO ledger.statement_line (id, statement_id, bank_account_id, entry, detail, booked_on,"
                        " value_on, amount, currency, reversal, fingerprint) VALUES (:id, :statement, :account, :entry, 0,"
                        " :on, :on, :amount, 'RWF', false, sha256(convert_to(CAST(:id AS text), 'UTF8')))"
                    ),
                    {
                        "id": line,
                        "statement": id_,
                        "account": self.bank_account,
                        "entry": number,
                        "on": on,
                        "amount": amount,
                    },
                )
        return made

    def items(self) -> list[tuple[UUID, int]]:
        """Collect what was booked on the bank's account: id and amount of each, in order."""
        with self.world.databases.owner.begin() as tx:
            tx.execute(
                text(
                    "INSERT INTO ledger.item (id, source, bank_account_id, amount, currency, on_date, kind,"
                    " transaction_id, seq) SELECT gen_random_uuid(), 'booked', b.id,"
                    " CASE WHEN p.debit_account = b.account_id THEN p.amount ELSE -p.amount END, p.currency, p.effective_on,"
                    " t.kind, t.id, p.seq FROM ledger.posting p JOIN ledger.transaction t ON t.id = p.transaction_id"
                    " JOIN ledger.bank_account b ON b.account_id IN (p.debit_account, p.credit_account)"
                    " WHERE p.effective_on >= b.statements_since ON CONFLICT DO NOTHING"
                )
            )
            rows = tx.execute(
                text(
                    "SELECT id, amount FROM ledger.item WHERE on_date >= '2026-03-01' ORDER BY on_date, transaction_id, seq"
                )
            )
            return [(row.id, row.amount) for row in rows]

    def pair(self, lines: Sequence[UUID], items: Sequence[UUID], amount: int) -> None:
        """Pair lines with items."""
        with self.world.databases.worker.begin() as tx:
            tx.execute(
                text(
                    "INSERT INTO ledger.pairing (id, bank_account_id, rule, evidence, amount, lines, items, made_by, made_at)"
                    " VALUES (:id, :account, 'by_hand', '{}', :amount, :lines, :items, 'test', :now)"
                ),
                {
                    "id": new_id(),
                    "account": self.bank_account,
                    "amount": amount,
                    "lines": list(lines),
                    "items": list(items),
                    "now": self.world.clock.now(),
                },
            )

    def bank_ties(self) -> None:
        """The bank's statement of March: what the books have, each line paired."""
        lines = self.statement(
            [(date(2026, 3, 2), 500_000), (date(2026, 3, 20), 120_000)],
            opening=1_500_000,
            closing=2_120_000,
            first=date(2026, 3, 1),
            last=date(2026, 3, 31),
        )
        for line, (item, amount) in zip(lines, self.items(), strict=True):
            self.pair([line], [item], amount)

    # -- the steps to green ------------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Fold everything."""
        while self.world.databases.worker.run(lambda tx: fold(tx, limit=1_000)):
            pass

    def seal(self) -> None:
        """Seal everything."""
        all_settled(self.world.databases.worker)
        while self.world.databases.sealer.run(lambda tx: seal(tx, self.key, self.world.clock)) is not None:
            pass

    def verify(self) -> Report:
        """Verify the books, and write the verdict down."""
        with self.world.databases.auditor.read() as tx:
            seen = horizon(tx)
            report = verify(tx, extra_checks=[check.run for check in PRODUCT_CHECKS])
        self._record(report, seen)
        return report

    def verdict(self, report: Report) -> None:
        """Write down what a verification of the books as they stand might say."""
        with self.world.databases.auditor.read() as tx:
            seen = horizon(tx)
        self._record(report, seen)

    def _record(self, report: Report, seen: Horizon) -> None:
        self.world.databases.worker.run(
            lambda tx: verification.record(tx, report, seen, actor="test", clock=self.world.clock)
        )

    def judge(self) -> CheckList:
        """The check-list now."""
        with self.world.databases.worker.begin() as tx:
            return checklist.judge(tx, find(tx, PROGRAMME, MARCH), self.world.clock, nothing_valued)

    def states(self) -> dict[str, str]:
        """The state of each item now."""
        return {item.name: item.state for item in self.judge().items}

    def explain(self, item: ItemName, remark: str = "seen", **more: str | None) -> Item:
        """A manager explains."""
        with self.world.databases.worker.begin() as tx:
            return checklist.explain(
                tx,
                find(tx, PROGRAMME, MARCH),
                item,
                remark,
                actor="opr_manager",
                clock=self.world.clock,
                valuing=nothing_valued,
                **more,
            )

    def make_green(self) -> None:
        """Everything that a manager does before the close."""
        self.bank_ties()
        self.seal()
        self.verify()
        for item in self.judge().red:
            self.explain(item.name, owner="opr_manager" if item.name == "quarantine" else None)
        left = self.judge()
        assert left.green, [(item.name, item.findings) for item in left.red]

    def close(self, *, on: date = MARCH, by: str = "opr_a, approved by opr_b") -> Close:
        """Close the month."""
        return self.world.databases.worker.run(lambda tx: self.close_in(tx, on=on, by=by))

    def close_in(self, tx: Tx, *, on: date = MARCH, by: str = "opr_a, approved by opr_b") -> Close:
        """Close the month in a transaction that somebody else ends."""
        return close.close(
            tx,
            PROGRAMME,
            on,
            actor=by,
            remark="March",
            clock=self.world.clock,
            valuing=nothing_valued,
            render=lambda made: render(made, public_url="https://mizan.example"),
            note=self.note,
        )

    def note(self, tx: Tx, programme: UUID, detail: Mapping[str, Any]) -> UUID:
        """Write the close into the audit log."""
        act = Act(
            "opr_a", "operator", "period.closed", PROGRAMME, "done", detail=detail, programme_id=programme
        )
        return record(tx, act, self.world.clock)

    def pack(self) -> Pack:
        """A preview of the pack."""
        with self.world.databases.worker.begin() as tx:
            period = find(tx, PROGRAMME, MARCH)
            judged = checklist.judge(tx, period, self.world.clock, nothing_valued)
            return pack.make(tx, period, judged, None)

    def later(self, days: int) -> None:
        """Days pass."""
        self.world.clock.advance(timedelta(days=days))

    def wait_for_lock(self, which: str) -> None:
        """Until somebody holds or waits for such a lock of the database server."""

        def there() -> bool:
            with self.world.databases.superuser.begin() as tx:
                return bool(tx.execute(text(f"SELECT count(*) FROM pg_locks WHERE {which}")).scalar_one())

        eventually(there)


def nothing_valued(_tx: Tx, _deliveries: Iterable[UUID]) -> Valued:
    """Nobody reads deliveries here."""
    return {}
