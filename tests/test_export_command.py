"""``flashrank-lite export``: folders and Hub repositories in, verified model folders out."""

import json
import shutil
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import export_families as families
import pytest
from export_families import questions
from export_support import require_export

from flashrank_lite import InvalidInput, InvalidModel, ModelNotFound, Ranker
from flashrank_lite.cli import main
from flashrank_lite.models.manifest import verify

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_without_the_extra_the_command_says_what_to_install(run_python):
    said = run_python(
        """
import contextlib, io, sys
sys.modules["torch"] = None  # as if it were not installed
from flashrank_lite.cli import main
with contextlib.redirect_stderr(io.StringIO()) as said:
    status = main(["export", "model", "out"])
print(status, said.getvalue())
"""
    )
    assert said.startswith("1 ")
    assert 'pip install "flashrank-lite[export]"' in said
    assert said.strip().count("\n") == 0


require_export()

from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402
from flashrank_lite.export.hub import fetch  # noqa: E402
from flashrank_lite.export.texts import bundled_texts, read_texts  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-reranker"
    families.bert(folder)
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: [en, de]\n---\n# Tiny\n")
    (folder / "LICENSE").write_text("MIT, whoever trained it\n")
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """With nothing said but what to export and where: the command's defaults."""
    out = tmp_path_factory.mktemp("exported") / "out"
    assert main(["export", str(checkpoint), str(out), "--max-length", "128"]) == 0
    return out


def test_the_folder_holds_both_graphs_and_says_what_they_are(checkpoint, exported):
    names = {"LICENSE", "README.md", "config.json", "model.onnx", "model_int8.onnx"}
    assert {file.name for file in exported.iterdir()} == names | {"reranker.json", "tokenizer.json"}
    stated = json.loads((exported / "reranker.json").read_text())
    assert [variant["file"] for variant in stated["variants"]] == ["model_int8.onnx", "model.onnx"]
    assert [variant["requires"] for variant in stated["variants"]] == [[], []]
    assert stated["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert (stated["license"], stated["languages"]) == ("mit", ["en", "de"])
    assert stated["name"] == "tiny-reranker"
    assert sorted(verify(exported)) == sorted(names - {"LICENSE", "README.md"} | {"tokenizer.json"})
    assert (exported / "LICENSE").read_bytes() == (checkpoint / "LICENSE").read_bytes()
    with Ranker(exported) as ranker:
        assert ranker.info()["precision"] == "int8"
        assert ranker.info()["max_length"] == 128


def test_the_card_shows_the_figures_and_the_licence(exported):
    card = (exported / "README.md").read_text()
    figures = json.loads((exported / "reranker.json").read_text())["variants"][0]["fidelity"]
    assert card.startswith("---\nlicense: mit\nlanguage:\n- en\n- de\n")
    for name, value in figures.items():
        assert name in card
        assert f"{value:.3g}" in card


def test_a_card_that_somebody_wrote_stays(checkpoint, tmp_path):
    (tmp_path / "README.md").write_text("my own words")
    export_folder(read_checkpoint(checkpoint), tmp_path, questions(), precisions=["fp32"])
    assert (tmp_path / "README.md").read_text() == "my own words"


def test_texts_and_labels_of_the_user_are_what_is_measured(checkpoint, tmp_path, capsys):
    texts, lists = tmp_path / "texts.jsonl", tmp_path / "mine.jsonl"
    texts.write_text("\n".join(json.dumps({"query": q, "passages": p}) for q, p in questions()))
    rows = [
        {
            "query": q,
            "candidates": [{"id": str(i), "text": t, "label": i == 2} for i, t in enumerate(p)],
        }
        for q, p in questions()
    ]
    lists.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--calibration", str(texts), "--evaluation", str(lists), "--opset", "17"]
    assert main(["export", str(checkpoint), str(tmp_path / "out"), *arguments]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "out")
    table = said.err.splitlines()
    assert any(line.split() == ["int8", "fp32"] for line in table)
    assert any(line.startswith("ndcg@10_mine") for line in table)
    import onnx

    (version,) = [
        entry.version
        for entry in onnx.load(str(tmp_path / "out" / "model.onnx")).opset_import
        if entry.domain == ""
    ]
    assert version == 17


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "out"], "not a folder"),
        (["../x/y", "out"], "not the name of a Hub repository"),
        (["{model}", "out", "--opset", "9"], "opset"),
        (["{model}", "out", "--max-length", "4096"], "max_length"),
        (["{model}", "out", "--revision", "main"], "no revisions"),
        (["{model}", "out", "--calibration", "{model}/config.json"], "not a query with passages"),
        (["{model}", "out", "--template", "missing.json"], "no template file"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    checkpoint, tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    filled = [argument.replace("{model}", str(checkpoint)) for argument in arguments]
    assert main(["export", *filled]) == 1
    error = capsys.readouterr().err
    assert error.startswith("flashrank-lite: error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not (tmp_path / "out").exists()


def test_the_bundled_texts_are_real_lists_in_many_scripts():
    lists = bundled_texts()
    assert len(lists) >= 20
    assert all(len(passages) >= 3 for _, passages in lists)
    everything = "".join(query for query, _ in lists)
    for letter in "ßокαयع为ノ김ậ":
        assert letter in everything


def test_a_calibration_file_of_only_empty_lists_is_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"query": "q", "passages": []}\n')
    with pytest.raises(InvalidInput, match="real text"):
        read_texts(tmp_path / "t.jsonl")


def test_a_slow_tokenizer_alone_is_converted(checkpoint, tmp_path):
    folder = tmp_path / "slow"
    shutil.copytree(checkpoint, folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    words = sorted(vocabulary, key=vocabulary.get)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    export_folder(read_checkpoint(folder), tmp_path / "a", questions(), precisions=["fp32"])
    export_folder(read_checkpoint(checkpoint), tmp_path / "b", questions(), precisions=["fp32"])
    query, passages = questions()[0]
    with Ranker(tmp_path / "a") as converted, Ranker(tmp_path / "b") as fast:
        assert converted.score(query, passages).tolist() == fast.score(query, passages).tolist()


class Exploit:
    """What runs a command where it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_pickled_weights_are_read_as_tensors_and_never_run(checkpoint, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert read_checkpoint(folder).max_length == read_checkpoint(checkpoint).max_length
    torch.save({**weights, "extra": Exploit(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidModel, match="cannot load"):
        read_checkpoint(folder)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_repository_is_never_run(checkpoint, tmp_path):
    folder = tmp_path / "remote"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InvalidModel, match="never run"):
        read_checkpoint(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_beyond_one_onnx_file_are_refused(checkpoint, monkeypatch):
    from flashrank_lite.export import loading

    monkeypatch.setattr(loading, "LARGEST_WEIGHTS", 100_000)
    with pytest.raises(InvalidModel, match="GB at most"):
        read_checkpoint(checkpoint)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download and an upload of small files take."""

    folder = None
    received = None

    def do_HEAD(self):
        self._file(send=False)

    def do_GET(self):
        if "/resolve/" in self.path:
            self._file(send=True)
        elif self.path.startswith("/api/models/org/tiny"):
            names = [file.name for file in sorted(self.folder.iterdir())]
            siblings = [{"rfilename": name} for name in names]
            self._json({"id": "org/tiny", "sha": COMMIT, "siblings": siblings, "private": False})
        else:
            self._missing()

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        if self.path == "/api/repos/create":
            self._json({"url": "http://localhost/me/tiny", "id": "me/tiny"})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [{"path": file["path"], **modes} for file in files]})
        elif "/commit/" in self.path:
            for entry in map(json.loads, body.splitlines()):
                if entry["key"] == "file":
                    self.received[entry["value"]["path"]] = b64decode(entry["value"]["content"])
            url = f"http://localhost/me/tiny/commit/{COMMIT}"
            self._json({"success": True, "commitOid": COMMIT, "commitUrl": url})
        else:
            self._missing()

    def _chunks(self):
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _file(self, *, send):
        file = self.folder / self.path.rsplit("/", 1)[-1]
        if not self.path.startswith("/org/tiny/") or not file.is_file():
            return self._missing()
        data = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if send:
            self.wfile.write(data)

    def _json(self, answer):
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _missing(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(checkpoint):
    handler = type("Handler", (Hub,), {"folder": checkpoint, "received": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.received
    server.shutdown()
    server.server_close()
    thread.join()


# The client reads its address when it is imported: it runs in a process of its own.
def test_a_hub_repository_is_exported_and_pushed(hub, run_python, tmp_path):
    address, received = hub
    out = tmp_path / "out"
    lists = tmp_path / "texts.jsonl"
    lists.write_text("\n".join(json.dumps({"query": q, "passages": p}) for q, p in questions()))
    code = """
import sys
from flashrank_lite.cli import main
sys.exit(main(["export", "org/tiny", *sys.argv[1:]]))
"""
    printed = run_python(
        code,
        arguments=(
            *(str(out), "--precision", "fp32", "--calibration", str(lists)),
            *("--revision", "main", "--push-to-hub", "me/tiny"),
        ),
        HF_ENDPOINT=address,
        HF_TOKEN="hf_made_up",
    )
    assert printed.splitlines()[0] == str(out)
    assert printed.splitlines()[1].endswith(COMMIT)
    assert f"org/tiny@{COMMIT}" in (out / "README.md").read_text()
    assert {name: len(data) for name, data in received.items()} == {
        file.name: file.stat().st_size for file in out.iterdir()
    }
    with Ranker(out) as ranker:
        assert ranker.info()["model"] == "tiny"


def test_a_repository_that_the_hub_does_not_have_is_named(hub, run_python):
    code = """
from flashrank_lite.errors import ModelNotFound
from flashrank_lite.export.hub import fetch
try:
    fetch("org/absent")
except ModelNotFound as error:
    print(error)
"""
    said = run_python(code, HF_ENDPOINT=hub[0])
    assert "the Hub did not give org/absent" in said
    assert "HF_TOKEN" in said


def test_a_path_with_dots_is_never_a_repository():
    with pytest.raises(ModelNotFound, match="owner/name"):
        fetch("org/..tiny")
