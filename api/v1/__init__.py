"""The REST resources, one file each: routes and shapes, thin over the services."""

from typing import Final

from fastapi import APIRouter

from api.v1 import (
    approvals,
    audit,
    balances,
    deliveries,
    devices,
    enrolments,
    health,
    ledger,
    linking,
    members,
    oauth,
    operators,
    payees,
    phone,
    programmes,
    proofs,
    quotes,
    remittances,
    session,
    stop,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    oauth.router,
    members.router,
    enrolments.router,
    proofs.router,
    devices.router,
    phone.router,
    payees.router,
    linking.router,
    stop.router,
    balances.router,
    quotes.router,
    remittances.router,
    deliveries.router,
    programmes.router,
    ledger.router,
    session.router,
    operators.router,
    approvals.router,
    audit.router,
    health.router,
)
