"""Lists as files for spreadsheets: the rows of the JSON (`tests/unit/test_csv_export.py`: nothing in them runs)."""

import csv
import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from api import csv_export
from api.settings import Settings
from ledger.clock import FixedClock
from tests.conftest import Databases
from tests.http.hooked import Signer, completed
from tests.http.served import Served, a_person, served

CSV = {"Accept": "text/csv"}


@pytest.fixture
def books(settings: Settings, databases: Databases, clock: FixedClock) -> Iterator[tuple[Served, str]]:
    """An API with three remittances of one member, and three deliveries."""
    with served(settings, databases.worker, clock, public_url="https://mizan.example") as api:
        member = api.acme.post("/v1/members", a_person()).json()["id"]
        enrolment = {"product": "savings", "choice": {"percent": "5"}}
        assert api.acme.post(f"/v1/members/{member}/enrolments", enrolment).status_code == 201
        assert api.acme.partner is not None
        signer = Signer(api.acme.partner, "acme", api.webhook_secret, clock, api.http)
        for number in range(3):
            remittance = completed(
                remittance_id=f"R-{number}",
                member={"id": member},
                received={"amount": 300_000, "currency": "RWF"},
                collected={"amount": 15_000, "currency": "RWF"},
                destination_country="RW",
            )["data"]
            sent = api.acme.post("/v1/remittances", remittance, headers={"Idempotency-Key": f"k{number}"})
            assert sent.status_code == 201, sent.text
            assert signer.send({"type": "partner.news", "timestamp": "2026-03-02T09:30:00Z", "data": {}})
        yield api, member


def rows_of(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_a_file_has_the_rows_of_the_list(books: tuple[Served, str]) -> None:
    api, member = books

    def both(caller: Any, path: str) -> tuple[list[Any], list[dict[str, str]]]:
        return caller.get(path).json()["data"], rows_of(caller.get(path, headers=CSV))

    lines, rows = both(api.acme, f"/v1/members/{member}/statement")
    assert [(row["transaction"], row["amount.amount"], row["balance.currency"]) for row in rows] == [
        (line["transaction"], str(line["amount"]["amount"]), "RWF") for line in lines
    ]
    assert len(rows) == 3
    transactions, rows = both(api.auditor, "/v1/ledger/transactions")
    assert [(row["id"], row["postings.amount.amount"]) for row in rows] == [
        (one["id"], str(posting["amount"]["amount"])) for one in transactions for posting in one["postings"]
    ]
    funds, rows = both(api.auditor, "/v1/ledger/trial-balance")
    assert [(row["fund"], row["accounts.code"], row["accounts.debit"]) for row in rows] == [
        (fund["fund"], account["code"], str(account["debit"]))
        for fund in funds
        for account in fund["accounts"]
    ]
    by_parameter = api.auditor.get("/v1/ledger/trial-balance?format=csv")
    assert rows_of(by_parameter) == rows
    assert api.auditor.get("/v1/ledger/trial-balance?format=json", headers=CSV).json()["data"] == funds
    assert api.auditor.get("/v1/ledger/trial-balance?format=xls").status_code == 422


def test_a_file_has_nothing_of_anybody_elses(books: tuple[Served, str]) -> None:
    api, member = books
    assert len(rows_of(api.acme.get("/v1/deliveries", headers=CSV))) == 3
    assert rows_of(api.bolt.get("/v1/deliveries", headers=CSV)) == []
    assert api.bolt.get(f"/v1/members/{member}/statement", headers=CSV).status_code == 404
    assert api.acme.get("/v1/ledger/trial-balance", headers=CSV).status_code == 403


def test_an_export_goes_on_where_it_ended(books: tuple[Served, str], monkeypatch: pytest.MonkeyPatch) -> None:
    api, _ = books
    monkeypatch.setattr(csv_export, "ROWS_MAX", 2)
    monkeypatch.setattr("api.v1.deliveries.LIMIT_MAX", 1)
    first = api.acme.get("/v1/deliveries?format=csv")
    link = first.headers["Link"]
    assert link.startswith("<https://mizan.example/v1/deliveries?format=csv&cursor=")
    assert link.endswith('>; rel="next"')
    there = urlsplit(link[1 : link.index(">")])
    rest = api.acme.get(f"{there.path}?{there.query}")
    assert "Link" not in rest.headers
    ids = [row["id"] for row in rows_of(first) + rows_of(rest)]
    assert ids == [row["id"] for row in api.acme.get("/v1/deliveries").json()["data"]]
    assert (len(rows_of(first)), len(rows_of(rest))) == (2, 1)
