"""Starting programs in sandboxes, watching what they say and how long they take, and ending them without a trace.

Plain Popen only: with a function to call before exec, or another user to become, Python would copy this process's page
tables, which takes longer than everything else when a model is loaded. What a program needs comes on stdin, in memory.

>>> with started(sandbox, job, limits) as process:      # doctest: +SKIP
...     said = watch([process], verdict_fd, seconds=5)
"""

import marshal
import math
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

from hone.grading.sandbox.isolation import ENVIRONMENT, Sandbox

# Reads stdin, and makes modules of the pairs (name, code) in it.
BOOT = """
import marshal, posix, sys
data = b""
while len(data) < posix.fstat(0).st_size:
    data += posix.read(0, 1 << 24)
modules, job = marshal.loads(data)
for name, code in modules:
    sys.modules[name] = module = type(sys)(name)
    exec(code, module.__dict__)
module.main(job)
"""
MEMORY_BYTES = 512 << 20
FILE_BYTES = 1 << 20
OUTPUT_BYTES = 1 << 20  # of stdout and stderr together
KEPT_BYTES = 4000  # of them, for messages
PATIENCE_S = 5.0  # for a process that was killed to be gone


@dataclass
class Running:
    """A started sandbox and the beginning of what it printed."""

    process: "subprocess.Popen[bytes]"
    sandboxed: bool
    printed: bytes = b""
    n_printed: int = 0


@dataclass
class Watched:
    """What was seen until the verdict's pipe closed, the time was up, or a program printed too much."""

    message: bytes = b""
    ended: str = "closed"  # closed | timeout | output
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)


@lru_cache(maxsize=1)
def inside_code() -> list[tuple[str, CodeType]]:
    """(name, code) of the modules that run in a sandbox, which has the same interpreter; the last one has `main`."""
    found = []
    for name in ("wire", "inside"):
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        code = compile(source, f"<{name}>", "exec", dont_inherit=True, optimize=2)
        found.append((f"{__package__}.{name}", code))
    return found


def limits(sandbox: Sandbox, seconds: float) -> list[tuple[str, int, int]]:
    """(name, soft, hard) of the resource limits of a program that may compute for `seconds`."""
    cpu = max(1, math.ceil(seconds))  # at the hard limit comes SIGKILL; a first process would ignore SIGXCPU
    found = [("RLIMIT_CPU", cpu, cpu), ("RLIMIT_AS", MEMORY_BYTES, MEMORY_BYTES)]
    found += [("RLIMIT_FSIZE", FILE_BYTES, FILE_BYTES), ("RLIMIT_NOFILE", 32, 32)]
    found.append(("RLIMIT_CORE", 1, 1))  # of 0 the kernel still hands the dump to a crash handler, of 1 never (core(5))
    if sandbox.isolation == "strict":  # outside a sandbox it would count all of the user's processes
        found.append(("RLIMIT_NPROC", 16, 16))
    zero = ("RLIMIT_MSGQUEUE", "RLIMIT_MEMLOCK", "RLIMIT_NICE", "RLIMIT_RTPRIO")
    return found + [(name, 0, 0) for name in zero]


@contextmanager
def started(sandbox: Sandbox, job: dict[str, Any], inherit: Sequence[int] = ()) -> Iterator[Running]:
    """Run `inside.py` with this job; whatever is left of it at the end is killed.

    Args:
        job: plain values; the file descriptors in it are numbers of `inherit`.
        inherit: descriptors that the program gets apart from stdin, stdout and stderr, and no others.
    """
    with ExitStack() as files:
        work = files.enter_context(in_memory(marshal.dumps((inside_code(), job))))
        words, keep = [*sandbox.wrapper], [*inherit]
        if sandbox.filter is not None:
            keep.append(files.enter_context(in_memory(sandbox.filter)))
            words += ["--seccomp", str(keep[-1]), "--"]
        process = subprocess.Popen(
            [*words, *sandbox.python, "-c", BOOT],
            stdin=work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            pass_fds=keep,
            start_new_session=True,
            bufsize=0,
        )
    running = Running(process, sandbox.isolation == "strict")
    try:
        yield running
    finally:
        stop(running)


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """A descriptor of a nameless file with this content, at its start."""
    fd = os.memfd_create("hone") if hasattr(os, "memfd_create") else _nameless()
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _nameless() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def watch(programs: Sequence[Running], message_fd: int, seconds: float) -> Watched:
    """Collect what is written to `message_fd` until it is closed; see `Watched.ended` for the other ends."""
    seen = Watched()
    with selectors.DefaultSelector() as waiting:
        waiting.register(message_fd, selectors.EVENT_READ)
        for program in programs:
            assert program.process.stdout is not None
            waiting.register(program.process.stdout.fileno(), selectors.EVENT_READ, program)
        while seen.ended == "closed":
            left = seen.began + seconds - time.monotonic()
            if left <= 0:
                seen.ended = "timeout"
            elif not all(_take(key, waiting, seen) for key, _ in waiting.select(left)):
                break
    seen.seconds = time.monotonic() - seen.began
    return seen


def _take(key: selectors.SelectorKey, waiting: selectors.BaseSelector, seen: Watched) -> bool:
    """Read what is there; False when the message is complete."""
    piece = os.read(key.fd, 1 << 16)
    program = key.data
    if program is None:
        seen.message += piece
        if len(seen.message) > OUTPUT_BYTES:
            seen.ended = "output"
        return bool(piece)
    if not piece:
        waiting.unregister(key.fileobj)
    program.printed = (program.printed + piece)[:KEPT_BYTES]
    program.n_printed += len(piece)
    if program.n_printed > OUTPUT_BYTES:
        seen.ended = "output"
    return True


def returncode(program: Running, patience: float = PATIENCE_S) -> int | None:
    """The exit code of a program about to end by itself: minus the signal that ended it, None if it stays.

    Its output is at an end when it has ended, and that can be waited for without asking again and again.
    """
    process = program.process
    assert process.stdout is not None
    until = time.monotonic() + patience
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout.fileno(), selectors.EVENT_READ)
        while process.poll() is None:
            left = until - time.monotonic()
            if left <= 0:
                return None
            if waiting.select(left) and not _keep(program):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(left, 0.01))
                break
        for _ in range(16):  # what it said last, which may be the reason why it ended
            if not waiting.select(0) or not _keep(program):
                break
    code = process.returncode
    if code is None:
        return None
    return 128 - code if program.sandboxed and 128 < code < 193 else code  # bubblewrap says 128 + the signal


def _keep(program: Running) -> bool:
    """Read what was printed; False at the end of it."""
    assert program.process.stdout is not None
    piece = os.read(program.process.stdout.fileno(), 1 << 16)
    program.printed = (program.printed + piece)[:KEPT_BYTES]
    return bool(piece)


def stop(program: Running) -> None:
    """End a program and all it has started, and wait until nothing of it is left."""
    process = program.process
    if process.poll() is None:
        if not (program.sandboxed and _end_sandbox(process.pid)):
            _end_group(process.pid)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            _end_group(process.pid)
            process.wait()
    elif not program.sandboxed:
        _end_group(process.pid)
    if process.stdout is not None:
        process.stdout.close()


def _end_sandbox(bubblewrap: int) -> bool:
    """Kill the first process of the sandbox; bubblewrap then reaps it and ends. False if there is none yet.

    Were bubblewrap killed, its child would be left to the machine's first process, which in a container may not reap.
    """
    children = Path(f"/proc/{bubblewrap}/task/{bubblewrap}/children")
    try:
        child = int(children.read_text().split()[0])
        handle = os.pidfd_open(child)
    except (OSError, ValueError, IndexError, AttributeError):
        return False
    try:
        if str(child) not in children.read_text().split():  # gone, and its number may be another's
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _end_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
