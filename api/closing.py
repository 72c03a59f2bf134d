"""Closing a month, wired: who closes, what deliveries are about, how the pack looks, and where its digests are sealed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from api import auditing
from api.bootstrap import Services
from api.close_pack import render
from integrations.inbox.keys import BodyUnreadable, open_keys
from integrations.partners.formats import FORMATS
from integrations.partners.port import EventInvalid
from integrations.strict_json import NotStrictJson
from ledger import horizon, verification
from ledger.audit import Act
from ledger.database import Tx, cursor
from ledger.errors import NotFound
from ledger.report import ExtraCheck
from ledger.verify import verify
from products.checks import PRODUCT_CHECKS
from products.closing import checklist, close, pack
from products.closing.close import Close, Format
from products.closing.figures import Figure
from products.closing.findings import CheckList, Item, ItemName
from products.closing.pack import Pack
from products.closing.partners import Valued
from products.closing.period import Period, label
from products.reconciliation.breaks.refresh import refresh
from products.remittances.events import RemittanceCompleted

SYSTEM: Final = "system"
CLOSED: Final = "period.closed"
EXTRA_CHECKS: Final[tuple[ExtraCheck, ...]] = tuple(one.run for one in PRODUCT_CHECKS)
"""What stands on the ledger and is verified with it."""


def judge(tx: Tx, services: Services, period: Period) -> CheckList:
    """The check-list of a month, as the worker; breaks are brought up to date first, and stay so if ``tx`` commits."""
    refresh(tx, services.clock)
    return checklist.judge(tx, period, services.clock, valuing(services))


def explain(
    tx: Tx,
    services: Services,
    period: Period,
    item: ItemName,
    remark: str,
    *,
    actor: str,
    subject: str | None = None,
    owner: str | None = None,
) -> Item:
    """Explain an item's findings, or one of them."""
    return checklist.explain(
        tx,
        period,
        item,
        remark,
        actor=actor,
        clock=services.clock,
        valuing=valuing(services),
        subject=subject,
        owner=owner,
    )


def close_month(
    tx: Tx,
    services: Services,
    programme: str,
    month: date,
    *,
    actor: str,
    remark: str,
    act: Callable[[UUID, str, Mapping[str, Any]], Act],
    programmes: Collection[UUID] | None = None,
) -> Close:
    """Close a month with its pack, as the worker. ``act`` says who does it, for the audit log that carries the digests."""
    name = f"{programme}/{label(month)}"
    return close.close(
        tx,
        programme,
        month,
        actor=actor,
        remark=remark,
        clock=services.clock,
        valuing=valuing(services),
        render=lambda made: render(made, public_url=services.settings.public_url),
        note=lambda tx, programme_id, detail: auditing.write(tx, services, act(programme_id, name, detail)),
        programmes=programmes,
    )


def preview(tx: Tx, services: Services, period: Period) -> tuple[Pack, dict[Format, bytes]]:
    """The pack as it would be now, which says that it is a preview; as the worker."""
    made = pack.make(tx, period, judge(tx, services, period), None)
    return made, render(made, public_url=services.settings.public_url)


def preview_figure(tx: Tx, services: Services, period: Period, name: str) -> Figure:
    """A figure of the pack as it would be now. Raises `NotFound`."""
    found = pack.make(tx, period, judge(tx, services, period), None).figures.get(name)
    if found is None:
        raise NotFound("There is no such figure in the pack.")
    return found


def valuing(services: Services) -> Callable[[Tx, Sequence[UUID]], Valued]:
    """Reads what deliveries are about from their bodies, as far as these can be read."""

    def valued(tx: Tx, deliveries: Sequence[UUID]) -> Valued:
        with cursor(tx) as sql:
            rows = sql.execute(
                "SELECT d.id, d.partner_id, d.inbox_key_id, d.body_sealed, p.format FROM integrations.delivery d"
                " JOIN products.partner p ON p.id = d.partner_id WHERE d.id = ANY (%s)",
                (list(deliveries),),
            ).fetchall()
        keys = open_keys(tx, services.keyring, (row[2] for row in rows))
        found: dict[UUID, tuple[int, str]] = {}
        for id_, partner_id, key_id, sealed, format_ in rows:
            key = keys.get(key_id)
            if key is None:
                continue
            try:
                event = FORMATS[format_].read(key.open(id_, partner_id, sealed)[1]).event
            except (BodyUnreadable, NotStrictJson, EventInvalid, KeyError):
                continue
            if isinstance(event, RemittanceCompleted) and event.collected is not None:
                found[id_] = (event.collected.amount, event.collected.currency)
        return found

    return valued


def verify_asked(services: Services) -> bool:
    """Carry out the verification that was asked for, if there is one and nobody else is at it; whether it was done."""
    with services.worker.read() as tx:
        if verification.asked(tx) is None or not verification.alone(tx):
            return False
        seen = horizon.horizon(tx)
        report = verify(tx, extra_checks=EXTRA_CHECKS)
    services.worker.run(lambda tx: verification.record(tx, report, seen, actor=SYSTEM, clock=services.clock))
    return True
