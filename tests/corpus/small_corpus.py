"""Texts to make small corpora of, and a shorter way to make one."""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hone.corpus.run import Ran

WORDS = (
    "the of and to that have with be small large river stone walks reads finds green seven window under".split()  # noqa: SIM905
)


def prose(rng: random.Random, n_words: int = 120) -> str:
    return " ".join(rng.choice(WORDS) + ("." if i % 12 == 11 else "") for i in range(n_words))


def near_copy(rng: random.Random, text: str, changed: int) -> str:
    """The text with that many of its words replaced."""
    words = text.split()
    for at in rng.sample(range(len(words)), changed):
        words[at] = f"x{rng.randrange(10**6)}"
    return " ".join(words)


def write_rows(path: Path, texts: Sequence[object], **columns: Any) -> Path:
    path.write_text("".join(json.dumps({"text": text, **columns}) + "\n" for text in texts), encoding="utf-8")
    return path


def make(config: Path, *settings: str) -> "Ran":
    from hone.corpus.load import load
    from hone.corpus.run import run

    ran = run(load(str(config), settings), say=lambda line: None)
    assert ran is not None
    return ran


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
