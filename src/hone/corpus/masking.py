"""E-mail addresses, keys and tokens in texts, replaced before anything is trained on them.

>>> mask("x = 'AKIAABCDEFGHIJKLMNOP'  # ask jo@site.org")
("x = 'SECRET'  # ask name@example.com", {'e-mail addresses': 1, 'keys and tokens': 1})
"""

import re

from hone.errors import SECRET

EMAIL = re.compile(r"\b[\w.+-]+@(?!example\.)[\w-]+(\.[\w-]+)*\.(com|org|net|edu|gov|info|dev|io|ai|[a-z]{2})\b")
KEYS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"
    r"|\b(AKIA[0-9A-Z]{16}|gh[pousr]_\w{36,}|sk-[\w-]{32,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}|eyJ[\w-]{20,}\.[\w.-]+)"
    r"|(?<=[\"'])(?=[^\"']*\d)(?=[^\"']*[A-Za-z])[A-Za-z0-9+/=_-]{40,}(?=[\"'])",
    re.S,
)
# What every match of KEYS and of SECRET begins with, but for those of LONG: most texts hold none of it,
# and a look for words is twenty times as fast as the patterns.
BEGINNINGS = (
    *("-----BEGIN", "AKIA", "ASIA", "AIza", "eyJ", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("github_pat_", "glpat-", "xox", "npm_", "pypi-"),
)
LONG = re.compile(r"[\"'][A-Za-z0-9+/=_-]{40}|\bsk-[\w-]{20}|:/[^\s@]+@")
NAME, WORD = "name@example.com", "SECRET"


def masked(text: str) -> str:
    """E-mail addresses and what looks like a key replaced.

    >>> masked("x = 'AKIAABCDEFGHIJKLMNOP'  # ask jo@site.org")
    "x = 'SECRET'  # ask name@example.com"
    """
    return KEYS.sub(WORD, EMAIL.sub(NAME, text))


def mask(text: str) -> tuple[str, dict[str, int]]:
    """A text without e-mail addresses, keys, and passwords in addresses; and how many of each kind it had."""
    found: dict[str, int] = {}
    if _may_hold_address(text):
        text, n = EMAIL.subn(NAME, text)
        _count(found, "e-mail addresses", n)
    if _may_hold_key(text):
        text, n_keys = KEYS.subn(WORD, text)
        text, n_tokens = SECRET.subn(WORD, text)
        _count(found, "keys and tokens", n_keys + n_tokens)
    return text, found


def _may_hold_address(text: str) -> bool:
    """Whether an @ stands between what an address may have there: a decorator's does not."""
    at = text.find("@")
    while at >= 0:
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        if (before.isalnum() or before in tuple("._+-")) and (after.isalnum() or after in tuple("_-")):
            return True
        at = text.find("@", at + 1)
    return False


def _may_hold_key(text: str) -> bool:
    return any(word in text for word in BEGINNINGS) or LONG.search(text) is not None


def _count(found: dict[str, int], kind: str, n: int) -> None:
    if n:
        found[kind] = n
