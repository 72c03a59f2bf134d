"""Which accounts a load may open, whose they are, and why others are refused.

An account that products keep records beside may be opened only with those records: a contribution for what a partner still owes or
an agency still gets, a share for what a sponsor has committed. What this module refuses comes into the books by its own way.
"""

from typing import Final

from products import chart
from products.chart import Code

AWAITING: Final = "match_awaiting_funds"
"""Not an account: what a sponsor's queue owes of a match, which no money stands for yet."""

SHARED: Final = {
    code.name: code
    for code in (
        chart.BANK,
        chart.DUE_TO_FUNDS,
        chart.DUE_FROM_FUNDS,
        chart.ADMINISTRATOR_COST,
        chart.CREDIT_LOSS,
        chart.BANK_CHARGES,
        chart.FEES_PAYABLE,
        chart.RETURN_FOR_ALLOCATION,
        chart.FORFEITED_MATCH,
    )
}
"""A fund's own: one for each currency."""

OF_PARTNER: Final = {code.name: code for code in (chart.PARTNER_RECEIVABLE, chart.PARTNER_PREFUND)}
OF_SPONSOR: Final = {code.name: code for code in (chart.SPONSOR_UNCOMMITTED, chart.SPONSOR_RECEIVABLE)}
OF_MATCH: Final = {
    **{code.name: code for code in (chart.SPONSOR_COMMITTED, chart.MATCH_UNVESTED, chart.MATCH_VESTED)},
    AWAITING: Code(AWAITING, "liability", floor=0),
}
"""A sponsor's share of a member's match in a window; each row names all three."""
OF_SAVINGS: Final = {code.name: code for code in (chart.MEMBER_SAVINGS, chart.CONTRIBUTIONS_PENDING)}
OF_MEMBER: Final = {code.name: code for code in (chart.MEMBER_UNAPPLIED, chart.MEMBER_RECEIVABLE)}
COLLECTED: Final = {code.name: code for code in (chart.AGENCY_COLLECTED, chart.UNEARNED_CONTRIBUTIONS)}

OPENABLE: Final = {**SHARED, **OF_PARTNER, **OF_SPONSOR, **OF_MATCH, **OF_SAVINGS, **OF_MEMBER, **COLLECTED}

_PAYOUTS: Final = "payouts that are under way are asked for here again, or ended in the old system before"
REFUSED: Final = {
    chart.UNALLOCATED.name: "money without a member comes in as the remittance that brought it, so that it finds its member",
    chart.UNIDENTIFIED_RECEIPTS.name: (
        "money whose sender nobody knows is found in the old system before, or comes in with the statement that shows it"
    ),
    chart.PAYOUT_CLEARING.name: _PAYOUTS,
    chart.RAIL_FLOAT.name: "a rail's float is topped up from the bank once the rail is there (`mizan rail top-up`)",
    chart.PAYOUT_CHARGES.name: _PAYOUTS,
    chart.BANK_CLEARING.name: "a remittal that is under way is cleared in the old system, or made here again",
    chart.GUARANTOR_RECEIVABLE.name: "a default is recorded here (`mizan settlement default`), which claims it from the guarantor",
    chart.CONVERSION.name: "a conversion that is under way is ended in the old system before",
    chart.MIGRATION_CONTROL.name: "this is the other side of every row, and no row of its own",
}


def code_of(name: str) -> Code:
    """The line of the chart that a row opens. Raises ValueError, with why it can't be."""
    if name in OPENABLE:
        return OPENABLE[name]
    if name in REFUSED:
        raise ValueError(f"this account can't be opened: {REFUSED[name]}")
    raise ValueError(f"no such account; there are {', '.join(sorted(OPENABLE))}")


def debit_normal(code: Code) -> bool:
    """Whether a positive balance of it is a debit."""
    return code.kind in ("asset", "expense")
