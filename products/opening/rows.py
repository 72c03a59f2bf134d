"""A row of opening balances once it is known whose it is: as it was resolved, and as it was staged."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from ledger.database import Tx, cursor
from ledger.posting import Posting
from products import chart
from products.chart import Code
from products.opening import codes
from products.opening.given import Row
from products.savings.shares import Share

_COLUMNS: Final = (
    "number, code, fund_id, control_id, account_id, against, currency, amount, partner_id, member_id, link_id, enrolment_id,"
    " product, sponsor_id, contributed_on, contributed, window_start, tier, rule_version, remittance_id, remittance, transaction_id"
)
PARTS: Final = {
    chart.SPONSOR_COMMITTED.name: "committed",
    chart.MATCH_UNVESTED.name: "unvested",
    chart.MATCH_VESTED.name: "vested",
    codes.AWAITING: "awaiting",
}
"""Parts of a sponsor's share of a match, by the code of the rows that open them."""


@dataclass(slots=True)
class Resolved:
    """One row as it will be posted; fields as in `products.opening_row`."""

    row: Row
    code: Code
    fund_id: UUID
    control_id: UUID
    currency: str
    amount: int
    account_id: UUID | None = None
    against: UUID | None = None
    partner_id: UUID | None = None
    member_id: UUID | None = None
    link_id: UUID | None = None
    enrolment_id: UUID | None = None
    product: str | None = None
    sponsor_id: UUID | None = None
    contributed_on: date | None = None
    contributed: int = 0
    window_start: date | None = None
    tier: int | None = None
    rule_version: int | None = None
    remittance_id: str | None = None
    remittance: UUID | None = None

    @property
    def group(self) -> UUID | None:
        """Whose rows stay together in one transaction."""
        return self.enrolment_id or self.member_id


@dataclass(slots=True)
class Staged:
    """A row as it was staged, on its way into the books; fields as in `products.opening_row`."""

    number: int
    code: str
    fund_id: UUID
    control_id: UUID
    account_id: UUID | None
    against: UUID | None
    currency: str
    amount: int
    partner_id: UUID | None
    member_id: UUID | None
    link_id: UUID | None
    enrolment_id: UUID | None
    product: str | None
    sponsor_id: UUID | None
    contributed_on: date | None
    contributed: int
    window_start: date | None
    tier: int | None
    rule_version: int | None
    remittance_id: str | None
    remittance: UUID | None
    transaction_id: UUID | None

    def named(self, load: str) -> str:
        """How the partner knows its remittance; a name of ours where the file has none. ``load`` is `opn_…`."""
        return self.remittance_id or self.name_of_ours(load)

    def name_of_ours(self, load: str) -> str:
        """A name that nobody else gives a remittance."""
        return f"opening-{load}-{self.number}"

    def postings(self) -> tuple[Posting, ...]:
        """The row against the control account; what a partner still owes of it is posted with it."""
        if self.account_id is None or not self.amount:
            return ()
        debit = codes.debit_normal(codes.code_of(self.code)) == (self.amount > 0)
        pair = (self.account_id, self.control_id) if debit else (self.control_id, self.account_id)
        made = Posting(*pair, abs(self.amount), self.currency)
        if self.against is None:
            return (made,)
        return (made, Posting(self.against, self.control_id, self.contributed, self.currency))


def staged_rows(tx: Tx, load_id: UUID, batch: int) -> list[Staged]:
    """A batch's rows, in their order."""
    found = cursor(tx).execute(
        f"SELECT {_COLUMNS} FROM products.opening_row WHERE load_id = %s AND batch = %s ORDER BY number",
        (load_id, batch),
    )
    return [Staged(*row) for row in found.fetchall()]


def shares_of(rows: Sequence[Staged]) -> dict[tuple[UUID, date, UUID], Share]:
    """What the rows open of each sponsor's share, by enrolment, window and sponsor."""
    parts: defaultdict[tuple[UUID, date, UUID], defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        if row.code in PARTS and row.enrolment_id and row.window_start and row.sponsor_id:
            parts[row.enrolment_id, row.window_start, row.sponsor_id][PARTS[row.code]] += row.amount
    return {key: Share(**share) for key, share in parts.items()}
