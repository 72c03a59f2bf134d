"""Bank statements: bringing a file in, and who may see which bank account. For the API, the command line and the watched folder."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Final
from uuid import UUID

from sqlalchemy import text

from api.bootstrap import Services
from integrations.bank_statements import csv_mapping
from integrations.bank_statements.canonical import Format, Told
from integrations.bank_statements.detect import HEAD_BYTES, detect
from integrations.bank_statements.reading import read
from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound
from ledger.reconciliation import bank_accounts, importing, rules
from ledger.reconciliation.bank_accounts import BankAccount
from ledger.reconciliation.files import NewFile
from ledger.reconciliation.importing import Imported, Wanted
from products import chart

STATEMENT: Final = "bst"
LINE: Final = "bsl"
FILE: Final = "bsf"
ACCOUNT: Final = "bac"
COUNTERPARTY: Final = "bcp"
"""Prefixes of public ids."""

NAME_CHARACTERS_MAX: Final = 200
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ask:
    """How a file is to be brought in. `mapping` is how CSV is read; the account's own when left out."""

    name: str
    by: str
    account: str | None = None
    only: frozenset[str] | None = None
    fmt: Format | None = None
    mapping: Mapping[str, Any] | None = None
    told: Told = field(default_factory=Told)
    funds: frozenset[UUID] | None = None


def bring_in(
    tx: Tx,
    services: Services,
    content: BinaryIO,
    ask: Ask,
    *,
    progress: Callable[[int], None] | None = None,
    watch: Callable[[int], None] = lambda _: None,
) -> tuple[Imported, str]:
    """Bring in a file whole, or nothing of it; and its SHA-256. As the worker's role.

    `progress` is told the bytes read, `watch` the lines that are in.

    Raises `UnknownFormat`, `InvalidStatement`, `UnknownBankAccount`, `DoesNotAddUp`, NotFound.
    """
    digest, size = digest_of(content)
    account = bank_accounts.by_slug(tx, ask.account, funds=ask.funds) if ask.account is not None else None
    for slug in ask.only or ():
        bank_accounts.by_slug(tx, slug, funds=ask.funds)
    fmt = ask.fmt or detect(content.read(HEAD_BYTES))
    mapping = _mapping(ask, account) if fmt is Format.CSV else None
    told = ask.told
    if fmt is Format.CSV and account is not None:
        told = Told(
            told.account or account.identification,
            told.currency or account.currency,
            told.opening,
            told.closing,
            told.from_on,
            told.to_on,
        )
    imported = importing.import_(
        tx,
        services.keyring,
        services.clock,
        content,
        NewFile(digest, shown_name(ask.name), fmt.value, size, ask.by),
        partial(
            read,
            fmt=fmt,
            mapping=mapping,
            today=services.clock.now().date(),
            told=told,
            progress=progress,
        ),
        rules_of=rules.of_account,
        wanted=Wanted(ask.funds, account, ask.only),
        watch=watch,
    )
    return imported, digest.hex()


def digest_of(content: BinaryIO) -> tuple[bytes, int]:
    """The SHA-256 of a stream from its beginning, and its length in bytes; it stands at its beginning again."""
    content.seek(0)
    summed, size = hashlib.sha256(), 0
    while chunk := content.read(_CHUNK):
        summed.update(chunk)
        size += len(chunk)
    content.seek(0)
    if not size:
        raise InvalidInput("The file is empty.")
    return summed.digest(), size


def funds_of(tx: Tx, programmes: Collection[UUID] | None) -> frozenset[UUID] | None:
    """The funds of programmes, where row-level security does not hold (None: all)."""
    if programmes is None:
        return None
    found = tx.execute(
        text(
            "SELECT fund_id FROM products.programme_fund WHERE programme_id = ANY (:programmes)"
            " UNION SELECT fund_id FROM products.sponsor WHERE programme_id = ANY (:programmes)"
        ),
        {"programmes": list(programmes)},
    )
    return frozenset(found.scalars())


def mirrored_account(
    tx: Tx, fund: str, currency: str, rail: str | None, *, funds: Collection[UUID] | None = None
) -> UUID:
    """The ledger account that a bank account of a fund and currency mirrors: `bank`, or a rail's float. Raises NotFound."""
    found = tx.execute(
        text(
            "SELECT a.id, a.fund_id FROM ledger.account a JOIN ledger.fund f ON f.id = a.fund_id"
            " WHERE f.code = :fund AND a.currency = :currency AND a.code = :code AND a.owner = :owner AND a.closed_at IS NULL"
        ),
        {
            "fund": fund,
            "currency": currency,
            "code": chart.BANK.name if rail is None else chart.RAIL_FLOAT.name,
            "owner": rail or "",
        },
    ).one_or_none()
    if found is None or (funds is not None and found.fund_id not in funds):
        what = "no bank account" if rail is None else f"no float of the rail {rail}"
        raise NotFound(f"The books have {what} of the fund {fund} in {currency}.")
    account_id: UUID = found.id
    return account_id


def _mapping(ask: Ask, account: BankAccount | None) -> csv_mapping.StatementMapping:
    given = (
        ask.mapping
        if ask.mapping is not None
        else (account.statement_mapping if account is not None else None)
    )
    if given is None:
        raise InvalidInput(
            "CSV is read by a mapping: say which bank account the file is of, and give the account its mapping."
        )
    return csv_mapping.parse(given)


def shown_name(given: str) -> str:
    """A file's name as it is shown: without its folders, without what can't be seen."""
    bare = given.replace("\\", "/").rpartition("/")[2]
    return "".join(one for one in bare if one.isprintable())[:NAME_CHARACTERS_MAX] or "statement"
