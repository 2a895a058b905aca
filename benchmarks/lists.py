"""Labelled lists that measurements are made on, as they are named on a command line."""

from __future__ import annotations

import random
from collections.abc import Iterable

from flashrank_lite.evaluation import CandidateList, read_candidate_lists

NAMED = "NAME=FILE[:COUNT]"  # for help texts


def read_sets(
    arguments: Iterable[str], most: int | None = None, seed: int = 0
) -> dict[str, list[CandidateList]]:
    """Sets of NAME=FILE or NAME=FILE:COUNT arguments.

    Queries without a positive are left out; of the others a seeded sample of COUNT (or `most`).
    """
    sets = {}
    for argument in arguments:
        name, file = argument.split("=", 1)
        file, _, count = file.partition(":")
        lists = [one for one in read_candidate_lists(file) if any(one.ideal or one.labels)]
        wanted = int(count) if count else most
        if wanted is not None and wanted < len(lists):
            lists = random.Random(seed).sample(lists, wanted)
        sets[name] = lists
    return sets


def texts_of(lists: Iterable[CandidateList], passages: int) -> list[tuple[str, list[str]]]:
    """Queries with the first `passages` of their candidates, as the exporter takes them."""
    return [(one.query, list(one.texts[:passages])) for one in lists]
