"""What the page may start and stop, each a process of its own: a training goes on, and models answer, without it.

A training is stopped by the signal that Ctrl-C would send, and resumed by the command that began it. Models answer in a
`hone serve` for each run, which is started when the playground asks for it, and ended when nobody has asked for long.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hone.errors import HoneError, said
from hone.runs import RESOLVED, STATUS, Run, is_held, living_status
from hone.serve.refusal import JsonObject

ADDRESS = re.compile(r"serving at (http://\S+)/v1")
IDLE_S = 900.0  # after which models are let go of
PATIENCE_S = 120.0  # for a model to be loaded
TAIL_BYTES = 16_000  # of what a training says
LAST_LINES = 15
INTERRUPTED = 130  # by a signal, with a checkpoint
MOST_SERVED = 3  # runs whose models are in memory at once


def stop(run: Run) -> None:
    """Ask the training to save a checkpoint and end.

    Raises:
        HoneError: it is not running, or nobody holds its folder.
    """
    status = run.status
    if living_status(status) != "running":
        raise HoneError(f"{run.folder.name} is not running")
    pid = int(status["pid"])
    if not is_held(run):  # the number of a training that was killed may have gone to another program
        raise HoneError(f"nobody trains in {run.folder.name}: process {pid} is another program")
    os.kill(pid, signal.SIGTERM)


def resume(name: str, run: Run, trainings: "Trainings") -> None:
    """Start the training again from its own settings; it goes on from its newest checkpoint.

    Raises:
        HoneError: it is running, or finished, or its settings are gone.
    """
    state = living_status(run.status)
    if state == "running":
        raise HoneError(f"{run.folder.name} is running")
    if run.status.get("stage") == "finished":
        raise HoneError(f"{run.folder.name} is finished")
    if not (run.folder / RESOLVED).is_file():
        raise HoneError("its settings are gone", where=str(run.folder / RESOLVED))
    trainings.start(name, ["train", str(run.folder / RESOLVED)], run.folder)


def hone(*words: str) -> list[str]:
    """The command line of hone's own; -P: nothing that lies in the current folder is taken for a module."""
    return [sys.executable, "-P", "-m", "hone", *words]


def said_by(words: list[str], folder: Path | None = None) -> tuple[int, str, str]:
    """Exit code of `hone WORDS`, what it printed, and its mistake without the word "error".

    Raises:
        HoneError: it takes too long.
    """
    try:
        done = subprocess.run(hone(*words), cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        fix = f"hone {words[0]} in a terminal takes its time"
        raise HoneError(f"no answer within {PATIENCE_S:.0f} s", fix=fix) from None
    return done.returncode, done.stdout, mistake(done.stderr)


def mistake(text: str) -> str:
    """What a command says of why it ended: behind its last "error: ", or its last lines."""
    *_, last = re.split(r"^error: ", text, flags=re.M)
    return (last if last != text else "\n".join(text.splitlines()[-LAST_LINES:])).strip()


@dataclass
class Started:
    """A training that was started here. said: the file of what it says. written: settings that were made for it."""

    process: "subprocess.Popen[bytes]"
    said: Path
    written: Path | None

    def tail(self) -> str:
        with self.said.open("rb") as file:
            file.seek(max(0, self.said.stat().st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")


class Trainings:
    """Those that the page has started. What one says before it has a log of its own is known here alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = tempfile.TemporaryDirectory(prefix="hone-page-")  # a training that goes on keeps its file open
        self._of: dict[str, Started] = {}
        self._lock = threading.Lock()

    def start(self, run: str, words: list[str], place: Path, *, written: Path | None = None) -> None:
        """`hone WORDS` as a process that outlives this server.

        Raises:
            HoneError: it has been started already.
        """
        with self._lock:
            if run in self._of and self._of[run].process.poll() is None:
                raise HoneError(f"{run} is being started already")
            number, path = tempfile.mkstemp(dir=self._place.name)
            with os.fdopen(number, "wb") as said:
                process = subprocess.Popen(
                    hone(*words),
                    cwd=place,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,
                )
            self._of[run] = Started(process, Path(path), written)

    def state(self, run: str) -> JsonObject:
        """none: not started here; starting; running; ended: as it should, or by a signal of ours; failed.

        said: what it has said so far, or why it failed.
        """
        found = self._of.get(run)
        if found is None:
            return {"state": "none", "said": ""}
        code = found.process.poll()
        if code is None:
            folder = self._folder / run
            runs = (folder / STATUS).is_file() and living_status(Run(folder).status) == "running"
            return {"state": "running" if runs else "starting", "said": said(found.tail())}
        if code in (0, INTERRUPTED):
            return {"state": "ended", "said": ""}
        if found.written is not None and not (self._folder / run / RESOLVED).is_file():
            found.written.unlink(missing_ok=True)  # nothing has begun: the name is free for the corrected settings
            found.written = None
        text = mistake(found.tail()) or f"it ended with code {code}"
        return {"state": "failed", "said": said(f"killed by signal {-code}\n{text}" if code < 0 else text)}

    def look(self) -> None:
        """Let the system forget those that have ended: until then each would count as a process that runs."""
        for found in list(self._of.values()):
            found.process.poll()

    def end(self) -> None:
        self._place.cleanup()


def prepared(run: Run, show: int) -> JsonObject:
    """The rows of a run as the model sees them, from a `hone prepare` of its own: it reads what the training read.

    Raises:
        HoneError: they cannot be read any more, in its words.
    """
    code, out, problem = said_by(["prepare", str(run.folder / RESOLVED), "--show", str(show), "--json"])
    if code:
        raise HoneError(problem or "the rows cannot be read")
    found: JsonObject = json.loads(out)
    return {name: found[name] for name in ("said", "lengths", "shown")}


@dataclass
class Answering:
    """A `hone serve` over one run."""

    process: "subprocess.Popen[str]"
    said: IO[str]
    address: str = ""
    asked: float = field(default_factory=time.monotonic)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
            self.process.wait(timeout=10)
        self.said.close()


class Playground:
    """The models that answer: those of a few runs, since each pair takes memory; who was not asked for long goes."""

    def __init__(self) -> None:
        self._of: dict[Path, Answering] = {}

    def address(self, folder: Path) -> str:
        """Where the base and the tuned model of a run answer; starts them, which takes seconds.

        Raises:
            HoneError: they cannot be served, in the words of `hone serve`.
        """
        found = self._of.get(folder)
        if found is not None and found.process.poll() is not None:
            self._end(folder)
            found = None
        if found is None:
            if len(self._of) >= MOST_SERVED:
                self._end(min(self._of, key=lambda one: self._of[one].asked))
            found = self._of[folder] = _served(folder)
        found.asked = time.monotonic()
        if not found.address:
            try:
                found.address = _address(found)
            except HoneError:
                self._end(folder)
                raise
        return found.address

    def end_if_idle(self) -> None:
        for folder in [one for one, found in self._of.items() if time.monotonic() - found.asked > IDLE_S]:
            self._end(folder)

    def end(self) -> None:
        for folder in list(self._of):
            self._end(folder)

    def _end(self, folder: Path) -> None:
        self._of.pop(folder).end()


def _served(folder: Path) -> Answering:
    process = subprocess.Popen(
        hone("serve", str(folder), "--port", "0"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None, "it is a pipe"
    return Answering(process, process.stderr)


def _address(answering: Answering) -> str:
    """What it says of where it listens, once its models are loaded."""
    said = []
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and (line := answering.said.readline()):
        if found := ADDRESS.search(line):
            return found[1]
        said.append(line)
    text = "".join(said).strip()
    raise HoneError(mistake(text) or "the models could not be loaded")
