"""A reader without a model, so that a store can be changed hundreds of times, and a killer."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashrank_lite.states.codec import Codec, Precision
from flashrank_lite.states.layout import Windows
from flashrank_lite.store import PassageStore

WIDTH = 16


class Echo:
    """States that follow from the text alone; a ranker and its model in one."""

    stamp = {"model": "echo", "graph": "none", "sha256": "0", "max_length": 8}  # noqa: RUF012

    def passage_reader(self) -> "Echo":
        return self

    def codec(self, precision: Precision) -> Codec:
        return Codec(precision, WIDTH, True)

    def read(self, texts: Sequence[str], precision: Precision) -> list[Windows]:
        codec, windows = self.codec(precision), []
        for text in texts:
            numbers = np.frombuffer(text.encode() + b"\0", np.uint8)
            states = np.outer(numbers + 1.0, np.arange(1, WIDTH + 1)).astype(np.float32)
            packed = codec.pack(numbers.astype(np.int32), np.sin(states))
            windows.append(Windows([(0, len(text))], [packed], False))
        return windows


def killed_at_random(path: Path, times: int, seed: int) -> int:
    """Change a store in forked children that kill themselves at random moments; how many did."""
    rng, killed = random.Random(seed), 0
    for number in range(times):
        delay = rng.uniform(0, 0.02)
        child = os.fork()
        if child == 0:  # no return from here: pytest must not go on in it
            try:
                change_until_killed(path, number, delay)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if number % 20 == 0:
            store = PassageStore.open(path)
            store.verify()
            assert all(f"kept {n}" in store for n in range(20))
    return killed


def change_until_killed(path: Path, number: int, delay: float) -> None:
    """Add, replace, remove and compact until a thread kills the process."""

    def kill() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    store: Any = PassageStore.open(path)
    threading.Thread(target=kill, daemon=True).start()
    reader = Echo()
    while True:
        store.add([{"id": f"w{number % 5}", "text": f"word {number}"}, "another"], reader)
        store.remove([f"w{(number + 2) % 5}"])
        store.remove([passage.id for passage in store.all() if isinstance(passage.id, int)])
        store.compact()
        number += 1


if __name__ == "__main__":
    print(killed_at_random(Path(sys.argv[1]), int(sys.argv[2]), 1))
