"""A settlement on record: what was paid for what, how far it is paired, and that there is one at a time for a partner."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import text

from ledger.database import Tx, cursor
from ledger.errors import NotFound
from products.remittances.context import Joined
from products.remittances.partners import Partner

Kind = Literal["payment", "default", "fee"]
State = Literal["recorded", "pairing", "paired", "returning", "returned"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a settlement did so far. Amounts are minor units of ``currency``.

    ``amount`` + ``credits`` (netted) + ``fees`` (kept) = ``paired`` + ``unidentified`` + ``topped_up`` + ``carried``. ``kind``: the
    partner's payment, or another bears its default or its fee. ``parts``: how many database transactions paired it.
    ``carried``: what paid for no whole contribution, and became the partner's credit as a next payment needed it. ``cash_fund``: whose
    bank account the money came to; None: each fund's got what it was owed.
    """

    id: UUID
    partner: str
    currency: str
    amount: int
    through: date
    paired: int
    unidentified: int
    contributions: int
    topped_up: int
    fees: int = 0
    credits: int = 0
    state: State = "paired"
    kind: Kind = "payment"
    parts: int = 1
    carried: int = 0
    cash_fund: UUID | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which contributions a settlement pays for: those counting for days through the last; of a list, or of some days or funds
    alone, if they are named."""

    through: date
    since: date | None = None
    remittances: tuple[UUID, ...] | None = None
    days: tuple[date, ...] | None = None
    funds: tuple[UUID, ...] | None = None


@dataclass(frozen=True, slots=True)
class Landing:
    """Where the bank says that a settlement's money is: all of it on this fund's bank account, since this day.

    ``booked``: it lies in the fund's unidentified receipts already.
    """

    fund: UUID
    on: date
    booked: bool = False


def insert(
    tx: Tx,
    joined: Joined,
    settlement: Settlement,
    chosen: Chosen,
    reference: str,
    *,
    now: datetime,
    on: date,
) -> None:
    """Write a settlement down, of which nothing is paired yet."""
    tx.execute(
        text(
            "INSERT INTO products.settlement (id, partner_id, programme_id, currency, amount, since, through, reference,"
            " paired, unidentified, contributions, recorded_at, kind, state, listed, parts, effective_on, cash_fund, days, funds)"
            " VALUES (:id, :partner, :programme, :currency, :amount, :since, :through, :reference, 0, :amount, 0, :now,"
            " :kind, 'recorded', :listed, 0, :on, :cash_fund, :days, :funds)"
        ),
        {
            "id": settlement.id,
            "partner": joined.partner_id,
            "programme": joined.programme_id,
            "currency": settlement.currency,
            "amount": settlement.amount,
            "since": chosen.since,
            "through": chosen.through,
            "reference": reference,
            "now": now,
            "kind": settlement.kind,
            "listed": chosen.remittances is not None,
            "on": on,
            "cash_fund": settlement.cash_fund,
            "days": None if chosen.days is None else list(chosen.days),
            "funds": None if chosen.funds is None else list(chosen.funds),
        },
    )
    if chosen.remittances:
        cursor(tx).execute(
            "INSERT INTO products.settlement_item SELECT %s, r FROM unnest(%b::uuid[]) AS t (r)",
            (settlement.id, list(chosen.remittances)),
        )


def lock(tx: Tx, partner_id: UUID, programme_id: UUID, *, wait: bool = True) -> bool:
    """One settlement at a time for a partner in a programme; whether it is ours (always, if we wait)."""
    found = tx.execute(
        text(
            "SELECT 1 FROM products.partner_programme WHERE partner_id = :p AND programme_id = :g FOR NO KEY UPDATE"
            + ("" if wait else " SKIP LOCKED")
        ),
        {"p": partner_id, "g": programme_id},
    )
    return found.first() is not None


_COLUMNS: Final = (
    "s.id, p.slug, s.currency, s.amount, s.through, s.paired, s.unidentified, s.contributions, s.topped_up, s.fees,"
    " s.credits, s.state, s.kind, s.parts, s.carried, s.cash_fund"
)


def by_reference(tx: Tx, partner: Partner, reference: str) -> Settlement | None:
    """The settlement that a partner's reference names."""
    row = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM products.settlement s JOIN products.partner p ON p.id = s.partner_id"
            " WHERE s.partner_id = :partner AND s.reference = :reference"
        ),
        {"partner": partner.id, "reference": reference},
    ).one_or_none()
    return None if row is None else Settlement(*row)


def by_id(tx: Tx, settlement_id: UUID) -> Settlement:
    """A settlement as it stands. Raises NotFound."""
    row = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM products.settlement s JOIN products.partner p ON p.id = s.partner_id"
            " WHERE s.id = :id"
        ),
        {"id": settlement_id},
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such settlement.")
    return Settlement(*row)


def oldest_unfinished(tx: Tx, joined: Joined) -> tuple[Settlement, Chosen] | None:
    """The settlement of a partner in a programme that is to be paired next."""
    row = tx.execute(
        text(
            f"SELECT {_COLUMNS}, s.since, s.listed, s.days, s.funds FROM products.settlement s JOIN products.partner p ON p.id = s.partner_id"
            " WHERE s.partner_id = :partner AND s.programme_id = :programme AND s.state IN ('recorded', 'pairing')"
            " ORDER BY s.recorded_at, s.id LIMIT 1"
        ),
        {"partner": joined.partner_id, "programme": joined.programme_id},
    ).one_or_none()
    if row is None:
        return None
    # what is listed stands in its table: here it only matters that there is a list
    chosen = Chosen(
        row.through,
        row.since,
        () if row.listed else None,
        None if row.days is None else tuple(row.days),
        None if row.funds is None else tuple(row.funds),
    )
    return Settlement(*row[:-4]), chosen
