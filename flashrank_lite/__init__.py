"""Rerank passages for a query on a CPU, without torch.

A small late-interaction reranker is in the package; any cross-encoder can be loaded or exported.

    from flashrank_lite import Ranker

    hits = Ranker().rank("how long do fleas live", passages, top_k=3)

The names below are imported on first use, so `import flashrank_lite` costs a few milliseconds.
"""

import os
from importlib import import_module

TYPE_CHECKING = False  # what type checkers take for typing's, without importing typing (18 ms)
if TYPE_CHECKING:
    from flashrank_lite.calibration import Calibration
    from flashrank_lite.errors import (
        AccessDenied,
        CacheNotWritable,
        CallCancelled,
        ChecksumMismatch,
        DownloadFailed,
        FlashRankLiteError,
        InvalidInput,
        InvalidModel,
        InvalidStore,
        MissingExtra,
        ModelNotFound,
        NonFiniteScores,
        ProviderUnavailable,
        RankerClosed,
        StoreInUse,
    )
    from flashrank_lite.hits import RankedPassage
    from flashrank_lite.passages import Fields
    from flashrank_lite.ranker import Ranker
    from flashrank_lite.store import PassageStore

# Since 1.29 onnxruntime's builds collect telemetry from their import on (onnxruntime#27379): a
# thread, a database in the home folder, and a forked child that hangs at its exit. The variable
# counts only before that import, wherever in this package it comes; to have telemetry, set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "CacheNotWritable",
    "Calibration",
    "CallCancelled",
    "ChecksumMismatch",
    "DownloadFailed",
    "Fields",
    "FlashRankLiteError",
    "InvalidInput",
    "InvalidModel",
    "InvalidStore",
    "MissingExtra",
    "ModelNotFound",
    "NonFiniteScores",
    "PassageStore",
    "ProviderUnavailable",
    "RankedPassage",
    "Ranker",
    "RankerClosed",
    "StoreInUse",
    "__version__",
]

_HOMES = {
    "Calibration": "calibration",
    "Fields": "passages",
    "PassageStore": "store",
    "RankedPassage": "hits",
    "Ranker": "ranker",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
