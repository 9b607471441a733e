"""A child process of the benchmark: set up once, then asked for a number of training steps at a time.

Orders come as lines on its standard input, answers go as JSON lines to what was its standard output; whatever the
libraries print goes to its log. While it waits for an order it computes nothing.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn


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


def run(task: dict[str, Any]) -> NoReturn:
    """What a child process does from its start to its end."""
    turns = Turns()
    try:
        if task["setup"] == "make-model":
            make_model(task)
        elif task["setup"] == "matrix products":
            matrix_products(task, turns)
        elif task["setup"] == "hone":
            from speed.ours import run_hone

            run_hone(task, turns)
        else:
            from speed.peers import SETUPS

            SETUPS[task["setup"]](task, turns)
    except Stop:
        pass
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to save, and some libraries take seconds to end


def memory(key: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def make_model(task: dict[str, Any]) -> None:
    """Random weights in task["folder"]."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(task["seed"])
    config = AutoConfig.for_model(task["model_type"], **task["shape"])
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, task["dtype"]))
    model.save_pretrained(task["folder"])


def matrix_products(task: dict[str, Any], turns: Turns) -> None:
    """The ceiling: operations a second of the fastest of the model's own large products, in bfloat16 and float32."""
    import torch

    generator = torch.Generator().manual_seed(0)
    products = []
    for dtype in (torch.bfloat16, torch.float32):
        for rows, inner, columns in task["products"]:
            left, right = (torch.randn(n, inner, generator=generator).to(dtype) for n in (rows, columns))
            products.append((dtype, left, right.T, torch.empty(rows, columns, dtype=dtype)))  # (rows, columns)

    def rates(repeats: int) -> dict[str, float]:
        best: dict[str, float] = {}
        for dtype, left, right, out in products:
            seconds = []
            for _ in range(repeats):
                began = time.perf_counter()
                torch.mm(left, right, out=out)
                seconds.append(time.perf_counter() - began)
            name, operations = str(dtype).removeprefix("torch."), 2 * left.shape[0] * left.shape[1] * right.shape[1]
            best[name] = max(best.get(name, 0.0), operations / statistics.median(seconds))
        return best

    with torch.no_grad():
        rates(1)
        turns.ready()
        while True:
            turns.answer(rates=rates(3))
