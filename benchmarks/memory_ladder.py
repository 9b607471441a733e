"""What each setting against running out of memory saves, and what it costs: peaks of whole trainings, a process each.

Two situations: a small model with many tokens at once, whose memory is activations, and a larger one with a short row
at a time, whose memory is weights. Each rung changes one thing of the first row. Measured as in `plan_accuracy.py`, by
whose functions the trainings run; time is processor time of the whole run, which other programs disturb little.

    OMP_NUM_THREADS=1 python benchmarks/memory_ladder.py --json > docs/figures/memory-ladder.json
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plan_accuracy import child, make_inputs

MANY = "14M weights, 16 rows of 512"
FEW = "82M weights, 1 row of 128"
SHAPES: dict[str, dict[str, Any]] = {
    MANY: {"model": "small", "max_length": 512, "per_device_train_batch_size": 16},
    FEW: {"model": "distilgpt2", "max_length": 128, "per_device_train_batch_size": 1, "max_steps": 8},
}
COMMON = {
    "num_train_epochs": 1,
    "sample_prompts": 0,
    "use_cpu": True,
    "save_strategy": "no",
    "eval_tokens_per_batch": 512,
}
RUNGS: dict[str, dict[str, Any]] = {
    "none": {},
    "eval_tokens_per_batch=2048": {"eval_tokens_per_batch": 2048},
    "half the rows, twice the accumulation": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
    "micro_batch_tokens=512": {"micro_batch_tokens": 512},
    "gradient_checkpointing=true": {"gradient_checkpointing": True},
    "batching=padded": {"batching": "padded"},
    "max_length halved": {"max_length": None},
    "method=freeze": {"method": "freeze"},
    "method=lora": {"method": "lora"},
    "method=lora dtype=bfloat16": {"method": "lora", "dtype": "bfloat16"},
    "optim=sgd": {"optim": "sgd"},
}
OF_ROWS = ("half the rows, twice the accumulation",)  # nothing to halve where there is one row


def main() -> None:
    options = parse_options()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HONE_CACHE"] = str(folder / "cache")
        make_inputs(folder)
        rows = [measured(folder, number, *one) for number, one in enumerate(settings(options.only))]
    print(json.dumps(rows, indent=1) if options.json else markdown(rows))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="measured memory of each setting against running out of it")
    parser.add_argument("--only", default="", metavar="TEXT", help="only shapes whose name contains this")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def settings(only: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(shape, rung, keys). Evaluations are kept small, but where the row is about them."""
    for shape, keys in SHAPES.items():
        for rung, change in RUNGS.items():
            if only not in shape or (shape == FEW and rung in OF_ROWS):
                continue
            changed = {**COMMON, **keys, **change}
            changed["max_length"] = changed["max_length"] or keys["max_length"] // 2
            yield shape, rung, changed


def measured(folder: Path, number: int, shape: str, rung: str, keys: dict[str, Any]) -> dict[str, Any]:
    files = {
        "model_name_or_path": str(folder / keys.pop("model")),
        "train_file": str(folder / "rows.jsonl"),
        "output_dir": str(folder / "runs" / str(number)),
    }
    plan, run = child("plan", {**keys, **files}), child("train", {**keys, **files})
    return {
        "shape": shape,
        "rung": rung,
        "measured_mb": round(run["peak"] / 1e6),
        "planned_mb": round(plan["total"] / 1e6),
        "cpu_s": round(run["cpu_s"], 1),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| setting | MB measured | MB planned | processor time |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        first = next(one for one in rows if one["shape"] == row["shape"])
        if row is first:
            lines.append(f"| **{row['shape']}** | | | |")
        time = f"{row['cpu_s'] / first['cpu_s']:.2f} x"
        lines.append(f"| {row['rung']} | {row['measured_mb']:,} | {row['planned_mb']:,} | {time} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
