"""The scorer that reads query and passage together, and gives each pair a logit.

A graph that reads them apart, as two inputs, and compares them itself runs here too; one that gives
the states it compares is opened by `flashrank_lite.late_interaction`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite import call as calls
from flashrank_lite.arguments import check_text
from flashrank_lite.encoding.apart import ApartEncoder
from flashrank_lite.encoding.collate import Pair, pad
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.encoding.prompts import PromptEncoder
from flashrank_lite.errors import InvalidModel
from flashrank_lite.logits import Head, choose_output, graph_activation, read_logits
from flashrank_lite.models.folder import ResolvedModel
from flashrank_lite.models.resolve import Model
from flashrank_lite.opened import OpenedModel, no_instruction
from flashrank_lite.options import ModelOptions
from flashrank_lite.runtime.onnx_file import last_operator
from flashrank_lite.scorer import Candidates, Scores

Encoder = PairEncoder | PromptEncoder


class CrossEncoder:
    """A model, found and opened.

    Args:
        model: as `Ranker` takes it: None for the bundled model, a folder, a name, "org/name".
        options: how it is opened.

    Raises:
        As `Ranker`.
    """

    def __init__(
        self, model: Model | ResolvedModel = None, options: ModelOptions | None = None
    ) -> None:
        options = options or ModelOptions()
        self._opened = opened = OpenedModel(model, options)
        if isinstance(opened.encoder, ApartEncoder):
            raise InvalidModel(
                f"{opened.found.folder} reads query and passage apart: load it with Ranker"
            )
        self._encoder: Encoder = opened.encoder
        if options.instruction is not None:
            self._encoder = self._with_instruction(options.instruction)
        manifest = opened.found.manifest
        self._output, head = choose_output(
            opened.sessions.outputs, Head(manifest.head, manifest.relevant)
        )
        self._head = replace(
            head, graph_activation=graph_activation(last_operator(opened.file, self._output))
        )

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """`Scorer.score`; lists share batches, and equal pairs are run once, so they tie exactly.

        Raises:
            RankerClosed: after `close`.
            InvalidInput: the instruction cannot be used.
            NonFiniteScores: the model gave NaN or infinite logits.
            CallCancelled: the call was cancelled.
        """
        with self._opened.sessions.in_use():
            encoder = self._encoder
            if instruction is not None:
                encoder = self._with_instruction(instruction)
            for candidates in lists:
                self._opened.languages.check([candidates.query, *candidates.texts])
            pairs = [(entry.query, text) for entry in lists for text in entry.texts]
            logits, truncated, lengths, which = self._score_pairs(pairs, encoder)
        scores, start = [], 0
        for candidates in lists:
            part = slice(start, start + len(candidates.texts))
            own = which[part]
            tokens = int(lengths[np.unique(own)].sum())
            scores.append(Scores(logits[own], truncated[own], tokens=tokens))
            start = part.stop
        return scores

    def room(self, query: str, *, instruction: str | None = None) -> int:
        """`TokenScorer.room`."""
        encoder = self._encoder if instruction is None else self._with_instruction(instruction)
        with calls.current().tokenizing():
            return encoder.room(query)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """`TokenScorer.token_spans`."""
        with calls.current().tokenizing():
            return self._encoder.token_spans(text)

    def info(self) -> dict[str, Any]:
        """What `Ranker.info` says of the model and of how it runs."""
        encoder = self._encoder
        return self._opened.info(
            instruction=encoder.instruction if isinstance(encoder, PromptEncoder) else None,
            head=self._head.type or "decided by the first run",
            graph_activation=self._head.graph_activation,
            # an output that is a probability stays what it is
            activation="sigmoid"
            if self._head.graph_activation
            else self._opened.found.manifest.activation,
        )

    def close(self) -> None:
        """Free the model; calls in flight finish first, later ones raise RankerClosed."""
        self._opened.sessions.close()

    def __reduce__(self) -> tuple[Callable[..., "CrossEncoder"], tuple[Any, ...]]:
        """Opened anew where it is unpickled: the same model and graph, without the token."""
        return CrossEncoder, self._opened.reload_arguments()

    def _score_pairs(
        self, pairs: list[tuple[str, str]], encoder: Encoder
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64], NDArray[np.intp]]:
        """Logit, truncation and tokens of each distinct pair, and which of them each pair is."""
        places: dict[tuple[str, str], int] = {}
        which = np.array([places.setdefault(pair, len(places)) for pair in pairs], np.intp)
        logits = np.empty(len(places), np.float32)
        truncated = np.empty(len(places), np.bool_)
        lengths = np.empty(len(places), np.int64)
        call, start = calls.current(), 0
        call.expect(len(places))
        chunks = encoder.chunks(places)
        while True:
            with call.tokenizing():
                chunk = next(chunks, None)
            if chunk is None:
                return logits, truncated, lengths, which
            part = slice(start, start + len(chunk))
            self._run(chunk, logits[part], call)
            truncated[part] = [pair.truncated for pair in chunk]
            lengths[part] = [len(pair.ids) for pair in chunk]
            start += len(chunk)

    def _run(self, pairs: list[Pair], logits: NDArray[np.float32], call: calls.Call) -> None:
        """Put the logit of each pair into its place."""
        opened = self._opened

        def run(rows: tuple[int, ...], all_threads: bool) -> None:
            batch = [pairs[row] for row in rows]
            side = opened.found.manifest.padding_side
            feeds = pad(batch, opened.pad_id, opened.sessions.inputs, side)
            array = opened.sessions.run(feeds, self._output, all_threads=all_threads)
            logits[list(rows)] = read_logits(array, len(rows), self._output, self._head)
            call.advance(len(rows))

        opened.run_in_batches([len(pair.ids) for pair in pairs], run, call)

    def _with_instruction(self, instruction: str) -> PromptEncoder:
        check_text("instruction", instruction)
        if not isinstance(self._encoder, PromptEncoder) or self._encoder.instruction is None:
            raise no_instruction(self._opened)
        return self._encoder.with_instruction(instruction)
