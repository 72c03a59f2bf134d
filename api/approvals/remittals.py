"""Sending a remittal: above the agency's limit, one manager asks and another approves."""

from datetime import date
from typing import Final
from uuid import UUID

from api.approvals.service import NOWHERE, Origin, Payload, Request, file, register
from api.auth.actors import Actor
from api.bootstrap import Services
from ledger.database import Tx
from ledger.ids import parse_public_id
from products.remittals import paying, queries
from products.remittals.making import RemittalClosed
from products.remittals.queries import PREFIX

KIND: Final = "remittal"


def request_sending(
    tx: Tx,
    services: Services,
    actor: Actor | str,
    remittal_id: UUID,
    *,
    reference: str,
    on: date,
    origin: Origin = NOWHERE,
) -> Request:
    """Ask for a remittal to be sent by a bank payment. Raises `NotFound`, and `RemittalClosed` for one that was."""
    remittal = queries.remittal_of(tx, remittal_id)
    if remittal.state != "made":
        raise RemittalClosed(f"The remittal is {remittal.state} already.")
    payload = {
        "remittal": remittal.public_id,
        "agency": remittal.agency,
        "lines": remittal.lines,
        "amount": remittal.amount,
        "currency": remittal.currency,
        "sha256": remittal.digest.hex(),
        "reference": reference,
        "on": on.isoformat(),
    }
    return file(
        tx,
        services,
        actor,
        KIND,
        payload,
        "",
        object_=remittal.public_id,
        programme_id=remittal.programme_id,
        origin=origin,
    )


def _execute(tx: Tx, services: Services, payload: Payload) -> Payload:
    sent = paying.send(
        tx,
        services.books,
        parse_public_id(PREFIX, payload["remittal"]),
        reference=payload["reference"],
        on=date.fromisoformat(payload["on"]),
    )
    return {"remittal": sent.public_id, "state": sent.state}


register(
    KIND,
    roles=frozenset({"manager"}),
    execute=_execute,
    describe=lambda payload: (
        f"Send {payload['agency']} {payload['amount']} {payload['currency']} in minor units, for {payload['lines']} lines."
    ),
    refused=None,
)
