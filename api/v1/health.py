"""Whether this process lives, and whether it can do its work."""

import threading
import time
from typing import Annotated, Final, Literal

import redis
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse

from api.bootstrap import Services
from api.deps import services
from api.migrations.run import Standing, standing
from api.observability.state import look
from api.settings import UnsafeSettings
from api.stamp import require_stamp
from api.v1.schemas import Out
from ledger.database import Database

router = APIRouter(tags=["operations"])

LOOK_SECONDS_MIN: Final = 0.25
"""Anyone may ask, and is not counted: however many do, the servers are looked at no more often than this."""
INBOX_LATE_SECONDS: Final = 60.0
SEALS_LATE_SECONDS: Final = 60.0
"""Beyond, workers or the sealer are missing or too slow: what comes in is safe, and waits."""


class Alive(Out):
    """The process answers."""

    status: Literal["ok"]


Reached = Literal["ok", "unavailable"]
Timely = Literal["ok", "late", "unknown"]


class Ready(Out):
    """What the process needs, each as it is now. Without Valkey, workers or the sealer work goes on, later: `degraded`."""

    status: Literal["ok", "degraded", "unavailable"]
    database: Reached
    worker_database: Reached
    migrations: Annotated[
        Literal["ok", "ahead", "outdated", "incompatible", "unknown"],
        Field(
            description="Whether the program works on this schema: it is the program's own, or newer and still good for it (`ahead`)."
        ),
    ]
    stamp: Annotated[
        Literal["ok", "mismatch", "unknown"],
        Field(description="Whether the database belongs to this environment and to this cluster."),
    ]
    queue: Reached
    inbox: Annotated[Timely, Field(description="Whether deliveries are processed within a minute.")]
    seals: Annotated[Timely, Field(description="Whether the books are sealed in time.")]


@router.get("/healthz", operation_id="get_health", summary="Whether the process lives")
def healthz() -> Alive:
    """Says nothing about what the process needs."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether the process can do its work",
    response_model=Ready,
    responses={
        503: {
            "model": Ready,
            "description": "The database cannot be reached, or is not the one to work with.",
        }
    },
)
def readyz(request: Request) -> JSONResponse:
    """Asks the databases and the queue now, or a quarter of a second ago."""
    ready = _shared(request, services(request))
    return JSONResponse(ready.model_dump(), 503 if ready.status == "unavailable" else 200)


class _Last:
    """The last look of one application."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.at = float("-inf")
        self.ready: Ready | None = None


def _shared(request: Request, found: Services) -> Ready:
    last: _Last | None = getattr(request.app.state, "readiness", None)
    if last is None:
        last = request.app.state.readiness = _Last()
    with last.lock:
        if last.ready is None or time.monotonic() - last.at >= LOOK_SECONDS_MIN:
            last.ready = _looked(found)
            last.at = time.monotonic()
        return last.ready


def _looked(found: Services) -> Ready:
    database = _reach(found.api)
    migrations, stamp = _belongs(found) if database == "ok" else ("unknown", "unknown")
    worker, inbox, seals = _works(found)
    try:
        queue: Reached = "ok" if found.valkey.ping() else "unavailable"
    except redis.RedisError:
        queue = "unavailable"
    up = database == worker == stamp == "ok" and migrations in ("ok", "ahead")
    timely = "late" not in (inbox, seals)
    return Ready(
        status="unavailable" if not up else "ok" if queue == "ok" and timely else "degraded",
        database=database,
        worker_database=worker,
        migrations=migrations,
        stamp=stamp,
        queue=queue,
        inbox=inbox,
        seals=seals,
    )


def _reach(database: Database) -> Reached:
    try:
        with database.begin() as tx:
            tx.exec_driver_sql("SELECT 1")
    except Exception:  # whatever the reason, it is not ready, and that is the answer
        return "unavailable"
    return "ok"


def _belongs(found: Services) -> tuple[Standing | Literal["unknown"], Literal["ok", "mismatch", "unknown"]]:
    stands: Standing | Literal["unknown"] = "unknown"
    try:
        with found.api.begin() as tx:
            stands = standing(tx)
            if stands in ("outdated", "incompatible"):
                return stands, "unknown"
            require_stamp(tx, found.settings)
    except UnsafeSettings:
        return stands, "mismatch"
    except Exception:  # as above
        return "unknown", "unknown"
    return stands, "ok"


def _works(found: Services) -> tuple[Reached, Timely, Timely]:
    """Whether workers' connections are to be had, and whether workers and the sealer keep up."""
    if _reach(found.worker) != "ok":
        return "unavailable", "unknown", "unknown"
    try:
        with found.worker.begin() as tx:
            state = look(tx)
    except Exception:  # as above; that it took too long says nothing about the rest
        return "ok", "unknown", "unknown"
    seals_late = max(SEALS_LATE_SECONDS, 3 * found.settings.seal_seconds)
    return (
        "ok",
        "late" if (state.inbox_seconds or 0) > INBOX_LATE_SECONDS else "ok",
        "late" if (state.unsealed_seconds or 0) > seals_late else "ok",
    )
