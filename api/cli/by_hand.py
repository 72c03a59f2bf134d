"""Requests that touch the books: `mizan ledger post|write-off-partner|write-off-member`."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from api.approvals import books
from api.approvals.service import Origin, Request
from api.auth.actors import Actor
from api.cli import acting, approval, ledger, output, session
from ledger.database import Tx
from ledger.ids import public_id

FILE_BYTES_MAX = 256 * 1024

Reason = Annotated[str, typer.Option(help="Why; it is kept.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("post")(session.command(post))
    app.command("write-off-partner")(session.command(write_off_partner))
    app.command("write-off-member")(session.command(write_off_member))


def post(
    file: Annotated[
        Path,
        typer.Argument(
            help='JSON: {"postings": [{"debit": "ejoheza/savers:bank", "credit": "acc_…", "amount": minor units, "currency": "RWF"}]}',
            exists=True,
            dir_okay=False,
        ),
    ],
    reason: Reason,
    member_reason: Annotated[
        str | None,
        typer.Option(help="Why a member's own money moves, where it does.", show_default=False),
    ] = None,
    effective_on: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The next open day when left out.", show_default=False),
    ] = None,
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask for a transaction by hand. In production another operator approves it; in the sandbox it is posted at once."""
    postings = _postings(file)
    with session.services() as services:

        def file_request(tx: Tx, actor: Actor | str, origin: Origin) -> Request:
            payload = {
                "postings": [
                    one | {side: _account(tx, str(one[side])) for side in ("debit", "credit")}
                    for one in postings
                ],
                "effective_on": effective_on.date().isoformat() if effective_on else None,
                "member_reason": member_reason,
            }
            return books.request_transaction(tx, services, actor, payload, reason, origin=origin)

        asked = acting.ask(services, as_, file_request)
    approval.tell_asked(asked, as_json)


def write_off_partner(
    partner: Annotated[str, typer.Argument(help="The partner's slug.")],
    currency: Annotated[str, typer.Option(help="The currency that it owes.")],
    through: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="All that it owes for what it collected through this day."),
    ],
    cause: Annotated[
        Literal["default", "fee"],
        typer.Option(help="It does not pay, or it kept a fee that the administrator bears."),
    ],
    reason: Reason,
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask for what a partner owes to be borne by the administrator, so that no member loses it."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: books.request_partner_write_off(
                tx,
                services,
                actor,
                partner=partner,
                currency=currency,
                through=through.date(),
                cause=cause,
                remark=reason,
                origin=origin,
            ),
        )
    approval.tell_asked(asked, as_json)


def write_off_member(
    account: Annotated[
        str, typer.Argument(help="The member's receivable account, acc_… or FUND:member_receivable:OWNER.")
    ],
    amount: Annotated[str, typer.Option(help="In major units of the currency: 1500.00")],
    currency: Annotated[str, typer.Option(help="The account's currency.")],
    reason: Reason,
    as_: acting.As = None,
    as_json: session.AsJson = False,
) -> None:
    """Ask for what a member owes to become a credit loss of the administrator."""
    with session.services() as services:
        asked = acting.ask(
            services,
            as_,
            lambda tx, actor, origin: books.request_member_write_off(
                tx,
                services,
                actor,
                account=ledger.find_account(tx, account).id,
                amount=output.minor_units(amount, currency),
                remark=reason,
                origin=origin,
            ),
        )
    approval.tell_asked(asked, as_json)


def _account(tx: Tx, which: str) -> str:
    return public_id("acc", ledger.find_account(tx, which).id)


def _postings(file: Path) -> list[dict[str, object]]:
    raw = file.read_bytes()
    if len(raw) > FILE_BYTES_MAX:
        raise session.Refused(f"a file of postings has at most {FILE_BYTES_MAX // 1024} KiB")
    try:
        found = json.loads(raw)["postings"]
        read = [
            {
                "debit": one["debit"],
                "credit": one["credit"],
                "amount": one["amount"],
                "currency": one["currency"],
            }
            for one in found
        ]
    except (ValueError, KeyError, TypeError):
        raise session.Refused(f"{file} is not a JSON object with postings") from None
    if not read or any(type(one["amount"]) is not int for one in read):
        raise session.Refused("an amount is an integer of minor units, and there is at least one posting")
    return read
