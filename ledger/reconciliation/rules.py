"""The rules by which lines and items are paired: data, validated, versioned for each bank account."""

from dataclasses import dataclass
from uuid import UUID

from ledger.database import Tx


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a bank account, in the order in which they are tried. Version 0 comes with the program."""

    version: int

    def identifiers_in(self, text: str) -> tuple[str, ...]:
        """What the patterns find in a line's free text: each in upper case, without spaces, once."""
        raise NotImplementedError

    def party_of(self, counterparty: str | None, account: str | None, text: str) -> str | None:
        """Who the other side of a line is, by the first of `parties` that fits; None if nobody."""
        raise NotImplementedError


def of_account(tx: Tx, bank_account_id: UUID) -> Rules:
    """The newest version that was applied to a bank account, or the rules that come with the program."""
    raise NotImplementedError
