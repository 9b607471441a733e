"""`hone plan` against the real thing: estimated and measured memory of whole runs, in a process each.

For every config the plan is made first, then the same config is trained from start to end (base measured, every step,
checkpoints, tuned model measured) in a fresh process. Measured is the peak resident memory of that process, minus what
it held before: imports, and a one-step run of a tiny model, which loads what is only loaded when it is used.
Models are random and rows are made; nothing is downloaded.

    python benchmarks/plan_accuracy.py
    python benchmarks/plan_accuracy.py --only lora --json
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

DISTILGPT2 = {"n_layer": 6, "n_head": 12, "n_embd": 768, "vocab_size": 50257, "n_positions": 1024}
TINY = {"n_layer": 4, "n_head": 4, "n_embd": 256, "vocab_size": 8000, "n_positions": 1024}
SMALL = {"n_layer": 6, "n_head": 6, "n_embd": 384, "vocab_size": 8000, "n_positions": 1024}
SMALLEST = {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 2000, "n_positions": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "full, 5M, flat rows": {"model": "tiny", "max_length": 256, "per_device_train_batch_size": 16},
    "full, 82M, short rows": {"model": "distilgpt2", "max_length": 64, "per_device_train_batch_size": 2},
    "freeze, top 2 of 6": {
        "model": "distilgpt2",
        "method": "freeze",
        "num_unfrozen_layers": 2,
        "max_length": 256,
        "per_device_train_batch_size": 4,
    },
    "lora r 16, bfloat16": {
        "model": "distilgpt2",
        "method": "lora",
        "dtype": "bfloat16",
        "max_length": 256,
        "per_device_train_batch_size": 4,
    },
    "full, 5M, padded long": {
        "model": "tiny",
        "max_length": 1024,
        "batching": "padded",
        "per_device_train_batch_size": 4,
    },
}
N_ROWS = 24


def main() -> None:
    options = parse_options()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
    if options.child:
        kind, settings = json.loads(options.child)
        print(json.dumps(planned(settings) if kind == "plan" else trained(settings)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HONE_CACHE"] = str(folder / "cache")
        make_inputs(folder)
        chosen = {title: config for title, config in CONFIGS.items() if options.only in title}
        rows = [compare(title, config, folder, n) for n, (title, config) in enumerate(chosen.items())]
    print(json.dumps(rows) if options.json else f"{machine_line()}\n\n{markdown(rows)}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="hone plan's memory against measured memory")
    parser.add_argument("--only", default="", metavar="TEXT", help="only configs whose title contains this")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def machine_line() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}, {date.today()}"
    )


def make_inputs(folder: Path) -> None:
    """A tokenizer, rows of words, and random models in float32."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from hone.data.tokenizer import train_bpe

    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=4)) for _ in range(600)]
    tokenizer = train_bpe([" ".join(chance.choices(words, k=500)) for _ in range(100)], vocab_size=2000)
    shapes = {"tiny": TINY, "small": SMALL, "distilgpt2": DISTILGPT2, "smallest": SMALLEST}
    for name, sizes in shapes.items():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(N_ROWS):
            n = chance.randrange(60, 600)
            file.write(json.dumps({"text": " ".join(chance.choices(words, k=n))}) + "\n")


def compare(title: str, config: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    settings = {
        **{key: value for key, value in config.items() if key != "model"},
        "model_name_or_path": str(folder / config["model"]),
        "train_file": str(folder / "rows.jsonl"),
        "num_train_epochs": 1,
        "sample_prompts": 0,
        "eval_tokens_per_batch": 1024,
        "use_cpu": True,
        "output_dir": str(folder / "runs" / str(number)),
    }
    plan, run = child("plan", settings), child("train", settings)
    return {
        "config": title,
        "estimated_mb": plan["total"] / 1e6,
        "measured_mb": run["peak"] / 1e6,
        "error": plan["total"] / run["peak"] - 1,
        "fullest": plan["fullest"],
        "plan_s": plan["seconds"],
        "parts": plan["parts"],
        "baseline_mb": run["baseline"] / 1e6,
    }


def child(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The result of a fresh process of this script."""
    command = [sys.executable, __file__, "--child", json.dumps([kind, settings])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind} of {settings} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def planned(settings: dict[str, Any]) -> dict[str, Any]:
    import time
    from dataclasses import asdict

    from hone.config.load import load_config
    from hone.planning.plan import make_plan

    began = time.perf_counter()
    memory = make_plan(load_config(settings)).memory
    return {
        "total": memory.total,
        "fullest": memory.fullest,
        "parts": asdict(memory),
        "seconds": time.perf_counter() - began,
    }


def trained(settings: dict[str, Any]) -> dict[str, Any]:
    import time

    import psutil

    import hone
    from hone.hardware import peak_memory_bytes

    folder = Path(settings["output_dir"]).parent
    small = {"model_name_or_path": str(folder.parent / "smallest"), "max_length": 32, "max_steps": 1, "method": "full"}
    if settings.get("method") == "lora":
        small["method"] = "lora"
    hone.train(
        hone.load_config({**settings, **small, "dtype": "float32", "output_dir": f"{settings['output_dir']}-warm"})
    )
    baseline = psutil.Process().memory_info().rss
    began = time.process_time()
    hone.train(hone.load_config(settings))
    cpu_s = time.process_time() - began
    return {"peak": peak_memory_bytes() - baseline, "baseline": baseline, "cpu_s": cpu_s}


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| config | estimated MB | measured MB | error | fullest in | plan took |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in rows:
        lines.append(
            f"| {row['config']} | {row['estimated_mb']:,.0f} | {row['measured_mb']:,.0f} | {row['error']:+.1%} | "
            f"{row['fullest']} | {row['plan_s']:.1f} s |"
        )
    mean = statistics.mean(abs(row["error"]) for row in rows)
    worst = max(abs(row["error"]) for row in rows)
    return "\n".join([*lines, "", f"mean |error| {mean:.1%}, largest {worst:.1%}"])


if __name__ == "__main__":
    main()
