"""`flashrank-lite export`: a checkpoint in, a verified model folder out.

torch and its kin come in when an export runs; without them the command says what to install.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from flashrank_lite.cli import flags
from flashrank_lite.cli.command import Command

DESCRIPTION = """\
Turn a cross-encoder or a ColBERT model of Hugging Face format (or an embedding model, with --as
embedding) into a folder that ranks without torch: an int8 and an fp32 ONNX graph, its tokenizer, a
manifest and a model card. Scores of real text are compared with those of sentence-transformers (or
transformers), and nothing is written that differs; an int8 graph that orders passages unlike fp32
is left out. Code in the repository is never run. Needs the extra: pip install
"flashrank-lite[export]", or pip install ".[export]" in a checkout.
"""

EXAMPLES = """\
examples:
  flashrank-lite export cross-encoder/ms-marco-MiniLM-L6-v2 minilm
  flashrank-lite export ./my-finetuned-model out --calibration texts.jsonl --max-length 512
  flashrank-lite export answerdotai/answerai-colbert-small-v1 colbert
  flashrank-lite export intfloat/e5-small-v2 e5 --as embedding --query-prompt "query: "

--calibration holds real queries with candidate passages, a line each: {"query": "...", "passages":
["...", ...]}. Text like that of use makes the int8 graph better. --evaluation holds labelled lists:
{"query": "...", "candidates": [{"id": "1", "text": "...", "label": 1}, ...]}.
"""


def run(arguments: argparse.Namespace) -> int:
    """Export, with the report on standard error and the folder's path on standard output.

    Raises:
        FlashRankLiteError: as `flashrank_lite.export` raises it; `MissingExtra` without torch.
    """
    from flashrank_lite import export
    from flashrank_lite.evaluation import read_candidate_lists
    from flashrank_lite.export.checkpoints.apart import Prompts
    from flashrank_lite.export.checkpoints.recipes import read_recipe
    from flashrank_lite.export.folder import check_out
    from flashrank_lite.export.graph.torch_graph import OPSET, check_opset
    from flashrank_lite.export.hub import fetch, push
    from flashrank_lite.export.texts import bundled_texts, read_texts

    opset = arguments.opset or OPSET
    check_opset(opset)
    calibration, evaluation = arguments.calibration, arguments.evaluation
    texts = read_texts(calibration) if calibration else bundled_texts()
    lists = {evaluation.stem: read_candidate_lists(evaluation)} if evaluation else None
    recipe = read_recipe(arguments.template) if arguments.template else None
    check_out(arguments.out)
    folder, origin = fetch(arguments.model, arguments.revision)
    check_out(arguments.out, folder)
    source = export.read_checkpoint(
        folder,
        max_length=arguments.max_length,
        recipe=recipe,
        relevant=arguments.relevant,
        parse_special=arguments.parse_special,
        name=origin.partition("@")[0].rpartition("/")[2] if origin else None,
        embedding=arguments.family == "embedding",
        prompts=Prompts(arguments.query_prompt, arguments.passage_prompt),
    )
    with _report_on_stderr():
        export.export_folder(
            replace(source, origin=origin),
            arguments.out,
            texts,
            precisions=arguments.precision,
            int8=arguments.int8,
            require_int8=arguments.require_int8,
            resume=arguments.resume,
            table_bits=arguments.table_bits,
            evaluation=lists,
            opset=opset,
        )
    print(arguments.out)
    if arguments.push_to_hub:
        print(push(arguments.out, arguments.push_to_hub))
    return 0


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder, a Hub repository (owner/name), or its name in the catalog",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "int8"),
        default=["fp32", "int8"],
        help="graphs to write (default: both; int8 is the one that then runs)",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        type=Path,
        help="real text, JSONL (default: a small mix of languages that ships with the package)",
    )
    parser.add_argument(
        "--evaluation", metavar="FILE", type=Path, help="labelled lists, JSONL, for nDCG@10"
    )
    parser.add_argument("--revision", metavar="SHA", help="commit, tag or branch of the repository")
    parser.add_argument("--max-length", metavar="N", type=flags.positive, help="tokens of a pair")
    parser.add_argument(
        "--opset",
        metavar="N",
        type=flags.positive,
        help="version of the ONNX operators of the fp32 graph, 17 to 20 (default: 18); the int8 "
        "graph takes 23 where it has attention in one operator, which onnxruntime runs since 1.23",
    )
    parser.add_argument(
        "--template",
        metavar="FILE",
        type=Path,
        help='prompt of a model that answers in words, JSON: {"segments", "instruction", "yes", '
        '"no"} (default: that of its family)',
    )
    parser.add_argument(
        "--table-bits",
        type=int,
        choices=(4, 8),
        default=8,
        help="bits of large embedding tables in the int8 graph (default: 8)",
    )
    parser.add_argument(
        "--int8",
        choices=("fast", "accurate"),
        default="fast",
        help="accurate: an order closer to fp32's, slower and larger (default: fast)",
    )
    parser.add_argument(
        "--require-int8",
        action="store_true",
        help="fail where the int8 graph would be left out (default: warn, and keep fp32)",
    )
    parser.add_argument(
        "--relevant",
        metavar="NAME",
        help="the class that means relevant, of a model with two whose names don't tell",
    )
    parser.add_argument(
        "--parse-special",
        action="store_true",
        help="control tokens written out in a query or passage count as such in a prompt, as in "
        "transformers (default: they are plain text, so that no passage can end the prompt)",
    )
    parser.add_argument(
        "--as",
        dest="family",
        choices=("embedding",),
        help="take an embedding model, as sentence-transformers saves them, and score by the "
        "cosine of its embeddings",
    )
    for role in ("query", "passage"):
        parser.add_argument(
            f"--{role}-prompt",
            metavar="TEXT",
            help=f'what an embedding model is given before a {role}, as "{role}: " (default: what '
            "its files say)",
        )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the graphs that a refused export kept in OUT.kept (it keeps large ones, "
        "and any with this option)",
    )
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload OUT as this repository")


@contextmanager
def _report_on_stderr() -> Iterator[None]:
    """What the exporter logs is the command's report."""
    logger = logging.getLogger("flashrank_lite.export")
    handler, level = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


COMMAND = Command(
    name="export",
    help="make a model folder of a Hugging Face cross-encoder",
    description=DESCRIPTION,
    examples=EXAMPLES,
    add_flags=_add_flags,
    run=run,
)
