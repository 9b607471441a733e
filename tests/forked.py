"""`hone` as a process without its imports: a fork of one that has them (multiprocessing's fork server).

Signals, terminals, pipes and exit codes are those of any process, and torch is imported once for all of them. That
`python -m hone` starts is tested by test_newcomers.py, test_cli.py and test_search.py.
"""

import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

IMPORTED = ["hone.cli", "hone.training.train", "hone.inference.talk", "hone.serve.run"]
NOTHING = Path(os.devnull)


def hone_process(
    words: Sequence[str], *, stdin: Path = NOTHING, stdout: Path = NOTHING, stderr: Path = NOTHING, terminal: str = ""
) -> Any:
    """A process that runs `hone` with these words: `pid`, `exitcode`, `join(seconds)`, `kill()`.

    Args:
        stdin, stdout, stderr: files. terminal: the name of one, in the place of all three.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    files = (terminal,) if terminal else (str(stdin), str(stdout), str(stderr))
    process = context.Process(target=_run, args=(["hone", *words], str(Path.cwd()), dict(os.environ), files))
    process.start()
    return process


def _run(words: list[str], folder: str, environ: dict[str, str], files: tuple[str, ...]) -> None:
    os.setsid()  # the first terminal that is opened is then its own
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, mode in enumerate((os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND)):
        one = os.open(files[0], os.O_RDWR) if len(files) == 1 else os.open(files[number], mode)
        os.dup2(one, number)
        os.close(one)
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 to the end of the process, as those of Python
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False, encoding="utf-8") for n in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    sys.argv = words
    from hone.cli import main

    main()
