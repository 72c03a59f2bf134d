"""Opening balances, wired: a spreadsheet becomes a load, and a load is posted or taken back batch by batch."""

import hashlib
import logging
import time
from collections.abc import Callable, Collection
from datetime import date
from uuid import UUID

from api.bootstrap import Services
from integrations.opening_files.spreadsheets import NotASpreadsheet, Sheets
from ledger.database import Database, Tx
from ledger.errors import MizanError
from products.opening import load, posting, taking_back
from products.opening.given import Fault
from products.opening.load import Load, OpeningFaulty
from products.opening.resolve import COLUMNS, REQUIRED
from products.remittances.context import Books

_log = logging.getLogger("mizan.opening")

Told = Callable[[int, int], None]
"""Is told how many of a load's batches are done, of how many."""


def stage(
    tx: Tx,
    books: Books,
    content: bytes,
    *,
    programme: str,
    name: str,
    effective_on: date,
    by: str,
    programmes: Collection[UUID] | None = None,
) -> tuple[Load, bool]:
    """Read and keep a spreadsheet (XLSX) or CSV; answers the load, and whether it is new. Nothing is posted.

    As the worker's role. Raises NotFound, `OpeningFaulty` with every fault by sheet and cell.
    """
    sheets = Sheets(content, required=REQUIRED, known=COLUMNS)
    try:
        return load.stage(
            tx,
            books,
            sheets,
            programme=programme,
            name=name,
            digest=hashlib.sha256(content + effective_on.isoformat().encode()).digest(),
            effective_on=effective_on,
            by=by,
            programmes=programmes,
        )
    except NotASpreadsheet as error:
        raise OpeningFaulty([Fault("", "", str(error).rstrip("."))], 1) from error


def work_on(
    worker: Database,
    books: Books,
    load_id: UUID,
    *,
    seconds_max: float | None = None,
    told: Told | None = None,
) -> Load:
    """Post a load that is being committed, or take one back, batch by batch; as it stands then, done or out of time.

    Whoever else is at it does the other batches. Raises `OpeningMovedOn`; what was done before it stays.
    """
    until = None if seconds_max is None else time.monotonic() + seconds_max
    while True:
        with worker.begin() as tx:
            found = load.by_id(tx, load_id)
        if told is not None:
            told(found.done, found.batches)
        step = {"committing": posting.post_next, "taking_back": taking_back.take_back_next}.get(found.state)
        if step is None or (until is not None and time.monotonic() > until):
            return found
        worker.run(lambda tx, step=step: step(tx, books, load_id))  # type: ignore[misc]  # a default is the way to bind a loop's name


def work_on_all(services: Services, *, seconds_max: float) -> int:
    """What the worker's job does: every load that is at work, as far as the time reaches; how many were looked at.

    A load that can't go on doesn't keep the others; who committed it, or takes it back, is told when they ask for it to go on.
    """
    with services.worker.begin() as tx:
        waiting = load.at_work(tx)
    until = time.monotonic() + seconds_max
    for load_id in waiting:
        if time.monotonic() > until:
            break
        try:
            work_on(services.worker, services.books, load_id, seconds_max=until - time.monotonic())
        except MizanError as error:
            _log.warning("a load of opening balances can't go on: %s", error.code)
    return len(waiting)
