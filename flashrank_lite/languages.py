"""Whether a text is in a language that a model was not made for.

An English model gives every text a score, and on Japanese or German the order that comes out can be
worse than the order that went in (felladrin/MiniSearch#2312). The user is told, once for each
ranker: by a logger, because it is about data that comes while a program runs, not about its code.
"""

import logging
from collections.abc import Sequence
from itertools import chain

logger = logging.getLogger(__name__)

_CHARACTERS_READ = 400  # of a text: its script and its language show in the first lines
_LATIN_END = "\u0250"  # up to here letters are Latin, with all their accents

# Function words, most frequent first; none that English has too ("die", "in", "as", "do", "a").
_FUNCTION_WORDS = {
    "German": "der und das ist nicht den von zu mit dem ein eine auf für sich auch es werden wird"
    " sind oder einer im wie bei nach einem aus wenn kann durch über nur einen zum zur",
    "French": "de la le les et des est une en que qui dans pour du par sur pas au avec plus ce il"
    " sont vous ou cette aux se être sans mais leur",
    "Spanish": "de la que el en y los se del las por con para una su es lo como más pero sus le al"
    " está son entre cuando muy sin sobre también",
    "Italian": "di che e la il un per è una non in sono con si da come del al alla della le dei"
    " gli più anche nel delle ha ma o",
    "Portuguese": "de que o e da em um para é com não uma os no se na por mais as dos como mas ao"
    " das à seu sua ou são também pelo",
    "Dutch": "de van het een en dat niet te zijn op voor met die er aan ook als bij door maar naar"
    " om uit worden wordt kan deze",
    "Polish": "w i na z do się nie jest że o jak dla po od są oraz ale przez przy który lub może",
    "Swedish": "och att det som en på är av för med till den har de inte om ett kan var eller från"
    " vid när ska",
    "Danish": "og at det er en til af på med for den de der ikke som et kan fra har eller ved når"
    " skal",
    "Turkish": "ve bir bu da de için ile olarak çok daha olan gibi kadar sonra ne ya veya en mi",
    "Indonesian": "yang dan di untuk dengan ini dari pada adalah tidak dalam itu atau oleh ke akan"
    " dapat sebagai bisa",
}
_FREQUENT_IN_ENGLISH = (
    "the of and to is was for that with are on by it this be from or an at have not which has were"
    " can you your if but what how when who where why does do my we they will in a as i his he"
)
_ENGLISH_WORDS = frozenset(_FREQUENT_IN_ENGLISH.split())
_LANGUAGES = {
    name: frozenset(words.split()) - _ENGLISH_WORDS for name, words in _FUNCTION_WORDS.items()
}
# With these, none of 58,314 English texts (web search, encyclopaedia, science, technical pages) was
# taken for another language; nor with 3 words, but then "Charles de Gaulle, de la Tour, et al." is.
_FEWEST_WORDS = 5  # function words of the other language
_LEAST_SHARE = 0.2  # of all words
# Titles and short answers are too short one by one: the beginnings of the first ones are joined.
_JOINED_TEXTS, _JOINED_CHARACTERS = 10, 60


class LanguageWatch:
    """Looks at texts until it has warned once; a passage costs it some microseconds.

    Args:
        model: its name, for the warning.
        languages: what it understands; only of a model for English alone is another language known
            to be wrong.
    """

    def __init__(self, model: str, languages: Sequence[str]) -> None:
        self._model = model
        self._on = tuple(languages) in (("en",), ("english",))

    def check(self, texts: Sequence[str]) -> None:
        """Warn if a text is in another script or language. The log line holds no text."""
        if not self._on:
            return
        joined = " ".join(text[:_JOINED_CHARACTERS] for text in texts[:_JOINED_TEXTS])
        for text in chain(texts, [joined]):
            found = another_script(text) or another_language(text)
            if found is not None:
                self._on = False
                logger.warning(
                    "the model %r is for English, and was given text in %s: its order may be worse "
                    "than none; `flashrank-lite models list` shows models for other languages",
                    self._model,
                    found,
                )
                return


def another_script(text: str) -> str | None:
    """ "another script" if more than half of the first letters are not Latin, else None."""
    if text.isascii():
        return None
    letters = [character for character in text[:_CHARACTERS_READ] if character.isalpha()]
    foreign = sum(letter >= _LATIN_END for letter in letters)
    return "another script" if 2 * foreign > len(letters) else None


def another_language(text: str) -> str | None:
    """The language of the Latin script that a text is in, None if it may be English.

    It is told by function words: there must be some, more than English ones, and they must be a
    fair share of the text, because English text quotes foreign names and titles.
    """
    words = text[:_CHARACTERS_READ].lower().split()
    english = sum(word in _ENGLISH_WORDS for word in words)
    least = max(_FEWEST_WORDS, 2 * english, _LEAST_SHARE * len(words))
    if len(words) < _FEWEST_WORDS or len(words) - english < least:
        return None
    counts = {name: sum(map(known.__contains__, words)) for name, known in _LANGUAGES.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] >= least else None
