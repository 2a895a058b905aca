import logging

import pytest
from conftest import PASSAGES, QUERY

from flashrank_lite import Ranker
from flashrank_lite.languages import ScriptWatch, is_in_another_script


@pytest.mark.parametrize(
    "text",
    [
        "ノミの寿命",
        "كم يعيش البرغوث؟",
        "Сколько живут блохи",
        "벼룩의 수명",
        "跳蚤 live 的寿命有多长时间",
    ],
)
def test_another_script_is_seen(text: str) -> None:
    assert is_in_another_script(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123 !?",
        "naïve café",
        "Die Lebensdauer beträgt",
        "việt nam",
        "the α-decay of 翻",
        "🦟 🐕",
    ],
)
def test_latin_text_with_accents_and_signs_is_none(text: str) -> None:
    assert not is_in_another_script(text)


def test_an_english_model_warns_once_and_names_the_command(
    caplog: pytest.LogCaptureFixture,
) -> None:
    japanese = next(passage for passage in PASSAGES if passage.startswith("ノミ"))
    with Ranker() as ranker, caplog.at_level(logging.WARNING):
        ranker.rank(QUERY, ["fleas", "Flöhe"])
        assert caplog.records == []
        ranker.rank(QUERY, ["fleas", japanese])
        ranker.score(japanese, ["fleas"])
    assert len(caplog.records) == 1
    assert "'nano' is for English" in caplog.text
    assert "flashrank-lite models list" in caplog.text


@pytest.mark.parametrize("languages", [(), ("multilingual",), ("en", "zh"), ("ja",)])
def test_other_models_do_not_warn(
    languages: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    ScriptWatch("m", languages).look(["ノミの寿命"])
    assert caplog.records == []
