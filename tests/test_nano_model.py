"""The student: what training scores is what ships."""

import sys
from pathlib import Path

import numpy as np
from export_support import require_export

require_export()

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from nano.model import CLS, SEP, UNK, NanoConfig, NanoRanker, encode_side  # noqa: E402

SHAPE = NanoConfig(
    vocab_size=200,
    hidden_size=64,
    num_attention_heads=4,
    intermediate_size=96,
    num_hidden_layers=2,
    max_position_embeddings=64,
)
QUERIES = [[CLS, 7, 8, 9, SEP], [CLS, 8, SEP], [CLS, SEP], [CLS, UNK, 120, SEP]]
PASSAGES = [[9, 9, 3, 120, SEP], [SEP], [UNK, 8, 5, 6, 7, 8, 9, 11, 12, SEP]]


def model() -> NanoRanker:
    torch.manual_seed(0)
    student = NanoRanker(SHAPE).eval()
    # As after training: they start at zero.
    torch.nn.init.normal_(student.head.weigh.weight, std=0.3)
    return student


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows])
    return ids, mask


def pair_logits(student: NanoRanker, pairs: list[tuple[list[int], list[int]]]) -> np.ndarray:
    queries, passages = (padded(list(side)) for side in zip(*pairs, strict=True))
    with torch.inference_mode():
        return student(*queries, *passages)[:, 0].numpy()


def test_a_pair_scores_the_same_alone_in_a_batch_and_in_the_training_grid() -> None:
    student = model()
    with torch.inference_mode():
        sides = [
            encode_side(student, *padded(rows), query=query)
            for rows, query in ((QUERIES, True), (PASSAGES, False))
        ]
        grid = student.head.logit(student.head.compare_all(*sides)).numpy()
    pairs = [(query, passage) for query in QUERIES for passage in PASSAGES]
    together = pair_logits(student, pairs)
    alone = np.concatenate([pair_logits(student, [pair]) for pair in pairs])
    assert np.ptp(alone) > 0.1
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(grid.ravel(), alone, atol=1e-5)


def test_an_unknown_token_matches_nothing() -> None:
    student = model()
    with torch.inference_mode():
        query = encode_side(student, *padded([[CLS, UNK, SEP]]), query=True)
        passages = encode_side(student, *padded([[UNK, SEP], [5, SEP]]), query=False)
        features = student.head.compare_all(query, passages)[0]
    assert not features[:, 2].any()  # the share of words found as they are
    weights = student.head.term_weights(query.first, query.last, query.ids, query.mask)
    assert weights[0, 1].tolist() == [0.0, 0.0]
