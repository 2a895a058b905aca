"""The two stages of training, each resumable.

1. Distil: the student, reading one text, learns the states of the teacher it was cut from.
2. Rank: over groups of neighbouring queries with mined candidates, the student's list-wise
   distribution learns that of all teachers together, mixed with the labels.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nano.data import Corpus, pad_rows
from nano.ensemble import target
from nano.lists import Batch, Lists
from nano.model import NanoRanker, Side, encode_side
from nano.precision import autocast
from nano.teacher import LOWER, STATES, Teacher

logger = logging.getLogger(__name__)

LABELS = 0.7  # of a row's weight: the hard label's share of the target
HEAD_RATE = 10.0  # the head starts from nothing: its learning rate is so many times the layers'
TOKENS_AT_ONCE = 4096  # passages are read in parts of so many tokens, of like length
GPU_TOKENS_AT_ONCE = 131072
SAVE_EVERY_SECONDS = 120.0
DEV_POOL = 48  # passages of a held-out group that are read
DEPTH = 10  # of nDCG


def distil(
    model: NanoRanker,
    corpus: Corpus,
    teacher: Teacher,
    out: Path,
    recipe: str,
    *,
    steps: int,
    batch_tokens: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Stage 1: learn the teacher's states from single texts."""
    batches = _length_batches(corpus, batch_tokens, steps, seed)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = batches[step]
        parts = [
            _states_loss(
                model, corpus, teacher, [i for i in rows if corpus.is_query[i] is query], query
            )
            for query in (True, False)
        ]
        total = parts[0][0] + parts[1][0]
        tokens = sum(p[1] for p in parts)
        return total / tokens, {"states": float(total.detach() / tokens)}

    _run("distil", model, loss, out, recipe, steps=steps, learning_rate=learning_rate)


def rank(
    model: NanoRanker,
    reader: Reader,
    lists: Lists,
    out: Path,
    recipe: str,
    *,
    steps: int,
    groups: int,
    pool: int,
    learning_rate: float,
    check_every: int,
    check_groups: int,
    seed: int,
) -> None:
    """Stage 2: learn to order candidates; keep the weights that order held-out questions best."""
    device = model.word.weight.device

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, step])
        total, hits = torch.zeros((), device=device), []
        for place in range(step * groups, (step + 1) * groups):
            batch = lists.batch(lists.group(place), pool, rng, device)
            logp = _log_shares(reader, batch)
            soft = target(batch.scores, batch.allowed)
            weight = LABELS * batch.label_weight
            wanted = (1 - weight) * soft + weight * batch.positives
            total = total + F.kl_div(logp, wanted, reduction="batchmean") / groups
            hits.append(float((logp.argmax(-1) == wanted.argmax(-1)).float().mean()))
        return total, {"kl": float(total.detach()), "top1": float(np.mean(hits))}

    _run(
        *("rank", model, loss, out, recipe),
        steps=steps,
        learning_rate=learning_rate,
        check=lambda: held_out(model, reader, lists, check_groups)["mean"],
        check_every=check_every,
    )


class Reader:
    """Reads texts with the student; its lower layers may be kept as a teacher left them.

    Args:
        model: the student.
        corpus: the texts.
        lower: the teacher that kept the states after the student's first `layers` layers, which
            are not trained then; None to run all of them.
        layers: how many.
    """

    def __init__(
        self, model: NanoRanker, corpus: Corpus, lower: Teacher | None = None, layers: int = 0
    ) -> None:
        self.model, self._corpus, self._lower, self._layers = model, corpus, lower, layers
        self._kept = LOWER if layers < model.config.num_hidden_layers else STATES
        if lower is not None:
            model.position.requires_grad_(False)
            model.norm.requires_grad_(False)
            model.layers[:layers].requires_grad_(False)

    def read(self, rows: list[int], *, query: bool) -> Side:
        """The student's side of some texts."""
        device = self.model.word.weight.device
        ids, mask = _pad([_student_tokens(self._corpus, i, query) for i in rows], device)
        if self._lower is None:
            with autocast(device):
                side = encode_side(self.model, ids, mask, query=query)
            return Side(ids, side.mask, side.first.float(), side.last.float())
        states, whole = _pad([self._lower.of(i, self._kept) for i in rows], device)
        with autocast(device):
            last = self.model.read(states, whole, slice(self._layers, None)).float()
        last = last[:, 0 if query else 1 :]
        first = self.model.embed(ids, 0) if query else last  # a passage's are not looked at
        return Side(ids, mask.bool(), first, last)

    def logits(self, queries: list[int], passages: list[int]) -> Tensor:
        """Every query with every passage, (queries, passages); passages come sorted by length."""
        device = self.model.word.weight.device
        head, found = self.model.head, []
        side = self.read(queries, query=True)
        for part in _parts(self._corpus, passages, device):
            found.append(head.logit(head.compare_all(side, self.read(part, query=False))))
        return torch.cat(found, 1)


def held_out(
    model: NanoRanker, reader: Reader, lists: Lists, limit: int | None = None
) -> dict[str, float]:
    """nDCG@10 of the held-out rows by source, and its mean.

    Where a row is labelled, of its labels; elsewhere the teachers' shares are the gains.
    """
    of: dict[str, list[float]] = defaultdict(list)
    training = model.training
    model.eval()
    device = model.word.weight.device
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for group in lists.dev()[:limit]:
            batch = lists.batch(group, DEV_POOL, rng, device, dev=True)
            logits = _masked(reader.logits(batch.queries, batch.passages), batch)
            soft = target(batch.scores, batch.allowed)
            for r, number in enumerate(group.rows):
                labelled = bool(batch.positives[r].any())
                gains = batch.positives[r] if labelled else soft[r]
                source = lists.corpus.dev[int(number)].source
                of[source].append(_ndcg(logits[r], gains))
    model.train(training)
    figures = {source: float(np.mean(values)) for source, values in sorted(of.items())}
    return {**figures, "mean": float(np.mean(list(figures.values())))}


def _ndcg(logits: Tensor, gains: Tensor) -> float:
    discounts = 1 / torch.log2(torch.arange(2, DEPTH + 2, device=gains.device))
    found = gains[logits.argsort(descending=True)][:DEPTH]
    ideal = gains.sort(descending=True).values[:DEPTH]
    d = discounts[: len(found)]
    return float((found * d).sum() / (ideal * d).sum())


def _log_shares(reader: Reader, batch: Batch) -> Tensor:
    return _masked(reader.logits(batch.queries, batch.passages), batch).log_softmax(-1)


def _masked(logits: Tensor, batch: Batch) -> Tensor:
    return logits.masked_fill(~batch.allowed, -1e4)


def _run(
    name: str,
    model: NanoRanker,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    out: Path,
    recipe: str,
    *,
    steps: int,
    learning_rate: float,
    check: Callable[[], float] | None = None,
    check_every: int = 0,
) -> None:
    """Run a stage with AdamW, warm-up and linear decay; go on from `out` where it was stopped.

    With `check`, a figure that is better when higher, the model ends with the weights that had the
    best one.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    head = set(model.head.parameters())
    groups = [
        {"params": [p for p in parameters if p not in head], "share": 1.0},
        {"params": list(head), "share": HEAD_RATE},
    ]
    groups = [group for group in groups if group["params"]]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    checkpoint, best_file = out / f"{name}.pt", out / f"{name}.best.pt"
    first, best = 0, -math.inf
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=model.word.weight.device)
        if saved["recipe"] != recipe:
            raise SystemExit(
                f"{checkpoint} comes from other settings or data: {saved['recipe']}; now {recipe}. "
                "Choose another --work, or remove that file to train the stage again"
            )
        model.load_state_dict(saved["model"])
        first, best = saved["step"], saved["best"]
        if first < steps:
            optimiser.load_state_dict(saved["optimiser"])
        logger.info("%s: going on at step %d of %d", name, first, steps)
    warm = max(1, min(100, steps // 20))
    means: dict[str, float] = {}
    started = saved_at = time.monotonic()
    model.train()

    def checked(step: int) -> None:
        nonlocal best
        if check is None:
            return
        figure = check()
        logger.info("%s %d/%d: held out %.4f (best %.4f)", name, step, steps, figure, best)
        if figure > best:
            best = figure
            _write(best_file, {"model": model.state_dict(), "step": step, "held_out": figure})

    if first == 0 and check_every:
        checked(0)
    for step in range(first, steps):
        rate = learning_rate * min((step + 1) / warm, max(0.02, 1 - step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        value, figures = loss(step)
        if not math.isfinite(float(value.detach())):
            raise SystemExit(f"{name}: loss is {float(value.detach())} at step {step}")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        for key, figure in figures.items():
            means[key] = 0.95 * means.get(key, figure) + 0.05 * figure
        now = time.monotonic()
        last = step == steps - 1
        if step % 25 == 0 or last:
            text = ", ".join(f"{k} {v:.4f}" for k, v in means.items())
            pace = (now - started) / (step - first + 1)
            logger.info("%s %d/%d: %s, lr %.1e, %.2f s a step", name, step, steps, text, rate, pace)
        if last or (check_every and (step + 1) % check_every == 0):
            checked(step + 1)
        if now - saved_at > SAVE_EVERY_SECONDS or last:
            saved_at = now
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            _write(checkpoint, {**state, "step": step + 1, "best": best, "recipe": recipe})
    if check is not None:
        kept = torch.load(best_file, weights_only=True, map_location=model.word.weight.device)
        model.load_state_dict(kept["model"])
        logger.info("%s: the weights of step %d, %.4f", name, kept["step"], kept["held_out"])
    model.eval()


def _write(path: Path, state: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _states_loss(
    model: NanoRanker, corpus: Corpus, teacher: Teacher, rows: list[int], query: bool
) -> tuple[Tensor, int]:
    device = model.word.weight.device
    if not rows:
        return torch.zeros((), device=device), 0
    ids, mask = _pad([_student_tokens(corpus, i, query) for i in rows], device)
    wanted, _ = _pad([teacher.of(i)[0 if query else 1 :] for i in rows], device)
    with autocast(device):
        last = model.encode(ids, mask, query=query)[1].float()
    token = ((1 - F.cosine_similarity(last, wanted, dim=-1)) * mask).sum()
    means = [(t * mask.unsqueeze(-1)).sum(1) for t in (last, wanted)]
    # A text's mean counts like its tokens: cosine of means is one of the head's features.
    mean = ((1 - F.cosine_similarity(means[0], means[1], dim=-1)) * mask.sum(1)).sum()
    return token + mean, int(mask.sum())


def _student_tokens(corpus: Corpus, index: int, query: bool) -> np.ndarray:
    return corpus.tokens(index)[0 if query else 1 :]


def _pad(rows: list[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    out, mask = pad_rows(rows)
    return torch.from_numpy(out).to(device), torch.from_numpy(mask).float().to(device)


def _parts(corpus: Corpus, passages: list[int], device: torch.device) -> list[list[int]]:
    """Passages, shortest first, in parts of at most so many tokens: they are padded little."""
    most = TOKENS_AT_ONCE if device.type == "cpu" else GPU_TOKENS_AT_ONCE
    parts: list[list[int]] = [[]]
    for i in passages:
        if parts[-1] and (len(parts[-1]) + 1) * len(corpus.tokens(i)) > most:
            parts.append([])
        parts[-1].append(i)
    return parts


def _length_batches(corpus: Corpus, tokens: int, steps: int, seed: int) -> list[list[int]]:
    """`steps` batches of texts of like length, in random order; every text once an epoch."""
    rng = np.random.default_rng(seed)
    lengths = np.diff(corpus.offsets)
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = rng.permutation(len(lengths))
        # Lengths are blurred so that an epoch's batches differ from the last one's.
        order = order[
            np.argsort((lengths[order] + rng.uniform(0, 8, len(order))) // 8, kind="stable")
        ]
        epoch: list[list[int]] = [[]]
        widest = 0
        for i in order:
            widest = max(widest, int(lengths[i]))
            if epoch[-1] and (len(epoch[-1]) + 1) * widest > tokens:
                epoch.append([])
                widest = int(lengths[i])
            epoch[-1].append(int(i))
        batches.extend(epoch[j] for j in rng.permutation(len(epoch)))
    return batches[:steps]
