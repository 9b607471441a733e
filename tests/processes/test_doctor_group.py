"""`hone doctor --distributed`: two real processes that meet, agree and share a folder; and two that do not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone import doctor_group
from hone.errors import HoneError

NAMES = ["processes", "packages", "clocks", "folder", "locks", "gloo"]


def examined(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "hone", "doctor", "--distributed", "--folder", str(folder), *words]
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)


@pytest.mark.slow
def test_two_processes_meet_and_are_told_once(tmp_path: Path) -> None:
    done = examined(tmp_path / "runs", "--json")
    assert done.returncode == 0, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert list(checks) == NAMES
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert checks["processes"]["data"]["processes"] == 2
    assert checks["gloo"]["data"]["gb_s"] > 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [], "nothing is left behind"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A group of two, of which this process is one; `answers[...]` is what the other gives."""
    others: list[Any] = []
    monkeypatch.setattr(doctor_group, "world", lambda: 2)
    monkeypatch.setattr(doctor_group, "primary", lambda: True)
    monkeypatch.setattr(doctor_group, "from_primary", lambda compute: compute())
    monkeypatch.setattr(doctor_group, "everybodys", lambda compute: [compute(), others.pop(0)])
    return others


def test_other_packages_are_named(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_group, "versions", lambda: {"torch": "2.13", "numpy": "2.4"})
    two.append({"torch": "2.11", "numpy": "2.4"})
    check = doctor_group.check_versions()
    assert check.status == "fail" and check.value == "not the same: torch 2.13, 2.11"


def test_a_folder_that_another_process_does_not_see_is_named(two: Any, tmp_path: Path) -> None:
    two.append(False)
    check = doctor_group.check_folder(tmp_path / "runs")
    assert check.status == "fail" and "process 1 does not see" in check.value
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_file_system_without_locks_is_named(two: Any, tmp_path: Path) -> None:
    two += [None, True]  # the other one has taken the lock as well
    assert doctor_group.check_lock(tmp_path).status == "warn"
    two += [None, False]
    assert doctor_group.check_lock(tmp_path).status == "ok"


def test_one_process_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="one process is no group"):
        doctor_group.examine_group(tmp_path)
    done = subprocess.run([sys.executable, "-m", "hone", "doctor", "seed=1"], capture_output=True, text=True)
    assert done.returncode == 1 and "--distributed" in done.stderr
