"""`/openapi.json`, out of the dialects' own models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import flashrank_lite
from flashrank_lite.server.dialects import cohere, pairs, tei
from flashrank_lite.server.settings import Settings

_MODELS: tuple[type[BaseModel], ...] = (
    tei.TeiRequest,
    tei.TeiResponse,
    cohere.CohereRequest,
    cohere.CohereResponse,
    pairs.MetarankRequest,
    pairs.MetarankResponse,
    pairs.ScoreRequest,
    pairs.ScoreResponse,
)
_REFUSALS = {
    "400": "The body is not JSON, or ended early.",
    "401": "The key is missing or unknown.",
    "404": "There is no such model.",
    "408": "The body took too long to arrive.",
    "413": "More bytes, passages or tokens than one request may have.",
    "415": "The body is compressed.",
    "422": "A field is missing or wrong, or a passage is too long.",
    "429": "The queue is full: Retry-After says when to try again.",
    "500": "The model failed.",
    "503": "Not ready yet, past the deadline, or shutting down.",
}
_EXAMPLE_QUERY = "how long do fleas live"
_EXAMPLE_TEXTS = ["An adult flea lives for about 100 days.", "Butter melts at 32 degrees."]


def document(settings: Settings) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    components: dict[str, Any] = {
        "schemas": {
            **schemas["$defs"],
            "Refusal": {
                "type": "object",
                "required": ["error", "error_type", "message", "detail", "code"],
                "properties": {
                    name: {"type": "string"}
                    for name in ("error", "error_type", "message", "detail", "code")
                },
            },
        }
    }
    if settings.api_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    pair = {"query": _EXAMPLE_QUERY, "text": _EXAMPLE_TEXTS[0]}
    paths = {
        **{
            path: _post(
                f"Rank passages ({path})",
                ["TeiRequest", "CohereRequest"],
                ["TeiResponse", "CohereResponse"],
                {
                    "documents": {"query": _EXAMPLE_QUERY, "documents": _EXAMPLE_TEXTS, "top_n": 1},
                    "texts": {
                        "query": _EXAMPLE_QUERY,
                        "texts": _EXAMPLE_TEXTS,
                        "return_text": True,
                    },
                },
                "The body decides: `texts` is answered as Text Embeddings Inference does, "
                "`documents` as Cohere, Jina and vLLM do.",
            )
            for path in ("/rerank", "/v1/rerank", "/v2/rerank")
        },
        "/infinity/rerank": _post(
            "Rank passages, as infinity does",
            ["CohereRequest"],
            ["CohereResponse"],
            {"documents": {"query": _EXAMPLE_QUERY, "documents": _EXAMPLE_TEXTS}},
            "Returned documents are bare texts.",
        ),
        **{
            path: _post(
                f"Score pairs, as vLLM does ({path})",
                ["ScoreRequest"],
                ["ScoreResponse"],
                {"score": {"text_1": _EXAMPLE_QUERY, "text_2": _EXAMPLE_TEXTS}},
                "Scores in the order of the texts.",
            )
            for path in ("/score", "/v1/score")
        },
        "/inference/cross/{model}": _post(
            "Score pairs, as Metarank does",
            ["MetarankRequest"],
            ["MetarankResponse"],
            {"pairs": {"input": [pair]}},
            "Logits in the order of the pairs.",
            parameters=[
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ],
        ),
        **{
            path: _get(summary, ready=path in ("/info", "/ready"))
            for path, summary in {
                "/info": "The first model and the limits, as Text Embeddings Inference says them",
                "/models": "The models",
                "/v1/models": "The models (/v1)",
                "/health": "Whether the process is alive",
                "/ping": "Whether the process is alive (/ping)",
                "/ready": "Whether the models are loaded",
            }.items()
        },
        "/metrics": _get("Counts and times, for Prometheus", media="text/plain"),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flashrank-lite",
            "version": flashrank_lite.__version__,
            "description": "Ranks passages for a query, in the dialect that the client speaks.",
        },
        "paths": paths,
        "components": components,
        **({"security": [{"key": []}]} if settings.api_keys else {}),
    }


def _post(
    summary: str,
    requests: list[str],
    responses: list[str],
    examples: dict[str, Any],
    description: str,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "description": description,
            **({"parameters": parameters} if parameters else {}),
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": _any_of(requests),
                        "examples": {name: {"value": value} for name, value in examples.items()},
                    }
                },
            },
            "responses": {
                "200": _response("The answer.", _any_of(responses)),
                **{status: _refused(said) for status, said in _REFUSALS.items()},
            },
        }
    }


def _get(summary: str, *, ready: bool = False, media: str = "application/json") -> dict[str, Any]:
    schema = {"type": "object"} if media == "application/json" else {"type": "string"}
    refused = {"401": _refused(_REFUSALS["401"])}
    if ready:
        refused["503"] = _refused("The models are still loading.")
    return {
        "get": {
            "summary": summary,
            "responses": {"200": _response("The answer.", schema, media), **refused},
        }
    }


def _any_of(names: list[str]) -> dict[str, Any]:
    refs = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _refused(said: str) -> dict[str, Any]:
    return _response(said, _any_of(["Refusal"]))


def _response(said: str, schema: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    return {"description": said, "content": {media: {"schema": schema}}}
