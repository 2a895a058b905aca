"""What is served where."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

import flashrank_lite
from flashrank_lite.server import openapi, pages
from flashrank_lite.server.dialects import cohere, pairs, tei
from flashrank_lite.server.dialects.request import RankingRequest
from flashrank_lite.server.refusals import Refusal
from flashrank_lite.server.registry import ServedModel
from flashrank_lite.server.service import Facts, Service


def routes(service: Service) -> list[BaseRoute]:
    """Every route there is."""

    def posts(path: str, read: Callable[[Any], RankingRequest]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _answer(service, request, read)

        return Route(path, endpoint, methods=["POST"])

    async def metarank(request: Request) -> Response:
        read = partial(pairs.read_metarank, model=request.path_params["model"])
        return await _answer(service, request, read)

    async def info(_: Request) -> Response:
        return JSONResponse(_info(service))

    async def models(_: Request) -> Response:
        listed = [_model(service, model) for model in service.registry]
        return JSONResponse({"object": "list", "data": listed})

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        service.registry.choose(None)
        return JSONResponse({"status": "ready"})

    async def metrics(_: Request) -> Response:
        text = service.metrics.expose(service.scheduler)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def schema(_: Request) -> Response:
        return JSONResponse(openapi.document(service.settings))

    return [
        posts("/rerank", partial(_read, version=1)),
        posts("/v1/rerank", partial(_read, version=1)),
        posts("/v2/rerank", partial(_read, version=2)),
        posts("/infinity/rerank", partial(cohere.read, infinity=True)),
        posts("/score", pairs.read_score),
        posts("/v1/score", pairs.read_score),
        Route("/inference/cross/{model}", metarank, methods=["POST"]),
        Route("/info", info),
        Route("/models", models),
        Route("/v1/models", models),
        Route("/health", alive),
        Route("/ping", alive),
        Route("/ready", ready),
        Route("/metrics", metrics),
        Route("/openapi.json", schema),
        Route("/docs", pages.docs),
        Route("/", pages.page),
    ]


def _read(body: Any, *, version: int) -> RankingRequest:
    """A request for a ranking, in the dialect that the body is in."""
    if isinstance(body, dict) and "texts" in body:
        return tei.read(body)
    if isinstance(body, dict) and "documents" in body:
        return cohere.read(body, version=version)
    raise Refusal(
        422,
        "invalid_request",
        "the body has to be an object with query, and texts (as of Text Embeddings Inference) or "
        "documents (as of Cohere, Jina, vLLM and infinity)",
    )


async def _answer(
    service: Service, request: Request, read: Callable[[Any], RankingRequest]
) -> Response:
    facts: Facts = request.state.facts
    ranking = await service.rank(request, facts, read)
    content = json.dumps(
        ranking.request.shape(ranking), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return Response(content.encode(), media_type="application/json", headers=_times(facts))


def _times(facts: Facts) -> dict[str, str]:
    """Text Embeddings Inference's headers; times in milliseconds."""
    total = str(round(facts.seconds * 1000))
    inference = max(0.0, facts.score_seconds - facts.tokenizing_seconds)
    return {
        "x-compute-type": facts.device,
        "x-compute-time": total,
        "x-compute-characters": str(facts.characters),
        "x-compute-tokens": str(facts.tokens),
        "x-total-time": total,
        "x-tokenization-time": str(round(facts.tokenizing_seconds * 1000)),
        "x-queue-time": str(round(facts.queue_seconds * 1000)),
        "x-inference-time": str(round(inference * 1000)),
    }


def _info(service: Service) -> dict[str, Any]:
    """Text Embeddings Inference's, of the first model, and this server's own under `models`."""
    first, settings = service.registry.choose(None), service.settings
    return {
        "model_id": first.info["repository"] or first.name,
        "model_sha": first.info["revision"],
        "model_dtype": first.info["precision"],
        "served_model_name": first.name,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": settings.max_queue,
        "max_input_length": first.max_length,
        "max_batch_tokens": first.info["batch_tokens"],
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_documents,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": first.info["threads"],
        "version": flashrank_lite.__version__,
        "sha": None,
        "docker_label": None,
        "models": [_model(service, model) for model in service.registry],
    }


_STARTED = int(time.time())


def _model(service: Service, model: ServedModel) -> dict[str, Any]:
    aliases = [alias for alias, name in service.settings.aliases.items() if name == model.name]
    return {
        "id": model.name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "flashrank-lite",
        "backend": "onnxruntime",
        "capabilities": ["rerank"],
        "aliases": aliases,
        "max_length": model.max_length,
        "precision": model.info["precision"],
        "repository": model.info["repository"],
        "revision": model.info["revision"],
        "stats": {
            "queue_fraction": service.scheduler.waiting() / service.settings.max_queue,
            "queue_absolute": service.scheduler.waiting(),
            "results_pending": service.scheduler.waiting(),
            "batch_size": model.info["batch_tokens"],
        },
    }
