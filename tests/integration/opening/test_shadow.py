"""A past year in shadow: what was planted in the old system's figures is listed, all and only that; the live books stay as they are."""

import csv
import hashlib
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from api.cli.app import app
from api.settings import Settings
from products.programmes.loader import catalogue
from tests.conftest import Databases, environment_of
from tests.integration.opening.conftest import HEADER, xlsx

IBAN = "RW1200400000012345678901"
STATEMENT = """\
<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>
<GrpHdr><MsgId>M1</MsgId><CreDtTm>2025-02-28T18:00:00Z</CreDtTm></GrpHdr>
<Stmt><Id>S1</Id><ElctrncSeqNb>1</ElctrncSeqNb><CreDtTm>2025-02-28T18:00:00Z</CreDtTm>
<FrToDt><FrDtTm>2025-01-01T00:00:00Z</FrDtTm><ToDtTm>2025-02-28T00:00:00Z</ToDtTm></FrToDt>
<Acct><Id><IBAN>{iban}</IBAN></Id><Ccy>RWF</Ccy></Acct>
<Bal><Tp><CdOrPrtry><Cd>OPBD</Cd></CdOrPrtry></Tp><Amt Ccy="RWF">{opening}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>2025-01-01</Dt></Dt></Bal>
<Bal><Tp><CdOrPrtry><Cd>CLBD</Cd></CdOrPrtry></Tp><Amt Ccy="RWF">{closing}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>2025-02-28</Dt></Dt></Bal>
<Ntry><Amt Ccy="RWF">700</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2025-02-03</Dt></BookgDt>
<ValDt><Dt>2025-02-03</Dt></ValDt><NtryDtls><TxDtls><RmtInf><Ustrd>GIFT</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>
</Stmt></BkToCstmrStmt></Document>
"""


def event(partner: str, number: int, member: str, collected: int, at: datetime, **changes: Any) -> str:
    """A partner's webhook as it was sent, with who sent it."""
    data = {
        "remittance_id": f"R-{number}",
        "member": {"partner_reference": member},
        "sent": {"amount": 50_000, "currency": "AED"},
        "received": {"amount": collected * 20, "currency": "RWF"},
        "collected": {"amount": collected, "currency": "RWF"},
        "origin_country": "AE",
        "destination_country": "RW",
        "completed_at": at.isoformat(),
        "quote_id": None,
        **changes,
    }
    sent = at + timedelta(seconds=30)
    return json.dumps(
        {"partner": partner, "type": "remittance.completed", "timestamp": sent.isoformat(), "data": data}
    )


def rows(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return path


def digest_of_live(databases: Databases) -> str:
    """Every row of every table of the live database."""
    with databases.superuser.begin() as tx:
        tables = tx.execute(
            text(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
                " WHERE schemaname IN ('api', 'integrations', 'ledger', 'products') ORDER BY 1"
            )
        )
        whole = hashlib.sha256()
        for table in tables.scalars().all():
            for row in tx.execute(text(f"SELECT t::text FROM {table} t ORDER BY 1")).scalars():
                whole.update(f"{table}|{row}\n".encode())
        return whole.hexdigest()


def test_a_year_is_replayed_and_all_and_only_what_was_planted_differs(
    settings: Settings, databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)  # a live deployment is configured, and must not be found
    before = digest_of_live(databases)
    monkeypatch.chdir(tmp_path)
    programme = tmp_path / "ejoheza.yaml"
    programme.write_text(catalogue()["ejoheza"], encoding="utf-8")
    members = rows(
        tmp_path / "members.csv",
        "partner,member,product,joined_on,birth_date,fact_income_category",
        *(f"acme,M-{number},savings,2024-06-01,1990-05-01,{1 + number % 2}" for number in range(6)),
        "acme,M-6,savings,2025-03-05,1990-05-01,1",
        "beta,B-1,savings,2025-02-01,1985-05-01,3",
    )
    start = datetime(2025, 1, 10, 9, 0, tzinfo=UTC)
    lines = [
        event(
            "acme",
            10 * member + month,
            f"M-{member}",
            6_000,
            start + timedelta(days=31 * month, hours=member),
        )
        for member in range(5)
        for month in range(3)
    ]
    lines += [
        event("beta", 900, "B-1", 20_000, datetime(2025, 2, 10, tzinfo=UTC)),
        event("acme", 901, "M-5", 5_000, datetime(2025, 2, 11, tzinfo=UTC), destination_country="KE"),
        event("acme", 902, "M-6", 6_000, datetime(2025, 2, 12, tzinfo=UTC)),  # who is nobody until March
        json.dumps({"type": "sponsor.paid", "timestamp": "2025-01-05T08:00:00Z", "sponsor": "gov-rw", "amount": 1_000_000, "reference": "S1"}),
        json.dumps({"partner": "acme", "type": "remittance.reversed", "timestamp": "2025-02-20T08:00:00Z",
                    "data": {"remittance_id": "R-40", "reversed_at": "2025-02-20T08:00:00Z", "reason": "sender"}}),
    ]  # fmt: skip
    events = rows(tmp_path / "events.jsonl", lines[0], *reversed(lines[1:]))
    opening = tmp_path / "opening.xlsx"
    opening.write_bytes(
        xlsx(
            [HEADER, ("bank", None, None, 40_000), ("partner_prefund", "beta", None, 30_000)],
            [HEADER, ("member_savings", "acme", "M-0", 10_000)],
        )
    )
    statement = tmp_path / "bank.xml"
    statement.write_text(STATEMENT.format(iban=IBAN, opening=40_000, closing=40_700), encoding="utf-8")
    expected = rows(
        tmp_path / "old.csv",
        "partner,member,figure,date,amount",
        "acme,M-0,contributed,2025-03-31,28000",
        "acme,M-0,settled,2025-03-31,10000",
        "acme,M-0,committed,2025-03-31,18000",
        *(f"acme,M-{number},contributed,2025-03-31,18000" for number in range(1, 4)),
        "acme,M-1,entitled,2025-02-28,0",
        "acme,M-2,entitled,2025-02-28,12000",  # planted: the threshold is 15,000
        "acme,M-3,entitled,2025-03-31,17999",  # planted: a unit too little
        "acme,M-4,contributed,2025-03-31,18000",  # planted: the old system missed a reversal
        "acme,M-5,contributed,2025-03-31,5000",  # planted: it took a corridor that the programme does not serve
        "acme,M-9,contributed,2025-03-31,1",  # planted: nobody
        "acme,M-6,contributed,2025-02-28,0",
        "acme,M-6,contributed,2025-03-31,6000",
        "beta,B-1,vested,2025-03-31,10000",
        "beta,B-1,unvested,2025-03-31,0",
    )
    arguments = [
        "shadow", "run", "--programme", programme, "--members", members, "--events", events, "--expected", expected,
        "--opening", opening, "--statements", statement, "--bank", f"savers={IBAN}", "--partner", "acme",
        "--partner", "beta:prefunded", "--from", "2025-01-01", "--through", "2025-03-31", "--csv", "differences.csv", "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    found = {(one["row"], one["figure"]): one for one in report["differences"]}
    assert {
        key: (one["ours"] and one["ours"]["amount"], one["theirs"]["amount"]) for key, one in found.items()
    } == {
        ("row 9", "entitled"): (0, 12_000),
        ("row 10", "entitled"): (18_000, 17_999),
        ("row 11", "contributed"): (12_000, 18_000),
        ("row 12", "contributed"): (0, 5_000),
        ("row 13", "contributed"): (None, 1),
    }
    assert {one["event"]: one["state"] for one in found["row 11", "contributed"]["trail"]}[
        "R-40"
    ] == "reversed"
    assert found["row 12", "contributed"]["trail"][0]["state"] == "quarantined: corridor_not_served"
    assert (report["verified"], report["events"], report["statements"]) == (True, 20, 1)
    assert report["outcomes"]["unallocated: member_unknown"] == 1
    assert report["breaks"]["unknown_party"] == 1  # nobody knows who gave the bank's 700
    assert "M-4" not in done.stdout
    with (tmp_path / "differences.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 5
    assert digest_of_live(databases) == before
    assert date.fromisoformat(report["through"]) == date(2025, 3, 31)
