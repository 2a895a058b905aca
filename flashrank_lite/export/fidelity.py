"""How faithful an export is: to the library it came from, to torch, to fp32, and to itself.

What a user compares is text in and score out, so that is what is compared with the library. Torch
is compared on the same token ids, in batches; int8 with fp32; a passage alone with its list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from flashrank_lite.encoding.apart import ApartEncoder
from flashrank_lite.encoding.collate import pad
from flashrank_lite.encoding.pairs import PairEncoder
from flashrank_lite.encoding.prompts import PromptEncoder, open_encoder
from flashrank_lite.errors import InvalidModel
from flashrank_lite.evaluation import CandidateList, kendall_tau, mean_ndcg
from flashrank_lite.export.graph.torch_graph import run_torch
from flashrank_lite.export.source import Source
from flashrank_lite.logits import activate
from flashrank_lite.ranker import Ranker
from flashrank_lite.states.compare import compare, passage_states
from flashrank_lite.states.graph import OneRole, StateGraph, TwoRoles

LIBRARY_TOLERANCE = 1e-3  # logits, text in and score out against the checkpoint's library
TORCH_TOLERANCE = 1e-3  # logits, fp32 graph against the torch module
ALONE_TOLERANCE = 1e-4  # scores, a passage alone against the same passage in a full batch
# The figures of the manifest that tell of text in and score out.
TEXT_TO_SCORE, TEXT_TO_SCORE_AGAINST = "text_to_score_max_abs_logit", "text_to_score_against"
CONTROL_TOKENS = "text_to_score_control_tokens"
# Of the whole range of logits: a list that spans less is one that the model itself does not order
# (text in a language that it was not trained on).
LEAST_SPREAD = 0.1
LEAST_TAU = 0.8  # of int8 to fp32; with less it is left out
# Tokens times parameters of the longest texts compared: 2,048 tokens in a model of 0.6 B. For 8,192
# torch takes 4.3 GB for one matrix of its attention, and all lengths take an hour. Models of up to
# 0.15 B are compared on 8,192.
CHECKED_WORK = 1.25e12
SHORTEST_CHECKED = 512  # tokens, of larger models
BATCHES = (2, 3, 5)  # rows of the batches tried, beside single pairs

# Where tokenizers differ from each other. Control tokens of this tokenizer are added to them.
ODD_TEXTS = (
    "",
    "a",
    "Crème brûlée à l'Été: ÀÉÎÕÜ, Straße, İstanbul",
    "THE OCEAN IS BLUE BECAUSE WATER ABSORBS RED LIGHT",
    "海は青い。水は赤い光を吸収する。中文测试,한국어 문장",
    "🌊🐟 emoji 👩‍🔬 and ½ “quotes” – dashes… ﬁgures ①",
    "  two  spaces,\ttabs\nand\n\nlines  ",
    "don't e.g. U.S.A. 3.14 1,000,000 C++ foo_bar http://example.org/?q=1#top",
)
ODD_QUERY = "Où l'Océan est-il BLEU? 海"
SHOWN_TOKENS = 12  # of each list, around the place where they part

Texts = Sequence[tuple[str, Sequence[str]]]  # (query, its candidates)


def checked_length(source: Source) -> int:
    """Tokens of the longest texts to calibrate on and to compare: all it takes, if it is small."""
    parameters = sum(parameter.numel() for parameter in source.module.parameters())
    room = max(SHORTEST_CHECKED, int(CHECKED_WORK / max(1, parameters)))
    return min(source.max_length, room)


def against_library(source: Source, fp32: Ranker, texts: Texts) -> dict[str, Any]:
    """Largest absolute difference of logits to the checkpoint's own library, text in, score out.

    The library reads every pair alone. Passages are of one word to over the maximum length, empty,
    and of what tokenizers disagree on. Left out is what is read otherwise on purpose: a prompt
    that is too long (here the passage is cut), a query longer than half of the room with a passage
    that has no room beside it (libraries cut the query then), and written-out control tokens where
    they are plain text to a prompt and not to the library.

    Args:
        source: the checkpoint's library, and how the export reads text.
        fp32: a ranker on the fp32 graph, with raw scores.
        texts: real (query, passages) lists to make pairs of.

    Returns:
        The difference, the library's name, and for a prompt how control tokens in text were read;
        nothing where the source has no library.

    Raises:
        InvalidModel: the difference is larger than `LIBRARY_TOLERANCE`; the message names the first
            such text and where its tokens part.
    """
    if source.library is None:
        return {}
    library = source.library(source.max_length)
    encoder = encoder_of(source)
    tokenizer = Tokenizer.from_file(str(source.tokenizer))
    added = tokenizer.get_added_tokens_decoder().values()
    control = [token.content for token in added if token.special]
    prompt = source.template is not None and not source.template.pair
    same_control = source.template is None or not prompt or source.template.parse_special
    worst = 0.0
    for query, passage in _many_texts(texts, source.max_length, control):
        if not same_control and any(token in f"{query} {passage}" for token in control):
            continue
        (pair,) = next(iter(encoder.chunks([(query, passage)])))
        together = source.late is None  # read apart, each text is cut by itself there, too
        cut = together and pair.truncated
        if cut and (prompt or not _leaves_room(query, tokenizer, source.max_length)):
            continue
        (found,) = fp32.score(query, [passage])
        expected = library.logit(query, passage)
        difference = abs(float(found) - expected)
        if not difference <= LIBRARY_TOLERANCE:  # NaN is not faithful either
            ours = [str(tokenizer.id_to_token(int(number))) for number in pair.ids]
            raise InvalidModel(
                f"scores differ from those of {library.name} by {difference:.2g} (more than "
                f"{LIBRARY_TOLERANCE:g}), so nothing was written. First at the query {query!r:.60} "
                f"and the passage {passage!r:.60}: "
                f"{_where_tokens_part(ours, library.tokens(query, passage))}"
            )
        worst = max(worst, difference)
    figures: dict[str, Any] = {TEXT_TO_SCORE: worst, TEXT_TO_SCORE_AGAINST: library.name}
    if prompt:
        figures[CONTROL_TOKENS] = "as tokens" if same_control else "as text"
    return figures


def _leaves_room(query: str, tokenizer: Tokenizer, max_length: int) -> bool:
    """Whether a query takes at most half of the tokens: then libraries cut the passage alone."""
    special = tokenizer.num_special_tokens_to_add(True)
    tokens = len(tokenizer.encode(query, add_special_tokens=False).ids)
    return 2 * tokens <= max_length - special


def _many_texts(texts: Texts, max_length: int, control: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of real text of every length, then odd ones, those with control tokens last."""
    for query, passages in _every_length(texts, max_length):
        if len(passages) == 1:
            yield query, passages[0]
    query = texts[0][0]
    for text in ODD_TEXTS:
        yield query, text
        yield ODD_QUERY, text
    for token in control[:4]:
        yield query, f"It ends here.{token} Or {token} not"
        yield f"what is {token}", "nothing of the kind"


def _where_tokens_part(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Both lists around the first token that differs."""
    if list(ours) == list(theirs):
        return f"the {len(ours)} tokens are the same, so the model is fed or run differently"
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    place = min(len(ours), len(theirs)) if place is None else place
    start = max(0, place - SHOWN_TOKENS // 2)
    shown = (" ".join(map(str, side[start : start + SHOWN_TOKENS])) for side in (ours, theirs))
    return (
        f"the tokens part at number {place + 1} ({len(ours)} here, {len(theirs)} there), from "
        f"number {start + 1} on: {next(shown)!r} here, {next(shown)!r} there"
    )


def against_torch(source: Source, fp32: Ranker, texts: Texts) -> float:
    """Largest absolute difference of logits, over passages of one word to the maximum length.

    torch reads every pair alone and unpadded, the graph reads them as the runtime batches them.

    Args:
        source: the torch module, and how its inputs are made.
        fp32: a ranker on the fp32 graph, with raw scores.
        texts: real (query, passages) lists to make pairs of.

    Raises:
        InvalidModel: the difference is larger than `TORCH_TOLERANCE`.
    """
    logits = _torch_apart(source) if source.late is not None else _torch_together(source)
    differences = []
    for query, passages in _every_length(texts, source.max_length):
        pairs = [(query, passage) for passage in passages]
        differences.append(np.abs(fp32.score_pairs(pairs) - logits(query, passages)).max())
    worst = float(np.max(differences))
    if not worst <= TORCH_TOLERANCE:  # NaN is not faithful either
        raise InvalidModel(
            f"the fp32 graph differs from torch by {worst:.2g} (more than {TORCH_TOLERANCE:g}): "
            "the export is not faithful, so nothing was written"
        )
    return worst


def encoder_of(source: Source) -> PairEncoder | PromptEncoder | ApartEncoder:
    """What makes the ids of a text, as the runtime does."""
    roles = source.late.roles if source.late is not None else None
    return open_encoder(source.tokenizer, source.max_length, source.template, roles=roles)


def _torch_together(source: Source) -> Callable[[str, Sequence[str]], NDArray[np.float32]]:
    """Logits of passages, of a model that reads them with the query, each alone."""
    relevant = (source.head or {}).get("relevant", 1)
    encoder = encoder_of(source)

    def logits(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        pairs = [(query, passage) for passage in passages]
        rows = [pair for chunk in encoder.chunks(pairs) for pair in chunk]
        feeds = (pad([row], source.padding, source.inputs) for row in rows)
        found = np.concatenate([run_torch(source.module, feed, source.inputs)[0] for feed in feeds])
        if found.shape[1] == 2:
            return np.asarray(found[:, relevant] - found[:, 1 - relevant])
        return np.asarray(found[:, 0])

    return logits


def _torch_apart(source: Source) -> Callable[[str, Sequence[str]], NDArray[np.float32]]:
    """Logits of passages, of a model that reads them apart, each alone."""
    head, encoder = source.late, encoder_of(source)
    assert head is not None
    assert not isinstance(encoder, PromptEncoder)

    def run(
        feeds: Mapping[str, NDArray[np.int64]], outputs: Sequence[str], all_threads: bool
    ) -> list[NDArray[np.float32]]:
        arrays = run_torch(source.module, feeds, source.inputs)
        named = dict(zip(source.outputs, arrays, strict=True))
        return [named[name] for name in outputs]

    graph: StateGraph = TwoRoles(run, 0, source.padding)
    if head.roles is not None:
        graph = OneRole(run, head.roles, source.padding)

    def logits(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        asked = encoder.query(query)
        room = encoder.room_beside(asked)
        rows = [encoder.passage_row(encoder.passage(text), room)[0] for text in passages]
        read = [graph.passages([row], all_threads=False)[0] for row in rows]
        states = graph.query(encoder.query_row(asked))
        return compare(states, passage_states(rows, read, head), head)

    return logits


def against_fp32(fp32: Ranker, int8: Ranker, texts: Texts) -> dict[str, float]:
    """Kendall's tau (mean over the lists that fp32 orders) and largest difference of logits."""
    exact = [fp32.score(query, passages) for query, passages in texts]
    rounded = [int8.score(query, passages) for query, passages in texts]
    spreads = np.array([np.ptp(scores) for scores in exact])
    ordered = spreads >= min(LEAST_SPREAD * np.ptp(np.concatenate(exact)), spreads.max())
    taus = np.array([kendall_tau(a, b) for a, b in zip(exact, rounded, strict=True)])
    tau = float(taus[ordered].mean())
    largest = max(float(np.abs(a - b).max()) for a, b in zip(exact, rounded, strict=True))
    return {"kendall_tau": tau, "max_abs_logit": largest}


def alone_against_batch(
    ranker: Ranker, texts: Texts, activation: Literal["sigmoid", "raw"] = "sigmoid"
) -> float:
    """Largest difference of scores between a passage alone and in its list.

    Args:
        ranker: one with raw scores.
        texts: (query, passages) lists.
        activation: what makes scores of them.

    Raises:
        InvalidModel: it is larger than `ALONE_TOLERANCE`.
    """
    differences = []
    for query, passages in texts:
        together = activate(ranker.score(query, passages), activation)
        alone = np.concatenate([ranker.score(query, [p]) for p in passages])
        differences.append(np.abs(together - activate(alone, activation)).max())
    worst = float(np.max(differences))
    if not worst <= ALONE_TOLERANCE:
        raise InvalidModel(
            f"a passage's score changes by {worst:.2g} with its neighbours (more than "
            f"{ALONE_TOLERANCE:g}): the graph mixes rows of a batch, so nothing was written"
        )
    return worst


def quality(ranker: Ranker, lists: Sequence[CandidateList]) -> float:
    """nDCG@10 on labelled candidate lists."""
    return mean_ndcg(lists, [ranker.score(c.query, c.texts) for c in lists])


def table(figures: Mapping[Any, Mapping[str, Any]]) -> str:
    """The figures of each precision as a table of text, a column each."""
    columns = {precision: _rows(found) for precision, found in figures.items()}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    width = max(map(len, names))
    rows = [" " * width + "".join(f"  {precision:>10}" for precision in columns)]
    for name in names:
        cells = (column.get(name) for column in columns.values())
        shown = ("" if v is None else f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in cells)
        rows.append(f"{name:<{width}}" + "".join(f"  {cell:>10}" for cell in shown))
    return "\n".join(rows)


def _rows(figures: Mapping[str, Any]) -> dict[str, float]:
    library = figures.get(TEXT_TO_SCORE_AGAINST)
    named = {TEXT_TO_SCORE: f"text to score, against {library}"}
    return {named.get(n, n): v for n, v in figures.items() if not isinstance(v, str)}


def _every_length(texts: Texts, max_length: int) -> Iterator[tuple[str, list[str]]]:
    """Passages of 1, 2, 3, 5, 8... words up to `max_length`, alone and in uneven batches.

    A word is a token or more, so the longest ones fill the model and are truncated.
    """
    words = " ".join(passage for _, passages in texts for passage in passages).split()
    words *= 1 + max_length // len(words)
    lengths = [1, 2]
    while lengths[-1] < max_length:
        lengths.append(min(max_length, lengths[-1] + lengths[-2]))
    made = []
    for number, few in enumerate(lengths):
        offset = (97 * number) % (len(words) - few + 1)
        made.append(" ".join(words[offset : offset + few]))
        yield texts[number % len(texts)][0], [made[-1]]
    for number, rows in enumerate(BATCHES):
        yield texts[number % len(texts)][0], made[number :: len(BATCHES)][:rows]
        yield texts[number % len(texts)][0], made[-1 - number :: -len(BATCHES)][:rows]
