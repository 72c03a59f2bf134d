"""Files in and out on the command line: payment files for banks and their answers, partners' settlement files."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from api.cli import session
from integrations.rails import bank_file
from integrations.rails.setting import Setting
from ledger.ids import new_id, public_id
from products.members.models import Registration
from products.members.registry import register
from products.payouts import registry
from products.payouts.rails import Instruction, RailPayee
from products.programmes import registry as programmes
from products.remittances import partners
from tests.integration.rails.bank import Bank
from tests.integration.rails.test_bank_file import OPTIONS
from tests.integration.test_cli import Commands
from tests.integration.test_cli import commands as commands  # the fixture

MAPPING = {
    "delimiter": ";",
    "decimal": ",",
    "remittance_id": {"column": "Reference"},
    "amount": {"column": "Amount"},
    "currency": {"constant": "RWF"},
}


def written(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_file_goes_to_the_bank_and_its_answer_comes_back(commands: Commands, tmp_path: Path) -> None:
    options = written(tmp_path / "options.json", OPTIONS)
    how = (
        "--programme",
        "ejoheza",
        "--kind",
        "bank_file",
        "--payees",
        "bank",
        "--arrival",
        "1-2 business days",
    )
    made = commands.json("rail", "create", "kigali-bank", *how, "--countries", "RW", "--options", options)
    assert made["kind"] == "bank_file"
    wrong = written(tmp_path / "wrong.json", OPTIONS | {"debtor_bic": "NOBIC"})
    assert "debtor_bic" in commands.refusal(
        "rail", "create", "other", *how, "--countries", "RW", "--options", wrong
    )

    payee = RailPayee("Uwimana Alice", "bank", {"account": "1", "bank_code": "BKIGRWRW", "country": "RW"})
    asked = [
        Instruction(new_id(), public_id("pay", new_id()), amount, "RWF", payee) for amount in (1_500, 2_500)
    ]
    session.begin(commands.data_dir, False)
    with session.services() as services:
        with services.worker.begin() as tx:
            rail = registry.find(tx, "kigali-bank")
        setting = Setting(
            services.clock, "sandbox", "", services.worker, services.keyring, rail.slug, rail.currency
        )
        bank_file.build(rail.options, {}, setting).submit(new_id(), asked, date(2026, 3, 2))

    (listed,) = commands.json("payment-file", "list", "--rail", "kigali-bank")
    assert (listed["state"], listed["payments"], listed["control_sum"]) == ("made", 2, "4000")
    fetched = commands.json("payment-file", "fetch", listed["id"], "--to", str(tmp_path))
    path = Path(fetched["path"])
    assert (path.name, path.stat().st_mode & 0o777) == (f"{listed['message_id']}.xml", 0o600)
    assert "exists" in commands.refusal("payment-file", "fetch", listed["id"], "--to", str(path)).lower()

    said = Bank.given(path.read_bytes()).says(
        datetime.now(UTC), "PART", {asked[0].attempt.hex: "ACSC", asked[1].attempt.hex: "RJCT/AC04"}
    )
    answer = tmp_path / "pain002.xml"
    answer.write_bytes(said)
    brought = commands.json("payment-file", "answer", "kigali-bank", str(answer))
    assert (brought["duplicate"], brought["states"]) == (False, {"paid": 1, "failed": 1})
    assert "nothing changed" in commands.text("payment-file", "answer", "kigali-bank", str(answer))
    assert "part" in commands.text("payment-file", "list")
    answer.write_bytes(said.replace(listed["message_id"].encode(), b"another"))
    assert "never sent" in commands.refusal("payment-file", "answer", "kigali-bank", str(answer))


def test_in_the_sandbox_a_payee_is_a_wallet_an_account_or_a_token(commands: Commands) -> None:
    session.begin(commands.data_dir, False)
    with session.services() as services, services.worker.begin() as tx:
        acme, ejoheza = partners.find(tx, "acme").id, programmes.find(tx, "ejoheza")
        known = Registration(partner_reference="A-17")
        registered = register(tx, services.keyring, ejoheza, acme, known, services.clock.now())
    member = public_id("mem", registered.link_id)
    account = ("--account", "50098765", "--country", "RW")
    for way in (("--phone", "+250788123456"), (*account, "--bank-code", "EQBLRWRW"), ("--token", "acct_1")):
        assert commands.json("payout", "payee", member, *way)["payee"].startswith("pye_")
    assert "say where to" in commands.refusal("payout", "payee", member)
    assert "bank_code" in commands.refusal("payout", "payee", member, *account)


def test_a_partners_file_is_compared_and_differences_end_with_1(commands: Commands, tmp_path: Path) -> None:
    mapping = written(tmp_path / "mapping.json", MAPPING)
    file = written(tmp_path / "week.csv", "Reference;Amount\nA-1;15000\nA-1;15000\n")
    days = ("--first-on", "2026-03-02", "--last-on", "2026-03-08")
    assert "how this partner's files are read" in commands.refusal(
        "settlement", "compare", "acme", file, *days
    )
    assert "from which day" in commands.refusal("settlement", "compare", "acme", file, "--mapping", mapping)

    compared = commands.run("settlement", "compare", "acme", file, "--mapping", mapping, *days, "--json")
    assert compared.exit_code == 1
    found: dict[str, Any] = json.loads(compared.stdout)
    assert (found["differences"], found["open"]) == ({"missing_here": 1, "duplicate": 1}, 2)
    again = commands.run("settlement", "compare", "acme", file, *days)
    assert again.exit_code == 1
    assert "nothing changed" in again.stdout
    commands.text("settlement", "explain", found["id"], "1", "--remark", "they send it tomorrow")
    shown = commands.json("settlement", "differences", found["id"])
    assert [one["state"] for one in shown["data"]] == ["explained", "open"]

    empty = written(tmp_path / "empty.csv", "Reference;Amount\n")
    assert "agree" in commands.text("settlement", "compare", "acme", empty, *days)
    assert json.loads(commands.text("settlement", "mapping", "acme")) == MAPPING
    assert "remittance_id" in json.loads(commands.text("settlement", "mapping", "--schema"))["required"]
    broken = written(tmp_path / "broken.csv", "Reference;Amount\nA-1;1.5\n")
    assert "Row 2, column “Amount”" in commands.refusal("settlement", "compare", "acme", broken, *days)
