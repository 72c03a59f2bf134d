"""What the demo shows of settlement and payouts, as tables on the terminal."""

from api.cli import output
from api.demo.payouts import PaidOut
from api.demo.settling import BOUNCING, BUCKETS, PROGRAMME, Settled


def settled(found: Settled) -> None:
    """What a partner owed, what it paid in, and what came back."""
    console = output.console()
    paid, bounced = found.paid, found.bounced
    console.rule("A partner settles")
    console.print(
        "What Gulf Express reads that it owes, at GET /v1/settlements/obligations and …/ageing, and what is left"
        " afterwards:"
    )
    rows = []
    for slug, currency in ((PROGRAMME, paid.currency), (BOUNCING, bounced.currency)):
        for when, one in (("before", found.owed[slug]), ("afterwards", found.left[slug])):
            late = (output.amount_in(one.late[name], currency) for name in BUCKETS)
            rows.append((slug, when, currency, len(one.by_day), *late, output.amount_in(one.total, currency)))
    output.table(
        [
            "programme",
            "",
            "currency",
            "days>",
            "not due>",
            "1–7 late>",
            "8–30>",
            "31–90>",
            "over 90>",
            "owed>",
        ],
        rows,
    )
    console.print(
        f"It pays in {output.amount_in(paid.amount, paid.currency)} {paid.currency} for {PROGRAMME}:"
        f" {paid.contributions:,} contributions are paired, and what the match is owed is granted. The bank takes back"
        f" its {output.amount_in(bounced.amount, bounced.currency)} {bounced.currency} for {BOUNCING}:"
        f" {bounced.contributions:,} contributions were settled, are pending again and are owed again."
    )
    there, back = found.there[1], found.there[2]
    output.table(
        ["account", f"{PROGRAMME} before>", "after>", f"{BOUNCING} before>", "paid in>", "taken back>"],
        [
            (
                code,
                output.amount_in(found.before[code], paid.currency),
                output.amount_in(found.after[code], paid.currency),
                *(output.amount_in(one[code], bounced.currency) for one in (found.there[0], there, back)),
            )
            for code in found.before
        ],
    )


def paid_out(found: PaidOut, events: int) -> None:
    """What became of the payouts, in the books and elsewhere; how many events the partner got of all."""
    console = output.console()
    person = found.person
    currency = person.group.currency
    console.rule("A member is paid out")
    console.print(
        f"{person.reference}, who is past 55, when EjoHeza lets savings and match out, asks through Gulf Express, and her phone signs for each payout;"
        " the simulated rail pays. One payout fails, and one comes back after it was paid."
    )
    output.table(
        ["payout", "amount>", "went through", "reason"],
        [
            (
                one.plan.to,
                output.amount_in(one.amount, currency),
                " → ".join(one.states),
                one.payout["reason"] or "",
            )
            for one in found.paid
        ],
    )
    output.table(
        ["payout", "posted as", "debit", "credit", "amount>"],
        [
            (one.plan.to, each.step, each.debit, each.credit, output.amount_in(each.amount, currency))
            for one in found.paid
            for each in one.posted
        ],
    )
    output.table(
        ["her balance", "settled>", "match>", "held>", "available>"],
        [
            (
                when,
                *(output.amount_in(amount, currency) for amount in (b.settled, b.match, b.held, b.available)),
            )
            for when, b in (
                ("before", found.before),
                ("while they are held", found.held),
                ("after", found.after),
            )
        ],
    )
    console.print(
        f"Payout clearing: {output.amount_in(found.clearing, currency)}; by payouts, {output.amount_in(-found.bank, currency)}"
        f" {currency} left the bank; the rail's own list says {output.amount_in(found.tie.paid_theirs, currency)}:"
        f" it {'ties' if found.tie.ties else 'DOES NOT TIE'}."
    )
    console.print(
        f"Gulf Express's endpoint got {events} signed events of all this:"
        f" {', '.join(dict.fromkeys(name for one in found.paid for name in one.events))}, …"
    )
