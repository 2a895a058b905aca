"""A long text → overlapping windows of so many tokens, cut where sentences or words end."""

import re
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

TokenSpans = Callable[[str], NDArray[np.int32]]
Span = tuple[int, int]

# Windows that are tokenised at once: of a long text no more is ever held. Each block tokenises up
# to one window twice, so more of them save little.
BLOCK_WINDOWS = 8
# Of a text without an end in sight this many characters a token are taken; English has 4 to 5.
CHARACTERS_PER_TOKEN = 8
# A full stop and a space, or one that no space follows; quotes and brackets may close between.
_SENTENCE_END = re.compile(r"""(?:[.!?…]["'”’»)\]}*_]*\s+|[。！？｡]["'”’»)\]}]*\s*)\Z""")


def split(text: str, read: int, size: int, stride: int, token_spans: TokenSpans) -> Iterator[Span]:
    """What a model reads of a text at once, and then windows of the rest; together they cover it.

    A window ends with a sentence where one ends in its last quarter, else with a word. The next one
    starts `stride` tokens after its start, or with the sentence that starts up to a quarter later,
    but never beyond its end.

    Args:
        text: the text.
        read: tokens that are read of it at once.
        size: tokens of a window of the rest at most.
        stride: tokens from one start to the next, at most `size`; the first window shares
            `size - stride` tokens with what is read at once.
        token_spans: where the tokens of a text lie, in characters.

    Yields:
        Start and end of each window in characters; of a text that fits, just all of it.
    """
    spans, complete = _block(text, 0, read, token_spans)
    if complete and len(spans) <= read:
        yield 0, len(text)
        return
    yield 0, int(spans[read - 1, 1])
    start = _start(text, spans, max(1, read - (size - stride)), read, size)
    yield from _windows(text, int(spans[start, 0]), size, stride, token_spans)


def beginning(text: str, tokens: int, token_spans: TokenSpans) -> int:
    """Where the first tokens of a text end, in characters; arguments as for `split`."""
    return next(split(text, tokens, tokens, tokens, token_spans))[1]


def excess(text: str, tokens: int, token_spans: TokenSpans) -> int:
    """Tokens of a text beyond `tokens`: alone it may have more than it has within another."""
    return max(0, len(token_spans(text)) - tokens)


def _windows(
    text: str, begin: int, size: int, stride: int, token_spans: TokenSpans
) -> Iterator[Span]:
    start = begin
    while True:
        spans, complete = _block(text, start, size, token_spans)
        first = 0
        while (left := len(spans) - first) > size or (
            complete and left > 1 and excess(text[start:], size, token_spans)
        ):
            end = _end(text, spans, first, min(size, left - 1))
            while end > first + 1 and (
                more := excess(text[start : int(spans[end - 1, 1])], size, token_spans)
            ):
                end = max(first + 1, end - more)
            yield start, int(spans[end - 1, 1])
            first = max(first + 1, _start(text, spans, first + stride, end, size))
            start = int(spans[first, 0])
        if complete:
            yield start, len(text)
            return


def _block(
    text: str, begin: int, size: int, token_spans: TokenSpans
) -> tuple[NDArray[np.int32], bool]:
    """Tokens from `begin` on, and whether the text ends with them; if not, more than `size`."""
    characters = size * BLOCK_WINDOWS * CHARACTERS_PER_TOKEN
    while True:
        part = text[begin : begin + characters]
        complete = begin + len(part) == len(text)
        spans = _without_blanks(part, token_spans(part)) + np.int32(begin)
        if complete:
            return spans, True
        # the last tokens may be the beginning of a word
        spans = spans[: _word_start(text, spans, len(spans) - 1, 0)] if len(spans) else spans
        if len(spans) > size:
            return spans, False
        characters *= 4


def _without_blanks(text: str, spans: NDArray[np.int32]) -> NDArray[np.int32]:
    """Tokens of many vocabularies begin with the blank before a word, or are blanks: cut to words.

    Ends of sentences and words show between tokens then, whatever the tokenizer.
    """
    shown = np.array([not character.isspace() for character in text], np.bool_)
    place = np.arange(len(text) + 1, dtype=np.int32)
    following = np.where(np.append(shown, True), place, len(text))
    following = np.minimum.accumulate(following[::-1])[::-1]
    before = np.maximum.accumulate(np.where(np.insert(shown, 0, True), place, 0))
    ends = np.maximum(spans[:, 0], before[spans[:, 1]])
    return np.stack([np.minimum(following[spans[:, 0]], ends), ends], axis=1)


def _end(text: str, spans: NDArray[np.int32], first: int, size: int) -> int:
    """Where the window of token `first` ends: the number of the token after it."""
    last = first + size
    earliest = max(first + 1, last - size // 4)
    for end in range(last, earliest - 1, -1):
        if _sentence_starts(text, spans, end):
            return end
    return _word_start(text, spans, last, max(first, earliest - 1))


def _start(text: str, spans: NDArray[np.int32], wanted: int, end: int, size: int) -> int:
    """The token that a window starts with, after one that ends before token `end`."""
    wanted = min(wanted, end)
    for start in range(wanted, min(wanted + size // 4, end) + 1):
        if _sentence_starts(text, spans, start):
            return start
    return _word_start(text, spans, wanted, max(0, wanted - size // 4))


def _sentence_starts(text: str, spans: NDArray[np.int32], token: int) -> bool:
    left, right = int(spans[token - 1, 1]), int(spans[token, 0])
    return "\n" in text[left:right] or bool(_SENTENCE_END.search(text[max(0, left - 4) : right]))


def _word_start(text: str, spans: NDArray[np.int32], token: int, after: int) -> int:
    """The last token up to `token`, beyond `after`, that a word starts with, or a character.

    The tokens of some vocabularies are bytes, and several of them one character.
    """
    character = None
    for start in range(token, after, -1):
        left, right = int(spans[start - 1, 1]), int(spans[start, 0])
        if left > right:  # within a character
            continue
        if left < right or not (text[left - 1].isalnum() and text[right].isalnum()):
            return start
        if character is None:
            character = start
    return token if character is None else character
