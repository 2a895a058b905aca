"""Modular rerankers, saved by sentence-transformers itself and scored by it."""

import json
import os

import export_families as families
import numpy as np
import pytest
from export_families import pooled, questions
from export_support import require_export

from flashrank_lite import InvalidModel, Ranker

require_export()
if os.environ.get("FLASHRANK_LITE_REQUIRE_EXPORT") != "1":
    pytest.importorskip("sentence_transformers")

import torch  # noqa: E402
from sentence_transformers import CrossEncoder  # noqa: E402
from sentence_transformers.base.modules import Dense, Transformer  # noqa: E402
from sentence_transformers.cross_encoder.modules import LogitScore  # noqa: E402
from sentence_transformers.sentence_transformer.modules import (  # noqa: E402
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
)

from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402


def save(folder, pooling, *heads, activation=None):
    """A ModernBERT with these heads, as the Ettin family has it."""
    from transformers import ModernBertModel

    backbone = folder / "backbone"
    torch.manual_seed(0)
    ModernBertModel(families.modernbert_config(backbone)).eval().save_pretrained(backbone)
    modules = [Transformer(str(backbone), max_seq_length=120), Pooling(64, pooling), *heads]
    model = CrossEncoder(modules=modules, device="cpu", activation_fn=activation)
    model.save_pretrained(str(folder / "saved"))
    return folder / "saved"


def score_head(width=64, **settings):
    torch.manual_seed(1)
    head = Dense(width, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    head.linear.weight.data.mul_(8)
    return head


@pytest.mark.parametrize(
    ("pooling", "heads"),
    [
        ("mean", lambda: [Dense(64, 64, activation_function=torch.nn.GELU()), LayerNorm(64)]),
        ("cls", lambda: [Dense(64, 64, use_residual=True), Dropout(0.1), Normalize()]),
        (("lasttoken", "max"), lambda: [Dense(128, 64, bias=False, use_residual=True)]),
    ],
)
def test_heads_score_as_sentence_transformers_does(tmp_path, pooling, heads):
    torch.manual_seed(2)
    saved = save(tmp_path, pooling, *heads(), score_head())
    source = read_checkpoint(saved)
    assert (source.max_length, source.activation) == (120, "sigmoid")
    export_folder(source, tmp_path / "out", pooled(), precisions=("fp32", "int8"))
    theirs = CrossEncoder(str(saved), device="cpu")
    with (
        Ranker(tmp_path / "out", long="truncate") as int8,
        fp32_alone(tmp_path / "out") as fp32,
    ):
        for query, passages in questions()[:2]:
            expected = theirs.predict([(query, passage) for passage in passages])
            assert np.ptp(expected) > 0.01
            np.testing.assert_allclose(fp32.score(query, passages), expected, atol=1e-4)
            together = int8.score(query, passages)
            alone = [int8.score(query, [passage])[0] for passage in passages]
            np.testing.assert_allclose(together, alone, atol=1e-4)


def test_poolings_of_an_older_file_are_joined_in_the_order_of_sentence_transformers(tmp_path):
    torch.manual_seed(2)
    saved = save(tmp_path, ("max", "mean"), Dense(128, 64), score_head())
    (file,) = saved.glob("1_Pooling/config.json")
    stated = {
        "word_embedding_dimension": 64,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
        "pooling_mode_max_tokens": True,
    }
    file.write_text(json.dumps(stated))
    theirs = CrossEncoder(str(saved), device="cpu")
    export_folder(read_checkpoint(saved), tmp_path / "out", questions(), precisions=["fp32"])
    query, passages = questions()[0]
    expected = theirs.predict([(query, passage) for passage in passages])
    assert np.ptp(expected) > 0.001  # ten times the tolerance
    with Ranker(tmp_path / "out", long="truncate") as ranker:
        np.testing.assert_allclose(ranker.score(query, passages), expected, atol=1e-4)


def fp32_alone(folder):
    """The same model with its fp32 graph alone."""
    stated = json.loads((folder / "reranker.json").read_text())
    stated["variants"] = [v for v in stated["variants"] if v["precision"] == "fp32"]
    only = folder.parent / "fp32"
    only.mkdir()
    for name in ("config.json", "tokenizer.json", "model.onnx"):
        os.link(folder / name, only / name)
    (only / "reranker.json").write_text(json.dumps(stated))
    return Ranker(only, long="truncate")


def test_a_saved_activation_is_kept(tmp_path):
    saved = save(tmp_path, "mean", score_head(), activation=torch.nn.Identity())
    assert read_checkpoint(saved).activation == "raw"


def test_a_classifier_saved_as_one_module_is_read_like_any_other(tmp_path):
    families.roberta(tmp_path / "roberta")
    model = CrossEncoder(str(tmp_path / "roberta"), device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    query, passages = questions()[0]
    source = read_checkpoint(tmp_path / "saved")
    export_folder(source, tmp_path / "out", pooled())
    # Left alone it reads two tokens more than RoBERTa's position table holds.
    model = CrossEncoder(str(tmp_path / "saved"), device="cpu", max_length=source.max_length)
    expected = model.predict([(query, passage) for passage in passages])
    with fp32_alone(tmp_path / "out") as ranker:
        np.testing.assert_allclose(ranker.score(query, passages), expected, atol=1e-4)


CLOSED = (  # a special token after each text: no word spans the two
    "{% for m in messages %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>\n"
    "{% endfor %}relevant?"
)
# no special token, and a word that goes on: tokenised apart it would be another one
OPEN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}s. {% endfor %}relevant?"


@pytest.mark.parametrize("chat", [CLOSED, OPEN])
def test_yes_or_no_with_a_chat_template_is_asked_as_sentence_transformers_asks(tmp_path, chat):
    families.qwen2(tmp_path / "qwen2")
    transformer = Transformer(str(tmp_path / "qwen2"), transformer_task="text-generation")
    transformer.tokenizer.chat_template = chat
    transformer = reload_with_template(transformer, tmp_path / "chat")
    modules = [transformer, LogitScore(true_token_id=3, false_token_id=4)]
    theirs = CrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.Identity())
    theirs.save_pretrained(str(tmp_path / "saved"))
    source = read_checkpoint(tmp_path / "saved")
    export_folder(source, tmp_path / "out", questions(), precisions=["fp32"])
    query, passages = questions()[3]
    expected = theirs.predict([(query, passage) for passage in passages])
    with Ranker(tmp_path / "out", activation="raw", long="truncate") as ranker:
        np.testing.assert_allclose(ranker.score(query, passages), expected, atol=2e-4)


def reload_with_template(transformer, folder):
    """What a module can be fed is decided when it is loaded."""
    transformer.model.save_pretrained(folder)
    transformer.tokenizer.save_pretrained(folder)
    return Transformer(str(folder), transformer_task="text-generation")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entries: entries[:2], "the scores none|no relevance score"),
        (lambda entries: entries[1:], "first module is Pooling"),
        (lambda entries: [], "lists no modules"),
        (
            lambda entries: [*entries[:2], {**entries[2], "path": "../elsewhere"}],
            "lists no modules",
        ),
        (lambda entries: [*entries, {**entries[2], "type": "mine.Dense"}], r"mine\.Dense"),
        (lambda entries: [{"idx": 0}], "cannot be read"),
    ],
)
def test_modules_that_make_no_reranker_are_refused(tmp_path, change, said):
    saved = save(tmp_path, "mean", score_head())
    entries = json.loads((saved / "modules.json").read_text())
    (saved / "modules.json").write_text(json.dumps(change(entries)))
    with pytest.raises(InvalidModel, match=said):
        read_checkpoint(saved)


def test_missing_head_weights_are_named(tmp_path):
    saved = save(tmp_path, "mean", score_head())
    (weights,) = saved.glob("2_Dense/model.safetensors")
    weights.unlink()
    with pytest.raises(InvalidModel, match="2_Dense"):
        read_checkpoint(saved)
