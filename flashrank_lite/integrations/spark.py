"""Reranking on Spark (extra `[spark]`): functions for `DataFrame.mapInPandas`.

    from flashrank_lite.integrations.spark import ScorePairs

    score = ScorePairs()
    scored = pairs.mapInPandas(score, score.schema(pairs.schema))

A Python worker opens the model once, however many partitions it works on, and uses as many threads
as a task has CPUs (`spark.task.cpus`). Nothing is opened on the driver.
"""

import json
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from flashrank_lite.integrations.columns import check_columns, rank_lists, score_pairs
from flashrank_lite.integrations.opening import ModelName, Options, check_options, need, open_ranker
from flashrank_lite.ranker import Ranker

OPEN_MODELS = 2  # that a worker keeps: jobs of one session follow each other in the same workers


class ScorePairs:
    """A row is a query and a text; rows come back with a column of scores (float) added.

    A null query or text gets null.

    Args:
        model: as for `flashrank_lite.Ranker`; None for the bundled one. A folder has to be where
            the workers run.
        query, text: the columns to read.
        score: the column to add.
        options: further arguments of `flashrank_lite.Ranker`, as JSON types; without `threads` they
            are the CPUs of a task.

    Raises:
        MissingExtra: pyspark or pandas is not installed.
    """

    def __init__(
        self,
        model: ModelName = None,
        *,
        query: str = "query",
        text: str = "text",
        score: str = "score",
        options: Options | None = None,
    ) -> None:
        _check_installed()
        self._columns = (query, text, score)
        self._found_by = _found_by(model, options)

    def schema(self, schema: Any) -> Any:
        """What comes out of rows of this schema.

        Raises:
            InvalidInput: a column is missing.
        """
        from pyspark.sql.types import FloatType

        query, text, score = self._columns
        check_columns(schema.names, [query, text])
        return _replaced(schema, score, FloatType())

    def __call__(self, frames: Iterable[Any]) -> Iterator[Any]:
        """For `mapInPandas`: a DataFrame for each that comes."""
        query, text, score = self._columns
        ranker = _ranker(self._found_by)
        for frame in frames:
            yield frame.assign(**{score: score_pairs(ranker, frame, query, text)})


class RankLists:
    """A row is a query and its passages, which come back best first; a column of scores is added.

    The passages keep their type: texts, or structs with `text` and whatever else. A null query or
    list gives null for both.

    Args:
        model, options: as for `ScorePairs`.
        query, passages: the columns to read.
        scores: the column to add: a list of floats beside each list of passages.
        top_k: how many passages to keep of each list; None for all.

    Raises:
        MissingExtra: pyspark or pandas is not installed.
    """

    def __init__(
        self,
        model: ModelName = None,
        *,
        query: str = "query",
        passages: str = "passages",
        scores: str = "scores",
        top_k: int | None = None,
        options: Options | None = None,
    ) -> None:
        _check_installed()
        self._columns = (query, passages, scores)
        self._top_k = top_k
        self._found_by = _found_by(model, options)

    def schema(self, schema: Any) -> Any:
        """What comes out of rows of this schema.

        Raises:
            InvalidInput: a column is missing.
        """
        from pyspark.sql.types import ArrayType, FloatType

        query, passages, scores = self._columns
        check_columns(schema.names, [query, passages])
        return _replaced(schema, scores, ArrayType(FloatType()))

    def __call__(self, frames: Iterable[Any]) -> Iterator[Any]:
        """For `mapInPandas`: a DataFrame for each that comes."""
        query, passages, scores = self._columns
        ranker = _ranker(self._found_by)
        for frame in frames:
            ranked, found = rank_lists(ranker, frame, query, passages, self._top_k)
            yield frame.assign(**{passages: ranked, scores: found})


def _check_installed() -> None:
    need("pyspark.sql", "spark")
    need("pandas", "spark")


def _found_by(model: ModelName, options: Options | None) -> tuple[str | None, str]:
    """Arguments that can be sent to workers, and be the key of an open model there."""
    return (None if model is None else os.fspath(model)), json.dumps(check_options(options))


@lru_cache(maxsize=OPEN_MODELS)
def _opened(model: str | None, options: str, cpus: int) -> Ranker:
    return open_ranker(model, json.loads(options), threads=cpus)


def _ranker(found_by: tuple[str | None, str]) -> Ranker:
    from pyspark import TaskContext

    task = TaskContext.get()
    return _opened(*found_by, 1 if task is None else task.cpus())


def _replaced(schema: Any, name: str, kind: Any) -> Any:
    """The schema with this column added, or of this type where it was."""
    from pyspark.sql.types import StructField, StructType

    added = StructField(name, kind)
    if name not in schema.names:
        return StructType([*schema.fields, added])
    return StructType([added if field.name == name else field for field in schema.fields])
