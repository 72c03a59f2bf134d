"""Requests about what partners pay in: a settlement that is returned, and the terms on which a partner pays."""

from dataclasses import asdict, replace
from datetime import date
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from api.approvals.service import NOWHERE, Origin, Payload, Request, file, may_ask, register
from api.auth.actors import Actor
from api.auth.scopes import Role
from api.bootstrap import Services
from ledger.database import Tx
from ledger.errors import InvalidInput, NotFound
from ledger.ids import parse_public_id, public_id
from ledger.periods import effective_day
from products.programmes.scalars import format_percent, parse_percent
from products.remittances import partners
from products.settlements import reading
from products.settlements.limits import set_terms
from products.settlements.returns import NotReturnable, return_settlement
from products.settlements.terms import ALWAYS, SettlementTerms, checked, load_terms, on_day

RETURN: Final = "settlement_return"
TERMS: Final = "settlement_terms"
MANAGERS: Final[frozenset[Role]] = frozenset({"manager"})


def request_return(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    settlement_id: UUID,
    reason: str,
    *,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a settlement that the bank took back to be taken back. Raises NotFound, `NotReturnable`."""
    found = reading.settlement(tx, settlement_id, partner_id=None)
    if not may_ask(actor, RETURN, found.programme_id):
        raise NotFound(reading.UNKNOWN)
    if found.kind != "payment" or found.state != "paired":
        raise NotReturnable("only what a partner paid, and what is paired, can be returned")
    name = public_id("stl", settlement_id)
    return file(
        tx,
        services,
        actor,
        RETURN,
        {
            "settlement": name,
            "amount": found.amount,
            "currency": found.currency,
            "partner": found.partner,
            "reason": reason,
        },
        reason,
        object_=name,
        programme_id=found.programme_id,
        origin=origin,
    )


def _execute_return(tx: Tx, services: Services, payload: Payload) -> Payload:
    done = return_settlement(
        tx, services.books, parse_public_id("stl", payload["settlement"]), reason=payload["reason"]
    )
    return {"settlement": public_id("stl", done.id), "state": done.state}


def request_terms(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    *,
    partner: str,
    programme: str | None,
    changes: dict[str, Any],
    since: date | None,
    remark: str,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a partner's terms to change; ``changes`` are fields of `SettlementTerms`, the others stay as they are today.

    Raises InvalidInput for what can't be agreed, and for a partner that has joined several programmes when none is named.
    """
    known = partners.find(tx, partner)
    programme_id, standing = current_terms(tx, services, known.id, programme)
    agreed = checked(replace(standing, **changes))
    name = f"{public_id('ptn', known.id)}:{public_id('prg', programme_id)}"
    return file(
        tx,
        services,
        actor,
        TERMS,
        {
            "partner": partner,
            "programme": public_id("prg", programme_id),
            "since": since.isoformat() if since else None,
            "terms": written(agreed),
        },
        remark,
        object_=name,
        programme_id=programme_id,
        origin=origin,
    )


def current_terms(
    tx: Tx, services: Services, partner_id: UUID, programme: str | None
) -> tuple[UUID, SettlementTerms]:
    """A partner's terms of today in a programme, in its only one when none is named. Raises InvalidInput."""
    rows = tx.execute(
        text(
            "SELECT g.id, g.slug, g.time_zone FROM products.partner_programme pp JOIN products.programme g"
            " ON g.id = pp.programme_id WHERE pp.partner_id = :partner AND (CAST(:slug AS text) IS NULL OR g.slug = :slug)"
        ),
        {"partner": partner_id, "slug": programme},
    ).all()
    if len(rows) != 1:
        raise InvalidInput(
            "name the programme: the partner has joined several, or not this one", pointer="/programme"
        )
    [row] = rows
    history = load_terms(tx, [partner_id]).get((partner_id, row.id))
    if history is None:
        raise InvalidInput("an organisation collects nothing and has no terms", pointer="/partner")
    return row.id, on_day(history, effective_day(services.clock.now(), row.time_zone))


def written(terms: SettlementTerms) -> Payload:
    """Terms as JSON, without their day."""
    fields = asdict(terms)
    del fields["since"]
    return fields | {"countries": list(terms.countries), "fee_percent": format_percent(terms.fee_percent)}


def _read(fields: Payload) -> SettlementTerms:
    percent: Fraction = parse_percent(fields["fee_percent"])
    return SettlementTerms(
        **fields | {"since": ALWAYS, "countries": tuple(fields["countries"]), "fee_percent": percent}
    )


def _execute_terms(tx: Tx, services: Services, payload: Payload) -> Payload:
    since = date.fromisoformat(payload["since"]) if payload["since"] else None
    agreed = set_terms(
        tx,
        partners.find(tx, payload["partner"]).id,
        parse_public_id("prg", payload["programme"]),
        _read(payload["terms"]),
        services.clock,
        since=since,
    )
    return {"since": agreed.since.isoformat()}


register(
    RETURN,
    roles=MANAGERS,
    execute=_execute_return,
    describe=lambda payload: (
        f"Take back {payload['settlement']} of {payload['partner']}, {payload['amount']} minor units of"
        f" {payload['currency']}: the bank returned it."
    ),
)
register(
    TERMS,
    roles=frozenset({"manager", "administrator"}),
    execute=_execute_terms,
    describe=lambda payload: f"Change the terms on which {payload['partner']} pays in.",
)
