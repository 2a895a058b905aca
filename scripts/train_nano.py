"""Train the bundled model "nano", end to end, and export it.

    python scripts/train_nano.py --data DIR --backbone DIR --work DIR \\
        --out flashrank_lite/models/nano

`--data` holds the training sets (`flashrank_lite/models/nano/README.md` names their public
sources), `--backbone` all-MiniLM-L6-v2 as Hugging Face files. `--work` keeps the teacher's
states and the checkpoints, so the same command resumes a training that was stopped. Training is
seeded, and every stage logs its losses.

On two cores without bf16 the defaults take about 2.5 hours; with `--device cuda` raise the steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from nano.calibration import calibrate
from nano.data import Corpus, load_corpus
from nano.mining import Candidates
from nano.model import NanoConfig, NanoRanker
from nano.release import release
from nano.stages import distil, rank
from nano.student import student_from_backbone
from nano.teacher import teacher_states

logger = logging.getLogger("train_nano")


def main() -> None:
    """Run every stage that is not done yet."""
    args = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    logger.info("settings: %s", json.dumps(vars(args), default=str))

    tokenizer = Tokenizer.from_file(str(args.backbone / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    corpus = load_corpus(args.data, tokenizer, seed=args.seed, limit=args.limit)
    logger.info(
        "%d texts, %d rows, %d dev rows, %d tokens",
        *(len(corpus.texts), len(corpus.rows), len(corpus.dev), len(corpus.ids)),
    )
    recipe = _recipe(args, corpus)
    teacher = teacher_states(corpus, args.backbone, args.work / "teacher", args.device)
    model: NanoRanker = student_from_backbone(
        args.backbone, corpus, NanoConfig(num_hidden_layers=len(args.layers)), args.layers
    )
    model.to(args.device)
    distil(
        *(model, corpus, teacher, args.work, recipe),
        steps=args.distil_steps,
        batch_tokens=args.distil_tokens,
        learning_rate=args.distil_rate,
        seed=args.seed,
    )
    candidates = Candidates(corpus, teacher, seed=args.seed)
    rank(
        *(model, corpus, teacher, candidates, args.work, recipe),
        steps=args.rank_steps,
        learning_rate=args.rank_rate,
    )
    model.to("cpu")
    logger.info("calibration: %s", json.dumps(calibrate(model, corpus, candidates)))
    release(
        model,
        corpus,
        args.backbone,
        args.out,
        evaluation={name: Path(file) for name, file in (e.split("=", 1) for e in args.evaluation)},
        seed=args.seed,
    )


def _recipe(args: argparse.Namespace, corpus: Corpus) -> str:
    """What a checkpoint depends on: a run goes on only from its own."""
    settings = {
        name: value
        for name, value in vars(args).items()
        if name.startswith(("distil", "rank")) or name in ("seed", "layers", "limit")
    }
    texts = hashlib.sha256(corpus.ids.tobytes()).hexdigest()[:16]
    weights = hashlib.sha256((args.backbone / "model.safetensors").read_bytes()).hexdigest()[:16]
    return json.dumps({**settings, "texts": texts, "backbone": weights}, sort_keys=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the training sets")
    add("--backbone", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    add("--work", type=Path, required=True, help="for the teacher's states and the checkpoints")
    add("--out", type=Path, required=True, help="the model folder to write")
    add("--evaluation", nargs="*", default=[], metavar="NAME=FILE", help="labelled JSONL lists")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, help="of torch, on the CPU")
    add("--seed", type=int, default=1)
    add("--limit", type=int, help="rows per training set at the most (for a smoke test)")
    add("--layers", type=int, nargs="+", default=[0, 2, 5], help="layers taken of the backbone")
    add("--distil-steps", type=int, default=4000)
    add("--distil-tokens", type=int, default=4096, help="tokens of a distilling step")
    add("--distil-rate", type=float, default=5e-4, help="peak learning rate")
    add("--rank-steps", type=int, default=600)
    add("--rank-rate", type=float, default=1.5e-4, help="peak learning rate")
    return parser.parse_args()


if __name__ == "__main__":
    main()
