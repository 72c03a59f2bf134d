"""Partners' settlement files over the API: compared, listed, exported, explained; the partner sees its own."""

import csv
import io
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from ledger.ids import new_id
from tests.http.operators import Person, person
from tests.http.served import Served

MAPPING = {
    "remittance_id": {"column": "Reference"},
    "amount": {"column": "Amount"},
    "currency": {"constant": "RWF"},
    "at": {"column": "Paid"},
}
FILE = (
    "Reference,Amount,Paid,Customer\n"
    "A-1,15000,2026-03-02T08:00:00Z,Uwimana\n"
    "A-2,15001,2026-03-02T08:00:00Z,Uwimana\n"
    "A-2,15001,2026-03-02T08:00:00Z,Uwimana\n"
    "=cmd|1,1,2026-03-02T08:00:00Z,Uwimana\n"
)
"""Of three that were collected one is as it is here, one has another amount and is listed twice, and one is missing."""


@pytest.fixture
def manager(api: Served) -> Person:
    with api.services.worker.begin() as tx:
        programme = tx.exec_driver_sql("SELECT id FROM products.programme").scalar_one()
        for number in (1, 2, 3):
            made = {
                "id": new_id(),
                "partner": api.acme.partner,
                "name": f"A-{number}",
                "programme": programme,
            }
            tx.execute(text("INSERT INTO products.remittance_claim VALUES (:partner, :name, :id)"), made)
            tx.execute(
                text(
                    "INSERT INTO products.remittance (id, partner_id, remittance_id, status, programme_id, collected_amount,"
                    " collected_currency, contributed_at, recorded_at) VALUES (:id, :partner, :name, 'posted', :programme,"
                    " 15000, 'RWF', '2026-03-02 08:00Z', '2026-03-02 08:00Z')"
                ),
                made,
            )
    return person(api, "manager")


def upload(api: Served, who: Person, content: str | bytes, **query: str) -> httpx.Response:
    return api.http.post(
        "/v1/settlement-files",
        params={"partner": "acme"} | query,
        content=content,
        headers={"Content-Type": "text/csv", "Authorization": f"Bearer {who.token}"},
    )


def test_a_file_is_compared_listed_exported_and_explained(api: Served, manager: Person) -> None:
    assert upload(api, manager, FILE).json()["code"] == "no_settlement_mapping"
    assert manager.call("PUT", "/v1/settlement-mappings/acme", {"mapping": MAPPING}).status_code == 200
    assert manager.get("/v1/settlement-mappings/acme").json() == {"mapping": MAPPING}

    compared = upload(api, manager, FILE)
    assert compared.status_code == 201, compared.text
    file = compared.json()
    counts = {"missing_here": 1, "missing_there": 1, "amount": 1, "currency": 0, "duplicate": 1}
    assert (file["differences"], file["open"], file["lines"], file["duplicate"]) == (counts, 4, 4, False)
    assert (file["first_on"], file["last_on"]) == ("2026-03-02", "2026-03-02")
    again = upload(api, manager, FILE).json()
    assert again == file | {"duplicate": True}

    path = f"/v1/settlement-files/{file['id']}/differences"
    first = manager.get(f"{path}?limit=3").json()
    assert [(one["type"], one["remittance_id"], one["row"]) for one in first["data"]] == [
        ("amount", "A-2", 3),
        ("duplicate", "A-2", 4),
        ("missing_here", "=cmd|1", 5),
    ]
    there, here = first["data"][0]["there"], first["data"][0]["here"]
    assert (there, here) == ({"amount": 15_001, "currency": "RWF"}, {"amount": 15_000, "currency": "RWF"})
    (last,) = manager.get(f"{path}?limit=3&cursor={first['next_cursor']}").json()["data"]
    assert (last["type"], last["remittance_id"], last["here_state"], last["row"]) == (
        "missing_there",
        "A-3",
        "posted",
        None,
    )
    exported = manager.get(f"{path}?format=csv&type=missing_here&type=missing_there")
    rows = list(csv.DictReader(io.StringIO(exported.text, newline="")))
    assert [(row["remittance_id"], row["here.amount"]) for row in rows] == [("'=cmd|1", ""), ("A-3", "15000")]

    explained = manager.call("PUT", f"{path}/4/explanation", {"remark": "the partner sends it tomorrow"})
    assert (explained.json()["state"], explained.json()["explained_by"]) == ("explained", manager.id)
    assert manager.get(f"/v1/settlement-files/{file['id']}").json()["open"] == 3
    assert [one["number"] for one in manager.get(f"{path}?state=open").json()["data"]] == [1, 2, 3]
    assert manager.call("PUT", f"{path}/5/explanation", {"remark": "x"}).status_code == 404
    assert [
        row[0]
        for row in api.rows(
            "SELECT action FROM ledger.audit_entry WHERE action LIKE 'settlement%%' ORDER BY recorded_at, id"
        )
    ] == [
        "settlement_mapping.put",
        "settlement_file.compared",
        "settlement_file.compared",
        "settlement_difference.explained",
    ]
    assert "Uwimana" not in str(api.rows("SELECT l::text FROM products.settlement_file_line l"))


def test_a_partner_sees_its_own_files_and_changes_nothing(api: Served, manager: Person) -> None:
    manager.call("PUT", "/v1/settlement-mappings/acme", {"mapping": MAPPING})
    file = upload(api, manager, FILE).json()["id"]
    assert [one["id"] for one in api.acme.get("/v1/settlement-files").json()["data"]] == [file]
    assert len(api.acme.get(f"/v1/settlement-files/{file}/differences").json()["data"]) == 4
    assert api.acme.get("/v1/settlement-mappings/acme").status_code == 200
    assert api.bolt.get("/v1/settlement-files").json()["data"] == []
    for path in (
        f"/v1/settlement-files/{file}",
        f"/v1/settlement-files/{file}/differences",
        "/v1/settlement-mappings/acme",
    ):
        assert api.bolt.get(path).status_code == 404, path
    refused = api.acme.call("PUT", f"/v1/settlement-files/{file}/differences/1/explanation", {"remark": "x"})
    assert refused.status_code == 403
    # a file that can't be read leaves nothing behind
    broken = upload(api, manager, FILE.replace("15000", "a lot"))
    assert (broken.status_code, broken.json()["code"]) == (422, "invalid_settlement_file")
    assert "Row 2, column “Amount”" in broken.json()["detail"]
    assert upload(api, manager, FILE, partner="nobody").status_code == 404
    assert (
        upload(api, manager, FILE, first_on="2026-03-03", last_on="2026-03-01").json()["code"]
        == "invalid_settlement_days"
    )
    mapping: dict[str, Any] = MAPPING | {"amount": {"column": 0}}
    wrong = manager.call("PUT", "/v1/settlement-mappings/acme", {"mapping": mapping}).json()
    assert (wrong["code"], wrong["errors"][0]["pointer"]) == ("invalid_settlement_mapping", "/amount/column")
    assert len(manager.get("/v1/settlement-files").json()["data"]) == 1
