import inspect

import pytest

import flashrank_lite
from flashrank_lite import FlashRankLiteError, errors

ALL = [value for value in vars(errors).values() if inspect.isclass(value)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_in_the_tree_public_and_explained_in_a_line(
    kind: type[Exception],
) -> None:
    assert issubclass(kind, FlashRankLiteError)
    assert getattr(flashrank_lite, kind.__name__) is kind
    assert kind.__doc__
    assert "\n" not in kind.__doc__


def test_invalid_input_is_a_value_error_and_a_bad_checksum_an_invalid_model() -> None:
    assert issubclass(flashrank_lite.InvalidInput, ValueError)
    assert issubclass(flashrank_lite.ChecksumMismatch, flashrank_lite.InvalidModel)


def test_the_front_door_lists_what_it_gives_and_nothing_else() -> None:
    for name in flashrank_lite.__all__:
        assert getattr(flashrank_lite, name) is not None
        assert name in dir(flashrank_lite)
    with pytest.raises(AttributeError, match="no_such_name"):
        flashrank_lite.no_such_name  # noqa: B018
