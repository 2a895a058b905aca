"""What Hugging Face config files say of a cross-encoder, read for folders without reranker.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

_UNSET_LENGTH = 1_000_000  # tokenizers write 1e30 for "no limit"
# model types whose position ids start after the padding id: the table's first rows are never used
_OFFSET_POSITIONS = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta"}
    | {"roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)
# decoders: as rerankers they were trained on a prompt, which no config states
_PROMPTED = frozenset(
    {"gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3"}
)
_RELEVANT = frozenset({"relevant", "positive", "yes", "true", "match", "related"})


def needs_prompt(config: Mapping[str, Any]) -> bool:
    """Whether the model is a decoder, whose scores mean nothing without its prompt."""
    return config.get("model_type") in _PROMPTED


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Tokens that the position table has room for, special tokens included; None if unstated."""
    positions = config.get("max_position_embeddings")
    if isinstance(positions, bool) or not isinstance(positions, int) or positions < 1:
        return None
    if config.get("model_type") in _OFFSET_POSITIONS:
        padding = config.get("pad_token_id")
        return positions - (padding if isinstance(padding, int) else 1) - 1
    return positions


def stated_length(tokenizer_config: Mapping[str, Any]) -> int | None:
    """The tokenizer's own maximum, None where it has none or only a placeholder."""
    length = tokenizer_config.get("model_max_length")
    if isinstance(length, bool) or not isinstance(length, (int, float)):
        return None
    return int(length) if 0 < length < _UNSET_LENGTH else None


def padding(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> int | str:
    """The padding token: its id, or its text where only the tokenizer's files name it."""
    number = config.get("pad_token_id")
    if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
        return number
    token = tokenizer_config.get("pad_token")
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else "[PAD]"


def activation(config: Mapping[str, Any]) -> Literal["sigmoid", "raw"]:
    """What sentence-transformers would apply: "raw" if the config says Identity, else "sigmoid"."""
    section = config.get("sentence_transformers")
    named = section.get("activation_fn") if isinstance(section, Mapping) else None
    named = named or config.get("sbert_ce_default_activation_function") or ""
    return "raw" if str(named).rsplit(".", 1)[-1] == "Identity" else "sigmoid"


def relevant_class(config: Mapping[str, Any]) -> int:
    """Of two classes, the index of the one that means relevant: by its label, otherwise 1."""
    labels = config.get("id2label")
    if not isinstance(labels, Mapping):
        return 1
    named = [number for number, label in labels.items() if str(label).lower() in _RELEVANT]
    return 0 if len(named) == 1 and str(named[0]) == "0" else 1


def token_types(tokenizer_config: Mapping[str, Any]) -> bool:
    """Whether token_type_ids tell the passage from the query.

    False if `model_input_names` lists the inputs and token_type_ids is not one: the model was
    trained without them, even if its graph declares that input (transformers, too, leaves it out).
    """
    names = tokenizer_config.get("model_input_names")
    return not isinstance(names, list) or not names or "token_type_ids" in names


def precision_of(graph: str) -> str:
    """The precision that a file name tells, "unknown" if it tells none."""
    name = Path(graph).stem.lower()
    for precision, marks in (
        ("int4", ("int4", "q4", "bnb4")),
        ("int8", ("int8", "quantized")),  # qint8, quint8 and uint8 among them
        ("fp16", ("fp16", "float16", "model_o4")),
    ):
        if any(mark in name for mark in marks):
            return precision
    if name.endswith("_q"):  # FlashRank's
        return "int8"
    exact = ("model", "model_optimized", "model_o1", "model_o2", "model_o3")
    return "fp32" if name in exact else "unknown"
