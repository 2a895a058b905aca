"""The catalogue's times: 100 passages of 92 tokens on 2 cores, by the shape of the weights.

    python -m benchmarks.catalog_times --build [--shapes NAME ...]
    python -m benchmarks.catalog_times [--shapes NAME ...] [--write]

Speed does not depend on the values of the weights, so they are random and of the stated shape; the
graph is the fp32 one of the project's own exporter. The least of some rounds counts, and the
bundled model is measured beside each shape, so that a busy moment shows. `--write` puts what was
measured so far into the catalogue.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.texts import example_query, passages
from flashrank_lite import Ranker
from flashrank_lite.models.packages import bundled_folder

WORK = Path("build/benchmarks/catalog")
CATALOG = Path(__file__).parent.parent / "flashrank_lite" / "models" / "catalog.json"
BUNDLED = "nano"
THREADS = 2
PASSAGES = 100
ROUNDS = 5
LONG = 15.0  # seconds: no further round after so many
POSITIONS = 512
VOCABULARY = 30522

# Layers, width, heads, neurons of a feed-forward block. All have the bundled model's vocabulary.
BERT = {
    "TinyBERT-L2": (2, 128, 2, 512),
    "MiniLM-L2": (2, 384, 12, 1536),
    "MiniLM-L4": (4, 384, 12, 1536),
    "MiniLM-L6": (6, 384, 12, 1536),
    "MiniLM-L12": (12, 384, 12, 1536),
    "BERT-base": (12, 768, 12, 3072),
    "BERT-large": (24, 1024, 16, 4096),
}
DEBERTA = {
    "DeBERTa-xsmall": (12, 384, 6, 1536),
    "DeBERTa-base": (12, 768, 12, 3072),
}
MODERN_BERT = {
    "Ettin-17m": (7, 256, 4, 384),
    "Ettin-32m": (10, 384, 6, 576),
    "Ettin-68m": (19, 512, 8, 768),
    "ModernBERT-base": (22, 768, 12, 1152),
    "Ettin-400m": (28, 1024, 16, 2624),
}
SHAPES = (*BERT, *DEBERTA, *MODERN_BERT)


def main() -> None:
    """Build the graphs, or time them and print the catalogue's row of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES, metavar="NAME")
    parser.add_argument("--build", action="store_true", help="build the graphs and stop")
    parser.add_argument("--write", action="store_true", help="write the times into the catalogue")
    parser.add_argument("--work", type=Path, default=WORK, help="where graphs and times are kept")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.work.mkdir(parents=True, exist_ok=True)
    kept = args.work / "times.json"
    times: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for shape in args.shapes:
        if args.build:
            if not (args.work / shape / "model.onnx").exists():
                _build(shape, args.work / shape)
            continue
        times[shape] = _time(args.work / shape)
        kept.write_text(json.dumps(times, indent=1))
        row = ", ".join(f"{name} {value:,.2f}" for name, value in times[shape].items())
        logging.info("%s: %s", shape, row)
    if args.write:
        _write(times)


def _time(folder: Path) -> dict[str, float]:
    """Milliseconds of the shape and of the bundled model beside it."""
    query, texts = example_query(), passages("mixed", PASSAGES)
    with Ranker(threads=THREADS) as bundled, Ranker(folder, threads=THREADS) as ranker:
        spent: dict[str, list[float]] = {"milliseconds": [], "bundled": []}
        for name, one in (("bundled", bundled), ("milliseconds", ranker)):
            one.rank(query, texts[:10])
            while len(spent[name]) < ROUNDS and sum(spent[name]) < LONG * 1000:
                start = time.perf_counter()
                one.rank(query, texts)
                spent[name].append((time.perf_counter() - start) * 1000)
    found = {name: min(values) for name, values in spent.items()}
    return {**found, "times the bundled": found["milliseconds"] / found["bundled"]}


def _write(times: dict[str, dict[str, float]]) -> None:
    measured = {BUNDLED: round(min(row["bundled"] for row in times.values()))}
    measured |= {name: round(row["milliseconds"]) for name, row in times.items()}
    text = CATALOG.read_text(encoding="utf-8")
    found = f'"milliseconds": {json.dumps(measured)}'
    CATALOG.write_text(re.sub(r'"milliseconds": \{[^}]*\}', found, text, count=1), encoding="utf-8")


def _build(shape: str, folder: Path) -> None:
    """A checkpoint of random weights, and its fp32 graph."""
    import torch
    from transformers import AutoModelForSequenceClassification, BertTokenizerFast

    from flashrank_lite.export import export_folder, read_checkpoint

    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(_config(shape))  # type: ignore[no-untyped-call]
    checkpoint = folder.with_name(f"{shape}-checkpoint")
    model.eval().save_pretrained(checkpoint)
    # One tokenizer for all, so that all read as many tokens.
    file = str(bundled_folder() / "tokenizer.json")
    tokenizer = BertTokenizerFast(tokenizer_file=file, model_max_length=POSITIONS)
    tokenizer.save_pretrained(checkpoint)
    del model
    lists = [(example_query(), passages("short", 10))]
    export_folder(read_checkpoint(checkpoint), folder, lists, precisions=["fp32"])
    shutil.rmtree(checkpoint)


def _config(shape: str) -> Any:
    from transformers import BertConfig, DebertaV2Config, ModernBertConfig

    layers, width, heads, neurons = {**BERT, **DEBERTA, **MODERN_BERT}[shape]
    common: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": neurons,
        "vocab_size": VOCABULARY,
        "num_labels": 1,
        "max_position_embeddings": POSITIONS,
    }
    if shape in BERT:
        return BertConfig(**common)
    if shape in MODERN_BERT:
        special = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102}
        return ModernBertConfig(**common, **special, bos_token_id=101, eos_token_id=102)
    # as microsoft/deberta-v3-base has them
    relative = {"relative_attention": True, "position_buckets": 256, "pos_att_type": ["p2c", "c2p"]}
    more = {"norm_rel_ebd": "layer_norm", "share_att_key": True, "max_relative_positions": -1}
    return DebertaV2Config(**common, **relative, **more, position_biased_input=False)


if __name__ == "__main__":
    main()
