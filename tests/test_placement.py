"""device= is granted or refused; nothing runs on the CPU that was asked to run elsewhere."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import InvalidInput, InvalidModel, ProviderUnavailable, Ranker
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.runtime.placement import products_on_cpu
from flashrank_lite.runtime.providers import resolve
from flashrank_lite.runtime.sessions import Sessions

no_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this onnxruntime has CUDA",
)
BUNDLED = next(bundled_folder().glob("*.onnx"))


# every way to ask for CUDA alone, or for the CPU where CUDA lacks an operator
ON_CUDA: list[dict[str, Any]] = [
    {"device": "cuda"},
    {"providers": ["CUDA"]},
    {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
    {"providers": [("CUDA", {"device_id": 0}), "CPU"]},
]


@no_cuda
@pytest.mark.parametrize("wish", ON_CUDA)
def test_cuda_without_its_build_is_refused_with_what_to_install(wish: dict[str, Any]) -> None:
    says = r"no provider 'CUDA.*pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    with pytest.raises(ProviderUnavailable, match=says):
        Ranker(**wish)


@no_cuda
def test_auto_falls_back_to_the_cpu_and_says_why(ranker: Ranker) -> None:
    with Ranker(device="auto") as auto:
        info = auto.info()
        np.testing.assert_array_equal(auto.score(QUERY, PASSAGES), ranker.score(QUERY, PASSAGES))
    assert info["device"] == "cpu"
    assert info["device_source"].startswith("auto: no provider 'CUDAExecutionProvider' in")
    assert info["providers"] == ["CPUExecutionProvider"]
    json.dumps(info)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ("cpu", "default")),
        ({"device": "cpu"}, ("cpu", "argument")),
        ({"providers": ["CPU"]}, ("CPUExecutionProvider", "providers")),
    ],
)
def test_info_says_where_it_runs_and_who_decided(arguments, expected) -> None:
    with Ranker(**arguments) as made:
        info = made.info()
        assert (info["device"], info["device_source"]) == expected
        assert pickle.loads(pickle.dumps(made)).info() == info


@pytest.mark.parametrize("device", ["gpu", "CUDA", "", 0])
def test_an_unknown_device_is_refused_with_those_that_are_known(device) -> None:
    with pytest.raises(InvalidInput, match=r"device must be one of cpu, cuda, auto"):
        Ranker(device=device)


def test_a_device_and_providers_together_are_refused() -> None:
    with pytest.raises(InvalidInput, match="both say where to run"):
        Ranker(device="cpu", providers=["CPU"])


@pytest.mark.skipif(
    not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason="onnxruntime says since 1.24 where an operator runs",
)
def test_products_that_were_left_to_the_cpu_are_seen() -> None:
    # options make it more than the plain CPU, so that onnxruntime records who got what
    assert {"MatMul", "MatMulIntegerToFloat"} <= {
        *products_on_cpu(Sessions(BUNDLED, 1, [("CPU", {})]))
    }


@pytest.fixture
def cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that was built for CUDA, on a machine without a GPU that works.

    Stood in for, because such a build is another package in the place of this one, and because it
    has to fail here in the same way on machines that have a GPU. What is said is what it says.
    """
    real = onnxruntime.InferenceSession

    def session(*arguments: Any, providers: list[Any], **more: Any) -> Any:
        if wants_cuda(providers):
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1\nat")
        return real(*arguments, providers=providers, **more)

    build_with_cuda(monkeypatch, session, "")


@pytest.fixture
def cuda_without_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where CUDA's libraries are missing: it opens the graph, on the CPU."""
    real = onnxruntime.InferenceSession

    def session(*arguments: Any, providers: list[Any], **more: Any) -> Any:
        rest = [provider for provider in providers if not wants_cuda([provider])]
        return real(*arguments, providers=rest or ["CPUExecutionProvider"], **more)

    build_with_cuda(monkeypatch, session, "Failed to load libcublasLt.so.13: cannot open\nmore")


def build_with_cuda(monkeypatch: pytest.MonkeyPatch, session: Any, preload_says: str) -> None:
    has = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: has)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(preload_says), raising=False)


def wants_cuda(providers: list[Any]) -> bool:
    names = [entry if isinstance(entry, str) else entry[0] for entry in providers]
    return "CUDAExecutionProvider" in names


@pytest.mark.parametrize("wish", ON_CUDA)
def test_cuda_that_does_not_start_is_refused_with_what_it_lacks(
    cuda_without_its_libraries: None, wish: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    says = r"could not start CUDA.*libcublasLt.*nvidia-smi.*onnxruntime-gpu\[cuda,cudnn\]"
    with pytest.raises(ProviderUnavailable, match=says):
        Ranker(**wish)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wish", ON_CUDA)
def test_cuda_that_cannot_open_a_sound_file_is_refused_with_the_cause(
    cuda_without_a_gpu: None, wish: dict[str, Any]
) -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"no CUDA-capable device is detected.*nvidia-smi"
    ) as raised:
        Ranker(**wish)
    assert "damaged" not in str(raised.value)


def test_auto_falls_back_where_cuda_cannot_open_a_sound_file(
    cuda_without_a_gpu: None, ranker: Ranker
) -> None:
    with Ranker(device="auto") as auto:
        info = auto.info()
        np.testing.assert_array_equal(auto.score(QUERY, PASSAGES), ranker.score(QUERY, PASSAGES))
    assert (info["device"], info["providers"]) == ("cpu", ["CPUExecutionProvider"])
    assert "no CUDA-capable device is detected" in info["device_source"]


@pytest.mark.parametrize("wish", [*ON_CUDA, {"device": "auto"}, {"providers": ["CPU"]}])
def test_a_damaged_file_is_said_to_be_damaged_whatever_the_device(
    cuda_without_a_gpu: None, tmp_path: Path, wish: dict[str, Any]
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(bundled_folder(), folder)
    graph = folder / BUNDLED.name
    content = graph.read_bytes()
    graph.write_bytes(b"\xff" * len(content))
    with pytest.raises(InvalidModel, match="damaged"):
        Ranker(folder, **wish)


def test_a_provider_goes_by_the_name_that_people_use(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["DmlExecutionProvider", "OpenVINOExecutionProvider", "CoreMLExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: known)
    wishes = ["DirectML", ("OpenVINO", {"device_type": "CPU"}), "coreml"]
    assert resolve(wishes) == [known[0], (known[1], {"device_type": "CPU"}), known[2]]
