"""Inbound callbacks of rails: `POST|PUT|GET /hooks/rails/{slug}/{path}`, proven by the rail's adapter, kept sealed, then applied.

The adapter judges raw bytes and the path; an unknown rail and a callback that is not proven to be its rail's are refused alike. A
callback is answered when it was applied; the same one again changes nothing, and one for nothing known is kept and tried again.
"""

import logging
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.bootstrap import Services
from api.hooks import RawRoute, problem_response, raw_body
from api.problems import ProblemError
from integrations.inbox.keys import InboxKeys
from integrations.rails import callbacks
from ledger.database import Tx
from ledger.errors import NotFound
from products.payouts import registry, reports
from products.payouts.rails import Callback, CallbackMalformed, CallbackRefused, Report

log = logging.getLogger("mizan.hooks")

METHODS: Final = ("POST", "PUT", "GET")
_REFUSED: Final = "The callback is not proven to be of this rail."


class RailHooks:
    """The callbacks of rails in one API process: include `router` in the application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._body_bytes_max = services.settings.hook_body_bytes_max
        self._keys = InboxKeys(services.worker, services.keyring, services.clock)
        self.router = self._routes()

    async def receive(self, request: Request) -> Response:
        """Prove, keep and apply one callback."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in request.scope["headers"]
        }
        callback = Callback(
            method=request.method,
            path=request.path_params["path"],
            headers=headers,
            body=await raw_body(request, headers, self._body_bytes_max),
            address=request.scope["state"]["address"],
        )
        await run_in_threadpool(self._take, request.path_params["slug"], callback)
        return Response(status_code=204)

    def _take(self, slug: str, callback: Callback) -> None:
        services = self._services
        try:
            with services.worker.begin() as tx:
                rail = registry.find(tx, slug)
        except NotFound:
            raise ProblemError("signature_invalid", _REFUSED) from None
        adapter = services.rails.adapter(rail)
        said: list[Report] | None = None
        fault = ""
        try:
            said = adapter.read(callback)
        except CallbackRefused:
            raise ProblemError("signature_invalid", _REFUSED) from None
        except CallbackMalformed as error:
            fault = str(error)
        asks_after = timedelta(seconds=adapter.asks_after_seconds)
        key = self._keys.current()

        def keep_and_apply(tx: Tx) -> None:
            kept = callbacks.keep(tx, services.books, key, rail, callback, readable=said is not None)
            if said:
                reports.apply(
                    tx, services.books, rail, said, source="callback", callback_id=kept, asks_after=asks_after
                )

        services.worker.run(keep_and_apply)
        if said is None:
            log.warning("rail %s: a callback can't be read", rail.slug)
            raise ProblemError("malformed_request", f"The callback can't be read: {fault}.")

    def _routes(self) -> APIRouter:
        router = APIRouter(route_class=RawRoute, tags=["hooks"])
        for method in METHODS:
            router.add_api_route(
                "/hooks/rails/{slug}/{path:path}",
                self.receive,
                methods=[method],
                operation_id=f"{method.lower()}_rail_callback",
                summary="Send a rail's callback",
                description=_DESCRIPTION,
                status_code=204,
                response_class=Response,
                responses=_RESPONSES,
                openapi_extra=_OPENAPI,
            )
        return router


_DESCRIPTION: Final = """\
What a rail tells of payments, in its provider's own format: proven as the rail's kind demands (a signature, keys and an unguessable
path), kept sealed, and applied before it is answered. Repeats, early ones and ones out of order are all answered 204.
"""

_OPENAPI: Final[dict[str, Any]] = {
    "security": [],
    "parameters": [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": description,
            "schema": {"type": "string"},
        }
        for name, description in (("slug", "the rail's name"), ("path", "as the rail was told to call"))
    ],
}

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    400: problem_response("Authentic, but it can't be read (`malformed_request`)."),
    401: problem_response("Not proven to be of an existing rail (`signature_invalid`)."),
    408: problem_response("The body did not arrive in time."),
    413: problem_response("The body is over 256 KiB."),
    415: problem_response("The body has a Content-Encoding."),
    503: problem_response("Not applied now: send it again."),
}
