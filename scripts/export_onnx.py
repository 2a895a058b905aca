"""Export a Hugging Face cross-encoder as a verified ONNX model folder: `flashrank-lite export`.

python scripts/export_onnx.py MODEL OUT [--precision fp32 int8] [--calibration texts.jsonl] ...
"""

import sys

from flashrank_lite.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
