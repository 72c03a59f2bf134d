"""Whether this process lives, and whether it can do its work."""

from typing import Literal

import redis
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from api.deps import services
from api.v1.schemas import Out
from ledger.database import Database

router = APIRouter(tags=["operations"])


class Alive(Out):
    """The process answers."""

    status: Literal["ok"]


class Ready(Out):
    """What the process needs, each as it is now. Without Valkey work goes on, later: `degraded`."""

    status: Literal["ok", "degraded", "unavailable"]
    database: Literal["ok", "unavailable"]
    worker_database: Literal["ok", "unavailable"]
    queue: Literal["ok", "unavailable"]


@router.get("/healthz", operation_id="get_health", summary="Whether the process lives")
def healthz() -> Alive:
    """Says nothing about what the process needs."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether the process can do its work",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "The database cannot be reached."}},
)
def readyz(request: Request) -> JSONResponse:
    """Asks the databases and the queue now."""
    found = services(request)
    database, worker = _answers(found.api), _answers(found.worker)
    try:
        queue: Literal["ok", "unavailable"] = "ok" if found.valkey.ping() else "unavailable"
    except redis.RedisError:
        queue = "unavailable"
    up = database == worker == "ok"
    status: Literal["ok", "degraded", "unavailable"] = (
        "unavailable" if not up else "ok" if queue == "ok" else "degraded"
    )
    ready = Ready(status=status, database=database, worker_database=worker, queue=queue)
    return JSONResponse(ready.model_dump(), 200 if up else 503)


def _answers(database: Database) -> Literal["ok", "unavailable"]:
    try:
        with database.begin() as tx:
            tx.exec_driver_sql("SELECT 1 FROM ledger.era")
    except Exception:  # whatever the reason, it is not ready, and that is the answer
        return "unavailable"
    return "ok"
