"""A person at the chat, by script."""

from collections.abc import Iterable, Iterator
from typing import Any

from hone.inference.chat import Conversation, Pen
from hone.inference.talk import talk


class Screen:
    """Feeds lines (or raises what stands among them) and keeps what was written."""

    def __init__(self, lines: Iterable[Any], columns: int = 80) -> None:
        self._lines: Iterator[Any] = iter(lines)
        self._columns = columns
        self.pieces: list[str] = []
        self.notes: list[str] = []

    def read(self) -> str | None:
        line = next(self._lines, None)
        if isinstance(line, BaseException):
            raise line
        return line

    def pen(self) -> Pen:
        return Pen(self.pieces.append, lambda: self.pieces.append("\n"))

    def talk(self, conversation: Conversation, watched: bool = True) -> "Screen":
        columns = self._columns if watched else 0
        note = self.notes.append
        talk(conversation, read=self.read, pen=self.pen, note=note, watched=watched, columns=lambda: columns)
        return self

    @property
    def answers(self) -> str:
        return "".join(self.pieces)

    @property
    def said(self) -> str:
        return "\n".join(self.notes)
