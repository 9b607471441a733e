"""What a checkpoint costs, and how much of it is its seal: hashing, syncing, reading back.

    python benchmarks/saving_cost.py                    # distilgpt2's shape: 82 million weights, 1 GB a checkpoint
    python benchmarks/saving_cost.py --layers 2 --out /tmp/out

A full training of a GPT-2 of random weights, 8 rows a step, saved at each second step. The parts of each save are
timed; the table has their medians, and their share of a run of 500 steps with 5 saves at the median step's pace.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import hone
from hone import bundled
from hone.training import checkpoint
from hone.training.trainer import RunTrainer

STEPS, SAVES = 500, 5
SEAL = {"hashing": "describe_files", "syncing": "fsync_path", "reading back": "refuse_unlike"}


class Clock:
    """Seconds of each part, by save; a part within another counts as that one."""

    def __init__(self) -> None:
        self.saves: list[dict[str, float]] = []
        self.inside = False

    def part(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as a part of the save at hand."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.inside or not self.saves:
                return function(*args, **kwargs)
            self.inside, began = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.inside = False
                self.saves[-1][name] = self.saves[-1].get(name, 0.0) + time.perf_counter() - began

        return call

    def save(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A whole save."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.saves.append({})
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.saves[-1]["in all"] = time.perf_counter() - began
            return result

        return call


def rows(path: Path, n: int) -> None:
    """Some 75 tokens each, as CodeAlpaca's are."""
    rng = random.Random(0)
    words = ["def", "return", "self", "value", "index", "print", "for", "range", "list", "name", "if", "else", "while"]
    texts = [" ".join(rng.choice(words) for _ in range(rng.randrange(40, 110))) for _ in range(n)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def main() -> None:
    """Train, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--steps", type=int, default=10, help="saved at each second one")
    parser.add_argument("--out", type=Path, help="on the disk to measure; a temporary folder without it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        measure(Path(folder), given.layers, given.width, given.steps)


def measure(out: Path, layers: int, width: int, steps: int) -> None:
    """One training in `out`, and its table."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=layers, n_embd=width, n_head=width // 64, bos_token_id=0, eos_token_id=0)
    )
    n_weights = sum(p.numel() for p in model.parameters())
    model.save_pretrained(out / "model")
    del model
    rows(out / "train.jsonl", 8 * steps)
    clock = Clock()
    for name, function in SEAL.items():
        setattr(checkpoint, function, clock.part(name, getattr(checkpoint, function)))
    RunTrainer._save_checkpoint = clock.save(RunTrainer._save_checkpoint)  # type: ignore[method-assign]
    config = {
        "model_name_or_path": str(out / "model"), "tokenizer_name_or_path": bundled.resolve("hone-base"),
        "train_file": str(out / "train.jsonl"), "output_dir": str(out / "run"), "token_cache_dir": str(out / "tokens"),
        "per_device_train_batch_size": 8, "max_steps": steps, "logging_steps": 1, "save_strategy": "steps",
        "save_steps": 2, "save_total_limit": 1, "validation_split_percentage": 0, "sample_prompts": 0, "use_cpu": True,
    }  # fmt: skip
    run = hone.train(hone.load_config(config))
    newest = run.checkpoints()[-1]
    n_bytes = sum(path.stat().st_size for path in newest.iterdir())
    step_s = statistics.median(line["step_s"] for line in run.metric_lines() if line["step"] % 2 == 0)
    whole = statistics.median(save["in all"] for save in clock.saves)
    run_s = STEPS * step_s + SAVES * whole
    print(
        f"{n_weights / 1e6:.0f} million weights, {n_bytes / 1e6:.0f} MB a checkpoint, {len(clock.saves)} saves, ",
        end="",
    )
    print(f"{step_s:.2f} s a step, {torch.get_num_threads()} threads\n")
    print(f"| part of a save | seconds: median (spread) | share of {STEPS} steps with {SAVES} saves |")
    print("| --- | ---: | ---: |")
    seal = [sum(save.get(name, 0.0) for name in SEAL) for save in clock.saves]
    parts = {name: [save.get(name, 0.0) for save in clock.saves] for name in SEAL}
    for name, seconds in {
        **parts,
        "the seal in all": seal,
        "the whole save": [s["in all"] for s in clock.saves],
    }.items():
        middle = statistics.median(seconds)
        print(f"| {name} | {middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {SAVES * middle / run_s:.1%} |")


if __name__ == "__main__":
    main()
