"""The child's end of the pipe to the benchmark: orders for steps come in, their times and losses go out."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Stop(Exception):
    """The parent wants no more steps."""


class Turns:
    """The child's end of the pipe: counts steps down, answers with their time and losses, waits for the next order."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what is printed must not get between the answers
        self.left, self.began = 0, 0.0
        self.losses: list[Any] = []
        self.baseline = memory("VmRSS")
        self.held_out: Callable[[], float] | None = None  # measured between turns, outside of their time

    def imported(self) -> None:
        """Called when the libraries are imported and nothing is loaded yet."""
        self.baseline = memory("VmRSS")

    def ready(self, **about: Any) -> None:
        """Everything is set up; returns when the first steps are asked for."""
        self.answer(**about, baseline=self.baseline)

    def step(self, loss: Any, tokens: int | None = None) -> None:
        """The end of one training step. loss: a number or a tensor. tokens: real ones so far, where they are known."""
        self.losses.append(loss)
        self.left -= 1
        if self.left == 0:
            seconds = time.perf_counter() - self.began
            losses = [float(value) for value in self.losses]
            peak = memory("VmHWM")
            held_out = self.held_out() if self.held_out else None
            self.answer(seconds=seconds, losses=losses, tokens_so_far=tokens, peak=peak, held_out=held_out)

    def answer(self, **about: Any) -> None:
        """Tell the parent, and wait for its next order."""
        self.answers.write(json.dumps(about) + "\n")
        self.answers.flush()
        order = sys.stdin.readline()
        if not order.strip():  # the parent is gone, or wants no more
            raise Stop
        self.left, self.losses = int(order), []
        self.began = time.perf_counter()


def memory(key: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
