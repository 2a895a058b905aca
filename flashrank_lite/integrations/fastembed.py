"""fastembed's interface: `from flashrank_lite.integrations.fastembed import TextCrossEncoder`.

Scores are logits, as fastembed gives them. Any model that `flashrank_lite.Ranker` takes runs, so
none has to be registered first.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Lock
from typing import Any

from flashrank_lite.arguments import positive
from flashrank_lite.integrations.opening import ModelName, tokenizer_of
from flashrank_lite.options import Providers
from flashrank_lite.ranker import Ranker

# fastembed has 64, for memory; here that follows from a budget of tokens, and larger chunks give
# batches of more even length.
CHUNK = 1024


class TextCrossEncoder:
    """fastembed's `TextCrossEncoder`.

    Args:
        model_name: whatever `flashrank_lite.Ranker` takes, as "Xenova/ms-marco-MiniLM-L-6-v2".
        cache_dir: not used: models are in the Hub's cache, which HF_HUB_CACHE moves.
        threads: None for the cores that this process may use.
        providers: onnxruntime execution providers, preferred first.
        cuda: True for the GPU or an error, anything else for the CPU.
        device_ids: not used: one device runs.
        lazy_load: open the model at the first call, not here.
        specific_model_path: a folder to open instead of `model_name`.
        **options: further arguments of `flashrank_lite.Ranker`.

    Raises:
        FlashRankLiteError: as `flashrank_lite.Ranker` raises it; if `lazy_load`, the first call.
    """

    def __init__(
        self,
        model_name: ModelName = None,
        cache_dir: str | None = None,
        threads: int | None = None,
        providers: Providers | None = None,
        cuda: object = False,
        device_ids: list[int] | None = None,
        lazy_load: bool = False,
        specific_model_path: str | None = None,
        **options: Any,
    ) -> None:
        self.model_name = model_name
        self._model = specific_model_path or model_name
        options.setdefault("long", "truncate")
        self._options: dict[str, Any] = {
            "threads": threads,
            "providers": providers,
            **options,
            "activation": "raw",
        }
        if cuda is True:
            self._options.setdefault("device", "cuda")
        self._opening = Lock()
        self._opened: Ranker | None = None
        if not lazy_load:
            self._open()

    def rerank(
        self, query: str, documents: Iterable[str], batch_size: int = 64, **unused: Any
    ) -> Iterator[float]:
        """The logit of each document, in their order, as they are computed.

        Args:
            query: the query.
            documents: any iterable of texts, read some at a time.
            batch_size: the fewest that are read at a time.

        Raises:
            InvalidInput: something is not a text.
        """
        return self.rerank_pairs(((query, document) for document in documents), batch_size)

    def rerank_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        batch_size: int = 64,
        parallel: int | None = None,
        **unused: Any,
    ) -> Iterator[float]:
        """The logit of each (query, document) pair, in their order, as they are computed.

        Args:
            pairs: any iterable of pairs, read some at a time.
            batch_size: the fewest that are read at a time.
            parallel: not used: threads of this process share the work.

        Raises:
            InvalidInput: something is not a pair of texts.
        """
        positive("batch_size", batch_size)
        ranker = self._open()
        rest = iter(pairs)
        while chunk := list(islice(rest, max(batch_size, CHUNK))):
            yield from ranker.score_pairs(chunk).tolist()

    def token_count(
        self, pairs: Iterable[tuple[str, str]], batch_size: int = 1024, **unused: Any
    ) -> int:
        """Tokens of all pairs, special ones included, each cut at the model's length."""
        ranker = self._open()
        tokenizer = tokenizer_of(ranker)
        tokenizer.enable_truncation(ranker.info()["max_length"], strategy="only_second")
        rest, count = iter(pairs), 0
        while chunk := list(islice(rest, batch_size)):
            count += sum(len(encoding.ids) for encoding in tokenizer.encode_batch(chunk))
        return count

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """The catalogue: {"model", "license", "sources"} of each; others run by their Hub name."""
        from flashrank_lite.models import catalog

        return [
            {"model": entry.name, "license": entry.license, "sources": {"hf": entry.repository}}
            for entry in catalog.entries()
        ]

    def _open(self) -> Ranker:
        with self._opening:
            if self._opened is None:
                self._opened = Ranker(self._model, **self._options)
            return self._opened
