"""Prompts of decoder and T5 rerankers, and the tokens that answer.

The prompts are those the models were trained with; another one makes scores that are almost random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flashrank_lite.encoding.template import Template
from flashrank_lite.errors import InvalidModel
from flashrank_lite.export.checkpoints.loading import Checkpoint
from flashrank_lite.models.manifest import read_json


@dataclass(frozen=True)
class Recipe:
    """A prompt and its answers.

    Attributes:
        template: the prompt.
        yes: the token whose logit says "relevant".
        no: the token whose logit is taken off it; None for none.
        max_length: tokens of a prompt, where the recipe limits it.
        saved: whether it is the checkpoint's own, which its library fills in by itself.
    """

    template: Template
    yes: str
    no: str | None
    max_length: int | None = None
    saved: bool = False


_IM_START, _IM_END = "<|im_start|>", "<|im_end|>"

# The model card of Qwen/Qwen3-Reranker-0.6B: the body is tokenised as one text.
QWEN3 = Recipe(
    Template(
        (
            f"{_IM_START}system\nJudge whether the Document meets the requirements based on the "
            'Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
            f"{_IM_END}\n{_IM_START}user\n",
            "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {passage}",
            f"{_IM_END}\n{_IM_START}assistant\n<think>\n\n</think>\n\n",
        ),
        "Given a web search query, retrieve relevant passages that answer the query",
    ),
    "yes",
    "no",
    8192,
)
# mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py: every part is tokenised by itself.
MXBAI_V2 = Recipe(
    Template(
        (
            f"{_IM_START}system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
            f"assistant.{_IM_END}\n{_IM_START}user\n",
            "query: {query}",
            "\n",
            "document: {passage}",
            "\n",
            "You are a search relevance expert who evaluates how well documents match search "
            "queries. For each query-document pair, carefully analyze the semantic relationship "
            "between them, then provide your binary relevance judgment (0 for not relevant, 1 for "
            "relevant).\nRelevance:",
            f"{_IM_END}\n{_IM_START}assistant\n",
        )
    ),
    "1",
    "0",
    8192,
)
# The model card of BAAI/bge-reranker-v2-gemma: the instruction comes last, "Yes" alone counts.
BGE_GEMMA = Recipe(
    Template(
        ("<bos>", "A: {query}", "\n", "B: {passage}", "\n", "{instruction}"),
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'.",
    ),
    "Yes",
    None,
    1024,
)
# castorini/pygaggle, MonoT5: the answer is the first token that is decoded.
MONO_T5 = Recipe(
    Template(("Query: {query} Document: {passage}", "Relevant:", "</s>")), "true", "false", 512
)
# Zhuang et al., "RankT5" (2022), as the public checkpoints have it: one unused token is the score.
RANK_T5 = Recipe(
    Template(("Query: {query} Document: {passage}", "</s>")), "<extra_id_10>", None, 512
)

_KNOWN: tuple[tuple[str, Callable[[str], bool], Recipe], ...] = (
    ("qwen3", lambda name: True, QWEN3),
    ("qwen2", lambda name: "mxbai-rerank" in name, MXBAI_V2),
    ("gemma", lambda name: "bge-reranker" in name, BGE_GEMMA),
    ("t5", lambda name: "monot5" in name or "mono-t5" in name, MONO_T5),
    ("t5", lambda name: "rankt5" in name or "rank-t5" in name, RANK_T5),
)


def find_recipe(checkpoint: Checkpoint) -> Recipe:
    """The recipe of a known family, by model type and name.

    Raises:
        InvalidModel: it is none of those we know.
    """
    kind = checkpoint.stated.get("model_type")
    name = f"{checkpoint.name} {checkpoint.stated.get('_name_or_path', '')}".lower()
    for known, fits, recipe in _KNOWN:
        if known == kind and fits(name):
            return recipe
    raise InvalidModel(
        f"{checkpoint.name} is a model of type {kind!r} that answers in words, and no prompt is "
        "known for it: give one with --template FILE, JSON with segments, instruction, yes and no"
    )


def read_recipe(file: Path) -> Recipe:
    """A recipe from JSON: {"segments": [...], "instruction": "...", "yes": "...", "no": "..."}.

    Raises:
        InvalidModel: the file is missing or not of that form.
    """
    data = read_json(file)
    if data is None:
        raise InvalidModel(f"there is no template file {file}: write one, or correct its path")
    template = Template.read(data)
    yes, no = data.get("yes"), data.get("no")
    if not isinstance(yes, str) or not yes or not (no is None or (isinstance(no, str) and no)):
        raise InvalidModel(f'{file} must name the answers: "yes", a token, and "no", one or null')
    return Recipe(template, yes, no)


def answer_ids(recipe: Recipe, encode: Callable[[str], list[int]]) -> tuple[int, int | None]:
    """Ids of the answers: the first token of each text.

    Raises:
        InvalidModel: an answer has no token, or both begin with the same one.
    """
    found: Mapping[str, int | None] = {
        text: next(iter(encode(text)), None) for text in (recipe.yes, recipe.no) if text is not None
    }
    yes, no = found[recipe.yes], found[recipe.no] if recipe.no is not None else None
    if yes is None or (recipe.no is not None and (no is None or no == yes)):
        raise InvalidModel(
            f"the tokenizer does not tell the answers {recipe.yes!r} and {recipe.no!r} apart: "
            "give others with --template FILE"
        )
    return yes, no
