"""FlashRank's interface (0.2.10, pointwise models): `from flashrank_lite.integrations.flashrank
import Ranker, RerankRequest`.

What differs: the passages that are given are copied, not changed and sorted in place; `score` is a
Python float; memory does not grow with the list; logging is left alone; without a name the model
is the one inside the package, and models come from the Hugging Face Hub's cache unless `cache_dir`
holds them.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.integrations.opening import ModelName, open_within
from flashrank_lite.models.manifest import MANIFEST
from flashrank_lite.passages import read_passages

LISTWISE = frozenset({"rank_zephyr_7b_v1_full"})


class RerankRequest:
    """A query, and the passages to be ranked for it: dicts with `text` and any other keys."""

    def __init__(
        self, query: str | None = None, passages: list[dict[str, Any]] | None = None
    ) -> None:
        self.query = query
        self.passages = [] if passages is None else passages


class Ranker:
    """FlashRank's ranker.

    Args:
        model_name: FlashRank's name of a model, or whatever `flashrank_lite.Ranker` takes; None for
            the bundled model.
        cache_dir: where a folder `model_name` is looked for, with FlashRank's files or ours; None
            for the Hub's cache alone. Downloads go to that cache in any case.
        max_length: tokens of a query and a passage together; the model's own limit if smaller.
        log_level: not used: a library leaves logging to the program.
        **options: further arguments of `flashrank_lite.Ranker`.

    Raises:
        InvalidInput: a listwise model: those are language models, which are not run here.
        FlashRankLiteError: as `flashrank_lite.Ranker` raises it.
    """

    def __init__(
        self,
        model_name: ModelName = None,
        cache_dir: str | Path | None = None,
        max_length: int = 512,
        log_level: str = "INFO",
        **options: Any,
    ) -> None:
        if model_name in LISTWISE:
            raise InvalidInput(
                f"{model_name} is a listwise language model: only FlashRank's pointwise models "
                "run here"
            )
        if cache_dir is not None and model_name is not None:
            folder = Path(cache_dir) / model_name
            if folder.is_dir():
                model_name = folder
                options.setdefault("file", _only_graph(folder))
        options.setdefault("activation", "sigmoid")
        self.ranker = open_within(model_name, max_length, **options)

    def rerank(self, request: RerankRequest) -> list[dict[str, Any]]:
        """The passages of a request, best first: a new dict each, with `score` in [0, 1] added.

        Raises:
            InvalidInput: the query or a passage cannot be ranked.
        """
        passages = list(_mappings(request.passages))
        texts = [passage.text for passage in read_passages(passages)]
        hits = self.ranker.rank(request.query, texts)  # type: ignore[arg-type]  # checked there
        return [{**passages[hit.index], "score": hit.score} for hit in hits]


def replace_flashrank() -> None:
    """Make `import flashrank` mean this module, for libraries that import it on their own.

    LangChain's `FlashrankRerank` and LlamaIndex's `FlashRankRerank` then run on flashrank-lite.
    Call it before they are imported.

    Raises:
        InvalidInput: the real flashrank is imported already, so that they may hold on to it.
    """
    here = sys.modules[__name__]
    if sys.modules.get("flashrank", here) is not here:
        raise InvalidInput(
            "flashrank is imported already: call replace_flashrank() before everything that "
            "imports it"
        )
    sys.modules["flashrank"] = here


def _mappings(passages: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    for index, passage in enumerate(passages):
        if not isinstance(passage, Mapping):
            raise InvalidInput(
                f"passage {index} is a {type(passage).__name__}: FlashRank's passages are dicts, "
                "{'text': ...}"
            )
        yield passage


def _only_graph(folder: Path) -> str | None:
    """FlashRank names a graph after its model; None leaves the choice to the folder's own files."""
    graphs = sorted(folder.glob("*.onnx"))
    return graphs[0].name if len(graphs) == 1 and not (folder / MANIFEST).exists() else None
