"""One engine in a process of its own, told what to do by lines of JSON.

It runs in the engine's environment, so it knows the standard library and that engine alone. Each
line on standard input is `{"do": ...}`, each line on standard output the answer; what the
engine prints goes to standard error. Times are taken here, around the call, in milliseconds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

STARTED = time.monotonic()

Score = Callable[[str, list[str]], list[float]]  # scores in the order of the passages
Imported = Callable[[], None]  # called between the import and the loading of the model
FLASHRANK_NAME = "ms-marco-MiniLM-L-12-v2"  # it knows a closed list of names; any weights will do
BATCH_TOKENS = 512  # of the OpenVINO reference, as ours


def flashrank_lite(model: str, cores: int, imported: Imported) -> Score:
    """This package with its defaults; threads follow the affinity that the process was given."""
    from flashrank_lite import Ranker

    imported()
    ranker = Ranker(model or None)

    def score(query: str, passages: list[str]) -> list[float]:
        scores = [0.0] * len(passages)
        for hit in ranker.rank(query, passages):
            scores[hit.index] = hit.score
        return scores

    _now.ranker = ranker
    return score


def flashrank(model: str, cores: int, imported: Imported) -> Score:
    """flashrank has no setting for threads."""
    from flashrank import Ranker, RerankRequest

    imported()
    ranker = Ranker(model_name=FLASHRANK_NAME, cache_dir=model, log_level="ERROR")

    def score(query: str, passages: list[str]) -> list[float]:
        given = [{"id": number, "text": text} for number, text in enumerate(passages)]
        scores = [0.0] * len(passages)
        for hit in ranker.rerank(RerankRequest(query=query, passages=given)):
            scores[hit["id"]] = float(hit["score"])
        return scores

    return score


def fastembed(model: str, cores: int, imported: Imported) -> Score:
    """A custom model from a local folder; its scores are logits."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    imported()
    name = "local/model"
    file = next(entry for entry in os.listdir(model) if entry.endswith(".onnx"))
    TextCrossEncoder.add_custom_model(name, ModelSource(hf=name), model_file=file)
    encoder = TextCrossEncoder(
        name, threads=cores, providers=["CPUExecutionProvider"], specific_model_path=model
    )

    def score(query: str, passages: list[str]) -> list[float]:
        return [_sigmoid(value) for value in encoder.rerank(query, passages)]

    return score


def torch(model: str, cores: int, imported: Imported) -> Score:
    """sentence-transformers on torch."""
    import torch as library

    library.set_num_threads(cores)
    return _sentence_transformers(model, imported, {})


def onnx(model: str, cores: int, imported: Imported) -> Score:
    """sentence-transformers on onnxruntime, fp32."""
    return _sentence_transformers(model, imported, _onnx("model.onnx"))


def qint8(model: str, cores: int, imported: Imported) -> Score:
    """sentence-transformers on onnxruntime, dynamic int8."""
    return _sentence_transformers(model, imported, _onnx("model_qint8.onnx"))


def openvino(model: str, cores: int, imported: Imported) -> Score:
    """A reference, not a product: OpenVINO in its default precision, sorted, in small batches."""
    import numpy
    import openvino as library
    from tokenizers import Tokenizer

    imported()
    tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.no_padding()
    graph = library.Core().compile_model(
        os.path.join(model, "model.onnx"),
        "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(cores)},
    )
    names = [entry.get_any_name() for entry in graph.inputs]
    local = threading.local()

    def score(query: str, passages: list[str]) -> list[float]:
        if not hasattr(local, "request"):
            local.request = graph.create_infer_request()
        rows = tokenizer.encode_batch([(query, passage) for passage in passages])
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row].ids))
        scores, start = [0.0] * len(rows), 0
        while start < len(order):
            longest = len(rows[order[start]].ids)
            batch = order[start : start + max(1, BATCH_TOKENS // longest)]
            shape = (len(batch), longest)
            feeds = {name: numpy.zeros(shape, numpy.int64) for name in names}
            for place, row in enumerate(batch):
                size = len(rows[row].ids)
                found = {
                    "input_ids": rows[row].ids,
                    "attention_mask": rows[row].attention_mask,
                    "token_type_ids": rows[row].type_ids,
                }
                for name in names:
                    feeds[name][place, :size] = found[name]
            logits = next(iter(local.request.infer(feeds).values()))
            for place, row in enumerate(batch):
                scores[row] = _sigmoid(float(logits[place, 0]))
            start += len(batch)
        return scores

    return score


KINDS = {
    kind.__name__: kind
    for kind in (flashrank_lite, flashrank, fastembed, torch, onnx, qint8, openvino)
}
_now = SimpleNamespace()  # the engine that was loaded, the texts that were given
_profiled: list[Any] = []  # the sessions that write a profile


def load(kind: str, model: str, cores: int, profile: str = "") -> dict[str, float]:
    """Import and load; `started` and `ready` are seconds of the system's monotonic clock."""
    if profile:
        _profile_into(profile)
    begun = time.monotonic()
    marks: list[float] = []
    _now.score = KINDS[kind](model, cores, lambda: marks.append(time.monotonic()))
    done = time.monotonic()
    return {
        "started": STARTED,
        "import_ms": 1000 * (marks[0] - begun),
        "load_ms": 1000 * (done - marks[0]),
        "ready": done,
    }


def texts(query: str, passages: list[str]) -> dict[str, int]:
    """What the next scores are for."""
    _now.query, _now.passages = query, passages
    return {"count": len(passages)}


def score(callers: int = 1) -> dict[str, object]:
    """Score the list once, or once in each of several threads at the same time."""
    query, passages, function = _now.query, _now.passages, _now.score
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    if callers == 1:
        results = [function(query, passages)]
    else:
        results = _together(callers, lambda: function(query, passages))
    elapsed = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    worst = max(abs(a - b) for other in results for a, b in zip(results[0], other, strict=True))
    return {
        "ms": 1000 * elapsed,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "scores": results[0],
        "callers_differ": worst,
    }


def memory() -> dict[str, float]:
    """Peak resident memory of this process so far, in 10^6 bytes."""
    # not ru_maxrss: that counts the process which forked us, too
    with open("/proc/self/status", encoding="ascii") as status:
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    return {"peak_mb": int(kilobytes) * 1024 / 1e6}


def profile() -> dict[str, object]:
    """Milliseconds per operator since loading, from onnxruntime's profile; ends it.

    Operators of batches that ran side by side are all in it; `at_once` says how many did.
    """
    file = _profiled[0].end_profiling()
    with open(file, encoding="utf-8") as handle:
        events = json.load(handle)
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / 1000
    at_once = _now.ranker.info()["workers"]
    return {"operators_ms": dict(spent.most_common()), "at_once": at_once}


def _profile_into(folder: str) -> None:
    """Have the session that the engine is about to open write a profile."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    class Kept(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            _profiled.append(self)

    class Profiled(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.enable_profiling = True
            self.profile_file_prefix = os.path.join(folder, "profile")

    onnxruntime.SessionOptions = Profiled
    onnxruntime.InferenceSession = Kept


def _together(callers: int, function: Callable[[], list[float]]) -> list[list[float]]:
    results: list[list[float]] = []
    barrier = threading.Barrier(callers)

    def call() -> None:
        barrier.wait()
        results.append(function())

    running = [threading.Thread(target=call) for _ in range(callers)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if len(results) < callers:
        raise RuntimeError(f"{callers - len(results)} of {callers} callers failed")
    return results


def _sentence_transformers(model: str, imported: Imported, options: dict[str, object]) -> Score:
    from sentence_transformers import CrossEncoder

    imported()
    encoder = CrossEncoder(model, device="cpu", local_files_only=True, **options)

    def score(query: str, passages: list[str]) -> list[float]:
        scores = [0.0] * len(passages)
        for hit in encoder.rank(query, passages, show_progress_bar=False):
            scores[hit["corpus_id"]] = float(hit["score"])
        return scores

    return score


def _onnx(file: str) -> dict[str, object]:
    options = {"file_name": f"onnx/{file}", "provider": "CPUExecutionProvider"}
    return {"backend": "onnx", "model_kwargs": options}


def _sigmoid(logit: float) -> float:
    from math import exp

    return 1 / (1 + exp(-logit)) if logit > -700 else 0.0


COMMANDS: dict[str, Callable[..., Any]] = {
    command.__name__: command for command in (load, texts, score, memory, profile)
}


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:  # if memory runs out, this process is the one to go
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as handle:
            handle.write("1000")
    except OSError:
        pass
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = COMMANDS[request.pop("do")](**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
