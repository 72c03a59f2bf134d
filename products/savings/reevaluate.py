"""Entitlement derived anew where its inputs changed behind it: the rules (a new version), or a member's facts.

A resumable job: each step takes a bounded number of windows in a transaction of its own and marks them done by writing
them, so that it may stop anywhere and be started again.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import zip_longest
from uuid import UUID

from sqlalchemy import text

from ledger import periods
from ledger.database import Tx, cursor
from ledger.horizon import SETTLED
from ledger.ids import new_id, public_id
from ledger.posting import Transaction
from products.facts import FactDeclaration, counting
from products.members.batch import load_members
from products.members.models import MemberRecord
from products.posting import BooksRefused, post_whole
from products.programmes.registry import Version
from products.remittances.context import Books, load_sponsors
from products.remittances.events import MemberKey
from products.savings import persons, rules
from products.savings.holdings import Holding, load_holdings
from products.savings.match import MatchBook, StateKey
from products.savings.states import Ahead

WINDOWS_MAX = 500
"""Windows derived anew in one database transaction."""


@dataclass(frozen=True, slots=True)
class _Contribution:
    """One contribution that counts in a window, with what its tier depends on."""

    remittance: UUID
    position: int
    tier: int
    amount: int
    settled: bool
    contributed_on: date
    contributed_at: datetime


def reevaluate(tx: Tx, books: Books, *, limit: int = WINDOWS_MAX) -> int:
    """Derive up to ``limit`` windows anew; answers how many. 0: nothing is left, and new versions are marked done."""
    requests = _requests(tx, limit)
    members = sorted(set(requests.values()))
    done = 0
    for programme_id in _programmes(tx):
        versions = books.programmes.versions(tx, programme_id)
        keys = _windows_of_members(tx, programme_id, members)
        if len(keys) < limit:
            keys = sorted({*keys, *_windows_of_old_rules(tx, programme_id, versions, limit - len(keys))})
        if keys:
            _derive(tx, books, programme_id, versions, keys)
            done += len(keys)
        else:
            tx.execute(
                text(
                    "UPDATE products.programme_version SET reevaluated = true"
                    " WHERE programme_id = :id AND NOT reevaluated"
                ),
                {"id": programme_id},
            )
    cursor(tx).execute("DELETE FROM products.reevaluation WHERE id = ANY (%s)", (list(requests),))
    return done or len(members)


def _requests(tx: Tx, limit: int) -> dict[UUID, UUID]:
    """Members whose facts changed, by request; only behind the settled horizon.

    A batch that was under way when a fact was recorded may have judged by the facts of before; when a request is
    behind the horizon, all such batches have ended, and what they wrote is seen here.
    """
    rows = cursor(tx).execute(
        f"SELECT id, member_id FROM products.reevaluation WHERE {SETTLED} ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED",
        (limit,),
    )
    return dict(row for row in rows)


def _programmes(tx: Tx) -> list[UUID]:
    return list(tx.execute(text("SELECT id FROM products.programme ORDER BY id")).scalars())


def _windows_of_members(tx: Tx, programme_id: UUID, members: Sequence[UUID]) -> list[StateKey]:
    rows = cursor(tx).execute(
        """SELECT s.enrolment_id, s.window_start FROM products.match_state s
           JOIN products.enrolment e ON e.id = s.enrolment_id
           WHERE e.programme_id = %s AND e.member_id = ANY (%s) ORDER BY 1, 2""",
        (programme_id, list(members)),
    )
    return list(rows)


def _windows_of_old_rules(
    tx: Tx, programme_id: UUID, versions: Sequence[Version], limit: int
) -> list[StateKey]:
    """Windows that a newer version governs than the one they were derived by, while a version is not done."""
    rows = cursor(tx).execute(
        """SELECT s.enrolment_id, s.window_start, s.window_end, s.rule_version, e.product
           FROM products.match_state s JOIN products.enrolment e ON e.id = s.enrolment_id
           WHERE e.programme_id = %s AND s.rule_version < %s
             AND EXISTS (SELECT 1 FROM products.programme_version v WHERE v.programme_id = %s AND NOT v.reevaluated)
           ORDER BY 1, 2""",
        (programme_id, versions[-1].version if versions else 0, programme_id),
    )
    found: list[StateKey] = []
    for enrolment, start, end, version, product in rows:
        having = [one.programme for one in versions if product in one.programme.codes]
        deciding = rules.rule_version_for(having, rules.Window(start, end))
        if deciding.validity.version != version and len(found) < limit:
            found.append((enrolment, start))
    return found


def _derive(
    tx: Tx, books: Books, programme_id: UUID, versions: Sequence[Version], keys: Sequence[StateKey]
) -> None:
    exhausted: set[UUID] = set()
    while True:
        attempt = tx.begin_nested()
        try:
            _derive_once(tx, books, programme_id, versions, keys, exhausted)
        except BooksRefused as refused:
            attempt.rollback()
            account = refused.outcome.account_id
            if not refused.moved or account is None or account in exhausted:
                raise
            exhausted.add(account)
        except BaseException:
            attempt.rollback()
            raise
        else:
            attempt.commit()
            return


def _derive_once(
    tx: Tx,
    books: Books,
    programme_id: UUID,
    versions: Sequence[Version],
    keys: Sequence[StateKey],
    exhausted: Collection[UUID],
) -> None:
    """Derive windows anew; a sponsor whose account refused before counts as having nothing, so its match is queued.

    With the windows of a linked person come those of their other enrolments, older ones first: they share what is earned.
    """
    keys = persons.with_siblings(tx, keys)
    holdings = load_holdings(tx, books.programmes, keys)
    sponsors = load_sponsors(tx, [programme_id])[programme_id]
    for sponsor in sponsors.values():
        if sponsor.uncommitted in exhausted:
            sponsor.available = 0
    match_book = MatchBook(sponsors)
    match_book.lock(tx, {key: holding.lock_values for key, holding in holdings.items()})
    contributions = _contributions(tx, keys)
    older = persons.older_windows(tx, keys)
    members = _members(tx, books, holdings.values())
    entry = _entry_terms(tx, sorted({key[0] for key in keys}))
    now = books.clock.now()
    batch: list[Transaction] = []
    for key in sorted(holdings):
        holding, declared = _governed(holdings[key], versions)
        counted = contributions.get(key, ())
        tiers = _tiers(holding, declared, counted, members.get(holding.member_id), *entry[key[0]])
        _write_tiers(tx, counted, tiers)
        by_tier, settled = _totals(holding, counted, tiers)
        latest = max((one.contributed_at for one in counted), default=now)
        ahead = _ahead(older.get(key, ()), match_book, holdings)
        match_book.replace_totals(key, by_tier, settled, holding.rule_version, ahead)
        postings, rise = match_book.rederive(
            key, holding.match, holding.accounts, holding.currency, at=latest
        )
        if postings:
            day = periods.effective_day(now, holding.time_zone)
            id_ = new_id()
            batch.append(
                Transaction(
                    reference=f"match-rederived:{id_}",
                    kind="match_rederived",
                    effective_on=periods.open_day(tx, [holding.fund_id], day),
                    postings=tuple(postings),
                    digest=hashlib.sha256(f"{key[0]}|{key[1]}|{rise}|{id_}".encode()).digest(),
                    id=id_,
                    details={
                        "enrolment": public_id("enr", key[0]),
                        "window": key[1].isoformat(),
                        "version": holding.rule_version,
                    },
                )
            )
    post_whole(tx, batch, clock=books.clock)
    match_book.save(tx, now)


def _ahead(
    older: Sequence[persons.Older], match_book: MatchBook, counted: Collection[StateKey]
) -> Ahead | None:
    """What a person's older enrolments have in a window: as counted just now, or else as stored."""
    if not older:
        return None
    by_tier: list[int] = []
    settled: list[int] = []
    blocked = False
    for one in older:
        state = match_book.state(one.key) if one.key in counted else None
        totals = state.by_tier if state is not None else one.by_tier
        if one.aligned:
            by_tier = [a + b for a, b in zip_longest(by_tier, totals, fillvalue=0)]
            paid_in = state.settled if state is not None else one.settled
            settled = [a + b for a, b in zip_longest(settled, paid_in, fillvalue=0)]
        else:
            blocked = blocked or any(totals)
    return Ahead(by_tier, settled, blocked)


def _governed(holding: Holding, versions: Sequence[Version]) -> tuple[Holding, Mapping[str, FactDeclaration]]:
    """The holding under the rules that govern its window now, and what these say about facts."""
    having = [one.programme for one in versions if holding.product in one.programme.codes]
    window = rules.Window(holding.window_start, holding.window_end)
    deciding = rules.rule_version_for(having, window)
    match = deciding.product(holding.product).match
    if match is None:
        return holding, deciding.facts
    return replace(holding, match=match, rule_version=deciding.validity.version), deciding.facts


def _contributions(tx: Tx, keys: Sequence[StateKey]) -> Mapping[StateKey, Sequence[_Contribution]]:
    rows = cursor(tx).execute(
        """SELECT c.enrolment_id, c.window_start, c.remittance, c.position, c.tier, c.amount, c.state = 'settled',
                  c.contributed_on, c.contributed_at
           FROM products.contribution c
           JOIN unnest(%b::uuid[], %b::date[]) AS t (e, w) ON c.enrolment_id = t.e AND c.window_start = t.w
           WHERE c.state <> 'reversed'""",
        ([key[0] for key in keys], [key[1] for key in keys]),
    )
    found: defaultdict[StateKey, list[_Contribution]] = defaultdict(list)
    for enrolment, start, *rest in rows:
        found[enrolment, start].append(_Contribution(*rest))
    return found


def _members(tx: Tx, books: Books, holdings: Iterable[Holding]) -> dict[UUID, MemberRecord]:
    ids = sorted({holding.member_id for holding in holdings})
    rows = cursor(tx).execute(
        "SELECT DISTINCT ON (member_id) partner_id, id FROM products.member_link WHERE member_id = ANY (%s)"
        " ORDER BY member_id, id",
        (ids,),
    )
    wanted = [(partner, MemberKey("id", public_id("mem", link))) for partner, link in rows]
    found = load_members(tx, books.keyring, wanted)
    return {one.member_id: one for several in found.values() for one in several}


def _entry_terms(tx: Tx, enrolments: Sequence[UUID]) -> dict[UUID, tuple[date, int | None]]:
    """When members joined, and the age that joining fixed."""
    rows = cursor(tx).execute(
        "SELECT id, enrolled_on, (terms ->> 'entry_age')::int FROM products.enrolment WHERE id = ANY (%s)",
        (list(enrolments),),
    )
    return {row[0]: (row[1], row[2]) for row in rows}


def _tiers(
    holding: Holding,
    declared: Mapping[str, FactDeclaration],
    counted: Sequence[_Contribution],
    member: MemberRecord | None,
    joined_on: date,
    entry_age: int | None,
) -> list[int]:
    """The tier of each contribution under the rules and facts of now; an erased member's facts are gone: as decided."""
    if member is None or not member.active:
        return [one.tier for one in counted]
    facts = counting(declared, member.facts)
    return [
        rules.tier_of(
            holding.match,
            facts.on(one.contributed_on),
            one.contributed_on,
            min(joined_on, one.contributed_on),
            entry_age,
        )
        for one in counted
    ]


def _totals(
    holding: Holding, counted: Sequence[_Contribution], tiers: Sequence[int]
) -> tuple[list[int], list[int]]:
    by_tier = [0] * (len(holding.match.tiers) + 1)
    settled = list(by_tier)
    for one, tier in zip(counted, tiers, strict=True):
        by_tier[tier + 1] += one.amount
        settled[tier + 1] += one.amount if one.settled else 0
    return by_tier, settled


def _write_tiers(tx: Tx, counted: Sequence[_Contribution], tiers: Sequence[int]) -> None:
    changed = [(one, tier) for one, tier in zip(counted, tiers, strict=True) if one.tier != tier]
    if changed:
        cursor(tx).execute(
            """UPDATE products.contribution c SET tier = t.n
               FROM unnest(%b::uuid[], %b::smallint[], %b::smallint[]) AS t (r, p, n)
               WHERE c.remittance = t.r AND c.position = t.p""",
            (
                [one.remittance for one, _ in changed],
                [one.position for one, _ in changed],
                [tier for _, tier in changed],
            ),
        )
