"""One hit a document, where passages are parts of documents."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import islice
from typing import Any

from flashrank_lite.errors import InvalidInput
from flashrank_lite.passages import Passage

GroupBy = str | Callable[[Passage], Any]


def best_of_groups(order: Iterable[int], passages: Sequence[Passage], by: GroupBy) -> list[int]:
    """Of places in a list of passages, best first, the first of each group.

    Args:
        order: the places.
        passages: the list.
        by: "id", a key of the metadata, or a function of the passage. A passage without that value
            (None) stands for itself.

    Raises:
        InvalidInput: no passage has that value, or one cannot be compared.
    """
    groups = [_group(passage, by) for passage in passages]
    if passages and all(group is None for group in groups):
        keys = {key for passage in passages for key in passage.meta}
        known = ", ".join(repr(key) for key in islice(sorted(keys), 8)) or "none"
        raise InvalidInput(
            f"group_by={by!r:.80}, but no passage has that (metadata: {known}): name a key of the "
            "metadata, 'id', or pass a function of a passage"
        )
    seen: set[Hashable] = set()
    best = []
    for place in order:
        group = groups[place]
        if group is None:
            best.append(place)
        elif group not in seen:
            seen.add(group)
            best.append(place)
    return best


def _group(passage: Passage, by: GroupBy) -> Hashable:
    group: Any
    if callable(by):
        group = by(passage)
    elif by == "id":
        group = passage.id
    else:
        group = passage.meta.get(by)
    try:
        hash(group)
    except TypeError:
        raise InvalidInput(
            f"group_by: the {by!r:.80} of a passage is a {type(group).__name__}, which cannot be "
            "compared: group by a str or a number"
        ) from None
    return group  # type: ignore[no-any-return]
