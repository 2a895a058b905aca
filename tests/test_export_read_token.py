"""Of the last layer only the token is computed that the head reads; no logit changes."""

import numpy as np
import pytest
from export_families import bert, deberta, distilbert, electra, modernbert, questions, roberta
from export_support import require_export
from test_export_attention import BIASES, FEED, INPUTS, LONGER, Encoder, operators, run

require_export()

import onnx  # noqa: E402
import torch  # noqa: E402

from flashrank_lite.export import read_checkpoint  # noqa: E402
from flashrank_lite.export.folder import feeds_of  # noqa: E402
from flashrank_lite.export.graph.attention import find_attention, fuse_attention  # noqa: E402
from flashrank_lite.export.graph.nodes import watch  # noqa: E402
from flashrank_lite.export.graph.read_token import keep_read_token  # noqa: E402
from flashrank_lite.export.graph.torch_graph import to_onnx  # noqa: E402


def shapes(graph, names, feed):
    return [value.shape for value in watch(graph, names)(feed).values()]


def products(graph):
    """Names of what products with a constant matrix give, in order."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    found = [n for n in graph.graph.node if n.op_type == "MatMul" and n.input[1] in constants]
    return [node.output[0] for node in found]


def copied(graph):
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    return other


@pytest.mark.parametrize(
    ("make", "attention"),
    [(bert, 2), (electra, 2), (roberta, 2), (distilbert, 2), (deberta, 0), (modernbert, 0)],
)
def test_a_checkpoint_keeps_its_logits_with_one_row_for_each_text_at_the_end(
    tmp_path, make, attention
):
    make(tmp_path / "m")
    source = read_checkpoint(tmp_path / "m")
    feeds = list(feeds_of(source, questions()))
    graph = to_onnx(source.module, tmp_path, source.inputs)
    changed = keep_read_token(copied(graph), feeds)
    for feed in feeds:
        expected = run(graph, feed)
        np.testing.assert_allclose(run(changed, feed), expected, rtol=3e-6, atol=1e-5)
    rows, tokens = feeds[0]["input_ids"].shape
    assert tokens > 1
    ends = [shape for shape in shapes(changed, products(changed), feeds[0]) if len(shape) == 3]
    assert ends[0][:2] == (rows, tokens)
    assert ends[-1][:2] == (rows, 1)  # back from the feed-forward part
    if make is not modernbert:  # it splits what goes in, which is not taken for a row's own affair
        assert ends[-2][:2] == (rows, 1)
    found = find_attention(changed, feeds)
    assert len(found) == attention
    if found:  # of keys and values all tokens are wanted, of queries one
        last = found[-1]
        sizes = shapes(changed, [last.query, last.key, last.value], feeds[0])
        assert sizes == [(rows, 1, 64), (rows, tokens, 64), (rows, tokens, 64)]
        first = found[0].query
        assert shapes(changed, [first], feeds[0]) == [(rows, tokens, 64)]
        fuse_attention(changed, found)
        assert operators(changed)["Softmax"] == 0
        for feed in feeds:
            np.testing.assert_allclose(run(changed, feed), run(graph, feed), rtol=3e-6, atol=2e-5)


@pytest.mark.parametrize("place", [0, 1, -1, -2])
@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES.keys())
def test_any_token_may_be_read_under_any_mask(tmp_path, place, bias):
    graph = to_onnx(Encoder(bias, pool=lambda x, mask: x[:, place]), tmp_path, INPUTS)
    changed = keep_read_token(copied(graph), [FEED])
    last = find_attention(changed, [FEED])[-1]
    assert shapes(changed, [last.query], FEED) == [(3, 1, 64)]
    fused = fuse_attention(copied(changed), find_attention(changed, [FEED]))
    for feed in (FEED, LONGER):
        if place < 0:  # padded on the left: the last tokens are text
            feed = {name: np.flip(array, 1).copy() for name, array in feed.items()}
        expected = run(graph, feed)
        assert np.ptp(expected) > 0.05
        np.testing.assert_allclose(run(changed, feed), expected, atol=1e-5)
        np.testing.assert_allclose(run(fused, feed), expected, atol=2e-5)


class Shared(torch.nn.Module):
    """Attention whose queries and keys are the states themselves, split in the same way."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(200, 64)
        self.wide, self.out = torch.nn.Linear(64, 64), torch.nn.Linear(64, 1)

    def forward(self, ids, mask):
        x = self.table(ids)
        rows, tokens = ids.shape
        bias = torch.where(mask.bool(), 0.0, -1e4)[:, None, None, :]
        q = x.view(rows, tokens, 2, 32).transpose(1, 2)
        k = x.view(rows, -1, 2, 32).transpose(1, 2)
        v = self.wide(x).view(rows, tokens, 2, 32).transpose(1, 2)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 9 + bias, -1) @ v
        x = x + self.wide(mixed.transpose(1, 2).reshape(rows, tokens, 64))
        return self.out(x[:, 0])


def test_keys_that_are_the_queries_keep_all_tokens(tmp_path):
    graph = to_onnx(Shared(), tmp_path, INPUTS)
    changed = keep_read_token(copied(graph), [FEED])
    for feed in (FEED, LONGER):
        np.testing.assert_allclose(run(changed, feed), run(graph, feed), atol=1e-5)


def mean(x, mask):
    shown = mask[:, :, None].float()
    return (x * shown).sum(1) / shown.sum(1)


POOLS = {
    "the mean": mean,
    "the largest": lambda x, mask: x.amax(1),
    "a token and the mean": lambda x, mask: x[:, 0] + x.mean(1),
    "a token and another": lambda x, mask: x[:, 0] * x[:, 1],
    "the last that is shown": lambda x, mask: x[torch.arange(x.shape[0]), mask.sum(1) - 1],
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
def test_a_head_that_reads_more_than_one_token_gets_all_of_them(tmp_path, pool):
    graph = to_onnx(Encoder(BIASES["padding"], pool=pool), tmp_path, INPUTS)
    changed = keep_read_token(copied(graph), [FEED])
    assert changed.graph == graph.graph
    assert all(shape[1] == 11 for shape in shapes(graph, products(graph)[:-1], FEED))


def test_states_that_are_a_result_themselves_stay_whole(tmp_path):
    graph = to_onnx(Encoder(BIASES["padding"]), tmp_path, INPUTS)
    reading = [n for n in graph.graph.node if n.op_type == "Gather" and n.attribute[0].i == 1]
    states = reading[-1].input[0]
    info = onnx.helper.make_tensor_value_info(states, onnx.TensorProto.FLOAT, None)
    graph.graph.output.append(info)
    changed = keep_read_token(copied(graph), [FEED])
    assert shapes(changed, [states], FEED) == [(3, 11, 64)]
    np.testing.assert_allclose(run(changed, FEED), run(graph, FEED), atol=1e-5)
