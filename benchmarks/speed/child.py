"""A child process of the benchmark: set up once, then asked for a number of training steps at a time.

Orders come as lines on its standard input, answers go as JSON lines to what was its standard output; whatever the
libraries print goes to its log. While it waits for an order it computes nothing.
"""

import os
import statistics
import sys
import time
from typing import Any, NoReturn

from speed.turns import Stop, Turns


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
