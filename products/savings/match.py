"""Match states of one batch: locked in order, changed in memory by pure rules, written back once.

Entitlement is a function of the totals per tier in a window, so this keeps those totals and derives the rest. What a
change moves between a sponsor's accounts and the member's comes back as postings for the same ledger transaction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

import psycopg

from ledger.database import Tx, cursor
from ledger.ids import new_id
from ledger.posting import Posting
from products.chart import EnrolmentAccounts
from products.programmes.model import Match
from products.savings import persons, rules, shares, states
from products.savings.shares import Moves, Share
from products.savings.states import Ahead, MatchState

Cursor = psycopg.Cursor[tuple[Any, ...]]

StateKey = tuple[UUID, date]
"""Enrolment and first day of the window."""

LOOK_NOW: Final = date.min
"""When a share's vesting is due that nobody has looked at since it was granted (`match_share.vests_on`)."""


@dataclass(slots=True)
class Sponsor:
    """A sponsor as one batch sees it. ``available`` is what it has uncommitted, read before the batch posts."""

    id: UUID
    slug: str
    uncommitted: UUID
    committed: UUID
    available: int
    queueing: bool
    ran_out: bool = False

    def take(self, amount: int) -> bool:
        """Whether ``amount`` can be committed now. The first shortfall closes the fund: from then on all enqueues."""
        if amount <= 0:
            return True
        if self.queueing:
            return False
        if amount > self.available:
            self.queueing = self.ran_out = True
            return False
        self.available -= amount
        return True


@dataclass(frozen=True, slots=True)
class Queued:
    """Entitlement that waits for a sponsor's money."""

    sponsor_id: UUID
    key: StateKey
    contributed_at: datetime
    amount: int


class MatchBook:
    """The match states that a batch touches. Lock first, then ``change``, then ``save`` once.

    ``outdated`` are locked states that stand under another version of the rules than the batch was laid out by, or whose
    person earns in another enrolment as well: their totals are kept, and a job derives their entitlement anew.
    """

    def __init__(self, sponsors: Mapping[str, Sponsor]) -> None:
        self._sponsors = sponsors
        self._states: dict[StateKey, MatchState] = {}
        self.outdated: set[StateKey] = set()
        self._changed: set[StateKey] = set()
        self._moved: set[StateKey] = set()
        self._queued: list[Queued] = []
        self._dequeued: list[tuple[UUID, StateKey, int]] = []
        self._excess: dict[tuple[UUID, StateKey], int] = {}
        self._proposed: set[tuple[UUID, StateKey]] = set()
        self._to_vest: set[StateKey] = set()

    def lock(self, tx: Tx, wanted: Mapping[StateKey, tuple[date, int, int]]) -> None:
        """Lock the wanted states in key order. Values: end of the window, number of tiers, version of the rules."""
        if not wanted:
            return
        keys = sorted(wanted, key=_lock_order)
        cur = cursor(tx)
        self._load(cur, keys)
        missing = [key for key in keys if key not in self._states]
        if missing:
            cur.execute(
                """INSERT INTO products.match_state
                       (enrolment_id, window_start, window_end, by_tier, settled_by_tier, entitled, rule_version, revision)
                   SELECT e, w, x, b::bigint[], b::bigint[], 0, v, 0
                   FROM unnest(%b::uuid[], %b::date[], %b::date[], %b::text[], %b::int[]) AS t (e, w, x, b, v)
                   ORDER BY e, w ON CONFLICT DO NOTHING""",
                (
                    [key[0] for key in missing],
                    [key[1] for key in missing],
                    [wanted[key][0] for key in missing],
                    [_array([0] * (wanted[key][1] + 1)) for key in missing],
                    [wanted[key][2] for key in missing],
                ),
            )
            self._load(cur, missing)
        self.outdated |= {key for key in keys if self._states[key].rule_version != wanted[key][2]}
        shared = persons.linked(tx, {key[0] for key in keys})
        self.outdated |= {key for key in keys if key[0] in shared}

    def _load(self, cur: Cursor, keys: list[StateKey]) -> None:
        arrays = ([key[0] for key in keys], [key[1] for key in keys])
        cur.execute(
            """SELECT s.enrolment_id, s.window_start, s.window_end, s.by_tier, s.settled_by_tier, s.entitled,
                      s.rule_version, s.revision, s.grants_on, s.window_over
               FROM products.match_state s
               JOIN unnest(%b::uuid[], %b::date[]) AS t (e, w) ON s.enrolment_id = t.e AND s.window_start = t.w
               ORDER BY s.enrolment_id, s.window_start FOR NO KEY UPDATE OF s""",
            arrays,
        )
        for enrolment, start, *columns in cur.fetchall():
            self._states[enrolment, start] = MatchState(*columns)
        # A new statement: it sees what the holders of the locks committed.
        cur.execute(
            """SELECT s.enrolment_id, s.window_start, s.sponsor_id, s.committed, s.unvested, s.vested, s.awaiting,
                      s.certified, s.forfeited, a.id IS NOT NULL
               FROM products.match_share s
               JOIN unnest(%b::uuid[], %b::date[]) AS t (e, w) ON s.enrolment_id = t.e AND s.window_start = t.w
               LEFT JOIN products.match_adjustment a ON a.enrolment_id = s.enrolment_id
                   AND a.window_start = s.window_start AND a.sponsor_id = s.sponsor_id AND a.state = 'proposed'""",
            arrays,
        )
        for enrolment, start, sponsor, *parts, proposed in cur.fetchall():
            self._states[enrolment, start].shares[sponsor] = Share(*parts)
            if proposed:
                self._proposed.add((sponsor, (enrolment, start)))

    def state(self, key: StateKey) -> MatchState:
        """The locked state of an enrolment's window."""
        return self._states[key]

    def change(
        self,
        key: StateKey,
        match: Match,
        accounts: EnrolmentAccounts,
        currency: str,
        *,
        tier: int,
        contributed: int,
        settled: int,
        at: datetime,
    ) -> tuple[list[Posting], int]:
        """Add to (or take from) a tier's totals and derive entitlement anew.

        ``contributed`` and ``settled`` are signed differences in minor units; ``at`` is when the migrant paid, the
        place in the queue if the sponsor's fund has run out. Answers the postings and the change in entitlement.
        """
        state = self._states[key]
        state.by_tier[tier + 1] += contributed
        state.settled[tier + 1] += settled
        if key in self.outdated:
            self._changed.add(key)
            return [], 0
        return self._derive(key, state, match, accounts, currency, at)

    def replace_totals(
        self,
        key: StateKey,
        by_tier: list[int],
        settled: list[int],
        rule_version: int,
        ahead: Ahead | None = None,
    ) -> None:
        """Put totals counted anew, under these rules, in the place of those kept so far."""
        state = self._states[key]
        state.by_tier, state.settled, state.rule_version = by_tier, settled, rule_version
        state.ahead = ahead
        self.outdated.discard(key)

    def rederive(
        self, key: StateKey, match: Match, accounts: EnrolmentAccounts, currency: str, *, at: datetime
    ) -> tuple[list[Posting], int]:
        """Derive entitlement anew from totals that did not change: the rules did, and with them perhaps when it vests."""
        self._to_vest.add(key)
        return self._derive(key, self._states[key], match, accounts, currency, at)

    def _derive(
        self,
        key: StateKey,
        state: MatchState,
        match: Match,
        accounts: EnrolmentAccounts,
        currency: str,
        at: datetime,
    ) -> tuple[list[Posting], int]:
        if match.granted == "end_of_window" and state.grants_on is None:
            state.grants_on = state.window_end + timedelta(days=1)
        before = state.entitled
        state.entitled = states.earned(match, state.by_tier, state.ahead, settled=False)
        targets = rules.sponsor_shares(match, state.entitled)
        grantable = states.grantable(match, state, targets)
        postings: list[Posting] = []
        for slug, target in targets:
            sponsor = self._sponsors[slug]
            share = state.shares.get(sponsor.id) or Share()
            funded = sponsor.take(target - share.entitled)
            moved, moves = shares.move(
                share, entitled=target, grantable=grantable.get(slug, 0), funded=funded
            )
            state.shares[sponsor.id] = moved
            if moves.grant:
                self._to_vest.add(key)
            postings += postings_of(moves, sponsor, accounts, currency)
            if moves.enqueue:
                self._queued.append(Queued(sponsor.id, key, at, moves.enqueue))
            if moves.dequeue:
                self._dequeued.append((sponsor.id, key, moves.dequeue))
            self._propose(sponsor.id, key, moves.excess)
        self._changed.add(key)
        return postings, state.entitled - before

    def _propose(self, sponsor_id: UUID, key: StateKey, excess: int) -> None:
        """What stands beyond entitlement is proposed to fall; what was proposed and no longer does is not."""
        if excess or (sponsor_id, key) in self._excess or (sponsor_id, key) in self._proposed:
            self._excess[sponsor_id, key] = excess

    def fund(
        self,
        key: StateKey,
        match: Match,
        sponsor: Sponsor,
        accounts: EnrolmentAccounts,
        currency: str,
        amount: int,
    ) -> list[Posting]:
        """Commit ``amount`` of what awaits this sponsor's money: the drainer's step. The queue is the caller's."""
        state = self._states[key]
        targets = rules.sponsor_shares(match, state.entitled)
        grantable = states.grantable(match, state, targets).get(sponsor.slug, 0)
        moved, moves = shares.fund(state.shares[sponsor.id], amount, grantable=grantable)
        state.shares[sponsor.id] = moved
        self._changed.add(key)
        self._to_vest.add(key)
        return postings_of(moves, sponsor, accounts, currency)

    def certify(
        self,
        key: StateKey,
        match: Match,
        sponsor: Sponsor,
        accounts: EnrolmentAccounts,
        currency: str,
        amount: int,
    ) -> tuple[list[Posting], int]:
        """Commit what a sponsor in arrears has certified; its own debt, and the queue, are the caller's.

        Answers the postings, and how much of it takes the place of what awaited funds. What the member is no longer
        entitled to of it is proposed for adjustment.
        """
        state = self._states[key]
        targets = rules.sponsor_shares(match, state.entitled)
        target = dict(targets).get(sponsor.slug, 0)
        grantable = states.grantable(match, state, targets).get(sponsor.slug, 0)
        share = state.shares.get(sponsor.id) or Share()
        moved, moves = shares.certify(share, amount, entitled=target, grantable=grantable)
        state.shares[sponsor.id] = moved
        self._propose(sponsor.id, key, moves.excess)
        self._changed.add(key)
        self._to_vest.add(key)
        return postings_of(moves, sponsor, accounts, currency), moves.dequeue

    def end_window(
        self, key: StateKey, match: Match, accounts: EnrolmentAccounts, currency: str, *, at: datetime
    ) -> list[Posting]:
        """The window is over: from now on what settled contributions earn in it is granted."""
        state = self._states[key]
        state.window_over = True
        self._changed.add(key)
        if key in self.outdated:
            return []
        postings, _ = self._derive(key, state, match, accounts, currency, at)
        return postings

    def vest(
        self, key: StateKey, vested: Fraction, accounts: EnrolmentAccounts, currency: str
    ) -> tuple[list[Posting], int]:
        """Let so much of a window's match be the member's own; answers the postings and what vests now."""
        state = self._states[key]
        total = 0
        for sponsor_id, share in state.shares.items():
            state.shares[sponsor_id], now = shares.vest(share, vested)
            total += now
        if not total:
            return [], 0
        self._moved.add(key)
        return [Posting(accounts.unvested, accounts.vested, total, currency)], total

    def losable(self, key: StateKey, match: Match) -> dict[UUID, int]:
        """The match of a window that leaving may forfeit, by sponsor."""
        state, earned = self._states[key], self._earned_by_sponsor(key, match)
        return {
            sponsor_id: lost
            for sponsor_id, share in state.shares.items()
            if (lost := shares.losable(share, earned=earned.get(sponsor_id, 0)))
        }

    def forfeit(self, key: StateKey, match: Match, sponsor: Sponsor, amount: int) -> Moves:
        """Lose so much of one sponsor's match in a window. What to post is the caller's: who receives it is the rules'."""
        state, earned = self._states[key], self._earned_by_sponsor(key, match)
        moved, moves = shares.forfeit(state.shares[sponsor.id], amount, earned=earned.get(sponsor.id, 0))
        state.shares[sponsor.id] = moved
        if moves.dequeue:
            self._dequeued.append((sponsor.id, key, moves.dequeue))
        self._moved.add(key)
        return moves

    def restore(self, key: StateKey, match: Match, sponsor: Sponsor, amount: int, *, at: datetime) -> None:
        """Give back what was forfeited: it awaits its sponsor's funds, and the queue grants it again."""
        state = self._states[key]
        target = dict(rules.sponsor_shares(match, state.entitled)).get(sponsor.slug, 0)
        moved, moves = shares.restore(state.shares[sponsor.id], amount, entitled=target)
        state.shares[sponsor.id] = moved
        if moves.enqueue:
            self._queued.append(Queued(sponsor.id, key, at, moves.enqueue))
        self._moved.add(key)

    def _earned_by_sponsor(self, key: StateKey, match: Match) -> dict[UUID, int]:
        earned = states.earned_by_settled(match, self._states[key], alone=key not in self.outdated)
        return {self._sponsors[slug].id: part for slug, part in earned}

    def save(self, tx: Tx, now: datetime) -> None:
        """Write back what changed, the queue, what a sponsor's closed fund means, and proposals for approval."""
        written = self._changed | self._moved
        if not written:
            return
        cur = cursor(tx)
        keys = sorted(written, key=_lock_order)
        written_states = [self._states[key] for key in keys]
        cur.execute(
            """UPDATE products.match_state s
               SET by_tier = t.b::bigint[], settled_by_tier = t.s::bigint[], entitled = t.n, rule_version = t.v,
                   revision = s.revision + 1, grants_on = t.g, window_over = t.o
               FROM unnest(%b::uuid[], %b::date[], %b::text[], %b::text[], %b::bigint[], %b::int[], %b::date[],
                           %b::boolean[]) AS t (e, w, b, s, n, v, g, o)
               WHERE s.enrolment_id = t.e AND s.window_start = t.w""",
            (
                [key[0] for key in keys],
                [key[1] for key in keys],
                [_array(state.by_tier) for state in written_states],
                [_array(state.settled) for state in written_states],
                [state.entitled for state in written_states],
                [state.rule_version for state in written_states],
                [state.grants_on for state in written_states],
                [state.window_over for state in written_states],
            ),
        )
        rows = [(key, sponsor, share) for key in keys for sponsor, share in self._states[key].shares.items()]
        if rows:
            cur.execute(
                """INSERT INTO products.match_share
                       (enrolment_id, window_start, sponsor_id, committed, unvested, vested, awaiting, certified,
                        forfeited, vests_on)
                   SELECT * FROM unnest(%b::uuid[], %b::date[], %b::uuid[], %b::bigint[], %b::bigint[], %b::bigint[],
                                        %b::bigint[], %b::bigint[], %b::bigint[], %b::date[])
                   ON CONFLICT (enrolment_id, window_start, sponsor_id) DO UPDATE
                   SET committed = excluded.committed, unvested = excluded.unvested, vested = excluded.vested,
                       awaiting = excluded.awaiting, certified = excluded.certified, forfeited = excluded.forfeited,
                       vests_on = least(match_share.vests_on, excluded.vests_on)""",
                (
                    [key[0] for key, _, _ in rows],
                    [key[1] for key, _, _ in rows],
                    [sponsor for _, sponsor, _ in rows],
                    [share.committed for _, _, share in rows],
                    [share.unvested for _, _, share in rows],
                    [share.vested for _, _, share in rows],
                    [share.awaiting for _, _, share in rows],
                    [share.certified for _, _, share in rows],
                    [share.forfeited for _, _, share in rows],
                    [LOOK_NOW if key in self._to_vest else date.max for key, _, _ in rows],
                ),
            )
        self._save_queue(cur)
        self._save_excess(cur, now)
        self._ask_to_derive_anew(cur, now)
        ran_out = sorted(sponsor.id for sponsor in self._sponsors.values() if sponsor.ran_out)
        if ran_out:
            cur.execute(
                "UPDATE products.sponsor SET queueing = true WHERE id = ANY (%b) AND NOT queueing", (ran_out,)
            )

    def _save_queue(self, cur: Cursor) -> None:
        if self._queued:
            cur.execute(
                """INSERT INTO products.match_queue (id, sponsor_id, enrolment_id, window_start, contributed_at, amount)
                   SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::uuid[], %b::date[], %b::timestamptz[],
                                        %b::bigint[])""",
                (
                    [new_id() for _ in self._queued],
                    [entry.sponsor_id for entry in self._queued],
                    [entry.key[0] for entry in self._queued],
                    [entry.key[1] for entry in self._queued],
                    [entry.contributed_at for entry in self._queued],
                    [entry.amount for entry in self._queued],
                ),
            )
        for sponsor_id, (enrolment, start), amount in self._dequeued:
            take_from_queue(cur, sponsor_id, enrolment, start, amount)

    def _save_excess(self, cur: Cursor, now: datetime) -> None:
        for (sponsor_id, (enrolment, start)), amount in self._excess.items():
            if amount:
                cur.execute(
                    """INSERT INTO products.match_adjustment
                           (id, sponsor_id, enrolment_id, window_start, amount, reason, recorded_at)
                       VALUES (%s, %s, %s, %s, %s, %s, %s)
                       ON CONFLICT (enrolment_id, window_start, sponsor_id) WHERE state = 'proposed'
                       DO UPDATE SET amount = excluded.amount, recorded_at = excluded.recorded_at""",
                    (
                        new_id(),
                        sponsor_id,
                        enrolment,
                        start,
                        amount,
                        "certified_beyond_entitlement"
                        if self._states[enrolment, start].shares[sponsor_id].certified
                        else "vested_beyond_entitlement",
                        now,
                    ),
                )
            else:
                cur.execute(
                    """UPDATE products.match_adjustment SET state = 'withdrawn'
                       WHERE enrolment_id = %s AND window_start = %s AND sponsor_id = %s AND state = 'proposed'""",
                    (enrolment, start, sponsor_id),
                )

    def _ask_to_derive_anew(self, cur: Cursor, now: datetime) -> None:
        enrolments = sorted({key[0] for key in self.outdated & self._changed})
        if enrolments:
            cur.execute(
                """INSERT INTO products.reevaluation (id, member_id, requested_at)
                   SELECT t.id, e.member_id, %s FROM unnest(%b::uuid[], %b::uuid[]) AS t (id, enrolment_id)
                   JOIN products.enrolment e ON e.id = t.enrolment_id""",
                (now, [new_id() for _ in enrolments], enrolments),
            )


def take_from_queue(cur: Cursor, sponsor_id: UUID, enrolment: UUID, start: date, amount: int) -> None:
    """Take ``amount`` out of what one share has queued, the latest first: what was promised last goes first."""
    cur.execute(
        """WITH entries AS (
               SELECT id, amount, sum(amount) OVER (ORDER BY contributed_at DESC, id DESC) AS through
               FROM products.match_queue WHERE enrolment_id = %(e)s AND window_start = %(w)s AND sponsor_id = %(s)s
           ), gone AS (
               DELETE FROM products.match_queue q USING entries
               WHERE q.id = entries.id AND entries.through <= %(n)s
           )
           UPDATE products.match_queue q SET amount = entries.through - %(n)s FROM entries
           WHERE q.id = entries.id AND entries.through > %(n)s AND entries.through - entries.amount < %(n)s""",
        {"e": enrolment, "w": start, "s": sponsor_id, "n": amount},
    )


def postings_of(moves: Moves, sponsor: Sponsor, accounts: EnrolmentAccounts, currency: str) -> list[Posting]:
    """The postings that a share's moves mean."""
    steps: Iterable[tuple[int, UUID, UUID]] = (
        (moves.commit, sponsor.uncommitted, sponsor.committed),
        (moves.release, sponsor.committed, sponsor.uncommitted),
        (moves.reclaim, accounts.unvested, sponsor.uncommitted),
        (moves.ungrant, accounts.unvested, sponsor.committed),
        (moves.grant, sponsor.committed, accounts.unvested),
    )
    return [Posting(debit, credit, amount, currency) for amount, debit, credit in steps if amount]


def _lock_order(key: StateKey) -> tuple[int, date]:
    """Enrolments in PostgreSQL's order of uuids, then windows; integers compare faster than UUIDs."""
    return key[0].int, key[1]


def _array(values: list[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"
