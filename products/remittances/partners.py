"""Partners and the programmes that they join, on which terms; organisations, which join without any."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args
from uuid import UUID

from sqlalchemy import text

from ledger.clock import Clock
from ledger.database import Tx
from ledger.errors import Conflict, InvalidInput, NotFound
from ledger.ids import new_id
from products import chart
from products.settlements.terms import ALWAYS, SettlementTerms, write_terms
from products.settlements.terms import Terms as Terms

Collection = Literal["as_reported", "by_quote", "by_rule"]

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


NO_FORMAT: Final = "none"
"""The format of an organisation: it sends no webhooks."""


class PartnerExists(Conflict):
    """A partner of this slug is there already."""

    code = "partner_exists"


@dataclass(frozen=True, slots=True)
class Partner:
    """A fintech or telecom partner, or an organisation. ``format`` names the adapter that reads its webhooks."""

    id: UUID
    slug: str
    name: str
    format: str
    state: Literal["active", "disabled"]


def create_partner(tx: Tx, *, slug: str, name: str, format_: str, clock: Clock) -> Partner:
    """Record a partner. Slugs are 1–63 lower-case letters, digits and inner hyphens, and never used twice."""
    return _create(tx, slug, name, format_, "remitter", clock)


def create_organisation(tx: Tx, *, slug: str, name: str, programmes: Iterable[UUID], clock: Clock) -> Partner:
    """Record an association, an NGO or a consulate, whose caseworkers register people in some programmes.

    It sends no money, so it has neither terms nor accounts, and may join several programmes of one currency. Its slug is
    taken from those of partners. Raises InvalidInput, `PartnerExists`.
    """
    made = _create(tx, slug, name, NO_FORMAT, "organisation", clock)
    for programme_id in programmes:
        # the columns are of partners that collect; nothing reads them for one that does not
        _join(tx, made.id, programme_id, "net", "as_reported", clock)
    return made


def _create(
    tx: Tx, slug: str, name: str, format_: str, kind: Literal["remitter", "organisation"], clock: Clock
) -> Partner:
    if not _SLUG.fullmatch(slug):
        raise InvalidInput("a slug is 1 to 63 lower-case letters, digits and inner hyphens", pointer="/slug")
    created = tx.execute(
        text(
            "INSERT INTO products.partner (id, slug, name, format, kind, created_at)"
            " VALUES (:id, :slug, :name, :format, :kind, :now) ON CONFLICT (slug) DO NOTHING RETURNING id"
        ),
        {"id": new_id(), "slug": slug, "name": name, "format": format_, "kind": kind, "now": clock.now()},
    ).scalar_one_or_none()
    if created is None:
        raise PartnerExists(f"there is a partner “{slug}” already")
    return Partner(created, slug, name, format_, "active")


def join_programme(
    tx: Tx,
    partner: Partner,
    programme_id: UUID,
    *,
    terms: Terms,
    collection: Collection,
    exposure_ceiling: int | None = None,
    clock: Clock,
) -> None:
    """Let a partner send remittances for a programme, on terms; opens its accounts in each of the programme's funds.

    ``exposure_ceiling`` (minor units) limits what the partner may owe each fund before its events are parked. One
    partner joins at most one programme per currency: the currency received says which one its money is for.
    """
    for value, choices, pointer in ((terms, Terms, "/terms"), (collection, Collection, "/collection")):
        if value not in get_args(choices):
            raise InvalidInput(f"one of {', '.join(get_args(choices))}", pointer=pointer)
    currency, time_zone = tx.execute(
        text("SELECT currency, time_zone FROM products.programme WHERE id = :id"), {"id": programme_id}
    ).one()
    taken = tx.execute(
        text(
            "SELECT g.slug FROM products.partner_programme pp JOIN products.programme g ON g.id = pp.programme_id"
            " WHERE pp.partner_id = :partner AND g.currency = :currency"
        ),
        {"partner": partner.id, "currency": currency},
    ).scalar_one_or_none()
    if taken is not None:
        raise Conflict(f"{partner.slug} is in {taken} already, whose money is {currency} too")
    _join(tx, partner.id, programme_id, terms, collection, clock)
    first = SettlementTerms(ALWAYS, terms, currency, time_zone, exposure_ceiling=exposure_ceiling)
    write_terms(tx, partner.id, programme_id, first, clock)
    funds = chart.programme_funds(tx, programme_id)
    chart.open_partner_accounts(tx, funds, partner.slug, partner.id, currency, exposure_ceiling)


def _join(
    tx: Tx, partner_id: UUID, programme_id: UUID, terms: Terms, collection: Collection, clock: Clock
) -> None:
    tx.execute(
        text(
            "INSERT INTO products.partner_programme VALUES (:partner, :programme, :terms, :collection, :now)"
        ),
        {
            "partner": partner_id,
            "programme": programme_id,
            "terms": terms,
            "collection": collection,
            "now": clock.now(),
        },
    )


def open_accounts_of_partners(tx: Tx, programme_id: UUID, currency: str) -> None:
    """Open what partners that joined earlier need in funds that a later version of the programme added."""
    funds = chart.programme_funds(tx, programme_id)
    rows = tx.execute(
        text(
            "SELECT p.id, p.slug FROM products.partner_programme pp JOIN products.partner p ON p.id = pp.partner_id"
            " WHERE pp.programme_id = :id AND p.kind = 'remitter'"
        ),
        {"id": programme_id},
    )
    for row in rows.all():
        known = set(
            tx.execute(
                text("SELECT fund_id FROM ledger.account WHERE partner_id = :partner AND code = :code"),
                {"partner": row.id, "code": chart.PARTNER_RECEIVABLE.name},
            ).scalars()
        )
        missing = {role: fund for role, fund in funds.items() if fund not in known}
        chart.open_partner_accounts(tx, missing, row.slug, row.id, currency, None)


def unknown(slug: str) -> str:
    """What is said of a partner that is not there, or not for whoever asks."""
    return f"there is no partner “{slug}”"


def find(tx: Tx, slug: str) -> Partner:
    """The partner of a slug; raises NotFound."""
    row = tx.execute(
        text("SELECT id, slug, name, format, state FROM products.partner WHERE slug = :slug"), {"slug": slug}
    ).one_or_none()
    if row is None:
        raise NotFound(unknown(slug))
    return Partner(*row)


def programmes_of(tx: Tx, partner_id: UUID, currency: str) -> frozenset[UUID]:
    """The programmes of a currency that a partner has joined."""
    rows = tx.execute(
        text(
            "SELECT g.id FROM products.partner_programme pp JOIN products.programme g ON g.id = pp.programme_id"
            " WHERE pp.partner_id = :partner AND g.currency = :currency"
        ),
        {"partner": partner_id, "currency": currency},
    )
    return frozenset(rows.scalars())


def everyone(tx: Tx) -> list[Partner]:
    """All partners, by slug."""
    rows = tx.execute(text("SELECT id, slug, name, format, state FROM products.partner ORDER BY slug"))
    return [Partner(*row) for row in rows]


def set_state(tx: Tx, slug: str, state: Literal["active", "disabled"]) -> None:
    """Enable or disable a partner; a disabled one's deliveries are refused like unknown ones."""
    changed = tx.execute(
        text("UPDATE products.partner SET state = :state WHERE slug = :slug"), {"slug": slug, "state": state}
    )
    if not changed.rowcount:
        raise NotFound(unknown(slug))
