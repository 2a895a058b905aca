"""The application: routes, what is around them, and models that load while it already answers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from flashrank_lite.errors import FlashRankLiteError
from flashrank_lite.server.front import Front
from flashrank_lite.server.refusals import Refusal
from flashrank_lite.server.routes import routes
from flashrank_lite.server.scheduler import Scheduler
from flashrank_lite.server.service import Service
from flashrank_lite.server.settings import Settings

logger = logging.getLogger("flashrank_lite.server")

SETTINGS_VARIABLE = "FLASHRANK_LITE_SERVER_SETTINGS"  # from the parent to its worker processes
STARTUP_FAILURE = 3  # uvicorn's: a worker that ends with it is not started again


def create_app(
    settings: Settings | None = None,
    on_failure: Callable[[BaseException], None] | None = None,
    *,
    load_first: bool = False,
) -> Starlette:
    """The ASGI application; its models load when it starts.

    Args:
        settings: how to serve; None for the bundled model and the defaults.
        on_failure: called with the error if a model cannot be loaded; None logs it, and `/ready`
            never says that it is.
        load_first: take no request before the models are loaded, as is right beside other
            processes that do; else `/health` answers meanwhile, and `/ready` says 503.
    """
    service = Service(settings or Settings())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.scheduler = Scheduler(service.settings.scorers, service.settings.timeout)
        service.scheduler.start()
        loading = asyncio.create_task(_load(service, on_failure))
        if load_first:
            await loading
        try:
            yield
        finally:
            loading.cancel()
            await service.scheduler.stop()
            service.registry.close()

    middleware = [Middleware(Front, service=service)]
    if service.settings.cors_origins:
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=list(service.settings.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type", "x-request-id"],
                expose_headers=["x-request-id", "retry-after"],
            ),
        )
    return Starlette(
        routes=routes(service),
        middleware=middleware,
        exception_handlers={HTTPException: _as_refusal},
        lifespan=lifespan,
    )


def app_of_worker() -> Starlette:
    """The application of one of several processes, with its parent's settings."""
    from flashrank_lite.server.run import configure_logging

    settings = Settings.from_json(os.environ[SETTINGS_VARIABLE])
    configure_logging(settings)
    return create_app(settings, _end_worker, load_first=True)


def _end_worker(error: BaseException) -> None:
    logger.error("%s", error)
    logging.shutdown()
    os._exit(STARTUP_FAILURE)  # it has answered nobody yet, and its parent reads the status


async def _load(service: Service, on_failure: Callable[[BaseException], None] | None) -> None:
    try:
        await asyncio.to_thread(service.registry.load)
    except Exception as error:
        if on_failure is not None:
            on_failure(error)
        elif isinstance(error, FlashRankLiteError):
            logger.error("no model: %s", error)
        else:
            logger.exception("no model")


def _as_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        raise Refusal(405, "method_not_allowed", "this path is not for this method: see /docs")
    raise Refusal(error.status_code, "not_found", "there is nothing here: see /docs")
