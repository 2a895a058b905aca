"""Whether a text is in a script that a model's languages are not written in.

An English model gives every text a score, and on Japanese the order that comes out can be worse
than the order that went in (felladrin/MiniSearch#2312). The user is told, once for each ranker: by
a logger, because it is about data that comes while a program runs, not about its code.
"""

import logging
from collections.abc import Iterable, Sequence

logger = logging.getLogger(__name__)

_LOOKED_AT = 200  # characters of a text: its script shows in the first line
_LATIN_END = "\u0250"  # up to here letters are Latin, with all their accents


class ScriptWatch:
    """Looks at texts until it has warned once; ASCII costs it 50 nanoseconds.

    Args:
        model: its name, for the warning.
        languages: what it understands; only of a model for English alone is another script known
            to be wrong.
    """

    def __init__(self, model: str, languages: Sequence[str]) -> None:
        self._model = model
        self._on = tuple(languages) in (("en",), ("english",))

    def look(self, texts: Iterable[str]) -> None:
        """Warn if a text is mostly in another script than the Latin one."""
        if not self._on:
            return
        for text in texts:
            if not text.isascii() and is_in_another_script(text):
                self._on = False
                logger.warning(
                    "the model %r is for English, and it was given text in another script (%r): "
                    "its order may be worse than none; `flashrank-lite models list` shows models "
                    "for other languages",
                    self._model,
                    text[:40],
                )
                return


def is_in_another_script(text: str) -> bool:
    """Whether more than half of the first letters are not Latin."""
    letters = [character for character in text[:_LOOKED_AT] if character.isalpha()]
    return 2 * sum(letter >= _LATIN_END for letter in letters) > len(letters)
