"""What is read off Hugging Face config files."""

from typing import Any

import pytest

from flashrank_lite.models import config as hf


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "raw"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "raw",
        ),
        (
            {
                "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            },
            "sigmoid",
        ),
    ],
)
def test_the_activation_is_the_one_that_sentence_transformers_would_take(
    config: dict[str, Any], activation: str
) -> None:
    assert hf.activation(config) == activation


@pytest.mark.parametrize(
    ("labels", "relevant"),
    [
        (None, 1),
        ({"0": "LABEL_0", "1": "LABEL_1"}, 1),
        ({"0": "irrelevant", "1": "relevant"}, 1),
        ({"0": "Relevant", "1": "not_relevant"}, 0),
        ({"0": "yes", "1": "no"}, 0),
    ],
)
def test_the_relevant_class_is_found_by_its_label(labels: Any, relevant: int) -> None:
    assert hf.relevant_class({"id2label": labels}) == relevant


@pytest.mark.parametrize(
    ("config", "tokenizer", "padding"),
    [
        ({"pad_token_id": 7}, {"pad_token": "<pad>"}, 7),
        ({"pad_token_id": None}, {"pad_token": "<pad>"}, "<pad>"),
        ({}, {"pad_token": {"content": "<pad>"}}, "<pad>"),
        ({}, {}, "[PAD]"),
    ],
)
def test_padding_is_the_configs_or_else_the_tokenizers(
    config: dict[str, Any], tokenizer: dict[str, Any], padding: int | str
) -> None:
    assert hf.padding(config, tokenizer) == padding
