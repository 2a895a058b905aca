"""ColBERT checkpoints in three layouts, and embedding models: scored as sentence-transformers does.

PyLate pins an older sentence-transformers, so its folders are written here as it writes them;
`python -m benchmarks.pylate` compares with PyLate itself.
"""

import json
import os
import string
from typing import Any

import export_families as families
import numpy as np
import pytest
from export_families import pooled, questions
from export_support import require_export

from flashrank_lite import InvalidInput, InvalidModel, Ranker
from flashrank_lite.cli import main

require_export()
if os.environ.get("FLASHRANK_LITE_REQUIRE_EXPORT") != "1":
    pytest.importorskip("sentence_transformers")

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from sentence_transformers import MultiVectorEncoder, SentenceTransformer  # noqa: E402
from sentence_transformers.base.modules import Dense, Normalize, Transformer  # noqa: E402
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Pooling  # noqa: E402

from flashrank_lite.export import export_folder, read_checkpoint  # noqa: E402
from flashrank_lite.export.checkpoints.apart import Prompts  # noqa: E402

WIDTH = 64  # of a projection: the least that is rounded to int8
FIT = 6  # of the passages of a question: longer ones are cut, and stored in windows


def backbone(folder, kind="bert", tokens=()):
    """A small encoder with random weights, whose tokenizer has some more tokens."""
    from transformers import AutoTokenizer, BertConfig, BertModel, ModernBertModel

    torch.manual_seed(0)
    if kind == "bert":
        model = BertModel(BertConfig(vocab_size=families.word_piece(folder), **families.SIZES))
    else:
        model = ModernBertModel(families.modernbert_config(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    model.resize_token_embeddings(len(tokenizer))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pylate(folder, kind="bert", **stated):
    """As PyLate 1.6 saves it."""
    backbone(folder, kind, [stated.get("query_prefix", "[Q] "), "[D] "])
    dense = folder / "1_Dense"
    dense.mkdir()
    sizes = {"in_features": 64, "out_features": WIDTH, "bias": False, "use_residual": False}
    act = "torch.nn.modules.linear.Identity"
    (dense / "config.json").write_text(json.dumps({**sizes, "activation_function": act}))
    save_file({"linear.weight": torch.randn(WIDTH, 64) / 8}, dense / "model.safetensors")
    modules = [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Dense", "pylate.models.Dense.Dense"),
    ]
    entries = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 99}')
    settings = {
        "model_type": "ColBERT",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 24,
        "document_length": 100,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
        "do_query_expansion": True,
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps({**settings, **stated}))


def stanford(folder):
    """As Stanford's ColBERT saves it: the projection among the weights of the backbone."""
    backbone(folder, tokens=["[unused0]", "[unused1]"])
    file = folder / "model.safetensors"
    weights = {f"bert.{name}": tensor for name, tensor in load_file(file).items()}
    weights["linear.weight"] = torch.randn(WIDTH, 64) / 8
    save_file(weights, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    stated = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 20}
    (folder / "artifact.metadata").write_text(json.dumps({**stated, "doc_maxlen": 90}))


def native(folder, unit=True):
    """As sentence-transformers saves a `MultiVectorEncoder` of its own."""
    backbone(folder.with_name("backbone"))
    dense = Dense(64, WIDTH, bias=False, module_input_name="token_embeddings")
    modules = [
        Transformer(
            str(folder.with_name("backbone")),
            query_length=30,
            document_length=80,
            query_expansion={"strategy": "min", "attend": True, "length": 16},
        ),
        dense,
        MultiVectorMask(["the", "."], skiplist_tasks=["query", "document"]),
        *([Normalize(module_input_name="token_embeddings")] if unit else []),
    ]
    model = MultiVectorEncoder(modules=modules, prompts={"query": "ask: ", "document": "read: "})
    model.similarity_fn_name = "meanmaxsim"
    model.save_pretrained(str(folder))


COLBERT: dict[str, Any] = {
    "pylate": pylate,
    "pylate, expansion attended": lambda folder: pylate(folder, attend_to_expansion_tokens=True),
    "pylate, without expansion": lambda folder: pylate(folder, do_query_expansion=False),
    # no longer than its window of attention reaches from the end of an empty query
    "pylate, ModernBERT": lambda folder: pylate(
        folder, "modernbert", skiplist_words=["a", "."], query_length=10
    ),
    "stanford": stanford,
    "sentence-transformers": native,
}


@pytest.fixture(scope="module", params=COLBERT)
def colbert(request, tmp_path_factory):
    """A checkpoint, and its export."""
    folder = tmp_path_factory.mktemp("colbert")
    COLBERT[request.param](folder / "saved")
    source = read_checkpoint(folder / "saved")
    figures = export_folder(source, folder / "out", pooled()[:4], precisions=("fp32", "int8"))
    return folder / "saved", folder / "out", figures


def fp32(out, **options):
    return Ranker(out, file="model.onnx", long="truncate", **options)


def test_a_colbert_checkpoint_scores_as_its_library_does(colbert):
    saved, out, figures = colbert
    theirs = MultiVectorEncoder(str(saved), device="cpu", local_files_only=True)
    odd = ["", ".", "a, b; c!", "the " * 120]
    assert figures["fp32"]["text_to_score_max_abs_logit"] <= 1e-3
    with fp32(out) as ranker:
        for query, passages in [*questions()[:3], ("how long, really " * 20, odd), ("", odd)]:
            asked = theirs.encode_query([query])
            expected = [
                float(theirs.similarity(asked, theirs.encode_document([passage]))[0, 0])
                for passage in passages
            ]
            assert np.ptp(expected) > 0.01
            np.testing.assert_allclose(ranker.score(query, passages), expected, atol=1e-3)


def test_a_store_keeps_the_projected_states_of_a_colbert_model(colbert, tmp_path):
    _, out, _ = colbert
    query, passages = questions()[0]
    passages = passages[:FIT]
    with fp32(out) as ranker:
        anew = ranker.score(query, passages)
        stores = {
            precision: ranker.encode_passages(passages, tmp_path / precision, precision=precision)
            for precision in ("int8", "2bit")
        }
        found = ranker.score(query, stores["int8"])
        np.testing.assert_allclose(found, anew, atol=0.02 * np.abs(anew).max())
        again = ranker.score(query, stores["int8"].select([3, 1]))
        np.testing.assert_array_equal(again, found[[3, 1]])
    sizes = {name: (tmp_path / name / "segments").rglob("codes.bin") for name in stores}
    bytes_of = {name: sum(file.stat().st_size for file in files) for name, files in sizes.items()}
    assert bytes_of["int8"] % WIDTH == 0
    assert bytes_of["2bit"] * 4 == bytes_of["int8"]


def test_the_manifest_says_how_texts_are_read(tmp_path):
    pylate(tmp_path / "saved")
    export_folder(
        read_checkpoint(tmp_path / "saved"), tmp_path / "out", pooled()[:2], precisions=("fp32",)
    )
    manifest = json.loads((tmp_path / "out" / "reranker.json").read_text())
    late = manifest["late_interaction"]
    tokenizer = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert (late["width"], manifest["max_length"], manifest["activation"]) == (WIDTH, 100, "raw")
    assert late["query"]["marker"] == ids["[Q] "]
    assert late["passage"]["marker"] == ids["[D] "]
    expansion = {"token": ids["[MASK]"], "length": 24, "attend": False}
    assert late["query"]["expansion"] == expansion
    assert late["passage"]["skip"]
    late["width"] = 32
    (tmp_path / "out" / "reranker.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidModel, match="64 columns, and the manifest says 32"):
        Ranker(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": "wide"}, "'wide' for 'width': it must be a whole number"),
        ({"average": 1}, "1 for 'average': it must be true or false"),
        ({"query": []}, "for 'query': it must be an object"),
        ({"passage": {"skip": ["."]}}, "for 'skip': it must be a list of token ids"),
        ({"query": {"expansion": {"token": 1}}}, "None for 'length': it must be a whole number"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused(colbert, tmp_path, change, said):
    _, out, _ = colbert
    for file in out.iterdir():
        (tmp_path / file.name).symlink_to(file)
    manifest = json.loads((out / "reranker.json").read_text())
    manifest["late_interaction"] |= change
    (tmp_path / "reranker.json").unlink()
    (tmp_path / "reranker.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidModel, match=said):
        Ranker(tmp_path)


def test_a_longer_or_shorter_maximum_is_that_of_passages(colbert):
    _, out, _ = colbert
    text = " ".join(word for _, passages in questions() for word in passages[-1].split())
    with fp32(out, max_length=40) as short, fp32(out, max_length=150) as long:
        found = [ranker.rank("how long", [text])[0] for ranker in (short, long)]
    assert found[0].truncated
    assert found[0].score != found[1].score
    with pytest.raises(InvalidInput, match="max_length=2 is too small"):
        fp32(out, max_length=2)


def test_a_colbert_model_without_its_projection_is_refused(tmp_path):
    pylate(tmp_path / "pylate")
    entries = json.loads((tmp_path / "pylate" / "modules.json").read_text())
    (tmp_path / "pylate" / "modules.json").write_text(json.dumps(entries[:1]))
    with pytest.raises(InvalidModel, match="it has no projection"):
        read_checkpoint(tmp_path / "pylate")
    native(tmp_path / "native", unit=False)
    with pytest.raises(InvalidModel, match="without a Normalize"):
        read_checkpoint(tmp_path / "native")
    stanford(tmp_path / "stanford")
    file = tmp_path / "stanford" / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if name[:6] != "linear"}
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InvalidModel, match=r"projection linear\.weight cannot be read"):
        read_checkpoint(tmp_path / "stanford")


# Embedding models


def embedding(folder, pooling, *heads, kind="bert", **stated):
    backbone(folder.with_name("backbone"), kind)
    modules = [Transformer(str(folder.with_name("backbone")), max_seq_length=120)]
    modules += [Pooling(64, pooling), *heads]
    model = SentenceTransformer(modules=modules, device="cpu", **stated)
    model.save_pretrained(str(folder))
    return folder


def expect(saved, query, passages):
    theirs = SentenceTransformer(str(saved), device="cpu", local_files_only=True)
    asked, read = theirs.encode_query([query]), theirs.encode_document(passages)
    return theirs.similarity(asked, read)[0].numpy()


@pytest.mark.parametrize(
    ("pooling", "heads", "stated"),
    [
        ("cls", lambda: [Normalize()], {}),
        ("mean", list, {"prompts": {"query": "query: ", "passage": "passage: "}}),
        ("lasttoken", lambda: [Dense(64, 48)], {"truncate_dim": 32, "kind": "modernbert"}),
        (
            ("mean", "max"),
            lambda: [Dense(128, 64, activation_function=torch.nn.GELU()), Normalize()],
            {"prompts": {"all": "text: "}, "default_prompt_name": "all"},
        ),
    ],
)
def test_an_embedding_model_scores_by_its_cosine(tmp_path, pooling, heads, stated):
    torch.manual_seed(1)
    saved = embedding(tmp_path / "saved", pooling, *heads(), **stated)
    source = read_checkpoint(saved, embedding=True)
    export_folder(source, tmp_path / "out", pooled()[:4], precisions=("fp32", "int8"))
    with fp32(tmp_path / "out") as ranker:
        for query, passages in questions()[:3]:
            passages = [*passages, "", " ".join(passages)]
            expected = expect(saved, query, passages)
            assert np.ptp(expected) > 1e-3
            found = ranker.score(query, passages)
            np.testing.assert_allclose(found, expected, atol=1e-4)
        store = ranker.encode_passages(passages[:FIT], tmp_path / "a.store", precision="int8")
        np.testing.assert_allclose(ranker.score(query, store), found[:FIT], atol=0.02)
    (scales,) = (tmp_path / "a.store" / "segments").rglob("scales.bin")
    assert scales.stat().st_size == 2 * FIT  # one vector a passage
    (words,) = (tmp_path / "a.store" / "segments").rglob("words.bin")
    assert words.stat().st_size == 0  # which nothing would look at


def test_prompts_may_be_given_where_a_checkpoint_has_none(tmp_path, capsys):
    saved = embedding(tmp_path / "saved", "mean")
    texts = tmp_path / "texts.jsonl"
    lists = [{"query": query, "passages": passages} for query, passages in questions()[:4]]
    texts.write_text("\n".join(map(json.dumps, lists)))
    prompts = ["--query-prompt", "query: ", "--passage-prompt", "passage: "]
    arguments = ["--as", "embedding", *prompts, "--calibration", str(texts)]
    status = main(["export", str(saved), str(tmp_path / "out"), "--precision", "fp32", *arguments])
    assert status == 0, capsys.readouterr().err
    query, passages = questions()[0]
    passages = passages[:FIT]
    prompted = ["passage: " + passage for passage in passages]
    with Ranker(tmp_path / "out") as ranker:
        expected = expect(saved, "query: " + query, prompted)
        np.testing.assert_allclose(ranker.score(query, passages), expected, atol=1e-4)
        assert ranker.rank(query, passages)[0].text in passages


def test_an_embedding_model_without_the_flag_is_refused_with_it(tmp_path, capsys):
    saved = embedding(tmp_path / "saved", "mean")
    with pytest.raises(InvalidModel, match=r"is an embedding model.*--as embedding"):
        read_checkpoint(saved)
    backbone_alone = tmp_path / "backbone"
    with pytest.raises(InvalidModel, match="--as embedding"):
        read_checkpoint(backbone_alone)
    with pytest.raises(InvalidModel, match=r"needs a modules\.json"):
        read_checkpoint(backbone_alone, embedding=True)


def test_an_embedding_model_that_compares_by_something_else_is_refused(tmp_path):
    for similarity in ("dot", "euclidean"):
        saved = embedding(tmp_path / similarity, "mean", similarity_fn_name=similarity)
        with pytest.raises(InvalidModel, match=f"compares by '{similarity}'"):
            read_checkpoint(saved, embedding=True)
    unit = embedding(tmp_path / "unit", "mean", Normalize(), similarity_fn_name="dot")
    assert read_checkpoint(unit, embedding=True).late is not None


def test_prompts_for_a_cross_encoder_are_refused(tmp_path):
    families.bert(tmp_path / "saved")
    with pytest.raises(InvalidInput, match="--query-prompt and --passage-prompt are for embedding"):
        read_checkpoint(tmp_path / "saved", prompts=Prompts(query="query: "))
