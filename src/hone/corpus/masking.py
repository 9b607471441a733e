"""E-mail addresses, keys and tokens in texts, replaced before anything is trained on them.

>>> mask("x = 'AKIAABCDEFGHIJKLMNOP'  # ask jo@site.org")
("x = 'SECRET'  # ask name@example.com", {'e-mail addresses': 1, 'keys and tokens': 1})
"""

import re
import string

from hone.errors import SECRET

EMAIL = re.compile(r"\b[\w.+-]+@(?!example\.)[\w-]+(\.[\w-]+)*\.(com|org|net|edu|gov|info|dev|io|ai|[a-z]{2})\b")
KEYS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"
    r"|\b(AKIA[0-9A-Z]{16}|gh[pousr]_\w{36,}|sk-[\w-]{32,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}|eyJ[\w-]{20,}\.[\w.-]+)"
    r"|(?<=[\"'])(?=[^\"']*\d)(?=[^\"']*[A-Za-z])[A-Za-z0-9+/=_-]{40,}(?=[\"'])",
    re.S,
)
# No match of KEYS or of SECRET is without one of these. The word is looked for first, fifty times as fast as the
# patterns, then what follows it. Keys in quotes and passwords in addresses begin with no word of their own.
BEGINNINGS = {
    "-----BEGIN": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "AKIA": re.compile(r"AKIA[A-Z0-9]{16}"),
    "ASIA": re.compile(r"ASIA[A-Z0-9]{16}"),
    "AIza": re.compile(r"AIza[\w-]{35}"),
    "eyJ": re.compile(r"eyJ[\w-]{10,}\."),
    "hf_": re.compile(r"hf_[A-Za-z0-9]{20}"),
    **{f"gh{one}_": re.compile(rf"gh{one}_\w{{30}}") for one in "pousr"},
    "github_pat_": re.compile(r"github_pat_\w{22}"),
    "glpat-": re.compile(r"glpat-[\w-]{20}"),
    "sk-": re.compile(r"sk-[\w-]{20}"),
    "xox": re.compile(r"xox[a-z]-[\w-]{10}"),
    "npm_": re.compile(r"npm_[A-Za-z0-9]{36}"),
    "pypi-": re.compile(r"pypi-[\w-]{40}"),
}
PASSWORD = re.compile(r":/[^\s@]+@")
QUOTED = re.compile(r"[\"'](?=[^\"']*\d)(?=[^\"']*[A-Za-z])[A-Za-z0-9+/=_-]{40,}[\"']")
# quotes -> "q", what stands in keys -> "k", all else -> "."; a long text in quotes is then one word to look for
IN_KEYS = frozenset(string.ascii_letters + string.digits + "+/=_-")
KINDS = bytes(ord("q" if chr(c) in "\"'" else "k" if chr(c) in IN_KEYS else ".") for c in range(256))
QUOTED_WORD = b"q" + 40 * b"k"
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
    begins = any(word in text and pattern.search(text) for word, pattern in BEGINNINGS.items())
    n_keys = n_tokens = 0
    if begins or (QUOTED_WORD in text.encode().translate(KINDS) and QUOTED.search(text)):
        text, n_keys = KEYS.subn(WORD, text)
    if begins or PASSWORD.search(text):
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


def _count(found: dict[str, int], kind: str, n: int) -> None:
    if n:
        found[kind] = n
