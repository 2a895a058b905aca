"""Plain attention, found in a graph and put into one operator: the logits stay those of before."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from export_support import require_export, save_bert, texts

require_export()

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402

from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402
from flashrank_lite.export.graph.attention import find_attention, fuse_attention  # noqa: E402
from flashrank_lite.export.graph.int8 import quantise_products  # noqa: E402
from flashrank_lite.export.graph.torch_graph import OPSETS, to_onnx  # noqa: E402

INPUTS = ("input_ids", "attention_mask")
TOKENS = np.array([[11], [5], [2]])  # of each row; the rest is padding
RNG = np.random.default_rng(0)
FEED = {
    "input_ids": RNG.integers(1, 190, (3, 11)),
    "attention_mask": (np.arange(11) < TOKENS).astype(np.int64),
}
LONGER = {
    "input_ids": RNG.integers(1, 190, (5, 23)),
    "attention_mask": (np.arange(23) < RNG.integers(1, 24, (5, 1))).astype(np.int64),
}


class Encoder(torch.nn.Module):
    """Two layers of attention; `bias` makes what is added to the scores."""

    def __init__(self, bias, *, key_heads=2, axis=-1, pool=None):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(200, 64)
        sizes = (64, 32 * key_heads, 32 * key_heads)
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleList(torch.nn.Linear(64, size) for size in sizes) for _ in range(2)
        )
        self.bias, self.axis = bias, axis
        self.pool = pool or (lambda x, mask: x[:, 0])
        self.out = torch.nn.Linear(64, 1)

    def forward(self, ids, mask):
        x = self.table(ids)
        rows, tokens = ids.shape
        bias = self.bias(torch.where(mask.bool(), 0.0, -1e4)[:, None, None, :], x)
        for parts in self.layers:
            q, k, v = (p(x).view(rows, tokens, -1, 32).transpose(1, 2) for p in parts)
            weights = torch.softmax(q @ k.transpose(-1, -2) + bias, self.axis)
            x = x + (weights @ v).transpose(1, 2).reshape(rows, tokens, 64)
        return self.out(self.pool(x, mask))


def apart(x):
    place = torch.arange(x.shape[1])
    return (place[:, None] - place[None, :]).abs()


SLOPES = torch.tensor([-0.5, 0.3])[:, None, None]
BIASES = {
    "padding": lambda bias, x: bias,
    "padding, a row for each token": lambda bias, x: bias.expand(-1, -1, x.shape[1], -1),
    "a window": lambda bias, x: bias + torch.where(apart(x) > 1, -1e4, 0.0),
    "a bias for each head": lambda bias, x: bias + SLOPES * apart(x),
    "a bias for each head alone": lambda bias, x: SLOPES * apart(x) + 0 * bias.sum(),
    "causal": lambda bias, x: (
        bias + torch.where(torch.ones_like(apart(x)).triu(1) > 0, -torch.inf, 0.0)
    ),
    "one for all": lambda bias, x: torch.where(apart(x) > 2, -1e4, 0.1) + 0 * bias.sum(),
    "made of the text": lambda bias, x: bias + x[:, None, :, :1] * x[:, None, None, :, 1],
}
OTHERS = {
    "one key for several heads": Encoder(lambda bias, x: bias, key_heads=1),
    "a softmax over the queries": Encoder(lambda bias, x: bias, axis=-2),
    "a column for all keys": Encoder(lambda bias, x: bias[..., :1] * 0),
}


def run(graph, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    declared = {entry.name for entry in session.get_inputs()}
    return session.run(None, {k: v for k, v in feed.items() if k in declared})[0]


def operators(graph):
    return Counter(node.op_type for node in graph.graph.node)


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES.keys())
def test_attention_of_any_additive_mask_becomes_one_operator_with_the_same_logits(tmp_path, bias):
    graph = to_onnx(Encoder(bias), tmp_path, INPUTS)
    before = [run(graph, feed) for feed in (FEED, LONGER)]
    found = find_attention(graph, [FEED])
    assert [attention.heads for attention in found] == [2, 2]
    fuse_attention(graph, found)
    assert operators(graph)["Attention"] == 2
    assert operators(graph)["Softmax"] == 0
    for feed, expected in zip((FEED, LONGER), before, strict=True):
        np.testing.assert_allclose(run(graph, feed), expected, atol=2e-5)
        assert np.ptp(expected) > 0.05


def test_masks_decide_the_logits_of_these_models(tmp_path):
    """Else a fused graph that loses the mask would pass."""
    logits = []
    for number, bias in enumerate(BIASES.values()):
        (tmp_path / str(number)).mkdir()
        logits.append(run(to_onnx(Encoder(bias), tmp_path / str(number), INPUTS), FEED))
    assert np.abs(logits[0] - logits[1]).max() < 1e-5  # the same, written in two ways
    for one, other in pairwise(logits[1:]):
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("module", OTHERS.values(), ids=OTHERS.keys())
def test_what_the_operator_does_not_know_is_left_as_it_is(tmp_path, module):
    graph = to_onnx(module, tmp_path, INPUTS)
    assert operators(graph)["Softmax"] == 2
    assert find_attention(graph, [FEED]) == []


@pytest.mark.parametrize("opset", OPSETS)
def test_older_operators_around_attention_come_along(tmp_path, opset):
    def mean(x, mask):  # whose axes are an attribute in older versions
        left, right = x.mean(1).chunk(2, -1)
        return torch.cat([left, right + x.amax(1)[:, :32]], -1)

    graph = to_onnx(Encoder(BIASES["padding"], pool=mean), tmp_path, INPUTS, opset)
    before = run(graph, FEED)
    quantise_products(graph, [FEED, LONGER])
    assert operators(graph)["Attention"] == 2
    assert {e.version for e in graph.opset_import if e.domain == ""} == {23}
    np.testing.assert_allclose(run(graph, FEED), before, atol=0.2)  # in 8 bits


def test_the_int8_graph_of_a_checkpoint_has_the_operator_in_every_layer(tmp_path):
    save_bert(tmp_path / "m")
    export_folder(read_checkpoint(tmp_path / "m"), tmp_path / "out", texts())
    graph = onnx.load(str(tmp_path / "out" / "model_int8.onnx"))
    assert operators(graph)["Attention"] == 2
    assert operators(graph)["Softmax"] == 0
    assert operators(onnx.load(str(tmp_path / "out" / "model.onnx")))["Attention"] == 0
