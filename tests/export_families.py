"""Small rerankers of every family that the exporter knows, with random weights and real text.

Each maker writes a folder as transformers (or sentence-transformers) saves it: configuration,
weights, and a tokenizer of the family's kind, trained on the passages in examples/.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
VOCABULARY = 700
POSITIONS = 160
# Wide enough for logits to differ from passage to passage: int8 then has an order to keep.
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "initializer_range": 0.15,
}
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CHAT_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "yes", "no"]
GEMMA_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "Yes"]
QWEN_WORDS = (  # of its tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ANSWERS = {"yes", "no", "Yes", "true", "false"}  # tokens of the vocabulary, no control tokens
T5_TOKENS = ["<pad>", "</s>", "<unk>", "<extra_id_10>", "true", "false"]


@lru_cache(maxsize=1)
def questions() -> list[tuple[str, list[str]]]:
    """Six real queries with nine passages each, of 1 to 60 words."""
    found = []
    with (EXAMPLES / "questions.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            passages = [passage["text"].split() for passage in row["passages"][:9]]
            cuts = (1, 4, 9, 15, 22, 30, 40, 50, 60)
            texts = [" ".join(words[:cut]) for words, cut in zip(passages, cuts, strict=True)]
            found.append((row["query"], texts))
    return found


def pooled() -> list[tuple[str, list[str]]]:
    """The same queries, each with the passages of all.

    Of nine passages the order that int8 keeps of a model with random weights is a matter of chance:
    Kendall's tau was 0.80 to 0.94 in six runs.
    """
    passages = [passage for _, found in questions() for passage in found]
    return [(query, passages) for query, _ in questions()]


def lines() -> list[str]:
    """What tokenizers are trained on."""
    return [text for query, passages in questions() for text in (query, *passages)]


def word_piece(folder: Path) -> int:
    """As BERT has it; the size of its vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=BERT_TOKENS)
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]  # else transformers gives no types
    return _save(tokenizer, folder, _bert_names() | {"model_input_names": inputs})


def byte_level(folder: Path, *, chat: bool = False, **settings: Any) -> int:
    """Byte-level BPE, as RoBERTa has it, or Qwen."""
    special = CHAT_TOKENS if chat else ROBERTA_TOKENS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if chat:  # AutoTokenizer gives every Qwen model these, whatever its tokenizer.json says
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[token for token in special if token not in ANSWERS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.add_tokens([token for token in special if token in ANSWERS])
    if chat:
        settings = {"pad_token": "<|endoftext|>", "model_max_length": 1024} | settings
        return _save(tokenizer, folder, settings)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return _save(tokenizer, folder, _roberta_names() | settings)


def unigram(folder: Path, special: list[str] | None = None, **settings: Any) -> int:
    """SentencePiece's Unigram, as XLM-R, DeBERTa-v2, T5 and Gemma have it or nearly so."""
    special = special or ROBERTA_TOKENS
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    scheme = "never" if special is GEMMA_TOKENS else "always"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    unknown = next(token for token in special if token.lower() in ("<unk>", "[unk]"))
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[token for token in special if token not in ANSWERS],
        unk_token=unknown,
    )
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.add_tokens([token for token in special if token in ANSWERS])
    if special is ROBERTA_TOKENS:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
        settings = _roberta_names() | settings
    if special is BERT_TOKENS:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        settings = _bert_names() | settings
    if special is T5_TOKENS:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        settings = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"} | settings
    if special is GEMMA_TOKENS:
        settings = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"} | settings
    return _save(tokenizer, folder, settings)


def bert(folder: Path, **changes: Any) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=word_piece(folder), **_head(changes), **SIZES)
    return _write(BertForSequenceClassification, config, folder)


def electra(folder: Path) -> Any:
    from transformers import ElectraConfig, ElectraForSequenceClassification

    config = ElectraConfig(vocab_size=word_piece(folder), embedding_size=32, **_head({}), **SIZES)
    return _write(ElectraForSequenceClassification, config, folder)


def distilbert(folder: Path) -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=word_piece(folder),
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        initializer_range=0.15,
        **_head({}),
    )
    return _write(DistilBertForSequenceClassification, config, folder)


def roberta(folder: Path) -> Any:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(vocab_size=byte_level(folder), **_roberta(), **SIZES)
    return _write(RobertaForSequenceClassification, config, folder)


def xlm_roberta(folder: Path) -> Any:
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    vocabulary = unigram(folder, model_max_length=int(1e30))  # what slow tokenizers state
    config = XLMRobertaConfig(vocab_size=vocabulary, **_roberta(), **SIZES)
    return _write(XLMRobertaForSequenceClassification, config, folder)


def camembert(folder: Path) -> Any:
    from transformers import CamembertConfig, CamembertForSequenceClassification

    config = CamembertConfig(vocab_size=unigram(folder), **_roberta(), **SIZES)
    return _write(CamembertForSequenceClassification, config, folder)


def deberta(folder: Path) -> Any:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    config = DebertaV2Config(
        vocab_size=unigram(folder, BERT_TOKENS),
        **_head({}),
        **SIZES,
        # as microsoft/deberta-v3-* have it, with smaller buckets
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        max_relative_positions=-1,
        type_vocab_size=0,
    )
    return _write(DebertaV2ForSequenceClassification, config, folder)


def modernbert(folder: Path) -> Any:
    from transformers import ModernBertForSequenceClassification

    return _write(ModernBertForSequenceClassification, modernbert_config(folder), folder)


def modernbert_config(folder: Path) -> Any:
    """Local attention over 16 tokens in most layers: passages are longer."""
    from transformers import ModernBertConfig

    return ModernBertConfig(
        vocab_size=word_piece(folder),
        **_head({}),
        **{**SIZES, "num_hidden_layers": 4},
        local_attention=16,
        global_attn_every_n_layers=3,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
    )


def t5_classifier(folder: Path) -> Any:
    from transformers import T5ForSequenceClassification

    config = _t5(unigram(folder, T5_TOKENS), num_labels=1)
    return _write(T5ForSequenceClassification, config, folder)


def t5_generator(folder: Path) -> Any:
    from transformers import T5ForConditionalGeneration

    return _write(T5ForConditionalGeneration, _t5(unigram(folder, T5_TOKENS)), folder)


def qwen2(folder: Path) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(tie_word_embeddings=True, **_decoder(folder))
    return _write(Qwen2ForCausalLM, config, folder)


def qwen3(folder: Path) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return _write(Qwen3ForCausalLM, Qwen3Config(head_dim=16, **_decoder(folder)), folder)


def qwen3_classifier(folder: Path) -> Any:
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    config = Qwen3Config(head_dim=16, num_labels=1, **_decoder(folder))
    return _write(Qwen3ForSequenceClassification, config, folder)


def gemma(folder: Path) -> Any:
    from transformers import GemmaConfig, GemmaForCausalLM

    vocabulary = unigram(folder, GEMMA_TOKENS, padding_side="right")
    config = GemmaConfig(
        **{**_decoder(folder, vocabulary), "pad_token_id": 0, "bos_token_id": 2}, head_dim=16
    )
    return _write(GemmaForCausalLM, config, folder)


def gemma2(folder: Path) -> Any:
    """Logits under a soft cap, and a window of 16 tokens in every second layer."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    vocabulary = unigram(folder, GEMMA_TOKENS, padding_side="left")
    config = Gemma2Config(
        **{**_decoder(folder, vocabulary), "pad_token_id": 0, "bos_token_id": 2},
        head_dim=16,
        sliding_window=16,
        final_logit_softcapping=3.0,
    )
    return _write(Gemma2ForCausalLM, config, folder)


def _write(kind: Callable[[Any], Any], config: Any, folder: Path) -> Any:
    import torch

    torch.manual_seed(0)
    model = kind(config).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith(("classifier", "score", "classification_head")):
                value.mul_(4)  # scores that spread
    model.save_pretrained(folder)
    return model


def _save(tokenizer: Tokenizer, folder: Path, settings: dict[str, Any]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return tokenizer.get_vocab_size()


def _head(changes: dict[str, Any]) -> dict[str, Any]:
    return {"num_labels": 1, "max_position_embeddings": POSITIONS, "pad_token_id": 0} | changes


def _roberta() -> dict[str, Any]:
    return _head({"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}) | {
        "type_vocab_size": 1,
        "max_position_embeddings": POSITIONS + 2,
    }


def _bert_names() -> dict[str, Any]:
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    return names | {"cls_token": "[CLS]", "sep_token": "[SEP]"}


def _roberta_names() -> dict[str, Any]:
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    return names | {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}


def _decoder(folder: Path, vocabulary: int | None = None) -> dict[str, Any]:
    return {
        **SIZES,
        "vocab_size": vocabulary or byte_level(folder, chat=True, padding_side="left"),
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def _t5(vocabulary: int, **changes: Any) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=vocabulary,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",  # as flan-t5 has it
        dropout_rate=0.0,
        initializer_factor=1.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        **changes,
    )


CLASSIFIERS: dict[str, Callable[[Path], Any]] = {
    make.__name__: make
    for make in (
        bert,
        electra,
        distilbert,
        roberta,
        xlm_roberta,
        camembert,
        deberta,
        modernbert,
        t5_classifier,
    )
}
