"""A model, found and opened: what a scorer of any family holds."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flashrank_lite.arguments import positive
from flashrank_lite.call import Call
from flashrank_lite.encoding.collate import check_inputs
from flashrank_lite.encoding.prompts import open_encoder
from flashrank_lite.errors import InvalidInput, RankerClosed
from flashrank_lite.languages import LanguageWatch
from flashrank_lite.models.folder import ResolvedModel
from flashrank_lite.models.manifest import TOKENIZER, Manifest
from flashrank_lite.models.resolve import Model, resolve
from flashrank_lite.options import ModelOptions
from flashrank_lite.runtime.onnx_file import is_dynamic_int8
from flashrank_lite.runtime.placement import open_sessions
from flashrank_lite.runtime.plan import BATCH_TOKENS, plan
from flashrank_lite.runtime.threads import resolve_threads
from flashrank_lite.runtime.workers import run_side_by_side

logger = logging.getLogger(__name__)


class OpenedModel:
    """A model's tokenizer and sessions, ready to run.

    Args:
        model: as `Ranker` takes it, or found before.
        options: how it is opened.

    Attributes:
        found: the model on disk, and the graph that runs.
        file: the path of that graph.
        sessions: what runs it.
        encoder: makes token ids of texts.
        pad_id: what rows of a batch are padded with.
        batch_tokens: padded tokens of the batches that run at the same time.
        languages: says once that a text is in a language the model was not made for.
        invariant: whether a row's results are independent of the rows beside it.
        alone: every row is run by itself, so that results are independent of the rows beside it.

    Raises:
        As `Ranker`.
    """

    def __init__(self, model: Model | ResolvedModel, options: ModelOptions) -> None:
        self.options = options
        self.batch_tokens = positive("batch_tokens", options.batch_tokens) or BATCH_TOKENS
        self._threads = resolve_threads(options.threads)
        self.found = find(model, options)
        manifest = self.found.manifest
        self.languages = LanguageWatch(manifest.name, self.found.languages)
        self.encoder = open_encoder(
            self.found.folder / TOKENIZER,
            _max_length(options.max_length, manifest),
            manifest.template,
            token_types=manifest.token_types,
            roles=None if manifest.late is None else manifest.late.roles,
        )
        padding = manifest.padding
        self.pad_id = self.encoder.token_id(padding) or 0 if isinstance(padding, str) else padding
        self.file = self.found.folder / self.found.graph.file
        self.sessions, self._placement = open_sessions(
            self.file, self._threads.count, options.device, options.providers
        )
        check_inputs(self.sessions.inputs, self.file)
        # A manifest may declare a graph batch-dependent, but cannot override detection.
        self.invariant = (
            not is_dynamic_int8(self.file) and self.found.graph.batch_invariant is not False
        )
        # without a mask padding would be read as text
        masked = any(name.endswith("attention_mask") for name in self.sessions.inputs)
        self.alone = not self.invariant or not masked
        logger.debug("opened %s, %s", self.found.folder, self.found.graph.file)

    def run_in_batches(
        self, lengths: Sequence[int], run: Callable[[tuple[int, ...], bool], None], call: Call
    ) -> None:
        """Run rows in batches, side by side.

        Args:
            lengths: tokens of each row.
            run: runs a batch, in any thread, given the numbers of its rows and whether all threads
                may run it.
            call: is asked before each batch whether it was cancelled.

        Raises:
            CallCancelled: it was.
        """
        planned = plan(
            lengths, budget=self.batch_tokens, workers=self.sessions.workers, alone=self.alone
        )

        def one(batch: tuple[int, ...]) -> None:
            call.check()
            run(batch, planned.all_threads)

        run_side_by_side(one, planned.batches, planned.workers)

    def info(self, **own: Any) -> dict[str, Any]:
        """What `Ranker.info` says of the model and of how it runs, with the scorer's own facts."""
        found = self.found
        return {
            "model": found.manifest.name,
            "path": str(found.folder),
            "source": found.source,
            "repository": found.repository,
            "revision": found.revision,
            "graph": found.graph.file,
            "graph_reason": found.graph.reason,
            "precision": found.graph.precision,
            "max_length": self.encoder.max_length,
            **own,
            "batch_tokens": self.batch_tokens,
            "workers": self.sessions.workers,
            "batch_invariant": self.invariant,
            "one_at_a_time": self.alone,
            "threads": self._threads.count,
            "threads_source": self._threads.source,
            "device": self._placement.device,
            "device_source": self._placement.source,
            "providers": list(self.sessions.providers),
        }

    def reload_arguments(self) -> tuple[Model, ModelOptions]:
        """What opens the same model and graph in another process, without the token.

        Another processor might choose another graph, which would give other scores.

        Raises:
            RankerClosed: the sessions are closed.
        """
        if self.sessions.closed:
            raise RankerClosed("a closed ranker cannot be pickled: pickle it before it is closed")
        again = self.found.reload_arguments()
        options = replace(self.options, revision=again["revision"], file=again["file"], token=None)
        return again["model"], options


def find(model: Model | ResolvedModel, options: ModelOptions) -> ResolvedModel:
    """The model on disk; errors are those of `flashrank_lite.models.resolve.resolve`."""
    if isinstance(model, ResolvedModel):
        return model
    return resolve(model, revision=options.revision, file=options.file, token=options.token)


def no_instruction(opened: OpenedModel) -> InvalidInput:
    """The error for an instruction to a model that takes none."""
    return InvalidInput(
        f"the model {opened.found.manifest.name!r} takes no instruction: it was not trained to be "
        "told what to look for. Leave instruction out, or load a model that is, as those of the "
        "Qwen3-Reranker family"
    )


def _max_length(requested: int | None, manifest: Manifest) -> int:
    length = positive("max_length", requested) or manifest.max_length
    if manifest.length_limit is not None and length > manifest.length_limit:
        raise InvalidInput(
            f"max_length={length} is more than the {manifest.length_limit} tokens that the "
            f"model {manifest.name!r} can take: pass {manifest.length_limit} or less"
        )
    return length
