"""Bank statements over the API: brought in once and whole, read, exported, fetched; each programme's staff see their own."""

import csv
import hashlib
import io
from datetime import date

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from api.settings import Settings
from ledger.clock import FixedClock
from products.programmes.loader import catalogue
from products.programmes.registry import apply
from tests.conftest import Databases
from tests.http.operators import Person, person
from tests.http.served import Served, served

ACCOUNT = "/v1/bank-accounts/kigali-savers"
OCTETS = "application/octet-stream"


def mt940(
    *amounts: tuple[str, str],
    opening: str = "C260301RWF1000,",
    closing: str,
    account: str = "RW380001",
    number: str = "1",
) -> bytes:
    """A statement of 2 March: amounts as MT940 writes them, such as ``C500,``, each with its text."""
    lines = [f":20:S{number}", f":25:{account}", f":28C:{number}/1", f":60F:{opening}"]
    for amount, says in amounts:
        lines += [f":61:2603020302{amount}NTRFNONREF//B{len(lines)}", f":86:{says}"]
    return "\r\n".join([*lines, f":62F:{closing}", "-", ""]).encode()


GOOD = mt940(("C500,", "Alice Uwimana rent"), ("D20,", "fee of March"), closing="C260302RWF1480,", number="7")


@pytest.fixture
def manager(api: Served) -> Person:
    return with_account(api)


def with_account(api: Served) -> Person:
    """A fund manager, who has added the savers' bank account."""
    manager = person(api, "manager")
    new = {
        "slug": "kigali-savers",
        "name": "Savers, Bank of Kigali",
        "fund": "ejoheza/savers",
        "currency": "RWF",
        "identification": "RW38 0001",
        "statements_since": "2026-03-01",
    }
    added = manager.call("POST", "/v1/bank-accounts", new)
    assert added.status_code == 201, added.text
    assert added.json()["identification"] == "RW380001"
    return manager


def send(api: Served, who: Person, content: bytes, **query: str | list[str]) -> httpx.Response:
    return api.http.post(
        "/v1/bank-statements",
        params=query,
        content=content,
        headers={"Content-Type": OCTETS, "Authorization": f"Bearer {who.token}"},
    )


def test_a_file_is_brought_in_once_read_exported_and_fetched_as_it_came(api: Served, manager: Person) -> None:
    first = send(api, manager, GOOD, name="C:\\bank\\march.sta")
    assert first.status_code == 201, first.text
    said = first.json()
    assert (said["lines"], said["duplicate"], said["sha256"]) == (2, False, hashlib.sha256(GOOD).hexdigest())
    again = send(api, manager, GOOD)
    assert (again.status_code, again.json()["duplicate"], again.json()["file"]) == (200, True, said["file"])
    (listed,) = manager.get("/v1/bank-statements", params={"account": "kigali-savers"}).json()["data"]
    assert listed == manager.get(f"/v1/bank-statements/{said['statements'][0]['id']}").json()
    assert (listed["opening"], listed["closing"]) == (
        {"amount": 1_000, "currency": "RWF"},
        {"amount": 1_480, "currency": "RWF"},
    )
    assert (listed["file_name"], listed["format"], listed["from_on"]) == ("march.sta", "mt940", "2026-03-02")
    path = f"/v1/bank-statements/{listed['id']}"
    page = manager.get(f"{path}/lines?limit=1").json()
    assert page["data"][0]["text"] == "Alice Uwimana rent"
    (rest,) = manager.get(f"{path}/lines", params={"cursor": page["next_cursor"]}).json()["data"]
    assert (rest["amount"]["amount"], rest["booked_on"]) == (-20, "2026-03-02")
    rows = list(csv.DictReader(io.StringIO(manager.get(f"{path}/lines?format=csv").text)))
    assert [row["amount.amount"] for row in rows] == ["500", "-20"]
    fetched = manager.get(f"{path}/file")
    assert (fetched.content, fetched.headers["content-type"]) == (GOOD, OCTETS)
    actions = [
        row[0]
        for row in api.rows("SELECT action FROM ledger.audit_entry WHERE actor_kind = 'operator' ORDER BY id")
    ]
    assert actions[-4:] == [
        "bank_account.added",
        "bank_statement.imported",
        "bank_statement.imported",
        "bank_statement_file.fetched",
    ]


def test_a_refused_file_leaves_the_refusal_and_nothing_else(api: Served, manager: Person) -> None:
    for content, code, says in (
        (
            mt940(("C500,", "x"), closing="C260302RWF1600,"),
            "statement_does_not_add_up",
            "the difference is 100 RWF",
        ),
        (
            mt940(("C500,", "x"), closing="C260302RWF1500,", account="DE77"),
            "unknown_bank_account",
            "DE77",
        ),
        (GOOD[:120], "invalid_bank_statement", ""),
        (b"%PDF-1.7 statement", "unknown_statement_format", "PDF"),
        (b"", "invalid_request", ""),
    ):
        refused = send(api, manager, content)
        assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
        assert says in refused.json()["detail"]
        assert api.rows("SELECT count(*) FROM ledger.statement_file")[0][0] == 0
        assert api.rows("SELECT count(*) FROM ledger.statement_line")[0][0] == 0
        object_, detail = api.rows(
            "SELECT object, detail FROM ledger.audit_entry WHERE action = 'import_bank_statement' AND outcome = 'refused'"
            " ORDER BY id DESC LIMIT 1"
        )[0]
        assert detail == {"code": code}
        named = f"sha256:{hashlib.sha256(content).hexdigest()}" if content else "/v1/bank-statements"
        assert object_ == named


def test_statements_of_other_accounts_can_be_left_out_and_come_in_later(api: Served, manager: Person) -> None:
    other = mt940(("C7,", "x"), opening="C260301RWF0,", closing="C260302RWF7,", account="RW380009")
    both = GOOD + other
    assert send(api, manager, both).json()["code"] == "unknown_bank_account"
    part = send(api, manager, both, only=["kigali-savers"]).json()
    assert (part["lines"], part["skipped"], part["skipped_accounts"]) == (2, 1, ["RW380009"])
    assert manager.call(
        "PATCH", "/v1/bank-accounts/kigali-savers", {"also_known_as": ["RW380009"], "name": "Both"}
    ).json()["also_known_as"] == ["RW380009"]
    rest = send(api, manager, both)
    assert (rest.status_code, rest.json()["lines"], rest.json()["skipped"]) == (201, 1, 0)


def test_csv_is_read_by_the_mapping_of_its_bank_account(api: Served, manager: Person) -> None:
    mapping = {
        "delimiter": ";",
        "decimal": ",",
        "currency": {"constant": "RWF"},
        "booked_on": {"column": "Date", "format": "%d/%m/%Y"},
        "amount": {"credit": "In", "debit": "Out"},
        "balance": {"column": "Balance"},
        "reference": {"column": "Reference"},
        "text": [{"column": "Details"}],
    }
    content = (
        b"Date;Details;Reference;In;Out;Balance\n"
        b"02/03/2026;Alice Uwimana rent;B1;500,00;;1500,00\n"
        b"02/03/2026;fee of March;;;20,00;1480,00\n"
    )
    assert send(api, manager, content, account="kigali-savers").json()["code"] == "invalid_request"
    assert manager.call("PATCH", ACCOUNT, {"statement_mapping": {"delimiter": 7}}).status_code == 422
    kept = manager.call("PATCH", ACCOUNT, {"statement_mapping": mapping})
    assert kept.json()["statement_mapping"] == mapping, kept.text
    said = send(api, manager, content, account="kigali-savers")
    assert (said.status_code, said.json()["lines"]) == (201, 2), said.text
    (listed,) = manager.get("/v1/bank-statements").json()["data"]
    assert (listed["format"], listed["opening"]["amount"], listed["closing"]["amount"]) == (
        "csv",
        1_000,
        1_480,
    )
    elsewhere = mt940(("C1,", "x"), closing="C260302RWF1001,", account="DE77")
    assert send(api, manager, elsewhere, account="kigali-savers").json()["code"] == "unknown_bank_account"


def test_gaps_and_known_counterparties_are_listed(api: Served, manager: Person) -> None:
    send(api, manager, GOOD)
    ((kind, harmless),) = [
        (one["kind"], one["harmless"])
        for one in manager.get("/v1/bank-accounts/kigali-savers/gaps?through=2026-03-09").json()["data"]
        if one["from_on"] > "2026-03-01"
    ]
    assert (kind, harmless) == ("missing_days", False)
    exported = manager.get("/v1/bank-accounts/kigali-savers/gaps?format=csv").text
    assert exported.startswith("kind,harmless,from_on")
    path = "/v1/bank-accounts/kigali-savers/counterparties"
    added = manager.call("POST", path, {"identification": "AE07 0331", "party": "acme"}).json()
    assert (added["ending"], added["source"]) == ("0331", "entered")
    assert manager.get(path).json()["data"] == [added]
    assert manager.call("DELETE", f"{path}/{added['id']}").status_code == 204
    assert manager.get(path).json()["data"] == []


def test_what_came_in_by_mistake_is_withdrawn_counts_nowhere_and_may_come_again(
    api: Served, manager: Person
) -> None:
    mistaken = send(api, manager, GOOD).json()["statements"][0]["id"]
    again = mt940(
        ("C500,", "Alice Uwimana rent"), ("D20,", "fee of March"), closing="C260302RWF1480,", number="8"
    )
    (overlapping,) = send(api, manager, again).json()["statements"]
    assert overlapping["duplicates"] == 2
    path = f"/v1/bank-statements/{mistaken}"
    for body, status in (({"remark": " "}, 422), ({}, 422), ({"remark": "it is Bolt's"}, 200)):
        withdrawn = manager.call("POST", f"{path}/withdrawal", body)
        assert withdrawn.status_code == status, withdrawn.text
    said = withdrawn.json()["withdrawn"]
    assert (said["by"], said["remark"]) == (manager.id, "it is Bolt's")
    assert manager.get(path).json() == withdrawn.json()
    assert manager.get(f"{path}/file").content == GOOD
    assert [one["duplicate_of"] for one in manager.get(f"{path}/lines").json()["data"]] == [None, None]
    twice = manager.call("POST", f"{path}/withdrawal", {"remark": "again"})
    assert (twice.status_code, twice.json()["code"]) == (409, "statement_not_withdrawn")
    # the lines that overlapped count in its stead; the file comes in anew, and they are the same again
    assert api.rows(
        "SELECT amount FROM ledger.statement_line WHERE duplicate_of IS NULL ORDER BY amount"
    ) == [
        (-20,),
        (500,),
    ]
    anew = send(api, manager, GOOD)
    assert (anew.status_code, anew.json()["statements"][0]["duplicates"]) == (201, 2)
    assert send(api, manager, GOOD).status_code == 200
    listed = manager.get("/v1/bank-statements").json()["data"]
    assert [one["withdrawn"] is None for one in listed] == [True, True, False]
    gaps = manager.get("/v1/bank-accounts/kigali-savers/gaps").json()["data"]
    assert [one["kind"] for one in gaps if one["statement"] == mistaken or one["before"] == mistaken] == []
    with pytest.raises(DBAPIError), api.services.worker.begin() as tx:
        tx.exec_driver_sql(
            "UPDATE ledger.bank_statement SET withdrawn_at = NULL, withdrawn_by = NULL, withdrawn_because = NULL"
        )
    with pytest.raises(DBAPIError), api.services.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE ledger.statement_line SET duplicate_of = NULL")


def test_a_bank_account_is_of_a_fund_that_its_staff_see_and_of_nobody_elses(
    api: Served, manager: Person
) -> None:
    send(api, manager, GOOD)
    with api.services.worker.begin() as tx:
        other = apply(tx, catalogue()["three-for-one"], clock=api.services.clock).programme_id
    elsewhere = person(api, "manager", programmes=[other])
    (statement,) = manager.get("/v1/bank-statements").json()["data"]
    assert elsewhere.get("/v1/bank-statements").json()["data"] == []
    assert elsewhere.get("/v1/bank-accounts").json()["data"] == []
    for path in ("", "/lines", "/file"):
        assert elsewhere.get(f"/v1/bank-statements/{statement['id']}{path}").status_code == 404
    withdrawal = f"/v1/bank-statements/{statement['id']}/withdrawal"
    assert elsewhere.call("POST", withdrawal, {"remark": "not mine"}).status_code == 404
    for path in ("", "/gaps", "/counterparties"):
        assert elsewhere.get(f"/v1/bank-accounts/kigali-savers{path}").status_code == 404
    assert elsewhere.call("PATCH", "/v1/bank-accounts/kigali-savers", {"name": "mine"}).status_code == 404
    refused = send(api, elsewhere, mt940(("C500,", "y"), closing="C260302RWF1500,"))
    assert refused.json()["code"] == "unknown_bank_account"
    taken = {
        "slug": "again",
        "name": "Again",
        "fund": "ejoheza/savers",
        "currency": "RWF",
        "identification": "RW38 0002",
        "statements_since": str(date(2026, 3, 1)),
    }
    assert manager.call("POST", "/v1/bank-accounts", taken).json()["code"] == "account_conflict"
    assert elsewhere.call("POST", "/v1/bank-accounts", taken).status_code == 404


def test_a_large_file_goes_to_disk_and_what_is_too_large_or_unproven_goes_nowhere(
    settings: Settings, databases: Databases, clock: FixedClock
) -> None:
    with served(settings, databases.worker, clock, statement_bytes_max=3_000_000) as api:
        manager = with_account(api)
        lines = 30_000
        large = mt940(
            *(("C1,", f"line {number}") for number in range(lines)), closing=f"C260302RWF{1_000 + lines},"
        )
        assert settings.request_body_bytes_max < len(large) < 3_000_000
        assert send(api, manager, large).json()["lines"] == lines
        assert send(api, manager, bytes(3_000_001)).status_code == 413
        # nobody's, and who may not send statements, has the room of any other body
        reader = person(api, "auditor")
        for token in ("", "nobody", reader.token):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            refused = api.http.post(
                "/v1/bank-statements", content=bytes(settings.request_body_bytes_max + 1), headers=headers
            )
            assert refused.status_code == 413
