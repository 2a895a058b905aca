"""What a model does where rerankers are known to fail: one table, real queries and passages.

    python -m benchmarks.weaknesses --lists NAME=FILE ... [--model FOLDER] [--queries 300]

Labelled lists, evenly from each set; of a list the first `CANDIDATES` passages. Half of the figures
are nDCG@10 with a query as it stands and as it is changed:

- typos: one letter in ten is replaced, left out, doubled or changed places with the next one;
- upper case;
- 1 to 3 words: the query's rarest words alone;
- the answer in the middle: every relevant passage stands between two that are not.

For the others a passage is added that must not win: one that says the query three times over
instead of answering it, the best answer with its first statement negated, the best answer with
other numbers. The figure is how often the added one scores higher than the best answer, and for
the last two also how many of them the model tells apart by more than `APART` of a score.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.lists import read_sets
from flashrank_lite import Ranker
from flashrank_lite.evaluation import CandidateList, mean_ndcg

CANDIDATES = 20
TYPOS = 10  # one letter in so many
APART = 0.05
AUXILIARIES = re.compile(
    r"\b(is|are|was|were|can|could|will|would|should|must|may|has|have|had|does|do|did)\b(?! not)"
)
NUMBER = re.compile(r"\d+")

Scores = Callable[[str, Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Added:
    """How an added passage fared.

    Attributes:
        asked: queries whose best answer could be changed so.
        won: of them, the share where it scored higher than the best answer.
        apart: where it scored at least `APART` lower.
    """

    asked: int
    won: float
    apart: float


def main() -> None:
    """Print the table of every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", nargs="+", required=True, metavar="NAME=FILE[:COUNT]")
    parser.add_argument("--model", nargs="*", default=[None], help="none: the bundled one")
    parser.add_argument("--queries", type=int, default=300, help="of all sets together")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lists = sample(list(read_sets(args.lists).values()), args.queries)
    print(f"{len(lists)} queries of {', '.join(e.split('=')[0] for e in args.lists)}\n")
    for model in args.model:
        with Ranker(model) as ranker:
            print(f"{model or 'bundled'}\n")
            print(table(ranker.score, lists, seed=args.seed), flush=True)


def sample(sets: Sequence[Sequence[CandidateList]], count: int) -> list[CandidateList]:
    """Lists with a relevant passage among their first, in turn from every set."""
    usable = [
        [short for short in map(_first, lists) if any(label > 0 for label in short.labels)]
        for lists in sets
    ]
    longest = max(map(len, usable))
    turns = [lists[place] for place in range(longest) for lists in usable if place < len(lists)]
    return turns[:count]


def table(score: Scores, lists: Sequence[CandidateList], *, seed: int) -> str:
    """Every figure of one model, as Markdown."""
    rows = ["| | queries | nDCG@10 before | after |", "|---|---:|---:|---:|"]
    plain = [score(one.query, one.texts) for one in lists]
    before, known = mean_ndcg(lists, plain), _counts(lists)
    changes: dict[str, Callable[[CandidateList], CandidateList]] = {
        "typos, one letter in ten": lambda one: _asked(one, with_typos(one.query, seed)),
        "upper case": lambda one: _asked(one, one.query.upper()),
        **{
            f"the query's {n} rarest word{'s' * (n > 1)}": (
                lambda one, n=n: _asked(one, rarest(one.query, n, known))
            )
            for n in (3, 2, 1)
        },
        "the answer in the middle of two others": lambda one: in_the_middle(one, seed),
    }
    for name, change in changes.items():
        changed = [change(one) for one in lists]
        after = mean_ndcg(changed, [score(one.query, one.texts) for one in changed])
        rows.append(f"| {name} | {len(lists)} | {before:.3f} | {after:.3f} |")
    rows += ["", "| an added passage | queries | scores higher | at least 0.05 lower |"]
    rows.append("|---|---:|---:|---:|")
    for name, make in {
        "says the query three times": lambda one, best: f"{one.query} " * 3,
        "the answer negated": lambda one, best: negated(best),
        "the answer with other numbers": lambda one, best: other_numbers(best, seed),
    }.items():
        got = added(score, lists, plain, make)
        rows.append(f"| {name} | {got.asked} | {got.won:.1%} | {got.apart:.1%} |")
    return "\n".join(rows) + "\n"


def added(
    score: Scores,
    lists: Sequence[CandidateList],
    plain: Sequence[np.ndarray],
    make: Callable[[CandidateList, str], str | None],
) -> Added:
    """How often a passage that is made of the best answer, or of the query, beats that answer."""
    differences = []
    for one, scores in zip(lists, plain, strict=True):
        best = max(
            (place for place, label in enumerate(one.labels) if label > 0),
            key=lambda place: scores[place],
        )
        changed = make(one, one.texts[best])
        if changed is not None:
            answer, other = score(one.query, [one.texts[best], changed])
            differences.append(float(other) - float(answer))
    if not differences:
        return Added(0, math.nan, math.nan)
    found = np.array(differences)
    return Added(len(found), float((found > 0).mean()), float((found <= -APART).mean()))


def with_typos(text: str, seed: int) -> str:
    """The text with one letter in `TYPOS` mistyped, the same for one seed."""
    rng = random.Random(f"{seed} {text}")
    letters = list(text)
    places = [place for place, letter in enumerate(letters) if letter.isalpha()]
    for place in rng.sample(places, -(-len(places) // TYPOS)):
        kind = rng.choice(("replaced", "left out", "doubled", "swapped"))
        if kind == "replaced":
            letters[place] = rng.choice("abcdefghijklmnopqrstuvwxyz")
        elif kind == "left out":
            letters[place] = ""
        elif kind == "doubled":
            letters[place] *= 2
        elif place + 1 < len(letters):
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def rarest(query: str, count: int, known: Counter[str]) -> str:
    """The query's `count` words that the fewest passages have, in their order."""
    words = re.findall(r"\w+", query)
    kept = set(sorted(range(len(words)), key=lambda place: known[words[place].lower()])[:count])
    return " ".join(word for place, word in enumerate(words) if place in kept) or query


def in_the_middle(one: CandidateList, seed: int) -> CandidateList:
    """Every relevant passage between two of the list that are not, if it has two."""
    others = [text for text, label in zip(one.texts, one.labels, strict=True) if label <= 0]
    if len(others) < 2:
        return one
    rng = random.Random(f"{seed} {one.query}")
    texts = []
    for text, label in zip(one.texts, one.labels, strict=True):
        before, after = rng.sample(others, 2)
        texts.append(f"{before} {text} {after}" if label > 0 else text)
    return replace(one, texts=tuple(texts))


def negated(passage: str) -> str | None:
    """The passage with "not" after its first auxiliary verb; None if it has none."""
    changed, count = AUXILIARIES.subn(r"\1 not", passage, count=1)
    return changed if count else None


def other_numbers(passage: str, seed: int) -> str | None:
    """The passage with every number replaced by another of as many digits; None if it has none."""
    rng = random.Random(f"{seed} {passage}")

    def other(found: re.Match[str]) -> str:
        digits = len(found[0])
        low = 10 ** (digits - 1) if digits > 1 else 0
        number = rng.randrange(low, 10**digits - 1)
        return str(number + (number >= int(found[0]))).zfill(digits)

    changed, count = NUMBER.subn(other, passage)
    return changed if count else None


def _first(one: CandidateList) -> CandidateList:
    kept = {"texts": one.texts[:CANDIDATES], "labels": one.labels[:CANDIDATES]}
    return CandidateList(one.query, **kept)


def _asked(one: CandidateList, query: str) -> CandidateList:
    return replace(one, query=query)


def _counts(lists: Sequence[CandidateList]) -> Counter[str]:
    passages = {text for one in lists for text in one.texts}
    return Counter(word for text in passages for word in set(re.findall(r"\w+", text.lower())))


if __name__ == "__main__":
    main()
