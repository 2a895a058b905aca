"""The teachers' states for every training text, computed once and kept on disk.

Each reads a text alone. Three embedding models of one width and vocabulary, so a text is tokenised
once for all of them:

- all-MiniLM-L6-v2 (`minilm`, 6 layers): token states, which nano also learns as they are;
- bge-small-en-v1.5 (`bge`, 12 layers): token states; compared by MaxSim;
- e5-small-v2 (`e5`, 12 layers): the mean state of "query: ..." and "passage: ...".

nDCG@10 of the scores made of them, untrained, is in `nano.ensemble`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from nano.data import Corpus, pad_rows
from nano.precision import autocast, half_type
from nano.store import StateStore, key_of

logger = logging.getLogger(__name__)

BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 65536
TEXTS_AT_ONCE = 2048  # sorted by length among themselves: every part has texts of all lengths
STATES, LOWER, MEAN = "states", "lower", "mean"

Run = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Teacher:
    """What one teacher made of the texts."""

    store: StateStore
    corpus: Corpus
    prefixes: tuple[tuple[int, ...], tuple[int, ...]]  # token ids before a passage, before a query

    def of(self, index: int, name: str = STATES) -> np.ndarray:
        """Its array of text `index`: token states, (tokens, hidden), or the mean, (1, hidden)."""
        return self.store.get(self.ids(index), name)

    def ids(self, index: int) -> np.ndarray:
        """The token ids that it reads of text `index`."""
        ids = self.corpus.tokens(index)
        prefix = self.prefixes[self.corpus.is_query[index]]
        return np.concatenate([ids[:1], np.array(prefix, np.int32), ids[1:]]) if prefix else ids


def read_texts(
    corpus: Corpus,
    folder: Path,
    cache: Path,
    device: str,
    *,
    lower: int | None = None,
    mean: bool = False,
    prefixes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
) -> Teacher:
    """Compute what is not kept yet.

    On a CPU without bf16 the teacher runs as a dynamic int8 graph under onnxruntime: 1.6 times as
    fast as fp32, cosine to its states 0.988.

    Args:
        corpus: the texts.
        folder: of the teacher, as Hugging Face files.
        cache: folder to keep it in.
        device: cpu or cuda.
        lower: keep the states after so many layers as well.
        mean: keep a text's mean state alone.
        prefixes: token ids to put before a passage and before a query.
    """
    hidden = json.loads((folder / "config.json").read_text())["hidden_size"]
    kept = [MEAN] if mean else [STATES] if lower is None else [STATES, LOWER]
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    origin = f"{weights}, lower {lower}, prefixes {prefixes}"
    store = StateStore(cache, dict.fromkeys(kept, hidden), origin)
    teacher = Teacher(store, corpus, prefixes)
    texts = range(len(corpus.texts))
    if device != "cpu" or half_type(device) is not None:
        tokens = BATCH_TOKENS if device == "cpu" else GPU_BATCH_TOKENS
        run = partial(_torch, folder, device, lower)
        fill(teacher, texts, run, folder.name, workers=1, batch_tokens=tokens)
    else:
        fill(teacher, texts, partial(_onnx, folder, cache, lower), folder.name)
    return teacher


def prefixes_of(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token ids that e5 wants before a passage and before a query."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    passage, query = (
        tuple(tokenizer.encode(f"{word}: ", add_special_tokens=False).ids)
        for word in ("passage", "query")
    )
    return passage, query


def fill(
    teacher: Teacher,
    indices: Iterable[int],
    opened: Callable[[], Run],
    name: str,
    *,
    workers: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> None:
    """Compute what the store lacks of some texts.

    Args:
        teacher: with the store.
        indices: of the texts.
        opened: opens what reads them, if there are any to be read.
        name: for the log.
        workers: batches side by side; None: as many as torch has threads.
        batch_tokens: of a batch.
    """
    missing = {}
    for index in indices:
        ids = teacher.ids(index)
        if ids not in teacher.store:
            missing.setdefault(key_of(ids), ids)
    if missing:
        workers = workers or torch.get_num_threads()
        _read(list(missing.values()), opened(), teacher.store, workers, batch_tokens, name)


def _read(
    texts: Sequence[np.ndarray],
    run: Run,
    store: StateStore,
    workers: int,
    batch_tokens: int,
    name: str,
) -> None:
    start, done, tokens = time.monotonic(), 0, 0
    # Side by side on one thread each: 1.6 times the rate of one batch on all threads.
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            part = texts[first : first + TEXTS_AT_ONCE]
            batches = _batches([len(ids) for ids in part], batch_tokens)
            padded = (pad_rows([part[i] for i in rows]) for rows in batches)
            outputs = pool.map(lambda one: run(*one), padded)
            for rows, out in zip(batches, outputs, strict=True):
                chosen = [part[i] for i in rows]
                store.add(chosen, _cut(out, chosen, store.columns))
                tokens += sum(map(len, chosen))
            done += len(part)
            rate = tokens / (time.monotonic() - start)
            logger.info("%s: %d of %d texts, %.0f tokens/s", name, done, len(texts), rate)


def _cut(
    out: Mapping[str, np.ndarray], texts: Sequence[np.ndarray], names: Mapping[str, int]
) -> dict[str, list[np.ndarray]]:
    """Of a padded batch what is each text's own."""
    found: dict[str, list[np.ndarray]] = {}
    for name in names:
        states = out[STATES if name == MEAN else name]
        own = [states[r, : len(ids)] for r, ids in enumerate(texts)]
        found[name] = [one.mean(0, keepdims=True) for one in own] if name == MEAN else own
    return found


def _batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    for i in np.argsort(lengths, kind="stable"):
        if batches[-1] and (len(batches[-1]) + 1) * int(lengths[i]) > tokens:
            batches.append([])
        batches[-1].append(int(i))
    return batches


class _States(torch.nn.Module):
    def __init__(self, folder: Path, lower: int | None) -> None:
        super().__init__()
        self.model = AutoModel.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        ).eval()
        self.lower = lower

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        ).hidden_states
        return (states[-1],) if self.lower is None else (states[-1], states[self.lower])


def _onnx(folder: Path, cache: Path, lower: int | None) -> Run:
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic

    int8 = cache / "int8.onnx"
    names = [STATES] if lower is None else [STATES, LOWER]
    if not int8.exists():
        fp32, partial = cache / "fp32.onnx", cache / "int8.partial"
        example = torch.ones(2, 7, dtype=torch.long)
        inputs = ["input_ids", "attention_mask"]
        axes = {name: {0: "batch", 1: "sequence"} for name in [*inputs, *names]}
        torch.onnx.export(
            _States(folder, lower),
            (example, example),
            str(fp32),
            input_names=inputs,
            output_names=names,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        # Seven bits: processors without VNNI saturate on eight
        quantize_dynamic(
            fp32, partial, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
        )
        partial.replace(int8)
        fp32.unlink()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(int8), options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        out = session.run(None, {"input_ids": ids, "attention_mask": mask})
        return dict(zip(names, out, strict=True))

    return run


def _torch(folder: Path, device: str, lower: int | None) -> Run:
    model = _States(folder, lower).to(device)

    @torch.inference_mode()
    def run(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        with autocast(device):
            out = model(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
        return dict(zip([STATES, LOWER], (one.half().cpu().numpy() for one in out), strict=False))

    return run
