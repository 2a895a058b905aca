"""CrossEncoder of sentence-transformers: `from flashrank_lite.integrations.sentence_transformers
import CrossEncoder`.

For models that give one relevance score a pair. The activation is the model's own (a sigmoid
unless its configuration says otherwise), or `activation_fn`. Queries are kept whole and passages
cut, where sentence-transformers cuts whichever is longer.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flashrank_lite.errors import InvalidInput
from flashrank_lite.integrations.opening import ModelName, need, open_within
from flashrank_lite.logits import activate

Activation = Callable[[Any], Any] | None
Pair = Sequence[str]


class CrossEncoder:
    """sentence-transformers' `CrossEncoder`.

    Args:
        model_name_or_path: whatever `flashrank_lite.Ranker` takes; None for the bundled model.
        device: "cpu", "cuda" or "cuda:0"; None for the CPU.
        cache_folder, trust_remote_code, local_files_only, model_kwargs, processor_kwargs,
            config_kwargs, backend, num_labels: not used: no torch model is built. Set
            HF_HUB_CACHE and HF_HUB_OFFLINE for the first and the third.
        revision, token: of a model on the Hub.
        max_length: tokens of a pair; the model's own limit if smaller.
        activation_fn: a function of the logits: torch.nn.Sigmoid(), torch.nn.Identity(), or one
            of a numpy array; None for the model's.
        **options: further arguments of `flashrank_lite.Ranker`.

    Raises:
        FlashRankLiteError: as `flashrank_lite.Ranker` raises it.
    """

    num_labels = 1

    def __init__(
        self,
        model_name_or_path: ModelName = None,
        *,
        device: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: Literal["torch", "onnx", "openvino"] = "onnx",
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Activation = None,
        **options: Any,
    ) -> None:
        if num_labels not in (None, 1):
            raise InvalidInput(
                f"num_labels={num_labels}: only models with one relevance score run here; "
                "use sentence-transformers itself for classifiers"
            )
        if device is not None:
            options.setdefault("device", "cuda" if device.startswith("cuda") else device)
        self.ranker = open_within(
            model_name_or_path, max_length, revision=revision, token=token, **options
        )
        self._sigmoid = self.ranker.info()["activation"] == "sigmoid"
        self.activation_fn = activation_fn

    @property
    def max_length(self) -> int:
        """Tokens of a pair at most, special ones included."""
        length: int = self.ranker.info()["max_length"]
        return length

    def predict(
        self,
        inputs: Pair | Sequence[Pair],
        prompt_name: None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Any:
        """Score one (query, passage) pair, or several in their order.

        Args:
            inputs: a pair, or a list of pairs.
            prompt_name: not used.
            prompt: the instruction, for models that take one.
            batch_size, apply_softmax: not used.
            show_progress_bar: draw one on standard error.
            activation_fn: None for that of the model.
            convert_to_numpy: False for a list of floats.
            convert_to_tensor: a torch tensor instead, if torch is installed.

        Returns:
            float32, (n,); a single number for a single pair.

        Raises:
            InvalidInput: the inputs are not pairs of texts.
            MissingExtra: a tensor is asked for without torch.
        """
        single = len(inputs) == 2 and isinstance(inputs[0], str)
        pairs: list[Any] = [inputs] if single else list(inputs)
        for index, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2:
                raise InvalidInput(f"input {index} is not a (query, passage) pair: {pair!r:.80}")
        logits = self.ranker.score_pairs(
            pairs, instruction=prompt, activation="raw", progress=bool(show_progress_bar)
        )
        scores = self._activated(logits, activation_fn or self.activation_fn)
        if convert_to_tensor:
            tensor = need("torch", "export").from_numpy(scores)
            return tensor[0] if single else tensor
        found: Any = scores if convert_to_numpy else scores.tolist()
        return found[0] if single else found

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation = None,
    ) -> list[dict[str, Any]]:
        """The documents of a query, best first: {"corpus_id", "score"}, and "text" if asked for.

        Arguments and errors as for `predict`; `top_k` None for all.
        """
        if isinstance(documents, str):
            raise InvalidInput("documents is a single str: wrap it in a list, [document]")
        documents = list(documents)
        scores = self.predict(
            [(query, document) for document in documents],
            prompt=prompt,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
        )
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [
            {"corpus_id": int(row), "score": float(scores[row])}
            | ({"text": documents[row]} if return_documents else {})
            for row in order
        ]

    def _activated(self, logits: NDArray[np.float32], function: Activation) -> NDArray[np.float32]:
        kind = type(function).__name__
        if function is None or kind in ("Sigmoid", "Identity"):  # of torch.nn, without torch
            sigmoid = self._sigmoid if function is None else kind == "Sigmoid"
            return activate(logits, "sigmoid" if sigmoid else "raw")
        return np.asarray(function(logits), np.float32)
