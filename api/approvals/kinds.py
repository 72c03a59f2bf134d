"""Every kind of request there is: importing this registers them. A new kind is a `register` in a module named here."""

from api.approvals import (
    books,
    breaks,
    claims,
    opening,
    payouts,
    periods,
    programmes,
    remittals,
    reversals,
    settlements,
)
from api.approvals.service import KINDS, expire
from api.auth import admission
from api.bootstrap import Services

__all__ = [
    "KINDS",
    "admission",
    "books",
    "breaks",
    "claims",
    "opening",
    "payouts",
    "periods",
    "programmes",
    "remittals",
    "request_and_expire",
    "reversals",
    "settlements",
]


def request_and_expire(services: Services) -> None:
    """Ask for what waits for a person (parked reversals, vested match that should fall), and close what is too old."""
    services.worker.run(lambda tx: expire(tx, services))
    services.worker.run(lambda tx: reversals.request_parked(tx, services))
    services.worker.run(lambda tx: books.request_adjustments(tx, services))
