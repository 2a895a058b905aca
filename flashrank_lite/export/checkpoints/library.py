"""A checkpoint as its own library scores it: the reference for everything between text and score.

sentence-transformers' `CrossEncoder` where it knows what to do with the folder. A bare decoder or
T5 with a prompt of ours it does not know: there transformers tokenises and runs the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def apart(
    checkpoint: Checkpoint, kind: str, prompts: Mapping[str, str]
) -> Callable[[int], Library]:
    """Opens a folder that reads query and passage apart, with a given length of a passage.

    Args:
        checkpoint: the folder.
        kind: of sentence-transformers' classes "MultiVectorEncoder" or "SentenceTransformer".
        prompts: what stands before a query and a passage.
    """
    return lambda max_length: _Apart(checkpoint, kind, prompts, max_length)


class _CrossEncoder:
    def __init__(
        self, checkpoint: Checkpoint, head: dict[str, Any], inputs: Sequence[str], max_length: int
    ) -> None:
        sentence_transformers = _sentence_transformers()
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


class _Apart:
    def __init__(
        self, checkpoint: Checkpoint, kind: str, prompts: Mapping[str, str], max_length: int
    ) -> None:
        sentence_transformers = _sentence_transformers()
        self.name = f"sentence-transformers {sentence_transformers.__version__}"
        with quietly():
            self._model = getattr(sentence_transformers, kind)(
                str(checkpoint.folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": torch.float32},
            )
        if kind == "MultiVectorEncoder":
            self._model[0].document_length = max_length
        else:
            self._model.max_seq_length = max_length
            # the markers of a ColBERT model are among its own prompts: those stay
            self._model.prompts = {"query": prompts["query"], "document": prompts["passage"]}

    def logit(self, query: str, passage: str) -> float:
        asked = self._model.encode_query([query], show_progress_bar=False)
        read = self._model.encode_document([passage], show_progress_bar=False)
        return float(self._model.similarity(asked, read)[0][0])

    def tokens(self, query: str, passage: str) -> list[str]:
        found: list[str] = []
        for text, task, names in (
            (query, "query", ["query"]),
            (passage, "document", ["document", "passage", "corpus"]),
        ):
            prompt = next((self._model.prompts[n] for n in names if n in self._model.prompts), None)
            features = self._model.preprocess([text], prompt=prompt, task=task)
            found += self._model.tokenizer.convert_ids_to_tokens(features["input_ids"][0])
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


def _sentence_transformers() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingExtra(
            f"the export is compared with sentence-transformers ({error})", "export"
        ) from error
    return sentence_transformers
