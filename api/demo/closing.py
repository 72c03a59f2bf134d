"""The month before this one is closed over the API by two managers: its check-list, what one of them explains and asks for, what the other
approves, and the pack with the bank reconciliation statement.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from api.bootstrap import Services
from api.demo.books import Comparison
from api.demo.persons import Manager
from api.demo.reconciling import OWNER, Reconciled
from api.demo.transfers import ACCOUNT, CHARGE, PROGRAMME
from ledger.periods import open_day
from products.closing.close import FORMATS
from products.closing.period import find, label

REMARK: Final = "as agreed with the auditor"
EXPLAINED: Final[Mapping[str, str]] = {
    "breaks": "asked for in writing; see each break's remark",
    "suspense": "the partner was asked who these senders are",
    "quarantine": "the partner sends them again",
    "event_totals": "confirmed in the partner's letter",
}
MUST_BE_GREEN: Final[Sequence[str]] = ("statements", "verified", "sub_ledgers")
"""Nobody can explain these away."""


Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """The check-list before and after what was explained, and what became of the close that was asked for.

    ``refused``: why whoever asked can't approve it too.
    """

    before: Json
    judged: Json
    refused: str
    asked_by: str
    approved_by: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A month's close, and the bank's part of its pack.

    ``files``: the bytes of the pack in each form, as the API serves it; ``unlike``: forms whose digest is not the one in the sealed log.
    ``open_from``: the day on which what belongs to the month is booked from now on.
    """

    made: Made
    month: str
    close: Json
    statement: Json
    files: Mapping[str, int]
    unlike: Sequence[str]
    open_from: date

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
                "revision": self.close["revision"],
                "asked_by": self.made.asked_by,
                "approved_by": self.made.approved_by,
                "checklist_before": {item["item"]: item["state"] for item in self.made.before["items"]},
                "checklist": {item["item"]: item["state"] for item in self.made.judged["items"]},
                "bank_reconciliation": [list(row) for row in self.rows],
            },
        }


def close_month(managers: tuple[Manager, Manager], found: Reconciled) -> Made:
    """One manager explains what may be explained and asks for the close; she can't approve it, the other does."""
    asks, approves = managers
    of = _path(found)
    before = asks.api.get(f"{of}/checklist")
    for item in before["items"]:
        if item["state"] == "red" and item["item"] in EXPLAINED:
            owner = {"owner": OWNER} if item["item"] == "quarantine" else {}
            asks.api.put(f"{of}/explanations/{item['item']}", {"remark": EXPLAINED[item["item"]], **owner})
    judged = asks.api.get(f"{of}/checklist")
    request = asks.api.post(f"{of}/close", {"remark": REMARK})
    approval = f"/v1/approvals/{request['id']}/approval"
    refused = asks.refused(approval, {"remark": REMARK})
    approves.api.post(approval, {"remark": "the check-list and the preview seen"})
    return Made(before, judged, refused, asks.name, approves.name)


def read_pack(services: Services, manager: Manager, found: Reconciled, made: Made) -> Closed:
    """The close and its pack as the API serves it, each form beside its digest in the log; once the seals cover that."""
    of = _path(found)
    contents = {form: manager.api.read(f"{of}/pack?format={form}") for form in FORMATS}
    document = json.loads(contents["json"])
    [bank] = [one for one in document["sections"] if one["id"] == "bank"]
    [statement] = [one for one in bank["tables"] if one["id"] == f"bank.{ACCOUNT}"]
    close = manager.api.get(of)["close"]
    unlike = [
        form
        for form, content in contents.items()
        if close["files"][form] != hashlib.sha256(content).hexdigest()
    ]
    with services.worker.begin() as tx:
        period = find(tx, PROGRAMME, found.at_bank.month)
        open_from = open_day(tx, period.fund_ids, period.through)
    sizes: dict[str, int] = {form: len(content) for form, content in contents.items()}
    return Closed(made, label(found.at_bank.month), close, statement, sizes, unlike, open_from)


def _path(found: Reconciled) -> str:
    return f"/v1/periods/{PROGRAMME}/{label(found.at_bank.month)}"


def compare(comparison: Comparison, closed: Closed, found: Reconciled) -> None:
    """The check-list's hard items are green, the two balances tie by what lies between them, and the pack is what was sealed."""
    states = {item["item"]: item["state"] for item in closed.made.judged["items"]}
    for name in MUST_BE_GREEN:
        comparison.expect(f"{name} on the check-list", "green", states[name])
    comparison.expect("red on the check-list", [], [name for name, state in states.items() if state == "red"])
    comparison.expect(
        "whoever asked for the close approves it", "second_person_required", closed.made.refused
    )
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
    comparison.expect("the pack is in a seal", True, closed.close["seal"] is not None)
