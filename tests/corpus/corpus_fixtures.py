"""Fixtures of these tests: a configuration with the tests' tokenizer. A second conftest.py would hide the first."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


@pytest.fixture
def corpus_config(tmp_path: Path, tokenizer: Any) -> Callable[..., Path]:
    """corpus_config(files, key=value …) -> a configuration with the tests' tokenizer."""
    from hone.data.tokenizer import save_tokenizer

    folder = tmp_path / "tokenizer"
    save_tokenizer(tokenizer, folder)

    def write(files: Any, name: str = "corpus.yaml", **settings: Any) -> Path:
        values = {
            "files": str(files) if isinstance(files, Path) else files,
            "tokenizer_name_or_path": str(folder),
            "output_dir": str(tmp_path / "out"),
            "workers": 1,
            "validation_percentage": 10,
            "shard_tokens": 20_000,
            **settings,
        }
        path = tmp_path / name
        path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()), encoding="utf-8")
        return path

    return write
