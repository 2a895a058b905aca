"""What a model says of its origin and licence, and the model card of what is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flashrank_lite import __version__
from flashrank_lite.export.source import Source

CARD = "README.md"
MARK = "<!-- written by the exporter, which replaces it; take this line out to keep your own -->"
_LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE")


def describe(source: Source, folder: Path) -> Source:
    """`source` with its folder, and the languages, licence and licence files stated there."""
    found = {
        file.name: file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name.upper().startswith(_LICENCES)
    }
    stated = _metadata(folder / CARD)
    languages = stated.get("language") or ()
    custom = stated.get("license_name")
    licence = custom or stated.get("license")
    return replace(
        source,
        checkpoint=folder,
        licences=found,
        languages=(languages,) if isinstance(languages, str) else tuple(map(str, languages)),
        license=licence if isinstance(licence, str) else None,
        custom_license=isinstance(custom, str) and bool(custom),
    )


def model_card(source: Source, variants: Sequence[Mapping[str, Any]], report: str) -> str:
    """The text of README.md: what it is, how to use it, how its scores compare."""
    from huggingface_hub import ModelCardData

    named = bool(source.license) and source.custom_license
    repository, at, _ = (source.origin or "").partition("@")
    facts = ModelCardData(
        license="other" if named else source.license,
        license_name=source.license if named else None,  # as the Hub wants it
        language=list(source.languages) or None,
        base_model=repository if at else None,
        library_name="flashrank-lite",
        pipeline_tag="text-ranking",
        ignore_metadata_errors=True,
    )
    origin = f" of {source.origin}" if source.origin else ""
    files = "\n".join(
        f"| {_named(v)} | {v['precision']} | {_bytes(v) / 1e6:.1f} MB |" for v in variants
    )
    return "\n".join(
        [
            "---",
            facts.to_yaml(),
            "---",
            "",
            MARK,
            "",
            f"# {source.name}",
            "",
            f"An ONNX export{origin} for reranking on a CPU, by flashrank-lite {__version__}:",
            "",
            "``python",
            "from flashrank_lite import Ranker",
            "",
            'hits = Ranker("path/to/this/folder").rank("a query", ["a passage", "another"])',
            "``",
            "",
            "| file | precision | size |",
            "|---|---|---|",
            files,
            "",
            f"A query and a passage have up to {source.max_length} tokens together. The licence is "
            f"that of the source: {source.license or 'not stated there'}.",
            *_prompts(source),
            "",
            "## Fidelity",
            "",
            "Measured by the exporter on real text; the same figures are in `reranker.json`.",
            "",
            "``",
            report,
            "``",
            "",
        ]
    )


def _prompts(source: Source) -> list[str]:
    """Of a model that has prompts: the one in use, and how to have another."""
    prompts = {name: text for name, text in source.prompts.items() if text}
    if not prompts:
        return []
    default = source.template.instruction if source.template is not None else ""
    used = f"{default!r} is put before every query" if default else "None is used by default"
    argument = ", and another one in its place with `instruction=`" if default else ""
    rows = [f"| {name} | `{text}` |" for name, text in prompts.items()]
    return [
        "",
        "## Prompts",
        "",
        f"{used}{argument}.",
        "",
        "| name | text |",
        "|---|---|",
        *rows,
    ]


def is_foreign(card: Path) -> bool:
    """Whether there is a model card that the exporter did not write."""
    return card.is_file() and MARK not in card.read_text(encoding="utf-8", errors="replace")


def _named(variant: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in (variant["file"], *variant.get("data", ())))


def _bytes(variant: Mapping[str, Any]) -> int:
    beside: Mapping[str, Mapping[str, int]] = variant.get("data", {})
    return int(variant["size"]) + sum(facts["size"] for facts in beside.values())


def _metadata(card: Path) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    try:
        return metadata_load(card) or {} if card.is_file() else {}
    except Exception:  # a card is prose: one that cannot be read says nothing
        return {}
