"""Which family of scorers a model is of: the one place that decides it."""

from flashrank_lite.cross_encoder import CrossEncoder
from flashrank_lite.errors import InvalidInput
from flashrank_lite.late_interaction import LateInteraction
from flashrank_lite.models.resolve import Model
from flashrank_lite.opened import find
from flashrank_lite.options import ModelOptions
from flashrank_lite.scorer import TokenScorer


def open_scorer(model: Model, options: ModelOptions) -> TokenScorer:
    """Find and open a model; one whose manifest says how states are compared reads texts apart.

    Args:
        model: as `Ranker` takes it.
        options: how it is opened.

    Raises:
        InvalidInput: a passage cache for a model that reads query and passage together.
        As `Ranker`.
    """
    found = find(model, options)
    if found.manifest.late is not None:
        return LateInteraction(found, options)
    if options.passage_cache is not None:
        raise InvalidInput(
            f"passage_cache: {found.manifest.name!r} reads query and passage together, so nothing "
            "of a passage can be kept: leave it out, or load a late-interaction model, as the "
            "bundled one is"
        )
    return CrossEncoder(found, options)
