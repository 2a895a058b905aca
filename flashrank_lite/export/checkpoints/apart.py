"""Checkpoints that read query and passage apart: ColBERT's in three layouts, and embedding models.

ColBERT's (Khattab and Zaharia, 2020) are those of Stanford (`artifact.metadata`, and the projection
beside the weights), of PyLate (a `Dense`, and its keys in config_sentence_transformers.json) and of
sentence-transformers' `MultiVectorEncoder`. An embedding model becomes a scorer of cosines.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModel

from flashrank_lite.errors import InvalidModel, first_line
from flashrank_lite.export.checkpoints.classifiers import model_inputs
from flashrank_lite.export.checkpoints.heads import Dense, read_step
from flashrank_lite.export.checkpoints.library import apart
from flashrank_lite.export.checkpoints.loading import (
    MODULES,
    Checkpoint,
    as_source,
    list_modules,
    load_model,
)
from flashrank_lite.export.checkpoints.modular import Modular, model_settings, named_prompts
from flashrank_lite.export.source import Source
from flashrank_lite.models.late_head import Expansion, LateHead, Roles, Side
from flashrank_lite.models.manifest import read_json
from flashrank_lite.states.graph import STATES

_METADATA = "artifact.metadata"
_STANFORD = "HF_ColBERT"
_PASSAGE_PROMPTS = ("document", "passage", "corpus")  # in sentence-transformers' order
_QUERY_LENGTH, _PASSAGE_LENGTH = 32, 180  # ColBERT's own, where nothing is stated


@dataclass(frozen=True)
class Prompts:
    """Texts to put before queries and passages; None for what the checkpoint states."""

    query: str | None = None
    passage: str | None = None


AS_STATED = Prompts()


def is_late_interaction(checkpoint: Checkpoint) -> bool:
    """Whether a folder is ColBERT's, in any of the layouts."""
    stated = model_settings(checkpoint)
    return (
        checkpoint.architecture == _STANFORD
        or (checkpoint.folder / _METADATA).is_file()
        or stated.get("model_type") in ("ColBERT", "MultiVectorEncoder")
        or "query_length" in stated  # PyLate's before it named its type
    )


def is_embedding(checkpoint: Checkpoint) -> bool:
    """Whether a folder of modules ends in an embedding, and so in no score."""
    if not (checkpoint.folder / MODULES).is_file():
        return False
    kinds = [kind for kind, _ in list_modules(checkpoint.folder)]
    config = model_settings(checkpoint)
    named = config.get("model_type", "SentenceTransformer") == "SentenceTransformer"
    return named and kinds[0] == "Transformer" and "Pooling" in kinds[1:2]


def read_late_interaction(checkpoint: Checkpoint) -> Source:
    """A ColBERT checkpoint: a projected state a token, compared by MaxSim.

    Raises:
        InvalidModel: it lacks its projection, or has a module that is not known.
    """
    stated = model_settings(checkpoint)
    backbone = _backbone(checkpoint)
    inputs = model_inputs(checkpoint)
    if (checkpoint.folder / MODULES).is_file():
        steps, mask = _projections(checkpoint)
        roles = _roles(checkpoint, stated, mask)
    else:
        steps = [_stanford_projection(checkpoint)]
        roles = _stanford_roles(checkpoint)
    if not steps:
        raise _refused(checkpoint, "it has no projection (a Dense), which a ColBERT model ends in")
    module = TokenStates(Modular(backbone, inputs, steps))
    length = roles.passage.length or _PASSAGE_LENGTH
    return _source(
        *(checkpoint, module, inputs, roles),
        library="MultiVectorEncoder",
        max_length=min(length, checkpoint.positions or length),
    )


def read_embedding(checkpoint: Checkpoint, prompts: Prompts) -> Source:
    """An embedding model of sentence-transformers' layout, compared by the cosine.

    Raises:
        InvalidModel: it is none, compares by something else, or has a module that is not known.
    """
    if not is_embedding(checkpoint):
        raise _refused(
            checkpoint,
            f"with --as embedding it needs a {MODULES} with a Transformer and a Pooling, as "
            "sentence-transformers saves them, which says how tokens become one embedding",
        )
    stated = model_settings(checkpoint)
    _, *rest = list_modules(checkpoint.folder)
    similarity = stated.get("similarity_fn_name") or "cosine"
    normal = rest[-1][0] == "Normalize"
    if similarity != "cosine" and not (similarity == "dot" and normal):
        raise _refused(
            checkpoint, f"it compares by {similarity!r}, and only the cosine is supported"
        )
    pooling = read_json(rest[0][1] / "config.json") or {}
    if pooling.get("include_prompt") is False:
        raise _refused(checkpoint, "it leaves its prompt out of the pooling, which is not known")
    backbone = _backbone(checkpoint)
    inputs = model_inputs(checkpoint)
    steps = [read_step(kind, folder) for kind, folder in rest]
    module = Embedding(Modular(backbone, inputs, steps), stated.get("truncate_dim"))
    query, passage = _prompts(checkpoint, prompts)
    roles = Roles(Side(prompt=query), Side(prompt=passage), 0)
    return _source(*(checkpoint, module, inputs, roles), library="SentenceTransformer")


class TokenStates(torch.nn.Module):
    """Inputs of shape (n, tokens) → states (n, tokens, width)."""

    def __init__(self, modular: Modular) -> None:
        super().__init__()
        self.modular = modular

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.modular.features(*tensors)["token_embeddings"]


class Embedding(torch.nn.Module):
    """Inputs of shape (n, tokens) → the one state of each text, (n, 1, width)."""

    def __init__(self, modular: Modular, width: int | None) -> None:
        super().__init__()
        self.modular, self.width = modular, width

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        embedding = self.modular.features(*tensors)["sentence_embedding"]
        return embedding[:, : self.width].unsqueeze(1)


def _source(
    checkpoint: Checkpoint,
    module: torch.nn.Module,
    inputs: tuple[str, ...],
    roles: Roles,
    library: str,
    **more: Any,
) -> Source:
    with torch.inference_mode():
        ids = torch.arange(2, 9).unsqueeze(0) % checkpoint.config.vocab_size
        tensors = (ids if name == inputs[0] else torch.ones_like(ids) for name in inputs)
        width = module.eval()(*tensors).shape[-1]
    prompts = {"query": roles.query.prompt, "passage": roles.passage.prompt}
    return as_source(
        *(checkpoint, module, inputs),
        activation="raw",
        late=LateHead(roles=Roles(roles.query, roles.passage, width, roles.average)),
        outputs=(STATES,),
        library=apart(checkpoint, library, prompts),
        **more,
    )


def _backbone(checkpoint: Checkpoint) -> torch.nn.Module:
    backbone: torch.nn.Module = load_model(checkpoint, AutoModel, "backbone")
    if checkpoint.is_decoder:
        checkpoint.config.use_cache = False  # the model's own: what it kept would be traced
    return backbone


def _prompts(checkpoint: Checkpoint, given: Prompts) -> tuple[str, str]:
    """What stands before a query and a passage, as `encode_query` and `encode_document` choose."""
    default, named = named_prompts(checkpoint)
    passage = next((named[name] for name in _PASSAGE_PROMPTS if name in named), default)
    query = named.get("query", default)
    return (
        query if given.query is None else given.query,
        passage if given.passage is None else given.passage,
    )


def _projections(checkpoint: Checkpoint) -> tuple[list[torch.nn.Module], dict[str, Any]]:
    """The projections of the token states, and what the mask's settings say."""
    _, *rest = list_modules(checkpoint.folder)
    steps: list[torch.nn.Module] = []
    mask: dict[str, Any] = {}
    for kind, folder in rest:
        if kind == "Dense":
            steps.append(read_step(kind, folder, {"module_input_name": "token_embeddings"}))
        elif kind == "MultiVectorMask":
            mask = read_json(folder / "config.json") or {}
            if mask.get("keep_only_token_ids"):
                raise _refused(checkpoint, "it scores the tokens of images")
        elif kind not in ("Normalize", "Dropout"):  # states are brought to length 1 when compared
            raise _refused(checkpoint, f"its module {kind} is not one that ColBERT models have")
    stated = model_settings(checkpoint)
    kinds = {kind for kind, _ in rest}
    if stated.get("model_type") == "MultiVectorEncoder" and "Normalize" not in kinds:
        raise _refused(checkpoint, "it compares states as long as they are, without a Normalize")
    return steps, mask


def _roles(checkpoint: Checkpoint, stated: dict[str, Any], mask: dict[str, Any]) -> Roles:
    """What PyLate keeps in the model's configuration, and sentence-transformers in its modules'."""
    settings = checkpoint.settings
    native = stated.get("model_type") == "MultiVectorEncoder"
    query, passage = _prompts(checkpoint, AS_STATED)
    markers: list[int | None] = []
    for role, text in (("query", query), ("document", passage)):
        prefix = str(stated.get(f"{role}_prefix", "" if native else f"[{role[0].upper()}] ") or "")
        number = _token(checkpoint, prefix)
        markers.append(number)
        if number is None:  # not one token of this tokenizer: plain text
            text = prefix + text.removeprefix(prefix)
        query, passage = (text, passage) if role == "query" else (query, text)
    if native:
        filled = settings.get("query_expansion")
        length = (filled or {}).get("length") or settings.get("query_length")
        if filled and filled.get("strategy") == "min":
            length = settings.get("query_length") or checkpoint.length()
    else:
        length = stated.get("query_length") or _QUERY_LENGTH
        expanded = stated.get("do_query_expansion") is not False
        attend = stated.get("attend_to_expansion_tokens")
        filled = {"length": length, "attend": bool(attend)} if expanded else None
    skip = mask.get("skiplist_words") if mask else stated.get("skiplist_words")
    if skip is None:
        skip = [] if native else list(string.punctuation)
    skipped = _tokens(checkpoint, skip)
    tasks = mask.get("skiplist_tasks") or ["document"]
    tasks = [tasks] if isinstance(tasks, str) else tasks
    return Roles(
        Side(
            prompt=query,
            marker=markers[0],
            length=length,
            skip=skipped if "query" in tasks else (),
            expansion=_expansion(checkpoint, filled),
        ),
        Side(
            prompt=passage,
            marker=markers[1],
            length=(settings if native else stated).get("document_length")
            or (checkpoint.length() if native else _PASSAGE_LENGTH),
            skip=skipped if "document" in tasks else (),
        ),
        0,
        average=stated.get("similarity_fn_name") == "meanmaxsim",
    )


def _stanford_roles(checkpoint: Checkpoint) -> Roles:
    stated = read_json(checkpoint.folder / _METADATA) or {}
    markers = [
        _token(checkpoint, str(stated.get(f"{role}_token_id") or default))
        for role, default in (("query", "[unused0]"), ("doc", "[unused1]"))
    ]
    if None in markers:
        raise _refused(checkpoint, f"its tokenizer lacks the markers that {_METADATA} names")
    length = stated.get("query_maxlen") or _QUERY_LENGTH
    filled = {"length": length, "attend": bool(stated.get("attend_to_mask_tokens"))}
    punctuation = string.punctuation if stated.get("mask_punctuation", True) else ""
    return Roles(
        Side(
            marker=markers[0],
            length=length,
            expansion=_expansion(checkpoint, filled),
        ),
        Side(
            marker=markers[1],
            length=stated.get("doc_maxlen") or _PASSAGE_LENGTH,
            skip=_tokens(checkpoint, punctuation),
        ),
        0,
    )


def _expansion(checkpoint: Checkpoint, stated: dict[str, Any] | None) -> Expansion | None:
    if not stated:
        return None
    tokenizer = checkpoint.library_tokenizer
    named = stated.get("token")
    number = _token(checkpoint, named) if named else tokenizer.mask_token_id
    if number is None and not named:  # of a decoder
        number = tokenizer.eos_token_id
    if number is None:
        raise _refused(checkpoint, "its tokenizer has no token to expand queries with")
    return Expansion(number, int(stated["length"]), bool(stated.get("attend")))


def _token(checkpoint: Checkpoint, text: str) -> int | None:
    """The id of a marker, with or without the space after it; None if it is not one token."""
    vocabulary = checkpoint.library_tokenizer.get_vocab()
    words = [text, *text.split(None, 1)[:1]]
    return next((vocabulary[word] for word in words if word and word in vocabulary), None)


def _tokens(checkpoint: Checkpoint, words: Sequence[str]) -> tuple[int, ...]:
    """The ids of words that are one token; another one would stand for every unknown word."""
    tokenizer = checkpoint.library_tokenizer
    numbers = {tokenizer.convert_tokens_to_ids(word) for word in words}
    return tuple(sorted(numbers - {None, tokenizer.unk_token_id}))


def _stanford_projection(checkpoint: Checkpoint) -> torch.nn.Module:
    """The matrix `linear.weight`, which lies beside the weights of the backbone."""
    try:
        tensor = _tensor(checkpoint.folder, "linear.weight").float()
    except Exception as error:  # absent, cut short, unpickling refused
        raise _refused(
            checkpoint, f"its projection linear.weight cannot be read ({first_line(error)})"
        ) from error
    narrow, wide = tensor.shape
    sizes = {"in_features": wide, "out_features": narrow, "bias": False}
    dense = Dense({**sizes, "module_input_name": "token_embeddings"}, torch.nn.Identity())
    dense.linear.weight = torch.nn.Parameter(tensor)
    return dense


def _tensor(folder: Path, name: str) -> torch.Tensor:
    file = folder / "model.safetensors"
    if file.is_file():
        with safe_open(file, framework="pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(name)
            return found
    pickled = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    found = pickled[name]
    return found


def _refused(checkpoint: Checkpoint, problem: str) -> InvalidModel:
    return InvalidModel(f"{checkpoint.folder} cannot be exported: {problem}")
