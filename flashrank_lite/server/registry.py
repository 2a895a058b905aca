"""The models that are served: opened and warmed at start, found by name ever after."""

import logging
from collections.abc import Iterator
from typing import Any

from flashrank_lite.ranker import Ranker
from flashrank_lite.server.refusals import Refusal
from flashrank_lite.server.settings import Settings
from flashrank_lite.strategies.stack import Long

logger = logging.getLogger("flashrank_lite.server")

# Short and long, alone and side by side: so that each session is open and each buffer has grown.
_WARM_UP = ("A first text.", "A first text that is longer than the others. " * 60)
# Names that clients send where their user chose none.
_NO_CHOICE = frozenset({"", "default", "default/not-specified"})


class ServedModel:
    """A model under the name that requests call it.

    Attributes:
        name: that name.
        ranker: what scores.
        info: what the ranker said of itself when it was opened.
        long: how it reads a long passage where a request does not say it.
    """

    def __init__(self, name: str, ranker: Ranker, long: Long) -> None:
        self.name, self.ranker, self.long = name, ranker, long
        self.info: dict[str, Any] = ranker.info()
        self.max_length = int(self.info["max_length"])

    def warm_up(self) -> None:
        """Score some text, as the first request would."""
        self.ranker.rank("a query", list(_WARM_UP))
        self.ranker.rank("a query", [_WARM_UP[1]])


class Registry:
    """Opens the models of the settings, one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: dict[str, ServedModel] = {}
        self.ready = False

    def load(self) -> None:
        """Open and warm every model.

        Raises:
            FlashRankLiteError: as `Ranker`.
        """
        settings = self._settings
        for spec in settings.served():
            ranker = Ranker(
                spec.model,
                file=spec.file,
                threads=settings.threads,
                batch_tokens=settings.batch_tokens,
                max_length=settings.max_length,
                long=settings.long,
                passage_cache=settings.passage_cache,
            )
            self._models[spec.name] = model = ServedModel(spec.name, ranker, settings.long)
            model.warm_up()
            logger.info("serving %s: %s", spec.name, model.info["graph"])
        self.ready = True

    def choose(self, name: str | None) -> ServedModel:
        """The model of a request: the first one where it names none.

        Raises:
            Refusal: 503 before all are loaded, 404 for a name that is not served.
        """
        if not self.ready:
            raise Refusal(
                503, "not_ready", "the model is still loading: try again shortly", retry_after=1
            )
        if name is None or name in _NO_CHOICE:
            return next(iter(self._models.values()))
        found = self._models.get(self._settings.aliases.get(name, name))
        if found is None:
            # the name came from outside, so it is not repeated at any length
            raise Refusal(
                404,
                "model_not_found",
                f"there is no model {name[:80]!r} here: ask for one of {', '.join(self.names())}, "
                "leave model out, or have the server started with "
                f"--alias {name[:80]}={next(iter(self._models))}",
            )
        return found

    def names(self) -> list[str]:
        """What requests may ask for: models first, then aliases."""
        return [*self._models, *self._settings.aliases]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def close(self) -> None:
        """Free the models."""
        self.ready = False
        for model in self._models.values():
            model.ranker.close()
