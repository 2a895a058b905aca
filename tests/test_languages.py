"""Text in a language that an English model was not made for is said, once, without the text."""

import json
import logging

import pytest
from conftest import PASSAGES, QUERY, ROOT

from flashrank_lite import Ranker
from flashrank_lite.languages import LanguageWatch, another_language, another_script

FOREIGN = {
    "German": "Ein Floh kann ohne Wirt nur wenige Wochen leben, aber die Puppe wartet oft mehrere "
    "Monate im Kokon, bis sich ein Tier nähert.",
    "French": "La durée de vie d'une puce est de quelques semaines, mais elle peut attendre dans "
    "son cocon pendant des mois.",
    "Spanish": "La pulga vive varias semanas, pero en su capullo puede esperar muchos meses hasta "
    "que se acerca un animal.",
    "Italian": "La pulce vive alcune settimane, ma nel bozzolo può aspettare per mesi che si "
    "avvicini un animale, e non ha bisogno di cibo.",
    "Portuguese": "A pulga vive algumas semanas, mas no casulo pode esperar por muitos meses até "
    "que um animal se aproxime e não precisa de comida.",
    "Dutch": "Een vlo leeft enkele weken, maar in de cocon kan het dier maanden wachten tot er een "
    "hond of een kat naar het nest komt.",
    "Polish": "Pchła żyje kilka tygodni, ale w kokonie może czekać przez wiele miesięcy, bo nie "
    "potrzebuje jedzenia i nie jest duża.",
    "Swedish": "En loppa lever några veckor, men i kokongen kan den vänta i månader och det är "
    "inte ovanligt att den får vänta på ett djur.",
}


@pytest.mark.parametrize("text", ["ノミの寿命", "كم يعيش البرغوث؟", "Сколько живут блохи"])
def test_another_script_is_seen(text: str) -> None:
    assert another_script(text) == "another script"


@pytest.mark.parametrize("text", ["", "123 !?", "naïve café", "the α-decay of 翻", "🦟 🐕"])
def test_latin_text_with_accents_and_signs_is_no_other_script(text: str) -> None:
    assert another_script(text) is None


@pytest.mark.parametrize("language", FOREIGN)
def test_a_paragraph_in_another_language_is_told_by_its_function_words(language: str) -> None:
    assert another_language(FOREIGN[language]) == language


@pytest.mark.parametrize(
    "text",
    [
        "Charles de Gaulle, de la Tour, et al. (2004)",
        "The film Das Leben der Anderen by Florian Henckel von Donnersmarck won in 2007.",
        "Van der Waals forces act between the atoms of Leonardo da Vinci's El Greco in Los Angeles",
        "Rio de Janeiro e São Paulo",
        "SELECT de, la FROM que WHERE el = 1",
        "crème de la crème",
        *PASSAGES[:9],
    ],
)
def test_english_text_with_foreign_names_is_english(text: str) -> None:
    assert another_language(text) is None


def test_no_example_text_is_taken_for_another_language() -> None:
    lines = (ROOT / "examples" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    texts = [str(value) for row in rows for value in row.values()]
    assert texts
    assert [text[:80] for text in texts if another_language(text)] == []


@pytest.mark.parametrize(
    "foreign", ["ノミの寿命は数週間から一年以上になります。", FOREIGN["German"]]
)
def test_an_english_model_warns_once_and_the_log_holds_no_text(
    caplog: pytest.LogCaptureFixture, foreign: str
) -> None:
    with Ranker() as ranker, caplog.at_level(logging.DEBUG):
        ranker.rank(QUERY, ["fleas", "Flöhe"])
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        ranker.rank(QUERY, ["fleas", foreign])
        ranker.score(foreign, ["fleas"])
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "'nano' is for English" in caplog.text
    assert "flashrank-lite models list" in caplog.text
    for word in [*foreign.split()[:3], "fleas"]:
        assert word not in caplog.text


def test_short_answers_are_judged_together(caplog: pytest.LogCaptureFixture) -> None:
    titles = [
        "Wie lange lebt ein Floh",
        "Was ist der Wirt",
        "Wenn es kalt wird",
        "Nur mit der Zeit",
    ]
    assert [another_language(title) for title in titles] == [None] * 4
    LanguageWatch("m", ("en",)).check(titles)
    assert "German" in caplog.text


@pytest.mark.parametrize("languages", [(), ("multilingual",), ("en", "zh"), ("ja",)])
def test_other_models_do_not_warn(
    languages: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    LanguageWatch("m", languages).check(["ノミの寿命", FOREIGN["German"]])
    assert caplog.records == []
