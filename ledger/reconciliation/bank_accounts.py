"""Bank accounts: an account at a bank, or a rail's wallet, and the one ledger account that mirrors it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import AccountError, InvalidInput, NotFound
from ledger.ids import new_id

IDENTIFICATION_CHARACTERS_MAX: Final = 70
NAMES_MAX: Final = 20
"""In how many other ways the number of one account is written at most."""

_LOCK_CLASS: Final = 0x4D5C
"""Advisory lock: who gives numbers to bank accounts, so that none is given twice."""


class UnknownBankAccount(InvalidInput):
    """A statement is of an account that nobody has added; the detail names it."""

    code = "unknown_bank_account"


@dataclass(frozen=True, slots=True)
class BankAccount:
    """An account at a bank. `statement_mapping` says how its CSV files are read, where it has any."""

    id: UUID
    slug: str
    name: str
    fund_id: UUID
    fund: str
    account_id: UUID
    code: str
    owner: str
    currency: str
    identification: str
    also_known_as: Sequence[str]
    servicer: str | None
    statements_since: date
    statements_until: date | None
    statement_mapping: Mapping[str, Any] | None
    opened_at: datetime

    @property
    def numbers(self) -> frozenset[str]:
        """Everything that statements call it."""
        return frozenset((self.identification, *self.also_known_as))


@dataclass(frozen=True, slots=True)
class NewBankAccount:
    """What is said of a bank account that is added; `account_id` is the ledger account that mirrors it."""

    slug: str
    name: str
    account_id: UUID
    identification: str
    statements_since: date
    also_known_as: tuple[str, ...] = ()
    servicer: str | None = None
    statements_until: date | None = None


_SELECT = """
    SELECT b.id, b.slug, b.name, b.fund_id, f.code, b.account_id, a.code, a.owner, b.currency, b.identification, b.also_known_as,
           b.servicer, b.statements_since, b.statements_until, b.statement_mapping, b.opened_at
    FROM ledger.bank_account b JOIN ledger.fund f ON f.id = b.fund_id JOIN ledger.account a ON a.id = b.account_id
"""


def normalised(number: str) -> str:
    """An account's number as it is compared: without spaces, in upper case. Raises `InvalidInput` for none."""
    found = re.sub(r"\s", "", number).upper()
    if not found or len(found) > IDENTIFICATION_CHARACTERS_MAX or not found.isprintable():
        raise InvalidInput(f"An account's number has 1 to {IDENTIFICATION_CHARACTERS_MAX} characters.")
    return found


def add(tx: Tx, clock: Clock, new: NewBankAccount) -> BankAccount:
    """Add a bank account; nothing is booked by it. As the worker's role.

    Raises `AccountError` when the slug, the ledger account, or one of its numbers in this currency is another's already, and
    `NotFound` when there is no such ledger account.
    """
    numbers = _numbers(new.identification, new.also_known_as)
    with cursor(tx) as sql:
        sql.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_LOCK_CLASS,))
        row = sql.execute(
            "SELECT fund_id, currency FROM ledger.account WHERE id = %s", (new.account_id,)
        ).fetchone()
        if row is None:
            raise NotFound("There is no such ledger account.")
        fund_id, currency = row
        for other in every(tx):
            _refuse_clash(other, new, numbers, currency)
        account_id = new_id()
        sql.execute(
            "INSERT INTO ledger.bank_account (id, slug, name, fund_id, account_id, currency, identification, also_known_as,"
            " servicer, statements_since, statements_until, opened_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                account_id,
                new.slug,
                new.name,
                fund_id,
                new.account_id,
                currency,
                numbers[0],
                numbers[1:],
                new.servicer,
                new.statements_since,
                _until(new.statements_since, new.statements_until),
                clock.now(),
            ),
        )
    return by_id(tx, account_id)


def change(tx: Tx, account_id: UUID, **changes: Any) -> BankAccount:  # what a column holds
    """Change `name`, `also_known_as`, `servicer`, `statements_since`, `statements_until` or `statement_mapping`.

    Its number, its currency and the ledger account that mirrors it stay for ever. As the worker's role.
    """
    with cursor(tx) as sql:
        sql.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_LOCK_CLASS,))
        now = by_id(tx, account_id)
        until = changes.get("statements_until", now.statements_until)
        _until(changes.get("statements_since", now.statements_since), until)
        if "also_known_as" in changes:
            numbers = _numbers(now.identification, changes["also_known_as"])
            for other in every(tx):
                if (
                    other.id != now.id
                    and other.currency == now.currency
                    and not other.numbers.isdisjoint(numbers)
                ):
                    raise AccountError(f"That number is known as the bank account {other.slug}.")
            changes["also_known_as"] = numbers[1:]
        if "statement_mapping" in changes:
            mapping = changes["statement_mapping"]
            changes["statement_mapping"] = None if mapping is None else Jsonb(mapping)
        sql.execute(
            "UPDATE ledger.bank_account SET name = coalesce(%(name)s, name),"
            " also_known_as = coalesce(%(also_known_as)s, also_known_as),"
            " servicer = CASE WHEN %(servicer?)s THEN %(servicer)s ELSE servicer END,"
            " statements_since = coalesce(%(statements_since)s, statements_since),"
            " statements_until = CASE WHEN %(statements_until?)s THEN %(statements_until)s ELSE statements_until END,"
            " statement_mapping = CASE WHEN %(statement_mapping?)s THEN %(statement_mapping)s ELSE statement_mapping END"
            " WHERE id = %(id)s",
            {
                "id": account_id,
                **{name: changes.get(name) for name in _CHANGED},
                **{f"{name}?": name in changes for name in _CHANGED},
            },
        )
    return by_id(tx, account_id)


_CHANGED: Final = (
    "name",
    "also_known_as",
    "servicer",
    "statements_since",
    "statements_until",
    "statement_mapping",
)


def every(tx: Tx, *, funds: Collection[UUID] | None = None) -> list[BankAccount]:
    """All bank accounts by slug, or those of the funds."""
    where = " WHERE b.fund_id = ANY (%(funds)s)" if funds is not None else ""
    return _read(tx, f"{_SELECT}{where} ORDER BY b.slug", {"funds": list(funds or ())})


def by_id(tx: Tx, account_id: UUID) -> BankAccount:
    """The bank account. Raises `NotFound`."""
    return _one(_read(tx, f"{_SELECT} WHERE b.id = %(id)s", {"id": account_id}))


def by_slug(tx: Tx, slug: str, *, funds: Collection[UUID] | None = None) -> BankAccount:
    """The bank account of a name, if it is of one of the funds. Raises `NotFound`."""
    found = _read(tx, f"{_SELECT} WHERE b.slug = %(slug)s", {"slug": slug})
    return _one([one for one in found if funds is None or one.fund_id in funds])


def mirrored(tx: Tx, account_id: UUID) -> BankAccount | None:
    """The bank account that a ledger account mirrors."""
    found = _read(tx, f"{_SELECT} WHERE b.account_id = %(id)s", {"id": account_id})
    return found[0] if found else None


def _read(tx: Tx, query: str, values: Mapping[str, Any]) -> list[BankAccount]:
    with cursor(tx) as sql:
        rows = sql.execute(query.encode(), values).fetchall()
    return [BankAccount(*row) for row in rows]


def _one(found: Sequence[BankAccount]) -> BankAccount:
    if not found:
        raise NotFound("There is no such bank account.")
    return found[0]


def _numbers(identification: str, others: Sequence[str]) -> list[str]:
    numbers = list(dict.fromkeys(normalised(one) for one in (identification, *others)))
    if len(numbers) > NAMES_MAX + 1:
        raise InvalidInput(f"An account's number is written in at most {NAMES_MAX} other ways.")
    return numbers


def _refuse_clash(other: BankAccount, new: NewBankAccount, numbers: Sequence[str], currency: str) -> None:
    if other.slug == new.slug:
        raise AccountError("There is a bank account of this name.")
    if other.account_id == new.account_id:
        raise AccountError(f"The ledger account is mirrored already: by the bank account {other.slug}.")
    if other.currency == currency and not other.numbers.isdisjoint(numbers):
        raise AccountError(f"That number is known as the bank account {other.slug}.")


def _until(since: date, until: date | None) -> date | None:
    if until is not None and until < since:
        raise InvalidInput("Statements end before they begin.", pointer="/statements_until")
    return until
