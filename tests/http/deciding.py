"""What tests of two-person approval ask for, and whom they have decide."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from ledger.ids import public_id
from ledger.seals import SealingKey, seal
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.remittances.partners import find
from products.settlements.pair import record_settlement
from tests.conftest import Databases
from tests.http.operators import Person, person
from tests.http.served import Caller, Served
from tests.http.test_remittances import a_member, a_remittance, send
from tests.settled import all_settled

numbers = count(100)
TAKEN_BACK = {"reversed_at": "2026-03-02T09:25:00Z", "reason": "the sender cancelled"}


@pytest.fixture
def filer(api: Served) -> Person:
    return person(api, "manager")


@pytest.fixture
def approver(api: Served) -> Person:
    return person(api, "manager")


@pytest.fixture(autouse=True)
def books_hold(api: Served, databases: Databases) -> Iterator[None]:
    """Whatever a test decided, the books and the records agree after it, sealed, log and all."""
    yield
    all_settled(databases.worker)
    key = SealingKey.generate()
    while True:
        with databases.sealer.begin() as tx:
            if seal(tx, key, api.clock) is None:
                break
    with databases.auditor.read() as tx:
        report = verify(tx, extra_checks=[one.run for one in PRODUCT_CHECKS])
    assert report.ok, list(report.findings())
    assert report.unsealed_audit_entries == 0


def accounts(api: Served) -> dict[str, str]:
    """The savers' fund's own accounts by code."""
    rows = api.rows(
        "select a.code, a.id from ledger.account a join ledger.fund f on f.id = a.fund_id"
        " where f.code = 'ejoheza/savers' and a.owner = ''"
    )
    return {code: public_id("acc", id_) for code, id_ in rows}


def a_transaction(api: Served, amount: int = 1_000, **changes: Any) -> dict[str, Any]:
    """Money that arrived in the bank and nobody knows from whom."""
    of = accounts(api)
    return {
        "postings": [
            {
                "debit": of["bank"],
                "credit": of["unidentified_receipts"],
                "amount": {"amount": amount, "currency": "RWF"},
            }
        ],
        "reason": "an unexplained receipt",
    } | changes


def requested(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    assert shown["state"] == "requested"
    return shown


def asked_for(filer: Person, **changes: Any) -> str:
    """A manual transaction that waits for approval."""
    body = a_transaction(filer.api, next(numbers), **changes)
    approval: str = requested(filer.post("/v1/ledger/transactions", body, key=f"file-{next(numbers)}"))["id"]
    return approval


def code_of(answer: httpx.Response, status: int = 409) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["code"])


def manual_transactions(api: Served) -> int:
    return int(api.rows("select count(*) from ledger.transaction where kind = 'manual'")[0][0])


def logged(auditor: Person | Caller, **filters: str) -> list[dict[str, Any]]:
    answer = auditor.get("/v1/audit", params=filters)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def settled_remittance(api: Served, number: int = 1) -> tuple[str, str]:
    """A remittance that its partner has paid in: its id and its member's."""
    member = a_member(api.acme, number)
    remittance = send(api.acme, a_remittance(member, remittance_id=f"R-{number}"), f"send-{number}").json()[
        "id"
    ]
    with api.services.worker.begin() as tx:
        done = record_settlement(
            tx,
            api.services.books,
            find(tx, "acme"),
            currency="RWF",
            amount=15_000,
            through=api.clock.now().date(),
            reference=f"paid-{number}",
        )
    assert done.contributions
    return remittance, member
