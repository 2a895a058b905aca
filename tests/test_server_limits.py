"""What the server refuses, what it keeps to itself, and how it says so."""

import io
import json
import logging
import time

import pytest
from conftest import PASSAGES, QUERY
from server_support import Server, http, serving

from flashrank_lite.server.front import access
from flashrank_lite.server.settings import Settings

SECRET = "xyzzy-confidential"
BODY = {"query": QUERY, "texts": PASSAGES}


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def strict():
    settings = Settings(
        max_body_bytes=20_000,
        max_documents=20,
        max_document_chars=2000,
        max_query_chars=100,
        max_tokens=1000,
        body_timeout=0.5,
        auto_truncate=False,
    )
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="module")
def locked():
    with serving(Settings(api_keys=("one", "two"))) as running:
        yield running


@pytest.fixture
def logged():
    """All that the server logs, as text."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    level, root.level = root.level, logging.DEBUG
    access.setLevel(logging.INFO)
    yield stream.getvalue
    root.removeHandler(handler)
    root.level = level


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"query": QUERY, "texts": ["x" * 1999] * 11}, 413, "body_too_large"),
        ({"query": QUERY, "texts": ["a"] * 21}, 413, "too_many_documents"),
        ({"query": QUERY, "texts": ["x" * 2001]}, 422, "document_too_long"),
        ({"query": "x" * 101, "texts": ["a"]}, 422, "query_too_long"),
        ({"query": QUERY, "texts": ["a b " * 150] * 10}, 413, "too_many_tokens"),
    ],
)
def test_more_than_a_limit_is_refused_in_words(strict: Server, body, status, code):
    refused = strict.post("/rerank", body)
    assert (refused.status, refused.json["code"]) == (status, code)
    assert "--max-" in refused.json["message"]
    assert refused.json["error_type"] == "Validation"


def test_a_body_without_a_length_is_bounded_too(strict: Server):
    chunk = b"5000\r\n" + b"[" * 0x5000 + b"\r\n"
    head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with strict.connect(head + chunk) as connection:
        assert b" 413 " in connection.recv(65536)


def test_a_body_that_does_not_arrive_is_given_up(strict: Server):
    with strict.connect(http("/rerank", BODY, length=15_000)) as connection:
        assert b" 408 " in connection.recv(65536)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not_json"),
        (b"{", 400, "not_json"),
        (b'{"query": NaN}', 400, "not_json"),
        (b'{"query": "\xff"}', 400, "not_utf8"),
        (b"[" * 100_000, 400, "too_deep"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "too_deep"),
        (b'{"query": "q", "texts": ["a"], "top_n": ' + b"9" * 6000 + b"}", 400, "not_json"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b'{"query": "q"}', 422, "invalid_request"),
        (b'{"query": "q", "texts": "a"}', 422, "invalid_request"),
    ],
)
def test_what_is_no_request_is_refused(server: Server, body, status, code):
    refused = server.post("/rerank", body)
    assert (refused.status, refused.json["code"]) == (status, code)


def test_brackets_within_texts_are_no_depth(server: Server):
    body = {"query": QUERY, "texts": ["[" * 500 + '\\"{' * 50, "a flea"]}
    assert server.post("/rerank", body).status == 200


def test_a_compressed_body_is_refused(server: Server):
    assert server.post("/rerank", BODY, **{"Content-Encoding": "gzip"}).status == 415


def test_a_long_passage_is_truncated_and_said_so(server: Server):
    body = {"query": QUERY, "texts": ["a flea " * 600, "b"], "long": "truncate"}
    found = server.post("/rerank", body).json
    assert {hit["index"]: hit.get("truncated", False) for hit in found} == {0: True, 1: False}


def test_a_client_that_wants_the_end_of_a_passage_is_told_that_it_cannot(server: Server):
    body = {"query": QUERY, "texts": ["b", "a flea " * 600], "truncation_direction": "Left"}
    assert server.post("/rerank", body).status == 200  # in windows the end is read as well
    refused = server.post("/rerank", {**body, "long": "truncate"})
    assert (refused.status, refused.json["code"]) == (422, "left_truncation")
    assert "passage 1" in refused.json["message"]


def test_a_server_may_refuse_to_truncate():
    long = {"query": QUERY, "texts": ["b", "a flea " * 600]}
    with serving(Settings(auto_truncate=False, long="truncate")) as server:
        assert server.post("/rerank", long).json["code"] == "truncated"
        assert server.post("/rerank", {**long, "truncate": True}).status == 200


@pytest.mark.parametrize("path", ["/", "/rerank", "/info", "/metrics", "/docs", "/nothing"])
def test_every_other_route_needs_a_key(locked: Server, path: str):
    assert locked.get(path).status == 401
    assert locked.get(path, Authorization="Bearer three").status == 401
    assert locked.get(path, Authorization="Bearer ").status == 401
    assert locked.get(path, Authorization="one").status == 401
    assert locked.get(path, Authorization="Bearer two").status != 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping"])
def test_probes_need_no_key(locked: Server, path: str):
    assert locked.get(path).status == 200


def test_a_browser_is_asked_for_the_key_and_a_program_told(locked: Server):
    asked = locked.get("/", Accept="text/html,*/*")
    assert asked.headers["WWW-Authenticate"].startswith("Basic ")
    assert locked.post("/rerank", BODY).headers["WWW-Authenticate"] == "Bearer"
    password = {"Authorization": "Basic dXNlcjpvbmU="}  # user:one
    assert locked.get("/", **password).status == 200
    from_elsewhere = {**password, "Sec-Fetch-Site": "cross-site"}
    assert locked.post("/rerank", BODY, **from_elsewhere).status == 403


def test_no_text_gets_into_logs_or_errors(server: Server, logged):
    bodies = [
        {"query": SECRET, "texts": [SECRET]},
        {"query": SECRET, "texts": [SECRET, 1]},
        {"query": SECRET, "documents": [{SECRET: SECRET}]},
        {"query": SECRET, "texts": [SECRET], "top_n": SECRET},
        {"query": SECRET, "texts": [SECRET], "truncation_direction": SECRET},
        {"query": SECRET, "texts": [SECRET], "instruction": SECRET},
        {SECRET: SECRET},
        f'{{"query": "{SECRET}", '.encode(),
    ]
    for path in ("/rerank", f"/{SECRET}", "/score"):
        for body in bodies:
            answered = server.post(path, body)
            assert SECRET.encode() not in answered.body
            assert answered.status < 500
    server.get(f"/rerank?{SECRET}")
    log = logged()
    assert "path=/rerank status=200 dialect=tei" in log
    assert SECRET not in log


def test_texts_are_logged_where_the_settings_say_so(logged):
    with serving(Settings(log_texts=True)) as server:
        server.post("/rerank", {"query": SECRET, "texts": ["a"]})
    assert f"query='{SECRET}'" in logged()


def test_a_log_line_holds_sizes_and_times(server: Server, logged):
    server.post("/rerank", BODY, **{"X-Request-Id": "line-1"})
    deadline = time.monotonic() + 10  # it is written once the answer is out
    while not (lines := [line for line in logged().splitlines() if "id=line-1" in line]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (line,) = lines
    facts = dict(part.split("=", 1) for part in line.split())
    assert facts["passages"] == str(len(PASSAGES))
    assert facts["chars"] == str(sum(map(len, PASSAGES)))
    assert float(facts["total_ms"]) >= float(facts["score_ms"]) > 0


def test_other_sites_may_not_call_it_unless_asked(server: Server):
    origin = {"Origin": "https://example.org"}
    assert "access-control-allow-origin" not in server.post("/rerank", BODY, **origin).headers
    with serving(Settings(cors_origins=("https://example.org",))) as open_server:
        headers = open_server.post("/rerank", BODY, **origin).headers
        assert headers["access-control-allow-origin"] == "https://example.org"
        elsewhere = open_server.post("/rerank", BODY, Origin="https://example.com").headers
        assert "access-control-allow-origin" not in elsewhere


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_may_run_their_own_script_alone(server: Server, path: str):
    headers = server.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


def test_an_unknown_path_and_a_wrong_method_are_json(server: Server):
    assert server.get("/nothing").json["code"] == "not_found"
    assert server.get("/rerank").json["code"] == "method_not_allowed"


def test_metrics_count_what_was_done(server: Server):
    def value(name: str) -> float:
        lines = server.get("/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    pairs, refused = value("flashrank_lite_pairs_total"), value("flashrank_lite_errors_total")
    server.post("/rerank", BODY)
    server.post("/rerank", b"{")
    assert value("flashrank_lite_pairs_total") == pairs + len(PASSAGES)
    assert value("flashrank_lite_errors_total") == refused + 1
    assert value('flashrank_lite_seconds_count{stage="score"}') > 0
    assert value("flashrank_lite_resident_memory_bytes") > 10_000_000
    assert value("flashrank_lite_queue_length") == 0


def test_spans_name_sizes_and_no_text():
    from server_support import needs

    needs("opentelemetry.sdk")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving() as server:
        server.post("/rerank", {"query": SECRET, "texts": [SECRET]}, Traceparent=parent)
    found = [span for span in spans.get_finished_spans() if span.attributes]
    span = next(one for one in found if one.attributes["flashrank_lite.dialect"] == "tei")
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert span.attributes["flashrank_lite.passages"] == 1
    assert SECRET not in json.dumps(dict(span.attributes))


def test_it_is_alive_before_it_is_ready(tmp_path):
    from starlette.applications import Starlette

    from flashrank_lite.server.app import create_app
    from flashrank_lite.server.settings import ModelSpec

    failures: list[BaseException] = []
    app: Starlette = create_app(
        Settings(models=(ModelSpec("gone", str(tmp_path / "gone")),)), failures.append
    )
    import threading

    import uvicorn

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on")
    listener = config.bind_socket()
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        while not running.started or not failures:
            time.sleep(0.05)
        assert server.get("/health").status == 200
        refused = server.get("/ready")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert server.post("/rerank", BODY).status == 503
        assert "gone" in str(failures[0])
    finally:
        running.should_exit = True
        thread.join()
        listener.close()
