"""Whether a text is worth reading: rules of code and of prose, by thresholds; a null threshold is not looked at.

The rules are those of The Stack (Kocetkov et al. 2022) for code and of Gopher (Rae et al. 2021, table A1) for prose.

>>> unfit("x = 1\\n" * 40, "code", FilterSection())
>>> unfit("ab", "prose", FilterSection(min_characters=100))
'shorter than 100 characters'
"""

import re
import string
from typing import Literal

import numpy as np
import regex

from hone.corpus.languages import language_of
from hone.corpus.schema import FilterSection
from hone.errors import HoneError

Kind = Literal["code", "prose", "off"]

CODE_SUFFIXES = (".py",)
GENERATED = re.compile(
    r"(auto[- ]?|automatically |machine[- ])generated|generated (by|from|using|automatically)|do not edit", re.I
)
HEAD = 1000  # characters in which a file says that it is generated
STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
OF_SCRIPT = 0.9  # of the letters
OF_WORDS = bytes(chr(c) in string.ascii_letters + string.digits for c in range(256))  # 1 for letters and digits, else 0
NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
LETTERS = regex.compile(r"\p{L}")


def kind_of(source: str, quality: str) -> Kind:
    """Which rules hold for a document from this file.

    >>> kind_of("src/a.py.gz", "auto"), kind_of("rows.jsonl", "auto"), kind_of("rows.jsonl", "code")
    ('code', 'prose', 'code')
    """
    if quality == "auto":
        return "code" if source.lower().removesuffix(".gz").endswith(CODE_SUFFIXES) else "prose"
    return "code" if quality == "code" else "prose" if quality == "prose" else "off"


def unfit(text: str, kind: Kind, rules: FilterSection) -> str | None:
    """Why a text is left out, or None. The reason holds no figure of the text: equal reasons are counted together."""
    if not text.strip():
        return "empty"
    if len(text) < rules.min_characters:
        return f"shorter than {rules.min_characters:,} characters"
    if len(text) > rules.max_characters:
        return f"longer than {rules.max_characters:,} characters"
    if reason := _of_another_script(text, rules):
        return reason
    if rules.languages and kind != "code" and language_of(text) not in rules.languages:
        return "of another language"
    if kind == "off":
        return None
    if rules.min_letter_share is not None and _letter_share(text) < rules.min_letter_share:
        return f"letters and digits below {rules.min_letter_share:g}"
    return _unfit_code(text, rules) if kind == "code" else _unfit_prose(text, rules)


def _of_another_script(text: str, rules: FilterSection) -> str | None:
    if text.isascii():
        return None if not rules.scripts or "Latin" in rules.scripts else "of another script"
    if rules.min_ascii_share is not None:
        share = len(text.encode("ascii", "ignore")) / len(text)
        if share < rules.min_ascii_share:
            return f"ASCII characters below {rules.min_ascii_share:g}"
    if rules.scripts:
        letters = LETTERS.findall(text)
        of_script = len(script_pattern(rules.scripts).findall("".join(letters)))
        if of_script < OF_SCRIPT * len(letters):
            return "of another script"
    return None


def script_pattern(scripts: list[str]) -> "regex.Pattern[str]":
    """One character of any of these scripts; `regex` keeps what it has compiled.

    Raises:
        HoneError: no such script.
    """
    try:
        return regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in scripts) + "]")
    except regex.error as error:
        fix = "scripts: [Latin], [Cyrillic], [Han, Hiragana, Katakana] … as Unicode names them"
        raise HoneError(f"no such script among {', '.join(scripts)}: {error}", where="scripts", fix=fix) from None


def _letter_share(text: str) -> float:
    """Letters and digits among all characters."""
    plain = text.encode("ascii", "ignore")
    n = np.count_nonzero(np.frombuffer(plain.translate(OF_WORDS), bool))
    if len(plain) < len(text):
        n += sum(map(str.isalnum, "".join(NOT_ASCII.findall(text))))
    return n / len(text)


def _unfit_code(text: str, rules: FilterSection) -> str | None:
    lines = text.splitlines()
    if rules.max_line_characters is not None and max(map(len, lines)) > rules.max_line_characters:
        return f"a line longer than {rules.max_line_characters:,} characters"
    if rules.max_mean_line_characters is not None and len(text) / len(lines) > rules.max_mean_line_characters:
        return f"lines longer than {rules.max_mean_line_characters:g} characters on average"
    if rules.drop_generated and _says_generated(text[:HEAD]):
        return "says that it is generated"
    return None


def _says_generated(head: str) -> bool:
    lower = head.lower()  # a look for words first: most heads hold neither
    may = not head.isascii() or "generated" in lower or "do not edit" in lower
    return may and GENERATED.search(head) is not None


def _unfit_prose(text: str, rules: FilterSection) -> str | None:
    words = text.split()
    mean = sum(map(len, words)) / len(words)
    if rules.min_word_characters is not None and mean < rules.min_word_characters:
        return f"words shorter than {rules.min_word_characters:g} characters on average"
    if rules.max_word_characters is not None and mean > rules.max_word_characters:
        return f"words longer than {rules.max_word_characters:g} characters on average"
    symbols = text.count("#") + text.count("…") + text.count("...")
    if rules.max_symbol_share is not None and symbols > rules.max_symbol_share * len(words):
        return f"more than {rules.max_symbol_share:g} symbols a word"
    if rules.min_stop_words and _n_stop_words(words, rules.min_stop_words) < rules.min_stop_words:
        return f"fewer than {rules.min_stop_words} of the commonest English words"
    if rules.max_repeated_line_share is not None:
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        if len(lines) - len(set(lines)) > rules.max_repeated_line_share * len(lines):
            return f"repeated lines above {rules.max_repeated_line_share:g}"
    return None


def _n_stop_words(words: list[str], enough: int) -> int:
    """How many of the commonest words occur; all words are looked at only where the first ones are not enough."""
    n = len(STOP_WORDS.intersection(map(str.lower, words[:HEAD])))
    return n if n >= enough else len(STOP_WORDS.intersection(map(str.lower, words)))
