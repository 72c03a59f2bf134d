"""The sole writer of the journal.

`post` takes a batch of transactions and answers each: posted, replayed (the same request was posted before), conflict
(another request holds the reference) or rejected with a reason. Locks are taken in one order everywhere: references,
sorted; the books of the funds, shared; cold accounts by id; hot accounts by id.

The fast path claims the references and copies the rows; the database's trigger judges the batch in sets and moves the
balances. When it refuses, everything since the savepoint is undone and the batch is judged item by item under lock.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import psycopg

from ledger.clock import Clock
from ledger.database import Cursor, Tx, cursor
from ledger.errors import NotFound
from ledger.ids import new_id
from ledger.judging import Account, Bench, Hold, accounts_of, split
from ledger.leaves import (
    SALT_BYTES,
    canonical_details,
    days,
    leaf_of,
    microseconds,
    posting_record,
    transaction_fields,
    transaction_record,
)
from ledger.periods import BELONGS_ON, BookDay
from ledger.transactions import BATCH_MAX, Outcome, Posting, Reason, Status, Transaction, check

__all__ = ["Outcome", "Posting", "Reason", "Status", "Transaction", "post", "reverse", "swapped"]

_REFUSED = frozenset({"MZ001", "22003"})  # the trigger's word, or a balance that no bigint holds
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TAIL = b"\xff\xff"
_COPY_TRANSACTIONS = (
    "copy ledger.transaction (id, reference, kind, effective_on, recorded_at, reverses, postings, details, salt, leaf)"
    " from stdin (format binary)"
)
_COPY_POSTINGS = (
    "copy ledger.posting (transaction_id, seq, debit_account, credit_account, amount, currency, effective_on)"
    " from stdin (format binary)"
)


@dataclass(frozen=True, slots=True)
class _Item:
    """A transaction with its id, its place in the batch and the references that it needs for itself."""

    place: int
    id: UUID
    transaction: Transaction
    claims: tuple[str, ...]


def post(
    tx: Tx, batch: Sequence[Transaction], *, clock: Clock, all_or_nothing: bool = False
) -> list[Outcome]:
    """Post the batch and answer each transaction, in the batch's order.

    A refused transaction leaves no trace, its reference stays free, and its neighbours are untouched. With
    ``all_or_nothing`` one refusal refuses all that is new ("batch_rejected"). Transactions are judged in the order of
    their ids; one that repeats a reference of the batch, after the others. Raises `InvalidPosting` for what could never
    be posted, and what the database raises when it can't go on (the caller's whole unit is then undone).
    """
    if len(batch) > BATCH_MAX:
        raise ValueError(f"a batch has at most {BATCH_MAX} transactions")
    cur = cursor(tx)
    now = clock.now()
    outcomes: dict[int, Outcome] = {}
    items = _without_unknown_reversals(cur, [_item(*each) for each in enumerate(batch)], outcomes)
    if all_or_nothing:
        cur.execute("savepoint whole_batch")
    while items:
        items, repeated = _firsts(items)
        cur.execute("savepoint post")
        answered = _post_in_sets(cur, items, now)
        if answered is None:
            cur.execute("rollback to savepoint post")
            answered = _post_one_by_one(cur, items, now)
        cur.execute("release savepoint post")
        outcomes |= answered
        items = repeated
    if all_or_nothing:
        if any(outcome.status in ("conflict", "rejected") for outcome in outcomes.values()):
            cur.execute("rollback to savepoint whole_batch")
            withdrawn = Outcome("rejected", reason="batch_rejected")
            posted = {o.transaction_id for o in outcomes.values() if o.status == "posted"}
            outcomes = {p: withdrawn if o.transaction_id in posted else o for p, o in outcomes.items()}
        cur.execute("release savepoint whole_batch")
    return [outcomes[place] for place in range(len(batch))]


def reverse(
    tx: Tx,
    transaction_id: UUID,
    *,
    reference: str,
    digest: bytes,
    kind: str,
    effective_on: date,
    clock: Clock,
    rest_from: Mapping[UUID, UUID] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Outcome:
    """Post the transaction that takes another one back: its postings swapped, the last first.

    Reversing twice is refused ("already_reversed"). ``rest_from`` names, for an account that may no longer hold the
    money, the account that owes the rest. Raises `NotFound` when there is no such transaction.
    """
    postings = swapped(tx, [transaction_id], rest_from=rest_from).get(transaction_id)
    if postings is None:
        raise NotFound("no such transaction")
    reversal = Transaction(
        reference, kind, effective_on, postings, digest, reverses=transaction_id, details=details
    )
    return post(tx, [reversal], clock=clock)[0]


def swapped(
    tx: Tx, transaction_ids: Collection[UUID], *, rest_from: Mapping[UUID, UUID] | None = None
) -> dict[UUID, tuple[Posting, ...]]:
    """The postings that would take each transaction back: debit and credit changed over, the last first."""
    rest = rest_from or {}
    rows = cursor(tx).execute(
        "select transaction_id, debit_account, credit_account, amount, currency from ledger.posting"
        " where transaction_id = any(%s) order by transaction_id, seq desc",
        [list(transaction_ids)],
    )
    postings: dict[UUID, tuple[Posting, ...]] = {}
    for transaction_id, debit, credit, amount, currency in rows:
        back = Posting(credit, debit, amount, currency, rest.get(credit))
        postings[transaction_id] = (*postings.get(transaction_id, ()), back)
    return postings


def _item(place: int, transaction: Transaction) -> _Item:
    check(transaction)
    claims: tuple[str, ...] = (transaction.reference,)
    if transaction.reverses is not None:
        reversal = f"reversal:{transaction.reverses}"
        if reversal != transaction.reference:
            claims = (transaction.reference, reversal)
    return _Item(place, transaction.id or new_id(), transaction, claims)


def _without_unknown_reversals(cur: Cursor, items: list[_Item], outcomes: dict[int, Outcome]) -> list[_Item]:
    reversed_ids = [i.transaction.reverses for i in items if i.transaction.reverses is not None]
    if not reversed_ids:
        return items
    rows = cur.execute("select id from ledger.transaction where id = any(%s)", [reversed_ids])
    known: set[UUID | None] = {None, *(row[0] for row in rows)}
    for item in items:
        if item.transaction.reverses not in known:
            outcomes[item.place] = Outcome("rejected", reason="unknown_transaction")
    return [item for item in items if item.transaction.reverses in known]


def _firsts(items: list[_Item]) -> tuple[list[_Item], list[_Item]]:
    """The items that are the first of the batch with their references, and those that repeat one."""
    seen: set[str] = set()
    firsts: list[_Item] = []
    repeated: list[_Item] = []
    for item in items:
        (firsts if seen.isdisjoint(item.claims) else repeated).append(item)
        seen.update(item.claims)
    return firsts, repeated


def _post_in_sets(cur: Cursor, items: list[_Item], now: datetime) -> dict[int, Outcome] | None:
    """Post what is new, judged by the trigger alone; None when someone must look closer."""
    new, outcomes, surplus = _claim(cur, items)
    if surplus or _has_unfit_rest(cur, new):
        return None
    captured = _captured_in_sets(cur, new)
    if captured is None:
        return None
    try:
        _write(cur, [(item, item.transaction.postings, captured.get(item.place, 0)) for item in new], now)
    except psycopg.Error as error:
        if error.sqlstate in _REFUSED:
            return None
        raise
    for item in new:
        outcomes[item.place] = _posted(item, item.transaction.postings)
    return outcomes


def _captured_in_sets(cur: Cursor, items: list[_Item]) -> dict[int, int] | None:
    """What each item captures of its hold, by the item's place; None when someone must look closer.

    The holds' accounts are locked, before anything hot, so the holds stay active until the captures are written; the trigger
    then judges the postings against balances without them.
    """
    wanted = {item.transaction.captures: item for item in items if item.transaction.captures is not None}
    if not wanted:
        return {}
    asked = sum(item.transaction.captures is not None for item in items)
    if len(wanted) < asked or any(
        p.rest_from is not None for i in wanted.values() for p in i.transaction.postings
    ):
        return None
    # Every cold account of the batch, in the one order: locking the holds' alone would leave others for the trigger.
    touched = list(
        {account for item in items for p in item.transaction.postings for account in accounts_of(p)}
    )
    cur.execute(
        "select ledger.lock_accounts(array(select a.id from ledger.account as a where not a.hot and (a.id = any(%s)"
        " or a.id in (select h.account_id from ledger.hold as h where h.id = any(%s)))))",
        [touched, list(wanted)],
    )
    # In a new statement: the one that waited for the locks would still see the holds as they were.
    rows = cur.execute(
        "select h.id, h.account_id, h.amount, a.kind in ('asset', 'expense') from ledger.hold as h"
        " join ledger.account as a on a.id = h.account_id where h.id = any(%s) and h.state = 'active' and not a.hot",
        [list(wanted)],
    ).fetchall()
    if len(rows) < len(wanted):
        return None
    captured: dict[int, int] = {}
    for hold_id, account_id, amount, debit_normal in rows:
        item = wanted[hold_id]
        taken = sum(
            p.amount
            for p in item.transaction.postings
            if (p.credit if debit_normal else p.debit) == account_id
        )
        if not 0 < taken <= amount:
            return None
        captured[item.place] = taken
    return captured


def _has_unfit_rest(cur: Cursor, items: list[_Item]) -> bool:
    """Whether an account for the rest could never take it: refused also where no rest is left, whatever the neighbours."""
    rests = [
        (posting.rest_from, posting.debit, posting.currency)
        for item in items
        for posting in item.transaction.postings
        if posting.rest_from is not None
    ]
    if not rests:
        return False
    unfit = cur.execute(
        "select exists (select from unnest(%s::uuid[], %s::uuid[], %s::text[]) as asked(rest, debit, currency)"
        " left join ledger.account as rest on rest.id = asked.rest left join ledger.account as debit on debit.id = asked.debit"
        " where rest.id is null or rest.fund_id <> debit.fund_id or rest.currency <> asked.currency::char(3)"
        " or rest.closed_at is not null)",
        [list(column) for column in zip(*rests, strict=True)],
    ).fetchone()
    return unfit == (True,)


def _post_one_by_one(cur: Cursor, items: list[_Item], now: datetime) -> dict[int, Outcome]:
    """Lock all that the items touch, judge them in order, and post what is accepted."""
    new, outcomes, surplus = _claim(cur, items)
    bench = _lock(cur, new)
    accepted = []
    for item in sorted(new, key=lambda item: item.id):
        verdict = bench.judge(item.transaction)
        if verdict.reason is None:
            accepted.append((item, verdict.postings, verdict.captured))
            outcomes[item.place] = _posted(item, verdict.postings)
        else:
            outcomes[item.place] = Outcome("rejected", None, verdict.reason, verdict.account_id)
            surplus.extend(item.claims)
    if surplus:
        cur.execute("select ledger.release_references(%s)", [surplus])
    _write(cur, accepted, now)
    return outcomes


def _posted(item: _Item, postings: Sequence[Posting]) -> Outcome:
    if any(asked.rest_from is not None for asked in item.transaction.postings):
        return Outcome("posted", item.id, postings=tuple(part for p in postings for part in split(p, None)))
    return Outcome("posted", item.id)


def _claim(cur: Cursor, items: list[_Item]) -> tuple[list[_Item], dict[int, Outcome], list[str]]:
    """Claim the items' references, sorted.

    Gives the items that are new, the answers to those whose references somebody else holds, and the references that
    such an item won and must give back.
    """
    claims = sorted((claim, item.id, item.transaction.digest) for item in items for claim in item.claims)
    names, ids, digests = ([claim[column] for claim in claims] for column in range(3))
    row = cur.execute(
        "with won as (insert into ledger.reference (reference, transaction_id, digest)"
        " select * from unnest(%b::text[], %b::uuid[], %b::bytea[]) on conflict do nothing returning reference)"
        " select count(*), case when count(*) < %s then array_agg(reference) end from won",
        [names, ids, digests, len(names)],
    ).fetchone()
    count, won = row or (0, None)
    if count == len(names):
        return items, {}, []
    taken = set(names).difference(won or ())
    # In a new statement: the one that lost to the holders can't see them.
    rows = cur.execute(
        "select reference, transaction_id, digest from ledger.reference where reference = any(%s)",
        [list(taken)],
    )
    holders = {reference: (transaction_id, digest) for reference, transaction_id, digest in rows}
    new, outcomes, surplus = [], {}, []
    for item in items:
        if taken.isdisjoint(item.claims):
            new.append(item)
        else:
            outcomes[item.place] = _answer(item, holders)
            surplus += [claim for claim in item.claims if claim not in taken]
    return new, outcomes, surplus


def _answer(item: _Item, holders: Mapping[str, tuple[UUID, bytes]]) -> Outcome:
    """The answer to an item that lost one of its references."""
    holder = holders.get(item.claims[0])
    if holder is None:
        return Outcome("rejected", reason="already_reversed")
    transaction_id, digest = holder
    return Outcome("replayed" if digest == item.transaction.digest else "conflict", transaction_id)


def _lock(cur: Cursor, items: list[_Item]) -> Bench:
    """Lock the accounts that the items may touch, and read them and the holds that the items capture."""
    captured = [item.transaction.captures for item in items if item.transaction.captures is not None]
    wanted = {
        account for item in items for posting in item.transaction.postings for account in accounts_of(posting)
    }
    if captured:
        wanted.update(
            r[0] for r in cur.execute("select account_id from ledger.hold where id = any(%s)", [captured])
        )
    account_ids = list(wanted)
    cur.execute("select ledger.lock_accounts(%s)", [account_ids])
    rows = cur.execute(
        "select a.id, a.fund_id, a.currency, a.kind in ('asset', 'expense'), a.floor, a.ceiling,"
        " a.closed_at is not null, f.closed_through, b.debits, b.credits, b.held"
        " from ledger.account as a join ledger.account_balance as b on b.account_id = a.id"
        " join ledger.fund as f on f.id = a.fund_id where a.id = any(%s)",
        [account_ids],
    )
    accounts = {row[0]: Account(*row) for row in rows}
    holds = {}
    if captured:
        rows = cur.execute(
            "select id, account_id, amount from ledger.hold where id = any(%s) and state = 'active'",
            [captured],
        )
        holds = {row[0]: Hold(*row) for row in rows}
    return Bench(accounts, holds)


def _write(cur: Cursor, accepted: Sequence[tuple[_Item, Sequence[Posting], int]], now: datetime) -> None:
    """Copy transactions and postings into the journal; captured holds end in between."""
    if not accepted:
        return
    recorded = microseconds(now)
    salts = os.urandom(SALT_BYTES * len(accepted))
    transaction_rows, posting_rows = [_COPY_HEAD], [_COPY_HEAD]
    for place, (item, postings, _) in enumerate(accepted):
        transaction = item.transaction
        id_bytes, effective = item.id.bytes, days(transaction.effective_on)
        records = b"".join(
            [
                posting_record(
                    id_bytes, seq, p.debit.bytes, p.credit.bytes, p.amount, p.currency.encode(), effective
                )
                for seq, p in enumerate(postings, start=1)
            ]
        )
        fields = transaction_fields(
            id_bytes,
            transaction.reference,
            transaction.kind,
            effective,
            recorded,
            transaction.reverses,
            len(postings),
            canonical_details(_details(transaction)),
            salts[place * SALT_BYTES : (place + 1) * SALT_BYTES],
        )
        transaction_rows.append(transaction_record(fields, leaf_of(fields, records)))
        posting_rows.append(records)
    _copy(cur, _COPY_TRANSACTIONS, transaction_rows)
    captures = [(i.transaction.captures, i.id, taken) for i, _, taken in accepted if i.transaction.captures]
    if captures:
        cur.execute(
            "update ledger.hold as h set state = 'captured', captured = c.captured,"
            " transaction_id = c.transaction_id, ended_at = %s"
            " from unnest(%s::uuid[], %s::uuid[], %s::bigint[]) as c(id, transaction_id, captured) where h.id = c.id",
            [now, *([capture[column] for capture in captures] for column in range(3))],
        )
    _copy(cur, _COPY_POSTINGS, posting_rows)


def _details(transaction: Transaction) -> Mapping[str, Any] | None:
    """What the caller says of it, and the day that it belongs to where that one was closed (`periods.open_day`)."""
    on = transaction.effective_on
    if not isinstance(on, BookDay) or on.belongs_on is None:
        return transaction.details
    return {**(transaction.details or {}), BELONGS_ON: on.belongs_on.isoformat()}


def _copy(cur: Cursor, statement: str, records: list[bytes]) -> None:
    with cur.copy(statement) as copy:
        copy.write(b"".join((*records, _COPY_TAIL)))
