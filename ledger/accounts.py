"""Funds and accounts: opened, limited and closed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import text

from ledger.database import Cursor, Tx, cursor
from ledger.errors import AccountError, NotFound
from ledger.ids import new_id
from ledger.money import exponent

BEYOND: Final = "limit_beyond_balance"
AccountKind = Literal["asset", "liability", "equity", "income", "expense"]


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """An account as it should be: one per fund, code, owner (empty: the fund itself) and currency.

    ``hot`` accounts are touched by most batches and locked last. ``floor`` and ``ceiling`` bound the normal-side
    balance, in minor units; ``partner_id`` lets that partner see it.
    """

    fund_id: UUID
    code: str
    owner: str
    kind: AccountKind
    currency: str
    hot: bool = False
    floor: int | None = None
    ceiling: int | None = None
    partner_id: UUID | None = None


def open_fund(tx: Tx, code: str, name: str, time_zone: str) -> UUID:
    """The fund of this code, opened if need be; ``time_zone`` is an IANA name and decides its *effective on*.

    Raises `AccountError` when the fund exists with another time zone.
    """
    new = {"id": new_id(), "code": code, "name": name, "time_zone": time_zone}
    tx.execute(
        text(
            "insert into ledger.fund (id, code, name, time_zone) values (:id, :code, :name, :time_zone)"
            " on conflict (code) do nothing"
        ),
        new,
    )
    fund = tx.execute(text("select id, time_zone from ledger.fund where code = :code"), {"code": code}).one()
    if fund.time_zone != time_zone:
        raise AccountError(f"the fund {code} keeps its books in {fund.time_zone}")
    return UUID(str(fund.id))


def open_accounts(tx: Tx, specs: Sequence[AccountSpec]) -> list[UUID]:
    """The accounts of these specs, in their order, opened where they are not there yet.

    Opening again changes nothing, limits included. Raises `AccountError` when an account is there with another kind, or
    (``limit_beyond_balance``) when nothing is not within the limits of a new one.
    """
    for currency in {spec.currency for spec in specs}:
        exponent(currency)
    wanted = {_key(spec): spec for spec in specs}
    cur = cursor(tx)
    known = _ids(cur, wanted)
    missing = sorted(wanted.keys() - known.keys())
    if missing:
        rows = [wanted[key] for key in missing]
        for row in rows:
            if (row.floor or 0) > 0 or (row.ceiling or 0) < 0:
                raise AccountError(f"the account {row.code} would open beyond its limits", code=BEYOND)
        cur.execute(
            "insert into ledger.account (id, fund_id, code, owner, kind, currency, hot, floor, ceiling, partner_id)"
            " select * from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bool[],"
            " %s::bigint[], %s::bigint[], %s::uuid[])"
            " on conflict (fund_id, code, owner, currency) do nothing",
            [
                [new_id() for _ in rows],
                [r.fund_id for r in rows],
                [r.code for r in rows],
                [r.owner for r in rows],
                [r.kind for r in rows],
                [r.currency for r in rows],
                [r.hot for r in rows],
                [r.floor for r in rows],
                [r.ceiling for r in rows],
                [r.partner_id for r in rows],
            ],
        )
        # In a new statement: who lost the race can't see the winner's row in the one that lost it.
        known |= _ids(cur, {key: wanted[key] for key in missing})
    for key, spec in wanted.items():
        if known[key][1] != spec.kind:
            raise AccountError(f"the account {spec.code} is there already, as {known[key][1]}")
    return [known[_key(spec)][0] for spec in specs]


def set_limits(tx: Tx, account_id: UUID, *, floor: int | None, ceiling: int | None) -> None:
    """Set the account's limits, for what is posted from now on. Waits until no posting of its fund is under way.

    Raises `AccountError` (``limit_beyond_balance``) when the balance, or what is available of it, is beyond them already:
    to stop an account there, set the limit to what it has.
    """
    limited = tx.execute(
        text("select ledger.set_limits(:id, :floor, :ceiling)"),
        {"id": _known(tx, account_id), "floor": floor, "ceiling": ceiling},
    )
    if not limited.scalar_one():
        raise AccountError("the account is beyond these limits already", code=BEYOND)


def close_account(tx: Tx, account_id: UUID, *, at: datetime) -> None:
    """Close an empty account for ever. Raises `AccountError` when it holds or owes money, or is closed already."""
    closed = tx.execute(
        text("select ledger.close_account(:id, :at)"), {"id": _known(tx, account_id), "at": at}
    )
    if not closed.scalar_one():
        raise AccountError("only an open account with nothing in it, and nothing held, can be closed")


_Key = tuple[UUID, str, str, str]


def _key(spec: AccountSpec) -> _Key:
    return (spec.fund_id, spec.code, spec.owner, spec.currency)


def _ids(cur: Cursor, wanted: dict[_Key, AccountSpec]) -> dict[_Key, tuple[UUID, str]]:
    keys = list(wanted)
    rows = cur.execute(
        "select a.fund_id, a.code, a.owner, a.currency, a.id, a.kind from ledger.account as a"
        " join unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) as k(fund_id, code, owner, currency)"
        " on (a.fund_id, a.code, a.owner, a.currency) = (k.fund_id, k.code, k.owner, k.currency::char(3))",
        [[key[column] for key in keys] for column in range(4)],
    )
    return {(fund, code, owner, currency): (id_, kind) for fund, code, owner, currency, id_, kind in rows}


def _known(tx: Tx, account_id: UUID) -> UUID:
    if tx.execute(text("select 1 from ledger.account where id = :id"), {"id": account_id}).first() is None:
        raise NotFound("no such account")
    return account_id
