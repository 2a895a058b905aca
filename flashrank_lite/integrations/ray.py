"""Reranking on Ray Data (extra `[ray]`): callable classes for `Dataset.map_batches`.

    from flashrank_lite.integrations.ray import ScorePairs

    pairs = ray.data.read_parquet("pairs/")
    scored = pairs.map_batches(
        ScorePairs, compute=ray.data.ActorPoolStrategy(size=4), num_cpus=2, batch_size=512
    )
    scored.write_parquet("scored/")

Every actor opens the model once and uses as many threads as it has CPUs (`num_cpus`). Rows are
independent of each other: whatever an actor was at when it died, Ray gives to another one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flashrank_lite.errors import InvalidInput
from flashrank_lite.integrations.columns import rank_lists, score_pairs
from flashrank_lite.integrations.opening import ModelName, Options, need, open_ranker
from flashrank_lite.ranker import Ranker

Batch = Any  # a dict of numpy arrays, a pandas DataFrame or a pyarrow Table: as it came


class ScorePairs:
    """A row is a query and a text; a batch comes back with a column of scores (float32) added.

    A null query or text gets null, NaN in numpy and pandas batches. Pass the class to
    `map_batches`, its arguments as `fn_constructor_kwargs`; any `batch_format` will do.

    Args:
        model: as for `flashrank_lite.Ranker`; None for the bundled one. A folder has to be where
            the actors run.
        query, text: the columns to read.
        score: the column to add.
        options: further arguments of `flashrank_lite.Ranker`; without `threads` they are the CPUs
            of the actor.

    Raises:
        MissingExtra: Ray is not installed.
        FlashRankLiteError: as `flashrank_lite.Ranker` raises it.
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
        self._columns = (query, text, score)
        self._ranker = _open(model, options)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with scores.

        Raises:
            InvalidInput: a column is missing, or holds something else than texts.
        """
        query, text, score = self._columns
        return _with_columns(batch, {score: score_pairs(self._ranker, batch, query, text)})


class RankLists:
    """A row is a query and its passages, which come back best first; a column of scores is added.

    The passages keep their type: texts, or structs with `text` and whatever else. A null query or
    list gives null for both. Used as `ScorePairs`, with `batch_format="pyarrow"`: numpy arrays
    cannot say what nested columns hold.

    Args:
        model, options: as for `ScorePairs`.
        query, passages: the columns to read.
        scores: the column to add: a list of floats beside each list of passages.
        top_k: how many passages to keep of each list; None for all.

    Raises:
        MissingExtra: Ray is not installed.
        FlashRankLiteError: as `flashrank_lite.Ranker` raises it.
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
        self._columns = (query, passages, scores)
        self._top_k = top_k
        self._ranker = _open(model, options)

    def __call__(self, batch: Any) -> Any:
        """The pyarrow Table with its passages in order, and with scores.

        Raises:
            InvalidInput: it is no Table, a column is missing, or holds something else.
        """
        import pyarrow as pa

        query, passages, scores = self._columns
        if not isinstance(batch, pa.Table):
            raise InvalidInput("RankLists needs map_batches(..., batch_format='pyarrow')")
        ranked, found = rank_lists(self._ranker, batch, query, passages, self._top_k)
        field = batch.schema.field(passages)
        return _with_columns(
            batch,
            {
                passages: pa.array(ranked, field.type),
                scores: pa.array(found, pa.list_(pa.float32())),
            },
        )


def _open(model: ModelName, options: Options | None) -> Ranker:
    return open_ranker(model, options, threads=_cpu_share(need("ray", "ray")))


def _cpu_share(ray: Any) -> int | None:
    """Whole CPUs of this actor, at least 1; None outside of Ray's workers."""
    if not ray.is_initialized():
        return None
    try:
        resources = ray.get_runtime_context().get_assigned_resources()
    except AssertionError:  # what Ray raises in the driver
        return None
    return max(1, int(resources.get("CPU", 0)))


def _with_columns(batch: Any, columns: Mapping[str, Any]) -> Any:
    if isinstance(batch, Mapping):
        return {**batch, **columns}
    if hasattr(batch, "assign"):  # pandas
        return batch.assign(**columns)
    for name, values in columns.items():  # pyarrow
        column = values
        if isinstance(values, np.ndarray):
            import pyarrow as pa

            column = pa.array(values, from_pandas=True)  # NaN becomes null
        place = batch.schema.get_field_index(name)
        if place < 0:
            batch = batch.append_column(name, column)
        else:
            batch = batch.set_column(place, name, column)
    return batch
