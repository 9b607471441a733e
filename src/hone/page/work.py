"""What the page may start and stop, each a process of its own: a training goes on, and models answer, without it.

A training is stopped by the signal that Ctrl-C would send, and resumed by the command that began it. Models answer in a
`hone serve` that is started when the playground asks for it, one at a time, and ended when nobody has asked for long.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hone.errors import HoneError
from hone.runs import RESOLVED, Run, is_held, living_status
from hone.serve.refusal import JsonObject

ADDRESS = re.compile(r"serving at (http://\S+)/v1")
IDLE_S = 900.0  # after which models are let go of
PATIENCE_S = 120.0  # for a model to be loaded


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


def resume(run: Run) -> None:
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
    start(["train", str(run.folder / RESOLVED)])


def start(words: list[str]) -> None:
    """`hone WORDS` as a process that outlives this server; what it says is in its run's train.log."""
    subprocess.Popen(
        [sys.executable, "-m", "hone", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def prepared(run: Run, show: int) -> JsonObject:
    """The rows of a run as the model sees them, from a `hone prepare` of its own: it reads what the training read.

    Raises:
        HoneError: they cannot be read any more, in its words.
    """
    words = ["prepare", str(run.folder / RESOLVED), "--show", str(show), "--json"]
    command = [sys.executable, "-m", "hone", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise HoneError(f"the rows were not ready in {PATIENCE_S:.0f} s", fix="hone prepare shows them") from None
    if done.returncode:
        raise HoneError(done.stderr.rpartition("error: ")[2].strip() or "the rows cannot be read")
    found: JsonObject = json.loads(done.stdout)
    return {name: found[name] for name in ("said", "lengths", "shown")}


@dataclass
class Answering:
    """A `hone serve` over one run."""

    folder: Path
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
    """The models that answer: those of one run at a time, since each pair takes memory."""

    def __init__(self) -> None:
        self._now: Answering | None = None

    def address(self, folder: Path) -> str:
        """Where the base and the tuned model of a run answer; starts them, which takes seconds.

        Raises:
            HoneError: they cannot be served, in the words of `hone serve`.
        """
        if self._now is not None and (self._now.folder != folder or self._now.process.poll() is not None):
            self.end()
        if self._now is None:
            self._now = _served(folder)
        self._now.asked = time.monotonic()
        if not self._now.address:
            try:
                self._now.address = _address(self._now)
            except HoneError:
                self.end()
                raise
        return self._now.address

    def end_if_idle(self) -> None:
        if self._now is not None and time.monotonic() - self._now.asked > IDLE_S:
            self.end()

    def end(self) -> None:
        if self._now is not None:
            self._now.end()
            self._now = None


def _served(folder: Path) -> Answering:
    process = subprocess.Popen(
        [sys.executable, "-m", "hone", "serve", str(folder), "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None, "it is a pipe"
    return Answering(folder, process, process.stderr)


def _address(answering: Answering) -> str:
    """What it says of where it listens, once its models are loaded."""
    said = []
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and (line := answering.said.readline()):
        if found := ADDRESS.search(line):
            return found[1]
        said.append(line)
    text = "".join(said).strip()
    raise HoneError(text.partition("error: ")[2] or text or "the models could not be loaded")
