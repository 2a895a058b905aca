"""Why a request is not answered: one exception, and the body that every client can read.

Clients look for the reason in different places: Text Embeddings Inference's in `error` and
`error_type`, Cohere's in `message`, those written for FastAPI servers in `detail`. All are there.
"""

import math
from typing import Any

# Of Text Embeddings Inference, by status; the rest is its "Validation".
_ERROR_TYPES = {400: "Validation", 424: "Backend", 429: "Overloaded", 500: "Backend"}
_ERROR_TYPES |= {503: "Unhealthy"}


class Refusal(Exception):
    """A request that is refused, on purpose.

    Args:
        status: of HTTP.
        code: a stable word for programs, such as `queue_full`.
        message: what was wrong and what to do next; it never holds the request's texts.
        error_type: Text Embeddings Inference's word for it; None for that of the status.
        retry_after: seconds after which trying again may help.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        error_type: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.error_type = error_type or _ERROR_TYPES.get(status, "Validation")
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The reason, under the name that each kind of client looks for."""
        return {
            "error": self.message,
            "error_type": self.error_type,
            "message": self.message,
            "detail": self.message,
            "code": self.code,
        }

    def headers(self) -> dict[str, str]:
        """Retry-After, in whole seconds, where trying again may help."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_after)))}
