"""What Hugging Face config files say of a cross-encoder, read for folders without reranker.json."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from flashrank_lite.errors import InvalidModel

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
# What fine-tuned rerankers and pair classifiers call their two classes.
_RELEVANT = frozenset(
    {"relevant", "positive", "yes", "true", "match", "related", "entailment", "duplicate"}
    | {"paraphrase", "equivalent", "similar", "supported", "supports", "answer"}
)
_IRRELEVANT = frozenset(
    {"irrelevant", "negative", "no", "false", "mismatch", "unrelated", "contradiction", "neutral"}
    | {"different", "dissimilar", "refuted", "refutes", "other", "none"}
)
_NOT = re.compile(r"(?:not|non|no|un)[_\- ]?(.+)")
_UNNAMED = re.compile(r"(?:label|class)?[_\- ]?[01]")  # LABEL_0 is transformers' default


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
    """Of two classes, the index of the one that means relevant, by their names.

    One name may be the other with "not_" or "non_" before it; some names have a known meaning;
    without names of its own ("LABEL_0") a model has the relevant class second, as transformers'
    examples do.

    Raises:
        InvalidModel: there are two names with a meaning that is not known here.
    """
    labels = config.get("id2label")
    names = dict(labels) if isinstance(labels, Mapping) else {}
    if len(names) != 2:
        return 1
    first, second = (str(names.get(k, names.get(str(k), ""))).strip().lower() for k in (0, 1))
    if _UNNAMED.fullmatch(first) and _UNNAMED.fullmatch(second):
        return 1
    for index, (name, other) in enumerate(((first, second), (second, first))):
        negated = _NOT.fullmatch(other)
        if negated and negated[1] == name:
            return index
    for known, index in ((_RELEVANT, 0), (_IRRELEVANT, 1)):
        if (first in known) != (second in known):
            return index if first in known else 1 - index
    raise InvalidModel(
        f"the model has the classes {first!r} and {second!r}, and nothing says which of them means "
        "relevant: export it with --relevant and the name of that class, or call them relevant and "
        "irrelevant under id2label in its config.json"
    )


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
