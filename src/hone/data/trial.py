"""A few lines of ours in a process with limits, to try there what somebody else made before it is used here.

>>> tried("sys.exit(3 if asked['n'] > 1 else 0)", {"n": 2}, [], cpu_seconds=2, memory_bytes=400 << 20)
(3, '')
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

WALL_SECONDS = 60  # of a machine that is busy, or has no limit on a process's time
MEMORY, TOO_LONG, TOO_SLOW, STACK, PANIC, UNREADABLE = 3, 4, 5, 6, 7, 8  # what a trial ends with, besides 0
PRELUDE = """
import json, sys
asked = json.load(sys.stdin)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({cpu_seconds}, {cpu_seconds}))
    resource.setrlimit(resource.RLIMIT_AS, ({memory_bytes}, {memory_bytes}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
sys.path.extend(asked["packages"])
"""


def tried(
    program: str, asked: Mapping[str, object], modules: Sequence[ModuleType], *, cpu_seconds: int, memory_bytes: int
) -> tuple[int, str]:
    """What the program ends with (0 where all is well, TOO_SLOW, or what it says itself), and what it prints.

    Args:
        program: sees `asked`, and may import the modules.
    """
    packages = sorted({str(Path(str(module.__file__)).parents[1]) for module in modules})
    prelude = PRELUDE.format(cpu_seconds=cpu_seconds, memory_bytes=memory_bytes)
    command, given = [sys.executable, "-I", "-S", "-c", prelude + program], {**asked, "packages": packages}
    try:
        ended = subprocess.run(
            command, input=json.dumps(given).encode(), capture_output=True, timeout=WALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return TOO_SLOW, ""
    signals = {-signal.SIGSEGV: STACK, -signal.SIGABRT: MEMORY}  # Rust aborts where it gets no memory
    code = signals.get(ended.returncode, ended.returncode)
    if code == 1:  # the program itself cannot run here; what is wrong shows when the thing is used
        return 0, ""
    if code not in (0, MEMORY, TOO_LONG, STACK, PANIC, UNREADABLE):  # a signal: of the time that is allowed
        code = TOO_SLOW
    return code, ended.stdout.decode("utf-8", errors="replace").strip()
