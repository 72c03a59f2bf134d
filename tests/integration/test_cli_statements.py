"""Bank statements on the command line: accounts, files in and out, what is missing, and whose accounts are on the other side."""

import hashlib
import json
from pathlib import Path

from api.cli import session
from tests.http.test_bank_statements import GOOD, mt940
from tests.integration.test_cli import Commands
from tests.integration.test_cli import commands as commands  # the fixture

ACCOUNT = (
    "--fund", "ejoheza/savers", "--currency", "rwf", "--identification", "RW38 0001", "--since", "2026-03-02"
)  # fmt: skip


def test_a_banks_files_come_in_and_one_is_written_out_again(commands: Commands, tmp_path: Path) -> None:
    added = commands.json("reconcile", "account", "add", "kigali-savers", *ACCOUNT)
    assert (added["identification"], added["code"]) == ("RW380001", "bank")
    assert [one["slug"] for one in commands.json("reconcile", "account", "list")] == ["kigali-savers"]
    assert "no float of the rail none" in commands.refusal(
        "reconcile", "account", "add", "wallet", *ACCOUNT, "--rail", "none"
    )
    files = [tmp_path / "2.sta", tmp_path / "3.sta"]
    files[0].write_bytes(GOOD)
    files[1].write_bytes(
        mt940(("C5,", "x"), opening="C260303RWF1490,", closing="C260303RWF1495,", number="9").replace(
            b":61:260302", b":61:260303"
        )
    )
    first, second = commands.json("reconcile", "import", *map(str, files))
    assert (first["lines"], second["lines"], second["duplicate"]) == (2, 1, False)
    assert [one["duplicate"] for one in commands.json("reconcile", "import", str(files[0]))] == [True]
    wrong = tmp_path / "wrong.sta"
    wrong.write_bytes(mt940(("C500,", "x"), closing="C260302RWF1600,"))
    assert "the difference is 100 RWF" in commands.refusal("reconcile", "import", str(wrong))

    shown = commands.json("reconcile", "statements", "--account", "kigali-savers")
    assert [(one["opening"], one["closing"]) for one in shown] == [(1_490, 1_495), (1_000, 1_480)]
    gaps = commands.run("reconcile", "gaps", "kigali-savers", "--json")
    assert gaps.exit_code == 1
    assert [(one["kind"], one["numbers"]) for one in json.loads(gaps.stdout)] == [("balance_differs", [8, 8])]
    out = tmp_path / "out.sta"
    written = commands.json("reconcile", "file", shown[1]["id"], "--to", str(out))
    assert (out.read_bytes(), out.stat().st_mode & 0o777) == (GOOD, 0o600)
    assert written["sha256"] == hashlib.sha256(GOOD).hexdigest()

    commands.json("reconcile", "counterparty", "add", "kigali-savers", "AE07 0331", "acme")
    (known,) = commands.json("reconcile", "counterparty", "list", "kigali-savers")
    assert (known["ending"], known["party"]) == ("0331", "acme")

    mapping = tmp_path / "mapping.json"
    mapping.write_text(json.dumps({"booked_on": {"column": "Date"}, "amount": {"column": "Amount"}}))
    table = tmp_path / "4.csv"
    table.write_text("Date,Amount\n2026-03-04,7.00\n")
    balances = ("--opening", "1495", "--closing", "1502", "--account", "kigali-savers")
    assert "mapping" in commands.refusal("reconcile", "import", str(table), *balances)
    commands.text("reconcile", "account", "mapping", "kigali-savers", str(mapping))
    (read,) = commands.json("reconcile", "import", str(table), *balances)
    assert read["lines"] == 1
    # by another mapping it would have been money that went out
    mapping.write_text(
        json.dumps({"booked_on": {"column": "Date"}, "amount": {"column": "Amount", "inverted": True}})
    )
    other = (
        "--opening",
        "1495",
        "--closing",
        "1488",
        "--account",
        "kigali-savers",
        "--mapping",
        str(mapping),
    )
    assert [one["duplicate"] for one in commands.json("reconcile", "import", str(table), *other)] == [True]
    mistaken = read["statements"][0]["id"]
    assert "remark" in commands.refusal("reconcile", "withdraw", mistaken, "--remark", " ")
    (withdrawn,) = commands.json("reconcile", "withdraw", mistaken, "--remark", "the sign was wrong")
    assert (withdrawn["account"], withdrawn["lines"]) == ("kigali-savers", 1)
    (read,) = commands.json("reconcile", "import", str(table), *other)
    assert (read["lines"], read["duplicate"]) == (1, False)
    latest, before = commands.json("reconcile", "statements", "--limit", "2")
    assert (latest["closing"], latest["withdrawn_at"]) == (1_488, None)
    assert (before["closing"], before["withdrawn_because"]) == (1_502, "the sign was wrong")

    session.begin(commands.data_dir, False)
    with session.services() as services, services.worker.begin() as tx:
        refused = tx.exec_driver_sql(
            "SELECT object, detail->>'code' FROM ledger.audit_entry WHERE outcome = 'refused' AND actor_kind = 'cli'"
            " ORDER BY id"
        ).all()
    assert (f"sha256:{hashlib.sha256(wrong.read_bytes()).hexdigest()}", "statement_does_not_add_up") in [
        tuple(row) for row in refused
    ]
