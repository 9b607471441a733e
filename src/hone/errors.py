"""The one exception for mistakes a user can repair, and the one for a run that a signal ended.

Anything a person can cause (a wrong key, a broken row, a full disk) is raised as `HoneError` and printed by the
command line as one message without a traceback, exit code 1. Everything else is our own bug and keeps its traceback.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

MEMORY_SIGNS = (
    *("out of memory", "not enough memory: you tried to allocate"),
    *("can't allocate memory", "cannot allocate memory"),
)

# Controls, direction marks, surrogates, unassigned, odd line ends.
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

# What is secret by its form: a password in an address, https://me:PASSWORD@host or https://TOKEN@host (one slash, where
# it was taken for a path), and the tokens of services that begin in a way of their own.
_TOKENS = (
    *(r"hf_[A-Za-z0-9]{20,}", r"sk-[A-Za-z0-9_-]{20,}", r"gh[pousr]_[A-Za-z0-9]{30,}", r"github_pat_[A-Za-z0-9_]{22,}"),
    *(
        r"glpat-[A-Za-z0-9_-]{20,}",
        r"(?:AKIA|ASIA)[A-Z0-9]{16}",
        r"AIza[A-Za-z0-9_-]{35}",
        r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    ),
    *(
        r"npm_[A-Za-z0-9]{36}",
        r"pypi-[A-Za-z0-9_-]{40,}",
        r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    ),
)
SECRET = re.compile(
    r"(?:(?<=://)|(?<=:/)(?!/))(?:[^\s/@:]*:[^\s/@]+|[^\s/@:]{20,})(?=@)"
    rf"|\b(?:{'|'.join(_TOKENS)})\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# Variables of the environment whose value is one, whatever its form (AWS_SECRET_ACCESS_KEY, WANDB_API_KEY …).
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
SECRET_LENGTH = 12  # shorter values are words


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
        return [f"HoneError: {said(str(self))}"]


class Interrupted(Exception):
    """A signal ended the run; a checkpoint was written if training had begun. The command line's exit code is 130."""

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {said(str(self))}"]


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


def said(text: str) -> str:
    """A message as it is shown or logged: no secret in it, and nothing that drives the terminal.

    >>> said("no such folder: https://me:pass@host/model")
    'no such folder: https://***@host/model'
    """
    text = SECRET.sub("***", text)
    for value in _of_the_environment(text):
        text = text.replace(value, "***")
    return printable(text)


def secret_at(text: str) -> int | None:
    """Where the first password or token begins in a text, if there is one."""
    if found := SECRET.search(text):
        return found.start()
    return next((text.index(value) for value in _of_the_environment(text)), None)


def _of_the_environment(text: str) -> list[str]:
    """The secrets of the environment that stand in a text."""
    long = [(name, value) for name, value in os.environ.items() if len(value) >= SECRET_LENGTH and value in text]
    return [value for name, value in long if SECRET_NAME.search(name)]


def printable(text: str) -> str:
    """Characters that print as nothing, turn the text around or drive a terminal, spelled out; new lines, tabs stay.

    >>> printable("a\\x1b[2J\\u202eb\\x00")
    'a\\\\x1b[2J\\\\u202eb\\\\x00'
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in UNSEEN else _spelled(c) for c in text)


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
