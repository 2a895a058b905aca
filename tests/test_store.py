"""Passages read once: what a store holds, and what becomes of it whatever happens."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import environment
from conftest import PASSAGES, QUERY

from flashrank_lite import InvalidInput, Ranker
from flashrank_lite.errors import InvalidStore, StoreInUse
from flashrank_lite.evaluation.metrics import kendall_tau
from flashrank_lite.files import locked
from flashrank_lite.states.listing import MANIFEST
from flashrank_lite.store import PassageStore

KILLS = 200
LONG = " ".join(f"Paragraph {n}. {text}" for n in range(6) for text in PASSAGES[:9])


def documents(texts: list[str] = PASSAGES) -> list[dict[str, Any]]:
    return [
        {"id": f"p{n}", "text": text, "meta": {"n": n, "even": n % 2 == 0}}
        for n, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def encoded(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the shared passages that no test changes."""
    path = tmp_path_factory.mktemp("stores") / "notes.store"
    ranker.encode_passages(documents(), path)
    return path


@pytest.fixture
def store(ranker: Ranker, encoded: Path, tmp_path: Path) -> PassageStore:
    """A copy of it that may be changed."""
    import shutil

    shutil.copytree(encoded, tmp_path / "notes.store")
    return PassageStore.open(tmp_path / "notes.store")


def ids(ranker: Ranker, passages: Any, query: str = QUERY) -> list[Any]:
    return [hit.id for hit in ranker.rank(query, passages)]


# Ranking


@pytest.mark.parametrize(("precision", "near"), [("int8", 0.05), ("4bit", 0.3), ("2bit", 0.8)])
def test_a_store_scores_as_its_passages_within_its_precision(
    ranker: Ranker, tmp_path: Path, precision: Any, near: float
) -> None:
    texts = [*PASSAGES, "", "flea"]
    store = ranker.encode_passages(texts, tmp_path / "a.store", precision=precision)
    hits = sorted(ranker.rank(QUERY, store), key=lambda hit: hit.index)
    expected = ranker.score(QUERY, texts, activation="raw")
    found = np.array([hit.logit for hit in hits])
    np.testing.assert_allclose(found, expected, atol=near)
    assert kendall_tau(found, expected) > 0.9
    assert [hit.text for hit in hits] == texts
    assert [hit.id for hit in hits] == list(range(len(texts)))


def test_hits_bring_id_text_metadata_and_span(ranker: Ranker, encoded: Path) -> None:
    best = ranker.rank(QUERY, PassageStore.open(encoded), top_k=1)[0]
    assert (best.id, best.text, best.meta) == ("p0", PASSAGES[0], {"n": 0, "even": True})
    assert best.span == (0, len(PASSAGES[0]))
    assert not best.truncated
    json.dumps(best.to_dict())


def test_what_a_first_stage_found_is_ranked_alone(ranker: Ranker, encoded: Path) -> None:
    store = PassageStore.open(encoded)
    chosen = ["p7", "p0", "p3"]
    hits = ranker.rank(QUERY, store.select(chosen))
    assert sorted(hit.id for hit in hits) == sorted(chosen)
    assert {hit.id: hit.index for hit in hits} == {"p7": 0, "p0": 1, "p3": 2}
    everywhere = {hit.id: hit.logit for hit in ranker.rank(QUERY, store)}
    assert {hit.id: hit.logit for hit in hits} == pytest.approx(
        {name: everywhere[name] for name in chosen}, abs=1e-5
    )
    assert ranker.rank(QUERY, store.select([])) == []
    with pytest.raises(InvalidInput, match="'p99'"):
        store.select(["p1", "p99"])


def test_many_queries_rank_stores_selections_and_lists_together(
    ranker: Ranker, encoded: Path
) -> None:
    store = PassageStore.open(encoded)
    many = ranker.rank_many([QUERY, "Rust", QUERY], [store, store.select(["p3"]), PASSAGES[:2]])
    assert [len(hits) for hits in many] == [len(PASSAGES), 1, 2]
    assert many[0][0].id == "p0"


def test_scores_of_the_first_stage_are_blended_in(encoded: Path) -> None:
    store = PassageStore.open(encoded)
    with Ranker(fusion="linear", weight=0.0) as first_alone:
        chosen = store.select(["p3", "p0", "p7"], scores=[1.0, 2.0, 3.0])
        assert ids(first_alone, chosen) == ["p7", "p0", "p3"]


def test_a_second_model_reads_the_texts_of_the_best(encoded: Path, tmp_path: Path) -> None:
    class Shortest:
        seen: list[str]

        def score(self, lists: Any, *, instruction: Any = None) -> Any:
            from flashrank_lite.scorer import Scores

            self.seen = list(lists[0].texts)
            logits = np.array([-len(text) for text in self.seen], np.float32)
            return [Scores(logits, np.zeros(len(logits), np.bool_))]

        def info(self) -> dict[str, Any]:
            return {}

        def close(self) -> None: ...

    then = Shortest()
    with Ranker(then=then, keep=3) as cascade:
        hits = cascade.rank(QUERY, PassageStore.open(encoded))
        assert len(then.seen) == 3
        assert [hit.text for hit in hits[:3]] == sorted(then.seen, key=len)
        bare = cascade.encode_passages(documents(), tmp_path / "bare.store", texts=False)
        with pytest.raises(InvalidInput, match="keeps no texts"):
            cascade.rank(QUERY, bare)


def test_a_long_passage_is_stored_in_windows(ranker: Ranker, tmp_path: Path) -> None:
    last = "The melting point of osmium is 3,033 degrees Celsius."
    store = ranker.encode_passages([LONG + " " + last, "Gold."], tmp_path / "long.store")
    hit = ranker.rank("what is the melting point of osmium", store)[0]
    anew = ranker.rank("what is the melting point of osmium", [LONG + " " + last])[0]
    assert hit.span is not None
    assert "osmium" in hit.text[slice(*hit.span)]
    assert not hit.truncated
    assert hit.logit == pytest.approx(anew.logit, abs=1.0)


def test_texts_may_be_left_out(ranker: Ranker, tmp_path: Path) -> None:
    store = ranker.encode_passages(documents(), tmp_path / "bare.store", texts=False)
    hits = ranker.rank(QUERY, store, top_k=2)
    assert hits[0].id == "p0"
    assert (hits[0].text, hits[0].meta) == ("", {})
    found = b"".join(file.read_bytes() for file in store.path.rglob("*.bin"))
    assert b"adult flea" not in found


# Changing


def test_add_replaces_by_id_and_remove_takes_out(ranker: Ranker, store: PassageStore) -> None:
    new = [{"id": "p0", "text": "Snow is white."}, {"id": 7, "text": "A flea lives 100 days."}]
    assert store.add(new, ranker) == 2
    assert len(store) == len(PASSAGES) + 1
    assert ids(ranker, store)[0] == 7
    assert ranker.rank(QUERY, store.select(["p0"]))[0].text == "Snow is white."
    assert store.remove(["p1", "nothing", 7]) == 2
    assert 7 not in store
    assert "p1" not in store
    assert "p2" in store
    again = PassageStore.open(store.path)
    assert ids(ranker, again) == ids(ranker, store)
    assert again.info()["removed"] == 3


def test_an_id_that_comes_twice_in_one_go_is_there_once(ranker: Ranker, tmp_path: Path) -> None:
    twice = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"id": "a", "text": "three"}]
    store = ranker.encode_passages(twice, tmp_path / "a.store")
    assert {hit.id: hit.text for hit in ranker.rank("q", store)} == {"a": "three", "b": "two"}
    store.add([{"id": "a", "text": "four"}], ranker)
    assert {hit.id: hit.text for hit in ranker.rank("q", store)} == {"a": "four", "b": "two"}


def test_compacting_changes_nothing_but_the_bytes(ranker: Ranker, store: PassageStore) -> None:
    store.remove([f"p{n}" for n in range(0, 12, 2)])
    store.add([{"id": "new", "text": "Fleas jump."}], ranker)
    before, size = ranker.rank(QUERY, store), store.info()["bytes"]
    store.compact()
    after = ranker.rank(QUERY, store)
    assert [(hit.id, hit.text, hit.meta, hit.span) for hit in after] == [
        (hit.id, hit.text, hit.meta, hit.span) for hit in before
    ]
    assert [hit.logit for hit in after] == pytest.approx([hit.logit for hit in before], abs=1e-5)
    assert store.info()["bytes"] < size
    assert store.info()["removed"] == 0
    assert len(list((store.path / "segments").iterdir())) == 1


def test_an_iterable_is_read_as_it_comes_and_a_bad_passage_loses_nothing(
    ranker: Ranker, store: PassageStore
) -> None:
    def passages() -> Iterator[Any]:
        yield {"id": "x", "text": "one"}
        yield {"id": "y", "text": None}

    before = ids(ranker, store)
    with pytest.raises(InvalidInput, match="passage 1"):
        store.add(passages(), ranker)
    assert ids(ranker, PassageStore.open(store.path)) == before
    reported: list[tuple[int, int]] = []
    store.add(iter(["one", "two"]), ranker, progress=lambda *facts: reported.append(facts))
    assert reported[-1] == (2, 2)
    assert len(store) == len(before) + 2


def test_a_store_that_could_not_be_begun_leaves_its_path_free(
    ranker: Ranker, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="passage 0"):
        ranker.encode_passages([{"id": "x"}], tmp_path / "a.store")
    assert len(ranker.encode_passages(["one"], tmp_path / "a.store")) == 1


def test_an_opened_store_is_a_snapshot_until_it_is_refreshed(
    ranker: Ranker, store: PassageStore
) -> None:
    reader = PassageStore.open(store.path)
    before = ids(ranker, reader)
    store.remove([before[0]])
    store.compact()
    assert ids(ranker, reader) == before
    reader.refresh()
    assert ids(ranker, reader) == before[1:]


# Refusals


def test_a_store_of_another_model_or_length_is_refused(store: PassageStore) -> None:
    with (
        Ranker(max_length=256) as shorter,
        pytest.raises(InvalidInput, match=r"max_length 512 and not 256.*encode its passages anew"),
    ):
        shorter.rank(QUERY, store)


def test_a_place_that_is_taken_is_refused(ranker: Ranker, store: PassageStore) -> None:
    with pytest.raises(InvalidInput, match=r"exists: add passages .*store\.add"):
        ranker.encode_passages(PASSAGES, store.path)
    with pytest.raises(InvalidInput, match="precision must be"):
        ranker.encode_passages(PASSAGES, store.path.parent / "b", precision="3bit")  # type: ignore[arg-type]


def test_what_is_no_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidStore, match="encode_passages"):
        PassageStore.open(tmp_path)


def test_a_newer_format_says_to_upgrade(store: PassageStore) -> None:
    file = store.path / MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(InvalidStore, match="upgrade flashrank-lite"):
        PassageStore.open(store.path)


@pytest.mark.parametrize(
    "name",
    ["codes", "scales", "means", "words", "windows", "passages", "records", "index"],
)
def test_an_altered_byte_is_found_when_it_is_read(
    ranker: Ranker, store: PassageStore, name: str
) -> None:
    (file,) = store.path.rglob(f"{name}.bin")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)
    with pytest.raises(InvalidStore, match="encode its passages anew"):
        ranker.rank(QUERY, PassageStore.open(store.path))
    with pytest.raises(InvalidStore):
        PassageStore.open(store.path).verify()


def test_a_truncated_file_and_an_altered_list_are_found_at_once(store: PassageStore) -> None:
    (file,) = store.path.rglob("codes.bin")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidStore, match="copied incompletely or altered"):
        PassageStore.open(store.path)
    manifest = store.path / MANIFEST
    manifest.write_text(manifest.read_text().replace('"passages": 12', '"passages": 11'))
    with pytest.raises(InvalidStore, match="altered"):
        PassageStore.open(store.path)


# Processes


def test_a_second_writer_is_told_and_readers_go_on(ranker: Ranker, store: PassageStore) -> None:
    with locked(store.path / "lock"):
        with pytest.raises(StoreInUse, match="try again"):
            store.remove(["p1"])
        assert len(ids(ranker, PassageStore.open(store.path))) == len(PASSAGES)
    assert store.remove(["p1"]) == 1


WRITER = """
import sys
sys.path[:0] = sys.argv[2:]
from flashrank_lite.store import PassageStore
from store_support import Echo

store, reader, number = PassageStore.open(sys.argv[1]), Echo(), 0
print("ready", flush=True)
while True:
    number += 1
    store.add([{"id": f"w{number % 7}", "text": f"word {number}"}, "another"], reader)
    print(number, flush=True)
    store.remove([f"w{(number + 3) % 7}"])
    if number % 3 == 0:
        store.remove([one for one in range(number * 2)][-9:])
        store.compact()
"""


@pytest.fixture
def echoed(tmp_path: Path) -> PassageStore:
    """A store of passages that are never removed, made without a model, so that it is quick."""
    from store_support import Echo

    store = PassageStore.create(tmp_path / "echo.store", Echo())
    store.add([{"id": f"kept {n}", "text": f"text {n}"} for n in range(20)], Echo())
    return store


def start_writer(store: PassageStore) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.path), str(here)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def check_kept(path: Path) -> PassageStore:
    """Everything that was there before the writer began is there, and all of it is whole."""
    store = PassageStore.open(path)
    store.verify()
    for n in range(20):
        (passage,) = store.select([f"kept {n}"])
        assert passage.text == f"text {n}"
    names = [passage.id for passage in store.all()]
    assert len(names) == len(set(names)) == len(store)
    return store


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_a_writer_that_is_killed_at_any_moment_loses_nothing(echoed: PassageStore) -> None:
    """In the child a thread kills the process after a random time, over and over."""
    from store_support import killed_at_random

    done = killed_at_random(echoed.path, KILLS, seed=1)
    assert done == KILLS
    store = check_kept(echoed.path)
    from store_support import Echo

    assert store.add([{"id": "after", "text": "all"}], Echo()) == 1
    check_kept(echoed.path)


def test_one_process_writes_while_others_read(echoed: PassageStore) -> None:
    writer = start_writer(echoed)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "ready\n"
        reader = PassageStore.open(echoed.path)
        seen = set()
        for line, _ in zip(writer.stdout, range(25), strict=False):
            check_kept(echoed.path)
            reader.refresh()
            seen.add(len(reader))
            if "w1" in reader:
                assert reader.select(["w1"])[0].text.startswith("word ")
            assert int(line) > 0
        assert len(seen) > 1
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    check_kept(echoed.path)


# Many passages


def test_passages_are_read_and_written_some_at_a_time(tmp_path: Path) -> None:
    from store_support import Echo

    taken, ahead = 0, []

    class Watched(Echo):
        def read(self, texts: Any, precision: Any) -> Any:
            ahead.append(taken - sum(ahead))
            return super().read(texts, precision)

    def passages() -> Iterator[str]:
        nonlocal taken
        for number in range(2_000):
            taken += 1
            yield f"text {number}"

    reader = Watched()
    store = PassageStore.create(tmp_path / "many.store", reader)
    assert store.add(passages(), reader) == 2_000
    assert max(ahead) <= 512
    assert store.select([1_999])[0].text == "text 1999"


def test_a_long_add_is_kept_segment_by_segment(
    echoed: PassageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from store_support import Echo

    monkeypatch.setattr("flashrank_lite.states.change.SEGMENT_PASSAGES", 10)

    def passages() -> Iterator[dict[str, Any]]:
        for number in range(25):
            yield {"id": f"new {number}", "text": f"text {number}"}
        raise OSError("the disk is full")

    monkeypatch.setattr("flashrank_lite.store.CHUNK_PASSAGES", 5)
    with pytest.raises(OSError, match="full"):
        echoed.add(passages(), Echo())
    store = check_kept(echoed.path)
    assert [f"new {n}" in store for n in (0, 9, 19, 20)] == [True, True, True, False]
    again = [{"id": f"new {n}", "text": f"again {n}"} for n in range(5, 25)]
    assert store.add(again, Echo()) == 20
    assert len(store) == 20 + 25
    assert store.select(["new 7"])[0].text == "again 7"
    assert store.select(["new 4"])[0].text == "text 4"
    store.compact()
    assert len(check_kept(echoed.path)) == 20 + 25
    assert store.info()["removed"] == 0
