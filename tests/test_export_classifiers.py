"""Sequence classifiers of every family: torch → fp32 → int8 → Ranker."""

import json
import os

import numpy as np
import pytest
from export_families import CLASSIFIERS, POSITIONS, pooled, questions
from export_support import require_export

from flashrank_lite import Ranker

require_export()

import torch  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from flashrank_lite.evaluation import kendall_tau  # noqa: E402
from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402


@pytest.fixture(scope="module", params=CLASSIFIERS)
def family(request, tmp_path_factory):
    """The torch model, its folder, and the folder that was made of it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = CLASSIFIERS[request.param](folder)
    out = folder / "exported"
    export_folder(read_checkpoint(folder), out, pooled(), precisions=("fp32", "int8"))
    return model, folder, out


def torch_logits(model, folder, query, passages, max_length=POSITIONS):
    """As transformers itself does it, pair by pair."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for passage in passages:
        inputs = tokenizer(
            query, passage, truncation="only_second", max_length=max_length, return_tensors="pt"
        )
        if getattr(model.config, "type_vocab_size", 0) < 2:
            inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            found.append(model(**inputs).logits[0, 0].item())
    return np.array(found)


@pytest.fixture(scope="module")
def fp32(family, tmp_path_factory):
    _, _, out = family
    only = tmp_path_factory.mktemp("fp32")
    stated = json.loads((out / "reranker.json").read_text())
    stated["variants"] = [v for v in stated["variants"] if v["precision"] == "fp32"]
    for name in ("config.json", "tokenizer.json", "model.onnx"):
        os.link(out / name, only / name)
    (only / "reranker.json").write_text(json.dumps(stated))
    with Ranker(only, activation="raw", long="truncate") as ranker:
        yield ranker


def test_fp32_scores_are_those_of_torch_up_to_the_last_position(family, fp32):
    model, folder, _ = family
    assert fp32.info()["max_length"] == (512 if "t5" in folder.name else POSITIONS)
    for query, passages in questions()[:3]:
        passages = [*passages, " ".join(passages * 2)]  # longer than the model takes
        expected = torch_logits(model, folder, query, passages, fp32.info()["max_length"])
        assert np.ptp(expected) > 0.1  # else equal scores would prove nothing
        np.testing.assert_allclose(fp32.score(query, passages), expected, atol=1e-4)


def test_int8_keeps_the_order_and_scores_no_passage_by_its_neighbours(family):
    model, folder, out = family
    with Ranker(out, activation="raw", long="truncate") as ranker:
        assert ranker.info()["precision"] == "int8"
        taus = []
        for query, passages in questions():
            together = ranker.score(query, passages)
            alone = [ranker.score(query, [passage])[0] for passage in passages]
            np.testing.assert_allclose(together, alone, atol=1e-4)
            taus.append(kendall_tau(torch_logits(model, folder, query, passages), together))
    assert np.mean(taus) > 0.8


def test_scores_are_those_of_sentence_transformers(family, fp32):
    if os.environ.get("FLASHRANK_LITE_REQUIRE_EXPORT") != "1":
        pytest.importorskip("sentence_transformers")
    from sentence_transformers import CrossEncoder

    _, folder, _ = family
    theirs = CrossEncoder(
        str(folder),
        activation_fn=torch.nn.Identity(),
        device="cpu",
        # said, for it would read two tokens past the end of XLM-R's position table
        max_length=fp32.info()["max_length"],
    )
    query, passages = questions()[1]
    expected = theirs.predict([(query, passage) for passage in passages])
    np.testing.assert_allclose(fp32.score(query, passages), expected, atol=1e-4)
