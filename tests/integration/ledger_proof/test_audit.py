"""The audit log: only grows, is sealed with the books, and a verification finds what was changed in it."""

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger import audit
from ledger.audit import Act, InvalidAct, Wanted
from ledger.clock import FixedClock
from ledger.database import Database, sqlstate
from ledger.errors import Conflict
from ledger.horizon import Position
from ledger.ids import new_id
from ledger.report import Report
from ledger.seals import Seal, heads, public_keys
from tests.conftest import Databases
from tests.integration.ledger_proof.conftest import Books

ACT = Act(
    actor="opr_a",
    kind="operator",
    action="period.reopened",
    object="savers",
    outcome="done",
    address="192.0.2.7",
    request_id="req-1",
    before=b"sealed: closed through March",
    after=b"sealed: closed through February",
    detail={"days": 31, "reason": "é"},
)


def record(books: Books, act: Act = ACT, database: Database | None = None) -> UUID:
    """Records an act in a transaction of its own, each with an id of its own."""
    fresh = replace(act, id=new_id())
    with (database or books.databases.worker).begin() as tx:
        return audit.record(tx, fresh, books.clock)


def lies(report: Report) -> list[tuple[str, str, str]]:
    return [(check, finding.where, finding.what) for check, finding in report.findings()]


FORGED = (
    "INSERT INTO ledger.audit_entry (id, actor_kind, actor, action, object, outcome, recorded_at, salt, leaf, xid)"
    " VALUES (gen_random_uuid(), 'cli', 'x', 'x', 'x', 'done', now(), decode(repeat('00', 16), 'hex'),"
    " decode(repeat('00', 32), 'hex'), '3')"
)
"""An entry that says it is older than it is."""


def as_staff(database: Database, statement: str) -> None:
    with database.begin() as tx:
        tx.execute(text("SELECT set_config('mizan.access', 'staff', true)"))
        tx.execute(text(statement))


@pytest.mark.parametrize("role", ["api", "worker", "sealer", "auditor"])
def test_no_role_changes_or_removes_an_entry(books: Books, role: str) -> None:
    record(books)
    for statement in (
        "UPDATE ledger.audit_entry SET actor = 'opr_b'",
        "DELETE FROM ledger.audit_entry",
        "TRUNCATE ledger.audit_entry",
        FORGED,
        "ALTER TABLE ledger.audit_entry DISABLE TRIGGER ALL",
        "DROP TABLE ledger.audit_entry",
    ):
        database: Database = getattr(books.databases, role)
        with pytest.raises(DBAPIError) as refused:
            as_staff(database, statement)
        assert sqlstate(refused.value) in ("42501", "MZ002"), statement
    with books.databases.worker.begin() as tx:
        assert tx.execute(text("SELECT array_agg(actor) FROM ledger.audit_entry")).scalar() == ["opr_a"]


def test_even_the_owner_is_refused_by_the_guard(books: Books) -> None:
    record(books)
    for statement in (
        "UPDATE ledger.audit_entry SET actor = 'opr_b'",
        "DELETE FROM ledger.audit_entry",
        "TRUNCATE ledger.audit_entry CASCADE",  # closes refer to it
    ):
        with pytest.raises(DBAPIError) as refused, books.databases.owner.begin() as tx:
            tx.execute(text(statement))
        assert sqlstate(refused.value) == "MZ002"


def test_staff_see_the_log_of_their_programmes_and_partners_nothing(books: Books) -> None:
    mine, other = UUID(int=1), UUID(int=2)
    for programme in (mine, other, None):
        record(books, replace(ACT, programme_id=programme), books.databases.api)

    def seen(access: str, programmes: str) -> set[UUID | None]:
        with books.databases.api.begin() as tx:
            tx.execute(
                text(
                    "SELECT set_config('mizan.access', :access, true), set_config('mizan.programmes', :programmes, true)"
                ),
                {"access": access, "programmes": programmes},
            )
            return set(tx.execute(text("SELECT programme_id FROM ledger.audit_entry")).scalars())

    assert seen("staff", "") == {mine, other, None}
    assert seen("staff", str(mine)) == {mine}
    assert seen("", "") == set()


def test_what_cannot_be_written_down_is_refused_before_it_is_written(books: Books) -> None:
    for act in (
        replace(ACT, actor=""),
        replace(ACT, object="x" * 201),
        replace(ACT, detail={"share": 0.5}),
        replace(ACT, detail={"text": "x" * 5_000}),
        replace(ACT, before=bytes(audit.VALUE_BYTES_MAX + 1)),
    ):
        with pytest.raises(InvalidAct):
            record(books, act)


def test_the_log_is_read_in_its_order_by_who_what_and_when(books: Books, clock: FixedClock) -> None:
    start = clock.now()
    first = record(books)
    second = record(books, replace(ACT, actor="opr_b", action="period", object="pool", outcome="refused"))
    third = record(books, replace(ACT, action="periodic.ran"))

    def found(after: Position | None = None, limit: int = 10, **wanted: object) -> list[UUID]:
        with books.databases.auditor.read() as tx:
            asked = Wanted(**wanted)  # type: ignore[arg-type]  # passed on
            return [one.id for one in audit.entries(tx, asked, after=after, limit=limit)]

    assert found() == [first, second, third]
    assert found(actor="opr_b") == found(object="pool") == found(outcome="refused") == [second]
    assert found(action="period") == [first, second]
    assert found(since=start, until=start) == []
    with books.databases.auditor.read() as tx:
        (page,) = audit.entries(tx, Wanted(), limit=1)
    assert found(after=page.position) == [second, third]


def test_an_entry_under_way_is_not_read_past(books: Books) -> None:
    with books.databases.worker.begin() as slow:
        audit.record(slow, replace(ACT, id=new_id()), books.clock)
        later = record(books)
        with books.databases.auditor.read() as tx:
            assert audit.entries(tx, Wanted(), limit=10) == []
        assert books.seal() == []
    with books.databases.auditor.read() as tx:
        assert [one.id for one in audit.entries(tx, Wanted(), limit=10)][1:] == [later]


def test_seals_cover_the_log_beside_the_journal(books: Books) -> None:
    books.post(books.contribution(0, 1_000))
    record(books)
    record(books)
    (first,) = books.seal()
    assert (first.transactions, first.audit_entries, first.total_audit_entries) == (1, 2, 2)
    record(books)
    (second,) = books.seal()  # the log alone is reason enough
    assert (second.transactions, second.audit_entries, second.total_audit_entries) == (0, 1, 3)
    assert books.seal() == []
    record(books)
    report = books.verify()
    assert report.ok, lies(report)
    assert (report.audit_entries, report.unsealed_audit_entries) == (4, 1)
    assert report.caveat is not None
    assert "audit entries are not sealed yet" in report.caveat


def test_a_seal_takes_about_its_limit_of_both_and_ends_after_a_whole_transaction(books: Books) -> None:
    for _ in range(3):
        record(books)
        books.post(books.contribution(0, 1_000))
    with books.databases.worker.begin() as tx:
        for _ in range(3):
            audit.record(tx, replace(ACT, id=new_id()), books.clock)
    sizes = [(one.transactions, one.audit_entries) for one in books.seal(limit=4)]
    assert sizes == [(2, 2), (1, 4)]
    assert books.verify().ok


def test_a_published_head_carries_the_log_and_old_heads_stay_valid(books: Books) -> None:
    record(books)
    (sealed,) = books.seal()
    shown = sealed.to_json()
    assert shown["audit_entries"] == 1
    again = Seal.from_json(shown)
    with books.databases.auditor.begin() as tx:
        keys = public_keys(tx)
    assert again == sealed
    assert again.computed_head() == sealed.head
    assert again.signature_holds(keys)
    changes: tuple[dict[str, int | str], ...] = ({"audit_entries": 2}, {"audit_root": "00" * 32})
    for change in changes:
        assert Seal.from_json(shown | change).computed_head() != sealed.head
    # the first form, as it was published before there was a log
    old = replace(sealed, audit_root=None, audit_entries=None, total_audit_entries=None)
    assert "audit_root" not in old.to_json()
    assert Seal.from_json(old.to_json()) == old
    assert old.computed_head() != sealed.head


def test_a_chain_from_before_the_log_is_continued(books: Books) -> None:
    books.post(books.contribution(0, 1_000))
    (now,) = books.seal()
    draft = replace(now, audit_root=None, audit_entries=None, total_audit_entries=None)
    head = draft.computed_head()
    books.tamper(
        "UPDATE ledger.seal SET audit_root = NULL, audit_entries = NULL, total_audit_entries = NULL, head = %(head)s,"
        " signature = %(signature)s",
        head=head,
        signature=books.key.sign(head),
    )
    assert books.verify().ok
    record(books)
    (later,) = books.seal()
    assert (later.number, later.previous, later.total_audit_entries) == (2, head, 1)
    assert books.verify().ok
    # and going back to a form without the log is a lie, even when it is signed
    books.post(books.contribution(0, 1_000))
    (last,) = books.seal()
    head = replace(last, audit_root=None, audit_entries=None, total_audit_entries=None).computed_head()
    books.tamper(
        "UPDATE ledger.seal SET audit_root = NULL, audit_entries = NULL, total_audit_entries = NULL, head = %(head)s,"
        " signature = %(signature)s WHERE number = 3",
        head=head,
        signature=books.key.sign(head),
    )
    assert [(check, what) for check, _, what in lies(books.verify())] == [
        ("seals cover the audit log", "does not cover the log, as the seal before it does")
    ]


@pytest.fixture
def logged(books: Books) -> tuple[Books, UUID]:
    """Three sealed entries, the id of the second, beside a sealed transaction; all well."""
    books.post(books.contribution(0, 1_000))
    record(books)
    second = record(books)
    record(books)
    books.seal()
    assert books.verify().ok
    return books, second


LEAF_LIE = ("audit entries hash to their leaves", "its fields do not hash to its leaf")
VALUE_LIE = ("audit entries hash to their leaves", "its sealed values are not those that were recorded")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("actor = 'opr_b'", LEAF_LIE),
        ("actor_kind = 'staff'", LEAF_LIE),
        ("action = 'period.closed'", LEAF_LIE),
        ("object = 'pool'", LEAF_LIE),
        ("outcome = 'refused'", LEAF_LIE),
        ("address = NULL", LEAF_LIE),
        ("request_id = 'req-2'", LEAF_LIE),
        ("programme_id = gen_random_uuid()", LEAF_LIE),
        ("recorded_at = recorded_at - interval '1 microsecond'", LEAF_LIE),
        ("detail = '{\"days\": 30}'", LEAF_LIE),
        ("detail = '{\"days\": 0.5}'", LEAF_LIE),
        ("before_digest = after_digest", LEAF_LIE),
        ("salt = decode(repeat('00', 16), 'hex')", LEAF_LIE),
        ("before = after", VALUE_LIE),
    ],
)
def test_a_changed_entry_is_found_where_it_is(
    logged: tuple[Books, UUID], change: str, expected: tuple[str, str]
) -> None:
    books, entry = logged
    change = change.replace("%", "%%")
    assert books.tamper(f"UPDATE ledger.audit_entry SET {change} WHERE id = %(id)s", id=entry) == 1
    assert lies(books.verify()) == [(expected[0], f"audit entry {entry}", expected[1])]


def test_an_entry_rewritten_with_its_leaf_breaks_the_seal(logged: tuple[Books, UUID]) -> None:
    books, entry = logged
    with books.databases.auditor.begin() as tx:
        stored = audit.entry(tx, entry)
    forged = replace(stored, actor="opr_b")
    books.tamper(
        "UPDATE ledger.audit_entry SET actor = 'opr_b', leaf = %(leaf)s WHERE id = %(id)s",
        id=entry,
        leaf=forged.computed_leaf(),
    )
    (lie,) = lies(books.verify())
    assert lie[0] == "seals cover the audit log"
    assert lie[2] == "one of its audit entries was changed, moved or exchanged"


def test_an_entry_taken_away_put_in_or_moved_breaks_the_seal(logged: tuple[Books, UUID]) -> None:
    books, entry = logged
    with books.databases.auditor.begin() as tx:
        stored = audit.entry(tx, entry)
    forged = replace(stored, id=new_id())
    books.tamper(
        "INSERT INTO ledger.audit_entry SELECT (jsonb_populate_record(e, jsonb_build_object('id', %(new)s::text,"
        " 'leaf', %(leaf)s::text))).* FROM ledger.audit_entry e WHERE id = %(id)s",
        new=str(forged.id),
        leaf="\\x" + forged.computed_leaf().hex(),
        id=entry,
    )
    assert [(check, what) for check, _, what in lies(books.verify())] == [
        ("seals cover the audit log", "sealed 3 audit entries, there are 4")
    ]
    books.tamper("DELETE FROM ledger.audit_entry WHERE id = ANY(%(ids)s)", ids=[entry, forged.id])
    assert [(check, what) for check, _, what in lies(books.verify())] == [
        ("seals cover the audit log", "sealed 3 audit entries, there are 2")
    ]


def test_an_entry_put_where_no_seal_reaches_is_found(logged: tuple[Books, UUID]) -> None:
    books, entry = logged
    record(books)
    books.seal()
    books.tamper(
        "UPDATE ledger.seal SET from_xid = (from_xid::text::bigint + 1)::text::xid8 WHERE number = 2"
    )
    books.tamper(
        "UPDATE ledger.audit_entry SET xid = (SELECT to_xid FROM ledger.seal WHERE number = 1) WHERE id = %(id)s",
        id=entry,
    )
    assert ("seals leave nothing out", "lies before seal 2 and in none") in {
        (check, what) for check, _, what in lies(books.verify())
    }


def test_a_seal_whose_count_of_the_log_was_changed_is_found(logged: tuple[Books, UUID]) -> None:
    books, _ = logged
    books.tamper("UPDATE ledger.seal SET total_audit_entries = 4")
    found = {check for check, _, _ in lies(books.verify())}
    assert found == {"seals follow each other", "seals cover the audit log"}
    record(books)
    with pytest.raises(Conflict, match="does not hold"):
        books.seal()


def test_what_was_published_covers_the_log_too(logged: tuple[Books, UUID]) -> None:
    """A forger with the sealing key rewrites log and chain; the published head still tells."""
    books, entry = logged
    with books.databases.auditor.begin() as tx:
        published = heads(tx)
    books.tamper("DELETE FROM ledger.audit_entry WHERE id = %(id)s", id=entry)
    books.tamper("DELETE FROM ledger.seal")
    books.seal()
    assert books.verify().ok
    assert not books.verify(against=published).ok


def test_the_log_needs_no_journal(databases: Databases, clock: FixedClock) -> None:
    """Entries written before any fund is opened are sealed and verified."""
    with databases.api.begin() as tx:
        audit.record(tx, replace(ACT, before=None, after=None, detail=None, address=None), clock)
    with databases.auditor.read() as tx:
        (only,) = audit.entries(tx, Wanted(), limit=5)
    assert only.computed_leaf() == only.leaf
    assert only.values_hold
