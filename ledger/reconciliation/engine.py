"""Pairing: tries a bank account's rules in order over everything that is open, in sets, inside the database.

A run is one database transaction for one bank account: killed or failed, it leaves nothing. A rule pairs what it finds one answer
for; a line or an item with two is left to a later rule that says more, and at last to people. What a person took back is never
made again. Runs of an account wait for each other; a person who pairs at the same moment is first, or the run is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.sql import Literal
from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Cursor, Tx, cursor, sqlstate
from ledger.errors import NotFound
from ledger.ids import id_prefix, new_id
from ledger.reconciliation import candidates
from ledger.reconciliation.pairings import Proposal, hold_pairing
from ledger.reconciliation.rules import Rule, Rules
from ledger.reconciliation.search import only_subset

SUMS_MAX: Final = 20_000
"""How many sums one rule searches for in a run."""
PARTY_OPEN_MAX: Final = 200
"""A party with more open lines or items than this is not searched."""

_ADVISORY_CLASS: Final = 0x4D5B
_UNIQUE_VIOLATION: Final = "23505"

# Hash joins alone: fresh rows have no statistics, and a plan for a hundred rows would be a disaster for a million. 256 MB for
# each step of a plan, twice that for hashes, keeps a million lines in memory and a backend below a gigabyte. A small sample tells
# how many rows there are, which is all that plans of hash joins ask.
_SETTINGS: Final = {
    "default_statistics_target": "10",
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
    "work_mem": "256MB",
    "statement_timeout": "0",
}

# A tenth of the run is spared. It can't be changed once a session has had temporary relations: one that had them here has it already.
_ROOM: Final = "SELECT set_config('temp_buffers', '256MB', true) WHERE pg_my_temp_schema() = 0"
"""Keeps the run's relations in memory instead of files; what they take of it the session keeps."""

_LINES: Final = """
    SELECT l.id, l.amount, l.booked_on, l.reference, l.end_to_end, l.identifiers, l.party, l.reversal
    FROM ledger.statement_line l
    WHERE l.bank_account_id = %(account)s AND l.currency = %(currency)s AND l.duplicate_of IS NULL AND l.booked_on >= %(since)s
      AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id)
"""
_ITEMS: Final = """
    SELECT i.id, i.source, i.amount, i.on_date, i.day, i.reference, i.end_to_end, i.identifiers, i.party, i.batch
    FROM ledger.item i
    WHERE i.bank_account_id = %(account)s AND i.currency = %(currency)s AND i.closed_at IS NULL AND i.on_date >= %(since)s
      AND NOT EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id)
"""
# The ids are UUIDv7s whose last 48 bits count on, so that they come in order.
_MADE: Final = """
    INSERT INTO ledger.pairing (id, bank_account_id, run_id, rule, evidence, amount, lines, items, made_by, made_at)
    SELECT CAST(%(ids)s || lpad(to_hex(%(made)s + row_number() OVER ()), 12, '0') AS uuid), %(account)s, %(run)s, %(rule)s, f.evidence,
           f.amount, f.lines, f.items, %(by)s, %(at)s
    FROM ({found}) AS f WHERE f.source = 'booked' AND f.difference = 0
"""
WHOLE: Final = "(true)"
"""SQL: all rows of a relation."""
PART_BLOCKS: Final = 4_000
"""How much of what a rule found is written by one statement: some hundred thousand pairings."""
_NUMBERED: Final = "SELECT row_number() OVER () AS n, g.* FROM ({groups}) AS g"
_NOT_UNDONE: Final = """
    NOT EXISTS (SELECT FROM ledger.pairing u WHERE u.bank_account_id = %(account)s AND u.undone_at IS NOT NULL
                AND u.lines = f.lines AND u.items = f.items)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run paired (how many pairings with booked items) and what it proposes (payments, settlements, differences)."""

    pairings: int
    proposals: tuple[Proposal, ...]
    by_rule: Mapping[str, int] = field(default_factory=dict)


def pair(
    tx: Tx, bank_account_id: UUID, rules: Rules, *, run_id: UUID, clock: Clock, made_by: str = "reconcile"
) -> Outcome:
    """Pairs what the rules find no second answer for. One run of a bank account at a time: another waits its turn.

    Raises NotFound.
    """
    hold_run(tx, bank_account_id)
    currency = tx.execute(
        text("SELECT currency FROM ledger.bank_account WHERE id = :id"), {"id": bank_account_id}
    ).scalar()
    if currency is None:
        raise NotFound("there is no such bank account")
    now = clock.now()
    run = _Run(
        cursor=cursor(tx),
        common={
            "account": bank_account_id,
            "currency": currency,
            "since": now.date() - timedelta(days=rules.look_back_days),
            "run": run_id,
            "by": made_by,
            "at": now,
        },
    )
    run.make_room()
    before = run.tune(_SETTINGS)
    try:
        with tx.begin_nested():
            run.follow(rules.rules)
    except psycopg.Error as error:
        if sqlstate(error) != _UNIQUE_VIOLATION:
            raise
        # A person was first. The savepoint took back what the run did: look again, while nobody else pairs.
        hold_pairing(tx, bank_account_id, shared=False)
        run.follow(rules.rules)
    run.tune(before)
    outcome = Outcome(sum(run.by_rule.values()), tuple(run.proposals), run.by_rule)
    if outcome.pairings or outcome.proposals:
        _record(tx, bank_account_id, rules, outcome, run_id=run_id, made_by=made_by, clock=clock)
    return outcome


def hold_run(tx: Tx, bank_account_id: UUID) -> None:
    """Wait for a run over the bank account, and let none begin until the transaction ends."""
    tx.execute(
        text("SELECT pg_advisory_xact_lock(:class, hashtext(:account))"),
        {"class": _ADVISORY_CLASS, "account": str(bank_account_id)},
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a rule found: queries for (lines, items, amount, difference, source, evidence), for its lines and for its items.

    They read `relation`; WHOLE stands in `query` where a part of it may be asked for.
    """

    relation: str
    query: str
    line_ids: str
    item_ids: str
    size: int

    @classmethod
    def of_groups(cls, relation: str, query: str, size: int) -> "_Found":
        """Lines and items by the groups that hold them."""
        lines, items = (
            f"SELECT unnest(f.{column}) AS id FROM ({query}) AS f" for column in ("lines", "items")
        )
        return cls(relation, query, lines, items, size)

    def but_for_undone(self) -> "_Found":
        """Without what a person took back: that is never made again."""
        query = f"SELECT * FROM ({self.query}) AS f WHERE {_NOT_UNDONE}"
        return self.of_groups(self.relation, query, self.size)


@dataclass(slots=True)
class _Run:
    """One run over one bank account: what is open, and what was found."""

    cursor: Cursor
    common: Mapping[str, Any]
    proposals: list[Proposal] = field(default_factory=list)
    by_rule: dict[str, int] = field(default_factory=dict)
    _found: list[tuple[Rule, _Found]] = field(default_factory=list)
    _open: dict[str, int] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)
    _has_expected: bool = False
    _has_reversals: bool = False  # where something is expected
    _has_undone: bool = False
    _names_known: bool = False

    def tune(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Sets PostgreSQL's settings for this transaction; answers what they were."""
        before = {}
        for name, value in settings.items():
            before[name] = str(self._row("SELECT current_setting(%(name)s)", name=name)[0])
            self._execute("SELECT set_config(%(name)s, %(value)s, true)", name=name, value=value)
        return before

    def make_room(self) -> None:
        """Gives the session's temporary relations memory, where it has had none yet."""
        self._execute(_ROOM)

    def follow(self, rules: Sequence[Rule]) -> None:
        """Tries the rules in order, and writes what they found when the last is through."""
        self.proposals.clear()
        self.by_rule.clear()
        self._found.clear()
        self._names_known = False
        self._unread.clear()
        self._look_at_what_is_open(rules[0])
        for number, rule in enumerate(rules):
            found = self._find(number, rule)
            if found is not None:
                self._keep(rule, found.but_for_undone() if self._has_undone else found)
            for name in sorted(self._unread):
                self._rewrite(name)
            if not all(self._open.values()):
                break
        if self.by_rule:
            self._write()
        self._drop_relations()

    def _execute(self, statement: str, **values: object) -> Cursor:
        return self.cursor.execute(statement, {**self.common, **values}, prepare=False)

    def _row(self, statement: str, **values: object) -> tuple[Any, ...]:
        row = self._execute(statement, **values).fetchone()
        if row is None:
            raise RuntimeError("the query answers one row")
        return row

    def _relation(self, name: str, query: str, **values: object) -> int:
        """Makes a relation of the run from a query; how many rows it has."""
        return self._execute(f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {query}", **values).rowcount

    def _drop_relations(self) -> None:
        """So that a transaction may have more than one run."""
        (names,) = self._row(
            "SELECT string_agg(format('pg_temp.%%I', relname), ', ') FROM pg_class WHERE relnamespace = pg_my_temp_schema()"
            r" AND relkind = 'r' AND relname ~ '^(open_line|open_item|shared|taken|rest|(found|twice)_\d+)$'"
        )
        self._execute(f"DROP TABLE {names}")

    def _look_at_what_is_open(self, first: Rule) -> None:
        """Reads what is open into relations of the run; or, where most is open, leaves that until the first rule took its part."""
        (mostly,) = self._row(
            "SELECT pg_relation_size('ledger.paired_line') * 8 < pg_relation_size('ledger.statement_line')"
        )
        later = (
            mostly and first.pairs == "one_to_one" and not first.on & {"identifiers", "party"} and first.on
        )
        for name, query in (("open_line", _LINES), ("open_item", _ITEMS)):
            if later:
                values = {key: Literal(value).as_string(self.cursor) for key, value in self.common.items()}
                self._execute(
                    f"CREATE TEMPORARY VIEW {name} AS {query.replace('%(', '{').replace(')s', '}').format(**values)}"
                )
                self._unread.add(name)
            else:
                self._open[name] = self._relation(name, query)
                self._execute(f"ANALYZE {name}")
        (self._has_undone,) = self._row(
            "SELECT EXISTS (SELECT FROM ledger.pairing WHERE bank_account_id = %(account)s AND undone_at IS NOT NULL)"
        )
        (self._has_expected,) = self._row(
            "SELECT EXISTS (SELECT FROM ledger.item WHERE bank_account_id = %(account)s AND source <> 'booked'"
            " AND closed_at IS NULL)"
        )
        self._has_reversals = self._has_expected and bool(
            self._row(
                "SELECT EXISTS (SELECT FROM ledger.statement_line WHERE bank_account_id = %(account)s AND reversal"
                " AND booked_on >= %(since)s)"
            )[0]
        )

    def _rewrite(self, name: str, but_for: str = "SELECT NULL::uuid AS id WHERE false") -> None:
        """What is open anew, without the ids of a query."""
        rest = f"SELECT * FROM {name} o WHERE NOT EXISTS (SELECT FROM ({but_for}) AS t WHERE t.id = o.id)"
        self._open[name] = self._relation("rest", rest)
        self._execute(f"DROP {'VIEW' if name in self._unread else 'TABLE'} {name}")
        self._unread.discard(name)
        self._execute(f"ALTER TABLE rest RENAME TO {name}")
        self._execute(f"ANALYZE {name}")

    def _find(self, number: int, rule: Rule) -> _Found | None:
        """What a rule finds, or nothing."""
        if "identifiers" in rule.on and not self._names_known:
            self._relation("shared", candidates.SHARED)
            self._execute("ANALYZE shared")
            self._names_known = True
        if rule.search is not None:
            return self._search(number, rule)
        if rule.pairs == "one_to_one":
            return self._one_to_one(number, rule)
        found = f"found_{number}"
        size = self._relation(found, _NUMBERED.format(groups=candidates.groups(rule)), **_limits(rule))
        return self._once(number, rule, found, size) if size else None

    def _one_to_one(self, number: int, rule: Rule) -> _Found | None:
        found, twice = f"found_{number}", f"twice_{number}"
        size = self._relation(found, candidates.one_to_one(rule), **_limits(rule))
        if not size:
            return None
        ambiguous = self._relation(
            twice,
            f"SELECT line AS id FROM {found} GROUP BY line HAVING count(*) > 1"
            f" UNION ALL SELECT item FROM {found} GROUP BY item HAVING count(*) > 1",
        )
        ambiguous += self._refuse_reversals(twice, found, "f.line", "ARRAY[f.line]")
        once = (
            f"WHERE {WHOLE} AND NOT EXISTS (SELECT FROM {twice} t WHERE t.id = c.line)"
            f" AND NOT EXISTS (SELECT FROM {twice} t WHERE t.id = c.item)"
        )
        if not rule.is_telling:
            self._execute(f"ANALYZE {found}")  # a few: what they are compared with is not worth hashing
            ambiguous += self._execute(
                f"INSERT INTO {twice} {candidates.not_alone(rule, found)}", **_limits(rule)
            ).rowcount
            (left,) = self._row(f"SELECT EXISTS (SELECT FROM {found} c {once})")
            if not left:
                return None
            kept = (
                f"SELECT c.line AS key, ARRAY[c.line] AS lines, ARRAY[c.item] AS items FROM {found} c {once}"
            )
            ambiguous += self._execute(f"INSERT INTO {twice} {candidates.named_elsewhere(kept)}").rowcount
        source = f"FROM {found} c {once if ambiguous else f'WHERE {WHOLE}'}"
        return _Found(
            found,
            "SELECT ARRAY[c.line] AS lines, ARRAY[c.item] AS items, c.amount, c.difference, c.source, c.evidence"
            f" {source}",
            f"SELECT c.line AS id {source}",
            f"SELECT c.item AS id {source}",
            size,
        )

    def _refuse_reversals(self, twice: str, found: str, key: str, lines: str) -> int:
        """Adds to `twice` the keys of what was found that would make a bank's reversal a payment; how many."""
        if not self._has_reversals:
            return 0
        return self._execute(
            f"INSERT INTO {twice} SELECT {key} {candidates.REVERSED.format(found=found, lines=lines)}"
        ).rowcount

    def _once(self, number: int, rule: Rule, found: str, size: int) -> _Found:
        """Of groups, those of which no line and no item is in another one too, and which nothing contradicts."""
        twice = f"twice_{number}"
        ambiguous = self._relation(
            twice,
            f"""
            WITH member AS (SELECT g.n, id FROM {found} g CROSS JOIN LATERAL unnest(g.lines || g.items) AS id),
            many AS (SELECT id FROM member GROUP BY id HAVING count(*) > 1)
            SELECT DISTINCT member.n FROM member JOIN many USING (id)
            """,
        )
        ambiguous += self._refuse_reversals(twice, found, "f.n", "f.lines")
        if not rule.is_telling:
            self._execute(f"ANALYZE {found}")
            ambiguous += self._execute(
                f"INSERT INTO {twice} {candidates.as_good_alone(rule, found)}", **_limits(rule)
            ).rowcount
            # most bear no name, and are not worth a look
            kept = (
                f"SELECT g.n AS key, g.lines, g.items FROM {found} g WHERE g.named"
                f" AND NOT EXISTS (SELECT FROM {twice} t WHERE t.n = g.n)"
            )
            ambiguous += self._execute(f"INSERT INTO {twice} {candidates.named_elsewhere(kept)}").rowcount
        once = f" AND NOT EXISTS (SELECT FROM {twice} t WHERE t.n = g.n)" if ambiguous else ""
        return _Found.of_groups(
            found,
            "SELECT g.lines, g.items, g.amount, CAST(0 AS bigint) AS difference, g.source, g.evidence"
            f" FROM {found} g WHERE {WHOLE}{once}",
            size,
        )

    def _search(self, number: int, rule: Rule) -> _Found | None:
        """Sums over few candidates are searched here, set by set; whatever PostgreSQL could do it would do slower."""
        assert rule.search is not None  # noqa: S101  the caller's condition
        one_line = rule.pairs == "one_line_to_many"
        sums = self._execute(
            candidates.SEARCH_ITEMS if one_line else candidates.SEARCH_LINES,
            **_limits(rule),
            sums_max=SUMS_MAX,
            open_max=PARTY_OPEN_MAX,
        ).fetchall()
        rows: list[tuple[object, ...]] = []
        for one, amount, party, source, others, amounts, days, has_older in sums:
            chosen = only_subset(amount, amounts, days, steps_max=rule.search.steps_max, has_older=has_older)
            if chosen is None:
                continue
            many = [others[at] for at in chosen]
            told = {"party": party, "sum": amount, "searched": len(amounts)}
            told |= {"items": len(many)} if one_line else {"lines": len(many)}
            rows.append(
                (len(rows), *(([one], many) if one_line else (many, [one])), amount, source, json.dumps(told))
            )
        if not rows:
            return None
        found = f"found_{number}"
        self._execute(
            f"CREATE TEMPORARY TABLE {found} (n bigint, lines uuid[], items uuid[], amount bigint, source text, evidence jsonb,"
            " named boolean DEFAULT true)"
            " ON COMMIT DROP"
        )
        self.cursor.executemany(f"INSERT INTO {found} VALUES (%s, %s, %s, %s, %s, %s)", rows)
        return self._once(number, rule, found, len(rows))

    def _keep(self, rule: Rule, found: _Found) -> None:
        """Keeps what a rule found, and takes it out of what is open."""
        proposals = (
            self._proposed(rule, found.query) if self._has_expected or rule.tolerance is not None else []
        )
        for name, ids in (("open_line", found.line_ids), ("open_item", found.item_ids)):
            # writing the rest is cheaper than deleting a third
            if name in self._unread or found.size * 3 > self._open[name]:
                self._rewrite(name, ids)
            else:
                self._execute("DROP TABLE IF EXISTS pg_temp.taken")
                self._relation("taken", ids)
                taken = "EXISTS (SELECT FROM taken t WHERE t.id = o.id)"
                self._open[name] -= self._execute(f"DELETE FROM {name} o WHERE {taken}").rowcount
        (kept,) = self._row(f"SELECT count(*) FROM ({found.query}) AS f")
        self.proposals += proposals
        if kept > len(proposals):
            self.by_rule[rule.name] = kept - len(proposals)
            self._found.append((rule, found))

    def _proposed(self, rule: Rule, query: str) -> list[Proposal]:
        rows = self._execute(
            f"SELECT f.lines, f.items, f.evidence, f.difference FROM ({query}) AS f"
            " WHERE f.source <> 'booked' OR f.difference <> 0 ORDER BY f.lines"
        ).fetchall()
        return [
            Proposal(self.common["account"], tuple(lines), tuple(items), rule.name, evidence, difference)
            for lines, items, evidence, difference in rows
        ]

    def _write(self) -> None:
        """Makes the pairings, part by part: what a trigger sees of one statement is to stay in memory."""
        made, ids = 0, id_prefix()
        for rule, found in self._found:
            (blocks,) = self._row(
                "SELECT pg_relation_size(CAST(%(relation)s AS regclass)) / current_setting('block_size')::integer",
                relation=found.relation,
            )
            for first in range(0, blocks, PART_BLOCKS):
                part = f"ctid >= '({first},0)' AND ctid < '({first + PART_BLOCKS},0)'"
                made += self._execute(
                    _MADE.format(found=found.query.replace(WHOLE, part)),
                    ids=ids,
                    made=made,
                    rule=rule.name,
                ).rowcount
        if made != sum(self.by_rule.values()):
            raise RuntimeError(f"found {sum(self.by_rule.values())} pairings and made {made}")


def _limits(rule: Rule) -> dict[str, int]:
    limits = {"days": rule.days, "alone_days": rule.alone_days}
    if rule.tolerance is not None:
        limits |= {"basis_points": rule.tolerance.basis_points, "amount_max": rule.tolerance.amount_max}
    if rule.search is not None:
        limits |= {"candidates_max": rule.search.candidates_max}
    return limits


def _record(
    tx: Tx, bank_account_id: UUID, rules: Rules, outcome: Outcome, *, run_id: UUID, made_by: str, clock: Clock
) -> None:
    tx.execute(
        text(
            "INSERT INTO ledger.pairing_run (id, run_id, bank_account_id, rules_version, made_by, made_at, by_rule,"
            " proposals) VALUES (:id, :run, :account, :version, :by, :at, CAST(:by_rule AS jsonb), :proposals)"
        ),
        {
            "id": new_id(),
            "run": run_id,
            "account": bank_account_id,
            "version": rules.version,
            "by": made_by,
            "at": clock.now(),
            "by_rule": json.dumps(outcome.by_rule),
            "proposals": len(outcome.proposals),
        },
    )
