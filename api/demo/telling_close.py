"""What the demo shows of the bank's statements, the breaks and the close, as tables on the terminal."""

from collections.abc import Mapping
from typing import Any

from api.cli import output
from api.demo.closing import Closed
from api.demo.reconciling import REMARKS, Reconciled
from api.demo.transfers import ACCOUNT, CURRENCY, PROGRAMME


def reconciled(found: Reconciled) -> None:
    """The statements, what paired them, and what did not tie."""
    console = output.console()
    console.rule("The bank's statements")
    console.print(
        "Desert Mobile pays by bank transfer for the days that are due: pairing it with what is owed is what records its"
        f" settlements. The bank writes two statements of {ACCOUNT}, which come in at POST /v1/bank-statements:"
    )
    output.table(
        ["as", "from", "to", "lines>", "opening>", "closing>"],
        [
            (form, one.from_on, one.to_on, len(one.lines), _amount(one.opening), _amount(one.closing))
            for form, one in zip(("camt.053", "MT940"), found.at_bank.statements, strict=True)
        ],
    )
    output.table(
        ["paired by the rule", "lines>", "with, for example"],
        [(rule, count, _example(found, rule)) for rule, count in found.rules.items() if rule != "by_hand"],
    )
    console.rule("What does not tie")
    output.table(
        ["break", "amount>", "on", "days>", "why"],
        [
            (one["type"], _amount(one["amount"]["amount"]), one["on"], one["age_days"], _why(found, one))
            for one in found.breaks
        ],
    )
    others = ", ".join(f"{count:,} {kind}" for kind, count in found.elsewhere.items())
    if others:
        console.print(f"Of other things than the bank account: {others}.")
    console.print(
        "The fee is booked to bank_charges: first the preview, then the confirmation of just that, with a remark:"
    )
    output.table(
        ["effective on", "fund", "debit", "credit", "amount>"],
        [
            (
                one["effective_on"],
                one["fund"],
                _account(one, "debit"),
                _account(one, "credit"),
                _amount(one["amount"]["amount"]),
            )
            for one in found.preview["postings"]
        ],
    )
    console.print(
        f"resolved as previewed: “{found.resolved['remark']}”. The others are the treasury's now, each with a remark."
    )


def closed(found: Closed) -> None:
    """The check-list before and after what a person said, and the bank reconciliation statement."""
    console = output.console()
    console.rule(f"{found.month} is closed")
    made = found.made
    after = {item["item"]: item for item in made.judged["items"]}
    output.table(
        ["check-list", "found>", "before", "at the close", f"explained by {made.asked_by}"],
        [
            (
                item["title"],
                len(item["findings"]),
                item["state"],
                after[item["item"]]["state"],
                next(
                    (
                        one["explanation"]["remark"]
                        for one in after[item["item"]]["findings"]
                        if one["explanation"]
                    ),
                    "",
                ),
            )
            for item in made.before["items"]
        ],
    )
    console.print(
        f"{made.asked_by} asks for the close. She can't approve it herself ({made.refused}); {made.approved_by} does, with a code of his"
        f" authenticator. {PROGRAMME}'s books are closed through {found.close['through']}: what comes later for {found.month} is booked on"
        f" {found.open_from} or after, and points back."
    )
    console.print(f"[bold]Bank reconciliation statement[/], {found.statement['title']} ({CURRENCY})")
    output.table(
        ["balance or entry", "where it is", "dated", "amount>"],
        [(what, waits or "", dated or "", _amount(amount)) for what, waits, dated, amount in found.rows],
    )
    sizes = ", ".join(f"{form} {size / 1000:,.0f} kB" for form, size in found.files.items())
    console.print(
        f"It is a page of the close pack ({sizes}), whose digests are in seal {found.close['seal']}:"
        f" GET /v1/periods/{PROGRAMME}/{found.month}/pack?format=html, or mizan period pack {PROGRAMME} {found.month} pack.pdf"
    )


def _amount(amount: int) -> str:
    return output.amount_in(amount, CURRENCY)


def _account(posting: Mapping[str, Any], side: str) -> str:
    return " ".join(part for part in (posting[side], posting[f"{side}_owner"]) if part)


def _example(found: Reconciled, rule: str) -> str:
    """The first line that a rule paired, and what with."""
    for one in found.at_bank.statements:
        for line in one.lines:
            paired = found.lines.get(line.reference)
            if paired is not None and paired.rule == rule:
                with_ = ", ".join(sorted(paired.with_))
                days = with_[:4].isdigit()
                return f"“{line.text}”: {'what is owed of ' if days else ''}{with_}"
    return ""


def _why(found: Reconciled, one: Mapping[str, Any]) -> str:
    """What it is, in words: by its line, and what is known of it."""
    match one["type"]:
        case "short":
            days = ", ".join(f"{day:%d/%m}" for day in found.at_bank.short.days)
            why = f"Desert Mobile owes {_amount(found.at_bank.short.amount)} for {days}"
        case "unknown_party":
            why = "nobody knows the sender's account"
        case "duplicate":
            why = "the same end-to-end id and amount as a line before"
        case "fee":
            why = "the bank says it is its charge, and nothing in the books is"
        case "timing":
            why = "booked, and not on a statement yet"
        case _:
            why = ""
    return f"{why}: {REMARKS[one['type']]}" if one["type"] in REMARKS else why
