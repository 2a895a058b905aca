"""The wheel and the sdist: what is in them, and that a clean environment and a frozen app rank."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import flashrank_lite

ROOT = Path(__file__).parents[1]
MODEL = "flashrank_lite/models/nano"
MODEL_LIMIT = 12_000_000  # bytes of the bundled model's folder: what a wheel may ask of everyone
PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
PASSAGES = [
    "The pyramids of Giza were built as tombs.",
    "Agriculture began independently in at least eleven regions of the world.",
    "Warsaw is the capital of Poland.",
]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the sdist of this tree, and the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def contents(wheel):
    """File name → size in bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


@pytest.fixture(scope="module")
def metadata(wheel, contents):
    (name,) = [name for name in contents if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(name))


def tracked(folder):
    """The files of a folder of the source tree, caches left out."""
    paths = (ROOT / folder).rglob("*")
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_nothing_else(contents):
    files = {name for name in contents if ".dist-info/" not in name}
    assert files == tracked("flashrank_lite")
    assert "flashrank_lite/py.typed" in files
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)


def test_the_wheel_holds_a_model_of_at_most_12_mb(contents):
    model = {Path(name).name: size for name, size in contents.items() if name.startswith(MODEL)}
    assert {"reranker.json", "config.json", "tokenizer.json", "README.md"} <= set(model)
    assert [name for name in model if name.endswith(".onnx")]
    assert sum(model.values()) <= MODEL_LIMIT


def test_the_sdist_holds_what_it_takes_to_test_it(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    for folder in ("flashrank_lite", "tests", "examples", "scripts", "benchmarks", "docs"):
        assert tracked(folder) <= names
    assert {path.name for path in ROOT.glob("*.md")} <= names
    assert {"pyproject.toml", "mkdocs.yml", "LICENSE", "CITATION.cff"} <= names


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == flashrank_lite.__version__
    assert citation["license"] == "Apache-2.0"


def test_the_workflow_runs_the_gate_on_every_python_that_the_metadata_names(metadata):
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    gate = workflow["jobs"]["gate"]
    named = [
        line.rsplit(" ", 1)[1]
        for line in metadata.get_all("Classifier")
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
    ]
    assert gate["strategy"]["matrix"]["python"] == named
    assert any(step.get("run") == "bash .ci/run" for step in gate["steps"])


@pytest.mark.parametrize("form", ["bug", "model"])
def test_the_form_of_a_fault_asks_for_the_facts(form):
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml").read_text("utf-8")
    (facts,) = [part for part in yaml.safe_load(text)["body"] if part.get("id") == "info"]
    assert facts["attributes"]["label"] == "flashrank-lite info"
    assert facts["validations"] == {"required": True}


def test_the_metadata_says_what_the_project_is(metadata):
    assert metadata["Name"] == "flashrank-lite"
    assert metadata["Version"] == flashrank_lite.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_runtime_depends_on_four_packages_and_not_on_torch(metadata):
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    names = {line.split(">")[0].split("=")[0].strip() for line in required}
    assert names == {"huggingface-hub", "numpy", "onnxruntime", "tokenizers"}


@pytest.fixture(scope="module")
def clean_environment(wheel, tmp_path_factory):
    """Runs the programs of a new virtual environment with the wheel in it; their output."""
    folder = tmp_path_factory.mktemp("clean")
    home = folder / "venv"
    venv.create(home, with_pip=True)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}

    def call(program, *arguments, text=None, **environment):
        command = [str(programs / program), *map(str, arguments)]
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=folder,
            env=clean | environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("python", *PIP_INSTALL, wheel)
    return call


def test_a_clean_environment_ranks_with_the_wheel(clean_environment):
    call = clean_environment
    found = call("flashrank-lite", "rank", "where did farming begin", text="\n".join(PASSAGES))
    assert json.loads(found.splitlines()[0])["text"] == PASSAGES[1]
    installed = {
        row["name"] for row in json.loads(call("python", "-m", "pip", "list", "--format", "json"))
    }
    assert "flashrank-lite" in installed
    assert not {"torch", "transformers", "onnx"} & installed
    info = json.loads(call("flashrank-lite", "info"))
    home = Path(call("python", "-c", "import sys; print(sys.prefix)").strip())
    assert Path(info["path"]).resolve().is_relative_to(home.resolve())


FROZEN_APP = f"""
import json
from flashrank_lite import FlashRankLiteError, Ranker

def first(model):
    with Ranker(model) as ranker:
        hit = ranker.rank("where did farming begin", {PASSAGES!r})[0]
        return hit.text, ranker.info()["path"]

try:
    Ranker("org/name")
    refusal = None
except FlashRankLiteError as error:
    refusal = type(error).__name__
print(json.dumps([first(None), first("ours"), refusal]))
"""


def test_a_frozen_app_ranks_with_the_models_of_packages(clean_environment, tmp_path):
    """The bundled model, and one that another package announces."""
    site = Path(
        clean_environment(
            "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).strip()
    )
    shutil.copytree(ROOT / MODEL, site / "our_models" / "ours")
    (site / "our_models" / "__init__.py").write_text(
        "from pathlib import Path\n\ndef folder(): return Path(__file__).parent / 'ours'\n"
    )
    announced = site / "our_models-1.0.dist-info"
    announced.mkdir()
    (announced / "METADATA").write_text("Metadata-Version: 2.1\nName: our-models\nVersion: 1.0\n")
    (announced / "entry_points.txt").write_text(
        "[flashrank_lite.models]\nours = our_models:folder\n"
    )
    app = tmp_path / "app.py"
    app.write_text(FROZEN_APP, "utf-8")
    clean_environment("python", *PIP_INSTALL, "pyinstaller>=6")
    clean_environment(
        *("pyinstaller", "--onedir", "--log-level", "ERROR", "--distpath", tmp_path / "dist"),
        *("--workpath", tmp_path / "build", "--specpath", tmp_path, app),
    )
    frozen = tmp_path / "dist" / "app" / ("app.exe" if os.name == "nt" else "app")
    done = subprocess.run(
        [str(frozen)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *found, refusal = json.loads(done.stdout)
    for text, path in found:
        assert text == PASSAGES[1]
        assert Path(path).resolve().is_relative_to(frozen.parent.resolve())
    # huggingface_hub is there as well: what is missing is the model, not a module
    assert refusal in ("ModelNotFound", "DownloadFailed")
