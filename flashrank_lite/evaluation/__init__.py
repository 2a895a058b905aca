"""Ranking quality over labelled candidate lists. numpy only; never imported by the runtime."""

from flashrank_lite.evaluation.candidates import CandidateList, read_candidate_lists
from flashrank_lite.evaluation.metrics import kendall_tau, mean_ndcg, ndcg

__all__ = ["CandidateList", "kendall_tau", "mean_ndcg", "ndcg", "read_candidate_lists"]
