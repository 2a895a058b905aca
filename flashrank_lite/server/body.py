"""A request's body: bounded in bytes, time and depth before it is parsed."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from flashrank_lite.server.refusals import Refusal
from flashrank_lite.text import well_formed

DEEPEST = 32
IN_A_THREAD = 256 * 1024  # bytes that take a millisecond and more to parse
_PARTS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read(request: Request, max_bytes: int, seconds: float) -> bytes:
    """The body.

    Raises:
        Refusal: 413 for more than `max_bytes`, 408 if it takes longer than `seconds`, 415 if it is
            compressed, 400 if it ends early.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "compressed_body", "a compressed body is not read: send it without it")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large(max_bytes)
    body = bytearray()
    try:
        await asyncio.wait_for(_receive(request, body, max_bytes), seconds)
    except (TimeoutError, asyncio.TimeoutError):  # one and the same since Python 3.11
        raise Refusal(
            408, "body_timeout", f"the body did not arrive within {seconds:g} seconds"
        ) from None
    except ClientDisconnect:
        raise Refusal(400, "incomplete_body", "the body ended early") from None
    return bytes(body)


async def parse(body: bytes) -> Any:
    """JSON, with lone surrogates, which half an emoji leaves behind, as U+FFFD.

    Raises:
        Refusal: 400 for what is not JSON, or nested deeper than `DEEPEST`.
    """
    return await asyncio.to_thread(_parse, body) if len(body) > IN_A_THREAD else _parse(body)


def too_large(max_bytes: int) -> Refusal:
    """The refusal of a body of more bytes."""
    return Refusal(
        413,
        "body_too_large",
        f"the body is larger than {max_bytes:,} bytes: send fewer or shorter passages, or have the "
        "server started with a greater --max-body-bytes",
    )


async def _receive(request: Request, body: bytearray, max_bytes: int) -> None:
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large(max_bytes)


def _parse(body: bytes) -> Any:
    if _depth(body) > DEEPEST:
        raise Refusal(400, "too_deep", f"the JSON is nested deeper than {DEEPEST} levels")
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Refusal(400, "not_utf8", "the body is not UTF-8") from None
    except json.JSONDecodeError as error:  # its own text would repeat no text, only say where
        raise Refusal(
            400,
            "not_json",
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}",
        ) from None
    except ValueError:  # an integer of thousands of digits
        raise Refusal(400, "not_json", "the body holds a number that cannot be read") from None
    return _mended(value) if _SURROGATE.search(body) else value


def _depth(body: bytes) -> int:
    """How deep arrays and objects are nested."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:  # cannot be deeper
        return 0
    depth = deepest = 0
    for match in _PARTS.finditer(body):
        first = body[match.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > DEEPEST:
                break
        elif first in b"]}":
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> NoReturn:
    raise Refusal(400, "not_json", f"the body is not JSON: {name} is no JSON number")


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): _mended(item) for key, item in value.items()}
    return value
