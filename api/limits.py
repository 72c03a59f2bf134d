"""How many requests a client may send: a window of one minute in Valkey, told in every answer.

It protects the service, not the books: with Valkey away requests are served uncounted.
"""

import logging
from typing import Final

import redis
from starlette.requests import Request

from api.bootstrap import Services
from api.problems import ProblemError

log = logging.getLogger("mizan.api")

WINDOW_SECONDS: Final = 60


def count(request: Request, services: Services, client_id: str) -> None:
    """Count one request of a client. Raises the problem `rate_limited`, with ``Retry-After``, beyond the limit."""
    second = int(services.clock.now().timestamp())
    window, spent = divmod(second, WINDOW_SECONDS)
    try:
        pipeline = services.valkey.pipeline(transaction=False)
        pipeline.incr(f"mizan:requests:{client_id}:{window}")
        pipeline.expire(f"mizan:requests:{client_id}:{window}", 2 * WINDOW_SECONDS)
        sent = int(pipeline.execute()[0])
    except redis.RedisError as error:
        log.warning("requests are not counted: %s", type(error).__name__)
        return
    limit = services.settings.requests_per_minute
    reset = str(WINDOW_SECONDS - spent)
    request.scope["state"]["answer_headers"].update(
        {
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": str(max(0, limit - sent)),
            "RateLimit-Reset": reset,
        }
    )
    if sent > limit:
        raise ProblemError(
            "rate_limited", f"A client may send {limit} requests a minute.", headers={"Retry-After": reset}
        )
