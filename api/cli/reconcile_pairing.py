"""Pairing on the command line: `mizan reconcile run|pairings|pair|unpair|items|rules …`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from api import bank_statements
from api.cli import acting, output, session
from api.v1.pairings import evidence_out, item_out, pairing_out
from ledger.ids import parse_public_id, public_id
from ledger.reconciliation import bank_accounts, pairings, rules
from ledger.reconciliation.pairings import Pairing
from products.reconciliation import hand_pairing
from products.reconciliation.hand_pairing import ITEM_PREFIX, PAIRING_PREFIX
from products.reconciliation.run import reconcile

SHOWN_MAX = 200

OfAccount = Annotated[
    str | None, typer.Option("--account", help="Only this bank account's.", show_default=False)
]
Remark = Annotated[str, typer.Option(help="Why; it stays on record.")]
Slug = Annotated[str, typer.Argument(help="The bank account's name.")]
Rules = Annotated[Path, typer.Argument(help="A YAML file of rules.", exists=True, dir_okay=False)]

rule_commands = typer.Typer(
    name="rules", help="The rules by which lines and items are paired.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to `mizan reconcile`."""
    app.command("run")(run)
    app.command("pairings")(list_pairings)
    app.command("pair")(pair)
    app.command("unpair")(unpair)
    app.command("items")(list_items)
    app.add_typer(rule_commands)


@session.command
def run(account: OfAccount = None, as_json: session.AsJson = False) -> None:
    """Pair whatever the rules can: collect postings, try the rules, confirm payments and settlements, say what is left.

    What stands is never changed by it. The worker does the same every few minutes.
    """
    with session.services() as services:
        report = reconcile(services.worker, services.books, bank_account=account, made_by=session.actor())
        with services.worker.begin() as tx:
            acting.note(tx, services, "reconciliation.run", str(report.run_id), pairings=report.pairings)
    if as_json:
        output.as_json({**asdict(report), "pairings": report.pairings})
        return
    output.fields(
        {
            "items collected": report.collected,
            "not settled yet": f"{report.waiting}: something older is still being written; the next run takes them"
            if report.waiting
            else 0,
            "expected items changed": report.expected,
            "pairings made": report.pairings,
            "breaks changed": report.breaks,
            "complete": "yes" if report.complete else "no: the next run goes on",
        }
    )
    output.table(
        ["bank account", "paired>", "confirmed>", "refused>"],
        [[one.bank_account, one.pairings, one.confirmed, one.refused] for one in report.accounts],
    )


@session.command
def list_pairings(
    account: OfAccount = None,
    rule: Annotated[str | None, typer.Option(help="Only those of this rule.", show_default=False)] = None,
    undone: Annotated[bool, typer.Option("--undone", help="Only those taken back.")] = False,
    pairing: Annotated[
        str | None, typer.Option("--id", help="One pairing, with its evidence.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = SHOWN_MAX,
    as_json: session.AsJson = False,
) -> None:
    """Show pairings in the order in which they were made."""
    with session.services() as services, services.worker.read() as tx:
        if pairing is not None:
            found = [pairings.get(tx, parse_public_id(PAIRING_PREFIX, pairing))]
        else:
            found = pairings.page(
                tx,
                limit=limit,
                bank_account_id=None if account is None else bank_accounts.by_slug(tx, account).id,
                standing=False if undone else None,
                rule=rule,
            )
    if as_json:
        output.as_json([pairing_out(one).model_dump(mode="json") for one in found])
        return
    output.table(
        ["pairing", "account", "rule", "currency", "amount>", "lines>", "items>", "evidence", "state"],
        [_row(one) for one in found],
    )


def _row(one: Pairing) -> list[Any]:
    evidence = ", ".join(
        f"{name} {' '.join(value) if isinstance(value, list) else value}"
        for name, value in evidence_out(one).items()
    )
    return [
        public_id(PAIRING_PREFIX, one.id),
        one.bank_account,
        one.rule,
        one.currency,
        output.amount_in(one.amount, one.currency),
        len(one.lines),
        len(one.items),
        evidence,
        "stands" if one.undone_at is None else f"taken back by {one.undone_by}: {one.undone_remark}",
    ]


@session.command
def pair(
    line: Annotated[list[str], typer.Option("--line", help="A statement line, bsl_…; again for more.")],
    item: Annotated[list[str], typer.Option("--item", help="An item, itm_…; again for more.")],
    remark: Remark,
    as_json: session.AsJson = False,
) -> None:
    """Pair lines with items by hand: they come to the same sum. Payments that were sent are confirmed by it."""
    with session.services() as services:
        made = acting.run(
            services,
            lambda tx: hand_pairing.pair(
                tx,
                services.books,
                [parse_public_id(bank_statements.LINE, one) for one in line],
                [parse_public_id(ITEM_PREFIX, one) for one in item],
                remark=remark,
                actor=session.actor(),
            ),
            "pairing.made",
            lambda made: public_id(PAIRING_PREFIX, made.id),
            lines=len(line),
            items=len(item),
        )
    _tell(made, as_json=as_json)


@session.command
def unpair(
    pairing: Annotated[str, typer.Argument(help="The pairing, par_….")],
    remark: Remark,
    as_json: session.AsJson = False,
) -> None:
    """Take a pairing back, with what it did to the books. It stays on record, and no rule makes the same one again."""
    with session.services() as services:
        undone = acting.run(
            services,
            lambda tx: hand_pairing.undo(
                tx,
                services.books,
                parse_public_id(PAIRING_PREFIX, pairing),
                remark=remark,
                actor=session.actor(),
            ),
            "pairing.undone",
            pairing,
        )
    _tell(undone, as_json=as_json)


def _tell(one: Pairing, *, as_json: bool) -> None:
    if as_json:
        output.as_json(pairing_out(one).model_dump(mode="json"))
    else:
        output.fields(
            {
                "pairing": public_id(PAIRING_PREFIX, one.id),
                "rule": one.rule,
                "amount": output.amount_in(one.amount, one.currency),
                "currency": one.currency,
                "state": "stands" if one.undone_at is None else "taken back",
            }
        )


@session.command
def list_items(
    account: Slug,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = SHOWN_MAX,
    as_json: session.AsJson = False,
) -> None:
    """Show what is expected at the bank and no line shows yet: postings, payments on their way, partners' days."""
    with session.services() as services, services.worker.read() as tx:
        found = pairings.open_items(tx, bank_accounts.by_slug(tx, account).id, limit=limit)
    if as_json:
        output.as_json([item_out(one).model_dump(mode="json") for one in found])
        return
    output.table(
        ["item", "source", "kind", "on", "currency", "amount>", "reference", "party"],
        [
            [
                public_id(ITEM_PREFIX, one.id),
                one.source,
                one.kind,
                one.on_date,
                one.currency,
                output.amount_in(one.amount, one.currency),
                one.end_to_end or one.reference or one.batch or "",
                one.party or "",
            ]
            for one in found
        ],
    )


@rule_commands.command("show")
@session.command
def show_rules(account: Slug, as_json: session.AsJson = False) -> None:
    """Show the rules of a bank account, in the order in which they are tried."""
    with session.services() as services, services.worker.read() as tx:
        found = rules.of_account(tx, bank_accounts.by_slug(tx, account).id)
    if as_json:
        output.as_json({"version": found.version, **found.content})
        return
    print(f"# version {found.version}" if found.version else "# version 0: those that come with the program")
    print(yaml.safe_dump(dict(found.content), sort_keys=False, allow_unicode=True), end="")


@rule_commands.command("check")
@session.command
def check_rules(
    file: Annotated[
        Path | None,
        typer.Argument(help="A YAML file of rules.", exists=True, dir_okay=False, show_default=False),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of such files.")] = False,
    as_json: session.AsJson = False,
) -> None:
    """Say whether a file of rules could be applied, and print them as they would be tried."""
    if schema:
        output.as_json(rules.SCHEMA)
        return
    if file is None:
        raise session.Refused("which file of rules?")
    found = rules.of_content(0, _rules_in(file))
    if as_json:
        output.as_json({"ok": True, "rules": [rule.name for rule in found.rules]})
    else:
        print(f"{len(found.rules)} rules: {', '.join(rule.name for rule in found.rules)}")


@rule_commands.command("apply")
@session.command
def apply_rules(account: Slug, file: Rules, as_json: session.AsJson = False) -> None:
    """Make the rules of a file a bank account's own, from the next run on. What was paired before stays."""
    content = _rules_in(file)
    with session.services() as services:
        applied = acting.run(
            services,
            lambda tx: rules.apply(
                tx,
                bank_accounts.by_slug(tx, account).id,
                content,
                applied_by=session.actor(),
                clock=services.clock,
            ),
            "pairing_rules.applied",
            account,
        )
    if as_json:
        output.as_json({"bank_account": account, "version": applied.version})
    else:
        output.fields({"bank account": account, "version": applied.version, "rules": len(applied.rules)})


def _rules_in(file: Path) -> Mapping[str, Any]:
    """The rules of a file, checked."""
    if file.stat().st_size > rules.RULES_BYTES_MAX:
        raise session.Refused(f"a file of rules has at most {rules.RULES_BYTES_MAX} bytes")
    try:
        return rules.read(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise session.Refused("a file of rules is UTF-8 text") from error
