"""What a resolution does to the books and to the pairings; and how what it did is told, so that a preview is what happens.

Both sides of a posting lie in one fund; what another fund bears or gets crosses by due-to and due-from. Each posting on a bank
account makes an item, and every such item is paired in the same transaction: with the break's lines, or with the posting that it
takes back.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from ledger.accounts import open_accounts
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from ledger.posting import Posting, Transaction, post
from ledger.reconciliation.pairings import BY_HAND, AlreadyPaired, Proposal
from products import chart
from products.reconciliation.breaks.choices import BOOKABLE, OF_ADMINISTRATOR, Choice, Target
from products.reconciliation.effects import Effect, confirm, pair
from products.reconciliation.postings import Line, books_day, mirrored, receive
from products.reconciliation.postings import lines as lines_of
from products.remittances.context import Books

KIND: Final = "break_resolved"


class DoesNotAddUp(InvalidInput):
    """What was chosen is more or less than what is there."""

    code = "resolution_does_not_add_up"


class NotALoss(InvalidInput):
    """Only what is lost is written off: what came in belongs to somebody."""

    code = "not_a_loss"


class NotBookable(InvalidInput):
    """Nothing of this break can be booked or paired: it ends otherwise."""

    code = "not_bookable"


class Refused(Conflict):
    """The books refuse what was chosen, now."""

    code = "resolution_refused"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a break is of, where it can be paired or booked: a statement line or an item. ``amount``: signed minor units."""

    kind: str
    id: UUID
    source: str | None
    bank_account_id: UUID
    fund_id: UUID
    account_id: UUID
    programme_id: UUID
    amount: int
    currency: str
    on_date: date


@dataclass(slots=True)
class Done:
    """What was done: the transactions in their order, the pairings, and the bank's side of it by account."""

    transactions: list[UUID] = field(default_factory=list)
    pairings: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Item:
    id: UUID
    source: str
    bank_account_id: UUID
    account_id: UUID
    amount: int


def subject_of(tx: Tx, kind: str, subject: str, programme_id: UUID) -> Subject:
    """The line or item of a break. Raises `NotBookable` for other subjects, `Conflict` when it is not open any more."""
    if kind not in ("line", "item"):
        raise NotBookable("Nothing of it is on a bank account: it waits, is explained, or ends by itself.")
    columns, table, paired = (
        ("NULL, x.booked_on", "ledger.statement_line", "ledger.paired_line p WHERE p.line_id")
        if kind == "line"
        else ("x.source, x.on_date", "ledger.item", "ledger.paired_item p WHERE p.item_id")
    )
    row = (
        cursor(tx)
        .execute(
            f"SELECT x.id, {columns}, x.bank_account_id, x.amount, x.currency, b.fund_id, b.account_id FROM {table} x"
            f" JOIN ledger.bank_account b ON b.id = x.bank_account_id WHERE x.id = %s AND NOT EXISTS (SELECT FROM {paired} = x.id)",
            (UUID(subject),),
        )
        .fetchone()
    )
    if row is None:
        raise AlreadyPaired("It is paired already.")
    id_, source, on_date, bank, amount, currency, fund, account = row
    return Subject(kind, id_, source, bank, fund, account, programme_id, amount, currency, on_date)


class Resolving:
    """One resolution while it is carried out."""

    def __init__(self, tx: Tx, books: Books, resolution_id: UUID, subject: Subject, actor: str) -> None:
        self.tx = tx
        self.books = books
        self.resolution_id = resolution_id
        self.subject = subject
        self.actor = actor
        self.done = Done()

    def carry_out(self, choice: Choice) -> Done:
        """Post and pair what was chosen. Raises `InvalidInput` and `Conflict` for what can't be done."""
        subject = self.subject
        lines = [subject.id] if subject.kind == "line" else []
        items = [subject.id] if subject.kind == "item" else []
        match choice.method:
            case "pair":
                self._pair([*lines, *choice.lines], [*items, *choice.items], choice.to)
            case "book" if choice.to is not None:
                self._settle(lines, items, [(self._correction, choice.to)])
            case "write_off":
                if self._correction > 0:
                    raise NotALoss(
                        "More is there than the books know: book it to the account of who it is for."
                    )
                self._settle(lines, items, [(self._correction, Target(chart.ADMINISTRATOR_COST.name))])
            case "split":
                booked = [(part.amount, part.to) for part in choice.parts if part.to is not None]
                paired = [part.item for part in choice.parts if part.item is not None]
                self._split(lines, items, choice, booked, paired)
            case _:
                raise InvalidInput(f"nothing is booked by {choice.method}", pointer="/method")
        return self.done

    @property
    def _correction(self) -> int:
        """By what the bank account's books move when the break is booked: with the bank, or back from what it never saw."""
        return self.subject.amount if self.subject.kind == "line" else -self.subject.amount

    def _pair(self, lines: Sequence[UUID], items: Sequence[UUID], to: Target | None) -> None:
        found = _items(self.tx, items)
        expected = [one for one in found if one.source != "booked"]
        if expected:
            self._confirm(lines, found, to)
            return
        difference = _sum_of_lines(self.tx, lines, self.subject) - sum(one.amount for one in found)
        if difference and to is None:
            raise DoesNotAddUp(
                f"the lines and the items differ by {difference} minor units: say to which account",
                pointer="/to",
            )
        if not difference and to is not None:
            raise DoesNotAddUp("the lines and the items are equal: nothing is booked", pointer="/to")
        self._settle(lines, items, [(difference, to)] if to is not None else [])

    def _split(
        self,
        lines: Sequence[UUID],
        items: Sequence[UUID],
        choice: Choice,
        booked: Sequence[tuple[int, Target]],
        paired: Sequence[UUID],
    ) -> None:
        total = sum(part.amount for part in choice.parts)
        if total != self._correction:
            raise DoesNotAddUp(
                f"the parts come to {total} minor units, the break to {self._correction}", pointer="/parts"
            )
        amounts = {one.id: one.amount for one in _items(self.tx, paired)}
        for place, part in enumerate(choice.parts):
            if part.item is not None and amounts[part.item] != part.amount:
                raise DoesNotAddUp("a part has the amount of its item", pointer=f"/parts/{place}/amount")
        self._settle(lines, [*items, *paired], booked)

    def _confirm(self, lines: Sequence[UUID], items: Sequence[_Item], to: Target | None) -> None:
        """Pair with payments or settlements that the books only expect: what that means is posted by their own rules."""
        if any(
            one.source == "booked" or one.bank_account_id != self.subject.bank_account_id for one in items
        ):
            raise InvalidInput(
                "expected items are paired by themselves, on their own bank account", pointer="/items"
            )
        difference = _sum_of_lines(self.tx, lines, self.subject) - sum(one.amount for one in items)
        goes = chart.UNIDENTIFIED_RECEIPTS if difference > 0 else chart.BANK_CHARGES
        if difference and (to is None or to != Target(goes.name)):
            raise DoesNotAddUp(
                f"the lines and what is expected differ by {difference} minor units: say that they go to {goes.name}, or book"
                f" the line to {chart.UNIDENTIFIED_RECEIPTS.name}",
                pointer="/to",
            )
        if not difference and to is not None:
            raise DoesNotAddUp("the lines and the items are equal: nothing is booked", pointer="/to")
        proposal = Proposal(
            self.subject.bank_account_id,
            tuple(lines),
            tuple(one.id for one in items),
            BY_HAND,
            self._evidence,
            difference,
        )
        self.done.pairings.append(confirm(self.tx, self.books, proposal, made_by=self.actor))

    def _settle(
        self, lines: Sequence[UUID], items: Sequence[UUID], booked: Sequence[tuple[int, Target]]
    ) -> None:
        """Book the parts, bring items of other bank accounts here, and pair everything on each bank account."""
        subject = self.subject
        found = _items(self.tx, items)
        if any(one.source != "booked" for one in found):
            raise InvalidInput(
                "what the books only expect is paired with a line, and not booked", pointer="/items"
            )
        received = [amount for amount, to in booked if to.account == chart.UNIDENTIFIED_RECEIPTS.name]
        moves = [
            self._moves(amount, self._account(to))
            for amount, to in booked
            if to.account != chart.UNIDENTIFIED_RECEIPTS.name
        ]
        # a line's other side on another bank account is moved here: the money is where the bank says that it is
        moves += [
            self._moves(one.amount, one.account_id)
            for one in found
            if one.bank_account_id != subject.bank_account_id
        ]
        own = lines_of(self.tx, lines)
        transaction = self._post([move for part in moves for move in part])
        of_account: dict[UUID, list[UUID]] = {
            account: [] for account in {subject.bank_account_id, *(one.bank_account_id for one in found)}
        }
        for one in found:
            of_account[one.bank_account_id].append(one.id)
        effects = [Effect("booked", self.resolution_id, transaction)] if transaction else []
        effects += self._received(own, received)
        for bank_account, here in sorted(of_account.items()):
            self.done.pairings.append(
                pair(
                    self.tx,
                    self.books,
                    mirrored(self.tx, bank_account),
                    own if bank_account == subject.bank_account_id else (),
                    effects,
                    rule=BY_HAND,
                    evidence=self._evidence,
                    made_by=self.actor,
                    booked=here,
                )
            )

    def _received(self, lines: Sequence[Line], amounts: Sequence[int]) -> list[Effect]:
        """Money whose sender is not known is a receipt, until somebody knows: no bare balance."""
        if not amounts:
            return []
        if self.subject.kind != "line" or len(amounts) > 1 or amounts[0] < 0:
            raise InvalidInput(
                "unidentified receipts take what came in with a statement line, once", pointer="/to/account"
            )
        at = mirrored(self.tx, self.subject.bank_account_id)
        receipt, transaction = receive(self.tx, self.books, at, lines[0], amounts[0], by=self.actor)
        self.done.transactions.append(transaction)
        return [Effect("receipt", receipt, transaction)]

    @property
    def _evidence(self) -> dict[str, Any]:
        return {"resolution": str(self.resolution_id)}

    # -- accounts and postings -----------------------------------------------------------------------------------

    def _account(self, to: Target) -> UUID:
        """The account that a target names, in a fund of the programme. Raises `InvalidInput`."""
        fund = self._fund(to)
        code, currency = BOOKABLE[to.account], self.subject.currency
        row = self.tx.execute(
            text(
                "SELECT id FROM ledger.account WHERE fund_id = :fund AND code = :code AND owner = :owner"
                " AND currency = :currency AND closed_at IS NULL"
            ),
            {"fund": fund, "code": code.name, "owner": to.owner, "currency": currency},
        ).one_or_none()
        if row is not None:
            found: UUID = row.id
            return found
        if to.owner or code in (
            chart.BANK,
            chart.RAIL_FLOAT,
            chart.SPONSOR_UNCOMMITTED,
            chart.GUARANTOR_RECEIVABLE,
        ):
            raise InvalidInput(
                f"there is no account {to.account} of “{to.owner}” there", pointer="/to/account"
            )
        [opened] = open_accounts(self.tx, [chart.spec(code, fund, "", currency)])
        return opened

    def _fund(self, to: Target) -> UUID:
        programme = self.tx.execute(
            text("SELECT slug, name, time_zone FROM products.programme WHERE id = :id"),
            {"id": self.subject.programme_id},
        ).one()
        if to.account in OF_ADMINISTRATOR:
            return chart.open_administrator_fund(
                self.tx, programme.slug, programme.name, programme.time_zone, self.subject.currency
            )
        if to.fund is None:
            return self.subject.fund_id
        found = self.tx.execute(
            text(
                "SELECT f.id FROM ledger.fund f LEFT JOIN products.programme_fund p ON p.fund_id = f.id"
                " WHERE f.code = :code AND (p.programme_id = :programme OR f.code = :administrator)"
            ),
            {
                "code": to.fund,
                "programme": self.subject.programme_id,
                "administrator": f"{programme.slug}/{chart.ADMINISTRATOR}",
            },
        ).scalar_one_or_none()
        if found is None:
            raise InvalidInput(f"the programme has no fund {to.fund}", pointer="/to/fund")
        fund: UUID = found
        return fund

    def _moves(self, amount: int, account: UUID) -> list[Posting]:
        """What moves when the bank account gains ``amount`` (or loses it, if negative) from an account of any fund."""
        subject = self.subject
        fund = self.tx.execute(
            text("SELECT fund_id FROM ledger.account WHERE id = :id"), {"id": account}
        ).scalar_one()
        size, gains = abs(amount), amount > 0
        if account == subject.account_id:
            raise InvalidInput("the bank account can't be booked to itself", pointer="/to/account")

        def posting(debit: UUID, credit: UUID) -> Posting:
            return Posting(debit, credit, size, subject.currency)

        if fund == subject.fund_id:
            ends = (subject.account_id, account) if gains else (account, subject.account_id)
            return [posting(*ends)]
        [due_to, due_from] = [
            self._between(subject.fund_id if gains else fund, chart.DUE_TO_FUNDS),
            self._between(fund if gains else subject.fund_id, chart.DUE_FROM_FUNDS),
        ]
        if gains:
            return [posting(subject.account_id, due_to), posting(due_from, account)]
        return [posting(due_from, subject.account_id), posting(account, due_to)]

    def _between(self, fund: UUID, code: chart.Code) -> UUID:
        [account] = open_accounts(self.tx, [chart.spec(code, fund, "", self.subject.currency)])
        return account

    def _post(self, postings: Sequence[Posting]) -> UUID | None:
        if not postings:
            return None
        funds = self.tx.execute(
            text("SELECT DISTINCT fund_id FROM ledger.account WHERE id = ANY (:ids)"),
            {"ids": [end for one in postings for end in (one.debit, one.credit)]},
        ).scalars()
        at = mirrored(self.tx, self.subject.bank_account_id)
        on = books_day(self.tx, self.books, at, self.subject.on_date, sorted(funds))
        reference = f"break:{self.resolution_id}"
        digest = hashlib.sha256(
            json.dumps([[one.debit.hex, one.credit.hex, one.amount] for one in postings]).encode()
        ).digest()
        transaction = Transaction(
            reference,
            KIND,
            on,
            tuple(postings),
            digest,
            id=new_id(),
            details={"resolution": str(self.resolution_id)},
        )
        [outcome] = post(self.tx, [transaction], clock=self.books.clock)
        if outcome.status != "posted" or outcome.transaction_id is None:
            raise Refused(f"The books refuse it: {outcome.reason or outcome.status}.")
        self.done.transactions.append(outcome.transaction_id)
        return outcome.transaction_id


def _items(tx: Tx, ids: Sequence[UUID]) -> list[_Item]:
    rows = tx.execute(
        text(
            "SELECT i.id, i.source, i.bank_account_id, b.account_id, i.amount FROM ledger.item i"
            " JOIN ledger.bank_account b ON b.id = i.bank_account_id WHERE i.id = ANY (:ids) AND i.closed_at IS NULL"
        ),
        {"ids": list(ids)},
    ).all()
    if len(set(ids)) != len(ids) or len(rows) != len(ids):
        raise NotFound("One of the items is not there.")
    return [_Item(*row) for row in rows]


def _sum_of_lines(tx: Tx, ids: Sequence[UUID], subject: Subject) -> int:
    rows = tx.execute(
        text("SELECT amount FROM ledger.statement_line WHERE id = ANY (:ids) AND bank_account_id = :bank"),
        {"ids": list(ids), "bank": subject.bank_account_id},
    ).all()
    if len(set(ids)) != len(ids) or len(rows) != len(ids):
        raise NotFound("One of the lines is not there.")
    return sum(row.amount for row in rows)
