"""The ninety hostile programs of `escapes.py`, as the user who runs the tests and, if that is root, as another."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from escapes import CASES, Case, Host, attempt, hosting, left_processes

from hone.errors import printable
from hone.grading.sandbox.isolation import Sandbox

# The program that starts Python may still have root's rights when it does; Python has not.
CAN_RUN = (
    "import os, sys, pyseccomp, hone; open(os.path.realpath(sys.executable)); sys.exit(sys.version_info < (3, 11))"
)
ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"{case.number}-{case.name}" for case in CASES]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosting() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_hostile_program(case: Case, strict_sandbox: Sandbox, host: Host) -> None:
    outcome, seen = attempt(case, strict_sandbox, host)
    assert outcome.verdict in case.expected, outcome
    assert seen == []
    assert "\x1b" not in printable(outcome.detail) and "\u202e" not in printable(outcome.detail)


OUTLIVES = """
import ctypes, os, signal, time
for number in signal.valid_signals() - {9, 19}:
    signal.signal(number, signal.SIG_IGN)
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
os.write(1, b"up")
time.sleep(1000)
"""
KILLED = """
import sys
from hone.grading.sandbox.isolation import open_sandbox
from hone.grading.sandbox.verdict import Exam, judge
with open_sandbox("strict") as sandbox:
    print("starts", flush=True)
    judge(sandbox, Exam(("f",), ("f(1)",)), [sys.argv[1]], 100)
"""


def test_nothing_outlives_a_killed_hone(strict_sandbox: Sandbox) -> None:
    """A program that asks not to be killed with its parent, whose parent is killed."""
    words = [sys.executable, "-c", KILLED, OUTLIVES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    seen: set[int] = set()
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"starts\n"
        for _ in range(20):  # until the program has got to its request
            time.sleep(0.05)
            seen |= {*left_processes(0)}
        process.kill()
    assert seen, "it ran"
    for _ in range(60):
        if not seen & {*left_processes(0)}:
            return
        time.sleep(0.05)
    pytest.fail(f"{seen & {*left_processes(0)}} are still there")


@pytest.fixture(scope="module")
def as_another_user() -> dict[str, Any]:
    """What the programs get when an ordinary user starts them; with an interpreter which that user may read."""
    if os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv to become an ordinary user with")
    drop = [setpriv, "--reuid", "1000", "--regid", "1000", "--clear-groups", "--"]
    import pyseccomp

    # the binding alone: the rest of its folder may be of another interpreter
    paths = f"{ROOT / 'src'}:{Path(pyseccomp.__file__).parent}"
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        environment = {"PYTHONPATH": paths, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        try_words = [*drop, python, "-c", CAN_RUN]
        if Path(python).exists() and subprocess.run(try_words, env=environment, capture_output=True).returncode == 0:
            words = [*drop, python, str(Path(__file__).with_name("escapes.py"))]
            done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd="/", timeout=250)
            assert done.returncode == 0, done.stderr
            found: dict[str, Any] = json.loads(done.stdout)
            return found
    pytest.skip("an ordinary user can read no Python >= 3.11 here, or not this checkout")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_hostile_program_of_another_user(case: Case, strict_sandbox: Sandbox, as_another_user: dict[str, Any]) -> None:
    verdict, detail, seen = as_another_user[str(case.number)]
    assert verdict in case.expected, detail
    assert seen == []
