"""What hone says while it works, where nobody has set up logging: of a training plain lines, and a bar with an ETA.

The lines go to stderr, in a notebook to its cell. The bar is there in a notebook and on a terminal; a file or a pipe
gets the lines alone. Whoever gives the logger "hone" or the root logger a handler gets what that handler writes, and
nothing else. `logging.getLogger("hone").addHandler(logging.NullHandler())` is quiet.

Commands that train nothing show on a terminal what they are doing, on one line that goes away (`stages_shown`).

>>> with shown():                                                  # doctest: +SKIP
...     logging.getLogger("hone").info("saved the model")
saved the model
"""

import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hone.errors import said

log = logging.getLogger("hone")
CLEAR = "\r\x1b[K"  # back to the beginning of a terminal's line, and empty it
T = TypeVar("T")
STAGE = {"is_stage": True}  # `extra` of what `stage` says
COUNTED_EVERY_S = 0.2
STEP = {"is_step": True}  # `extra` of the lines that say what a bar says: loss, speed and ETA of a step


class Lines(logging.Handler):
    """Writes what is logged as plain lines; while there is a bar, above it."""

    bar: Any = None

    def format(self, record: logging.LogRecord) -> str:
        return said(super().format(record))

    def emit(self, record: logging.LogRecord) -> None:
        if self.bar is None:
            print(self.format(record), file=stream(), flush=True)
        elif not getattr(record, "is_step", False):
            self.bar.write(self.format(record), file=stream())

    def begin(self, total: int, done: int) -> None:
        """Show a bar, where it can be seen."""
        if not (in_notebook() or stream().isatty()):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets tqdm draws the bar as text, and says so
            from tqdm.auto import tqdm
        self.bar = tqdm(total=total, initial=done, unit="step", file=stream(), dynamic_ncols=True)

    def end(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextmanager
def shown() -> Iterator[None]:
    """Show what is logged inside, unless a handler would show it anyway; afterwards logging is as it was."""
    level, lines = log.level, None if log.hasHandlers() else Lines()
    if lines is not None:
        log.addHandler(lines)
    if level == logging.NOTSET:
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        if lines is not None:
            lines.end()
            log.removeHandler(lines)


# ---- what is being done, on a line that goes away ------------------------------------------------------------------


class Stages(logging.Handler):
    """Shows what is being done on the last line of a terminal; warnings stay above it."""

    def format(self, record: logging.LogRecord) -> str:
        return said(super().format(record))

    def emit(self, record: logging.LogRecord) -> None:
        is_stage = getattr(record, "is_stage", False)
        if not is_stage and record.levelno < logging.WARNING:
            return
        text = self.format(record)
        if is_stage:
            text = text[: shutil.get_terminal_size().columns - 1]
        print(f"{CLEAR}{text}", end="" if is_stage else "\n", file=stream(), flush=True)


def stage(what: str) -> None:
    """Say what is being done now, to whoever is inside `stages_shown`."""
    log.debug("%s …", what, extra=STAGE)


def counted(items: Iterable[T], what: str) -> Iterator[T]:
    """The items; where it is shown, how many there were so far."""
    if not log.isEnabledFor(logging.DEBUG):
        yield from items
        return
    said = 0.0
    for n, item in enumerate(items, 1):
        if time.monotonic() - said > COUNTED_EVERY_S:
            stage(f"{what}: {n:,}")
            said = time.monotonic()
        yield item


@contextmanager
def stages_shown() -> Iterator[None]:
    """Inside, what `stage` says is shown on a terminal; into a file or a pipe nothing of it goes."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or log.handlers:
        yield
        return
    level, stages = log.level, Stages()
    log.addHandler(stages)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(stages)
        print(CLEAR, end="", file=sys.stderr, flush=True)


def lines_shown() -> Lines | None:
    """The handler of `shown`, if we are inside it and it has one."""
    return next((handler for handler in log.handlers if isinstance(handler, Lines)), None)


def in_notebook() -> bool:
    """Whether this code runs in a cell: IPython with a kernel, as in Jupyter, VS Code or Colab."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None


def stream() -> Any:
    """Where lines go; asked for each time, because a notebook and a test exchange it."""
    return sys.stdout if in_notebook() else sys.stderr
