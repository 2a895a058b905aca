"""Fit the head of an exported late-interaction model anew, on the states that its graph gives.

    python scripts/fit_head.py MODEL --data DIR --bge DIR --e5 DIR --work DIR

MODEL is a folder that `scripts/train_nano.py --student small` wrote; `--bge` is what it was made
of. The layers stay as they are: term weights, the weights of the three channels and the scale are
learned, from labels and from what the graph's own states and e5-small-v2 say together of each list.
Minutes where training takes hours.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from nano.calibration import calibrate
from nano.data import Size, load_corpus
from nano.ensemble import Ensemble, inverse_document_frequency
from nano.lists import Lists
from nano.model import SMALL
from nano.refit import graph_states, write_head
from nano.stages import Reader, held_out, rank
from nano.student import student_from_backbone
from nano.teacher import prefixes_of, read_texts

logger = logging.getLogger("fit_head")


def main() -> None:
    """Fit, calibrate, and write the head into the folder."""
    args = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    run = args.work / args.run
    run.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.bge / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    size = Size(args.rows, args.dev, args.web_queries, args.web_passages)
    corpus = load_corpus(args.data, tokenizer, seed=args.seed, size=size)
    logger.info(
        "%d texts, %d rows, %d dev rows, %d tokens",
        *(len(corpus.texts), len(corpus.rows), len(corpus.dev), len(corpus.ids)),
    )
    cache = args.work / "teachers"
    states = graph_states(args.model, corpus, cache / "graphs")
    e5 = read_texts(corpus, args.e5, cache / "e5", "cpu", mean=True, prefixes=prefixes_of(args.e5))
    idf = inverse_document_frequency(corpus, SMALL.vocab_size)
    ensemble = Ensemble(corpus, {"bge": states, "e5": e5}, idf, torch.device("cpu"))
    lists = Lists(corpus, ensemble, args.work / "lists-graph", seed=args.seed)
    layers = json.loads((args.bge / "config.json").read_text())["num_hidden_layers"]
    config = replace(SMALL, num_hidden_layers=layers)
    model = student_from_backbone(args.bge, corpus, config, range(layers))
    model.fake_quantise = False
    reader = Reader(model, corpus, states, layers)
    rank(
        *(model, reader, lists, run, json.dumps(vars(args), default=str)),
        steps=args.steps,
        groups=args.groups,
        pool=40,
        learning_rate=args.rate,
        check_every=args.check_every,
        check_groups=48,
        seed=args.seed,
    )
    logger.info("held out: %s", json.dumps(held_out(model, reader, lists)))
    logger.info("calibration: %s", json.dumps(calibrate(model, reader, lists)))
    write_head(args.model, model)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", type=Path, help="the model folder to change")
    add("--data", type=Path, required=True, help="folder of the training sets")
    add("--bge", type=Path, required=True, help="folder of bge-small-en-v1.5")
    add("--e5", type=Path, required=True, help="folder of e5-small-v2")
    add("--work", type=Path, required=True, help="for states, lists and the checkpoint")
    add("--run", default="head", help="name of the checkpoint's folder in --work")
    add("--threads", type=int, help="of torch")
    add("--seed", type=int, default=1)
    add("--rows", type=int, help="labelled rows at the most, of every source")
    add("--dev", type=int, default=3, help="held-out rows of a source")
    add("--web-queries", type=int, default=0)
    add("--web-passages", type=int, default=0)
    add("--steps", type=int, default=300)
    add("--groups", type=int, default=3, help="groups of 8 queries in a step")
    add("--rate", type=float, default=3e-4, help="a tenth of the head's peak learning rate")
    add("--check-every", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    main()
