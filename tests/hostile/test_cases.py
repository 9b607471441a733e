"""The table of hostile cases through the command line: one clear message each, exit code 1, in bounds, nothing left."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import pytest
from cases import Case

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
KINDS = ["LINES", "FORMS", "FILES", "CONFIGS", "ARGUMENTS", "TASKS", "MODELS"]
SECONDS, MIB = 30, 500  # ten, and what a busy machine adds


def wrong_with(result: Any, case: Case) -> list[str]:
    """What is not as it should be, in words."""
    said, found = result.stderr, []
    expected = (0, 1) if case.code is None else (case.code,)
    if result.exit_code not in expected or not isinstance(result.exception, SystemExit | None):
        found.append(f"exit {result.exit_code}, {result.exception!r}")
    if result.exit_code:
        if [line[:7] for line in said.splitlines()].count("error: ") != 1:
            found.append("not one message")
        message = said[said.find("error: ") :]
        if len(message) > 3000 or len(message.splitlines()) < 2:
            found.append("too long, or no repairing step")
        found += [f"without {word!r}" for word in case.words if word not in said]
    if "Traceback" in result.output + said:
        found.append("a traceback")
    if set(result.output + said) & set("\x1b\x07\x08\x00\u202e"):
        found.append("drives the terminal")
    return [f"{case.name}: {', '.join(found)}: {said[-600:]!r}"] if found else []


def peak_mib() -> int:
    """Of this process, since it began."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_case_is_one_clear_message(kind: str, project: Path, hone: Hone) -> None:
    wrong, before, memory = [], sorted(project.rglob("*")), peak_mib()
    for case in getattr(cases, kind):
        there = {name: (project / name).read_bytes() for name in case.files if (project / name).is_file()}
        for name, content in case.files.items():
            (project / name).write_bytes(content)
        began = time.perf_counter()
        wrong += wrong_with(hone(*case.command), case)
        if time.perf_counter() - began > SECONDS:
            wrong.append(f"{case.name}: {time.perf_counter() - began:.0f} s")
        for name in case.files:
            (project / name).unlink()
        for name, content in there.items():
            (project / name).write_bytes(content)
        if sorted(project.rglob("*")) != before:
            wrong.append(f"{case.name}: something is left, or gone: {sorted(set(project.rglob('*')) ^ set(before))}")
            before = sorted(project.rglob("*"))
    assert not wrong, f"{len(wrong)} of {len(getattr(cases, kind))}:\n" + "\n".join(wrong)
    assert sys.platform != "linux" or peak_mib() - memory < MIB, f"{peak_mib() - memory} MiB more"


def test_there_are_many() -> None:
    assert len(cases.CASES) == sum(len(getattr(cases, kind)) for kind in KINDS)
    assert len({(case.name, case.command, *case.files.values()) for case in cases.CASES}) >= 450
