"""What the database itself refuses, whatever the code would do: tried as each role, on parents and partitions."""

import re
from collections.abc import Callable, Sequence
from datetime import date
from uuid import UUID

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from api.migrations.run import metadata
from ledger import holds
from ledger.accounts import AccountSpec, close_account, open_accounts
from ledger.database import Database, Tx, cursor
from ledger.errors import NotFound
from ledger.ids import new_id
from ledger.periods import close_period
from tests.conftest import Databases
from tests.integration.ledger.books import DAY, NOON, Books, transfer

APPLICATION_ROLES = ("api", "worker", "sealer", "auditor")
REFUSED = {"42501", "MZ002"}
PARTITION = re.compile(r"(transaction|posting)_")


@pytest.fixture
def books(databases: Databases) -> Books:
    books = Books.open(databases.worker)
    books.account("savings", floor=0)
    books.post(transfer("a", books.account("bank", "asset"), books.account("savings"), 100))
    return books


def partitions(databases: Databases) -> list[str]:
    with databases.owner.begin() as tx:
        rows = cursor(tx).execute(
            "select c.relname from pg_inherits join pg_class as c on c.oid = inhrelid"
            " where inhparent in ('ledger.transaction'::regclass, 'ledger.posting'::regclass)"
        )
        return [row[0] for row in rows]


def refusal(database: Database, statement: str, parameters: Sequence[object] = ()) -> str | None:
    """The SQLSTATE with which the statement is refused; None when it isn't."""
    try:
        with database.begin() as tx:
            cursor(tx).execute(statement, parameters)
    except psycopg.Error as error:
        return error.sqlstate
    return None


@pytest.mark.parametrize("role", APPLICATION_ROLES)
def test_nobody_changes_or_removes_what_is_written(books: Books, databases: Databases, role: str) -> None:
    append_only = ["transaction", "posting", "reference", "period_event", "seal", "seal_key"]
    for table in [*append_only, *partitions(databases)]:
        column = "amount" if table.startswith("posting") else "*"
        for statement in (
            f"delete from ledger.{table}",
            f"truncate ledger.{table}",
            f"truncate ledger.{table} cascade",
            f"update ledger.{table} set {column} = {column}"
            if column != "*"
            else f"drop table ledger.{table}",
            f"alter table ledger.{table} disable trigger all",
            f"select * from ledger.{table} for update",
            f"lock table ledger.{table} in access exclusive mode",
        ):
            assert refusal(getattr(databases, role), statement) in REFUSED, statement


@pytest.mark.parametrize("role", APPLICATION_ROLES)
def test_nobody_takes_a_partition_out_or_writes_into_one(
    books: Books, databases: Databases, role: str
) -> None:
    database: Database = getattr(databases, role)
    names = partitions(databases)
    assert len(names) == 10
    for name in names:
        parent = name.partition("_")[0]
        assert refusal(database, f"alter table ledger.{parent} detach partition ledger.{name}") == "42501"
        assert refusal(database, f"insert into ledger.{name} select * from ledger.{parent}") == "42501"
        assert refusal(database, f"copy ledger.{name} from stdin") == "42501"
        assert refusal(database, f"select * from ledger.{name}") == "42501"


def test_even_the_owner_meets_the_guards(books: Books, databases: Databases) -> None:
    for name in ("transaction", "posting", *partitions(databases)):
        for statement in (
            f"delete from ledger.{name}",
            f"truncate ledger.{name}",
            f"update ledger.{name} set effective_on = effective_on",
        ):
            assert refusal(databases.owner, statement) == "MZ002", statement
    for name in partitions(databases):
        parent = name.partition("_")[0]
        statement = f"insert into ledger.{name} select * from ledger.{parent}"
        assert refusal(databases.owner, statement) in {"MZ002", "428C9"}, statement


def test_no_application_role_may_become_another(databases: Databases) -> None:
    for role in APPLICATION_ROLES:
        for other in ("mizan_owner", "mizan_journal", "mizan_superuser"):
            assert refusal(getattr(databases, role), f"set role {other}") == "42501"
        assert refusal(getattr(databases, role), "set session_replication_role = replica") == "42501"


@pytest.mark.parametrize("role", APPLICATION_ROLES)
def test_nobody_but_the_triggers_changes_balances_funds_and_accounts(
    books: Books, databases: Databases, role: str
) -> None:
    database: Database = getattr(databases, role)
    for statement in (
        "update ledger.account_balance set credits = credits + 1",
        "insert into ledger.account_balance (account_id) select gen_random_uuid()",
        "delete from ledger.account_balance",
        "update ledger.account set floor = null",
        "update ledger.account set closed_at = null",
        "delete from ledger.account",
        "update ledger.fund set closed_through = '0001-01-01'",
        "delete from ledger.fund",
        "truncate ledger.fund cascade",
        "update ledger.hold set amount = 1",
        "delete from ledger.hold",
        "update ledger.outbox set topic = ''",
        "update ledger.era set system_identifier = 0",
        "insert into ledger.period_event select * from ledger.period_event",
        "create table ledger.mine ()",
        "create function ledger.mine() returns int language sql return 1",
        "alter table ledger.account disable row level security",
    ):
        assert refusal(database, statement) == "42501", statement


@pytest.mark.parametrize("role", ["api", "sealer", "auditor"])
def test_only_the_worker_writes_the_journal(books: Books, databases: Databases, role: str) -> None:
    database: Database = getattr(databases, role)
    for table in ("transaction", "posting", "reference"):
        assert refusal(database, f"insert into ledger.{table} select * from ledger.{table}") == "42501"
    assert refusal(database, "select ledger.release_references('{a}')") == "42501"
    assert refusal(database, "select ledger.ensure_partitions(current_date)") == "42501"


def test_the_owners_functions_are_nobody_elses(books: Books, databases: Databases) -> None:
    for role in APPLICATION_ROLES:
        for call in (
            "ensure_era()",
            "take_books(gen_random_uuid())",
            "add_partition('posting', 'x', 'default')",
        ):
            assert refusal(getattr(databases, role), f"select ledger.{call}") == "42501"


def test_a_row_says_truly_which_transaction_wrote_it(books: Books, databases: Databases) -> None:
    for table in ("transaction", "outbox"):
        for column in ("xid", "era"):
            assert (
                refusal(databases.worker, f"insert into ledger.{table} ({column}) values (default)")
                == "42501"
            )


def write_by_hand(
    databases: Databases,
    debit: UUID,
    credit: UUID,
    amount: int = 1,
    *,
    into: UUID | None = None,
    said: int = 1,
    seq: int = 1,
    day: date = DAY,
    role: str = "worker",
) -> None:
    """A transaction (unless ``into`` names one) and one posting, as a role that may write but past all of the code."""
    writer: Database = getattr(databases, role)
    with writer.begin() as tx:
        transaction_id = into or new_id()
        if into is None:
            cursor(tx).execute(
                "insert into ledger.transaction (id, reference, kind, effective_on, recorded_at, postings, salt, leaf)"
                " values (%s, 'b', 'test', %s, %s, %s, '', '')",
                [transaction_id, DAY, NOON, said],
            )
        cursor(tx).execute(
            "insert into ledger.posting values (%s, %s, %s, %s, %s, 'PHP', %s)",
            [transaction_id, seq, debit, credit, amount, day],
        )


def test_postings_enter_only_with_their_transaction_and_all_at_once(
    books: Books, databases: Databases
) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    with databases.worker.begin() as tx:
        (old,) = [row[0] for row in cursor(tx).execute("select id from ledger.transaction")]
    for wrong in (
        {"into": old, "seq": 2},
        {"into": new_id()},
        {"said": 2},
        {"seq": 2},
        {"day": date(2025, 1, 1)},
    ):
        with pytest.raises(psycopg.Error, match="all at once"):
            write_by_hand(databases, bank, savings, **wrong)
    assert books.balance(savings) == 100
    write_by_hand(databases, bank, savings)
    assert books.balance(savings) == 101


def test_the_trigger_judges_what_no_code_has_judged(books: Books, databases: Databases) -> None:
    bank, savings = books.account("bank", "asset"), books.account("savings")
    closed, reserve = books.account("closed"), Books.open(databases.worker, "pool").account("reserve")
    with databases.worker.begin() as tx:
        close_account(tx, closed, at=NOON)
    for debit, credit, amount, reason in (
        (savings, bank, 101, "insufficient_funds"),
        (bank, closed, 1, "account_closed"),
        (bank, reserve, 1, "fund_mismatch"),
        (bank, new_id(), 1, "unknown_account"),
        (bank, books.account("savings", currency="USD"), 1, "currency_mismatch"),
    ):
        with pytest.raises(psycopg.Error, match=reason) as raised:
            write_by_hand(databases, debit, credit, amount)
        assert raised.value.sqlstate == "MZ001"
    for debit, credit, amount in ((savings, bank, 0), (savings, bank, -1), (savings, savings, 1)):
        with pytest.raises(psycopg.errors.CheckViolation):
            write_by_hand(databases, debit, credit, amount)
    with databases.worker.begin() as tx:
        close_period(tx, books.fund_id, DAY, actor="manager", clock=books.clock)
    for role in ("worker", "owner", "superuser"):  # the others write no journal at all
        with pytest.raises(psycopg.Error, match="period_closed"):
            write_by_hand(databases, bank, savings, role=role)


def test_a_reference_with_a_transaction_is_never_given_back(books: Books, databases: Databases) -> None:
    with databases.worker.begin() as tx:
        cursor(tx).execute("select ledger.release_references('{a}')")
    assert books.count("reference") == 1


def test_an_account_keeps_what_it_is_even_for_the_owner(books: Books, databases: Databases) -> None:
    books.account("savings")
    for change in ("hot = not hot", "kind = 'asset'", "currency = 'USD'", "code = 'x'", "owner = 'x'"):
        assert refusal(databases.owner, f"update ledger.account set {change}") == "MZ002"
    assert refusal(databases.owner, "update ledger.fund set time_zone = 'UTC'") == "MZ002"


def test_a_partner_sees_its_members_accounts_and_staff_see_all(books: Books, databases: Databases) -> None:
    mine, theirs = new_id(), new_id()
    own = books.account("savings", owner="m1", partner_id=mine)
    books.account("savings", owner="m2", partner_id=theirs)
    tables = ("account", "account_balance")

    def seen(name: str, value: str) -> list[set[UUID]]:
        with databases.api.begin() as tx:
            cur = cursor(tx)
            cur.execute("select set_config(%s, %s, true)", [name, value])
            ids = ("id", "account_id")
            return [
                {row[0] for row in cur.execute(f"select {column} from ledger.{table}")}
                for table, column in zip(tables, ids, strict=True)
            ]

    assert seen("mizan.partner", str(mine)) == [{own}, {own}]
    assert seen("mizan.partner", "") == [set(), set()]
    assert [len(ids) for ids in seen("mizan.access", "staff")] == [4, 4]
    with databases.auditor.begin() as tx:
        assert cursor(tx).execute("select count(*) from ledger.account_balance").fetchone() == (4,)


def test_a_partner_opens_accounts_for_itself_only(books: Books, databases: Databases) -> None:
    mine, theirs = new_id(), new_id()

    def open_for(partner_id: UUID) -> None:
        with databases.api.begin() as tx:
            cursor(tx).execute("select set_config('mizan.partner', %s, true)", [str(mine)])
            spec = AccountSpec(books.fund_id, "savings", "m1", "liability", "PHP", partner_id=partner_id)
            open_accounts(tx, [spec])

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        open_for(theirs)
    open_for(mine)


def test_partitions_are_made_ahead_and_belong_to_nobody_who_logs_in(
    books: Books, databases: Databases
) -> None:
    with databases.worker.begin() as tx:
        made = (
            cursor(tx)
            .execute("select ledger.ensure_partitions((now() + interval '6 months')::date)")
            .fetchone()
        )
    assert made == (6,)
    with databases.worker.begin() as tx:
        again = (
            cursor(tx)
            .execute("select ledger.ensure_partitions((now() + interval '6 months')::date)")
            .fetchone()
        )
    assert again == (0,)
    with databases.owner.begin() as tx:
        owners = (
            cursor(tx)
            .execute(
                "select distinct pg_get_userbyid(relowner), relrowsecurity from pg_class"
                " where relname ~ '^(posting|transaction)_' and relkind = 'r'"
            )
            .fetchall()
        )
        grants = (
            cursor(tx)
            .execute(
                "select count(*) from information_schema.role_table_grants where table_schema = 'ledger'"
                " and table_name ~ '^(posting|transaction)_' and grantee <> 'mizan_journal'"
            )
            .fetchone()
        )
        lying = cursor(tx).execute("select tableoid::regclass::text from ledger.posting").fetchone()
    assert owners == [("mizan_journal", False)]
    assert grants == (0,)
    assert lying is not None
    assert "default" not in lying[0]


def test_functions_name_their_search_path_and_belong_to_the_owner(databases: Databases) -> None:
    """Those whose body is parsed when they are made look nothing up later."""
    with databases.owner.begin() as tx:
        loose = (
            cursor(tx)
            .execute(
                "select proname from pg_proc where pronamespace = 'ledger'::regnamespace and prosqlbody is null"
                " and (not coalesce(proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']"
                " or proowner::regrole::text <> 'mizan_owner')"
            )
            .fetchall()
        )
    assert loose == []


def test_the_models_say_what_the_migration_made(databases: Databases) -> None:
    with databases.owner.begin() as tx:
        context = MigrationContext.configure(
            tx,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == "ledger",
                "include_object": lambda _o, name, kind, _r, _c: kind != "table" or not PARTITION.match(name),
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        ledger = MetaData()
        for table in metadata().tables.values():
            if table.schema == "ledger":
                table.to_metadata(ledger)
        assert compare_metadata(context, ledger) == []


def test_holds_follow_their_accounts_to_the_partner(books: Books, databases: Databases) -> None:
    mine, theirs = new_id(), new_id()
    account = books.account("savings", owner="m1", partner_id=mine)

    def as_partner(partner_id: UUID, work: Callable[[Tx], object]) -> object:
        with databases.api.begin() as tx:
            cursor(tx).execute("select set_config('mizan.partner', %s, true)", [str(partner_id)])
            return work(tx)

    def place(tx: Tx) -> UUID:
        return holds.place(tx, account, 5, reference="h", clock=books.clock).id

    with pytest.raises(NotFound):
        as_partner(theirs, place)
    hold_id = as_partner(mine, place)
    assert isinstance(hold_id, UUID)
    with pytest.raises(NotFound):
        as_partner(theirs, lambda tx: holds.release(tx, hold_id, clock=books.clock))
    as_partner(mine, lambda tx: holds.release(tx, hold_id, clock=books.clock))
    assert books.row(account) == (0, 0, 0)
