"""Settings: where they come from, which wins, and errors that say where."""

from pathlib import Path

import pytest
from conftest import ROOT
from server_support import needs

needs("yaml")

from flashrank_lite.errors import FlashRankLiteError, InvalidInput  # noqa: E402
from flashrank_lite.server.configuration import resolve  # noqa: E402
from flashrank_lite.server.settings import ModelSpec, Settings  # noqa: E402


def of_file(tmp_path: Path, text: str, name: str = "serve.yaml") -> Settings:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return resolve({}, {}, str(path))


def test_without_any_the_bundled_model_serves_this_machine():
    settings = resolve({}, {})
    assert settings.host == "127.0.0.1"
    assert settings.served() == (ModelSpec("nano", None),)


def test_a_flag_wins_over_a_variable_and_that_over_the_file(tmp_path: Path):
    path = tmp_path / "serve.toml"
    path.write_text("port = 1\nmax_queue = 2\ngrace = 3.5\n")
    variables = {"FLASHRANK_LITE_MAX_QUEUE": "20", "FLASHRANK_LITE_PORT": "10"}
    settings = resolve({"port": "100"}, variables, str(path))
    assert (settings.port, settings.max_queue, settings.grace) == (100, 20, 3.5)


def test_a_variable_holds_several_values_parted_by_commas():
    variables = {
        "FLASHRANK_LITE_MODEL": "nano, mine=./folder",
        "FLASHRANK_LITE_ALIAS": "rerank-v3.5=nano,x=mine",
        "FLASHRANK_LITE_API_KEY": "a,b",
        "FLASHRANK_LITE_NO_AUTH": "yes",
    }
    settings = resolve({}, variables)
    assert settings.models == (ModelSpec("nano", "nano"), ModelSpec("mine", "./folder"))
    assert settings.aliases == {"rerank-v3.5": "nano", "x": "mine"}
    assert settings.api_keys == ("a", "b")
    assert settings.no_auth


@pytest.mark.parametrize("name", ["serve.yaml", "serve.toml"])
def test_a_file_holds_lists_and_names(tmp_path: Path, name: str):
    text = {
        "serve.yaml": "models: [nano, mine=./folder]\naliases:\n  rerank-v3.5: nano\n",
        "serve.toml": 'models = ["nano", "mine=./folder"]\n[aliases]\n"rerank-v3.5" = "nano"\n',
    }[name]
    settings = of_file(tmp_path, text, name)
    assert [spec.name for spec in settings.models] == ["nano", "mine"]
    assert settings.aliases == {"rerank-v3.5": "nano"}


def test_metaranks_file_names_the_models(tmp_path: Path):
    text = """\
state:
  type: redis
inference:
  ce:
    type: cross-encoder
    model: cross-encoder/ms-marco-MiniLM-L-6-v2
    modelFile: onnx/model.onnx
  local:
    type: cross-encoder
    model: file:///models/mine
    cache: scores.csv
features:
  - name: ce
"""
    assert of_file(tmp_path, text).models == (
        ModelSpec("ce", "cross-encoder/ms-marco-MiniLM-L-6-v2", "onnx/model.onnx"),
        ModelSpec("local", "/models/mine"),
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "port: 1\nprot: 2\n", "line 2: there is no setting 'prot'"),
        ("a.yaml", "port: 1\n\nmax_queue: many\n", "line 3 has to be a whole number"),
        ("a.yaml", "port: 1\ngrace: [1]\n", "line 2: grace has to be a number of seconds"),
        ("a.yaml", "port: 1\n  x: [\n", "line 2"),
        ("a.yaml", "- port\n", "line 1: settings are written as name: value"),
        ("a.yaml", "port: 1\nno_auth: maybe\n", "line 2 has to be true or false"),
        ("a.yaml", "inference:\n  a:\n    type: bi-encoder\n    model: x\n", "line 2"),
        ("a.yaml", "inference:\n  a:\n    type: cross-encoder\n", "line 2"),
        ("a.toml", "port = 1\nprot = 2\n", "line 2: there is no setting 'prot'"),
        ("a.toml", "port = 1\nmax_queue =\n", "line 2"),
        ("a.toml", '[inference.a]\ntype = "bi-encoder"\nmodel = "x"\n', "line 1"),
    ],
)
def test_an_error_names_the_file_and_the_line(tmp_path: Path, name: str, text: str, said: str):
    with pytest.raises(InvalidInput) as caught:
        of_file(tmp_path, text, name)
    assert name in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "variables", "said"),
    [
        ({"port": "http"}, {}, "--port has to be a whole number"),
        ({}, {"FLASHRANK_LITE_TIMEOUT": "soon"}, "FLASHRANK_LITE_TIMEOUT has to be a number"),
        ({"aliases": ["a"]}, {}, "--alias has to be NAME=MODEL"),
        ({"aliases": ["a=gone"]}, {}, "'gone', which is not served"),
        ({"models": ["nano", "nano"]}, {}, "two models are called 'nano'"),
        ({"max_queue": "0"}, {}, "max_queue must be at least 1"),
        ({"port": "70000"}, {}, "port must be from 0 to 65535"),
        ({"log_level": "loud"}, {}, "log_level must be one of"),
        ({"api_key_file": "/gone/keys"}, {}, "cannot read the file of keys"),
    ],
)
def test_an_error_names_the_flag_or_the_variable(flags, variables, said):
    with pytest.raises(FlashRankLiteError) as caught:
        resolve(flags, variables)
    assert said in str(caught.value)


def test_keys_may_come_from_a_file(tmp_path: Path):
    (tmp_path / "keys").write_text("# ours\none\n\n two \n")
    settings = resolve({"api_keys": ["zero"], "api_key_file": str(tmp_path / "keys")}, {})
    assert settings.api_keys == ("zero", "one", "two")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7"])
def test_it_does_not_open_to_others_without_a_key(host: str):
    with pytest.raises(InvalidInput, match="set a key"):
        Settings(host=host).check_reach()
    Settings(host=host, api_keys=("a",)).check_reach()
    Settings(host=host, no_auth=True).check_reach()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_it_serves_this_machine_without_a_key(host: str):
    Settings(host=host).check_reach()


def test_settings_survive_the_way_to_a_worker_process():
    settings = Settings(
        models=(ModelSpec("a", "b", "c"),), aliases={"x": "a"}, api_keys=("k",), timeout=1.5
    )
    assert Settings.from_json(settings.to_json()) == settings


def test_the_documentation_names_every_flag():
    text = (ROOT / "docs" / "server.md").read_text("utf-8")
    import argparse

    from flashrank_lite.server.configuration import add_flags

    parser = argparse.ArgumentParser()
    add_flags(parser)
    for action in parser._actions:
        for flag in action.option_strings:
            assert f"`{flag}`" in text or flag in ("-h", "--help"), flag
