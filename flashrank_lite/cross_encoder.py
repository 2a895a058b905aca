"""A model, opened: the scorer that reads query and passage together, and gives each pair a logit.

The bundled model is opened here too: it reads query and passage apart, as two inputs of one graph,
and compares them in the graph (late interaction), so from outside it is no different.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrank_lite import call as calls
from flashrank_lite.arguments import check_text, positive
from flashrank_lite.encoding.collate import Pair, check_inputs, pad
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.encoding.prompts import PromptEncoder, open_encoder
from flashrank_lite.errors import InvalidInput, RankerClosed
from flashrank_lite.languages import LanguageWatch
from flashrank_lite.logits import Head, choose_output, graph_activation, read_logits
from flashrank_lite.models.manifest import TOKENIZER, Manifest
from flashrank_lite.models.resolve import Model, resolve
from flashrank_lite.options import ModelOptions
from flashrank_lite.runtime.onnx_file import is_dynamic_int8, last_operator
from flashrank_lite.runtime.placement import open_sessions
from flashrank_lite.runtime.plan import BATCH_TOKENS, plan
from flashrank_lite.runtime.threads import resolve_threads
from flashrank_lite.runtime.workers import run_side_by_side
from flashrank_lite.scorer import Candidates, Scores

logger = logging.getLogger(__name__)

Encoder = PairEncoder | PromptEncoder


class CrossEncoder:
    """A model, found and opened.

    Args:
        model: as `Ranker` takes it: None for the bundled model, a folder, a name, "org/name".
        options: how it is opened.

    Raises:
        As `Ranker`.
    """

    def __init__(self, model: Model = None, options: ModelOptions | None = None) -> None:
        self._options = options = options or ModelOptions()
        self._batch_tokens = positive("batch_tokens", options.batch_tokens) or BATCH_TOKENS
        self._threads = resolve_threads(options.threads)
        self._model = found = resolve(
            model, revision=options.revision, file=options.file, token=options.token
        )
        manifest = found.manifest
        self._languages = LanguageWatch(manifest.name, found.languages)
        self._encoder: Encoder = open_encoder(
            found.folder / TOKENIZER,
            _max_length(options.max_length, manifest),
            manifest.template,
            token_types=manifest.token_types,
        )
        if options.instruction is not None:
            self._encoder = self._with_instruction(options.instruction)
        padding = manifest.padding
        self._pad_id = self._encoder.token_id(padding) or 0 if isinstance(padding, str) else padding
        file = found.folder / found.graph.file
        self._sessions, self._placement = open_sessions(
            file, self._threads.count, options.device, options.providers
        )
        check_inputs(self._sessions.inputs, file)
        self._output, head = choose_output(
            self._sessions.outputs, Head(manifest.head, manifest.relevant)
        )
        self._head = replace(
            head, graph_activation=graph_activation(last_operator(file, self._output))
        )
        # A manifest may declare a graph batch-dependent, but cannot override detection.
        self._invariant = not is_dynamic_int8(file) and found.graph.batch_invariant is not False
        # without a mask padding would be read as text
        masked = any(name.endswith("attention_mask") for name in self._sessions.inputs)
        self._alone = not self._invariant or not masked
        logger.debug("opened %s, %s", found.folder, found.graph.file)

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        """`Scorer.score`; lists share batches, and equal pairs are run once, so they tie exactly.

        Raises:
            RankerClosed: after `close`.
            InvalidInput: the instruction cannot be used.
            NonFiniteScores: the model gave NaN or infinite logits.
            CallCancelled: the call was cancelled.
        """
        with self._sessions.in_use():
            encoder = self._encoder
            if instruction is not None:
                encoder = self._with_instruction(instruction)
            for candidates in lists:
                self._languages.check([candidates.query, *candidates.texts])
            pairs = [(entry.query, text) for entry in lists for text in entry.texts]
            logits, truncated = self._score_pairs(pairs, encoder)
        scores, start = [], 0
        for candidates in lists:
            part = slice(start, start + len(candidates.texts))
            scores.append(Scores(logits[part], truncated[part]))
            start = part.stop
        return scores

    def room(self, query: str, *, instruction: str | None = None) -> int:
        """`TokenScorer.room`."""
        encoder = self._encoder if instruction is None else self._with_instruction(instruction)
        return encoder.room(query)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """`TokenScorer.token_spans`."""
        return self._encoder.token_spans(text)

    def info(self) -> dict[str, Any]:
        """What `Ranker.info` says of the model and of how it runs."""
        found, encoder = self._model, self._encoder
        return {
            "model": found.manifest.name,
            "path": str(found.folder),
            "source": found.source,
            "repository": found.repository,
            "revision": found.revision,
            "graph": found.graph.file,
            "graph_reason": found.graph.reason,
            "precision": found.graph.precision,
            "max_length": encoder.max_length,
            "instruction": encoder.instruction if isinstance(encoder, PromptEncoder) else None,
            "head": self._head.type or "decided by the first run",
            "graph_activation": self._head.graph_activation,
            # an output that is a probability stays what it is
            "activation": "sigmoid" if self._head.graph_activation else found.manifest.activation,
            "batch_tokens": self._batch_tokens,
            "workers": self._sessions.workers,
            "batch_invariant": self._invariant,
            "one_at_a_time": self._alone,
            "threads": self._threads.count,
            "threads_source": self._threads.source,
            "device": self._placement.device,
            "device_source": self._placement.source,
            "providers": list(self._sessions.providers),
        }

    def close(self) -> None:
        """Free the model; calls in flight finish first, later ones raise RankerClosed."""
        self._sessions.close()

    def __reduce__(self) -> tuple[Callable[..., "CrossEncoder"], tuple[Any, ...]]:
        """Opened anew where it is unpickled: the same model and graph, without the token.

        Another processor might choose another graph, which would give other scores.
        """
        if self._sessions.closed:
            raise RankerClosed("a closed ranker cannot be pickled: pickle it before it is closed")
        again = self._model.reload_arguments()
        options = replace(self._options, revision=again["revision"], file=again["file"], token=None)
        return CrossEncoder, (again["model"], options)

    def _score_pairs(
        self, pairs: list[tuple[str, str]], encoder: Encoder
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Logit and truncation of each pair, (n,)."""
        places: dict[tuple[str, str], int] = {}
        which = np.array([places.setdefault(pair, len(places)) for pair in pairs], np.intp)
        logits = np.empty(len(places), np.float32)
        truncated = np.empty(len(places), np.bool_)
        call, start = calls.current(), 0
        call.expect(len(places))
        for chunk in encoder.chunks(places):
            part = slice(start, start + len(chunk))
            self._run(chunk, logits[part], call)
            truncated[part] = [pair.truncated for pair in chunk]
            start += len(chunk)
        return logits[which], truncated[which]

    def _run(self, pairs: list[Pair], logits: NDArray[np.float32], call: calls.Call) -> None:
        """Put the logit of each pair into its place."""
        planned = plan(
            [len(pair.ids) for pair in pairs],
            budget=self._batch_tokens,
            workers=self._sessions.workers,
            alone=self._alone,
        )

        def run(rows: tuple[int, ...]) -> None:
            call.check()
            batch = [pairs[row] for row in rows]
            feeds = pad(
                batch, self._pad_id, self._sessions.inputs, self._model.manifest.padding_side
            )
            array = self._sessions.run(feeds, self._output, all_threads=planned.all_threads)
            logits[list(rows)] = read_logits(array, len(rows), self._output, self._head)
            call.advance(len(rows))

        run_side_by_side(run, planned.batches, planned.workers)

    def _with_instruction(self, instruction: str) -> PromptEncoder:
        check_text("instruction", instruction)
        if not isinstance(self._encoder, PromptEncoder) or self._encoder.instruction is None:
            raise InvalidInput(
                f"the model {self._model.manifest.name!r} takes no instruction: it was not trained "
                "to be told what to look for. Leave instruction out, or load a model that is, as "
                "those of the Qwen3-Reranker family"
            )
        return self._encoder.with_instruction(instruction)


def _max_length(requested: int | None, manifest: Manifest) -> int:
    length = positive("max_length", requested) or manifest.max_length
    if manifest.length_limit is not None and length > manifest.length_limit:
        raise InvalidInput(
            f"max_length={length} is more than the {manifest.length_limit} tokens that the "
            f"model {manifest.name!r} can take: pass {manifest.length_limit} or less"
        )
    return length
