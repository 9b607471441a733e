"""Strict UTF-8 text in pieces, and JSON values one at a time, out of a byte stream that is never held whole.

For files too big to load: `json.load` of a 350 MB list needs gigabytes of objects before the first row is seen; here
one item is. (ijson reads twice as fast, but names no line, makes half a character a question mark, refuses NaN, and
takes 4 GB for a file of 40,000 brackets.) What the values mean is not decided here.

>>> import io
>>> list(json_items(io.BytesIO(b'[{"text": "a"}, {"text": "b"}]'), max_characters=1000))
[{'text': 'a'}, {'text': 'b'}]
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any, NoReturn

CHUNK_BYTES = 1 << 18
NEAR_END = 12  # characters of "\ud83d\ude00": what is found this close to the window's end may be a value cut in two

MANY_VALUES = 2_000_000  # in one JSON row: each takes 70 bytes of memory for its 3 of the file
OTHERS = bytes(set(range(256)) - set(b'"\\,[{'))
STRING_OR_SIGNS = re.compile(rb'"(?:[^"\\]|\\.)*"|[,\[{]+', re.DOTALL)
SPACE = re.compile(r"[ \t\r\n]*")
LIST_OPENS = re.compile(r'[ \t\r\n]*(\[|\{[ \t\r\n]*"data"[ \t\r\n]*:[ \t\r\n]*\[)')
DECODER = json.JSONDecoder()

# Where a text may be cut without changing its tokens. A line break between two visible characters, or the place
# before a lone space between two, is a boundary of the pre-tokenizers of GPT-2, GPT-4 / Llama 3 and Qwen alike, and
# no SentencePiece piece reaches across it. (Before a line break would not do: GPT-4's pattern joins ".\n".)
AFTER_LINE = re.compile(r".*\S\n(?=\S)", re.DOTALL)
BEFORE_SPACE = re.compile(r".*\S(?= \S)", re.DOTALL)


class DecodeError(ValueError):
    """Bytes that are not UTF-8, or text that is not JSON, with the 1-based line where that shows."""

    def __init__(self, reason: str, line: int) -> None:
        self.reason, self.line = reason, line
        super().__init__(f"line {line}: {reason}")


def not_utf8(byte: int, offset: int) -> str:
    """The one wording for bytes that are not UTF-8; `offset` counts bytes from the start of the (unpacked) file."""
    return f"not UTF-8: byte 0x{byte:02x} at byte {offset} of the file (convert it: iconv -f LATIN1 -t UTF-8)"


class Utf8Reader:
    """Decodes a byte stream piece by piece; line ends are kept as they are."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes, self._lines = stream.tell(), 1  # consumed so far; the line they end in

    def read(self, n_bytes: int) -> str:
        """Text of about `n_bytes` more bytes (at least 4); "" at the end.

        Raises:
            DecodeError: at the first byte that is not UTF-8, or where a character is cut off by the end.
        """
        raw = self._stream.read(n_bytes)
        pending: bytes = self._decoder.getstate()[0]
        try:
            text = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            seen = (pending + raw)[: error.start + 1]
            reason = not_utf8(seen[-1], self._bytes - len(pending) + error.start)
            raise DecodeError(reason, self._lines + seen.count(b"\n")) from None
        self._bytes += len(raw)
        self._lines += raw.count(b"\n")
        if raw and not text:  # a lone piece of a character: whole at the next read, or an error there
            return self.read(n_bytes)
        return text


def check_utf8(stream: IO[bytes]) -> None:
    """Read to the end, keeping nothing.

    Raises:
        DecodeError: at the first byte that is not UTF-8.
    """
    reader = Utf8Reader(stream)
    while reader.read(CHUNK_BYTES):
        pass


def text_pieces(stream: IO[bytes], piece_bytes: int, max_characters: int) -> Iterator[tuple[str, bool]]:
    """A text in pieces of about `piece_bytes`, cut where no token is cut; the last one is marked True.

    A piece without such a place grows to `max_characters` and is then cut wherever that is.

    Raises:
        DecodeError: as `Utf8Reader.read`.
    """
    reader = Utf8Reader(stream)
    text, searched = reader.read(piece_bytes), 0
    while more := reader.read(piece_bytes):
        cut = _cut(text, searched)
        if not cut and len(text) >= max_characters:
            cut = len(text)
        if cut:
            yield text[:cut], False
            text, searched = text[cut:] + more, 0
        else:
            text, searched = text + more, max(0, len(text) - 2)
    yield text, True


def _cut(text: str, start: int) -> int:
    """Where to cut a text that goes on, as late as possible after `start`; 0 if there is no place yet.

    >>> _cut("one line\\nanother line", 0), _cut("one line", 0), _cut("oneline", 0)
    (9, 3, 0)
    """
    for boundary in (AFTER_LINE, BEFORE_SPACE):
        if found := boundary.match(text, start):
            return found.end()
    return 0


def holds_list(head: bytes) -> bool:
    """Does a JSON file that begins with these bytes hold a list of items, bare or as {"data": [...]}?"""
    return LIST_OPENS.match(head.decode("utf-8", errors="ignore")) is not None


def refuse_many_values(row: bytes) -> None:
    """Raise a ValueError for JSON that is small to send and large to read: lists of millions of lists.

    Args:
        row: one row, or more text.
    """
    if len(row) <= MANY_VALUES or sum(map(row.count, (b",", b"[", b"{"))) <= MANY_VALUES:
        return
    n = 0  # of those signs that do not stand in a text
    for steps, found in enumerate(STRING_OR_SIGNS.finditer(row.translate(None, OTHERS).replace(b'""', b""))):
        n += len(found[0]) if found[0][:1] != b'"' else 0
        if n > MANY_VALUES or steps > MANY_VALUES:
            raise ValueError(f"a row of more than {MANY_VALUES:,} values")


def json_items(stream: IO[bytes], *, max_characters: int) -> Iterator[Any]:
    """Items of a JSON list, bare or under the first key, "data", of an object.

    Raises:
        DecodeError: malformed JSON, cut off, no UTF-8, or an item longer than `max_characters`. Nothing after it can
            be read: where the next item begins is unknown.
    """
    window = _Window(stream, max_characters)
    wrapped = window.peek() == "{"
    if wrapped:
        window.at += 1
        window.read_key()
    window.expect("[")
    if window.peek() == "]":
        window.at += 1
    else:
        while True:
            yield window.read_value()
            if window.expect(",]") == "]":
                break
    if wrapped:
        while window.expect(",}") == ",":
            window.read_key()
            window.read_value()
    if window.peek():
        window.fail("more text after the end of the list")


def json_values(stream: IO[bytes], *, max_characters: int) -> Iterator[Any]:
    """JSON values that follow one another, with or without line breaks inside and between them.

    Raises:
        DecodeError: as for `json_items`.
    """
    window = _Window(stream, max_characters)
    while window.peek():
        yield window.read_value()


class _Window:
    """The part of a JSON text between what was parsed and what was read: `text[at:]` is next."""

    def __init__(self, stream: IO[bytes], max_characters: int) -> None:
        self._reader = Utf8Reader(stream)
        self._max_characters = max_characters
        self._line = 1  # of text[0]
        self._ended = False
        self.text, self.at = "", 0

    def grow(self) -> None:
        """Forget what was parsed and at least double the rest, so that a long item is parsed a few times only."""
        self._line += self.text.count("\n", 0, self.at)
        rest = self.text[self.at :]
        more = self._reader.read(max(CHUNK_BYTES, len(rest)))
        self.text, self.at, self._ended = rest + more, 0, not more

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        line = self._line + self.text.count("\n", 0, self.at if at is None else at)
        raise DecodeError(f"not valid JSON: {reason}", line)

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text) or self._ended:
                return self.text[self.at : self.at + 1]
            self.grow()

    def expect(self, characters: str) -> str:
        """Step over the next visible character, which must be one of these."""
        found = self.peek()
        if not found:
            self.fail("the file ends in the middle of the list")
        if found not in characters:
            self.fail(f"expected {' or '.join(characters)}, found {found}")
        self.at += 1
        return found

    def read_key(self) -> None:
        self.read_value()
        self.expect(":")

    def read_value(self) -> Any:
        self.peek()
        while True:
            try:
                if len(self.text) > MANY_VALUES:
                    refuse_many_values(self.text[self.at :].encode())
                value, end = DECODER.raw_decode(self.text, self.at)
                if self._ended or end + NEAR_END < len(self.text):  # "1" may be the beginning of "1.5e-3"
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or error.pos + NEAR_END >= len(self.text)
                if self._ended or not unfinished:
                    self.fail(error.msg, error.pos)
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
                self.fail(str(error))
            if len(self.text) - self.at > self._max_characters:
                self.fail(f"one item is longer than {self._max_characters:,} characters")
            self.grow()
