"""What the export tests share: torch if it is there, and small checkpoints with random weights."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "the",
    "a",
    "of",
    "to",
    "in",
    "flea",
    "fleas",
    "live",
    "lives",
    "days",
    "year",
    "water",
    "light",
    "sun",
    "earth",
    "ocean",
    "blue",
    "red",
    "stone",
    "how",
    "long",
    "why",
    "what",
    "where",
    "is",
    "are",
    "does",
    "do",
    "it",
    "they",
    "from",
    "and",
    "with",
    "on",
    "for",
    "that",
    "this",
    "small",
    "large",
]
QUERIES = ["how long do fleas live", "why is the ocean blue", "what does the sun do to stone"]


def require_export() -> None:
    """Skip a module without the export extra, unless the gate says that it must run."""
    if os.environ.get("FLASHRANK_LITE_REQUIRE_EXPORT") == "1":
        return
    for name in ("torch", "transformers", "onnx"):
        pytest.importorskip(name, reason='needs pip install ".[export]"')


def passages(seed: int, count: int = 9) -> list[str]:
    """Made of the vocabulary's words, of 1 to 60 words."""
    import random

    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(count)]


def texts() -> list[tuple[str, list[str]]]:
    """(query, passages) lists to calibrate on and to compare with."""
    return [(query, passages(number)) for number, query in enumerate(QUERIES * 3)]


def save_tokenizer(folder: Path, *, roberta: bool = False) -> int:
    """Write a WordPiece tokenizer.json over WORDS; returns the size of its vocabulary."""
    special = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    unknown = special[3] if roberta else special[1]
    vocabulary = {token: number for number, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    else:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir(parents=True, exist_ok=True)
    if roberta:  # whose own class in transformers would take the vocabulary for byte-level BPE
        stated = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def save_bert(folder: Path, *, labels: int = 1, seed: int = 0, **changes: Any) -> Any:
    """Write a small random BERT cross-encoder and return the torch model."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=save_tokenizer(folder),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=160,
        num_labels=labels,
        initializer_range=0.15,  # so that logits differ from passage to passage
        **changes,
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return model


def torch_logits(model: Any, folder: Path, query: str, found: list[str], max_length: int) -> Any:
    """Logits straight from torch, one pair at a time, tokenised by `tokenizers` itself."""
    import torch

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length, strategy="only_second")
    out = []
    with torch.inference_mode():
        for passage in found:
            encoding = tokenizer.encode(query, passage)
            inputs = {"input_ids": torch.tensor([encoding.ids])}
            if getattr(model.config, "type_vocab_size", 1) > 1:
                inputs["token_type_ids"] = torch.tensor([encoding.type_ids])
            out.append(model(**inputs).logits[0].numpy())
    return out
