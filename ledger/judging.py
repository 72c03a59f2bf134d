"""Judging transactions one by one against accounts that are locked: pure rules, the same as the database's trigger.

An account's balance is on its normal side (assets and expenses: debits less credits; the others: credits less debits).
Its floor bounds what is left after holds, its ceiling the balance itself; only the movement that makes it worse is judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from ledger.transactions import Posting, Reason, Transaction

BALANCE_MAX = 2**62
"""Debits and credits of an account stay below this: far from where a bigint ends."""


@dataclass(slots=True)
class Account:
    """A locked account and its running balance."""

    id: UUID
    fund_id: UUID
    currency: str
    debit_normal: bool
    floor: int | None
    ceiling: int | None
    closed: bool
    closed_through: date
    debits: int
    credits: int
    held: int

    @property
    def balance(self) -> int:
        """The normal-side balance, in minor units."""
        return self.debits - self.credits if self.debit_normal else self.credits - self.debits

    def room_to_debit(self) -> int | None:
        """How much may still be debited, at least 0; None: as much as one likes."""
        if self.debit_normal:
            return None if self.ceiling is None else max(0, self.ceiling - self.balance)
        return None if self.floor is None else max(0, self.balance - self.held - self.floor)


@dataclass(frozen=True, slots=True)
class Hold:
    """An active hold on a locked account."""

    id: UUID
    account_id: UUID
    amount: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted with these postings, or refused for a reason, by an account."""

    reason: Reason | None
    account_id: UUID | None
    postings: tuple[Posting, ...]
    captured: int = 0


class _RefusedError(Exception):
    def __init__(self, reason: Reason, account_id: UUID | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.account_id = account_id


class Bench:
    """Judges transactions in order; what is accepted counts for the next."""

    def __init__(self, accounts: Mapping[UUID, Account], holds: Mapping[UUID, Hold]) -> None:
        self._accounts = accounts
        self._holds = dict(holds)

    def judge(self, transaction: Transaction) -> Verdict:
        """Accept, moving the balances, or refuse, leaving no trace."""
        before: dict[UUID, tuple[int, int, int]] = {}
        posted: list[Posting] = []
        captured = 0
        try:
            self._check_accounts(transaction)
            hold = self._take_hold(transaction, before)
            for posting in transaction.postings:
                for part in self._parts(posting):
                    self._move(part, before)
                    posted.append(part)
            if hold is not None:
                captured = self._captured(hold, posted)
        except _RefusedError as refusal:
            for account_id, (debits, credits_, held) in before.items():
                account = self._accounts[account_id]
                account.debits, account.credits, account.held = debits, credits_, held
            return Verdict(refusal.reason, refusal.account_id, ())
        if hold is not None:
            del self._holds[hold.id]
        return Verdict(None, None, tuple(posted), captured)

    def _check_accounts(self, transaction: Transaction) -> None:
        for posting in transaction.postings:
            fund_id = None
            for account_id in accounts_of(posting):
                account = self._accounts.get(account_id)
                if account is None:
                    raise _RefusedError("unknown_account", account_id)
                if fund_id not in (None, account.fund_id):
                    raise _RefusedError("fund_mismatch", account_id)
                if account.currency != posting.currency:
                    raise _RefusedError("currency_mismatch", account_id)
                if transaction.effective_on <= account.closed_through:
                    raise _RefusedError("period_closed", account_id)
                if account.closed:
                    raise _RefusedError("account_closed", account_id)
                fund_id = account.fund_id

    def _take_hold(self, transaction: Transaction, before: dict[UUID, tuple[int, int, int]]) -> Hold | None:
        if transaction.captures is None:
            return None
        hold = self._holds.get(transaction.captures)
        if hold is None:
            raise _RefusedError("hold_ended")
        account = self._accounts[hold.account_id]
        before[account.id] = (account.debits, account.credits, account.held)
        account.held -= hold.amount
        return hold

    def _captured(self, hold: Hold, posted: Sequence[Posting]) -> int:
        debit_normal = self._accounts[hold.account_id].debit_normal
        taken = sum(p.amount for p in posted if (p.credit if debit_normal else p.debit) == hold.account_id)
        if not 0 < taken <= hold.amount:
            raise _RefusedError("hold_exceeded", hold.account_id)
        return taken

    def _parts(self, posting: Posting) -> list[Posting]:
        if posting.rest_from is None:
            return [posting]
        return split(posting, self._accounts[posting.debit].room_to_debit())

    def _move(self, posting: Posting, before: dict[UUID, tuple[int, int, int]]) -> None:
        for account_id in (posting.debit, posting.credit):
            account = self._accounts[account_id]
            before.setdefault(account_id, (account.debits, account.credits, account.held))
            if account_id == posting.debit:
                account.debits += posting.amount
            else:
                account.credits += posting.amount
            worse_by_falling = (account_id == posting.credit) == account.debit_normal
            if (
                worse_by_falling
                and account.floor is not None
                and account.balance - account.held < account.floor
            ):
                raise _RefusedError("insufficient_funds", account_id)
            if not worse_by_falling and account.ceiling is not None and account.balance > account.ceiling:
                raise _RefusedError("ceiling_exceeded", account_id)
            if max(account.debits, account.credits) > BALANCE_MAX:
                raise _RefusedError("ceiling_exceeded", account_id)


def accounts_of(posting: Posting) -> tuple[UUID, ...]:
    """Every account that the posting may touch."""
    if posting.rest_from is None:
        return (posting.debit, posting.credit)
    return (posting.debit, posting.credit, posting.rest_from)


def split(posting: Posting, room: int | None) -> list[Posting]:
    """The posting without ``rest_from``: what there is room for from its account, the rest from the other."""
    whole = Posting(posting.debit, posting.credit, posting.amount, posting.currency)
    if posting.rest_from is None or room is None or room >= posting.amount:
        return [whole]
    rest = Posting(posting.rest_from, posting.credit, posting.amount - room, posting.currency)
    if room == 0:
        return [rest]
    return [Posting(posting.debit, posting.credit, room, posting.currency), rest]
