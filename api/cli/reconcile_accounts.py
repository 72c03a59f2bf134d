"""Accounts at banks: `mizan reconcile account …`, and whose accounts are on the other side: `mizan reconcile counterparty …`."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from api import bank_statements
from api.cli import acting, output, session
from api.cli.csv_mappings import mapping_in
from integrations.bank_statements import csv_mapping
from ledger.database import Tx
from ledger.errors import NotFound
from ledger.ids import public_id
from ledger.reconciliation import bank_accounts, counterparties
from ledger.reconciliation.bank_accounts import BankAccount, NewBankAccount

A_DAY = ["%Y-%m-%d"]

accounts = typer.Typer(name="account", help="Accounts at banks, and what mirrors them.", no_args_is_help=True)
others = typer.Typer(name="counterparty", help="Whose accounts are on the other side.", no_args_is_help=True)

Slug = Annotated[str, typer.Argument(help="The bank account's name.")]


@accounts.command("add")
@session.command
def add_account(
    slug: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and hyphens.")],
    fund: Annotated[str, typer.Option(help="The fund's code, such as ejoheza/savers.")],
    currency: Annotated[str, typer.Option(help="Its currency (ISO 4217).")],
    identification: Annotated[str, typer.Option(help="IBAN, or the bank's own number.")],
    since: Annotated[
        datetime, typer.Option(formats=A_DAY, help="The first day that statements are expected for.")
    ],
    name: Annotated[str | None, typer.Option(help="What people call it.", show_default=False)] = None,
    rail: Annotated[
        str | None,
        typer.Option(
            help="The rail whose float it holds; the fund's bank when left out.", show_default=False
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another way in which the bank writes its number.", show_default=False),
    ] = None,
    servicer: Annotated[str | None, typer.Option(help="The bank.", show_default=False)] = None,
    as_json: session.AsJson = False,
) -> None:
    """Add a bank account: which account of the books it is the other side of. Nothing is booked."""
    if (
        not slug
        or len(slug) > 63
        or not all(one.isascii() and (one.islower() or one.isdigit() or one == "-") for one in slug)
    ):
        raise session.Refused("a name has lower-case letters, digits and hyphens")
    with session.services() as services:

        def work(tx: Tx) -> BankAccount:
            mirrored = bank_statements.mirrored_account(tx, fund, currency.upper(), rail)
            new = NewBankAccount(
                slug, name or slug, mirrored, identification, since.date(), tuple(also or ()), servicer
            )
            return bank_accounts.add(tx, services.clock, new)

        added = acting.run(
            services, work, "bank_account.added", slug, fund=fund, identification=identification
        )
    _show_accounts([added], as_json=as_json, one=True)


@accounts.command("list")
@session.command
def list_accounts(as_json: session.AsJson = False) -> None:
    """Bank accounts, and what of the books mirrors each."""
    with session.services() as services, services.worker.read() as tx:
        found = bank_accounts.every(tx)
    _show_accounts(found, as_json=as_json)


@accounts.command("mapping")
@session.command
def account_mapping(
    account: Annotated[
        str | None, typer.Argument(help="The bank account's name.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="How its CSV files are read from now on, as JSON.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    print_schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of mappings instead.", show_default=False)
    ] = False,
) -> None:
    """Show, or change, how a bank account's CSV files are read. Prints JSON."""
    if print_schema:
        print(json.dumps(csv_mapping.schema(), indent=2, ensure_ascii=False))
        return
    if account is None:
        raise session.Refused("say which bank account's mapping, or --schema")
    slug = account
    with session.services() as services:
        if file is None:
            with services.worker.read() as tx:
                shown = bank_accounts.by_slug(tx, slug).statement_mapping
            if shown is None:
                raise NotFound("Nobody has said yet how this bank account's files are read.")
        else:
            shown = mapping_in(file)
            csv_mapping.parse(shown)
            new = shown

            def work(tx: Tx) -> None:
                bank_accounts.change(tx, bank_accounts.by_slug(tx, slug).id, statement_mapping=new)

            acting.run(services, work, "bank_account.changed", slug)
    print(json.dumps(shown, indent=2, ensure_ascii=False))


@others.command("add")
@session.command
def add_counterparty(
    account: Slug,
    identification: Annotated[str, typer.Argument(help="The other side's IBAN, or its bank's own number.")],
    party: Annotated[str, typer.Argument(help="A partner's slug, or a name of yours.")],
    as_json: session.AsJson = False,
) -> None:
    """Say whose account the other side is: lines that come in are told so, and those that named nobody."""
    if not 1 <= len(party) <= 63 or not party.isprintable() or not party.isascii() or " " in party:
        raise session.Refused("a party's name has 1 to 63 printable ASCII characters, without spaces")
    with session.services() as services:
        added = acting.run(
            services,
            lambda tx: counterparties.add(
                tx,
                services.keyring,
                services.clock,
                bank_accounts.by_slug(tx, account).id,
                identification,
                party,
                by=session.actor(),
            ),
            "bank_counterparty.added",
            account,
            party=party,
        )
    if as_json:
        output.as_json(asdict(added) | {"id": public_id(bank_statements.COUNTERPARTY, added.id)})
        return
    print(f"{account}: …{added.ending} is {added.party}.")


@others.command("list")
@session.command
def list_counterparties(account: Slug, as_json: session.AsJson = False) -> None:
    """Accounts on the other side whose owners are known, the newest first."""
    with session.services() as services, services.worker.read() as tx:
        found = counterparties.every(tx, bank_accounts.by_slug(tx, account).id, limit=10_000)
    if as_json:
        output.as_json(
            [asdict(one) | {"id": public_id(bank_statements.COUNTERPARTY, one.id)} for one in found]
        )
        return
    output.table(
        ["counterparty", "ending", "party", "source", "added by", "added at"],
        [
            [
                public_id(bank_statements.COUNTERPARTY, one.id),
                f"…{one.ending}",
                one.party,
                one.source,
                one.added_by,
                one.added_at,
            ]
            for one in found
        ],
    )


def _show_accounts(found: list[BankAccount], *, as_json: bool, one: bool = False) -> None:
    if as_json:
        rows = [
            asdict(account)
            | {
                "id": public_id(bank_statements.ACCOUNT, account.id),
                "fund_id": None,
                "account_id": public_id("acc", account.account_id),
            }
            for account in found
        ]
        for row in rows:
            del row["fund_id"]
        output.as_json(rows[0] if one else rows)
        return
    output.table(
        ["account", "fund", "mirrored by", "number", "currency", "statements since", "bank"],
        [
            [
                account.slug,
                account.fund,
                f"{account.code} {account.owner}".strip(),
                account.identification,
                account.currency,
                account.statements_since,
                account.servicer,
            ]
            for account in found
        ],
    )
