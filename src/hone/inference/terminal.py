"""Lines from a person or a pipe, and pieces of text to a screen or a file.

>>> read, write, watched = line_reader(), piece_writer(printable), at_terminal()       # doctest: +SKIP
"""

import sys
from collections.abc import Callable
from contextlib import suppress

from hone.errors import HoneError


def at_terminal() -> bool:
    """Does a person type here and see what is written?"""
    return sys.stdin.isatty() and sys.stdout.isatty()


def line_reader(mark: str = "> ") -> Callable[[], str | None]:
    """A function that gives the next line, None at the end; `mark` invites a person, and nobody else.

    It raises HoneError for a line that is not UTF-8; the next call gives the line after it.
    """
    if not sys.stdin.isatty():
        return _piped_line
    with suppress(ImportError):  # not on every platform; with it, lines can be edited and called back
        import readline  # noqa: F401
    shown = mark if sys.stdout.isatty() else ""

    def typed() -> str | None:
        try:
            line = input(shown)
            line.encode("utf-8")  # where the locale is not UTF-8, bytes come as halves of characters
        except EOFError:
            return None
        except UnicodeError:
            raise _not_utf8() from None
        return line

    return typed


def _piped_line() -> str | None:
    raw = sys.stdin.buffer.readline()
    if not raw:
        return None
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _not_utf8() -> HoneError:
    return HoneError("this line is not UTF-8 text", where="stdin", fix="convert it, e.g. with iconv")


def piece_writer(clean: Callable[[str], str]) -> Callable[[str], None]:
    """A function that writes text at once, as it is; on a terminal made harmless by `clean`."""
    on_screen = sys.stdout.isatty()

    def write(text: str) -> None:
        sys.stdout.write(clean(text) if on_screen else text)
        sys.stdout.flush()

    return write
