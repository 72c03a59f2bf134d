"""The rails of a programme: what each pays, costs and allows, and the accounts through which it does."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text

from ledger.accounts import open_accounts
from ledger.clock import Clock
from ledger.database import Tx, cursor
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from ledger.money import AMOUNT_MAX
from products import chart
from products.members.payees import Rail as PayeeKind
from products.payouts.terms import BASIS_POINTS, Arrival, Fee, Limits

QUEUE_MAX: Final = 100_000


class RailExists(Conflict):
    """A rail of this name is there with other terms."""

    code = "rail_exists"


@dataclass(frozen=True, slots=True)
class RailAccounts:
    """Where a rail's payouts go through the savers' fund."""

    fund: UUID
    clearing: UUID
    bank: UUID
    float_: UUID
    charges: UUID
    fees: UUID


@dataclass(frozen=True, slots=True)
class NewRail:
    """A rail to create. ``options`` are the kind's own, validated by its adapter (`integrations.rails.directory`)."""

    slug: str
    kind: str
    payee_kinds: tuple[PayeeKind, ...]
    checks_payees: bool
    funded: str
    fee: Fee
    arrival: Arrival
    limits: Limits
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ConfiguredRail:
    """A rail as it stands."""

    id: UUID
    slug: str
    kind: str
    programme_id: UUID
    currency: str
    payee_kinds: tuple[PayeeKind, ...]
    checks_payees: bool
    funded: str
    fee: Fee
    arrival: Arrival
    limits: Limits
    options: Mapping[str, Any]
    accounts: RailAccounts
    created_at: datetime
    paused_at: datetime | None

    @property
    def pays_from(self) -> UUID:
        """The account that money leaves by: the bank's, or the rail's float."""
        return self.accounts.bank if self.funded == "bank" else self.accounts.float_


def create(tx: Tx, programme_id: UUID, new: NewRail, *, clock: Clock) -> ConfiguredRail:
    """Add a rail to a programme and open its accounts; the same again changes nothing.

    Raises `RailExists`, InvalidInput for terms that can't be, NotFound for no such programme.
    """
    _check(new)
    row = tx.execute(
        text(
            "SELECT p.currency, f.fund_id FROM products.programme p JOIN products.programme_fund f ON f.programme_id = p.id"
            " WHERE p.id = :id AND f.role = :role"
        ),
        {"id": programme_id, "role": chart.SAVERS},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such programme.")
    fund, currency = row.fund_id, row.currency
    clearing, float_, charges, fees, bank = open_accounts(
        tx,
        [
            chart.spec(code, fund, owner, currency)
            for code, owner in (
                (chart.PAYOUT_CLEARING, new.slug),
                (chart.RAIL_FLOAT, new.slug),
                (chart.PAYOUT_CHARGES, new.slug),
                (chart.FEES_PAYABLE, ""),
                (chart.BANK, ""),
            )
        ],
    )
    rail_id, now = new_id(), clock.now()
    cursor(tx).execute(
        "INSERT INTO products.rail (id, slug, kind, programme_id, currency, payee_kinds, checks_payees, funded, fee_fixed,"
        " fee_basis_points, fee_bearer, arrival_unit, arrival_earliest, arrival_latest, arrival_countries, amount_min,"
        " amount_max, per_member_day, per_day, release_above, queue_max, options, fund_id, clearing_account, bank_account,"
        " float_account, charges_account, fees_account, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
        " %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (slug) DO NOTHING",
        [
            rail_id,
            new.slug,
            new.kind,
            programme_id,
            currency,
            list(new.payee_kinds),
            new.checks_payees,
            new.funded,
            new.fee.fixed,
            new.fee.basis_points,
            new.fee.bearer,
            new.arrival.unit,
            new.arrival.earliest,
            new.arrival.latest,
            list(new.arrival.countries),
            new.limits.amount_min,
            new.limits.amount_max,
            new.limits.per_member_day,
            new.limits.per_day,
            new.limits.release_above,
            new.limits.queue_max,
            Jsonb(dict(new.options)),
            fund,
            clearing,
            bank,
            float_,
            charges,
            fees,
            now,
        ],
    )
    tx.execute(
        text(
            "INSERT INTO products.rail_breaker (rail_id) SELECT id FROM products.rail WHERE id = :id ON CONFLICT DO NOTHING"
        ),
        {"id": rail_id},
    )
    made = find(tx, new.slug)
    if made.id != rail_id and (made.programme_id, _terms(made)) != (programme_id, _terms(new)):
        raise RailExists(f"there is a rail “{new.slug}” with other terms")
    return made


def find(tx: Tx, slug: str) -> ConfiguredRail:
    """The rail of this name, as `tx` may see it. Raises NotFound."""
    found = _load(tx, "WHERE slug = %s", [slug])
    if not found:
        raise NotFound(unknown(slug))
    return found[0]


def unknown(slug: str) -> str:
    """What is said of a rail that is not there, or not for whoever asks."""
    return f"There is no rail “{slug}”."


def rails(tx: Tx) -> list[ConfiguredRail]:
    """Every rail that `tx` may see, by name."""
    return _load(tx, "ORDER BY slug", [])


def rails_of(tx: Tx, programme_ids: Collection[UUID]) -> dict[UUID, list[ConfiguredRail]]:
    """The rails of programmes, the oldest first."""
    found: dict[UUID, list[ConfiguredRail]] = {}
    for rail in _load(tx, "WHERE programme_id = ANY (%s) ORDER BY id", [list(set(programme_ids))]):
        found.setdefault(rail.programme_id, []).append(rail)
    return found


def rails_by_id(tx: Tx, rail_ids: Collection[UUID]) -> dict[UUID, ConfiguredRail]:
    """Rails by their ids."""
    return {rail.id: rail for rail in _load(tx, "WHERE id = ANY (%s)", [list(set(rail_ids))])}


def pause(tx: Tx, slug: str, *, paused: bool, clock: Clock) -> ConfiguredRail:
    """Stop sending through a rail, or go on: what is approved meanwhile waits in its queue. Raises NotFound."""
    rail = find(tx, slug)
    at = (rail.paused_at or clock.now()) if paused else None
    tx.execute(text("UPDATE products.rail SET paused_at = :at WHERE id = :id"), {"at": at, "id": rail.id})
    return find(tx, slug)


def _check(new: NewRail) -> None:
    limits = new.limits
    amounts = (
        limits.amount_min,
        limits.amount_max,
        limits.per_member_day,
        limits.per_day,
        limits.release_above,
        new.fee.fixed,
    )
    if any(amount is not None and not 0 <= amount <= AMOUNT_MAX for amount in amounts):
        raise InvalidInput(f"an amount is between 0 and {AMOUNT_MAX} minor units")
    if limits.amount_min < 1 or (limits.amount_max is not None and limits.amount_max < limits.amount_min):
        raise InvalidInput("a payout is at least 1 minor unit, and the maximum is not below the minimum")
    if not 0 <= new.fee.basis_points <= BASIS_POINTS:
        raise InvalidInput("a fee takes between 0 and 100 percent")
    if new.fee.bearer == "member" and limits.amount_min <= new.fee.of(limits.amount_min):
        raise InvalidInput("a fee that the member bears must leave something of the smallest payout")
    if not 1 <= limits.queue_max <= QUEUE_MAX:
        raise InvalidInput(f"a queue holds between 1 and {QUEUE_MAX} payouts")
    if not new.payee_kinds:
        raise InvalidInput("a rail serves at least one kind of payee")
    if not 0 <= new.arrival.earliest <= new.arrival.latest:
        raise InvalidInput("money arrives at the earliest before it does at the latest")


def _terms(rail: NewRail | ConfiguredRail) -> tuple[object, ...]:
    return (
        rail.kind,
        rail.payee_kinds,
        rail.funded,
        rail.fee,
        rail.arrival,
        rail.limits,
        dict(rail.options),
    )


_COLUMNS: Final = (
    "id, slug, kind, programme_id, currency, payee_kinds, checks_payees, funded, fee_fixed, fee_basis_points, fee_bearer,"
    " arrival_unit, arrival_earliest, arrival_latest, arrival_countries, amount_min, amount_max, per_member_day, per_day,"
    " release_above, queue_max, options, fund_id, clearing_account, bank_account, float_account, charges_account,"
    " fees_account, created_at, paused_at"
)


def _load(tx: Tx, where: str, parameters: Sequence[object]) -> list[ConfiguredRail]:
    rows = cursor(tx).execute(f"SELECT {_COLUMNS} FROM products.rail {where}", parameters)
    return [_rail(row) for row in rows]


def _rail(row: tuple[Any, ...]) -> ConfiguredRail:
    id_, slug, kind, programme_id, currency, payee_kinds, checks_payees, funded = row[:8]
    unit, earliest, latest, countries = row[11:15]
    return ConfiguredRail(
        id=id_,
        slug=slug,
        kind=kind,
        programme_id=programme_id,
        currency=currency,
        payee_kinds=tuple(payee_kinds),
        checks_payees=checks_payees,
        funded=funded,
        fee=Fee(*row[8:11]),
        arrival=Arrival(unit, earliest, latest, tuple(countries)),
        limits=Limits(*row[15:21]),
        options=row[21],
        accounts=RailAccounts(*row[22:28]),
        created_at=row[28],
        paused_at=row[29],
    )
