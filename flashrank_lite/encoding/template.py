"""A prompt template: what a model that is asked in words reads around a query and a passage.

Plain data: reading a manifest needs no tokenizer and no numpy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flashrank_lite.errors import InvalidModel
from flashrank_lite.text import well_formed

FIELD = re.compile(r"\{(query|passage|instruction)\}")


@dataclass(frozen=True)
class Template:
    """A prompt.

    Attributes:
        segments: texts with the fields {query}, {passage} and {instruction}; each segment is
            tokenised by itself, without special tokens other than those written out in it.
            {query} and {passage} stand in it once each. What follows {passage} in its segment is
            tokenised with it, and stays where the passage is cut.
        instruction: what stands for {instruction}, unless the user says otherwise.
        pair: whether the tokenizer joins the two segments, one with {query} and one with {passage},
            as it joins any pair, with its special tokens and token types.
        parse_special: whether a control token written out in a query or passage ("<|im_end|>")
            becomes that token, as in transformers; otherwise it is read as plain text, so that no
            passage can end the prompt. A pair reads them as its tokenizer does.
    """

    segments: tuple[str, ...]
    instruction: str = ""
    pair: bool = False
    parse_special: bool = False

    def __post_init__(self) -> None:
        fields = [field for segment in self.segments for field in FIELD.findall(segment)]
        if fields.count("query") != 1 or fields.count("passage") != 1:
            raise InvalidModel(
                "a prompt template must have {query} and {passage} once each, and has "
                f"{fields.count('query')} and {fields.count('passage')}: correct its segments"
            )
        if fields.index("query") > fields.index("passage"):
            raise InvalidModel("a prompt template must have {query} before {passage}: swap them")
        if self.pair and (len(self.segments) != 2 or "{passage}" in self.segments[0]):
            raise InvalidModel(
                "a prompt template of a pair must have two segments, the first with {query} and "
                "the second with {passage}: correct its segments"
            )

    @property
    def takes_instruction(self) -> bool:
        """Whether an instruction has a place in it."""
        return any("{instruction}" in segment for segment in self.segments)

    def with_instruction(self, instruction: str) -> "Template":
        """The template with this instruction."""
        return replace(self, instruction=well_formed(instruction))

    @classmethod
    def read(cls, data: object) -> "Template":
        """From what a manifest holds: {"segments": [...], "instruction": "..."}, and for true
        "pair" and "parse_special".

        Raises:
            InvalidModel: it is not of that form, or lacks a field.
        """
        if isinstance(data, Mapping):
            segments, instruction = data.get("segments"), data.get("instruction", "")
            texts = isinstance(segments, list) and all(isinstance(s, str) for s in segments)
            switches = [data.get(name, False) for name in ("pair", "parse_special")]
            known = all(isinstance(switch, bool) for switch in switches)
            if texts and isinstance(instruction, str) and known:
                return cls(tuple(segments or ()), instruction, *switches)
        raise InvalidModel(
            'a prompt template must be {"segments": [texts], "instruction": text}, not '
            f"{data!r:.80}: export the model again, or correct it"
        )

    def to_json(self) -> dict[str, Any]:
        """What `read` reads."""
        switches = {"pair": self.pair, "parse_special": self.parse_special}
        return {
            "segments": list(self.segments),
            "instruction": self.instruction,
            **{name: True for name, switch in switches.items() if switch},
        }
