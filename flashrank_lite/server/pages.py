"""The pages: each is one file that asks nobody else for anything, and runs its own script alone."""

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_FOLDER = Path(__file__).parent / "static"


async def page(_: Request) -> Response:
    """Rerank something by hand."""
    return _respond("page.html")


async def docs(_: Request) -> Response:
    """What `/openapi.json` says, to read."""
    return _respond("docs.html")


def _respond(name: str) -> Response:
    text, policy = _load(name)
    return HTMLResponse(
        text,
        headers={
            "content-security-policy": policy,
            "x-frame-options": "DENY",
            "cross-origin-opener-policy": "same-origin",
            "permissions-policy": "camera=(), microphone=(), geolocation=()",
        },
    )


@cache
def _load(name: str) -> tuple[str, str]:
    """A page, and the policy that lets its own script and style run."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    if "EXAMPLES_JSON" in text:
        examples = json.loads((_FOLDER / "examples.json").read_text(encoding="utf-8"))
        text = text.replace("EXAMPLES_JSON", json.dumps(examples).replace("<", "\\u003c"))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text, policy


def _hashes(parts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
