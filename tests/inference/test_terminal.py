"""`hone chat` as it is met: at a pseudo-terminal, with Ctrl-C as a real signal, and behind a pipe."""

import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from forked import hone_process
from hone.cli import app
from hone.data.tokenizer import save_tokenizer
from hone.inference.terminal import CodeColours, answer_pen, cut, line_reader, piece_writer, side_by_side

pytest_plugins = ["talking"]
posix = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX's")


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Any], chat_tokenizer: Any) -> Path:
    """A chat model that never comes to its end token, with room for some ten thousand tokens."""
    import torch

    folder = tmp_path_factory.mktemp("talker")
    model = tiny_model("llama", vocab_size=len(chat_tokenizer), max_position_embeddings=20_000)
    with torch.no_grad():
        for end in (0, *chat_tokenizer.all_special_ids):
            model.lm_head.weight[end] = 0.0
        model.lm_head.weight[chat_tokenizer.encode("fox")] *= 3.0
    model.save_pretrained(folder)
    save_tokenizer(chat_tokenizer, folder)
    return folder


class Terminal:
    """`hone` at a pseudo-terminal."""

    def __init__(self, *words: str) -> None:
        self._fd, self._slave = os.openpty()
        self.process = hone_process(words, terminal=os.ttyname(self._slave))
        self.seen = ""

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        """What was written up to the next match of `pattern`, which is taken away with it."""
        import select

        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen[-2000:]!r}"
            if select.select([self._fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self._fd, 65536).decode("utf-8", "replace")
                except OSError:  # the program has gone
                    assert re.search(pattern, self.seen), f"ended without {pattern!r}: {self.seen[-2000:]!r}"
        before, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return before

    def type(self, text: str) -> None:
        """In small pieces, reading what comes back meanwhile: a terminal that nobody reads takes nothing more."""
        import select

        data = text.encode()
        os.set_blocking(self._fd, False)
        while data:
            readable, writable, _ = select.select([self._fd], [self._fd], [], 60.0)
            assert readable or writable, "the terminal takes nothing"
            if readable:
                self.seen += os.read(self._fd, 65536).decode("utf-8", "replace")
            if writable:
                with suppress(BlockingIOError):
                    data = data[os.write(self._fd, data[:256]) :]
        os.set_blocking(self._fd, True)

    def press_ctrl_c(self, pattern: str) -> str:
        """Until `pattern` comes; a second time if need be, since readline misses a signal just before it waits."""
        for seconds in (5.0, 60.0):
            self.type("\x03")
            with suppress(AssertionError):
                return self.until(pattern, seconds)
        raise AssertionError(f"Ctrl-C does not lead to {pattern!r}: {self.seen[-2000:]!r}")

    def wait(self) -> int:
        """The exit code, when the program has ended by itself."""
        self.process.join(30)
        code: int | None = self.process.exitcode
        assert code is not None, f"still running: {self.seen[-2000:]!r}"
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        os.close(self._fd)
        os.close(self._slave)


@pytest.fixture
def terminal(talker: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminal]]:
    monkeypatch.setenv("TERM", "xterm")
    started: list[Terminal] = []

    def start(*options: str) -> Terminal:
        started.append(Terminal("chat", str(talker), *options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.slow
@posix
def test_ctrl_c_in_the_middle_of_an_answer(terminal: Callable[..., Terminal]) -> None:
    here = terminal("--max-new-tokens", "15000")
    here.until(r"the model sees the whole conversation")
    here.until(r"> ")
    here.type("Hello\n")
    here.until(r"Hello\r\n")
    here.until(r"[a-z]{5}")  # the answer has begun
    stopped = here.press_ctrl_c(r"\[(\d+) tokens, [\d.]+ tokens/s; stopped\]")
    assert "Traceback" not in stopped
    assert int(re.findall(r"\[(\d+) tokens", stopped)[0]) < 15000
    here.until(r"> ")
    here.type("/set max_new_tokens=3\n")
    here.until(r"> ")
    here.type("Bonjour é\n")
    here.until(r"\[3 tokens, [\d.]+ tokens/s; cut off")
    here.until(r"> ")
    here.press_ctrl_c(r"Ctrl-C once more")
    here.until(r"> ")
    assert "Traceback" not in here.press_ctrl_c(r"bye")
    assert here.wait() == 0


@pytest.mark.slow
@posix
def test_one_ctrl_c_after_a_stopped_answer_and_ctrl_d(terminal: Callable[..., Terminal]) -> None:
    here = terminal("--max-new-tokens", "15000", "--system", "Be a fox.")
    here.until(r"> ")
    here.type("Hello\n")
    here.until(r"Hello\r\n")
    here.until(r"[a-z]{5}")
    here.press_ctrl_c(r"stopped\]")
    here.until(r"> ")
    here.press_ctrl_c(r"bye")
    assert here.wait() == 0
    other = terminal()
    other.until(r"> ")
    other.type("\x04")
    other.until(r"bye")
    assert other.wait() == 0


@pytest.mark.slow
@posix
def test_a_pasted_text_and_a_block_are_one_message_each(terminal: Callable[..., Terminal]) -> None:
    here = terminal("--max-new-tokens", "3")
    here.until(r"> ")
    pasted = "\n".join(f"line {i}: " + "fox 狐 " * 5 for i in range(100))
    here.type(f"\x1b[200~{pasted}\n\x1b[201~")
    here.until(r"line 99[^\n]*")
    here.type("\n")
    here.until(r"\[3 tokens, [\d.]+ tokens/s; cut off")
    here.until(r"> ")
    here.type('"""\n')
    here.until(r"\. ")
    here.type("/help is not a command here\n")
    here.until(r"\. ")
    here.type("\n")
    here.until(r"\. ")
    here.type('"""\n')
    here.until(r"\[3 tokens, [\d.]+ tokens/s; cut off")
    here.until(r"> ")
    here.type("/save nowhere/talk.jsonl\n")
    here.until(r"error: nowhere/talk.jsonl: cannot write")
    here.until(r"> ")
    here.type("\x04")
    seen = here.until(r"bye")
    assert "Traceback" not in seen
    assert here.wait() == 0


@pytest.mark.slow
@posix
def test_a_pipe(talker: Path, tmp_path: Path) -> None:
    """Bytes in, answers out: no marks, no speed; a line that is no UTF-8 is reported and the next one answered."""
    os.mkfifo(tmp_path / "in")
    for name in ("out", "err"):
        (tmp_path / name).touch()
    files = {"stdin": tmp_path / "in", "stdout": tmp_path / "out", "stderr": tmp_path / "err"}
    process = hone_process(["chat", str(talker), "--max-new-tokens", "4"], **files)
    (tmp_path / "in").write_bytes(b"Hello\ncaf\xe9\n/nonsense\nTsch\xc3\xbcss\r\n")
    process.join(120)
    out, err = (tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes()
    assert process.exitcode == 0, err
    assert out.count(b"\n") >= 2 and b"> " not in out and b"tokens/s" not in out
    assert b"not UTF-8" in err and b"unknown command /nonsense" in err
    runner = CliRunner()
    same = runner.invoke(app, ["chat", str(talker), "--max-new-tokens", "4"], input="Hello\nTschüss\n")
    assert same.stdout == out.decode()
    nothing = runner.invoke(app, ["chat", str(talker)], input="")
    assert nothing.exit_code == 0 and nothing.stdout == ""
    bad = runner.invoke(app, ["chat", str(talker), "--top-p", "0"], input="")
    assert bad.exit_code == 1 and "top_p" in bad.stderr


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_model_output_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Tty()
    monkeypatch.setattr(sys, "stdout", screen)
    piece_writer()("a\x1b[2J\n\tb\x07")
    assert screen.getvalue() == "a\\x1b[2J\n\tb\\x07"
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    piece_writer()("a\x1b[2J")
    assert file.getvalue() == "a\x1b[2J", "what goes to a file is left as it is"


FENCED = 'See:\n```python\ndef f(x):\n\t"""Two\nlines"""\n    return x\n```\nThe `end`'


def test_code_has_colours_line_by_line_and_prose_comes_at_once() -> None:
    out: list[str] = []
    code = CodeColours(out.append)
    code.write("See: a")
    assert out == ["See: a"], "prose is not held back"
    out.clear()
    for character in FENCED:
        code.write(character)
    code.end()
    shown = "".join(out)
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == FENCED.replace("\t", "    ") + "\n", "nothing is lost or moved"
    lines = shown.split("\n")
    assert "\x1b" not in lines[0] + lines[1] + lines[6] + lines[7]
    assert all("\x1b[" in line for line in lines[2:6])
    assert lines[4].startswith("\x1b[33m"), "the second line of a text is a text"
    assert out.index("`") < 10, "a fence is written as it comes"


@pytest.mark.parametrize(
    "text",
    [
        "```\nx\n",
        "```nonsense\ndef f\n```\n",
        "~~~python\n```\nx = 1\n",
        "````md\n```\n",
        "a ``` b\n",
        "```python\n\n\nx",
    ],
)
def test_fences_lose_nothing(text: str) -> None:
    out: list[str] = []
    code = CodeColours(out.append)
    code.write(text)
    code.end()
    assert re.sub(r"\x1b\[[\d;]*m", "", "".join(out)) == text + "\n"


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(screen: io.StringIO, **environment: str) -> str:
        monkeypatch.setattr(sys, "stdout", screen)
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        pen = answer_pen()
        pen.write("```python\nreturn 1\x1b[2J\n```")
        pen.end()
        return screen.getvalue()

    bare = "```python\nreturn 1\\x1b[2J\n```\n"
    assert "\x1b[" in shown(Tty(), TERM="xterm") and "\x1b[2J" not in shown(Tty(), TERM="xterm")
    assert shown(Tty(), TERM="xterm", NO_COLOR="1") == bare
    assert shown(Tty(), TERM="dumb") == shown(Tty()) == bare
    assert shown(io.StringIO(), TERM="xterm") == bare.replace("\\x1b", "\x1b"), "a file gets what the model wrote"


def test_side_by_side_rows_come_as_both_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Tty()
    monkeypatch.setattr(sys, "stdout", screen)
    left, right = side_by_side(23, ["base", "tuned"])  # columns of ten
    left.write("the quick brown fox\n狐狸狐狸狐狸 x\x1b\n")
    assert screen.getvalue().count("\n") == 2, "the right one has its heading only"
    right.write("one\n")
    right.write("two")
    assert screen.getvalue().endswith("\nthe quick  | one\n")
    right.end()
    assert screen.getvalue().endswith("\nbrown fox  | two\n狐狸狐狸狐 |\n狸 x\\x1b   |\n")
    left.write("more")
    left.end()
    assert screen.getvalue().endswith("\nmore       |\n")


def test_lines_are_cut_by_what_they_take_on_a_screen() -> None:
    assert cut("", 5) == [""] and cut("unbreakable", 8) == ["unbreaka", "ble"]
    assert cut("狐" * 3, 3) == ["狐"] * 3


def test_a_block_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Tty('"""\nfirst\n\n  "quoted"\n"""\nnext\n"""\nnot closed\n'))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    read = line_reader()
    assert [read(), read(), read(), read()] == ['first\n\n  "quoted"', "next", "not closed", None]


def test_halves_of_characters_typed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.errors import HoneError

    monkeypatch.setattr(sys, "stdin", Tty("caf\udce9\nnext\n"))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    read = line_reader()
    with pytest.raises(HoneError, match="not UTF-8"):
        read()
    assert read() == "next"
    assert read() is None
