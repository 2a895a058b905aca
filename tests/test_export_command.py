"""`flashrank-lite export`: folders and Hub repositories in, verified model folders out."""

import json
import shutil
from dataclasses import replace

import export_families as families
import pytest
from export_families import pooled, questions
from export_support import require_export
from hub_support import TOKEN, hub
from huggingface_hub import metadata_load

from flashrank_lite import InvalidInput, InvalidModel, ModelNotFound, Ranker
from flashrank_lite.cli import main
from flashrank_lite.errors import AccessDenied, DownloadFailed
from flashrank_lite.models import catalog
from flashrank_lite.models.verification import verify


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
from flashrank_lite.export.card import model_card  # noqa: E402
from flashrank_lite.export.hub import fetch, push  # noqa: E402
from flashrank_lite.export.steps import key_of  # noqa: E402
from flashrank_lite.export.texts import bundled_texts, read_texts  # noqa: E402

__all__ = ["hub"]  # the fixture


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
    stated = metadata_load(exported / "README.md")
    assert (stated["license"], stated["language"]) == ("mit", ["en", "de"])
    assert f"text to score, against {figures['text_to_score_against']}" in card
    for name, value in figures.items():
        if not isinstance(value, str):
            assert name in card or name.startswith("text_to_score")
            assert f"{value:.3g}" in card


def test_what_yaml_could_mistake_in_a_card_reads_back_as_it_was(checkpoint, tmp_path):
    folder = tmp_path / "custom"
    shutil.copytree(checkpoint, folder)
    terms, card = "my terms: v2", tmp_path / "README.md"
    (folder / "README.md").write_text(
        f"---\nlicense: other\nlicense_name: '{terms}'\nlanguage: ['no', en]\n---\n"
    )
    source = read_checkpoint(folder)
    assert (source.license, source.languages) == (terms, ("no", "en"))
    card.write_text(model_card(source, [], ""))
    stated = metadata_load(card)
    assert (stated["license"], stated["license_name"]) == ("other", terms)
    assert stated["language"] == ["no", "en"]


def test_an_int8_graph_that_orders_badly_is_left_out_with_a_warning(
    checkpoint, tmp_path, monkeypatch, capsys
):
    from flashrank_lite.export import fidelity

    monkeypatch.setattr(fidelity, "LEAST_TAU", 1.01)  # as if this one did
    lists, out = tmp_path / "texts.jsonl", tmp_path / "out"
    lists.write_text("\n".join(json.dumps({"query": q, "passages": p}) for q, p in questions()))
    command = ["export", str(checkpoint), str(out), "--calibration", str(lists)]
    assert main([*command, "--require-int8"]) == 1
    assert "Kendall's tau" in capsys.readouterr().err
    assert not out.exists()
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "has no int8 graph" in said
    assert "--int8 accurate" in said
    assert [file.name for file in out.glob("*.onnx")] == ["model.onnx"]
    with Ranker(out) as ranker:
        assert ranker.info()["precision"] == "fp32"


def test_an_export_over_its_own_checkpoint_or_a_file_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(checkpoint, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    source = read_checkpoint(folder)
    for out in (folder, folder / ".." / "mine"):
        with pytest.raises(InvalidInput, match="folder of the checkpoint"):
            export_folder(source, out, questions())
    with pytest.raises(InvalidInput, match="is a file"):
        export_folder(source, folder / "config.json", questions())
    assert main(["export", str(folder), str(folder)]) == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(("lists", "shared"), [(6, set()), (1, {"only"})])
def test_figures_are_of_text_that_int8_was_not_calibrated_on(
    checkpoint, tmp_path, monkeypatch, lists, shared
):
    from flashrank_lite.export import fidelity, folder

    fitted, measured = [], []
    feeds, against_fp32 = folder.feeds_of, fidelity.against_fp32

    def spy_feeds(source, texts):
        fitted.extend(query for query, _ in texts)
        return feeds(source, texts)

    def spy_against_fp32(fp32, int8, texts):
        measured.extend(query for query, _ in texts)
        return against_fp32(fp32, int8, texts)

    monkeypatch.setattr(folder, "feeds_of", spy_feeds)
    monkeypatch.setattr(fidelity, "against_fp32", spy_against_fp32)
    texts = pooled()[:lists]
    if lists == 1:
        texts = [("only", pooled()[0][1])]
    export_folder(read_checkpoint(checkpoint), tmp_path / "out", texts)
    assert set(fitted) & set(measured) == shared
    assert sorted({*fitted, *measured}) == sorted(query for query, _ in texts)


def test_a_refused_export_goes_on_from_its_graphs(checkpoint, tmp_path, monkeypatch):
    from flashrank_lite.export import fidelity, folder

    source, out = read_checkpoint(checkpoint), tmp_path / "out"
    with monkeypatch.context() as strict:
        strict.setattr(fidelity, "LEAST_TAU", 1.01)  # as if its int8 graph ordered badly
        with pytest.raises(InvalidModel, match="--resume"):
            export_folder(source, out, pooled(), require_int8=True, resume=True)
    assert not out.exists()
    kept = sorted(file.name for file in (tmp_path / "out.kept").iterdir())
    assert kept == ["model.onnx", "model_int8.onnx", "steps.json"]
    with monkeypatch.context() as untouched:
        untouched.setattr(folder, "to_onnx", None)  # neither is called again
        untouched.setattr(folder, "quantise_products", None)
        export_folder(source, out, pooled(), resume=True)
    assert sorted(file.name for file in out.glob("*.onnx")) == ["model.onnx", "model_int8.onnx"]
    assert not (tmp_path / "out.kept").exists()
    with Ranker(out) as ranker:
        assert ranker.info()["precision"] == "int8"


def test_other_settings_are_not_resumed_with_the_graphs_of_earlier_ones(checkpoint):
    source = read_checkpoint(checkpoint)
    assert key_of(source, 18) == key_of(source, 18) != key_of(source, 17)
    other_head = replace(source, head={"type": "two_class", "relevant": 0})
    assert key_of(other_head, 18) != key_of(source, 18)


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

    versions = {
        name: entry.version
        for name in ("model.onnx", "model_int8.onnx")
        for entry in onnx.load(str(tmp_path / "out" / name)).opset_import
        if entry.domain == ""
    }
    assert versions == {"model.onnx": 17, "model_int8.onnx": 23}


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
    for letter in "ıпαعघ为ノの김":
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


@pytest.mark.parametrize(
    ("share", "said"), [("MEMORY", "on a larger machine"), ("DISK", "Set TMPDIR")]
)
def test_a_model_that_this_machine_has_no_room_for_is_refused_unread(
    checkpoint, tmp_path, monkeypatch, share, said
):
    from flashrank_lite.export import memory

    monkeypatch.setattr(memory, share, 1e9)  # as if its 0.5 MB of weights were a petabyte
    folder = tmp_path / "without-weights"  # which are not needed to tell
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(InvalidModel, match=said):
        read_checkpoint(folder)


@pytest.fixture
def tiny(hub, checkpoint):
    """The checkpoint as the repository org/tiny; its commit."""
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    return hub.add("org/tiny", {**files, "onnx/model.onnx": b"not asked for"}).commit("main")


def test_a_hub_repository_is_exported_and_pushed(hub, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    out, lists = tmp_path / "out", tmp_path / "texts.jsonl"
    lists.write_text("\n".join(json.dumps({"query": q, "passages": p}) for q, p in questions()))
    arguments = ["--precision", "fp32", "--calibration", str(lists), "--revision", "main"]
    assert main(["export", "org/tiny", str(out), *arguments, "--push-to-hub", "me/tiny"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(out)
    assert printed[1].startswith(f"{hub.url}/me/tiny/commit/")
    assert f"org/tiny@{tiny}" in (out / "README.md").read_text()
    assert hub.uploads == {"me/tiny": {file.name: file.read_bytes() for file in out.iterdir()}}
    assert not any("onnx" in file for file in hub.bodies("org/tiny"))
    with Ranker(out) as ranker:
        assert ranker.info()["model"] == "tiny"


def test_an_upload_that_the_hub_refuses_is_said_and_the_folder_stays(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    (tmp_path / "reranker.json").write_text("{}")
    with pytest.raises(InvalidInput, match="was written, but the Hub did not take it"):
        push(tmp_path, "me/tiny")
    assert hub.uploads == {}


def test_all_files_are_of_one_commit_and_the_newest_is_asked_for(hub, tiny):
    folder, origin = fetch("org/tiny")
    assert origin == f"org/tiny@{tiny}"
    assert folder.name == tiny
    newer = hub.add("org/tiny", {"config.json": b"{}", "pytorch_model.bin": b"w"}).commit("main")
    folder, origin = fetch("org/tiny")
    assert origin == f"org/tiny@{newer}"
    assert {file.name for file in folder.iterdir()} == {"config.json", "pytorch_model.bin"}
    assert fetch("org/tiny", tiny)[1] == f"org/tiny@{tiny}"


def test_without_the_hub_an_earlier_download_is_found(hub, tiny):
    folder, _ = fetch("org/tiny")
    hub.fail("/", status=500)
    assert fetch("org/tiny") == (folder, f"org/tiny@{tiny}")


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, AccessDenied),
        (403, {"X-Error-Code": "GatedRepo"}, AccessDenied),
        (404, {"X-Error-Code": "RepoNotFound"}, ModelNotFound),
        (404, {"X-Error-Code": "RevisionNotFound"}, ModelNotFound),
        (429, {"Retry-After": "0"}, DownloadFailed),
        (500, {}, DownloadFailed),
    ],
)
def test_what_the_hub_answers_is_told_apart_as_the_loader_does(hub, tiny, status, headers, error):
    hub.fail("/api/models", status=status, headers=headers)
    with pytest.raises(error, match=r"org/tiny|answered 429"):
        fetch("org/tiny")


def test_a_name_of_the_catalog_is_its_repository(hub, checkpoint):
    entry = next(e for e in catalog.entries() if e.repository and not e.archive)
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    commit = hub.add(entry.repository, files).commit("main")
    assert fetch(entry.name)[1] == f"{entry.repository}@{commit}"


def test_the_bundled_model_and_repositories_without_weights_are_refused(hub):
    with pytest.raises(InvalidModel, match="ONNX already"):
        fetch("nano")
    hub.add("org/empty", {"config.json": b"{}", "onnx/model.onnx": b"x"})
    with pytest.raises(InvalidModel, match="holds no weights"):
        fetch("org/empty")


def test_a_path_with_dots_is_never_a_repository():
    with pytest.raises(ModelNotFound, match="owner/name"):
        fetch("org/..tiny")
