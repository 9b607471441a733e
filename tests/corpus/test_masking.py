"""Secrets: what is looked for first finds all that the patterns would."""

import sysconfig
from pathlib import Path

import pytest

from hone.corpus.masking import EMAIL, KEYS, NAME, WORD, mask
from hone.errors import SECRET

SECRETS = [
    "AKIAABCDEFGHIJKLMNOP",
    "ASIAABCDEFGHIJKLMNOP",
    "ghp_" + "a1" * 18,
    "github_pat_" + "a1" * 12,
    "glpat-" + "a1" * 12,
    "sk-" + "a1" * 17,
    "hf_" + "a1" * 12,
    "xoxb-" + "a1" * 8,
    "AIza" + "a1" * 17 + "b",
    "npm_" + "a1" * 18,
    "pypi-" + "a1" * 22,
    "eyJ" + "a1" * 12 + ".eyJ" + "a1" * 12 + "." + "a1" * 12,
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
]


def plainly(text: str) -> str:
    return SECRET.sub(WORD, KEYS.sub(WORD, EMAIL.sub(NAME, text)))


@pytest.mark.parametrize("secret", SECRETS)
def test_each_kind_is_masked(secret: str) -> None:
    text, found = mask(f"a = {secret} # set it")
    assert secret not in text and found["keys and tokens"] >= 1


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("x = '" + "a1" * 20 + "'", "x = 'SECRET'"),
        ("see https://me:passw0rd@host/x", "see https://SECRET@host/x"),
        ("ask a.b+c@sub.site.org now", "ask name@example.com now"),
        ("@decorator\ndef f(): ...\nx = a @ b", "@decorator\ndef f(): ...\nx = a @ b"),
        ("ask me@example.com", "ask me@example.com"),
    ],
)
def test_what_is_masked_and_what_stays(text: str, masked: str) -> None:
    assert mask(text)[0] == masked


def test_python_files_are_masked_as_by_the_patterns_alone() -> None:
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:120]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert mask(text)[0] == plainly(text), path.name
