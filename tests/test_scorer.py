"""A ranker over a scorer of one's own: what is below the seam is nobody's business above it."""

import asyncio
import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import InvalidInput, Ranker
from flashrank_lite.scorer import Candidates, Scores


class SharedWords:
    """Ten lines that rank: the logit is how many words of the query a passage has."""

    def score(self, lists: Sequence[Candidates], *, instruction: str | None = None) -> list[Scores]:
        return [self._score(entry) for entry in lists]

    def _score(self, entry: Candidates) -> Scores:
        words = set(entry.query.lower().split())
        shared = [len(words & set(text.lower().split())) for text in entry.texts]
        return Scores(np.array(shared, np.float32), np.zeros(len(shared), np.bool_))

    def info(self) -> dict[str, Any]:
        return {"model": "shared words", "activation": "raw"}

    def close(self) -> None:
        self.closed = True


def test_a_scorer_of_ones_own_ranks() -> None:
    scorer = SharedWords()
    with Ranker(scorer=scorer) as ranker:
        hits = ranker.rank(
            "fleas live on dogs", [{"text": t, "id": n} for n, t in enumerate(PASSAGES)]
        )
        assert hits[0].text.startswith("Fleas are small")
        assert [hit.logit for hit in hits] == sorted((hit.logit for hit in hits), reverse=True)
        assert hits[0].score == hits[0].logit == 2.0  # "raw", as the scorer says
        assert hits[0].id == 1
        pairs = [("a tick", "A tick is an arachnid"), ("butter", "x"), ("a tick", "none")]
        assert ranker.score_pairs(pairs).tolist() == [2, 0, 0]
        several = ranker.rank_many(["fleas", "butter"], [PASSAGES, PASSAGES], top_k=1)
        assert [hits[0].text.split()[0] for hits in several] == ["Fleas", "Butter"]
        assert asyncio.run(ranker.arank("fleas", PASSAGES))[0].text.startswith("Fleas are")
        info = ranker.info()
        assert json.loads(json.dumps(info)) == info
        assert info["model"] == "shared words"
        assert "shared words" in repr(ranker)
        again = pickle.loads(pickle.dumps(ranker))
        assert again.rank("fleas", PASSAGES) == ranker.rank("fleas", PASSAGES)
    assert scorer.closed


@pytest.mark.parametrize("arguments", [{"model": "nano"}, {"threads": 2}, {"device": "cpu"}])
def test_arguments_that_open_a_model_do_not_go_with_a_scorer(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="scorer comes opened"):
        Ranker(scorer=SharedWords(), **arguments)


def test_the_activation_is_the_rankers() -> None:
    with Ranker(scorer=SharedWords(), activation="sigmoid") as ranker:
        assert ranker.score(QUERY, ["nothing shared"]).tolist() == [0.5]
