"""Around every request: its id, its key, its log line, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashrank_lite.server import tracing
from flashrank_lite.server.auth import challenge
from flashrank_lite.server.refusals import Refusal
from flashrank_lite.server.service import ClientGone, Facts, Service

access = logging.getLogger("flashrank_lite.server.access")
logger = logging.getLogger("flashrank_lite.server")

HUNG_UP = 499  # nginx's word for it, in logs and metrics only
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Front:
    """ASGI middleware, outermost."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        facts = Facts(sent_id if _ID.fullmatch(sent_id) else uuid.uuid4().hex)
        scope.setdefault("state", {})["facts"] = facts
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), facts)
            await send(message)

        with tracing.span(f"{scope['method']} rerank", headers) as span:
            try:
                self._service.keys.check(_path(scope), headers)
                await self._app(scope, receive, answer)
            except Refusal as refusal:
                more = {"www-authenticate": challenge(headers)} if refusal.status == 401 else {}
                self._service.metrics.errors.labels(refusal.code).inc()
                await _refuse(answer, refusal, more)
            except ClientGone:
                status = HUNG_UP
            except asyncio.CancelledError:  # the grace time is over: the last words
                if not status:
                    with suppress(Exception):
                        await _refuse(answer, _shutting_down(), {"connection": "close"})
                raise
            except Exception as error:
                self._report(error, facts)
                if not status:
                    self._service.metrics.errors.labels("internal").inc()
                    await _refuse(answer, _internal(facts.id), {})
            finally:
                self._account(scope, facts, status)
                span.set(
                    request_id=facts.id,
                    status=status,
                    dialect=facts.dialect,
                    model=facts.model,
                    passages=facts.passages,
                    characters=facts.characters,
                    tokens=facts.tokens,
                    queue_ms=facts.queue_seconds * 1000,
                    tokenize_ms=facts.tokenizing_seconds * 1000,
                    score_ms=facts.score_seconds * 1000,
                )

    def _report(self, error: Exception, facts: Facts) -> None:
        if self._service.settings.log_texts:
            logger.error("request %s failed", facts.id, exc_info=error)
            return
        # an exception's own words may hold the request's: the kind and the place say enough
        trace, place = error.__traceback__, "?"
        while trace is not None:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            trace = trace.tb_next
        logger.error("request %s failed: %s at %s", facts.id, type(error).__name__, place)

    def _account(self, scope: Scope, facts: Facts, status: int) -> None:
        metrics, path = self._service.metrics, _route(scope)
        metrics.requests.labels(facts.dialect, str(status)).inc()
        if status == 200 and facts.passages:
            metrics.pairs.labels(facts.model).inc(facts.passages)
            metrics.tokens.labels(facts.model).inc(facts.tokens)
            metrics.truncated.labels(facts.model).inc(facts.truncated)
            metrics.seconds["read"].observe(facts.read_seconds)
            metrics.seconds["queue"].observe(facts.queue_seconds)
            metrics.seconds["tokenize"].observe(facts.tokenizing_seconds)
            metrics.seconds["score"].observe(facts.score_seconds)
            metrics.seconds["total"].observe(facts.seconds)
        access.info(
            "id=%s method=%s path=%s status=%d dialect=%s model=%s passages=%d chars=%d tokens=%d "
            "truncated=%d queue_ms=%.1f tokenize_ms=%.1f score_ms=%.1f total_ms=%.1f%s",
            facts.id,
            scope["method"],
            path,
            status,
            facts.dialect,
            facts.model,
            facts.passages,
            facts.characters,
            facts.tokens,
            facts.truncated,
            facts.queue_seconds * 1000,
            facts.tokenizing_seconds * 1000,
            facts.score_seconds * 1000,
            facts.seconds * 1000,
            "" if facts.query is None else f" query={facts.query!r}",
        )


def _add_headers(headers: MutableHeaders, facts: Facts) -> None:
    headers["x-request-id"] = facts.id
    for name, value in _SECURITY.items():
        headers.setdefault(name, value)


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _route(scope: Scope) -> str:
    """The path as the routes have it: what a client puts into a path is not for the log."""
    if "endpoint" not in scope:  # no route of ours
        return "-"
    path = _path(scope)
    for name, value in scope.get("path_params", {}).items():  # one at most, the last part
        path = path.removesuffix(str(value)) + f"{{{name}}}"
    return path


def _internal(request_id: str) -> Refusal:
    return Refusal(
        500,
        "internal",
        f"something went wrong here; the server's log tells more under the id {request_id}",
    )


def _shutting_down() -> Refusal:
    return Refusal(
        503, "shutting_down", "the server is shutting down: ask another one", retry_after=1
    )


async def _refuse(send: Send, refusal: Refusal, more: dict[str, str]) -> None:
    body = json.dumps(refusal.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    raw = [
        (name.encode(), value.encode())
        for name, value in {**headers, **refusal.headers(), **more}.items()
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
