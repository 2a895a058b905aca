"""Real clients of other servers, unchanged but for the address, against the running server."""

import gc
import importlib
from collections.abc import Iterator

import pytest
from conftest import PASSAGES, QUERY
from server_support import Server, needs, serving

from flashrank_lite.server.settings import ModelSpec, Settings

TEXTS = PASSAGES[1:4] + PASSAGES[:1]  # the answer comes last
BEST = 3
KEY = "a-key"

# some of these clients leave their sockets to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a client leaves behind is its own test's, not the next one's."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server():
    aliases = dict.fromkeys(("rerank-v3.5", "jina-reranker-v2", "bge"), "nano")
    settings = Settings(models=(ModelSpec("nano"),), aliases=aliases, api_keys=(KEY,))
    with serving(settings) as running:
        yield running


def test_cohere_v1(server: Server):
    needs("cohere")
    import cohere

    with cohere.Client(KEY, base_url=server.url) as client:
        documents = [{"text": text} for text in TEXTS]
        found = client.rerank(
            model="rerank-v3.5", query=QUERY, documents=documents, top_n=2, return_documents=True
        )
    assert next(one.index for one in found.results) == BEST
    assert len(found.results) == 2
    assert found.results[0].document.text == TEXTS[BEST]
    assert found.results[0].relevance_score > found.results[1].relevance_score
    assert found.meta.api_version.version == "1"


def test_cohere_v2(server: Server):
    needs("cohere")
    import cohere

    with cohere.ClientV2(KEY, base_url=server.url) as client:
        found = client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS, top_n=3)
    assert found.results[0].index == BEST
    assert found.meta.api_version.version == "2"
    assert found.meta.tokens.input_tokens > 0


def test_cohere_hears_why_it_is_refused(server: Server):
    needs("cohere")
    import cohere

    wrong, right = (cohere.ClientV2(key, base_url=server.url) for key in ("wrong", KEY))
    with wrong, pytest.raises(cohere.UnauthorizedError, match="key is not known"):
        wrong.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    with right, pytest.raises(cohere.NotFoundError, match="there is no model 'rerank-v9'"):
        right.rerank(model="rerank-v9", query=QUERY, documents=TEXTS)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("cohere/rerank-v3.5", "/v2/rerank"),
        ("cohere/rerank-v3.5", "/v1/rerank"),
        ("jina_ai/jina-reranker-v2", ""),
        ("infinity/bge", "/infinity"),
        ("hosted_vllm/bge", ""),
        ("huggingface/bge", ""),
    ],
)
def test_litellm(server: Server, model: str, path: str, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the network
    needs("litellm")
    import litellm

    found = litellm.rerank(
        model=model, query=QUERY, documents=TEXTS, top_n=2, api_base=server.url + path, api_key=KEY
    )
    assert next(one["index"] for one in found.results) == BEST
    assert len(found.results) == 2
    assert found.results[0]["document"]["text"] == TEXTS[BEST]


def test_haystacks_tei_ranker(server: Server):
    needs("haystack", "haystack_integrations.components.rankers.huggingface_api")
    from haystack import Document
    from haystack.utils import Secret

    module = importlib.import_module("haystack_integrations.components.rankers.huggingface_api")
    ranker = module.HuggingFaceTEIRanker(
        url=server.url, top_k=2, token=Secret.from_token(KEY), max_retries=0
    )
    documents = [Document(content=text) for text in TEXTS]
    found = ranker.run(query=QUERY, documents=documents)["documents"]
    assert next(one.content for one in found) == TEXTS[BEST]
    assert len(found) == 2
    assert found[0].score > found[1].score


def test_langchains_cohere_reranker(server: Server):
    needs("langchain_cohere")
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    reranker = CohereRerank(model="rerank-v3.5", cohere_api_key=KEY, base_url=server.url, top_n=2)
    documents = [Document(page_content=text) for text in TEXTS]
    found = reranker.compress_documents(documents, QUERY)
    assert found[0].page_content == TEXTS[BEST]
    assert found[0].metadata["relevance_score"] > found[1].metadata["relevance_score"]


def test_langchains_jina_reranker(server: Server, monkeypatch):
    needs("langchain_community")
    from langchain_community.document_compressors import jina_rerank
    from langchain_core.documents import Document

    # it has no setting for the address
    monkeypatch.setattr(jina_rerank, "JINA_API_URL", f"{server.url}/v1/rerank")
    reranker = jina_rerank.JinaRerank(jina_api_key=KEY, model="jina-reranker-v2", top_n=2)
    documents = [Document(page_content=text) for text in TEXTS]
    found = reranker.compress_documents(documents, QUERY)
    reranker.session.close()
    assert next(one.page_content for one in found) == TEXTS[BEST]
    assert len(found) == 2


def test_infinity_client(server: Server):
    needs("infinity_client")
    from infinity_client import AuthenticatedClient
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    with AuthenticatedClient(base_url=server.url, token=KEY) as client:
        asked = RerankInput(query=QUERY, documents=TEXTS, return_documents=True, top_n=2)
        found = rerank.sync(client=client, body=asked)
    assert found.results[0].index == BEST
    assert found.results[0].document == TEXTS[BEST]
    assert len(found.results) == 2


# Bodies as these programs send them, read in their sources.
OPEN_WEBUI = {"model": "bge", "query": QUERY, "documents": TEXTS, "top_n": len(TEXTS)}
DIFY_TEI = {"query": QUERY, "texts": TEXTS, "return_text": True, "raw_scores": False}
RAGFLOW_JINA = {"model": "bge", "query": QUERY, "documents": TEXTS, "top_n": len(TEXTS)}


def test_open_webui_gets_every_document_back(server: Server):
    bearer = {"Authorization": f"Bearer {KEY}"}
    found = server.post("/v1/rerank", OPEN_WEBUI, **bearer).json["results"]
    by_place = sorted(found, key=lambda hit: hit["index"])
    assert [hit["index"] for hit in by_place] == list(range(len(TEXTS)))
    scores = [hit["relevance_score"] for hit in by_place]
    assert scores.index(max(scores)) == BEST


def test_dify_finds_its_model_and_its_texts(server: Server):
    bearer = {"Authorization": f"Bearer {KEY}"}
    info = server.get("/info", **bearer).json
    assert "reranker" in info["model_type"]
    found = server.post("/rerank", DIFY_TEI, **bearer).json
    assert (found[0]["index"], found[0]["text"]) == (BEST, TEXTS[BEST])
    assert isinstance(found[0]["score"], float)


def test_ragflow_finds_scores_and_tokens(server: Server):
    found = server.post("/v1/rerank", RAGFLOW_JINA, Authorization=f"Bearer {KEY}").json
    assert found["usage"]["total_tokens"] > 0
    assert found["meta"]["tokens"]["input_tokens"] == found["usage"]["total_tokens"]
    assert found["results"][0]["relevance_score"] > 0.5
