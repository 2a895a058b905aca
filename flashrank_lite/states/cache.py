"""States of texts that were read lately, within a number of bytes."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from flashrank_lite.states.codec import Packed

_BESIDE = 600  # bytes of an entry beside its arrays' and its text's: objects and their places


class StateCache:
    """The texts used last, with their states; any number of threads may use it.

    Args:
        limit: bytes that it may take; a text that exceeds it alone is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[str, tuple[Packed, bool, int]] = OrderedDict()
        self._bytes = self._hits = self._misses = 0
        self._pid, self._lock = os.getpid(), threading.Lock()

    def find(self, texts: Sequence[str]) -> list[tuple[Packed, bool] | None]:
        """What is known of each text: its states, and whether it was truncated."""
        found: list[tuple[Packed, bool] | None] = []
        with self._locked():
            for text in texts:
                entry = self._entries.get(text)
                if entry is None:
                    self._misses += 1
                    found.append(None)
                else:
                    self._hits += 1
                    self._entries.move_to_end(text)
                    found.append(entry[:2])
        return found

    def keep(self, text: str, packed: Packed, truncated: bool) -> None:
        """Keep a text's states, and drop what was used longest ago where room is needed."""
        size = packed.nbytes + len(text.encode("utf-8", "surrogatepass")) + _BESIDE
        if size > self.limit:
            return
        with self._locked():
            before = self._entries.pop(text, None)
            self._bytes += size - (0 if before is None else before[2])
            self._entries[text] = packed, truncated, size
            while self._bytes > self.limit:
                _, (_, _, dropped) = self._entries.popitem(last=False)
                self._bytes -= dropped

    def info(self) -> dict[str, Any]:
        """How full it is, in bytes and texts, and how often a text was in it."""
        with self._locked():
            return {
                "limit": self.limit,
                "bytes": self._bytes,
                "passages": len(self._entries),
                "hits": self._hits,
                "misses": self._misses,
            }

    def _locked(self) -> threading.Lock:
        if self._pid != os.getpid():  # another thread of the parent may have held it at the fork
            self._pid, self._lock = os.getpid(), threading.Lock()
        return self._lock
