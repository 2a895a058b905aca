"""One text → its token ids, without special tokens, and no more of a long text than is wanted."""

import json
import re
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from flashrank_lite.errors import InvalidModel
from flashrank_lite.text import well_formed

Ids = NDArray[np.int32]

# Characters per wanted token that are tokenised first of a long text. English has 4 to 5 and 16 is
# seldom short; a megabyte takes 4 ms instead of 1.2 s.
CHARACTERS_PER_TOKEN = 16
# Pre-tokenizers that always split between a letter or digit and a space: the tokens before such a
# place do not depend on what follows it.
_SPLIT_AT_SPACES = frozenset(
    {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace", "ByteLevel"}
)
_SPLIT_ELSEWHERE = frozenset({"Digits", "Punctuation"})
_WORD_END = re.compile(r"(?<=[^\W_])(?= )")
# BERT's normaliser puts every ideograph between spaces
_WORD_END_OR_IDEOGRAPH = re.compile(r"(?<=[^\W_])(?= )|(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The token ids of one text alone, and whether the text had more."""

    ids: Ids
    cut: bool


class Tokens:
    """A tokenizer that is asked for one text at a time.

    Args:
        file: path of tokenizer.json.

    Raises:
        InvalidModel: the file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        try:
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise InvalidModel(
                f"{file} is not a tokenizer that can be read ({error}): "
                "fetch or export the model again"
            ) from error
        self.tokenizer.no_truncation()  # some files ship blocks of their own, at another length
        self.tokenizer.no_padding()
        self._safe_cut = _safe_cut(self.tokenizer)
        added = self.tokenizer.get_added_tokens_decoder().values()
        self._control = tuple(token.content for token in added if token.special and token.content)

    def token_id(self, token: str) -> int | None:
        """The id of a token of the vocabulary, None if there is no such token."""
        number: int | None = self.tokenizer.token_to_id(token)
        return number

    def pieces(self, text: str, room: int) -> Pieces:
        """The first `room` ids of a text."""
        ids = self._start(well_formed(text), room).ids
        return Pieces(np.array(ids[:room], np.int32), len(ids) > room)

    def ids(self, text: str) -> Ids:
        """All ids of a text."""
        # one text at a time: encode_batch starts a thread per core of the host, and warns after a
        # fork; tokenising is a few per cent of the time that the model takes
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, np.int32)

    def spans(self, text: str) -> NDArray[np.int32]:
        """Start and end of each token of a text in characters: int32, (n, 2)."""
        encoding = self.tokenizer.encode(well_formed(text), add_special_tokens=False)
        return np.array(encoding.offsets, np.int32).reshape(-1, 2)

    def shorten(self, text: str, room: int) -> tuple[str, bool]:
        """The text up to the end of its token number `room`, and whether there was more."""
        text = well_formed(text)
        encoding = self._start(text, room)
        if len(encoding.ids) <= room:
            return text, False
        return text[: encoding.offsets[room - 1][1]] if room > 0 else "", True

    def holds_control(self, text: str) -> bool:
        """Whether a control token of the vocabulary is written out in a text."""
        return any(token in text for token in self._control)

    def split_at_control(self, text: str) -> list[str]:
        """The text in pieces, of which every second one is a control token."""
        tokens = sorted(self._control, key=len, reverse=True)  # the longest that fits, as it reads
        return re.split(f"({'|'.join(map(re.escape, tokens))})", text) if tokens else [text]

    @cached_property
    def plain(self) -> "Tokens":
        """The same tokenizer, except that it reads written-out control tokens as plain text.

        Made at the first text that holds one: it takes as much memory as this one.
        """
        twin = copy(self)
        twin.tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        twin.tokenizer.encode_special_tokens = True
        return twin

    def _start(self, text: str, room: int) -> Encoding:
        """More than `room` tokens of a text, if it has them, by reading no more than it takes."""
        size = room * CHARACTERS_PER_TOKEN
        while self._safe_cut and len(text) > 2 * size:
            end = self._safe_cut.search(text, size)
            if end is None:
                break
            encoding = self.tokenizer.encode(text[: end.start()], add_special_tokens=False)
            if len(encoding.ids) > room:
                return encoding
            size = max(size, end.start()) * 4
        return self.tokenizer.encode(text, add_special_tokens=False)


def _safe_cut(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Where a text may be cut without changing the tokens before the cut; None if not known."""
    steps = _steps(tokenizer.pre_tokenizer, "pretokenizers")
    names = {step["type"] for step in steps}
    if not names & _SPLIT_AT_SPACES or names - _SPLIT_AT_SPACES - _SPLIT_ELSEWHERE:
        return None
    if any(step.get("split") is False or step.get("use_regex") is False for step in steps):
        return None
    normaliser = _steps(tokenizer.normalizer, "normalizers")
    ideographs = any(step.get("handle_chinese_chars") for step in normaliser)
    safe = _WORD_END_OR_IDEOGRAPH if ideographs else _WORD_END
    added = tokenizer.get_added_tokens_decoder().values()
    return None if any(safe.search(token.content) for token in added) else safe


def _steps(part: Any, key: str) -> list[dict[str, Any]]:
    """What a normaliser or pre-tokenizer consists of; its state is its piece of tokenizer.json."""
    if part is None:
        return []
    state: dict[str, Any] = json.loads(part.__getstate__())
    steps: list[dict[str, Any]] = state.get(key, [state])
    return steps
