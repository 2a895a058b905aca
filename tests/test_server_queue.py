"""Under load: who is scored when, who is refused, and what is no longer scored."""

import concurrent.futures

import pytest
from conftest import PASSAGES, QUERY
from server_support import PATIENCE, Server, http, serving, until

from flashrank_lite.server.settings import Settings

SMALL = {"query": QUERY, "texts": PASSAGES}


def huge(count: int = 2000, name: str = "a") -> dict[str, object]:
    """Passages that keep a small machine busy for many seconds; no two are alike."""
    texts = [f"{name} {n} " + "flea dog rust " * 150 for n in range(count)]
    return {"query": QUERY, "texts": texts, "long": "truncate"}


def metric(server: Server, name: str) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def busy(server: Server, requests: int) -> bool:
    return metric(server, "flashrank_lite_queue_length") >= requests


def test_a_small_request_does_not_wait_for_a_huge_one():
    with serving() as server, server.connect(http("/rerank", huge())) as connection:
        until(lambda: busy(server, 1))
        answered = server.post("/rerank", SMALL)
        assert answered.status == 200
        # the huge one is still at work: nothing of its answer is there
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)


def test_a_huge_request_is_answered_beside_a_stream_of_small_ones():
    with (
        serving(Settings(timeout=PATIENCE)) as server,
        concurrent.futures.ThreadPoolExecutor(5) as clients,
    ):
        large = clients.submit(server.post, "/rerank", huge(40))

        def stream() -> int:
            sent = 0
            while not large.done():
                assert server.post("/rerank", SMALL).status == 200
                sent += 1
            return sent

        small = [clients.submit(stream) for _ in range(4)]
        assert large.result().status == 200
        assert sum(one.result() for one in small) > 0


def test_slices_do_not_change_a_score(ranker):
    texts = [f"{n} {text}" for n in range(15) for text in PASSAGES]
    expected = [hit.score for hit in ranker.rank(QUERY, texts)]
    with serving() as server, concurrent.futures.ThreadPoolExecutor(4) as clients:
        body = {"query": QUERY, "texts": texts}
        answers = list(clients.map(lambda _: server.post("/rerank", body), range(4)))
    for answered in answers:
        assert [hit["score"] for hit in answered.json] == pytest.approx(expected, abs=1e-5)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    with serving(Settings(max_queue=1, timeout=PATIENCE)) as server:
        with server.connect(http("/rerank", huge())):
            until(lambda: busy(server, 1))
            refused = server.post("/rerank", SMALL)
            assert refused.status == 429
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.json["error_type"] == "Overloaded"
        until(lambda: server.post("/rerank", SMALL).status == 200)  # its client hung up


def test_too_many_bytes_in_flight_are_refused():
    settings = Settings(max_queue_bytes=1_000_000, timeout=PATIENCE)
    with serving(settings) as server, server.connect(http("/rerank", huge(1000))):
        until(lambda: busy(server, 1))
        assert server.post("/rerank", SMALL).status == 429


def test_past_its_deadline_a_request_gets_503():
    with serving(Settings(timeout=0.3)) as server:
        refused = server.post("/rerank", huge())
        assert (refused.status, refused.json["code"]) == (503, "deadline")
        assert int(refused.headers["Retry-After"]) >= 1
        until(lambda: metric(server, "flashrank_lite_queue_length") == 0)


def test_a_client_that_hung_up_is_not_scored():
    with serving() as server:
        with server.connect(http("/rerank", huge())):
            until(lambda: busy(server, 1))
        until(lambda: metric(server, "flashrank_lite_queue_length") == 0)
        hung_up = 'flashrank_lite_requests_total{dialect="tei",status="499"}'
        until(lambda: metric(server, hung_up) == 1)
        assert metric(server, "flashrank_lite_pairs_total") == 0


def test_one_requests_trouble_is_not_the_others():
    refused = {**SMALL, "instruction": "find insects"}  # of a model that takes none
    with serving() as server, concurrent.futures.ThreadPoolExecutor(16) as clients:
        bodies = [refused, SMALL] * 10
        answers = list(clients.map(lambda body: server.post("/rerank", body).status, bodies))
    assert answers == [422, 200] * 10


def test_every_request_is_answered_or_refused():
    settings = Settings(max_queue=8, timeout=PATIENCE)
    with serving(settings) as server, concurrent.futures.ThreadPoolExecutor(24) as clients:
        statuses = list(clients.map(lambda _: server.post("/rerank", SMALL).status, range(100)))
        assert set(statuses) <= {200, 429}
        assert statuses.count(200) >= 8
        assert metric(server, "flashrank_lite_pairs_total") == statuses.count(200) * len(PASSAGES)
