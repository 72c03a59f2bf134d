"""The command line under two persons: asked for in production, at once in the sandbox, and all of it in the log."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest

from api.approvals import books, kinds
from api.approvals.service import SecondPersonRequired, carry_out
from api.auth import operators, passwords, sessions, totp
from api.auth.operators import Grant
from api.auth.sessions import Lifetimes
from api.bootstrap import Services
from api.cli import acting, session
from api.settings import Environment, load
from ledger.database import Tx
from ledger.ids import new_id, public_id
from tests.integration.test_cli import Commands, commands

__all__ = ["commands"]

PASSWORD = "a heron stands in the reeds at dawn"


@pytest.fixture
def services(commands: Commands) -> Iterator[Services]:
    with session.services(load(data_dir=commands.data_dir)) as made:
        yield made


@pytest.fixture
def production(services: Services) -> Services:
    """The same, as if this were production."""
    settings = services.settings.model_copy(update={"environment": Environment.PRODUCTION})
    return replace(services, settings=settings)


def a_manager(services: Services, email: str) -> tuple[str, str, str]:
    """A manager with a password: their id, the token of an open session, and their authenticator's secret."""
    secret, at = totp.new_secret(), services.clock.now()

    def work(tx: Tx) -> tuple[str, str]:
        made = operators.create(
            tx,
            email=email,
            name="A manager",
            grants=[Grant("manager", None), Grant("administrator", None)],
            organisation_id=None,
            log_in="password",
            at=at,
        )
        tx.exec_driver_sql(
            "insert into api.operator_credential (operator_id, password_hash, totp_sealed, totp_step, changed_at)"
            " values (%s, %s, %s, 0, %s)",
            (
                made,
                passwords.hashed(passwords.normalised(PASSWORD)),
                totp.seal(services.keyring, secret, made),
                at,
            ),
        )
        hour = timedelta(hours=1)
        opened = sessions.open_session(
            tx,
            operators.find(tx, made),
            address="192.0.2.1",
            now=at,
            lifetimes=Lifetimes(hour, hour),
            confirmed=True,
        )
        return public_id("opr", made), opened.token

    return (*services.worker.run(work), secret)


def receipt(commands: Commands, path: Path, amount: int) -> Path:
    """A file of postings: money that nobody knows from whom."""
    ids = {
        code: commands.json("ledger", "account", f"ejoheza/savers:{code}")["account"]
        for code in ("bank", "unidentified_receipts")
    }
    posting = {
        "debit": ids["bank"],
        "credit": ids["unidentified_receipts"],
        "amount": amount,
        "currency": "RWF",
    }
    path.write_text(json.dumps({"postings": [posting]}))
    return path


def log(commands: Commands, *filters: str) -> list[dict[str, Any]]:
    return list(commands.json("audit", "list", "--limit", "1000", *filters)["data"])


def test_what_a_command_changes_is_in_the_log_with_it(commands: Commands, tmp_path: Path) -> None:
    file = receipt(commands, tmp_path / "receipt.json", 500)
    made = commands.json("client", "create", "robot", "--role", "manager")
    commands.text("client", "disable", made["client_id"])
    commands.text("client", "enable", made["client_id"])
    commands.text("client", "revoke", made["client_id"])
    commands.text("key", "rotate")
    commands.text("partner", "rotate-secret", "acme")
    commands.text("partner", "disable", "acme")
    commands.text("partner", "enable", "acme")
    commands.text("sponsor", "fund", "gov-rw", "--programme", "ejoheza", "--amount", "10")
    commands.text("settlement", "record", "acme", "--amount", "10")
    commands.text("programme", "apply", "mp2")
    commands.text("ledger", "seal")
    commands.text("ledger", "verify")
    commands.text("period", "close", "ejoheza", "2020-12")
    commands.text("period", "reopen", "ejoheza", "2020-12", "--reason", "late")
    posted = commands.json("ledger", "post", str(file), "--reason", "unexplained")
    assert posted["state"] == "approved"
    assert posted["result"]["transaction"].startswith("txn_")
    entries = log(commands)
    assert {
        "client.created", "client.disabled", "client.enabled", "client.tokens.revoked", "signing_key.rotated",
        "partner.created", "partner.secret.rotated", "partner.disabled", "partner.active", "sponsor.funded",
        "settlement.recorded", "programme.applied", "period.closed", "approval.requested", "approval.approved",
    } <= {one["action"] for one in entries}  # fmt: skip
    assert {one["actor_kind"] for one in entries} == {"cli", "system"}
    assert all(one["actor"].startswith("command line (") for one in entries if one["actor_kind"] == "cli")
    (created,) = log(commands, "--action", "client.created")
    assert (created["object"], created["detail"]) == (made["client_id"], {"roles": ["manager"]})
    assert made["client_secret"] not in json.dumps(entries)
    commands.text("ledger", "seal")
    assert commands.json("ledger", "verify")["ok"] is True


def test_what_the_books_refuse_is_one_line_and_changes_nothing(commands: Commands, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    for text in ("[]", "{", '{"postings": []}', '{"postings": [{"debit": "acc_x"}]}'):
        broken.write_text(text)
        assert commands.refusal("ledger", "post", str(broken), "--reason", "x").startswith("error: ")
    file = receipt(commands, tmp_path / "receipt.json", 1)
    posting = json.loads(file.read_text())["postings"][0]
    posting |= {"debit": posting["credit"], "credit": posting["debit"], "amount": 2**50}
    file.write_text(json.dumps({"postings": [posting]}))
    assert "insufficient_funds" in commands.refusal("ledger", "post", str(file), "--reason", "x")
    owes_nothing = ("ledger", "write-off-partner", "acme", "--currency", "RWF", "--through", "2026-03-02")
    assert "owes nothing" in commands.refusal(*owes_nothing, "--cause", "fee", "--reason", "x")
    nowhere = commands.refusal("match", "approve", public_id("adj", new_id()))
    assert "no such adjustment waits" in nowhere
    posting |= {"debit": "ejoheza/savers:nowhere", "credit": "ejoheza/savers:bank"}
    file.write_text(json.dumps({"postings": [posting]}))
    assert "there is no account" in commands.refusal("ledger", "post", str(file), "--reason", "x")


def test_in_production_a_command_asks_and_another_person_decides(
    commands: Commands,
    services: Services,
    production: Services,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    one, token, _ = a_manager(services, "one@example.org")
    two, _, secret = a_manager(services, "two@example.org")
    payload = json.loads(receipt(commands, tmp_path / "receipt.json", 777).read_text()) | {
        "effective_on": None,
        "member_reason": None,
    }

    def ask() -> str:
        return acting.ask(
            production,
            None,
            lambda tx, actor, origin: books.request_transaction(
                tx, production, actor, payload, "unexplained", origin=origin
            ),
        ).public_id

    with pytest.raises(session.Refused, match="say who you are"):
        ask()
    monkeypatch.setenv(acting.TOKEN_VARIABLE, "mzn_ops_nobody")
    with pytest.raises(session.Refused, match="not open"):
        ask()
    monkeypatch.setenv(acting.TOKEN_VARIABLE, token)
    approval = ask()
    (listed,) = commands.json("approval", "list")["data"]
    assert (listed["id"], listed["requested_by"], listed["state"]) == (approval, one, "requested")
    assert "Another person" in commands.refusal("approval", "approve", approval)
    monkeypatch.delenv(acting.TOKEN_VARIABLE)
    assert "say who you are" in commands.refusal("approval", "approve", approval)

    def approve(password: str, code: str) -> Any:
        return commands.run(
            "approval",
            "approve",
            approval,
            "--as",
            "two@example.org",
            "--json",
            stdin=f"{password}\n{code}\n",
        )

    wrong = approve("not the password at all", "000000")
    assert wrong.exit_code == 1
    assert "is not right" in wrong.stderr
    code = pyotp.TOTP(secret).at(datetime.now())  # noqa: DTZ005  pyotp takes local time
    done = approve(PASSWORD, code)
    assert done.exit_code == 0, done.output
    shown = json.loads(re.findall(r"\{.*\}", done.stdout)[-1])
    assert (shown["state"], shown["decided_by"]) == ("approved", two)
    assert approve(PASSWORD, code).exit_code == 1  # a code counts once
    refused = {
        (each["actor"], each["action"], each["detail"]["code"])
        for each in log(commands, "--outcome", "refused")
    }
    assert (one, "approval.decided", "second_person_required") in refused
    assert (two, "session.opened", "password") in refused
    approved = log(commands, "--action", "approval.approved", "--actor", two)
    assert [(each["object"], each["actor_kind"], each["address"]) for each in approved] == [
        (approval, "operator", "command line")
    ]
    (closed,) = services.worker.run(
        lambda tx: tx.exec_driver_sql(
            "select count(*) from api.operator_session where address = 'command line' and ended_at is null"
        ).all()
    )
    assert tuple(closed) == (0,)


def test_production_carries_nothing_out_without_a_second_person(
    production: Services, commands: Commands, tmp_path: Path
) -> None:
    payload = json.loads(receipt(commands, tmp_path / "receipt.json", 888).read_text())
    filed = production.worker.run(
        lambda tx: books.request_transaction(tx, production, "command line (test)", payload, "x")
    )
    with pytest.raises(SecondPersonRequired):
        production.worker.run(lambda tx: carry_out(tx, production, filed))
    assert kinds.KINDS["operator"].roles == frozenset({"administrator"})
