"""A process with limits, for what somebody else made: it is asked line by line, and may be ended by the system.

Both sides are here. `Limited` starts the `main` of a module of ours and asks it. In that process, `asked` gives what
it is asked, `limit_time` and `limit_memory` bound what comes next, and `answer` writes back. A limit that is passed
ends the process whatever it is doing, and the side that asked gets its number.

>>> process = Limited("hone.data.template_process", {}, [])           # doctest: +SKIP
>>> process.ask({"messages": []})                                     # doctest: +SKIP
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

from hone.errors import HoneError

MEMORY, TOO_LONG = 3, 4  # what a process ends with, besides a signal
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each more reserves memory
Limit = Literal["memory", "length", "time", "stack"]


class Ended(Exception):
    """The process has ended. limit: which one it passed; None where it broke down. code: its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"ended with {code}")
        limits: dict[int, Limit] = {MEMORY: "memory", TOO_LONG: "length"}
        if sys.platform != "win32":
            limits |= {-signal.SIGPROF: "time", -signal.SIGSEGV: "stack", -signal.SIGABRT: "memory"}
        self.code, self.limit = code, limits.get(code)


class Limited:
    """Started when it is first asked, and again after it has ended. For one thread at a time.

    Args:
        module: whose `main` it runs.
        about: what `asked` gives it first.
        libraries: those that it may import, besides Python's own and `hone`.
    """

    def __init__(self, module: str, about: Mapping[str, Any], libraries: Sequence[ModuleType]) -> None:
        self.module, self.about = module, dict(about)
        places = [*(Path(str(one.__file__)) for one in libraries), Path(__file__).parent]  # each in its package
        self.packages = sorted({str(place.parents[1]) for place in places})
        self._running: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    def ask(self, value: Mapping[str, Any]) -> None:
        """Send something to do."""
        process = self._running or self._start()
        assert process.stdin
        with suppress(BrokenPipeError):  # `line` finds that it has ended
            process.stdin.write(json.dumps(value).encode() + b"\n")
            process.stdin.flush()

    def line(self) -> Any:
        """What `answer` wrote.

        Raises:
            Ended: it has ended instead.
        """
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            raise Ended(self.stop())
        return json.loads(line)

    def read(self, n: int) -> bytes:
        """What `answer` wrote after its line, as `line`."""
        found = self._stdout.read(n)
        if len(found) < n:
            raise Ended(self.stop())
        return found

    def stop(self) -> int:
        """End it, if it has not ended, and the number that it ended with."""
        assert self._running and self._end
        process, self._running = self._running, None
        self._end()
        return process.returncode

    @property
    def _stdout(self) -> BinaryIO:
        assert self._running and self._running.stdout
        return self._running.stdout  # type: ignore[return-value]

    def _start(self) -> "subprocess.Popen[bytes]":
        program = f"import sys; sys.path[:0] = {self.packages!r}; from {self.module} import main; main()"
        self._running = subprocess.Popen(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD},
        )
        self._end = weakref.finalize(self, _end, self._running, os.getpid())
        self.ask(self.about)
        try:
            self.line()  # that it is there
        except Ended as ended:
            what = f"a process of Python does not start (exit code {ended.code})"
            raise HoneError(what, where=sys.executable, fix=f"{sys.executable} -I -c 'import {self.module}'") from None
        return self._running


def _end(process: "subprocess.Popen[bytes]", pid: int) -> None:
    """Wait for a process to end, and force one that is at work; a parent's is left alone."""
    if os.getpid() != pid:
        return
    assert process.stdin and process.stdout
    process.stdout.close()
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(timeout=0.2)  # at the end of what it is given it goes by itself
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# ---- the process itself ----------------------------------------------------------------------------------------------


def asked() -> Iterator[Any]:
    """First `about`, then what is asked, until the other side closes."""
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches a whole group; the other side decides
    for line in sys.stdin.buffer:
        yield json.loads(line)


def answer(value: Any, payload: bytes = b"") -> None:
    """Write a line, and bytes behind it."""
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(json.dumps(value).encode() + b"\n" + payload)
        sys.stdout.buffer.flush()


def limit_time(seconds: float) -> None:
    """End this process after so many seconds of the processor from now, whatever it is doing; 0: never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal is not caught: the system ends the process
    elif seconds:
        faulthandler.dump_traceback_later(10 * seconds, exit=True)  # by the clock: Windows has no other
    else:
        faulthandler.cancel_dump_traceback_later()


def limit_memory(n_bytes: int) -> None:
    """Let this process have so much memory in all, write no file, and leave no image of itself."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
