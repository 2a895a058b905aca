"""Every exception the library raises, in one tree.

Catch `FlashRankLiteError` for all of them. Each message says what was wrong and what to do next.
"""


class FlashRankLiteError(Exception):
    """The root: everything the library raises on purpose is one of these."""


class ModelNotFound(FlashRankLiteError):
    """No model folder answers to the name or path that was given."""


class InvalidModel(FlashRankLiteError):
    """The model folder is there, but it cannot be used as a reranker."""


class ChecksumMismatch(InvalidModel):
    """A model file is not the one that its manifest describes."""


class DownloadFailed(FlashRankLiteError):
    """The Hub could not be reached, refused for now, or broke off: trying again may help."""


class AccessDenied(FlashRankLiteError):
    """The Hub does not show this model to us: it is private, gated, or the token is wrong."""


class CacheNotWritable(FlashRankLiteError):
    """The folder that downloads go to cannot be written."""


class ProviderUnavailable(FlashRankLiteError):
    """An execution provider was asked for that this onnxruntime cannot give."""


class InvalidInput(FlashRankLiteError, ValueError):
    """An argument or a passage has a type or a value that cannot be ranked."""


class InvalidStore(FlashRankLiteError):
    """A passage store is missing, damaged, of another model, or of a newer release."""


class StoreInUse(FlashRankLiteError):
    """Another process or thread is writing to the passage store."""


class NonFiniteScores(FlashRankLiteError):
    """The model produced NaN or infinite logits, which have no place in an order."""


class RankerClosed(FlashRankLiteError):
    """The ranker was used after `close()`."""


class CallCancelled(FlashRankLiteError):
    """A call was cancelled, or the interpreter is ending: not all passages were scored."""


class MissingExtra(FlashRankLiteError, ImportError):
    """An optional part of the package was asked for whose dependencies are not installed."""

    def __init__(self, message: str, extra: str | None = None) -> None:
        """`extra` is the extra that installs what is missing; the message then says how."""
        if extra is not None:
            message += f': pip install "flashrank-lite[{extra}]", or ".[{extra}]" from a checkout'
        super().__init__(message)


def first_line(error: BaseException) -> str:
    """What another library said went wrong, in one line; its kind where it said nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
