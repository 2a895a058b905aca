"""The small heads of sentence-transformers' modular rerankers, from JSON and tensors.

What a module does is written here: no code of theirs or of a repository is run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from flashrank_lite.errors import InvalidModel, first_line
from flashrank_lite.export.checkpoints.classifiers import last_state
from flashrank_lite.models.manifest import read_json

Features = dict[str, torch.Tensor]

_ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "Identity": torch.nn.Identity,
    "Tanh": torch.nn.Tanh,
    "ReLU": torch.nn.ReLU,
    "GELU": torch.nn.GELU,
    "SiLU": torch.nn.SiLU,
    "Sigmoid": torch.nn.Sigmoid,
}
# In the order in which sentence-transformers concatenates them, whatever the file's own order.
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_step(kind: str, folder: Path, default: dict[str, Any] | None = None) -> torch.nn.Module:
    """A module that takes and gives `Features`.

    Args:
        kind: the class in sentence-transformers.
        folder: where its configuration and weights lie.
        default: settings that count where the configuration has no others.

    Raises:
        InvalidModel: it is not one that rerankers are made of, or cannot be read.
    """
    config = {**(default or {}), **(read_json(folder / "config.json") or {})}
    try:
        if kind == "Pooling":
            return Pooling(_pooling_modes(config))
        if kind == "Dense":
            named = str(config.get("activation_function", "torch.nn.Tanh"))
            act = _ACTIVATIONS.get(named.rsplit(".", 1)[-1] if named.startswith("torch.") else "")
            if act is None:
                raise _refused(f"the activation {named} of {folder.name} is not known")
            return _load(Dense(config, act()), folder)
        if kind == "LayerNorm":
            return _load(LayerNorm(config["dimension"]), folder)
    except (KeyError, TypeError) as error:
        raise _refused(f"{folder.name}/config.json lacks {error}") from error
    if kind == "Normalize":
        return Normalize()
    if kind == "Dropout":
        return Nothing()
    raise _refused(f"its module {kind} is not one that rerankers are made of")


def _pooling_modes(config: dict[str, Any]) -> tuple[str, ...]:
    stated = config.get("pooling_mode")
    if stated is None:
        active = {key for key, on in config.items() if key.startswith("pooling_mode_") and on}
        known = [mode for key, mode in _LEGACY_POOLING.items() if key in active]
        stated = [*known, *sorted(active - set(_LEGACY_POOLING))] or "mean"
    modes = (stated,) if isinstance(stated, str) else tuple(stated)
    unknown = set(modes) - set(_LEGACY_POOLING.values())
    if unknown:
        raise _refused(f"its pooling {', '.join(sorted(unknown))} is not supported")
    return modes


def _load(module: torch.nn.Module, folder: Path) -> torch.nn.Module:
    tensors, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if tensors.is_file():
            state = load_file(tensors)
        else:
            state = torch.load(pickled, map_location="cpu", weights_only=True)
        module.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as error:  # absent, cut short, unpickling refused, other names or shapes
        line = first_line(error)
        raise InvalidModel(f"the weights in {folder} cannot be loaded ({line})") from error
    return module


class Pooling(torch.nn.Module):
    """Token embeddings → one embedding of the pair."""

    def __init__(self, modes: tuple[str, ...]) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, features: Features) -> Features:
        states, mask = features["token_embeddings"], features["attention_mask"]
        pooled = torch.cat([self._pool(mode, states, mask) for mode in self.modes], -1)
        return {**features, "sentence_embedding": pooled}

    def _pool(self, mode: str, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        wide = mask.unsqueeze(-1)
        if mode == "cls":
            return states[:, 0]
        if mode == "lasttoken":
            return last_state(states, mask)
        if mode == "max":
            return states.masked_fill(wide == 0, -3e38).max(1).values
        return (states * wide).sum(1) / wide.sum(1)


class Dense(torch.nn.Module):
    """A linear layer with its activation, read from and written to features by name."""

    def __init__(self, config: dict[str, Any], act: torch.nn.Module) -> None:
        super().__init__()
        wide, narrow = config["in_features"], config["out_features"]
        self.linear = torch.nn.Linear(wide, narrow, bias=config.get("bias", True))
        self.activation = act
        self.source = config.get("module_input_name") or "sentence_embedding"
        self.target = config.get("module_output_name") or self.source
        self.use_residual = bool(config.get("use_residual"))
        if self.use_residual and wide != narrow:
            self.residual = torch.nn.Linear(wide, narrow, bias=False)

    def forward(self, features: Features) -> Features:
        given = features[self.source]
        out = self.activation(self.linear(given))
        if self.use_residual:
            out = out + (self.residual(given) if hasattr(self, "residual") else given)
        return {**features, self.target: out}


class LayerNorm(torch.nn.Module):
    """Normalises the embedding."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(dimension)

    def forward(self, features: Features) -> Features:
        return {**features, "sentence_embedding": self.norm(features["sentence_embedding"])}


class Normalize(torch.nn.Module):
    """Scales the embedding to length 1."""

    def forward(self, features: Features) -> Features:
        unit = torch.nn.functional.normalize(features["sentence_embedding"], p=2.0, dim=1)
        return {**features, "sentence_embedding": unit}


class Nothing(torch.nn.Module):
    """Dropout, which does nothing once a model is trained."""

    def forward(self, features: Features) -> Features:
        return features


def _refused(problem: str) -> InvalidModel:
    return InvalidModel(
        f"{problem}. A modular reranker has a Transformer, then Pooling, Dense, LayerNorm, "
        "Normalize or Dropout up to the scores, or a LogitScore"
    )
