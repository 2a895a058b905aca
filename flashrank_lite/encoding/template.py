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
    """

    segments: tuple[str, ...]
    instruction: str = ""

    def __post_init__(self) -> None:
        fields = [field for segment in self.segments for field in FIELD.findall(segment)]
        if fields.count("query") != 1 or fields.count("passage") != 1:
            raise InvalidModel(
                "a prompt template must have {query} and {passage} once each, and has "
                f"{fields.count('query')} and {fields.count('passage')}: correct its segments"
            )
        if fields.index("query") > fields.index("passage"):
            raise InvalidModel("a prompt template must have {query} before {passage}: swap them")

    @property
    def takes_instruction(self) -> bool:
        """Whether an instruction has a place in it."""
        return any("{instruction}" in segment for segment in self.segments)

    def with_instruction(self, instruction: str) -> "Template":
        """The template with this instruction."""
        return replace(self, instruction=well_formed(instruction))

    @classmethod
    def read(cls, data: object) -> "Template":
        """From what a manifest holds: {"segments": [...], "instruction": "..."}.

        Raises:
            InvalidModel: it is not of that form, or lacks a field.
        """
        if isinstance(data, Mapping):
            segments, instruction = data.get("segments"), data.get("instruction", "")
            texts = isinstance(segments, list) and all(isinstance(s, str) for s in segments)
            if texts and isinstance(instruction, str):
                return cls(tuple(segments or ()), instruction)
        raise InvalidModel(
            'a prompt template must be {"segments": [texts], "instruction": text}, not '
            f"{data!r:.80}: export the model again, or correct it"
        )

    def to_json(self) -> dict[str, Any]:
        """What `read` reads."""
        return {"segments": list(self.segments), "instruction": self.instruction}
