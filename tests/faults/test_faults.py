"""Some trials of each script in benchmarks/faults, with real kills, errors, signals and damaged files."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "benchmarks" / "faults"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What all scripts print, of one process: most of the time is the import of torch."""
    if not hasattr(os, "fork"):
        pytest.skip("each trial is a fork, which this system has not")
    command = [sys.executable, str(FAULTS), "--quick", "--work", str(tmp_path_factory.mktemp("faults"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kills", "sweep", "corruptions", "signals", "powerloss", "full_disk"])
def test_nothing_is_lost(name: str, said: str) -> None:
    ours = said.split(f"## {name}\n")[1].split("\n## ")[0]
    if found := re.search(r"^skipped: (.*)", ours, re.MULTILINE):
        pytest.skip(found[1])
    assert ours.count("\n| ") >= 3, ours  # a table with at least one row
    assert ours.rstrip().endswith("Nothing was lost."), ours
