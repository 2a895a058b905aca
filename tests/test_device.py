"""device= is granted or refused; nothing runs on the CPU that was asked to run elsewhere."""

import json
import pickle

import numpy as np
import onnxruntime
import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import InvalidInput, ProviderUnavailable, Ranker
from flashrank_lite.device import products_on_cpu
from flashrank_lite.graph import Graph
from flashrank_lite.models.sources import bundled_folder

no_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this onnxruntime has CUDA",
)
BUNDLED = next(bundled_folder().glob("*.onnx"))


@no_cuda
def test_cuda_without_its_build_is_refused_with_what_to_install() -> None:
    with pytest.raises(ProviderUnavailable, match=r"no CUDA.*pip install onnxruntime-gpu"):
        Ranker(device="cuda")


@no_cuda
def test_auto_falls_back_to_the_cpu_and_says_why(ranker: Ranker) -> None:
    with Ranker(device="auto") as auto:
        info = auto.info()
        np.testing.assert_array_equal(auto.score(QUERY, PASSAGES), ranker.score(QUERY, PASSAGES))
    assert info["device"] == "cpu"
    assert info["device_source"].startswith("auto: no CUDA in this onnxruntime")
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
        *products_on_cpu(Graph(BUNDLED, 1, [("CPU", {})]))
    }
