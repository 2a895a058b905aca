"""Ranking quality over judged queries: readers, measures, comparisons, a report.

judged.py      queries with candidates and judgments: what every reader gives
reading.py     one way in: files (rows.py) and collections (folders.py)
measures.py    values by ir-measures, query by query
comparison.py  models against the first stage and each other, with intervals
remarks.py     what to know about the data, in sentences
report.py      a comparison as one HTML page, with a picture (picture.py)
candidates.py, metrics.py  labelled lists and nDCG by numpy alone, for export and benchmarks
"""

from flashrank_lite.evaluation.candidates import CandidateList, read_candidate_lists
from flashrank_lite.evaluation.judged import JudgedData, JudgedQuery, labelled_lists
from flashrank_lite.evaluation.metrics import kendall_tau, mean_ndcg, ndcg
from flashrank_lite.evaluation.reading import DataFiles, read_data

__all__ = [
    "CandidateList",
    "DataFiles",
    "JudgedData",
    "JudgedQuery",
    "kendall_tau",
    "labelled_lists",
    "mean_ndcg",
    "ndcg",
    "read_candidate_lists",
    "read_data",
]
