"""Before anything is graded: a program of ours tries to break out of the sandbox, and known programs are judged right.

Takes about 0.3 s. It shows that isolation is in place on this machine today; that it holds against what a hostile
program may try is for `tests/sandbox/test_hostile.py` and, in the end, for the kernel.

>>> with ready("strict") as sandbox:      # doctest: +SKIP
...     ...
"""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone.grading.sandbox import HarnessError, IsolationError
from hone.grading.sandbox.isolation import WAYS_OUT, Isolation, Sandbox, open_sandbox
from hone.grading.sandbox.verdict import Exam, judge, run_own

# Each canary is tried in the sandbox and must fail there; {secret}, {port}, {pid} and {folder} are the host's.
CANARIES = {
    "read a file of yours": "open({secret!r}).read()",
    "list your folder": "os.listdir({folder!r})",
    "read the environment of another process": "open('/proc/1/environ').read()",
    "connect to a port": "socket.create_connection(('127.0.0.1', {port}), 1)",
    "make a socket": "socket.socket(socket.AF_UNIX)",
    "start a process": "os.fork()",
    "make a user namespace": "check(libc.unshare(0x10000000))",
    "mount": "check(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    "trace": "check(libc.ptrace(0, 0, 0, 0))",
    "signal a process of yours": "os.kill({pid}, 0)",
    "write to the root folder": "open('/x', 'w')",
    "write to the standard library": "open(os.__file__, 'a')",
    "fill the memory": "bytearray(1 << 30)",
    "fill the disk": "fill()",
    "raise its limits": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
}
PROGRAM = """
import ctypes, os, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def check(code):
    if code < 0:
        raise OSError(ctypes.get_errno(), "refused")
def fill():
    with open("/tmp/x", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
def escaped(attempt):
    try:
        eval(attempt)
    except (OSError, MemoryError, ValueError):
        return False
    return True
result = [name for name, attempt in CANARIES.items() if escaped(attempt)]
result += ["see its environment"] if os.environ else []
"""
EXAM = Exam(("f",), ("assert f([1, 2]) == {1: 'a', 2: 'b'}",))
KNOWN = {
    "def f(x):\n    return dict(zip(x, 'ab'))": "pass",
    "def f(x):\n    return dict(zip(x, 'ba'))": "wrong",
    "class E:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return E()": "unsupported-type",
}


@contextmanager
def ready(isolation: Isolation = "strict") -> Iterator[Sandbox]:
    """`open_sandbox`, shown to hold: what graders use.

    Raises:
        IsolationError: there is no isolation here, or it does not hold.
    """
    with open_sandbox(isolation) as sandbox:
        try:
            if isolation == "strict":
                _try_to_escape(sandbox)
            for program, expected in KNOWN.items():
                outcome = judge(sandbox, EXAM, [program], 5)
                if outcome.verdict != expected:
                    raise HarnessError(f"a known program got '{outcome.verdict}' ({outcome.detail}), not '{expected}'")
        except HarnessError as error:
            raise IsolationError(f"the sandbox does not work here: {error.what}", fix=WAYS_OUT) from error
        yield sandbox


def _try_to_escape(sandbox: Sandbox) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        secret = Path(folder, "secret")
        secret.write_text("not for the sandbox")
        Path(folder).chmod(0o755)  # so that it is the sandbox that keeps it
        pid = max(os.getpid(), 9)  # the lowest are also the sandbox's own
        facts = {"secret": str(secret), "folder": folder, "port": server.getsockname()[1], "pid": pid}
        attempts = {name: attempt.format(**facts) for name, attempt in CANARIES.items()}
        escaped = run_own(sandbox, f"CANARIES = {attempts!r}\n{PROGRAM}", 5)
    if escaped:
        raise HarnessError(f"a program in the sandbox could {', '.join(map(str, escaped))}")
