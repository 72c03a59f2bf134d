"""The REST resources, one file each: routes and shapes, thin over the services."""

from typing import Final

from fastapi import APIRouter

from api.v1 import (
    approvals,
    audit,
    balances,
    deliveries,
    enrolments,
    health,
    ledger,
    members,
    oauth,
    operators,
    programmes,
    quotes,
    remittances,
    session,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    oauth.router,
    members.router,
    enrolments.router,
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
