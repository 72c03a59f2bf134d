"""Routes whose JSON bodies mean one thing only (`integrations.strict_json`), whatever FastAPI's own reader forgives."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from integrations import strict_json


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body's value. Raises `JSONDecodeError`, which the problems' handler turns into a 400."""
        body = await self.body()
        try:
            return strict_json.loads(body)
        except strict_json.NotStrictJson as error:
            raise json.JSONDecodeError(str(error), "", 0) from error


class StrictRoute(APIRoute):
    """A route that reads its body as strict JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that reads strictly."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly
