"""The month before this one is closed: its check-list, what a person explains of it, the close with its pack, and the bank reconciliation
statement of that pack, read over the API.

In a sandbox, as on the command line, what takes two persons is asked for and carried out at once.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from api import closing
from api.approvals import service
from api.approvals.periods import request_close
from api.bootstrap import Services
from api.demo.books import Comparison
from api.demo.client import Client
from api.demo.reconciling import OWNER, Reconciled
from api.demo.transfers import ACCOUNT, CHARGE, PROGRAMME
from ledger.database import Tx
from ledger.periods import open_day
from products.closing import close as closes
from products.closing.close import FORMATS, Close
from products.closing.findings import CheckList, ItemName
from products.closing.period import find, label

ACTOR: Final = "the demo"
REMARK: Final = "closed by the demo"
EXPLAINED: Final[Mapping[ItemName, str]] = {
    "breaks": "asked for in writing; see each break's remark",
    "suspense": "the partner was asked who these senders are",
    "quarantine": "the partner sends them again",
    "event_totals": "confirmed in the partner's letter",
}
MUST_BE_GREEN: Final[Sequence[ItemName]] = ("statements", "verified", "sub_ledgers")
"""Nobody can explain these away."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A month's check-list as it was found and as it was at the close, the close, and the bank's part of its pack.

    ``files``: the bytes of the pack in each form, as the API serves it; ``unlike``: forms whose digest is not the one in the sealed log.
    ``open_from``: the day on which what belongs to the month is booked from now on.
    """

    found: CheckList
    judged: CheckList
    close: Close
    statement: Mapping[str, Any]
    files: Mapping[str, int]
    unlike: Sequence[str]
    open_from: date

    @property
    def month(self) -> str:
        """``2026-03``."""
        return label(self.close.month)

    @property
    def rows(self) -> list[tuple[str, str | None, str | None, int]]:
        """The bank reconciliation statement: what, what it waits for, dated, minor units."""
        told = []
        for row in self.statement["rows"]:
            what, waits, dated, amount = row["cells"]
            told.append((str(what), waits, dated, int(amount["amount"])))
        return told

    def to_json(self) -> dict[str, Any]:
        """The figures, for programs: all but digests, as a pack says when it was made."""
        return {
            "closed": {
                "month": self.month,
                "revision": self.close.revision,
                "checklist_before": {item.name: item.state for item in self.found.items},
                "checklist": {item.name: item.state for item in self.judged.items},
                "bank_reconciliation": [list(row) for row in self.rows],
            },
        }


def close_month(services: Services, found: Reconciled) -> tuple[CheckList, CheckList, Close]:
    """Explain what may be explained, and close the month with its pack: the check-list before and after, and the close.

    Raises `NotGreen` while anything is red.
    """
    month = found.at_bank.month

    def explain(tx: Tx) -> tuple[CheckList, CheckList]:
        period = find(tx, PROGRAMME, month)
        before = closing.judge(tx, services, period)
        for item in before.red:
            if item.name in EXPLAINED:
                owner = OWNER if item.name == "quarantine" else None
                closing.explain(
                    tx, services, period, item.name, EXPLAINED[item.name], actor=ACTOR, owner=owner
                )
        return before, closing.judge(tx, services, period)

    before, judged = services.worker.run(explain)
    services.worker.run(
        lambda tx: service.carry_out(
            tx,
            services,
            request_close(tx, services, ACTOR, programme=PROGRAMME, month=month, remark=REMARK),
        )
    )
    with services.worker.begin() as tx:
        return before, judged, closes.one(tx, find(tx, PROGRAMME, month))


def read_pack(
    services: Services, manager: Client, found: Reconciled, made: tuple[CheckList, CheckList, Close]
) -> Closed:
    """The close and its pack as the API serves it, each form beside its digest in the log; once the seals cover that."""
    before, judged, close = made
    path = f"/v1/periods/{PROGRAMME}/{label(close.month)}/pack"
    contents = {form: manager.read(f"{path}?format={form}") for form in FORMATS}
    document = json.loads(contents["json"])
    [bank] = [one for one in document["sections"] if one["id"] == "bank"]
    [statement] = [one for one in bank["tables"] if one["id"] == f"bank.{ACCOUNT}"]
    with services.worker.begin() as tx:
        close = closes.one(tx, find(tx, PROGRAMME, found.at_bank.month))
        unlike = [
            form
            for form, content in contents.items()
            if close.files[form] != hashlib.sha256(content).digest()
        ]
        open_from = open_day(tx, find(tx, PROGRAMME, found.at_bank.month).fund_ids, close.through)
    sizes: dict[str, int] = {form: len(content) for form, content in contents.items()}
    return Closed(before, judged, close, statement, sizes, unlike, open_from)


def compare(comparison: Comparison, closed: Closed, found: Reconciled) -> None:
    """The check-list's hard items are green, the two balances tie by what lies between them, and the pack is what was sealed."""
    states = {item.name: item.state for item in closed.judged.items}
    for name in MUST_BE_GREEN:
        comparison.expect(f"{name} on the check-list", "green", states[name])
    comparison.expect("red on the check-list", [], [item.name for item in closed.judged.red])
    statement = found.at_bank.statements[0]
    odd = [
        -line.amount
        for line in statement.lines
        if isinstance(line.is_, str) and line.is_ in ("short", "unknown_party")
    ]
    between = sorted([*odd, found.at_bank.in_transit.amount])
    desert = sum(
        one.amount
        for one in found.at_bank.due
        if one.on <= found.at_bank.through and one != found.at_bank.short
    )
    said, *waiting, books, difference = [amount for *_, amount in closed.rows]
    comparison.expect("balance per bank at the month's end", statement.closing, said)
    comparison.expect("what lies between bank and books", between, sorted(waiting))
    comparison.expect("balance per books at the month's end", desert - CHARGE, books)
    comparison.expect("difference of the bank reconciliation statement", 0, difference)
    comparison.expect(
        "the closed month is open from", found.at_bank.through + timedelta(days=1), closed.open_from
    )
    comparison.expect("forms of the pack that are not those sealed", [], list(closed.unlike))
    comparison.expect("the pack is in a seal", True, closed.close.seal is not None)
