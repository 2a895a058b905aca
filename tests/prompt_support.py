"""Prompts as decoder rerankers have them, and a tokenizer that knows their special tokens."""

import pytest
from export_families import byte_level

from flashrank_lite.encoding.template import Template

BODY = Template(
    (
        '<|im_start|>Judge by the Instruct. Answer "yes" or "no".<|im_end|>\n',
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {passage}",
        "<|im_end|>\n<think>\n\n</think>\n\n",
    ),
    "find passages that answer",
)
PARTS = Template(
    ("<|im_start|>", "A: {query}", "\n", "B: {passage}", "\n", "{instruction}"), "Why?"
)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    byte_level(folder, chat=True)
    return folder / "tokenizer.json"


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def manifest(**changes):
    return {
        "format": 1,
        "name": "prompted",
        "head": {"type": "logit"},
        "activation": "raw",
        "max_length": 300,
        "variants": [{"file": "model.onnx"}],
        "files": {},
        **changes,
    }
