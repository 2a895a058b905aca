"""What a request may ask for, checked before anything is scored."""

from flashrank_lite.server.dialects.request import RankingRequest
from flashrank_lite.server.job import Job
from flashrank_lite.server.refusals import Refusal
from flashrank_lite.server.settings import Settings


def check_texts(request: RankingRequest, settings: Settings) -> None:
    """Count passages and characters.

    Raises:
        Refusal: 413 for too many passages, 422 for too long ones.
    """
    if len(request.pairs) > settings.max_documents:
        raise Refusal(
            413,
            "too_many_documents",
            f"{len(request.pairs)} passages are more than the {settings.max_documents} that one "
            "request may hold: send them in several, or have the server started with a greater "
            "--max-documents",
        )
    last = None
    for index, (query, text) in enumerate(request.pairs):
        if query is not last and len(query) > settings.max_query_chars:
            raise Refusal(
                422,
                "query_too_long",
                f"a query of {len(query):,} characters is longer than the "
                f"{settings.max_query_chars:,} that are read: shorten it, or have the server "
                "started with a greater --max-query-chars",
            )
        last = query
        if len(text) > settings.max_document_chars:
            raise Refusal(
                422,
                "document_too_long",
                f"passage {index} has {len(text):,} characters, more than the "
                f"{settings.max_document_chars:,} that are allowed: split it, or have the server "
                "started with a greater --max-document-chars",
            )


def check_tokens(job: Job, settings: Settings) -> None:
    """Bound the work of one request.

    Raises:
        Refusal: 413.
    """
    if job.cost > settings.max_tokens:
        raise Refusal(
            413,
            "too_many_tokens",
            f"about {job.cost:,} tokens to read are more than the {settings.max_tokens:,} that "
            "one request may ask for: send fewer passages, or have the server started with a "
            "greater --max-tokens",
        )
