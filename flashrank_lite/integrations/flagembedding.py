"""FlagEmbedding's interface: `from flashrank_lite.integrations.flagembedding import FlagReranker`.

Its encoder-only rerankers (bge-reranker-base, -large, -v2-m3). Queries are cut at three quarters of
the length and passages at what is left, as FlagEmbedding does. One pair gives a float, as its
documentation shows; FlagEmbedding 1.3 and later give a list of one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flashrank_lite.errors import InvalidInput
from flashrank_lite.integrations.opening import ModelName, open_within, tokenizer_of
from flashrank_lite.ranker import Ranker

Pair = Sequence[str]


class FlagReranker:
    """FlagEmbedding's `FlagReranker`.

    Args:
        model_name_or_path: whatever `flashrank_lite.Ranker` takes, as "BAAI/bge-reranker-v2-m3".
        use_fp16: not used: the folder says what its graphs are.
        query_instruction_for_rerank, query_instruction_format: the query becomes
            `format.format(instruction, query)`.
        passage_instruction_for_rerank, passage_instruction_format: the same for passages.
        trust_remote_code, cache_dir: not used: no code is run, and the Hub's cache is.
        devices: "cpu", or "cuda" and the like for the GPU; None for the CPU.
        batch_size: not used: batches follow from a budget of tokens.
        query_max_length: tokens of a query; None for three quarters of `max_length`, which is the
            most.
        max_length: tokens of a pair; the model's own limit if smaller.
        normalize: give sigmoids, not logits.
        **options: further arguments of `flashrank_lite.Ranker`.

    Raises:
        FlashRankLiteError: as `flashrank_lite.Ranker` raises it.
    """

    def __init__(
        self,
        model_name_or_path: ModelName = None,
        use_fp16: bool = False,
        query_instruction_for_rerank: str | None = None,
        query_instruction_format: str = "{}{}",
        passage_instruction_for_rerank: str | None = None,
        passage_instruction_format: str = "{}{}",
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        devices: str | int | Sequence[str | int] | None = None,
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int = 512,
        normalize: bool = False,
        **options: Any,
    ) -> None:
        self._query = (query_instruction_format, query_instruction_for_rerank)
        self._passage = (passage_instruction_format, passage_instruction_for_rerank)
        self.query_max_length = query_max_length
        self.max_length = max_length
        self.normalize = normalize
        if devices is not None:
            options.setdefault("device", _device(devices))
        self._model, self._options = model_name_or_path, {**options, "activation": "raw"}
        self._rankers = {max_length: open_within(self._model, max_length, **self._options)}

    def compute_score(
        self,
        sentence_pairs: Pair | Sequence[Pair],
        batch_size: int | None = None,
        query_max_length: int | None = None,
        max_length: int | None = None,
        normalize: bool | None = None,
    ) -> float | list[float]:
        """Score one pair (a float) or several (a list, in their order).

        Args:
            sentence_pairs: (query, passage), or a list of those.
            batch_size: not used.
            query_max_length, max_length, normalize: None for the reranker's. Another `max_length`
                opens the model once more, and keeps it.

        Raises:
            InvalidInput: something is not a pair of texts.
        """
        single = len(sentence_pairs) == 2 and isinstance(sentence_pairs[0], str)
        pairs: list[Any] = [sentence_pairs] if single else list(sentence_pairs)
        for index, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2 or not isinstance(pair[0], str):
                raise InvalidInput(f"pair {index} is not a (query, passage) of texts: {pair!r:.80}")
        ranker = self._ranker(max_length or self.max_length)
        cap = query_max_length or self.query_max_length
        queries = [_instructed(*self._query, query) for query, _ in pairs]
        if cap is not None:
            queries = _capped(ranker, queries, cap)
        passages = [_instructed(*self._passage, passage) for _, passage in pairs]
        scores = ranker.score_pairs(zip(queries, passages, strict=True)).astype(np.float64)
        if self.normalize if normalize is None else normalize:
            scores = 1 / (1 + np.exp(-scores))
        return float(scores[0]) if single else [float(score) for score in scores]

    def _ranker(self, max_length: int) -> Ranker:
        if max_length not in self._rankers:
            self._rankers[max_length] = open_within(self._model, max_length, **self._options)
        return self._rankers[max_length]


def _instructed(form: str, instruction: str | None, text: str) -> str:
    return text if instruction is None else form.replace("\\n", "\n").format(instruction, text)


def _device(devices: str | int | Sequence[str | int]) -> str:
    if not isinstance(devices, (str, int)):
        if len(devices) != 1:
            raise InvalidInput(f"devices={devices!r}: one device at a time runs here, so pass one")
        devices = devices[0]
    return "cpu" if devices == "cpu" else "cuda"


def _capped(ranker: Ranker, queries: list[str], tokens: int) -> list[str]:
    """Each query up to its last token that is kept."""
    tokenizer = tokenizer_of(ranker)
    short = []
    for query in queries:
        offsets = tokenizer.encode(query, add_special_tokens=False).offsets
        short.append(query if len(offsets) <= tokens else query[: offsets[tokens - 1][1]])
    return short
