"""Pairing: tries a bank account's rules in order over everything that is open, in sets, inside the database.

A run is one database transaction for one bank account: killed or failed, it leaves nothing. A rule pairs what it finds one answer
for; a line or an item with two is left to a later rule that says more, and at last to people. What a person took back is never
made again. Runs of an account wait for each other; a person who pairs at the same moment is first, or the run is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Cursor, Tx, cursor, sqlstate
from ledger.errors import NotFound
from ledger.ids import new_id
from ledger.reconciliation import candidates
from ledger.reconciliation.pairings import AlreadyPaired, Proposal
from ledger.reconciliation.rules import Rule, Rules
from ledger.reconciliation.search import only_subset

SUMS_MAX: Final = 20_000
"""How many sums one rule searches for in a run."""
PARTY_OPEN_MAX: Final = 200
"""A party with more open lines or items than this is not searched."""
TRIES_MAX: Final = 3
"""How often a rule is tried again when a person paired one of its lines meanwhile."""

_ADVISORY_CLASS: Final = 0x4D5B
_UNIQUE_VIOLATION: Final = "23505"

# Hash joins alone: fresh rows have no statistics, and a plan for a hundred rows would be a disaster for a million. 128 MB for
# each step of a plan, twice that for hashes, keeps a million lines in memory and a backend below a gigabyte.
_SETTINGS: Final = {
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
    "work_mem": "128MB",
    "statement_timeout": "0",
}

_LINES: Final = """
    SELECT l.id, l.amount, l.booked_on, l.reference, l.end_to_end, l.identifiers, l.party FROM ledger.statement_line l
    WHERE l.bank_account_id = %(account)s AND l.currency = %(currency)s AND l.duplicate_of IS NULL AND l.booked_on >= %(since)s
      AND NOT EXISTS (SELECT FROM ledger.paired_line p WHERE p.line_id = l.id)
"""
_ITEMS: Final = """
    SELECT i.id, i.source, i.amount, i.on_date, i.day, i.reference, i.end_to_end, i.identifiers, i.party, i.batch
    FROM ledger.item i
    WHERE i.bank_account_id = %(account)s AND i.currency = %(currency)s AND i.closed_at IS NULL AND i.on_date >= %(since)s
      AND NOT EXISTS (SELECT FROM ledger.paired_item p WHERE p.item_id = i.id)
"""
_TEMPORARY: Final = ("open_line", "open_item", "line_token", "item_token", "candidate", "twice", "found")

# The id is a UUIDv7 whose last 48 bits count on from the rule's own, so that a rule's pairings lie side by side.
_MADE: Final = """
    INSERT INTO ledger.pairing (id, bank_account_id, run_id, rule, evidence, amount, lines, items, made_by, made_at)
    SELECT CAST(%(ids)s || lpad(to_hex(row_number() OVER ()), 12, '0') AS uuid), %(account)s, %(run)s, %(rule)s, f.evidence,
           f.amount, f.lines, f.items, %(by)s, %(at)s
    FROM ({found}) AS f
"""
_NOT_UNDONE: Final = """
    NOT EXISTS (SELECT FROM ledger.pairing u WHERE u.bank_account_id = %(account)s AND u.undone_at IS NOT NULL
                AND u.lines = f.lines AND u.items = f.items)
"""
_NOT_TWICE: Final = """
    NOT EXISTS (SELECT FROM twice t WHERE t.id = c.line) AND NOT EXISTS (SELECT FROM twice t WHERE t.id = c.item)
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

    Raises NotFound, and Conflict `already_paired` where people went on pairing the same lines all the time.
    """
    tx.execute(
        text("SELECT pg_advisory_xact_lock(:class, hashtext(:account))"),
        {"class": _ADVISORY_CLASS, "account": str(bank_account_id)},
    )
    currency = tx.execute(
        text("SELECT currency FROM ledger.bank_account WHERE id = :id"), {"id": bank_account_id}
    ).scalar()
    if currency is None:
        raise NotFound("there is no such bank account")
    now = clock.now()
    run = _Run(
        tx=tx,
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
    before = run.tune(_SETTINGS)
    for rule in rules.rules:
        if not run.follow(rule):
            break
    run.clear()
    run.tune(before)
    outcome = Outcome(sum(run.by_rule.values()), tuple(run.proposals), run.by_rule)
    if outcome.pairings or outcome.proposals:
        _record(tx, bank_account_id, rules, outcome, run_id=run_id, made_by=made_by, clock=clock)
    return outcome


@dataclass(slots=True)
class _Run:
    """One run over one bank account: what is open, and what was found."""

    tx: Tx
    cursor: Cursor
    common: Mapping[str, Any]
    proposals: list[Proposal] = field(default_factory=list)
    by_rule: dict[str, int] = field(default_factory=dict)
    _proposed: list[UUID] = field(default_factory=list)
    _tokens: bool = False
    _read: bool = False

    def tune(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Sets PostgreSQL's settings for this transaction; answers what they were."""
        before = {}
        for name, value in settings.items():
            before[name] = str(self._execute("SELECT current_setting(%(name)s)", name=name).fetchall()[0][0])
            self._execute("SELECT set_config(%(name)s, %(value)s, true)", name=name, value=value)
        return before

    def clear(self) -> None:
        """Drops the run's relations."""
        self._execute(f"DROP TABLE IF EXISTS {', '.join(f'pg_temp.{name}' for name in _TEMPORARY)}")

    def follow(self, rule: Rule) -> bool:
        """Tries a rule; False when nothing is left to try the next with."""
        for _ in range(TRIES_MAX):
            proposed = len(self._proposed)
            try:
                with self.tx.begin_nested():
                    if not self._read:
                        self._read_what_is_open()
                    if not self._anything():
                        return False
                    made, proposals = self._try(rule)
                break
            except Exception as error:
                if sqlstate(error) != _UNIQUE_VIOLATION:
                    raise
                # A person was first. The savepoint took back what the rule did: look again.
                self._read = self._tokens = False
                del self._proposed[proposed:]
        else:
            raise AlreadyPaired("lines of this bank account are being paired by others at this moment")
        self.proposals += proposals
        if made:
            self.by_rule[rule.name] = made
        return True

    def _execute(self, statement: str, **values: object) -> Cursor:
        return self.cursor.execute(statement, {**self.common, **values}, prepare=False)

    def _relation(self, name: str, query: str, **values: object) -> int:
        """Makes a relation of the run anew from a query; how many rows it has."""
        self._execute(f"DROP TABLE IF EXISTS pg_temp.{name}")
        return self._execute(f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {query}", **values).rowcount

    def _read_what_is_open(self) -> None:
        for name, query, row in (("open_line", _LINES, "l"), ("open_item", _ITEMS, "i")):
            self._relation(name, f"{query} AND NOT {row}.id = ANY (%(proposed)s)", proposed=self._proposed)
            self._execute(f"ANALYZE {name}")
        self._read = True

    def _anything(self) -> bool:
        row = self._execute(
            "SELECT EXISTS (SELECT FROM open_line) AND EXISTS (SELECT FROM open_item)"
        ).fetchone()
        return row is not None and bool(row[0])

    def _tokens_of_what_is_open(self) -> None:
        if not self._tokens:
            self._relation("line_token", candidates.LINE_TOKENS)
            self._relation("item_token", candidates.ITEM_TOKENS)
            self._tokens = True

    def _try(self, rule: Rule) -> tuple[int, list[Proposal]]:
        """Makes what a rule finds: how many pairings, and its proposals."""
        if "identifiers" in rule.on:
            self._tokens_of_what_is_open()
        if rule.search is not None:
            found = self._search(rule)
        elif rule.pairs == "one_to_one":
            found = self._one_to_one(rule)
        else:
            found = self._groups(rule)
        if found is None:
            return 0, []
        proposals = self._propose(rule, found)
        made = self._make(rule, found)
        if made or proposals:
            self._leave_the_rest()
        return made, proposals

    def _one_to_one(self, rule: Rule) -> str | None:
        if not self._relation("candidate", candidates.one_to_one(rule), **_limits(rule)):
            return None
        self._relation(
            "twice",
            "SELECT line AS id FROM candidate GROUP BY line HAVING count(*) > 1"
            " UNION ALL SELECT item FROM candidate GROUP BY item HAVING count(*) > 1",
        )
        if not rule.is_telling:
            self._execute(f"INSERT INTO twice {candidates.not_alone(rule)}", **_limits(rule))
        return (
            "SELECT ARRAY[c.line] AS lines, ARRAY[c.item] AS items, c.amount, c.difference, c.source, c.evidence"
            f" FROM candidate c WHERE {_NOT_TWICE}"
        )

    def _groups(self, rule: Rule) -> str | None:
        if not self._relation("found", candidates.groups(rule), **_limits(rule)):
            return None
        return self._once_in_found()

    def _once_in_found(self) -> str:
        self._relation(
            "twice",
            "SELECT id FROM found f CROSS JOIN LATERAL unnest(f.lines || f.items) AS id GROUP BY id HAVING count(*) > 1",
        )
        return (
            "SELECT f.lines, f.items, f.amount, CAST(0 AS bigint) AS difference, f.source, f.evidence FROM found f"
            " WHERE NOT EXISTS (SELECT FROM (SELECT f.lines, f.items) AS g CROSS JOIN LATERAL unnest(g.lines || g.items) AS u(id)"
            " JOIN twice t ON t.id = u.id)"
        )

    def _search(self, rule: Rule) -> str | None:
        """Sums over few candidates are searched here, set by set; whatever PostgreSQL could do it would do slower."""
        assert rule.search is not None  # noqa: S101  the caller's condition
        one_line = rule.pairs == "one_line_to_many"
        sums = self._execute(
            candidates.SEARCH_ITEMS if one_line else candidates.SEARCH_LINES,
            **_limits(rule),
            sums_max=SUMS_MAX,
            open_max=PARTY_OPEN_MAX,
        ).fetchall()
        rows = []
        for one, amount, party, source, others, amounts in sums:
            chosen = only_subset(amount, amounts, steps_max=rule.search.steps_max)
            if chosen is None:
                continue
            many = [others[at] for at in chosen]
            evidence = {
                "party": party,
                "items" if one_line else "lines": len(many),
                "sum": amount,
                "searched": len(amounts),
            }
            rows.append(
                (*(([one], many) if one_line else (many, [one])), amount, source, json.dumps(evidence))
            )
        if not rows:
            return None
        self._relation(
            "found",
            "SELECT ARRAY[]::uuid[] AS lines, ARRAY[]::uuid[] AS items, 0::bigint AS amount, ''::text AS source,"
            " '{}'::jsonb AS evidence WHERE false",
        )
        self.cursor.executemany("INSERT INTO found VALUES (%s, %s, %s, %s, %s::jsonb)", rows)
        return self._once_in_found()

    def _propose(self, rule: Rule, found: str) -> list[Proposal]:
        rows = self._execute(
            f"SELECT f.lines, f.items, f.evidence, f.difference FROM ({found}) AS f"
            f" WHERE (f.source <> 'booked' OR f.difference <> 0) AND {_NOT_UNDONE} ORDER BY f.lines"
        ).fetchall()
        proposals = [
            Proposal(self.common["account"], tuple(lines), tuple(items), rule.name, evidence, difference)
            for lines, items, evidence, difference in rows
        ]
        self._proposed += [id_ for one in proposals for id_ in (*one.lines, *one.items)]
        return proposals

    def _make(self, rule: Rule, found: str) -> int:
        statement = _MADE.format(
            found=f"SELECT * FROM ({found}) AS f WHERE f.source = 'booked' AND f.difference = 0 AND {_NOT_UNDONE}"
        )
        return self._execute(statement, rule=rule.name, ids=str(new_id())[:-12]).rowcount

    def _leave_the_rest(self) -> None:
        for name, paired, column in (
            ("open_line", "paired_line", "line_id"),
            ("open_item", "paired_item", "item_id"),
        ):
            self._execute(f"DELETE FROM {name} o USING ledger.{paired} p WHERE p.{column} = o.id")
            if self._proposed:
                self._execute(f"DELETE FROM {name} WHERE id = ANY (%(proposed)s)", proposed=self._proposed)


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
