"""The one exception for mistakes a user can repair, and the one for a run that a signal ended.

Anything a person can cause (a wrong key, a broken row, a full disk) is raised as `HoneError` and printed by the
command line as one message without a traceback, exit code 1. Everything else is our own bug and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager

MEMORY_SIGNS = (
    *("out of memory", "not enough memory: you tried to allocate"),
    *("can't allocate memory", "cannot allocate memory"),
)


class HoneError(ValueError):
    """A mistake the user can repair: what is wrong, where, what was expected, and what to do.

    >>> print(HoneError("unknown key 'lerning_rate'", where="cfg.yaml:7", fix="did you mean 'learning_rate'?"))
    cfg.yaml:7: unknown key 'lerning_rate'
      did you mean 'learning_rate'?
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        message = f"{where}: {what}" if where else what
        super().__init__(f"{message}\n  {fix}" if fix else message)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback: the message, as the command line does."""
        return [f"HoneError: {self}"]


class Interrupted(Exception):
    """A signal ended the run; a checkpoint was written if training had begun. The command line's exit code is 130."""

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self}"]


@contextmanager
def placed(where: str | None) -> Iterator[None]:
    """Give a mistake that does not know its place the line of the key it is about.

    >>> with placed("cfg.yaml:3"):
    ...     raise HoneError("too many layers")
    Traceback (most recent call last):
    hone.errors.HoneError: cfg.yaml:3: too many layers
    """
    try:
        yield
    except HoneError as error:
        if error.where is not None or where is None:
            raise
        raise HoneError(error.what, where=where, fix=error.fix) from error


def first_line(message: BaseException | str) -> str:
    """The first line of a library's message that says something: the rest is usually advice for its own callers."""
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    nothing = type(message).__name__ if isinstance(message, BaseException) else ""
    return lines[0] if lines else nothing


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch, on a CPU, CUDA or MPS, ran out of memory; by name, so that torch is not imported."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(s in said for s in MEMORY_SIGNS)
    )
