"""The language of a text, by py3langid: a table of 4.6 MB that it brings along, nothing fetched and no pickle.

Ten megabytes a second, because a thousand characters of each text are enough. Datatrove's own filter, one of the
blocks that a configuration may name, knows more languages and fetches a model of 131 MB for it.

>>> language_of("The river walks under the small bridge, and nobody has seen it.")
'en'
"""

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hone.errors import HoneError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LOOKED_AT = 1000  # characters, from the middle: pages begin with menus
INSTALL = "pip install 'hone-lm[corpus]' (or pip install 'py3langid>=0.4,<0.5')"


def language_of(text: str) -> str:
    """The code of the language that most of the middle of a text is written in."""
    begin = max(0, (len(text) - LOOKED_AT) // 2)
    code: str = _identifier().classify(text[begin : begin + LOOKED_AT])[0]
    return code


def refuse_unknown(codes: list[str]) -> None:
    """Raise a HoneError for a code that is no language here, or where py3langid is not installed."""
    if find_spec("py3langid") is None:
        raise HoneError("py3langid is not installed", where="languages", fix=INSTALL)
    known = sorted(set(_identifier().labels))
    if unknown := [code for code in codes if code not in known]:
        fix = f"there are: {' '.join(known)}"
        raise HoneError(f"no such language: {', '.join(unknown)}", where="languages", fix=fix)


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    """80 MB, read in half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
