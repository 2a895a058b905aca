"""Train the bundled model "nano", or its larger sibling "small", end to end, and export it.

    python scripts/train_nano.py --data DIR --backbone DIR --bge DIR --e5 DIR --work DIR \\
        --out flashrank_lite/models/nano
    python scripts/train_nano.py --student small --frozen 8 ... --out packages/small/...

`--data` holds the training sets (`flashrank_lite/models/nano/README.md` names their public
sources), `--backbone`, `--bge` and `--e5` the teachers all-MiniLM-L6-v2, bge-small-en-v1.5 and
e5-small-v2 as Hugging Face files; without the last two, all-MiniLM-L6-v2 teaches alone. nano is cut
from the first, small from the second.

`--work` keeps what no student changes (the teachers' states, the mined lists and their scores) and
the checkpoints, so the same command resumes a training that was stopped, and a larger choice of
texts (`--rows`, `--web-queries`, `--web-passages`) adds to what a smaller one computed. Training is
seeded, and every stage logs its losses.

The same command trains on a GPU with `--device cuda`; bf16 is used where the processor has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from nano.calibration import calibrate
from nano.data import DEV_PER_SOURCE, Corpus, Size, load_corpus
from nano.ensemble import Ensemble, inverse_document_frequency
from nano.lists import Lists
from nano.model import NANO, SMALL, NanoRanker
from nano.release import release
from nano.shipped import shipped_weights
from nano.stages import Reader, distil, held_out, rank
from nano.student import student_from_backbone
from nano.teacher import Teacher, prefixes_of, read_texts

logger = logging.getLogger("train_nano")
GENTLE = {"small": 2e-5, "nano": 1.5e-4}  # peak learning rate of the ranking stage


def main() -> None:
    """Run every stage that is not done yet."""
    args = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    run = args.work / (args.run or args.student)
    run.mkdir(parents=True, exist_ok=True)
    logger.info("settings: %s", json.dumps(vars(args), default=str))

    corpus = _corpus(args)
    logger.info(
        "%d texts, %d rows, %d dev rows, %d tokens",
        *(len(corpus.texts), len(corpus.rows), len(corpus.dev), len(corpus.ids)),
    )
    teachers = _teachers(args, corpus)
    device = torch.device(args.device)
    idf = inverse_document_frequency(corpus, NANO.vocab_size).to(device)
    lists = Lists(
        corpus, Ensemble(corpus, teachers, idf, device), args.work / "lists", seed=args.seed
    )
    if args.prepare:
        lists.prepare(args.prepare)
        return
    model = _student(args, corpus, run)
    model.to(device)
    recipe = _recipe(args, corpus)
    if args.distil_steps:
        distil(
            *(model, corpus, teachers["minilm" if args.student == "nano" else "bge"], run, recipe),
            steps=args.distil_steps,
            batch_tokens=args.distil_tokens,
            learning_rate=args.distil_rate,
            seed=args.seed,
        )
    reader = Reader(model, corpus, teachers["bge"] if args.frozen else None, args.frozen)
    if args.rank_steps:
        rank(
            *(model, reader, lists, run, recipe),
            steps=args.rank_steps,
            groups=args.rank_groups,
            pool=args.rank_pool,
            learning_rate=args.rank_rate or GENTLE[args.student],
            check_every=args.check_every,
            check_groups=args.check_groups,
            seed=args.seed,
        )
    whole = Reader(model, corpus)  # as it ships: what the teachers kept stands in no more
    logger.info("held out: %s", json.dumps(held_out(model, reader, lists, args.check_groups)))
    logger.info("calibration: %s", json.dumps(calibrate(model, whole, lists)))
    model.to("cpu")
    release(
        model,
        corpus,
        args.backbone,
        args.out,
        name=args.student,
        evaluation={name: Path(file) for name, file in (e.split("=", 1) for e in args.evaluation)},
        seed=args.seed,
    )


def _corpus(args: argparse.Namespace) -> Corpus:
    """Read and tokenise the texts, or take them as an earlier run of this choice left them."""
    size = Size(args.rows, args.dev, args.web_queries, args.web_passages)
    here = Path(__file__).parent / "nano"
    code = [(here / name).read_bytes() for name in ("data.py", "web.py")]
    files = sorted((str(f), f.stat().st_size) for f in args.data.rglob("*") if f.is_file())
    choice = repr((files, args.seed, args.limit, size, code))
    file = args.work / f"corpus-{hashlib.sha256(choice.encode()).hexdigest()[:12]}.pickle"
    if file.exists():
        found: Corpus = pickle.loads(file.read_bytes())
        return found
    tokenizer = Tokenizer.from_file(str(args.backbone / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    corpus = load_corpus(args.data, tokenizer, seed=args.seed, limit=args.limit, size=size)
    file.write_bytes(pickle.dumps(corpus))
    return corpus


def _teachers(args: argparse.Namespace, corpus: Corpus) -> dict[str, Teacher]:
    cache, found = args.work / "teachers", {}
    if args.bge:
        lower = args.lower or None
        found["bge"] = read_texts(corpus, args.bge, cache / "bge", args.device, lower=lower)
    if args.e5:
        prefixes = prefixes_of(args.e5)
        found["e5"] = read_texts(
            corpus, args.e5, cache / "e5", args.device, mean=True, prefixes=prefixes
        )
    found["minilm"] = read_texts(corpus, args.backbone, cache / "minilm", args.device)
    return found


def _student(args: argparse.Namespace, corpus: Corpus, run: Path) -> NanoRanker:
    if args.student == "small":
        if not args.bge:
            raise SystemExit("small is made of bge-small-en-v1.5: name its folder with --bge")
        layers = json.loads((args.bge / "config.json").read_text())["num_hidden_layers"]
        if args.frozen not in (0, args.lower, layers):
            raise SystemExit(
                f"--frozen is 0, {args.lower} (--lower) or {layers} (all): those states are kept"
            )
        config = replace(SMALL, num_hidden_layers=layers)
        model = student_from_backbone(args.bge, corpus, config, range(layers))
        model.fake_quantise = False  # its words keep 8 bits
    else:
        if args.frozen:
            raise SystemExit("--frozen is for small: no teacher keeps the states of nano's layers")
        model = student_from_backbone(args.backbone, corpus, NANO, args.layers)
    if args.start:
        if args.start.is_dir():
            model.load_state_dict(shipped_weights(args.start, model.config))
        else:
            kept = torch.load(args.start, weights_only=True, map_location="cpu")
            model.load_state_dict(kept["model"])
        logger.info("starting from %s", args.start)
    return model


def _recipe(args: argparse.Namespace, corpus: Corpus) -> str:
    """What a checkpoint depends on: a run goes on only from its own."""
    settings = {
        name: value
        for name, value in vars(args).items()
        if name.startswith(("distil", "rank")) or name in ("seed", "layers", "limit", "frozen")
    }
    texts = hashlib.sha256(corpus.ids.tobytes()).hexdigest()[:16]
    weights = {
        name: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for name, file in (
            ("backbone", args.backbone / "model.safetensors"),
            *((("bge", args.bge / "model.safetensors"),) if args.bge else ()),
            *((("start", _weights_of(args.start)),) if args.start else ()),
        )
    }
    return json.dumps({**settings, "texts": texts, **weights}, sort_keys=True)


def _weights_of(start: Path) -> Path:
    return start / "model_int8.onnx" if start.is_dir() else start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--student", choices=["nano", "small"], default="nano")
    add("--data", type=Path, required=True, help="folder of the training sets")
    add("--backbone", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    add("--bge", type=Path, help="folder of bge-small-en-v1.5")
    add("--e5", type=Path, help="folder of e5-small-v2")
    add("--work", type=Path, required=True, help="for what is computed once, and the checkpoints")
    add("--run", help="name of the checkpoints' folder in --work (default: the student's)")
    add("--start", type=Path, help="a checkpoint, or a model folder that ships, to start from")
    add("--out", type=Path, required=True, help="the model folder to write")
    add("--prepare", type=int, metavar="ROUNDS", help="make the lists of so many rounds, and stop")
    add("--evaluation", nargs="*", default=[], metavar="NAME=FILE", help="labelled JSONL lists")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, help="of torch, on the CPU")
    add("--seed", type=int, default=1)
    add("--limit", type=int, help="rows per training set at the most (for a smoke test)")
    add("--rows", type=int, help="labelled rows at the most, of every source")
    add("--dev", type=int, default=DEV_PER_SOURCE, help="held-out rows of a source at the most")
    add("--web-queries", type=int, help="queries without labels at the most")
    add("--web-passages", type=int, help="at the most: those that the queries find lexically")
    add("--layers", type=int, nargs="+", default=[0, 2, 5], help="nano: layers of the backbone")
    add("--lower", type=int, default=8, help="keep bge's states after so many layers; 0: do not")
    add("--frozen", type=int, default=0, help="small: layers not trained: --lower, or all")
    add("--distil-steps", type=int, default=4000, help="small needs none: 0")
    add("--distil-tokens", type=int, default=4096, help="tokens of a distilling step")
    add("--distil-rate", type=float, default=5e-4, help="peak learning rate")
    add("--rank-steps", type=int, default=600)
    add("--rank-groups", type=int, default=3, help="groups of 8 queries in a step")
    add("--rank-pool", type=int, default=40, help="passages of a group that are read")
    add("--rank-rate", type=float, help="peak learning rate (nano 1.5e-4, small 2e-5)")
    add("--check-every", type=int, default=200, help="ranking steps between held-out figures")
    add("--check-groups", type=int, default=48, help="held-out groups of 8 that are read for them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
