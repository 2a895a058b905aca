"""One way in: whatever the data looks like, it comes out as `JudgedData`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flashrank_lite.errors import InvalidInput
from flashrank_lite.evaluation.folders import (
    CANDIDATES,
    read_folder,
    read_trec_files,
)
from flashrank_lite.evaluation.judged import JudgedData
from flashrank_lite.evaluation.qrels import read_qrels
from flashrank_lite.evaluation.rows import read_rows
from flashrank_lite.reading import ReadOptions


@dataclass(frozen=True)
class DataFiles:
    """Where a data set is.

    Attributes:
        data: a file with queries and judged passages in its rows, or the folder of a collection;
            None for a TREC run.
        qrels: judgments; needed with a run alone, else instead of the data's own.
        run: a TREC run; with a folder, what its first stage found.
        topics: the queries of a run that stands alone.
        texts: the passages of one.
        split: which of a folder's sets, as in "dev".
    """

    data: str | None = None
    qrels: str | None = None
    run: str | None = None
    topics: str | None = None
    texts: str | None = None
    split: str | None = None


def read_data(
    files: DataFiles | str, options: ReadOptions | None = None, candidates: int = CANDIDATES
) -> JudgedData:
    """Read a data set: rows of JSONL, TSV or Parquet, a BEIR, CoIR, BRIGHT or T2Ranking folder, or
    a TREC run.

    Args:
        files: where it is; a path stands for `DataFiles(path)`.
        options: how to read passages.
        candidates: how many BM25 finds for each query of a folder that comes without a run.

    Raises:
        OSError: a file cannot be read.
        InvalidInput: what is in it cannot be understood, or files are missing.
        MissingExtra: a library that reads it is not installed.
    """
    files = DataFiles(files) if isinstance(files, str) else files
    options = ReadOptions() if options is None else options
    if files.data is None:
        alone = (files.run, files.topics, files.texts, files.qrels)
        if None in alone:
            raise InvalidInput(
                "a TREC run needs --run, --topics, --texts and --qrels: give all four"
            )
        run, topics, texts, qrels = (str(path) for path in alone)
        return read_trec_files(run, topics, texts, qrels, options)
    if files.topics is not None or files.texts is not None:
        raise InvalidInput("--topics and --texts are for a TREC run without DATA")
    if Path(files.data).is_dir():
        return read_folder(
            files.data,
            options,
            split=files.split,
            qrels=files.qrels,
            run=files.run,
            candidates=candidates,
        )
    if files.run is not None or files.split is not None:
        raise InvalidInput(f"{files.data} is a file: --run and --split go with a folder")
    return read_rows(files.data, options, None if files.qrels is None else read_qrels(files.qrels))
