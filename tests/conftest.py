"""What several tests share: the bundled model, real text, toy model folders, clean processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from flashrank_lite import Ranker

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parent.parent

QUERY = "how long do fleas live"
PASSAGES = [
    "An adult flea lives for about 100 days when it has a host to feed on. Without one it starves "
    "within two weeks, although a pupa can wait in its cocoon for several months.",
    "Fleas are small wingless insects that feed on the blood of mammals and birds. They jump up to "
    "fifty times the length of their own body.",
    "The Great Wall of China was built over many centuries to guard the northern border.",
    "Rust is a programming language that checks ownership at compile time.",
    "Dogs sleep twelve to fourteen hours a day, most of it lightly.",
    "To treat a carpet, vacuum it daily and throw the bag away; eggs hide in the fibres.",
    "The female lays up to fifty eggs a day. Eggs hatch in two to twelve days, and larvae spin a "
    "cocoon after one to three weeks; warmth and damp make all of it faster.",
    "Mount Everest rises 8,849 metres above the sea. Climbers rest at several camps on the way up, "
    "because the air at the top holds a third of the oxygen that there is at the shore.",
    "Butter melts at about 32 to 35 degrees Celsius.",
    "Die Lebensdauer eines Flohs beträgt einige Wochen bis über ein Jahr.",
    "ノミの寿命は環境によって数週間から一年以上になります。",
    "A tick is not an insect but an arachnid, and it may live for three years.",
]


@pytest.fixture(scope="session")
def ranker() -> Iterator[Ranker]:
    """One ranker of the bundled model for all tests that do not change how it is loaded."""
    with Ranker() as ranker:
        yield ranker


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """Run code in a new interpreter, in an empty folder; its standard output, if it exits 0."""

    def run(code: str, *, arguments: tuple[str, ...] = (), **environment: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(code, encoding="utf-8")
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        paths = [str(ROOT), str(ROOT / "tests")]
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("FLASHRANK")
        }
        clean |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(work),
            "TMPDIR": str(work),
            **environment,
        }
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            cwd=work,
            env=clean,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def toy_folder(tmp_path: Path) -> Callable[..., Path]:
    """Build a model folder around a toy graph, with a word-level tokenizer that joins like BERT."""
    onnx = pytest.importorskip("onnx")

    def build(
        graph: Any,
        config: dict[str, Any] | None = None,
        manifest: dict[str, Any] | None = None,
        graph_name: str = "model.onnx",
    ) -> Path:
        folder = tmp_path / "toy"
        (folder / graph_name).parent.mkdir(parents=True, exist_ok=True)
        onnx.save(graph, folder / graph_name)
        toy_tokenizer().save(str(folder / "tokenizer.json"))
        settings = {"model_type": "bert", "max_position_embeddings": 64, "pad_token_id": 0}
        (folder / "config.json").write_text(json.dumps(settings | (config or {})))
        if manifest is not None:
            (folder / "reranker.json").write_text(json.dumps(manifest))
        return folder

    return build


def toy_tokenizer() -> Any:
    """Words of PASSAGES as tokens, [CLS] query [SEP] passage [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word for passage in [QUERY, *PASSAGES, "a"] for word in passage.split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: number for number, token in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def toy_graph(
    steps: list[tuple[str, list[str], list[str], dict[str, Any]]] | None = None,
    *,
    inputs: dict[str, str] | None = None,
    output: str = "logits",
    output_shape: tuple[int | str, ...] = ("batch", 1),
    output_type: str = "FLOAT",
    constants: dict[str, Any] | None = None,
) -> Any:
    """A graph out of (operator, inputs, outputs, attributes) steps.

    The default sums the ids of the tokens that the mask shows, over a thousand: (batch, 1).
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if steps is None:
        steps = [
            ("Mul", ["input_ids", "attention_mask"], ["shown"], {}),
            ("Cast", ["shown"], ["floats"], {"to": TensorProto.FLOAT}),
            ("ReduceSum", ["floats", "last"], ["sum"], {"keepdims": 1}),
            ("Div", ["sum", "thousand"], [output], {}),
        ]
    constants = {
        "last": np.array([1], np.int64),
        "thousand": np.array(1000, np.float32),
        **(constants or {}),
    }
    used = {name for step in steps for name in step[1]}
    declared = inputs or {"input_ids": "INT64", "attention_mask": "INT64"}
    graph = helper.make_graph(
        [helper.make_node(kind, ins, outs, **extra) for kind, ins, outs, extra in steps],
        "toy",
        [
            helper.make_tensor_value_info(name, getattr(TensorProto, kind), ["batch", "sequence"])
            for name, kind in declared.items()
        ],
        [helper.make_tensor_value_info(output, getattr(TensorProto, output_type), output_shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
