"""Lines from a person or a pipe, and answers to a screen or a file.

At a terminal a message may have many lines: pasted, or between two lines of three quotes. Code in an answer gets its
colours there, line by line; two answers may stand side by side. A pipe gets and gives bare text, one message a line.

>>> read, write, watched = line_reader(), piece_writer(), at_terminal()       # doctest: +SKIP
"""

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from rich.cells import cell_len

from hone.errors import HoneError, printable
from hone.inference.chat import Pen, Write

QUOTES = '"""'
BETWEEN = " | "  # of two answers side by side


def at_terminal() -> bool:
    """Does a person type here and see what is written?"""
    return sys.stdin.isatty() and sys.stdout.isatty()


# ---- reading ---------------------------------------------------------------------------------------------------------


def line_reader(mark: str = "> ", more: str = ". ") -> Callable[[], str | None]:
    """A function that gives the next message, None at the end; `mark` and `more` invite a person, and nobody else.

    It raises HoneError for a line that is not UTF-8; the next call gives the line after it.
    """
    if not sys.stdin.isatty():
        return _piped_line
    with suppress(ImportError):  # not on every platform; with it, lines can be edited and called back
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")  # what is pasted comes as one line, breaks included

    def typed() -> str | None:
        line = _typed_line(mark)
        if line is None or line.strip() != QUOTES:
            return line
        lines = []
        while (line := _typed_line(more)) is not None and line.strip() != QUOTES:
            lines.append(line)
        return "\n".join(lines)

    return typed


def _typed_line(mark: str) -> str | None:
    try:
        line = input(mark if sys.stdout.isatty() else "")
        line.encode("utf-8")  # where the locale is not UTF-8, bytes come as halves of characters
    except EOFError:
        return None
    except UnicodeError:
        raise _not_utf8() from None
    return line.rstrip("\n")


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


# ---- writing ---------------------------------------------------------------------------------------------------------


def piece_writer() -> Write:
    """A function that writes text at once; on a terminal, what could drive it is spelled out, else as it is."""
    clean = printable if sys.stdout.isatty() else str

    def write(text: str) -> None:
        _out(clean(text))

    return write


def _out(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def answer_pen() -> Pen:
    """A pen for one answer: with colours in its code if they are wanted, and a line break at its end."""
    if wants_colours():
        code = CodeColours(_out)
        return Pen(code.write, code.end)
    write = piece_writer()
    return Pen(write, lambda: write("\n"))


def wants_colours() -> bool:
    """Is there a terminal that shows them, and has nobody said no? https://no-color.org"""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


class CodeColours:
    """Passes an answer on as it comes; within fences (CommonMark's), each line when it is whole, in colours."""

    def __init__(self, out: Write) -> None:
        self._out = out
        self._line = ""  # that has begun; within a fence it is not written yet
        self._fence, self._language, self._code = "", "", ""  # of the block we are in

    def write(self, text: str) -> None:
        for piece in re.findall(r"[^\n]*\n|[^\n]+", printable(text)):
            self._line += piece
            if not self._fence:
                self._out(piece)
            if piece.endswith("\n"):
                self._end_line()

    def end(self) -> None:
        """Write what is held, and a line break."""
        if self._fence:
            self._end_line()
        self._out("\n")

    def _end_line(self) -> None:
        line, self._line = self._line, ""
        fence = re.match(r" {0,3}(`{3,}|~{3,}) *([\w+#.-]*)", line)
        if not self._fence:
            self._fence, self._language = (fence[1], fence[2]) if fence else ("", "")
        elif fence and fence[1].startswith(self._fence) and line.strip() == fence[1]:
            self._fence, self._code = "", ""
            self._out(line)
        else:
            self._out(_coloured(self._code, line, self._language))
            self._code += line


def _coloured(before: str, line: str, language: str) -> str:
    """A line of code in the colours that it has below the lines before it; as it is where the language is unknown."""
    from rich.console import Console
    from rich.syntax import Syntax

    syntax = Syntax("", language or "text", theme="ansi_dark")
    if syntax.lexer is None or not line.strip():
        return line
    shown = syntax.highlight(before + line).split("\n", allow_blank=True)[before.count("\n")]
    text = io.StringIO()
    Console(file=text, force_terminal=True, color_system="standard", no_color=False).print(
        shown, soft_wrap=True, end=""
    )
    return text.getvalue() + line[len(line.rstrip("\n")) :]


# ---- side by side ----------------------------------------------------------------------------------------------------


def side_by_side(width: int, headings: Sequence[str]) -> list[Pen]:
    """Pens of two answers in two columns; a row is written as soon as both have it, or one and the other has ended."""
    each = (width - len(BETWEEN)) // 2
    columns = [_Column(each) for _ in headings]

    def rows() -> None:
        while all(column.lines or column.ended for column in columns) and any(column.lines for column in columns):
            left, right = (column.lines.pop(0) if column.lines else "" for column in columns)
            _out(f"{_padded(left, each)}{BETWEEN}{right}".rstrip() + "\n")

    def pen(column: _Column) -> Pen:
        def write(text: str) -> None:
            column.add(printable(text))
            rows()

        def end() -> None:
            column.end()
            rows()

        return Pen(write, end)

    pens = [pen(column) for column in columns]
    for one, heading in zip(pens, headings):
        one.write(f"{_in_a_row(printable(heading), each)}\n{'-' * each}\n")
    return pens


def _in_a_row(heading: str, width: int) -> str:
    """A heading in one row: of a long path its end, where paths differ.

    >>> _in_a_row("--- tuned: /home/ada/runs/my", 20)
    '--- tuned: …/runs/my'
    """
    role, _, name = heading.partition(": ")
    while cell_len(heading) > width and len(name) > 2:
        name = "…" + name[2:]
        heading = f"{role}: {name}"
    return heading


class _Column:
    """Text cut into lines that are no wider than a column, between words where there are any."""

    def __init__(self, width: int) -> None:
        self.lines: list[str] = []
        self.ended = False
        self._width, self._rest = width, ""

    def add(self, text: str) -> None:
        *whole, rest = (self._rest + text.expandtabs(4)).split("\n")
        self.lines += [line for one in whole for line in cut(one, self._width)]
        *full, self._rest = cut(rest, self._width)
        self.lines += full

    def end(self) -> None:
        self.lines += [self._rest] if self._rest else []
        self.ended = True


def cut(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, cut behind a space of their second half where there is one.

    >>> cut("the quick brown fox", 9), cut("狐狸狐狸", 5)
    (['the quick', 'brown fox'], ['狐狸', '狐狸'])
    """
    lines = []
    while cell_len(text) > width:
        end = next(n for n in range(len(text), 0, -1) if n == 1 or cell_len(text[:n]) <= width)
        space = text.rfind(" ", end // 2, end + 1)
        lines.append(text[: space if space > 0 else end])
        text = text[space + 1 if space > 0 else end :]
    return [*lines, text]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
