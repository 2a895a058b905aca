"""Model folders of stand-in files, to be read and not run."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from flashrank_lite.models import manifest


def facts(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def folder_with(folder: Path, **changes: Any) -> Path:
    """A folder of stand-in files with a right manifest, but for `changes` (None removes a key)."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(b"a graph")
    (folder / "tokenizer.json").write_text("{}")
    manifest = {
        "format": 1,
        "name": "toy",
        "head": {"type": "logit"},
        "activation": "raw",
        "max_length": 128,
        "languages": ["en", "de"],
        "license": "mit",
        "variants": [
            {
                "file": "model.onnx",
                "precision": "fp32",
                "batch_invariant": True,
                **facts(folder / "model.onnx"),
            },
            {"file": "not-there.onnx", "precision": "fp16", "size": 1, "sha256": "0"},
        ],
        "files": {"tokenizer.json": facts(folder / "tokenizer.json")},
    } | changes
    kept = {key: value for key, value in manifest.items() if value is not None}
    (folder / "reranker.json").write_text(json.dumps(kept))
    return folder


def hf_folder(folder: Path, config: dict[str, Any] | None, *graphs: str, **tokenizer: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for graph in graphs or ("model.onnx",):
        (folder / graph).parent.mkdir(exist_ok=True)
        (folder / graph).touch()
    (folder / "tokenizer.json").write_text("{}")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if tokenizer:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def manifest_keys(folder: Path) -> set[str]:
    """The keys of a folder's reranker.json, and of each graph in it."""
    written = json.loads((folder / "reranker.json").read_text(encoding="utf-8"))
    return written.keys() | {key for variant in written["variants"] for key in variant}


def documented(*keys: str) -> set[str]:
    """Of `keys`, those that the description of reranker.json explains."""
    text = (manifest.__doc__ or "").split("Format 1", 1)[1]
    lines = [line.strip() for line in text.splitlines()]
    starts = [re.match(r"[\w, ]+(?=:)|\w+", line) for line in lines]
    words = {word for start in starts if start for word in re.findall(r"\w+", start[0])}
    return words & {*keys}
