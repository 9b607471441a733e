"""strace on a part of a trial: which system calls it makes on the run folder, and a fault at one of them.

strace (Linux; no root, for a child of one's own) stops the child at each call and can answer in the kernel's place: an
error number, or a signal. The child waits at the beginning of the part until strace is there, and at its end until it
has gone, so that calls are counted within the part.
"""

import os
import re
import select
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import trials

INSTALL = "strace is needed (Linux): sudo apt-get install strace, or dnf install strace"
CHANGING = {
    *("write", "writev", "pwrite64", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir"),
    *("fsync", "fdatasync", "ftruncate", "fallocate", "chmod", "fchmod", "symlink", "link"),
}
READING = {"openat", "read", "pread64", "getdents64"}  # what needs the disk; stat and the like are left out
LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")


class Call(NamedTuple):
    """A system call of a part: the how manieth of its name, and what strace wrote of it."""

    name: str
    number: int
    text: str

    @property
    def changes(self) -> bool:
        """Whether it changes the disk."""
        return self.name in CHANGING or (self.name == "openat" and "O_CREAT" in self.text)


def available() -> str | None:
    """Why there can be no such trial here; None if there can."""
    if not hasattr(os, "fork"):
        return "trials are forks, which this system has not"
    return None if shutil.which("strace") else INSTALL


def trial(args: list[str], place: Path, part: Callable[[Callable[..., Any]], None], options: list[str]) -> trials.Ended:
    """Run a command with strace on one part of it.

    Args:
        part: given a wrapper, puts it around the functions between which strace is there (`enters`, `leaves`).
        options: of strace.
    """
    told, tell = os.pipe()
    gate, opener = os.pipe()

    def before() -> None:
        os.close(told)
        os.close(opener)  # a child that waits goes on when this process is killed
        part(_gates(tell, gate))

    child = trials.Trial(args, place, before)
    os.close(tell)
    os.close(gate)
    tracer = None
    try:
        while said := _read(told):
            if said == b"b":
                tracer = _attach(child.pid, options)
            elif tracer is not None:
                tracer.terminate()  # it lets go of the child
                tracer.wait()
            os.write(opener, b"x")
        return child.wait()
    finally:
        if tracer is not None and tracer.poll() is None:
            tracer.terminate()
            tracer.wait()
        os.close(told)
        os.close(opener)


def calls(
    args: list[str],
    place: Path,
    part: Callable[[Callable[..., Any]], None],
    log: Path,
    folders: Sequence[str] = ("run",),
) -> list[Call]:
    """The calls of a part on paths in these folders of `place`; a path is told from there on: /run/config.json."""
    ended = trial(args, place, part, ["-y", "-s", "0", "-o", str(log)])
    if ended.code:
        raise SystemExit(f"the traced run failed: {ended.said}")
    numbers, found = Counter[str](), []
    for line in log.read_text().splitlines():
        if not (match := LINE.match(line)):
            continue
        name = match[1]
        numbers[name] += 1
        if any(str(place / one) in line for one in folders) and (name in CHANGING or name in READING):
            found.append(Call(name, numbers[name], match[2].replace(str(place), "")[:300]))
    return found


def fault(call: Call, what: str) -> list[str]:
    """strace's options for one fault: an error's name, or a signal's."""
    kind = "signal" if what.startswith("SIG") else "error"
    inject = f"inject={call.name}:{kind}={what}:when={call.number}"
    return ["-e", f"trace={call.name}", "-e", inject, "-o", os.devnull]


def _gates(tell: int, gate: int) -> Callable[..., Any]:
    def around(function: Callable[..., Any], *, enters: bool = False, leaves: bool = False, nth: int = 1) -> Any:
        """A function that lets strace in before its nth call, or out after it (both: `enters` and `leaves`)."""
        count = 0

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth and enters:
                _stop(b"b")
            try:
                return function(*args, **kwargs)
            finally:
                if count == nth and leaves:
                    _stop(b"e")

        return call

    def _stop(word: bytes) -> None:
        os.write(tell, word)
        os.read(gate, 1)

    return around


def _attach(pid: int, options: list[str]) -> subprocess.Popen[bytes]:
    command = ["strace", "-qq", *options, "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0\n" in status.read_text():
        if tracer.poll() is not None:
            raise SystemExit(f"strace could not attach: {tracer.stderr.read().decode() if tracer.stderr else ''}")
        time.sleep(0.001)
    return tracer


def _read(told: int) -> bytes:
    select.select([told], [], [])
    return os.read(told, 1)
