"""Names that people know → repositories on the Hub. The data is in catalog.json.

JSON, because Python 3.10 cannot read TOML. An entry states only what its own page states, or the
table that `figure.source` names; what is not known is left out. What a repository really holds is
asked of the Hub when it is downloaded.
"""

import difflib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flashrank_lite.errors import InvalidModel

# Parameters, embeddings included: what memory and disk take.
SIZES = {
    "tiny": "under 12 million",
    "small": "12 to 50 million",
    "medium": "50 to 200 million",
    "large": "over 200 million",
}
_SUGGESTIONS = 3


@dataclass(frozen=True)
class Figure:
    """A published figure of quality: `metric` on `data`, as `source` states it."""

    metric: str
    value: float
    data: str
    source: str


@dataclass(frozen=True)
class Entry:
    """A model of the catalog.

    Attributes:
        name: the name to load it by.
        repository: "org/name" on the Hub; None for the bundled model.
        archive: a zip file of the repository that holds the model folder.
        aliases: other names for it.
        languages: codes, or "multilingual"; none if it is not stated.
        size: a key of SIZES; None if it is not known.
        license: an SPDX identifier in lower case.
        max_length: tokens of a pair.
        parameters: in millions, as published, or by the shape and the vocabulary.
        megabytes: on disk and in memory: of the fp32 weights, where int8 takes about a quarter; of
            the bundled model as it is.
        opens: "bundled"; "ready" (its repository holds an ONNX graph); "export" (export it first:
            `flashrank-lite export NAME`); "not yet"; "never"; None where that is not known.
        why: what keeps it from being opened.
        good_for: in a few words.
        shape: of its weights, for `milliseconds`.
        milliseconds: for 100 passages of 92 tokens on 2 cores, measured with weights of its shape,
            in fp32 but for the bundled model (`benchmarks/catalog_times.py`).
        figure: a published figure.
    """

    name: str
    size: str | None = None
    repository: str | None = None
    archive: str | None = None
    aliases: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    license: str | None = None
    max_length: int | None = None
    parameters: float | None = None
    megabytes: int | None = None
    opens: str | None = None
    why: str | None = None
    good_for: str | None = None
    shape: str | None = None
    milliseconds: int | None = None
    figure: Figure | None = None

    def check_opens(self) -> None:
        """Raises InvalidModel with the reason, if no model of this kind can be opened."""
        if self.opens in ("not yet", "never"):
            raise InvalidModel(
                f"{self.name} cannot be opened{' yet' if self.opens == 'not yet' else ''}: "
                f"{self.why}. `flashrank-lite models list` shows those that can"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-clean; what is not known is left out."""
        fields = {**vars(self), "figure": vars(self.figure) if self.figure else None}
        clean = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        return {key: value for key, value in clean.items() if value not in (None, [])}


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """All entries, in the order of the file."""
    content = pkgutil.get_data(__package__, "catalog.json")  # from a zip file, too
    data = json.loads(content or b"")
    return tuple(_entry(row, data["milliseconds"]) for row in data["models"])


def find(name: str) -> Entry | None:
    """The entry of a name, an alias or a repository; upper and lower case are the same."""
    return _by_name().get(name.lower())


def nearest(name: str) -> list[str]:
    """Names and aliases that resemble `name`, the nearest first."""
    known = {alias.lower(): alias for entry in entries() for alias in (entry.name, *entry.aliases)}
    # "org/name": the part after the slash is what people remember
    known = {key.rpartition("/")[2]: alias for key, alias in reversed(known.items())}
    wanted = name.lower().rpartition("/")[2]
    holding = [key for key in known if len(wanted) > 2 and wanted in key]
    close = difflib.get_close_matches(wanted, known, _SUGGESTIONS, 0.5)
    return [known[key] for key in dict.fromkeys([*holding, *close])][:_SUGGESTIONS]


@lru_cache(maxsize=1)
def _by_name() -> Mapping[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries():
        names = [entry.name, *entry.aliases]
        if entry.repository is not None and entry.archive is None:
            names.append(entry.repository)
        for name in names:
            found.setdefault(name.lower(), entry)
    return found


def _entry(row: dict[str, Any], milliseconds: Mapping[str, int]) -> Entry:
    figure = row.get("figure")
    lists = {key: tuple(row.get(key, ())) for key in ("aliases", "languages")}
    known: dict[str, Any] = {"figure": Figure(**figure) if figure else None}
    known["milliseconds"] = milliseconds.get(row.get("shape", ""))
    if "parameters" in row:
        known["megabytes"] = round(4 * row["parameters"])
    return Entry(**{**row, **lists, **known})
