"""A checkpoint as its own library scores it: the reference for everything between text and score.

sentence-transformers' `CrossEncoder` where it knows what to do with the folder. A bare decoder or
T5 with a prompt of ours it does not know: there transformers tokenises and runs the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from flashrank_lite.encoding.template import FIELD, Template
from flashrank_lite.errors import MissingExtra
from flashrank_lite.export.checkpoints.loading import Checkpoint, quietly
from flashrank_lite.export.source import Library


def cross_encoder(
    checkpoint: Checkpoint, head: dict[str, Any], inputs: Sequence[str]
) -> Callable[[int], Library]:
    """Opens the folder as sentence-transformers does, with a given maximum length.

    Args:
        checkpoint: the folder.
        head: as in the manifest.
        inputs: the names of the model's inputs.
    """
    return lambda max_length: _CrossEncoder(checkpoint, head, inputs, max_length)


def prompted(
    checkpoint: Checkpoint, template: Template, logit: Callable[[], Callable[..., float]]
) -> Callable[[int], Library]:
    """Fills in a template and tokenises it with transformers, segment by segment.

    Args:
        checkpoint: the folder.
        template: the prompt.
        logit: loads the whole model; gives the logit of input ids, (1, tokens).
    """
    return lambda max_length: _Prompted(checkpoint, template, logit())


class _CrossEncoder:
    def __init__(
        self, checkpoint: Checkpoint, head: dict[str, Any], inputs: Sequence[str], max_length: int
    ) -> None:
        try:
            import sentence_transformers
        except ImportError as error:
            raise MissingExtra(
                f"the export is compared with sentence-transformers ({error})", "export"
            ) from error
        self.name = f"sentence-transformers {sentence_transformers.__version__}"
        self._relevant = head.get("relevant")
        processor: dict[str, Any] = {}
        if "token_type_ids" in inputs:
            # Some tokenizer classes leave token types out by default since transformers 5, which
            # the models were trained with.
            processor["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        with quietly():
            self._model = sentence_transformers.CrossEncoder(
                str(checkpoint.folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                max_length=max_length,
                activation_fn=torch.nn.Identity(),
                model_kwargs={"dtype": torch.float32},
                processor_kwargs=processor,
            )

    def logit(self, query: str, passage: str) -> float:
        logits = self._model.predict([(query, passage)], show_progress_bar=False)[0]
        if self._relevant is None:
            return float(logits)
        return float(logits[self._relevant] - logits[1 - self._relevant])

    def tokens(self, query: str, passage: str) -> list[str]:
        prompt = self._model.prompts.get(self._model.default_prompt_name)
        features = self._model.preprocess([(query, passage)], prompt=prompt)
        found: list[str] = self._model.tokenizer.convert_ids_to_tokens(features["input_ids"][0])
        return found


class _Prompted:
    def __init__(
        self, checkpoint: Checkpoint, template: Template, logit: Callable[..., float]
    ) -> None:
        import transformers

        self.name = f"transformers {transformers.__version__}"
        self._tokenizer, self._template, self._logit = (
            checkpoint.library_tokenizer,
            template,
            logit,
        )

    def logit(self, query: str, passage: str) -> float:
        with torch.inference_mode():
            return self._logit(torch.tensor([self._ids(query, passage)]))

    def tokens(self, query: str, passage: str) -> list[str]:
        found: list[str] = self._tokenizer.convert_ids_to_tokens(self._ids(query, passage))
        return found

    def _ids(self, query: str, passage: str) -> list[int]:
        values = {"query": query, "passage": passage, "instruction": self._template.instruction}
        return [
            number
            for segment in self._template.segments
            for number in self._tokenizer(
                FIELD.sub(lambda found: values[found[1]], segment), add_special_tokens=False
            )["input_ids"]
        ]
