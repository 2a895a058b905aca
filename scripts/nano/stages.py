"""The two stages of training, each resumable.

1. Distil: the student, reading one text, learns the teacher's token states (cosine loss).
2. Rank: over batches of neighbouring queries with mined candidates, the student's list-wise
   distribution learns the teacher's, mixed with the labels.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nano.data import Corpus, pad_rows
from nano.mining import Candidates
from nano.model import NanoRanker, Side, encode_side
from nano.teacher import TeacherStates, Texts, inverse_document_frequency, teacher_scores

logger = logging.getLogger(__name__)

TEMPERATURE = 0.05  # of the teacher's scores in the list-wise target
STATE_WEIGHT = 2.0  # of the token states' loss in the ranking stage: keeps what distilling taught
HEAD_RATE = 10.0  # the head starts from nothing: its learning rate is so many times the layers'
PASSAGES_AT_ONCE = 24
SAVE_EVERY_SECONDS = 120.0


def distil(
    model: NanoRanker,
    corpus: Corpus,
    teacher: TeacherStates,
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
    corpus: Corpus,
    teacher: TeacherStates,
    candidates: Candidates,
    out: Path,
    recipe: str,
    *,
    steps: int,
    learning_rate: float,
) -> None:
    """Stage 2: learn to order candidates."""
    device = model.word.weight.device
    idf = inverse_document_frequency(corpus, model.config.vocab_size).to(device)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        batch = candidates.batch(step, device)
        queries, q_target, q_loss = _encode(model, corpus, teacher, batch.queries, query=True)
        logits, scores, p_loss = [], [], torch.zeros((), device=device)
        # Passages come sorted by length: groups of them are padded little.
        for start in range(0, len(batch.passages), PASSAGES_AT_ONCE):
            group = batch.passages[start : start + PASSAGES_AT_ONCE]
            passages, p_target, group_loss = _encode(model, corpus, teacher, group, query=False)
            p_loss = p_loss + group_loss * len(group) / len(batch.passages)
            logits.append(model.head.logit(model.head.compare_all(queries, passages)))
            with torch.no_grad():
                scores.append(teacher_scores(q_target, p_target, idf))
        states = q_loss + p_loss
        logits = torch.cat(logits, 1)
        with torch.no_grad():
            soft = (
                (torch.cat(scores, 1) / TEMPERATURE).masked_fill(~batch.allowed, -1e4).softmax(-1)
            )
            target = (1 - batch.label_weight) * soft + batch.label_weight * batch.positives
        logp = logits.masked_fill(~batch.allowed, -1e4).log_softmax(-1)
        divergence = F.kl_div(logp, target, reduction="batchmean")
        hit = (logp.argmax(-1) == target.argmax(-1)).float().mean()
        figures = {
            "kl": float(divergence.detach()),
            "states": float(states.detach()),
            "top1": float(hit),
        }
        return divergence + STATE_WEIGHT * states, figures

    _run("rank", model, loss, out, recipe, steps=steps, learning_rate=learning_rate)


def _run(
    name: str,
    model: NanoRanker,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    out: Path,
    recipe: str,
    *,
    steps: int,
    learning_rate: float,
) -> None:
    """Run a stage with AdamW, warm-up and linear decay; go on from `out` where it was stopped."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    head = set(model.head.parameters())
    groups = [
        {"params": [p for p in parameters if p not in head], "share": 1.0},
        {"params": list(head), "share": HEAD_RATE},
    ]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    checkpoint = out / f"{name}.pt"
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=model.word.weight.device)
        if saved["recipe"] != recipe:
            raise SystemExit(
                f"{checkpoint} comes from other settings or data: {saved['recipe']}; now {recipe}. "
                "Choose another --work, or remove that file to train the stage again"
            )
        model.load_state_dict(saved["model"])
        first = saved["step"]
        if first < steps:
            optimiser.load_state_dict(saved["optimiser"])
        logger.info("%s: going on at step %d of %d", name, first, steps)
    warm = max(1, min(100, steps // 20))
    means: dict[str, float] = {}
    started = saved_at = time.monotonic()
    model.train()
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
        if step % 25 == 0 or step == steps - 1:
            text = ", ".join(f"{k} {v:.4f}" for k, v in means.items())
            pace = (now - started) / (step - first + 1)
            logger.info("%s %d/%d: %s, lr %.1e, %.2f s a step", name, step, steps, text, rate, pace)
        if now - saved_at > SAVE_EVERY_SECONDS or step == steps - 1:
            saved_at = now
            _save(checkpoint, model, optimiser, step + 1, recipe)
    model.eval()


def _save(
    path: Path, model: NanoRanker, optimiser: torch.optim.Optimizer, step: int, recipe: str
) -> None:
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({**state, "step": step, "recipe": recipe}, partial)
    partial.replace(path)


def _encode(
    model: NanoRanker, corpus: Corpus, teacher: TeacherStates, rows: list[int], *, query: bool
) -> tuple[Side, Texts, Tensor]:
    """The student's and the teacher's side of some texts, and how far their states differ."""
    device = model.word.weight.device
    ids, mask = _pad([_student_tokens(corpus, i, query) for i in rows], device)
    states, _ = _pad([_teacher_states(teacher, i, query) for i in rows], device)
    side = encode_side(model, ids, mask, query=query)
    apart = ((1 - F.cosine_similarity(side.last, states, dim=-1)) * mask).sum() / mask.sum()
    return side, Texts(ids, mask, states), apart


def _states_loss(
    model: NanoRanker, corpus: Corpus, teacher: TeacherStates, rows: list[int], query: bool
) -> tuple[Tensor, int]:
    device = model.word.weight.device
    if not rows:
        return torch.zeros((), device=device), 0
    ids, mask = _pad([_student_tokens(corpus, i, query) for i in rows], device)
    target, _ = _pad([_teacher_states(teacher, i, query) for i in rows], device)
    _, last = model.encode(ids, mask, query=query)
    token = ((1 - F.cosine_similarity(last, target, dim=-1)) * mask).sum()
    means = [(t * mask.unsqueeze(-1)).sum(1) for t in (last, target)]
    # A text's mean counts like its tokens: cosine of means is one of the head's features.
    mean = ((1 - F.cosine_similarity(means[0], means[1], dim=-1)) * mask.sum(1)).sum()
    return token + mean, int(mask.sum())


def _student_tokens(corpus: Corpus, index: int, query: bool) -> np.ndarray:
    return corpus.tokens(index)[0 if query else 1 :]


def _teacher_states(teacher: TeacherStates, index: int, query: bool) -> np.ndarray:
    return teacher.of(index)[0 if query else 1 :]


def _pad(rows: list[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    out, mask = pad_rows(rows)
    return torch.from_numpy(out).to(device), torch.from_numpy(mask).float().to(device)


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
