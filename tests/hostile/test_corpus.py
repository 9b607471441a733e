"""Every file that fuzzing starts from, or once found something with, goes through its target again (tools/fuzz.py)."""

from pathlib import Path
from types import ModuleType

import pytest

from conftest import load_script

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fixtures" / "corpus"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    return load_script(ROOT / "tools" / "fuzz.py")


@pytest.mark.parametrize("target", ["rows", "parquet", "config", "answers", "model"])
def test_the_corpus_holds(target: str, fuzz: ModuleType, tmp_path: Path) -> None:
    files = sorted((CORPUS / target).iterdir())
    assert len(files) >= 4
    for path in files:
        try:
            fuzz.TARGETS[target](path.read_bytes(), tmp_path)
        except Exception as error:
            raise AssertionError(f"{path.relative_to(ROOT)}: {error!r}") from error


def test_the_corpus_is_small_and_whole(fuzz: ModuleType) -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(fuzz.TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 50_000
