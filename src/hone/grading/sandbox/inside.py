"""What runs inside a sandbox: the candidate's server, the tests with a stub in its place, or both in one process.

Sent there as compiled code with `wire.py`, so it needs nothing but the interpreter, and is written to start fast:
`posix` for `os`. What comes out of the tests' sandbox goes through a descriptor that the candidate's does not have. The
candidate may do to its own side what it likes: nothing there is believed but plain values.

>>> main({"role": "candidate", "programs": ["def f(x): return x"], "calls": 3, "replies": 4, ...})      # doctest: +SKIP
"""

from __future__ import annotations

import builtins
import posix
import sys

from hone.grading.sandbox.wire import Gone, Malformed, TooLarge, Unsupported, dump, receive, send

TYPE_CHECKING = False  # `import typing` takes as long as the whole interpreter
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DETAIL = 500  # characters of a message for people


# --- the candidate's side -------------------------------------------------------------------------------------------


def restrict(limits: list[tuple[str, int, int]]) -> None:
    """Set resource limits (name, soft, hard) on this process, none above what it was given."""
    import resource

    for name, soft, hard in limits:
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        given = resource.getrlimit(kind)[1]
        if given != resource.RLIM_INFINITY:
            soft, hard = min(soft, given), min(hard, given)
        resource.setrlimit(kind, (soft, hard))


def compiled(programs: list[str]) -> tuple[int, Any]:
    """(number, code) of the first program that compiles; the first one's error if none does."""
    first: Exception | None = None
    for number, source in enumerate(programs):
        try:
            return number, compile(source, "<program>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            first = first or error
    assert first is not None
    raise first


def module_named(name: str) -> dict[str, Any]:
    """The namespace of a new module that `sys.modules` knows, as dataclasses and typing ask for."""
    module = type(sys)(name)
    sys.modules[name] = module
    module.__dict__["__builtins__"] = builtins
    return module.__dict__


def run_program(programs: list[str], chosen: Callable[[int], object]) -> tuple[dict[str, Any], list[Any] | None]:
    """(namespace, None) after the program's top level ran, or (…, ["failed", verdict, detail]).

    Args:
        chosen: told the number of the program before anything of it runs, so that this is believed.
    """
    space = module_named("program")
    try:
        number, code = compiled(programs)
    except MemoryError as error:
        # the parser also calls its own full stack a lack of memory
        return space, ["failed", "syntax" if "stack" in str(error) else "memory", described(error)]
    except Exception as error:
        return space, ["failed", "syntax", described(error)]
    chosen(number)
    try:
        exec(code, space)
    except BaseException as error:
        return space, ["failed", verdict_of(error), described(error)]
    return space, None


def serve(job: dict[str, Any]) -> None:
    """Sandbox of the candidate: run its program, then answer calls until the tests' sandbox closes its end."""
    calls, replies = job["calls"], job["replies"]
    send(replies, ["started"])
    space, failed = run_program(job["programs"], lambda number: send(replies, ["chosen", number]))
    send(replies, failed or ["ready"])
    while failed is None:
        try:
            name, arguments, keywords = receive(calls)
        except Gone:
            break
        send_reply(replies, answer(space, name, arguments, keywords))
    leave()


def answer(space: dict[str, Any], name: str, arguments: list[Any], keywords: dict[str, Any]) -> list[Any]:
    before = dump([arguments, keywords])
    try:
        if name not in space:
            raise NameError(f"name '{name}' is not defined")
        value = space[name](*arguments, **keywords)
    except BaseException as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return ["raised", kinds, message_of(error), verdict_of(error), described(error)]
    try:
        after = [arguments, keywords]
        return ["value", value, after if dump(after) != before else None]
    except Unsupported as error:
        return ["unsupported-type", f"an argument now holds a value of another type: {error}"[:DETAIL]]
    except TooLarge as error:
        return ["output", f"an argument has grown too large: {error}"]


def send_reply(replies: int, reply: list[Any]) -> None:
    try:
        send(replies, reply)
    except Unsupported as error:
        send(replies, ["unsupported-type", f"the answer holds a value of another type: {error}"[:DETAIL]])
    except TooLarge as error:
        send(replies, ["output", f"the answer is too large: {error}"])
    except MemoryError:
        send(replies, ["memory", "no memory left for the answer"])


def verdict_of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    return "exit-early" if isinstance(error, (SystemExit, GeneratorExit)) else "exception"


def message_of(error: BaseException) -> str:
    try:
        return str(error)[:DETAIL]
    except BaseException:
        return ""


def described(error: BaseException) -> str:
    """`KeyError: 'a' (line 3)`, the line being the innermost of the program."""
    line = error.lineno if isinstance(error, SyntaxError) else line_in(error, "<program>")
    text = f"{type(error).__name__}: {message_of(error)}"
    return text[:DETAIL] + (f" (line {line})" if line and "(<program>, line" not in text else "")


def line_in(error: BaseException, file: str) -> int | None:
    """The innermost line of `file` in the traceback of an exception."""
    line, at = None, error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == file:
            line = at.tb_lineno
        at = at.tb_next
    return line


# --- the tests' side ------------------------------------------------------------------------------------------------


class Verdict(BaseException):
    """Ends the tests at once, whatever they catch."""

    def __init__(self, verdict: str, detail: str) -> None:
        self.verdict, self.detail = verdict, detail


class Remote:
    """The candidate as the tests see it: functions that ask the other sandbox."""

    def __init__(self, calls: int, replies: int) -> None:
        self.calls, self.replies, self.n_calls = calls, replies, 0
        self.raised: list[tuple[BaseException, str, str]] = []
        self.ended: Verdict | None = None  # kept, because tests may catch whatever is raised in them

    def end(self, verdict: str, detail: str) -> Verdict:
        self.ended = self.ended or Verdict(verdict, detail)
        return self.ended

    def hear(self) -> list[Any]:
        """The next message, a list that starts with a word."""
        try:
            message = receive(self.replies)
        except Gone:
            raise self.end("gone", "") from None
        except TooLarge as error:
            raise self.end("output", f"the answer is too large: {error}") from None
        except Malformed as error:
            raise self.end("unsupported-type", f"the answer is not in the agreed form: {error}") from None
        if type(message) is not list or not message or type(message[0]) is not str:
            raise self.end("unsupported-type", "the answer is not in the agreed form")
        return message

    def await_ready(self, chosen: Callable[[int], object]) -> None:
        try:
            started = self.hear() == ["started"]
        except Verdict:
            started, self.ended = False, None
        if not started:
            raise self.end("not-started", "the candidate's sandbox did not start")
        message = self.hear()
        if message[0] == "chosen" and len(message) == 2 and type(message[1]) is int:
            chosen(message[1])
            message = self.hear()
        if message[0] == "failed" and len(message) == 3:
            raise self.end(*checked(message[1], message[2]))
        if message != ["ready"]:
            raise self.end("unsupported-type", "the answer is not in the agreed form")

    def function(self, name: str) -> Callable[..., Any]:
        def stub(*arguments: Any, **keywords: Any) -> Any:
            return self.call(name, arguments, keywords)

        stub.__name__ = stub.__qualname__ = name
        return stub

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        self.n_calls += 1
        try:
            send(self.calls, [name, list(arguments), keywords])
        except Unsupported as error:
            raise self.end("unsupported-argument", f"the tests pass a value of another type: {error}") from None
        except TooLarge as error:
            raise self.end("output", f"the tests pass a value too large: {error}") from None
        except BrokenPipeError:
            raise self.end("gone", "") from None
        message = self.hear()
        if message[0] == "value" and len(message) == 3:
            self.copy_back(message[2], arguments, keywords)
            return message[1]
        if message[0] == "raised" and len(message) == 5:
            raise self.exception(*message[1:])
        if len(message) == 2:
            raise self.end(*checked(message[0], message[1]))
        raise self.end("unsupported-type", "the answer is not in the agreed form")

    def copy_back(self, after: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Change the tests' own arguments as the candidate changed its copies."""
        if after is None:
            return
        if type(after) is not list or [type(part) for part in after] != [list, dict] or len(after[0]) != len(arguments):
            raise self.end("unsupported-type", "the answer is not in the agreed form")
        for mine, theirs in zip(arguments, after[0]):
            synchronise(mine, theirs)
        for key in keywords.keys() & after[1].keys():
            synchronise(keywords[key], after[1][key])

    def exception(self, kinds: Any, message: Any, verdict: Any, detail: Any) -> BaseException:
        """The candidate's exception as the nearest built-in one, so that tests may expect it."""
        verdict, detail = checked(verdict, detail)
        error: BaseException = Exception(str(message))
        for kind in kinds if type(kinds) is list else []:
            found = getattr(builtins, kind, None) if type(kind) is str else None
            if isinstance(found, type) and issubclass(found, BaseException):
                try:
                    error = found(message)
                except (
                    TypeError
                ):  # UnicodeDecodeError and its like want more than a message: take what they derive from
                    continue
                break
        self.raised.append((error, verdict, detail))
        return error


def checked(verdict: Any, detail: Any) -> tuple[str, str]:
    """What the candidate's side may say of itself: nothing that counts for it."""
    known = ("syntax", "exception", "memory", "exit-early", "unsupported-type", "output")
    return (verdict if verdict in known else "exception"), (detail[:DETAIL] if type(detail) is str else "")


def synchronise(mine: Any, theirs: Any) -> Any:
    """Make `mine` equal to `theirs`, in place where that can be; the object to keep is returned."""
    kind = type(mine)
    if kind is not type(theirs) or kind not in (list, dict, set, bytearray):
        return theirs
    if kind is list:
        mine[:] = [synchronise(old, new) for old, new in zip(mine, theirs)] + theirs[len(mine) :]
    elif kind is dict:
        merged = {key: synchronise(mine[key], value) if key in mine else value for key, value in theirs.items()}
        mine.clear()
        mine.update(merged)
    elif kind is set:
        mine.clear()
        mine.update(theirs)
    else:
        mine[:] = theirs
    return mine


def test(job: dict[str, Any]) -> None:
    """Sandbox of the tests: wait for the candidate, run the tests against its stub, report."""
    remote = Remote(job["calls"], job["replies"])
    verdict, detail = "pass", ""
    try:
        remote.await_ready(lambda number: report_choice(job["verdict"], job["nonce"], number))
        space = module_named("tests")
        run_tests(job, space, {name: remote.function(name) for name in job["names"]})
    except Verdict as end:
        verdict, detail = end.verdict, end.detail
    except BaseException as error:
        verdict, detail = judge(error, remote.raised, job["tests"])
    if remote.ended:
        verdict, detail = remote.ended.verdict, remote.ended.detail
    report(job, verdict, detail, remote.n_calls)


def single(job: dict[str, Any]) -> None:
    """Program and tests in one process: for tests that need the program's own objects. The program could lie."""
    space, failed = run_program(job["programs"], lambda number: report_choice(job["verdict"], job["nonce"], number))
    verdict, detail = (failed[1], failed[2]) if failed else ("pass", "")
    if not failed:
        try:
            run_tests(job, space, {})
        except Verdict as end:
            verdict, detail = end.verdict, end.detail
        except BaseException as error:
            verdict, detail = judge(error, [], job["tests"])
            missing = type(error) is NameError  # the program lacks what it should define
            if (missing or line_in(error, "<program>")) and verdict not in ("memory", "exit-early"):
                verdict, detail = "exception", described(error)
    report(job, verdict, detail, 0)


def run_tests(job: dict[str, Any], space: dict[str, Any], functions: dict[str, Any]) -> None:
    kept = dict(space)
    try:
        exec(compile(job["setup"], "<setup>", "exec", dont_inherit=True), space)
    except Exception as error:
        raise Verdict("harness-error", f"the set-up of the tests fails: {type(error).__name__}: {error}") from None
    space.update({name: value for name, value in kept.items() if not name.startswith("__")})
    space.update(functions)
    for index, source in enumerate(job["tests"]):
        exec(compile(source, f"<test {index}>", "exec", dont_inherit=True), space)


def judge(error: BaseException, raised: list[tuple[BaseException, str, str]], tests: list[str]) -> tuple[str, str]:
    """What an exception that ended the tests says: of the candidate, or of the tests themselves."""
    for candidates, verdict, detail in raised:
        if candidates is error:
            return verdict, detail
    where = failed_line(error, tests)
    if isinstance(error, AssertionError):
        message = message_of(error)
        return "wrong", (f"{where}: {message}" if message and message not in where else where)[:DETAIL]
    text = f"{type(error).__name__}: {message_of(error)}"
    if isinstance(error, MemoryError):
        return "memory", text
    if isinstance(error, SystemExit):
        return "exit-early", text
    # plain values cannot cause these: the tests name or import what is not there
    if isinstance(error, (SyntaxError, ImportError)) or type(error) is NameError:
        return "harness-error", f"the tests are broken: {text}"
    return "wrong", f"{where}: {text}"[:DETAIL]


def failed_line(error: BaseException, tests: list[str]) -> str:
    for index, source in enumerate(tests):
        line = line_in(error, f"<test {index}>")
        if line:
            return source.split("\n")[line - 1].strip()[: DETAIL // 2]
    return "the tests"


def report_choice(verdict: int, nonce: str, number: int) -> None:
    """Say which program is run; a message of its own, as there may never be a verdict."""
    send(verdict, [nonce, "chosen", number])


def report(job: dict[str, Any], verdict: str, detail: str, n_calls: int) -> None:
    detail = detail.encode("utf-8", "backslashreplace").decode()
    send(job["verdict"], [job["nonce"], verdict, detail[: 2 * DETAIL], n_calls])
    leave()


def leave() -> None:
    """End without the candidate's exit handlers."""
    posix._exit(0)


def main(job: dict[str, Any]) -> None:
    """Start as the host asks; nothing untrusted has run before the limits hold."""
    restrict(job["limits"])
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(null, 0)
    posix.close(null)
    posix.environ.clear()
    if "verdict" in job:
        send(job["verdict"], ["started"])
    {"candidate": serve, "tests": test, "single": single, "script": script}[job["role"]](job)


def script(job: dict[str, Any]) -> None:
    """Run a program of our own and write what it leaves in `result` (the self-test)."""
    space = module_named("program")
    exec(compile(job["source"], "<program>", "exec", dont_inherit=True), space)
    send(job["verdict"], [job["nonce"], "done", space.get("result"), 0])
    leave()
