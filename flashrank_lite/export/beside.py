"""What lies beside the graphs of an exported folder: tokenizer, configuration, manifest, card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashrank_lite.export import fidelity
from flashrank_lite.export.card import CARD, is_foreign, model_card
from flashrank_lite.export.graph.weights import data_file
from flashrank_lite.export.source import Source
from flashrank_lite.files import copy_whole
from flashrank_lite.models.checksums import facts_of
from flashrank_lite.models.manifest import FORMAT, MANIFEST, TOKENIZER

CONFIG = "config.json"
UNTOLD = ("_name_or_path", "auto_map")  # where the checkpoint once lay, and its own code
Figures = Mapping[Any, Mapping[str, Any]]  # of each graph, by precision


def write_beside(
    folder: Path, source: Source, graphs: Mapping[Any, Sequence[Path]], figures: Figures
) -> None:
    """Write what goes with the graphs; each is a list of its files, the graph itself first."""
    config = {key: value for key, value in source.config.items() if key not in UNTOLD}
    config["pad_token_id"] = source.padding
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # Compact: a third smaller, and quicker to read.
    tokenizer = json.loads(source.tokenizer.read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    (folder / TOKENIZER).write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    variants = []
    for precision, (file, *data) in graphs.items():
        beside = {path.name: facts_of(path).to_dict() for path in data}
        variants.append(
            {
                "file": file.name,
                "precision": precision,
                **facts_of(file).to_dict(),
                **({"data": beside} if beside else {}),
                "batch_invariant": True,
                "requires": [],  # 7-bit weights are right, if not fast, on every processor
                "fidelity": figures.get(precision, {}),
            }
        )
    manifest = {
        "format": FORMAT,
        "name": source.name,
        "head": source.head or {"type": "logit"},
        "activation": source.activation,
        "max_length": source.max_length,
        "languages": list(source.languages),
        "license": source.license,
        "inputs": list(source.inputs),
        "padding_side": source.padding_side,
        **({"template": source.template.to_json()} if source.template else {}),
        **({"late_interaction": source.late.to_json()} if source.late else {}),
        "variants": variants,
        "files": {name: facts_of(folder / name).to_dict() for name in (TOKENIZER, CONFIG)},
    }
    for name, file in source.licences.items():
        shutil.copyfile(file, folder / name)
    report = fidelity.table({p: figures.get(p, {}) for p in graphs}) if figures else ""
    (folder / CARD).write_text(model_card(source, variants, report), encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def copy_into(finished: Path, out: Path, names: Iterable[str]) -> None:
    """Copy the files of a finished export into a folder, each in one step, the manifest last.

    A model card that somebody wrote stays.

    Args:
        finished: the files.
        out: the folder; made if there is none.
        names: of graphs, which go if they are of an earlier export.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(finished.iterdir(), key=lambda file: file.name == MANIFEST)
    graphs = {path.name for name in names for path in (Path(name), data_file(Path(name)))}
    for name in graphs - {file.name for file in files}:
        (out / name).unlink(missing_ok=True)
    for file in files:
        if file.name == CARD and is_foreign(out / CARD):
            continue
        copy_whole(file, out / file.name)
