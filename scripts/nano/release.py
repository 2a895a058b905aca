"""The trained student → the model folder that ships."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from flashrank_lite.encoding.collate import SEPARATE_INPUTS
from flashrank_lite.evaluation import read_candidate_lists
from flashrank_lite.export.folder import Source, export_folder
from nano.data import Corpus
from nano.model import NanoRanker, quantise_rows
from nano.states import give_states

LISTS = {"nano": 64, "small": 24}  # half of them to fit int8, half to measure it: time grows so
PASSAGES = 16


def release(
    model: NanoRanker,
    corpus: Corpus,
    backbone: Path,
    out: Path,
    *,
    name: str,
    evaluation: dict[str, Path],
    seed: int,
) -> None:
    """Export; word embeddings in 4 bits if the student was trained on their grid, else in 8."""
    model.eval()
    bits = 4 if model.fake_quantise else 8
    if model.fake_quantise:
        model.fake_quantise = False
        with torch.no_grad():
            model.word.weight.copy_(quantise_rows(model.word.weight))
    source = Source(
        module=model,
        tokenizer=backbone / "tokenizer.json",
        config={
            "architectures": ["NanoRanker"],
            "model_type": name,
            "num_labels": 1,
            "pad_token_id": 0,
            **model.config.to_dict(),
        },
        name=name,
        inputs=SEPARATE_INPUTS,
        max_length=model.config.max_position_embeddings,
        languages=("en",),
        license="apache-2.0" if name == "nano" else "mit",
    )
    export_folder(
        source,
        out,
        _texts(corpus, LISTS[name], seed),
        precisions=("int8",),
        table_bits=bits,
        evaluation={name: read_candidate_lists(path) for name, path in evaluation.items()},
    )
    give_states(out)


def _texts(corpus: Corpus, lists: int, seed: int) -> list[tuple[str, list[str]]]:
    """Queries of every set with their own passages and others of all kinds."""
    rng = random.Random(seed)
    passages = corpus.passages
    rows = rng.sample(corpus.rows, min(lists, len(corpus.rows)))
    return [
        (
            corpus.texts[row.query],
            [
                corpus.texts[i]
                for i in dict.fromkeys(
                    [*row.positives, *row.negatives[:4], *rng.choices(passages, k=PASSAGES - 5)]
                )
            ],
        )
        for row in rows
    ]
