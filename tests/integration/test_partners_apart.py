"""With the role of the API and no filter of any query's own, nothing of another partner, member or programme is seen.

The catalogue is walked: whoever adds a table that the API's role can read guards it, or writes below why that need not be.
Every table is filled for two partners and two members of one of them; what these tests can't fill by themselves is in
`SHAPES`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.auth.actors import Sight
from api.auth.clients import create_client
from api.settings import Environment
from integrations.inbox.drain import drain
from integrations.outbound.events import expand
from integrations.partners.secrets import create_secret
from integrations.rails.sandbox import ensure_rails
from ledger import holds
from ledger.clock import FixedClock
from ledger.database import Tx
from ledger.fold import fold
from ledger.ids import new_id
from ledger.money import Money
from products.programmes.registry import apply
from products.remittances.partners import Partner
from products.remittances.quoting import give
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox, Journal
from tests.integration.left_breaks import leave_breaks
from tests.integration.left_closes import leave_closes
from tests.integration.left_files import leave_files
from tests.integration.left_opening import leave_opening
from tests.integration.left_statements import leave_statements
from tests.world import Person, World

SCHEMAS: Final = ["api", "integrations", "ledger", "products"]
ELSEWHERE: Final = "three-for-one.yaml"

OPEN: Final[Mapping[str, str]] = {
    "api.audit_key": "keys, wrapped by the master key",
    "api.signing_key": "the deployment's keys, the private part sealed by the master key",
    "api.stamp": "which environment this is",
    "integrations.inbox_key": "keys, wrapped by the master key",
    "ledger.era": "the database's own history",
    "ledger.fold": "how far the folder has come",
    "ledger.seal": "published",
    "ledger.seal_key": "published",
    "products.index_root": "keys, wrapped by the master key",
    "products.master_key": "which master keys there are, by digest",
    "products.programme": "the rules of a scheme are public",
    "products.programme_fund": "numbers of funds, which are guarded themselves",
    "products.programme_version": "the rules of a scheme are public",
}
"""What the API's role reads without a policy, and why it may."""

SHARED: Final = {
    "products.rail": "rails of the programme that both have joined",
    "products.rail_breaker": "rails of the programme that both have joined",
    "products.sponsor": "sponsors of the programme that both have joined",
}
"""What two partners may both see of, and why."""

OF_THE_PARTNER: Final = {
    "products.partner",
    "products.partner_programme",
    "products.rail",
    "products.rail_breaker",
    "products.settlement_terms",
    "products.sponsor",
}
"""What every member of a partner sees alike."""

NOT_OF_PARTNERS: Final = {
    "ledger.fund",
    "ledger.period_event",
    "ledger.audit_entry",
    "api.approval_request",
    "ledger.bank_account",
    "ledger.bank_counterparty",
    "ledger.bank_statement",
    "ledger.item",
    "ledger.paired_item",
    "ledger.paired_line",
    "ledger.pairing",
    "ledger.pairing_rules",
    "ledger.pairing_run",
    "ledger.statement_file",
    "ledger.statement_line",
    "ledger.statement_piece",
    "ledger.verification",
    "integrations.payment_answer",
    "integrations.payment_answer_line",
    "integrations.payment_file",
    "integrations.payment_file_line",
    "products.agency",
    "products.break",
    "products.break_event",
    "products.break_limit",
    "products.break_resolution",
    "products.claim_line",
    "products.claim_pack",
    "products.close",
    "products.close_explanation",
    "products.close_file",
    "products.opening_load",
    "products.opening_row",
    "products.opening_window",
    "products.pairing_effect",
    "products.rail_report",
    "products.receipt",
    "products.remittal",
    "products.remittal_answer",
}
"""What staff alone see."""

NOT_OF_STAFF: Final = {"api.client_key", "api.client_secret", "api.idempotent_answer", "api.oauth_client"}
"""What shows itself to the client that it belongs to alone."""

SHAPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "api.approval_request": {"state": "requested"},
    "products.challenge": {"method": "device"},
    "products.payout": {"amount": 2, "product": "savings", "fee": 0},
    "products.waiting_change": {"kind": "phone", "effective_at": "2026-03-05T09:30:00Z"},
}
"""Values that a table's checks ask for, beside those that `filled` finds by itself."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Two partners and two members of one of them, who have left something in every table; a programme elsewhere."""

    databases: Databases
    one: Partner
    other: Partner
    anna: Person
    berta: Person
    elsewhere: UUID
    guarded: frozenset[str]

    def seen(self, sight: Sight | None, **settings: str) -> dict[str, set[str]]:
        """Every row of every guarded table that a request of this sight sees, as the API's role, with no filter."""
        with self.databases.api.begin() as tx:
            for name, value in {**(sight.settings if sight else {}), **settings}.items():
                tell(tx, name, value)
            return {table: rows_of(tx, table) for table in sorted(self.guarded)}

    def client_of(self, partner: Partner) -> UUID:
        """The partner's client."""
        with self.databases.superuser.begin() as tx:
            found: UUID = tx.execute(
                text("SELECT id FROM api.oauth_client WHERE partner_id = :id"), {"id": partner.id}
            ).scalar_one()
        return found

    def refusal(self, sight: Sight, statement: str, values: Mapping[str, Any]) -> psycopg.Error:
        """What PostgreSQL says to a request of this sight whose statement it refuses."""
        with self.databases.api.begin() as tx:
            for name, value in sight.settings.items():
                tell(tx, name, value)
            with pytest.raises(DBAPIError) as refused, tx.begin_nested():
                tx.execute(text(statement), values)
        assert isinstance(refused.value.orig, psycopg.Error)
        return refused.value.orig

    def all(self) -> dict[str, set[str]]:
        """What there is."""
        with self.databases.superuser.begin() as tx:
            return {table: rows_of(tx, table) for table in sorted(self.guarded)}


def tell(tx: Tx, name: str, value: str) -> None:
    """Tell row-level security whom this transaction speaks for."""
    tx.execute(text("SELECT set_config(:name, :value, true)"), {"name": f"mizan.{name}", "value": value})


def rows_of(tx: Tx, table: str) -> set[str]:
    """The rows of a table as this transaction sees them: by the columns that its role may read."""
    readable = tx.execute(
        text(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped"
            " AND has_column_privilege(attrelid, attnum, 'SELECT')"
        ),
        {"table": table},
    ).scalar_one()
    return set(tx.exec_driver_sql(f"SELECT ROW({readable})::text FROM {table}").scalars())


def readable_relations(databases: Databases) -> dict[str, tuple[str, bool]]:
    """Tables, views and partitions that the API's role can read from: their kind, and whether they are guarded."""
    with databases.superuser.begin() as tx:
        found = tx.exec_driver_sql(
            "SELECT n.nspname || '.' || c.relname, c.relkind, c.relrowsecurity FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            f" WHERE n.nspname = ANY (ARRAY{SCHEMAS}) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
            " AND (has_table_privilege('mizan_api', c.oid, 'SELECT')"
            "      OR has_any_column_privilege('mizan_api', c.oid, 'SELECT'))"
        ).all()
    return {row[0]: (row[1], row[2]) for row in found}


@pytest.fixture
def apart(databases: Databases, clock: FixedClock) -> Apart:
    world = World(databases, clock)
    partners = []
    people = []
    inbox = Inbox(databases, clock, world.books.keyring)
    for slug in ("one", "other"):
        partner = world.partner(slug)
        partners.append(partner)
        for number in range(2):
            person = world.member(partner)
            people.append(person)
            world.send(partner, world.completed(person))
            inbox.partner_id = partner.id
            inbox.store([inbox.received(f"{slug}-{number}")])

            def leave(tx: Tx, partner: Partner = partner, person: Person = person) -> None:
                account = tx.execute(
                    text("SELECT savings_account FROM products.enrolment WHERE id = :id"),
                    {"id": person.enrolments["savings"]},
                ).scalar_one()
                holds.place(tx, account, 1, reference=f"hold {person.link_id}", clock=clock)
                give(
                    tx,
                    world.books,
                    partner.id,
                    member=person.key,
                    sent=Money(100_000, "AED"),
                    received=Money(400_000, "RWF"),
                    origin_country="AE",
                    destination_country="RW",
                )

            world.settle(partner, 20_000 + number)  # another amount, or it is the same settlement
            databases.worker.run(leave)
        with databases.worker.begin() as tx:
            create_secret(tx, world.books.keyring, clock, partner.id)
            create_client(
                tx, name=slug, partner_id=partner.id, environment=Environment.SANDBOX, at=clock.now()
            )
    leave_files(world, partners)
    leave_breaks(world)
    leave_statements(world)
    leave_closes(world)
    leave_opening(world, partners[0], "one")
    with databases.worker.begin() as tx:
        ensure_rails(tx, clock)
    drain(databases.worker, Journal(databases), clock, world.books.keyring)
    inbox.partner_id = partners[0].id
    inbox.store([inbox.received("one-waits")])
    databases.worker.run(lambda tx: fold(tx, limit=1_000))
    databases.worker.run(lambda tx: expand(tx, clock, retention=timedelta(days=90)))
    with databases.worker.begin() as tx:
        source = files("products.programmes.catalogue").joinpath(ELSEWHERE).read_text("utf-8")
        elsewhere = apply(tx, source, clock=clock).programme_id
    guarded = frozenset(
        name
        for name, (kind, is_guarded) in readable_relations(databases).items()
        if kind in "rp" and is_guarded
    )
    made = Apart(databases, partners[0], partners[1], people[0], people[1], elsewhere, guarded)
    fill(made, people)
    return made


def fill(apart: Apart, people: list[Person]) -> None:
    """Leave a row of each person in every guarded table that hangs on people and has none yet."""
    with apart.databases.superuser.begin() as tx:
        tx.exec_driver_sql(
            "SET LOCAL session_replication_role = replica"
        )  # what the rows refer to may be made up
        for table in sorted(apart.guarded):
            if tx.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1").first() is not None:
                continue
            for number, person in enumerate(people):
                partner = apart.one if number < 2 else apart.other
                known = {
                    "partner_id": partner.id,
                    "member_id": person.member_id,
                    "link_id": person.link_id,
                    "client_id": apart.client_of(partner),
                    "enrolment_id": person.enrolments["savings"],
                    **of_payouts(tx, table, person),
                }
                row = filled(tx, table, known)
                names = ", ".join(row)
                tx.execute(
                    text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in row)})"),
                    row,
                )


def of_payouts(tx: Tx, table: str, person: Person) -> dict[str, UUID]:
    """What the rows of payouts hang on: the programme's rail, and the member's payout, which is there before its parts are."""
    if not table.startswith(("products.payout", "products.rail")):
        return {}
    rail, programme = tx.exec_driver_sql(
        "SELECT r.id, r.programme_id FROM products.rail r JOIN products.member m ON m.programme_id = r.programme_id"
        " WHERE m.id = %s",
        (person.member_id,),
    ).one()
    payout = tx.exec_driver_sql(
        "SELECT id FROM products.payout WHERE member_id = %s", (person.member_id,)
    ).scalar_one_or_none()
    return {"rail_id": rail, "programme_id": programme} | ({"payout_id": payout} if payout else {})


MADE_UP: Final[Mapping[str, Any]] = {
    "uuid": None,
    "text": "x",
    "bpchar": "RW",
    "int2": 1,
    "int4": 1,
    "int8": 1,
    "bool": True,
    "date": "2026-03-02",
    "timestamptz": "2026-03-02T09:30:00Z",
    "jsonb": "{}",
    "numeric": 1,
    "_text": ["RW"],
}


def filled(tx: Tx, table: str, known: Mapping[str, UUID]) -> dict[str, Any]:
    """A row that the table takes: what is known, the first of the values that a column's check allows, or anything."""
    checks = "\n".join(
        tx.execute(
            text(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = CAST(:table AS regclass)"
            ),
            {"table": table},
        ).scalars()
    )
    columns = tx.execute(
        text(
            "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
            " WHERE a.attrelid = CAST(:table AS regclass) AND a.attnum > 0 AND NOT a.attisdropped"
            " AND ((a.attnotnull AND NOT a.atthasdef AND a.attidentity = '') OR a.attname = ANY (:known))"
        ),
        {"table": table, "known": list(known)},
    ).all()
    row: dict[str, Any] = {}
    for name, kind in columns:
        choice = re.search(rf"\b{name} = ANY \(ARRAY\['(\w+)'", checks)
        length = re.search(rf"length\({name}\) = (\d+)", checks)
        if name in known:
            row[name] = known[name]
        elif kind == "uuid":
            row[name] = new_id()
        elif kind == "bytea":
            row[name] = new_id().bytes * 2 if length is None else (new_id().bytes * 5)[: int(length[1])]
        else:
            row[name] = choice[1] if choice else new_id().hex if kind == "text" else MADE_UP[kind]
    return {**row, **SHAPES.get(table, {})}


def of(partner: Partner, member: Person | None = None) -> Sight:
    return Sight(False, partner.id, member.link_id if member else None)


def test_what_the_role_of_the_api_reads_is_guarded_or_has_a_reason(databases: Databases) -> None:
    readable = readable_relations(databases)
    assert {name for name, (_, guarded) in readable.items() if not guarded} == set(OPEN)
    # a view runs with the rights of who asks, or it would see past the policies; there is none yet
    assert {kind for kind, _ in readable.values()} <= {"r", "p"}


def test_nobody_sees_nothing(apart: Apart) -> None:
    assert {table: rows for table, rows in apart.seen(None).items() if rows} == {}


def test_two_partners_see_no_row_of_each_other(apart: Apart) -> None:
    everything = apart.all()
    one, other = (
        apart.seen(of(partner), client=str(apart.client_of(partner))) for partner in (apart.one, apart.other)
    )
    assert {table for table in apart.guarded if one[table] & other[table]} == set(SHARED)
    unseen = {table for table in apart.guarded if not one[table]}
    assert unseen == NOT_OF_PARTNERS & apart.guarded, (
        "nothing there for the first partner: see `fill` and `SHAPES`"
    )
    assert all(one[table] <= everything[table] for table in apart.guarded)


def test_what_the_journal_shows_of_accounts_is_what_the_accounts_own_policies_show(apart: Apart) -> None:
    """The functions that read with their owner's rights, and the journal itself, whoever asks and for any account."""
    with apart.databases.superuser.begin() as tx:
        every = tx.exec_driver_sql("SELECT array_agg(id) FROM ledger.account").scalar_one()
        moved = tx.exec_driver_sql("SELECT count(*) FROM ledger.posting").scalar_one()
    sights: list[tuple[Sight | None, dict[str, str]]] = [
        (None, {}),
        (of(apart.one), {}),
        (of(apart.other), {}),
        (of(apart.other), {"whole": str(apart.anna.member_id)}),
        (of(apart.one, apart.anna), {}),
        (Sight(False, apart.other.id, apart.anna.link_id), {}),
        (Sight(True, None), {}),
        (Sight(True, None, programmes=frozenset({apart.elsewhere})), {}),
    ]
    shown = set()
    for sight, settings in sights:
        with apart.databases.api.begin() as tx:
            for name, value in {**(sight.settings if sight else {}), **settings}.items():
                tell(tx, name, value)
            touching = (
                "SELECT count(*) FROM ledger.posting WHERE debit_account IN (SELECT id FROM ledger.account)"
                " OR credit_account IN (SELECT id FROM ledger.account)"
            )
            sides = "SELECT a.id FROM ledger.account a JOIN ledger.posting p ON a.id IN (p.debit_account, p.credit_account)"
            of_accounts = sorted(tx.exec_driver_sql(sides).scalars())
            lines = tx.execute(
                text(
                    "SELECT a FROM unnest(CAST(:every AS uuid[])) a"
                    " CROSS JOIN LATERAL ledger.lines_of(a, :last, 0, 9, '9999999999', 1000)"
                ),
                {"every": every, "last": UUID(int=2**128 - 1)},
            ).scalars()
            since = tx.execute(
                text("SELECT account_id FROM ledger.moved_since(CAST(:every AS uuid[]), 'infinity', 0, '0')"),
                {"every": every},
            ).scalars()
            assert (sorted(lines), sorted(since)) == (of_accounts, of_accounts), (sight, settings)
            seen = tx.exec_driver_sql("SELECT count(*) FROM ledger.posting").scalar_one()
            assert tx.exec_driver_sql(touching).scalar_one() == seen, (sight, settings)
            of_transactions = tx.exec_driver_sql(
                "SELECT array(SELECT DISTINCT transaction_id FROM ledger.posting ORDER BY 1)"
                " = array(SELECT id FROM ledger.transaction ORDER BY 1)"
            ).scalar_one()
            assert of_transactions, (sight, settings)
            shown.add((seen > 0, seen == moved))
    assert shown == {(False, False), (True, False), (True, True)}


def test_partitions_of_the_journal_are_read_through_their_table_alone(apart: Apart) -> None:
    with apart.databases.superuser.begin() as tx:
        partitions = (
            tx.exec_driver_sql(
                "SELECT inhrelid::regclass::text FROM pg_inherits"
                " WHERE inhparent IN ('ledger.posting'::regclass, 'ledger.transaction'::regclass)"
            )
            .scalars()
            .all()
        )
    assert len(partitions) >= 10
    for partition in partitions:
        refused = apart.refusal(of(apart.one), f"SELECT FROM {partition}", {})
        assert isinstance(refused, psycopg.errors.InsufficientPrivilege), partition


def test_a_members_token_sees_no_row_of_another_member(apart: Apart) -> None:
    partner = apart.seen(of(apart.one))
    anna, berta = apart.seen(of(apart.one, apart.anna)), apart.seen(of(apart.one, apart.berta))
    assert {table for table in apart.guarded if anna[table] & berta[table]} <= OF_THE_PARTNER
    assert all(anna[table] <= partner[table] for table in apart.guarded)
    for table in (
        "products.member",
        "products.enrolment",
        "products.match_share",
        "ledger.account_balance",
        "ledger.posting",
    ):
        assert len(anna[table]) > 0, table
    # a link of another partner's narrows to nothing
    stranger = apart.seen(Sight(False, apart.other.id, apart.anna.link_id))
    assert {table for table in apart.guarded if stranger[table]} <= OF_THE_PARTNER


def test_staff_of_another_programme_see_nothing_of_this_one(apart: Apart) -> None:
    everyone = apart.seen(Sight(True, None))
    assert everyone == apart.all() | {table: set[str]() for table in NOT_OF_STAFF}
    elsewhere = apart.seen(Sight(True, None, programmes=frozenset({apart.elsewhere})))
    seen = {table for table in apart.guarded if elsewhere[table]}
    assert seen == {
        "products.sponsor",
        "ledger.fund",
        "ledger.account",
        "ledger.account_balance",
        "ledger.verification",
    }
    one = apart.seen(of(apart.one))
    assert {table for table in seen if elsewhere[table] & one[table]} == set()
    # limited to none, they see nothing at all
    assert not any(apart.seen(Sight(True, None, programmes=frozenset())).values())


def test_with_consent_to_the_whole_a_partner_sees_the_members_money_everywhere_and_changes_none_of_it(
    apart: Apart,
) -> None:
    member = apart.anna.member_id
    before = apart.seen(of(apart.other))
    widened = apart.seen(of(apart.other), whole=str(member))
    more = {
        table: widened[table] - before[table] for table in apart.guarded if widened[table] - before[table]
    }
    anna = apart.seen(of(apart.one, apart.anna))
    assert {
        "products.enrolment",
        "products.contribution",
        "products.match_share",
        "ledger.account_balance",
    } <= set(more)
    # Anna's money, and neither what she told the other partner nor what she is called there
    assert all(rows <= anna[table] for table, rows in more.items())
    assert not {"products.member_link", "products.consent", "products.quote", "integrations.delivery"} & set(
        more
    )
    with apart.databases.api.begin() as tx:
        for name, value in (of(apart.other).settings | {"whole": str(member)}).items():
            tell(tx, name, value)
        changed = tx.execute(
            text("UPDATE products.enrolment SET ended_at = now() WHERE member_id = :id"), {"id": member}
        )
        assert changed.rowcount == 0


def test_a_violated_constraint_says_nothing_of_the_row_that_is_there(apart: Apart) -> None:
    """Each guarded row of one partner is inserted by the other, under its own name: refused, and without a detail."""
    tried = []
    for table in sorted(apart.guarded):
        with apart.databases.superuser.begin() as tx:
            columns = (
                tx.execute(
                    text(
                        "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0"
                        " AND NOT attisdropped AND has_column_privilege('mizan_api', attrelid, attnum, 'INSERT')"
                        " AND attidentity = '' AND attname NOT IN ('era', 'xid')"
                    ),
                    {"table": table},
                )
                .scalars()
                .all()
            )
            if not columns:
                continue
            there = tx.exec_driver_sql(f"SELECT to_jsonb(t)::text FROM {table} t LIMIT 1").scalar_one()
        names = ", ".join(columns)
        given = ", ".join(":partner" if name == "partner_id" else f"r.{name}" for name in columns)
        refused = apart.refusal(
            of(apart.other),
            f"INSERT INTO {table} ({names}) SELECT {given}"
            f" FROM jsonb_populate_record(NULL::{table}, CAST(:row AS jsonb)) r",
            {"row": there, **({"partner": apart.other.id} if "partner_id" in columns else {})},
        )
        assert isinstance(refused, psycopg.errors.UniqueViolation | psycopg.errors.InsufficientPrivilege), (
            table,
            refused,
        )
        assert refused.diag.message_detail is None, table
        tried.append(type(refused).__name__)
    assert {"UniqueViolation", "InsufficientPrivilege"} <= set(tried)
