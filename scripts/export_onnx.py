"""Export a Hugging Face cross-encoder folder as a verified ONNX model folder.

    python scripts/export_onnx.py MODEL OUT --texts lists.jsonl [--precision int8 fp32]

``--texts`` holds real candidate lists, one JSON object a line: ``{"query": ..., "candidates":
[{"id": ..., "text": ..., "label": ...}]}``. The int8 graph is calibrated on them, and every graph
compared on them; where they have labels, nDCG@10 is measured too.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from flashrank_lite.errors import FlashRankLiteError
from flashrank_lite.evaluation import read_candidate_lists
from flashrank_lite.export import export_folder, read_checkpoint


def main() -> int:
    """Run the export; 1 with one line on standard error where it fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint folder")
    parser.add_argument("out", type=Path, help="model folder to write")
    parser.add_argument("--texts", type=Path, required=True, help="candidate lists, JSONL")
    parser.add_argument(
        "--precision", nargs="+", choices=("int8", "fp32"), default=["int8", "fp32"]
    )
    parser.add_argument("--max-length", type=int, help="tokens of a pair")
    parser.add_argument("--table-bits", type=int, choices=(4, 8), default=8)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        lists = read_candidate_lists(args.texts)
        labelled = any(label > 0 for c in lists for label in c.labels)
        export_folder(
            read_checkpoint(args.model, max_length=args.max_length),
            args.out,
            [(c.query, c.texts) for c in lists],
            precisions=args.precision,
            table_bits=args.table_bits,
            evaluation={args.texts.stem: lists} if labelled else None,
        )
    except (FlashRankLiteError, OSError) as error:
        print("export_onnx:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
