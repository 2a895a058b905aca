"""The bundled model read apart: every text once, and any number of queries over it in numpy.

The bundled graph encodes query and passage without looking at each other and compares their token
states, so a text that stands in many lists (or in one long document) need be encoded only once.
That makes experiments over thousands of pairs minutes instead of hours. `check` compares its logits
with the product's before any of them is used.

Needs `onnx`, to cut the graph where the states come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

import flashrank_lite
from flashrank_lite import Ranker
from flashrank_lite.states.graph import PASSAGE_STATES, QUERY_STATES, QUERY_WEIGHTS

FOLDER = Path(flashrank_lite.__file__).parent / "models" / "nano"
PASSAGE_TOKENS = 496  # of a passage beside a query of up to 13 tokens, where pairs are cut at 512
BATCH = 1024  # padded tokens


@dataclass(frozen=True, slots=True)
class Query:
    """A query as the model reads it: ids, states of unit length, mean state, weights of words."""

    ids: NDArray[np.int64]
    states: NDArray[np.float32]
    mean: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage (or a window of one) likewise; `mean` is not of unit length."""

    ids: NDArray[np.int64]
    states: NDArray[np.float32]
    mean: NDArray[np.float32]


class LateStates:
    """Both halves of the bundled graph, and its head in numpy.

    Args:
        threads: of onnxruntime.
    """

    def __init__(self, threads: int = 1) -> None:
        import onnx
        from onnx import numpy_helper
        from onnx.utils import Extractor

        model = onnx.load(FOLDER / "model_int8.onnx")
        constants = {entry.name: entry for entry in model.graph.initializer}
        self._linear = numpy_helper.to_array(constants["head.linear.weight"]).ravel()
        self._bias = float(numpy_helper.to_array(constants["head.linear.bias"]).ravel()[0])
        cut = Extractor(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads

        def session(side: str, outputs: list[str]) -> onnxruntime.InferenceSession:
            part = cut.extract_model([f"{side}_input_ids", f"{side}_attention_mask"], outputs)
            return onnxruntime.InferenceSession(part.SerializeToString(), options)

        self._passages = session("passage", [PASSAGE_STATES])
        self._queries = session("query", [QUERY_STATES, QUERY_WEIGHTS])
        self.tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._first, self._end = (self.tokenizer.token_to_id(t) for t in ("[CLS]", "[SEP]"))

    def query(self, text: str) -> Query:
        """Encode a query."""
        words = self.tokenizer.encode(text, add_special_tokens=False).ids
        ids = np.array([[self._first, *words, self._end]], np.int64)
        feeds = {"query_input_ids": ids, "query_attention_mask": np.ones_like(ids)}
        states, weights = self._queries.run(None, feeds)
        unit = states[0] / np.linalg.norm(states[0], axis=1, keepdims=True)
        mean = states[0].mean(axis=0)
        return Query(ids[0], unit, mean / np.linalg.norm(mean), weights[0])

    def passages(self, texts: Sequence[str], tokens: int = PASSAGE_TOKENS) -> Iterator[Passage]:
        """Encode texts, each cut at so many tokens; in their order."""
        rows = [
            np.array(
                [*self.tokenizer.encode(text, add_special_tokens=False).ids[:tokens], self._end],
                np.int64,
            )
            for text in texts
        ]
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        encoded: dict[int, Passage] = {}
        while order:
            longest = len(rows[order[0]])
            batch, order = order[: max(1, BATCH // longest)], order[max(1, BATCH // longest) :]
            ids = np.zeros((len(batch), longest), np.int64)
            mask = np.zeros_like(ids)
            for place, row in enumerate(batch):
                ids[place, : len(rows[row])] = rows[row]
                mask[place, : len(rows[row])] = 1
            feeds = {"passage_input_ids": ids, "passage_attention_mask": mask}
            for row, states in zip(batch, self._passages.run(None, feeds)[0], strict=True):
                states = states[: len(rows[row])]
                unit = states / np.linalg.norm(states, axis=1, keepdims=True)
                encoded[row] = Passage(rows[row], unit, states.mean(axis=0))
        return (encoded[row] for row in range(len(rows)))

    def logit(self, query: Query, passage: Passage) -> float:
        """What the graph says of the pair."""
        best = (query.states @ passage.states.T).max(axis=1)
        exact = np.isin(query.ids, passage.ids)
        cosine = query.mean @ passage.mean / np.linalg.norm(passage.mean)
        features = (best @ query.weights[:, 0], cosine, exact @ query.weights[:, 1])
        return float(self._linear @ np.array(features, np.float32) + self._bias)

    def features(
        self, queries: Sequence[Query], passage: Passage
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        """What the head reads of one passage for all queries, whose words lie one after another.

        Returns:
            The best match of each word, whether it stands in the passage, and of each query the
            cosine of the means. `combine` makes logits of them.
        """
        words = np.concatenate([query.states for query in queries])
        ids = np.concatenate([query.ids for query in queries])
        means = np.stack([query.mean for query in queries])
        best = (words @ passage.states.T).max(axis=1)
        cosine = means @ passage.mean / np.linalg.norm(passage.mean)
        return best, np.isin(ids, passage.ids), cosine

    def combine(
        self,
        queries: Sequence[Query],
        best: NDArray[np.float32],
        exact: NDArray[np.bool_],
        cosine: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """One logit a query out of `features`."""
        weights = np.concatenate([query.weights for query in queries])
        starts = np.cumsum([0, *(len(query.ids) for query in queries[:-1])])
        matched = np.add.reduceat(best * weights[:, 0], starts)
        shared = np.add.reduceat(exact * weights[:, 1], starts)
        return np.stack([matched, cosine, shared], axis=1) @ self._linear + self._bias

    def check(self, query: str, texts: Sequence[str]) -> float:
        """The largest difference of its logits and the product's; raises beyond 0.05.

        Of the texts the first thousand characters, which neither cuts.
        """
        texts = [text[:1000] for text in texts]
        encoded = self.query(query)
        ours = np.array([self.logit(encoded, passage) for passage in self.passages(texts)])
        with Ranker(activation="raw") as ranker:
            apart = float(np.abs(ours - ranker.score(query, texts)).max())
        if apart > 0.05:
            raise RuntimeError(f"the bundled graph says {apart:.3f} otherwise: was it changed?")
        return apart
