"""How a partner's payment is shared out among the funds that it owes, pure; crossings go through due-to and due-from.

One payment covers all that a partner owes in a programme, in every fund, less its credits. What a fund's credits exceed
its debts by pays debts in the others: then less cash arrives there, and the funds owe each other the difference.
"""

from collections.abc import Iterator, Mapping
from uuid import UUID

from products import chart
from products.remittances.context import Joined

Move = tuple[UUID, UUID, int]
"""Debited account, credited account, amount in minor units."""


def netting(standing: Mapping[UUID, int], due: Mapping[UUID, int], cash: int) -> dict[UUID, int]:
    """How much of a partner's credits, by fund, goes into paying ``due``; negative where a credit proved void and is paid.

    Void ones are paid before anything else. A fund's credits pay its own debts first, then the others'.
    """
    used: dict[UUID, int] = {}
    budget = cash + sum(amount for amount in standing.values() if amount > 0)
    for fund in sorted(standing):
        if standing[fund] < 0:
            used[fund] = -min(-standing[fund], budget)
            budget += used[fund]
    left = sum(due.values()) - sum(used.values())
    for own in (True, False):
        for fund in sorted(standing):
            room = min(left, due.get(fund, 0)) if own else left
            part = min(max(standing[fund] - used.get(fund, 0), 0), room) if standing[fund] > 0 else 0
            if part > 0:
                used[fund] = used.get(fund, 0) + part
                left -= part
    return used


def arriving(due: Mapping[UUID, int]) -> dict[UUID, int]:
    """The cash that each fund gets; funds whose credits exceed their debts get none, and the others less of it."""
    missing = -sum(amount for amount in due.values() if amount < 0)
    shared: dict[UUID, int] = {}
    for fund in sorted(due):
        wanted = max(due[fund], 0)
        spared = min(wanted, missing)
        missing -= spared
        shared[fund] = wanted - spared
    return shared


def received(
    joined: Joined, due: Mapping[UUID, int], home: UUID, incoming: int, topped_up: int, *, whole: bool
) -> list[Move]:
    """What moves when cash pays what is ``due``, by fund; what covers nothing whole stays unidentified in the fund `home`.

    What had arrived before lies there too. ``whole``: all of it is on the bank account of `home`, and the funds owe each other
    the rest; otherwise each fund's bank account gets what the fund is owed.
    """
    shares = {home: sum(due.values())} if whole else arriving(due)
    others = sum(amount for fund, amount in shares.items() if fund != home)
    bank = joined.account(home, chart.BANK, "")
    unidentified = joined.account(home, chart.UNIDENTIFIED_RECEIPTS, "")
    moves: list[Move] = []
    if not incoming:
        moves.append((unidentified, bank, others))
    for fund in sorted({*shares, home}):
        amount = shares.get(fund, 0)
        if fund == home:
            amount = incoming - others - topped_up if incoming else 0
        moves.append(
            (
                joined.account(fund, chart.BANK, ""),
                joined.account(fund, chart.UNIDENTIFIED_RECEIPTS, ""),
                amount,
            )
        )
    moves += paying(joined, due, shares)
    source = bank if incoming else unidentified
    moves.append((source, joined.account(joined.savers, chart.PARTNER_PREFUND), topped_up))
    return moves


def paying(joined: Joined, due: Mapping[UUID, int], cash: Mapping[UUID, int]) -> Iterator[Move]:
    """What moves on the partner's receivables when ``cash`` of unidentified receipts pays what is ``due``, by fund."""
    for fund in sorted({*due, *cash}):
        owed, paid = due.get(fund, 0), cash.get(fund, 0)
        unidentified = joined.account(fund, chart.UNIDENTIFIED_RECEIPTS, "")
        receivable = joined.account(fund, chart.PARTNER_RECEIVABLE)
        due_to = joined.account(fund, chart.DUE_TO_FUNDS, "")
        due_from = joined.account(fund, chart.DUE_FROM_FUNDS, "")
        direct = max(min(owed, paid), 0)
        yield unidentified, receivable, direct
        yield unidentified, due_to, paid - direct
        if owed > direct:
            yield due_from, receivable, owed - direct
        else:
            yield receivable, due_to, direct - owed
