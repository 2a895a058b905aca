"""What a server can be told: one frozen object, and one table of what may be said.

Flags, environment variables and files all read this table (`configuration.py`), so a new setting
is one field here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from flashrank_lite.errors import InvalidInput

if TYPE_CHECKING:
    from flashrank_lite.strategies.stack import Long

LONG = ("windows", "truncate")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MEBIBYTE = 1024 * 1024
_AT_LEAST_ONE = (
    "scorers",
    "workers",
    "max_queue",
    "max_queue_bytes",
    "max_body_bytes",
    "max_documents",
    "max_document_chars",
    "max_query_chars",
    "max_tokens",
)


def _setting(default: Any, help: str, metavar: str | None = None) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True)
class ModelSpec:
    """A model to serve.

    Attributes:
        name: what requests call it.
        model: as `Ranker` takes it; None for the bundled model.
        file: the graph to run, None for the best one.
    """

    name: str
    model: str | None = None
    file: str | None = None

    @classmethod
    def read(cls, text: str) -> ModelSpec:
        """`nano`, `./folder`, `org/name`, or any of them under another name: `name=./folder`."""
        name, equals, model = text.partition("=")
        if not equals:
            name = model = text
        if not name.strip() or not model.strip():
            raise InvalidInput(f"{text!r} names no model: say a model, or NAME=MODEL")
        return cls(name.strip(), model.strip())


@dataclass(frozen=True)
class Settings:
    """How to serve; every field is a flag, a variable `FLASHRANK_LITE_*` and a key of a file."""

    host: str = _setting("127.0.0.1", "address to listen on", "HOST")
    port: int = _setting(8000, "port to listen on", "PORT")
    models: tuple[ModelSpec, ...] = _setting(
        (), "a model to serve, or NAME=MODEL to call it otherwise; again for several", "M"
    )
    aliases: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "another name for a served model, as rerank-v3.5=nano; again for several",
            "metavar": "NAME=MODEL",
        },
    )
    threads: int | None = _setting(
        None, "threads that compute (default: the cores we may use)", "N"
    )
    batch_tokens: int | None = _setting(None, "tokens that run at the same time", "N")
    max_length: int | None = _setting(None, "tokens per pair at most", "N")
    long: Long = field(
        default="windows",
        metadata={
            "help": "how a passage longer than the model's window is read: in windows, or its "
            "beginning (truncate)",
            "metavar": "HOW",
        },
    )
    passage_cache: str | None = _setting(
        None, "memory for what was read of the last passages, as 64MB (default: none)", "SIZE"
    )
    scorers: int = _setting(2, "slices of work scored at the same time", "N")
    workers: int = _setting(1, "processes behind the port; each holds the models", "N")
    api_keys: tuple[str, ...] = _setting((), "key that clients must send; again for several", "KEY")
    api_key_file: str | None = _setting(None, "file with a key a line", "FILE")
    no_auth: bool = _setting(False, "serve without a key, even beyond this machine")
    cors_origins: tuple[str, ...] = _setting(
        (), "origin whose pages may call the server; again for several", "ORIGIN"
    )
    max_queue: int = _setting(512, "requests in flight; more are refused with 429", "N")
    max_queue_bytes: int = _setting(
        256 * MEBIBYTE, "bytes of all requests in flight; more are refused with 429", "N"
    )
    timeout: float = _setting(60.0, "seconds for a request, from its body to its answer", "S")
    body_timeout: float = _setting(30.0, "seconds for a request's body to arrive", "S")
    grace: float = _setting(30.0, "seconds to finish what is in flight after SIGTERM", "S")
    max_body_bytes: int = _setting(16 * MEBIBYTE, "bytes of a request's body", "N")
    max_documents: int = _setting(2048, "passages of a request", "N")
    max_document_chars: int = _setting(200_000, "characters of a passage", "N")
    max_query_chars: int = _setting(16_000, "characters of a query", "N")
    max_tokens: int = _setting(
        2_000_000, "tokens of a request that the model reads, at four bytes a token", "N"
    )
    auto_truncate: bool = _setting(
        True, "refuse a truncated passage unless the request says truncate", None
    )
    log_texts: bool = _setting(False, "log queries, and texts in error messages")
    log_level: str = _setting("info", "debug, info, warning or error", "LEVEL")

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("timeout", "body_timeout"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} must be more than 0 seconds")
        if self.grace < 0:
            raise InvalidInput("grace must be 0 seconds or more")
        if not 0 <= self.port <= 65535:
            raise InvalidInput(f"port must be from 0 to 65535, not {self.port}")
        if self.long not in LONG:
            raise InvalidInput(f"long must be one of {', '.join(LONG)}")
        if self.log_level not in LOG_LEVELS:
            raise InvalidInput(f"log_level must be one of {', '.join(LOG_LEVELS)}")
        names = [spec.name for spec in self.served()]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInput(
                    f"two models are called {name!r}: name one of them, as other={name}"
                )
        for alias, name in self.aliases.items():
            if name not in names:
                raise InvalidInput(
                    f"the alias {alias!r} means {name!r}, which is not served: serve it with "
                    f"--model {name}, or choose one of {', '.join(names)}"
                )
            if alias in names:
                raise InvalidInput(f"{alias!r} is the name of a model and an alias: drop one")

    def served(self) -> tuple[ModelSpec, ...]:
        """The models; the bundled one where none was named."""
        return self.models or (ModelSpec("nano", None),)

    def check_reach(self) -> None:
        """Refuse to serve beyond this machine without a key.

        Raises:
            InvalidInput: the host is not the loopback, there is no key and nobody said `no_auth`.
        """
        if self.host in LOOPBACK or self.host.startswith("127.") or self.api_keys or self.no_auth:
            return
        raise InvalidInput(
            f"serving on {self.host} lets other machines in: set a key (--api-key, "
            "--api-key-file or FLASHRANK_LITE_API_KEY), or say --no-auth if they may all use it"
        )

    def to_json(self) -> str:
        """Everything, for a worker process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["models"] = tuple(ModelSpec(**spec) for spec in values["models"])
        values["api_keys"] = tuple(values["api_keys"])
        values["cors_origins"] = tuple(values["cors_origins"])
        return cls(**values)


@dataclass(frozen=True)
class Kind:
    """How a setting is written: as one value, or as several, and what a value has to be."""

    read: Callable[[str], Any]
    wanted: str
    several: bool = False


def kinds() -> Mapping[str, Kind]:
    """The kind of each setting, by name."""
    number = Kind(int, "a whole number")
    seconds = Kind(float, "a number of seconds")
    switch = Kind(read_switch, "true or false")
    text = Kind(str, "text")
    by_type = {"int": number, "int | None": number, "float": seconds, "bool": switch}
    special = {
        "models": Kind(ModelSpec.read, "a model, or NAME=MODEL", several=True),
        "aliases": Kind(read_alias, "NAME=MODEL", several=True),
        "api_keys": Kind(str, "text", several=True),
        "cors_origins": Kind(str, "an origin such as https://example.org", several=True),
    }
    return {
        one.name: special.get(one.name) or by_type.get(str(one.type), text)
        for one in fields(Settings)
    }


def read_switch(text: str) -> bool:
    """Yes or no, in the words that people use for it."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off", ""):
        return False
    raise ValueError(text)


def read_alias(text: str) -> tuple[str, str]:
    """`NAME=MODEL` as its two parts."""
    alias, equals, name = text.partition("=")
    if not (equals and alias.strip() and name.strip()):
        raise ValueError(text)
    return alias.strip(), name.strip()
