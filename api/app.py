"""The HTTP application: routes, problems, the edge, and the OpenAPI document that describes them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api import deps, uploads
from api.addresses import parse_networks
from api.bootstrap import Services, bootstrap
from api.hooks import Hooks
from api.middleware import Edge
from api.observability import metrics, tracing
from api.openapi import describe
from api.problems import add_problems
from api.rail_hooks import RailHooks
from api.settings import Settings
from api.stamp import require_keys, require_stamp
from api.v1 import ROUTERS
from api.worker import wake_up_publisher
from ledger.clock import Clock

if TYPE_CHECKING:
    from api.observability.traces import Traces

TITLE: Final = "Mizan"
VERSION: Final = "1.0.0"
SLOW: Final = {("POST", uploads.OPENING_LOADS): 900.0, ("GET", "/v1/books/export"): 3_600.0}
"""What may take longer to be served than other requests, in seconds: a quarter of a million rows are resolved in the one, and the
other sends all of the books."""


def create_app(
    settings: Settings, *, clock: Clock | None = None, publish: Callable[[], object] | None = None
) -> FastAPI:
    """The application on complete settings; it connects when it starts and lets go when it ends.

    `publish` wakes the workers after deliveries were committed (default: through the queue of `settings`).

    Raises `UnsafeSettings` for settings that nothing should run with; a database of another environment ends the start.
    """
    services = bootstrap(settings, clock=clock)
    hooks = Hooks(
        services.api,
        services.keyring,
        services.clock,
        publish=publish or wake_up_publisher(settings.broker_url),
        body_bytes_max=settings.hook_body_bytes_max,
        queue_max=settings.hook_queue_max,
        group_max=settings.hook_batch_max,
        gather_seconds=settings.hook_gather_milliseconds / 1000,
    )
    traces = tracing(settings, "api")
    if traces is not None:
        hooks.traced = traces.received
    app = FastAPI(
        title=TITLE,
        version=VERSION,
        lifespan=_lifespan(services, hooks, traces),
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.services = services
    app.state.hooks = hooks
    app.include_router(hooks.router)
    app.include_router(RailHooks(services).router)
    for router in ROUTERS:
        app.include_router(router)
    if settings.app_page:
        from api.app_page.page import routes

        app.router.routes.extend(routes(services))
    add_problems(app)
    describe(app, settings.public_url)
    if settings.metrics_port is not None:
        hooks.counts = metrics.HookCounts()
        metrics.watch_pool(services.api, "api")
        metrics.watch_pool(services.worker, "worker")
        app.add_middleware(metrics.RouteNoted)
    app.add_middleware(hooks.in_front_of)  # inside the edge: the last one added is the outermost
    app.add_middleware(
        Edge,
        environment=services.environment.value,
        body_bytes_max=settings.request_body_bytes_max,
        uploads=uploads.PATHS,
        upload_bytes_max=settings.upload_bytes_max,
        spooled=uploads.SPOOLED,
        spooled_bytes_max=settings.statement_bytes_max,
        spooled_seconds_max=settings.statement_seconds_max,
        may_spool=lambda scope: deps.may(Request(scope), "reconciliation:write"),
        slow=SLOW,
        body_seconds_max=settings.request_body_seconds_max,
        limits=services.limits,
        trusted=parse_networks(settings.trusted_proxies),
        forwarded=settings.forwarded_header.lower().encode(),
        https=settings.public_url.startswith("https://"),
        concurrency_max=settings.request_concurrency_max,
        request_seconds_max=settings.request_seconds_max,
    )
    if settings.metrics_port is not None:
        app.add_middleware(metrics.Timed)
    return app


def _lifespan(services: Services, hooks: Hooks, traces: "Traces | None") -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        def check_stamp() -> None:
            with services.api.begin() as tx:
                require_stamp(tx, services.settings)
                require_keys(tx, services.keyring, services.clock.now())

        try:
            await run_in_threadpool(check_stamp)
            async with hooks.running():
                yield
        finally:
            services.close()
            if traces is not None:
                await run_in_threadpool(traces.close)

    return lifespan
