"""With the role of the API and no filter of any query's own, a partner sees nothing of another one.

The catalogue is walked: whoever adds a table with a column for the partner guards it, and fills it here for two partners.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from api.auth.clients import create_client
from api.settings import Environment
from integrations.inbox.drain import drain
from integrations.partners.secrets import create_secret
from ledger import holds
from ledger.clock import FixedClock
from ledger.database import Tx
from ledger.fold import fold
from ledger.money import Money
from products.remittances.events import MemberKey
from products.remittances.partners import Partner
from products.remittances.quoting import give
from tests.conftest import Databases
from tests.integration.inbox.builders import Inbox, Journal
from tests.world import World

SCHEMAS = ["api", "integrations", "ledger", "products"]


@dataclass(frozen=True, slots=True)
class Apart:
    """Two partners that have both left something in every table."""

    databases: Databases
    one: Partner
    other: Partner

    def seen(self, query: str, *, partner: Partner | None, access: str = "") -> Sequence[Any]:
        """What a query finds as the API's role, speaking for a partner or for nobody."""
        with self.databases.api.begin() as tx:
            tx.exec_driver_sql(
                "select set_config('mizan.partner', %s, true), set_config('mizan.access', %s, true)",
                (str(partner.id) if partner else "", access),
            )
            return tx.exec_driver_sql(query).all()

    def all(self, query: str) -> Sequence[Any]:
        """What there is."""
        with self.databases.superuser.begin() as tx:
            return tx.exec_driver_sql(query).all()

    def tables(self) -> dict[str, bool]:
        """Every table with a column for the partner, and whether it is guarded."""
        found = self.all(
            "select n.nspname || '.' || c.relname, c.relrowsecurity from pg_attribute a"
            " join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace"
            f" where a.attname = 'partner_id' and c.relkind in ('r', 'p') and n.nspname = any (array{SCHEMAS})"
        )
        return {row[0]: row[1] for row in found}


@pytest.fixture
def apart(databases: Databases, clock: FixedClock) -> Apart:
    world = World(databases, clock)
    partners = []
    inbox = Inbox(databases, clock, world.books.keyring)
    for slug in ("one", "other"):
        partner = world.partner(slug)
        partners.append(partner)
        person = world.member(partner)
        world.send(partner, world.completed(person))
        world.settle(partner, 20_000)
        inbox.partner_id = partner.id
        inbox.store([inbox.received(f"{slug}-1")])

        def leave(tx: Tx, partner: Partner = partner, key: MemberKey = person.key) -> None:
            create_secret(tx, world.books.keyring, clock, partner.id)
            create_client(
                tx, name=partner.slug, partner_id=partner.id, environment=Environment.SANDBOX, at=clock.now()
            )
            account = tx.exec_driver_sql(
                "select a.id from ledger.account a where a.partner_id = %s and a.code = 'member_savings'"
                " order by 1 limit 1",
                (partner.id,),
            ).scalar_one()
            holds.place(tx, account, 1, reference=f"hold {partner.slug}", clock=clock)
            give(
                tx,
                world.books,
                partner.id,
                member=key,
                sent=Money(100_000, "AED"),
                received=Money(400_000, "RWF"),
                origin_country="AE",
                destination_country="RW",
            )

        databases.worker.run(leave)
    drain(databases.worker, Journal(databases), clock, world.books.keyring)
    databases.worker.run(lambda tx: fold(tx, limit=1_000))
    return Apart(databases, *partners)


def test_every_table_with_a_column_for_the_partner_is_guarded_and_shows_each_its_own(apart: Apart) -> None:
    tables = apart.tables()
    assert {
        "products.remittance",
        "integrations.webhook_secret",
        "ledger.account",
        "api.oauth_client",
    } <= set(tables)
    assert [table for table, guarded in tables.items() if not guarded] == []
    for table in tables:
        partners = f"select distinct partner_id from {table}"
        assert {row[0] for row in apart.all(partners)} >= {apart.one.id, apart.other.id}, (
            f"fill {table} above"
        )
        for partner in (apart.one, apart.other):
            seen = {row[0] for row in apart.seen(partners, partner=partner)}
            # a client shows itself to who says that it is this client, and to nobody who says less
            assert seen == (set() if table == "api.oauth_client" else {partner.id}), table
        assert apart.seen(partners, partner=None) == [], table


@pytest.mark.parametrize("of_account", ["account_balance", "account_day", "account_month", "hold"])
def test_what_hangs_on_an_account_is_seen_by_whose_account_it_is(apart: Apart, of_account: str) -> None:
    accounts = f"select distinct account_id from ledger.{of_account}"
    mine = f"{accounts} join ledger.account a on a.id = account_id where a.partner_id = '{apart.one.id}'"
    assert set(apart.all(mine)) < set(apart.all(accounts))
    assert set(apart.seen(accounts, partner=apart.one)) == set(apart.all(mine)) != set()
    assert apart.seen(accounts, partner=None) == []


def test_postings_reached_through_accounts_are_the_partners_own(apart: Apart) -> None:
    through = (
        "select distinct p.transaction_id from ledger.account a join ledger.posting p"
        " on a.id in (p.debit_account, p.credit_account)"
    )
    own = f"{through} where a.partner_id = '{apart.one.id}'"
    assert set(apart.all(own)) < set(apart.all(through))
    assert set(apart.seen(through, partner=apart.one)) == set(apart.all(own)) != set()
    assert apart.seen(through, partner=None) == []


def test_members_are_seen_through_the_partners_own_links(apart: Apart) -> None:
    assert len(apart.all("select id from products.member")) == 2
    assert len(apart.seen("select id from products.member", partner=apart.one)) == 1
    assert apart.seen("select id from products.member", partner=None) == []


def test_staff_see_every_partners_remittances(apart: Apart) -> None:
    found = apart.seen("select distinct partner_id from products.remittance", partner=None, access="staff")
    assert {row[0] for row in found} == {apart.one.id, apart.other.id}
