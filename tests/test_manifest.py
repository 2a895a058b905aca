"""What reranker.json says, and that what is wrong in it is named."""

from pathlib import Path
from typing import Any

import pytest
from folder_support import documented, folder_with, manifest_keys

from flashrank_lite import InvalidModel
from flashrank_lite.models.folder import open_folder
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.models.verification import verify


def test_the_bundled_model_is_what_its_manifest_says() -> None:
    model = open_folder(bundled_folder())
    manifest = model.manifest
    assert {model.graph.file, "tokenizer.json", "config.json"} <= {*verify(bundled_folder())}
    assert manifest.license
    assert manifest.languages


# A value of each key that the description explains, other than the toy folder's.
OTHERS: dict[str, Any] = {
    "format": 2,
    "name": "other",
    "head": {"type": "two_class"},
    "activation": "sigmoid",
    "max_length": 64,
    "variants": [{"file": "model.onnx"}],
    "files": {},
    "languages": ["fr"],
    "license": "apache-2.0",
    "template": {"segments": ["{query} {passage}"], "instruction": ""},
    "padding_side": "left",
    "late_interaction": {"maxsim": 1.0},
    "token_types": False,
}
FOR_PEOPLE = {"inputs"}


def test_every_key_that_is_documented_decides_something(tmp_path: Path) -> None:
    toy = open_folder(folder_with(tmp_path / "m")).manifest
    for key, other in OTHERS.items():
        try:
            changed = open_folder(folder_with(tmp_path / "m", **{key: other})).manifest
        except InvalidModel as error:
            assert key in str(error)  # noqa: PT017
        else:
            assert changed != toy, key
    assert documented(*OTHERS, *FOR_PEOPLE) == {*OTHERS, *FOR_PEOPLE}


def test_every_key_of_the_bundled_manifest_is_documented() -> None:
    keys = manifest_keys(bundled_folder())
    assert keys - documented(*keys) == set()


def test_a_manifest_is_read(tmp_path: Path) -> None:
    model = open_folder(folder_with(tmp_path / "m", head={"type": "two_class", "relevant": 0}))
    manifest = model.manifest
    assert (manifest.name, manifest.head, manifest.relevant) == ("toy", "two_class", 0)
    assert (manifest.activation, manifest.max_length, manifest.length_limit) == ("raw", 128, 128)
    assert (manifest.languages, manifest.license) == (("en", "de"), "mit")
    assert [variant.file for variant in manifest.variants] == ["model.onnx", "not-there.onnx"]
    assert model.graph.precision == "fp32"
    assert model.graph.batch_invariant is True


def test_config_json_beside_a_manifest_lifts_the_length_limit(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    assert open_folder(folder).manifest.max_length == 128
    assert open_folder(folder).manifest.length_limit == 512


@pytest.mark.parametrize(
    "key", ["format", "name", "head", "activation", "max_length", "variants", "files"]
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidModel, match=f"reranker.json lacks the key '{key}'"):
        open_folder(folder_with(tmp_path / "m", **{key: None}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 2.*upgrade flashrank-lite"),
        ({"format": 0}, "format 0.*export the model again"),
        ({"format": "1"}, "'1' for 'format'.*of type int"),
        ({"head": {"type": "listwise"}}, '"listwise" for \'type\'.*"logit" or "two_class"'),
        ({"head": {}}, "lacks the key 'type'"),
        ({"head": {"type": "two_class", "relevant": 2}}, "2 for 'relevant'.*0 or 1"),
        ({"activation": "softmax"}, "\"softmax\" for 'activation'"),
        ({"head": {"type": "two_class", "relevant": True}}, "true for 'relevant'"),
        ({"token_types": 0}, "0 for 'token_types'.*true or false"),
        ({"padding_side": "up"}, "\"up\" for 'padding_side'"),
        ({"max_length": "512"}, "of type int"),
        ({"max_length": True}, "of type int"),
        ({"variants": []}, "no variants"),
        ({"variants": ["model.onnx"]}, "lacks the key 'file'"),
        ({"variants": [{"file": "../model.onnx"}]}, "does not lie in its folder"),
        ({"variants": [{"file": "/etc/passwd"}]}, "does not lie in its folder"),
        ({"variants": [{"file": "gone.onnx"}]}, r"its reranker.json lists \(gone.onnx\)"),
        ({"variants": [{"file": "model.onnx", "data": {"gone_data": {}}}]}, "gone_data is missing"),
        ({"variants": [{"file": "model.onnx", "data": {"/x": {}}}]}, "does not lie in its folder"),
        ({"variants": [{"file": "model.onnx", "data": ["x"]}]}, "for 'data'.*of type dict"),
        ({"files": {"gone.txt": {"size": 1}}}, "gone.txt is missing"),
        ({"files": {"tokenizer.json": {"size": "2"}}}, "'2' for 'size'"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        open_folder(folder_with(tmp_path / "m", **changes))


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = folder_with(tmp_path / "m")
    (folder / "reranker.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidModel, match=r"reranker\.json"):
        open_folder(folder)
