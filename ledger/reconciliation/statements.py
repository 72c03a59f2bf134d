"""What a bank statement says, in one shape for every format: a head, its lines, an end.

A reader of a format (`integrations.bank_statements`) yields `StatementHead`, then its `Line`s, then one `StatementEnd`, for each
statement of a file. Every amount is signed minor units as the account's holder sees it: positive when money came in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class StatementHead:
    """Opens one statement of one account.

    `position` counts the statements of the file from 1; `account` is the IBAN or the bank's own number, without spaces and in
    upper case; `identification` is the bank's id of this statement, `number` its running number, as they were written. `opening`
    is signed minor units.
    """

    position: int
    account: str
    currency: str
    identification: str | None
    number: str | None
    from_on: date
    to_on: date
    opening: int
    created: datetime | None


@dataclass(frozen=True, slots=True)
class Line:
    """One entry, or one of the transactions of an entry that the bank booked as one.

    `entry` counts the statement's entries from 1; `detail` is 0 for an entry without details and counts them from 1 otherwise.
    `amount` is signed minor units, a reversal's sign already turned. `kind` is the bank's own code, such as `PMNT/RCDT/ESCT` or
    `NTRF`. `end_to_end` is what the payer gave for us to know it by (never `NOTPROVIDED`), `reference` the servicer's own
    reference, `references` every other one. `text` is all free text, joined.
    """

    entry: int
    detail: int
    booked_on: date
    value_on: date
    amount: int
    currency: str
    kind: str | None
    reversal: bool
    end_to_end: str | None
    reference: str | None
    references: tuple[str, ...]
    counterparty: str | None
    counterparty_account: str | None
    text: str


@dataclass(frozen=True, slots=True)
class StatementEnd:
    """Closes a statement: the bank's closing balance, how many lines were read, and the opening balance it had said.

    `skipped` counts the entries that are no lines: not booked (pending, for information), or of no money.
    """

    closing: int
    lines: int
    opening: int
    skipped: int = 0


StatementEvent = StatementHead | Line | StatementEnd
StatementEvents = Iterable[StatementEvent]
