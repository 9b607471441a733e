"""One program against one task's tests, in two sandboxes that share nothing but plain values, or in one.

The candidate's sandbox answers calls; that of the tests has stubs in place of its functions and reports to us, through
a pipe the candidate never has, with a number drawn for this run. In one sandbox (`together`) nothing keeps the program
from reporting for itself: it is for tests that need the program's own objects, and its outcomes say so.

>>> judge(sandbox, exam, ["def f(x):\\n    return x"], seconds=3)      # doctest: +SKIP
Outcome(verdict='pass', detail='', trust='two-sandboxes', seconds=0.03)
"""

import hmac
import os
import secrets
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from hone.grading.sandbox import HarnessError
from hone.grading.sandbox.isolation import Sandbox
from hone.grading.sandbox.process import OUTPUT_BYTES, Running, Watched, limits, returncode, started, watch
from hone.grading.sandbox.wire import Malformed, load

Trust = Literal["two-sandboxes", "same-process"]
VERDICTS = ("pass", "wrong", "exception", "syntax", "timeout", "memory", "output", "exit-early", "unsupported-type")
GRACE_S = 0.2


@dataclass(frozen=True)
class Exam:
    """A task's tests: code that runs before them, the functions they call, and themselves, run one after another."""

    names: tuple[str, ...]
    tests: tuple[str, ...]
    setup: str = ""


@dataclass(frozen=True)
class Outcome:
    """One of VERDICTS, with a line for people: untrusted text, to be escaped where it is printed.

    chosen: which of the programs was run; the first if none compiles.
    """

    verdict: str
    detail: str
    trust: Trust
    seconds: float
    chosen: int = 0


class ForeignArgument(Exception):
    """The tests pass objects that do not travel between sandboxes."""


def judge(sandbox: Sandbox, exam: Exam, programs: Sequence[str], seconds: float) -> Outcome:
    """Run the first of `programs` that compiles against the tests, in two sandboxes.

    Args:
        seconds: of computing; three times that and two more on the clock.

    Raises:
        ForeignArgument: the tests call with something else than plain values.
        HarnessError: a sandbox did not start, or the tests are broken.
    """
    with ExitStack() as stack:
        calls, replies, verdict = (stack.enter_context(pipe()) for _ in range(3))
        job: dict[str, Any] = {"role": "candidate", "limits": limits(sandbox, seconds), "programs": list(programs)}
        job |= {"calls": calls.reader, "replies": replies.writer}
        candidate = stack.enter_context(started(sandbox, job, [calls.reader, replies.writer]))
        calls.close_reader()
        replies.close_writer()
        job = {"role": "tests", "limits": limits(sandbox, seconds), "nonce": secrets.token_hex(16)}
        job |= {"names": list(exam.names), "tests": list(exam.tests), "setup": exam.setup}
        job |= {"calls": calls.writer, "replies": replies.reader, "verdict": verdict.writer}
        tests = stack.enter_context(started(sandbox, job, [calls.writer, replies.reader, verdict.writer]))
        calls.close_writer()
        replies.close_reader()
        verdict.close_writer()
        seen = watch([candidate, tests], verdict.reader, wall(seconds))
        early = _early(seen, seconds)
        found, detail = early or _of_pair(_said(seen, job["nonce"], tests), candidate, tests, seen, seconds)
        returncode(candidate, GRACE_S)  # it ends by itself when the tests' sandbox does
    return Outcome(found, detail, "two-sandboxes", seen.seconds, _chosen(seen, job["nonce"], len(programs)))


def together(sandbox: Sandbox, exam: Exam, programs: Sequence[str], seconds: float) -> Outcome:
    """Run program and tests in one process: `judge`'s arguments and errors."""
    with ExitStack() as stack:
        verdict = stack.enter_context(pipe())
        job: dict[str, Any] = {
            "role": "single",
            "limits": limits(sandbox, seconds),
            "programs": list(programs),
            "verdict": verdict.writer,
        }
        job |= {"nonce": secrets.token_hex(16), "tests": list(exam.tests), "setup": exam.setup}
        program = stack.enter_context(started(sandbox, job, [verdict.writer]))
        verdict.close_writer()
        seen = watch([program], verdict.reader, wall(seconds))
        early = _early(seen, seconds)
        said = None if early else _said(seen, job["nonce"], program)
        found, detail = early or (_known(said[0], said[1]) if said else _of_ended(program, seen, seconds))
    return Outcome(found, detail, "same-process", seen.seconds, _chosen(seen, job["nonce"], len(programs)))


def run_own(sandbox: Sandbox, source: str, seconds: float) -> Any:
    """What a trusted program of ours leaves in its variable `result`, run in a sandbox (plain values only).

    Raises:
        HarnessError: it did not get that far.
    """
    with ExitStack() as stack:
        verdict = stack.enter_context(pipe())
        job: dict[str, Any] = {
            "role": "script",
            "limits": limits(sandbox, seconds),
            "source": source,
            "verdict": verdict.writer,
        }
        job["nonce"] = secrets.token_hex(16)
        program = stack.enter_context(started(sandbox, job, [verdict.writer]))
        verdict.close_writer()
        seen = watch([program], verdict.reader, wall(seconds))
        said = _said(seen, job["nonce"], program)
        if said is None:
            code = returncode(program)
            raise HarnessError(f"a program ended without an answer (code {code}): {_text(program)}")
    return said[1]


def wall(seconds: float) -> float:
    """Seconds on the clock for a program that may compute for `seconds`: it may have to wait for a processor."""
    return 3 * seconds + 2


# --- what was seen, as a verdict ------------------------------------------------------------------------------------


def _early(seen: Watched, seconds: float) -> tuple[str, str] | None:
    if seen.ended == "timeout":
        return "timeout", f"no end after {wall(seconds):g} s"
    return ("output", f"more than {OUTPUT_BYTES} bytes printed") if seen.ended == "output" else None


def _of_pair(
    said: list[Any] | None, candidate: Running, tests: Running, seen: Watched, seconds: float
) -> tuple[str, str]:
    if said is None:
        code = returncode(tests)
        if _out_of_time(code, seen, seconds):
            return "timeout", f"the tests computed for more than {seconds:g} s"
        raise HarnessError(f"the tests' sandbox ended without a verdict (code {code}): {_text(tests)}")
    verdict, detail, n_calls = said
    if verdict == "gone":
        return _of_ended(candidate, seen, seconds)
    if verdict == "not-started":
        raise HarnessError(f"the candidate's sandbox did not start (code {returncode(candidate)}): {_text(candidate)}")
    if verdict == "unsupported-argument":
        raise ForeignArgument(detail)
    if verdict == "pass" and not n_calls:
        raise HarnessError("the tests pass without a call to the function they are about")
    return _known(verdict, detail)


def _known(verdict: str, detail: str) -> tuple[str, str]:
    if verdict == "harness-error":
        raise HarnessError(detail)
    if verdict not in VERDICTS:
        raise HarnessError(f"a verdict that is none: {verdict!r}")
    return verdict, detail


def _of_ended(program: Running, seen: Watched, seconds: float) -> tuple[str, str]:
    """The verdict on a program that ended before it was asked to."""
    code = returncode(program)
    if _out_of_time(code, seen, seconds):
        return "timeout", f"computed for more than {seconds:g} s"
    if code is None:
        return "exit-early", "it has closed its connection"
    if _text(program).endswith("MemoryError"):
        return "memory", "no memory left"
    if code < 0:
        return "exit-early", f"ended by {signal_name(-code)}"
    return "exit-early", f"ended with exit code {code}"


def _out_of_time(code: int | None, seen: Watched, seconds: float) -> bool:
    """Was it the limit of computing time? It sends SIGXCPU, a second later SIGKILL."""
    return code == -signal.SIGXCPU or (code == -signal.SIGKILL and seen.seconds >= seconds)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _said(seen: Watched, nonce: str, program: Running) -> list[Any] | None:
    """[verdict, detail, calls] of the message that carries our number; None if there is none.

    Raises:
        HarnessError: the program's sandbox did not even start.
    """
    found = _messages(seen)
    if not found and seen.ended == "closed":
        raise HarnessError(f"a sandbox did not start (code {returncode(program)}): {_text(program)}")
    return next((message[1:] for message in found if _ours(message, nonce) and len(message) == 4), None)


def _chosen(seen: Watched, nonce: str, n_programs: int) -> int:
    """Which program was run, as far as that was said."""
    for message in _messages(seen):
        if _ours(message, nonce) and len(message) == 3 and message[2] in range(n_programs):
            return int(message[2])
    return 0


def _messages(seen: Watched) -> list[Any]:
    found, at = [], 0
    with suppress(ValueError, Malformed):
        while at < len(seen.message):
            size = int(seen.message[at : at + 8], 16)
            found.append(load(seen.message[at + 8 : at + 8 + size].decode("ascii")))
            at += 8 + size
    return found


def _ours(message: Any, nonce: str) -> bool:
    return type(message) is list and len(message) > 1 and hmac.compare_digest(str(message[0]), nonce)


def _text(program: Running) -> str:
    return program.printed.decode(errors="replace").strip()[-500:]


# --- pipes ----------------------------------------------------------------------------------------------------------


@dataclass
class Pipe:
    """Two descriptors; -1 once closed."""

    reader: int
    writer: int

    def close_reader(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1


@contextmanager
def pipe() -> Iterator[Pipe]:
    """A pipe that is closed at the end, if not before."""
    ends = Pipe(*os.pipe())
    try:
        yield ends
    finally:
        ends.close_reader()
        ends.close_writer()
