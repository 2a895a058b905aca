"""Models that come with a Python package: the bundled one, also out of a zip file, and installed
packages that announce theirs.
"""

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PASSAGES, QUERY, ROOT
from toy_models import model_files, with_manifest

from flashrank_lite import InvalidInput, InvalidModel, Ranker
from flashrank_lite.cli import main
from flashrank_lite.models.resolve import resolve

SKIPPED = shutil.ignore_patterns("__pycache__")

# In a zip file


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in a zip file."""
    file = tmp_path_factory.mktemp("zip") / "application.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted((ROOT / "flashrank_lite").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(ROOT))
    return file


RANK = f"""
import flashrank_lite, json
from flashrank_lite import Ranker
assert ".zip" in flashrank_lite.__file__
with Ranker() as ranker:
    info = ranker.info()
    scores = ranker.score({QUERY!r}, {PASSAGES[:3]!r}).tolist()
print(json.dumps([info["path"], info["source"], scores]))
"""


def test_out_of_a_zip_file_the_bundled_model_is_unpacked_once_and_ranks_the_same(
    zipped: Path, run_python: Callable[..., str], tmp_path: Path, ranker: Ranker
) -> None:
    environment = {"PYTHONPATH": str(zipped), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["LOCALAPPDATA"] = environment["XDG_CACHE_HOME"]
    path, source, scores = json.loads(run_python(RANK, **environment))
    assert Path(path).parent == tmp_path / "cache" / "flashrank-lite"
    assert source == "bundled"
    assert scores == ranker.score(QUERY, PASSAGES[:3]).tolist()
    before = {file: file.stat().st_ino for file in Path(path).iterdir()}
    assert json.loads(run_python(RANK, **environment)) == [path, source, scores]
    assert {file: file.stat().st_ino for file in Path(path).iterdir()} == before
    (Path(path) / "tokenizer.json").unlink()  # a cleaner of caches was there
    assert json.loads(run_python(RANK, **environment)) == [path, source, scores]
    assert [folder.name for folder in Path(path).parent.iterdir()] == [Path(path).name]


REFUSED = """
from flashrank_lite import FlashRankLiteError, Ranker
try:
    Ranker({model!r})
except FlashRankLiteError as error:
    print(type(error).__name__, error)
"""


def test_a_zip_file_whose_model_cannot_be_unpacked_is_said(
    zipped: Path, run_python: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    places = {name: str(tmp_path / "file") for name in ("XDG_CACHE_HOME", "LOCALAPPDATA")}
    said = run_python(REFUSED.format(model=None), PYTHONPATH=str(zipped), **places)
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    assert said.startswith("CacheNotWritable the model lies in a zip file")
    assert f"set {variable} to a folder that can be written" in said


def test_out_of_a_zip_file_the_catalog_is_known(
    zipped: Path, run_python: Callable[..., str]
) -> None:
    said = run_python(REFUSED.format(model="bge-reranker-bas"), PYTHONPATH=str(zipped))
    assert "Did you mean bge-reranker-base" in said


def test_an_installation_without_the_bundled_model_is_said(
    run_python: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copytree(
        ROOT / "flashrank_lite",
        tmp_path / "site" / "flashrank_lite",
        ignore=lambda folder, names: {*SKIPPED(folder, names), "nano"} & {*names},
    )
    said = run_python(REFUSED.format(model=None), PYTHONPATH=str(tmp_path / "site"))
    assert said.startswith("ModelNotFound the bundled model is missing")
    assert "Install flashrank-lite again" in said


# In packages of their own


def install(site: Path, name: str, value: str, files: dict[str, bytes] | None = None) -> None:
    """What pip leaves of a distribution that announces a model: its metadata and its package."""
    metadata = site / f"{value.split(':')[0].split('.')[0]}_{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = f"[flashrank_lite.models]\n{name} = {value}\n"
    (metadata / "entry_points.txt").write_text(points)
    package = site / value.split(":")[0]
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    for file, content in (files or {}).items():
        (package / file).write_bytes(content)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def small() -> dict[str, bytes]:
    files = with_manifest(model_files("model.onnx"), "model.onnx", languages=["en"], license="mit")
    return {**files, "reranker.json": files["reranker.json"].replace(b'"toy"', b'"small"')}


def test_the_model_of_an_installed_package_is_loaded_by_its_name(site: Path) -> None:
    install(site, "small", "flashrank_lite_small", small())
    with Ranker("small") as ranker:
        assert len(ranker.rank(QUERY, PASSAGES)) == len(PASSAGES)
        info = ranker.info()
    assert (info["model"], info["source"]) == ("small", "package")
    assert info["path"] == str(site / "flashrank_lite_small")
    again = resolve("SMALL").reload_arguments()
    assert again["model"] == "small"
    assert resolve(**again) == resolve("small")
    with pytest.raises(InvalidInput, match="leave it out"):
        Ranker("small", revision="v1")


def test_a_package_may_announce_a_function_that_returns_the_folder(site: Path) -> None:
    install(site, "elsewhere", "places_of_models:folder")
    (site / "model").mkdir()
    for name, content in small().items():
        (site / "model" / name).write_bytes(content)
    code = "import pathlib\ndef folder():\n    return pathlib.Path(__file__).parents[1] / 'model'\n"
    (site / "places_of_models" / "__init__.py").write_text(code)
    assert resolve("elsewhere").folder == site / "model"


def test_an_installed_package_may_lie_in_a_zip_file(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "small", "flashrank_lite_small_zipped", small())
    file = shutil.make_archive(str(tmp_path / "zipped"), "zip", site)
    shutil.rmtree(site)
    monkeypatch.syspath_prepend(file)
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    found = resolve("small")
    assert (found.manifest.name, found.source) == ("small", "package")
    assert found.folder.parent == tmp_path / "cache" / "flashrank-lite"


def test_list_and_verify_know_the_models_of_installed_packages(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "small", "flashrank_lite_small_listed", small())
    install(site, "broken", "flashrank_lite_broken", {"reranker.json": b"{"})
    assert main(["models", "list", "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["small"]["on_disk"] is True
    assert (rows["small"]["languages"], rows["small"]["license"]) == (["en"], "mit")
    assert "broken" not in rows
    assert main(["models", "verify", "small", "--format", "json"]) == 0
    assert "model.onnx" in json.loads(capsys.readouterr().out)["verified_files"]


def test_what_an_installed_package_announces_wrongly_is_said(site: Path) -> None:
    install(site, "gone", "flashrank_lite_gone:no_such_function")
    with pytest.raises(InvalidModel, match=r"'gone'.*AttributeError.*install its package again"):
        Ranker("gone")
    install(site, "twice", "flashrank_lite_first", small())
    install(site, "twice", "flashrank_lite_second", small())
    with pytest.raises(InvalidModel, match=r"two packages announce a model 'twice'"):
        Ranker("twice")


def test_the_default_model_does_not_look_through_installed_packages(
    run_python: Callable[..., str],
) -> None:
    code = "import sys\nfrom flashrank_lite.models.resolve import resolve\n"
    code += "assert resolve().source == resolve('nano').source == 'bundled'\n"
    code += "print('importlib.metadata' in sys.modules)"
    assert run_python(code).strip() == "False"


# What a load takes


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "tokenizers", "onnxruntime", "huggingface_hub"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
from flashrank_lite.models.packages import bundled_folder
from flashrank_lite.models.resolve import resolve
model = resolve()
assert model.folder == bundled_folder()
print(model.manifest.name, model.graph.file)
"""


def test_a_model_is_found_and_described_without_numpy_and_tokenizers(
    run_python: Callable[..., str],
) -> None:
    name, graph = run_python(BLOCKED).split()
    assert name == "nano"
    assert graph.endswith(".onnx")


COUNTED = """
import json, pathlib, sys
from collections import Counter
read = Counter()

def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".json"):
        read[pathlib.Path(arguments[0]).name] += 1

sys.addaudithook(watch)
from flashrank_lite import Ranker
Ranker(*sys.argv[1:]).close()
print(json.dumps(read))
"""


def test_each_json_file_is_read_once_a_load(run_python: Callable[..., str]) -> None:
    read = json.loads(run_python(COUNTED))
    assert read["reranker.json"] == 1
    assert max(read.values()) == 1
