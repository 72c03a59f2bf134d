"""Whether this process lives, and whether it can do its work."""

from typing import Annotated, Literal

import redis
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse

from api.bootstrap import Services
from api.deps import services
from api.migrations.run import newest, revision_of
from api.settings import UnsafeSettings
from api.stamp import require_stamp
from api.v1.schemas import Out
from ledger.database import Database

router = APIRouter(tags=["operations"])


class Alive(Out):
    """The process answers."""

    status: Literal["ok"]


Reached = Literal["ok", "unavailable"]


class Ready(Out):
    """What the process needs, each as it is now. Without Valkey work goes on, later: `degraded`."""

    status: Literal["ok", "degraded", "unavailable"]
    database: Reached
    worker_database: Reached
    migrations: Annotated[
        Literal["ok", "outdated", "unknown"],
        Field(description="Whether the schema is the one that this program was made for."),
    ]
    stamp: Annotated[
        Literal["ok", "mismatch", "unknown"],
        Field(description="Whether the database belongs to this environment and to this cluster."),
    ]
    queue: Reached


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
    """Asks the databases and the queue now."""
    found = services(request)
    database, worker = _reach(found.api), _reach(found.worker)
    migrations, stamp = _look(found) if database == "ok" else ("unknown", "unknown")
    try:
        queue: Reached = "ok" if found.valkey.ping() else "unavailable"
    except redis.RedisError:
        queue = "unavailable"
    up = database == worker == migrations == stamp == "ok"
    ready = Ready(
        status="unavailable" if not up else "ok" if queue == "ok" else "degraded",
        database=database,
        worker_database=worker,
        migrations=migrations,
        stamp=stamp,
        queue=queue,
    )
    return JSONResponse(ready.model_dump(), 200 if up else 503)


def _reach(database: Database) -> Reached:
    try:
        with database.begin() as tx:
            tx.exec_driver_sql("SELECT 1")
    except Exception:  # whatever the reason, it is not ready, and that is the answer
        return "unavailable"
    return "ok"


def _look(
    found: Services,
) -> tuple[Literal["ok", "outdated", "unknown"], Literal["ok", "mismatch", "unknown"]]:
    try:
        with found.api.begin() as tx:
            if revision_of(tx) != newest():
                return "outdated", "unknown"
            require_stamp(tx, found.settings)
    except UnsafeSettings:
        return "ok", "mismatch"
    except Exception:  # as above
        return "unknown", "unknown"
    return "ok", "ok"
