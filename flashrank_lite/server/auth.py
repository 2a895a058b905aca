"""Keys: who may use the server.

Programs send `Authorization: Bearer KEY`. A browser that opens the page is asked for a user name
and a password; any name will do, and the key is the password.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from flashrank_lite.server.refusals import Refusal

OPEN_PATHS = frozenset({"/health", "/ready", "/ping"})


class Keys:
    """The keys that are known, compared in constant time.

    Args:
        keys: in the clear; only their digests are kept. None at all lets everybody in.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Let a request pass, or not.

        Raises:
            Refusal: 401 without a key or with a wrong one; 403 for another site's page that would
                use the password its visitor gave to this server.
        """
        if not self._digests or path in OPEN_PATHS:
            return
        scheme, _, value = headers.get("authorization", "").partition(" ")
        scheme, value = scheme.lower(), value.strip()
        if scheme == "basic":
            value = _password(value)
            if headers.get("sec-fetch-site") == "cross-site":
                raise Refusal(403, "cross_site", "another site's page may not use this server")
        elif scheme != "bearer":
            value = ""
        given = _digest(value)
        # every key is compared, so that time does not tell which one it was
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if not any(matches):
            missing = "this server needs a key" if not value else "this key is not known here"
            raise Refusal(
                401, "unauthorized", f"{missing}: send the header Authorization: Bearer KEY"
            )


def challenge(headers: Mapping[str, str]) -> str:
    """What `WWW-Authenticate` says: a browser is to ask for the key, a program is not."""
    wants_page = "text/html" in headers.get("accept", "")
    return 'Basic realm="flashrank-lite", charset="UTF-8"' if wants_page else "Bearer"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _password(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
