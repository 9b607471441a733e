"""Where nobody has set up logging, a training says what it does; where somebody has, hone leaves it alone."""

import io
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from conftest import pairs
from hone import progress
from hone.cli import app
from hone.progress import CLEAR, STEP, Lines, counted, lines_shown, shown, stage, stages_shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """In the place of hone's: pytest gives the root logger, and with it every other, handlers of its own."""
    found = logging.Logger("alone")
    monkeypatch.setattr(progress, "log", found)
    return found


def test_lines_go_to_stderr_and_afterwards_logging_is_as_it_was(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError), shown():
        log.info("step %d", 1, extra=STEP)
        raise RuntimeError
    log.info("not shown")
    assert capsys.readouterr().err == "step 1\n"
    assert log.handlers == [] and log.level == logging.NOTSET


def test_one_inside_another_says_nothing_twice(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    with shown(), shown():
        log.info("once")
    assert capsys.readouterr().err == "once\n"


def test_own_handlers_are_left_alone(capsys: pytest.CaptureFixture[str], log: logging.Logger) -> None:
    log.parent = above = logging.Logger("above")
    for logger in (log, above):
        mine = logging.StreamHandler(own := io.StringIO())
        logger.addHandler(mine)
        with shown():
            log.info("mine")
            assert lines_shown() is None
        logger.removeHandler(mine)
        assert own.getvalue() == "mine\n" and capsys.readouterr().err == ""


def test_it_can_be_quiet(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.setLevel(logging.WARNING)
    with shown():
        log.info("no")
        log.warning("but this")
    log.setLevel(logging.NOTSET)
    log.addHandler(logging.NullHandler())
    with shown():
        log.warning("no")
    assert capsys.readouterr().err == "but this\n" and log.level == logging.NOTSET


def test_a_terminal_has_a_bar_with_an_eta_in_the_place_of_step_lines(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with shown():
        lines = lines_shown()
        assert isinstance(lines, Lines)
        lines.begin(total=4, done=1)
        lines.bar.update(1)
        log.info("step 2/4  loss 3", extra=STEP)
        log.info("step 2  validation loss 2")
        lines.bar.refresh()
    said = terminal.getvalue()
    assert "2/4" in said and "step/s" in said and "<" in said  # elapsed<left
    assert "step 2  validation loss 2\n" in said and "loss 3" not in said
    assert lines.bar is None


def test_a_pipe_has_no_bar(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    with shown():
        lines = lines_shown()
        assert lines is not None
        lines.begin(total=4, done=0)
        assert lines.bar is None
        log.info("step 2/4  loss 3", extra=STEP)
    assert capsys.readouterr().err == "step 2/4  loss 3\n"


def test_a_notebook_has_them_in_its_cell(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = ModuleType("IPython")
    fake.get_ipython = lambda: SimpleNamespace(kernel=object(), config={})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", fake)
    assert progress.in_notebook()
    with shown():
        log.info("here")
    assert capsys.readouterr() == ("here\n", "")
    fake.get_ipython = lambda: SimpleNamespace(config={})  # type: ignore[attr-defined]  (IPython in a terminal)
    assert not progress.in_notebook()
    fake.get_ipython = lambda: None  # type: ignore[attr-defined]  (imported by a plain script)
    assert not progress.in_notebook()


def test_stages_are_on_one_line_of_a_terminal_and_go_away(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(RuntimeError), stages_shown():
        stage("looking")
        assert list(counted("abc", "reading")) == ["a", "b", "c"]
        log.warning("a word of warning, however long")
        log.info("not this")
        stage("a stage of many words")
        raise RuntimeError
    stage("not shown")
    said = [f"{CLEAR}looking …", f"{CLEAR}reading: 1 …", f"{CLEAR}a word of warning, however long\n"]
    assert terminal.getvalue() == "".join(said) + f"{CLEAR}a stage of many wor{CLEAR}"
    assert log.handlers == [] and log.level == logging.NOTSET


def test_a_pipe_and_a_dumb_terminal_have_no_stages(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with stages_shown():
        stage("looking")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "dumb")
    with stages_shown():
        stage("looking")
    assert terminal.getvalue() == "" and list(counted(range(3), "reading")) == [0, 1, 2]


@pytest.mark.parametrize("command", ["prepare", "plan"])
def test_commands_say_on_a_terminal_what_they_do(
    command: str, monkeypatch: pytest.MonkeyPatch, model_folder: Path, write_rows: Any, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress.log, "handlers", [])  # commands that train leave theirs behind
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress.Stages, "emit", lambda self, record: said.append(record.getMessage()))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.chdir(tmp_path)
    app(
        [command, str(write_rows("rows.jsonl", pairs(20))), f"model_name_or_path={model_folder}"], standalone_mode=False
    )
    words = {"prepare": "reading and tokenising rows: 1", "plan": "counting the memory"}[command]
    assert said[0] == "loading the libraries …" and any(words in line for line in said)


@pytest.mark.slow
def test_a_script_with_piped_output_says_what_it_does(tmp_path: Path, model_folder: Path, write_rows: object) -> None:
    rows = write_rows("rows.jsonl", pairs(20))  # type: ignore[operator]
    script = (
        f"import hone\nrun = hone.train(model_name_or_path={str(model_folder)!r}, train_file={str(rows)!r}, "
        "max_steps=3, logging_steps=1, max_length=64, save_strategy='no', sample_prompts=0)\nprint(run)\n"
        "import logging; print(logging.getLogger('hone').handlers, logging.getLogger('hone').level)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "step 2/3  loss" in done.stderr and "ETA" in done.stderr and "saved the model" in done.stderr
    assert "\r" not in done.stderr and "step/s" not in done.stderr and "%|" not in done.stderr
    assert done.stdout.splitlines()[0].startswith("Run(") and done.stdout.splitlines()[1:] == ["[] 0"]
    kept = (tmp_path / "out" / "train.log").read_text()
    assert "step 2/3" in kept and "saved the model" in kept
