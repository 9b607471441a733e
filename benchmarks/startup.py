"""From the command to its first result: seconds of `hone --help`, `hone check`, `hone generate`, `hone train`.

    python benchmarks/startup.py                     # this checkout
    python benchmarks/startup.py ../hone-before .    # two checkouts, in alternation

Each command runs in a new process, with caches that are warm: one round before the first is not counted. A training is
timed up to the end of its first step, that is, with its data prepared and its base measured; it starts a random tiny
GPT-2 on 24 rows. "torch" and "Trainer" are the least that Python takes to import what they need.
"""

import argparse
import contextlib
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "src/hone/assets/base"
IMPORTS = {"torch": "import torch", "Trainer": "from transformers import Trainer"}
COMMANDS = {
    "hone --help": ["--help"],
    "hone check": ["check", "tiny.yaml"],
    "hone generate": ["generate", "hone-base", "def add(a, b):", "--max-new-tokens", "32"],
}
TRAIN = "hone train, first step"
CONFIG = """\
model: {model_name_or_path: tiny}
data: {train_file: rows.jsonl, max_length: 64}
train: {max_steps: 2, logging_steps: 1}
eval: {sample_prompts: 0}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, default=[ROOT], help="checkouts, with src/hone in them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="of all threads: ratios that other work disturbs less")
    parser.add_argument("--only", nargs="+", help="some of: torch, Trainer, --help, check, generate, train")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        write_inputs(place)
        cases = chosen(place, options.only)
        clock = cpu_time if options.cpu_time else time.perf_counter
        times = measured(cases, [tree.resolve() for tree in options.trees], options.rounds, clock)
    print(table(times, options.trees))


def write_inputs(place: Path) -> None:
    """Rows, a tiny random GPT-2 with hone-base's tokenizer, and a configuration."""
    from transformers import GPT2Config, GPT2LMHeadModel

    rows = [{"text": f"def f{i}(a, b):\n    return a * {i} + b\n"} for i in range(24)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "tiny.yaml").write_text(CONFIG)
    small = {"n_layer": 2, "n_head": 2, "n_embd": 64, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=8192, bos_token_id=0, eos_token_id=0, **small)).save_pretrained(
        place / "tiny"
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE / name, place / "tiny")


def chosen(place: Path, only: list[str] | None) -> dict[str, Callable[[Path], None]]:
    """What is timed, by name: each takes a checkout."""
    cases: dict[str, Callable[[Path], None]] = {}
    for name, program in IMPORTS.items():
        cases[name] = functools.partial(run_to_end, ["-c", program], place)
    for name, words in COMMANDS.items():
        cases[name] = functools.partial(run_to_end, ["-m", "hone", *words], place)
    cases[TRAIN] = functools.partial(run_to_first_step, place)
    return {name: case for name, case in cases.items() if not only or any(word in name for word in only)}


def environment(tree: Path, place: Path) -> dict[str, str]:
    more = {"PYTHONPATH": str(tree / "src"), "HONE_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **more}


def run_to_end(words: list[str], place: Path, tree: Path) -> None:
    subprocess.run([sys.executable, *words], cwd=place, env=environment(tree, place), check=True, capture_output=True)


def run_to_first_step(place: Path, tree: Path) -> None:
    """A training up to the line of its first step in metrics.jsonl."""
    run = place / "run"
    words = [sys.executable, "-m", "hone", "train", "tiny.yaml", f"output_dir={run}"]
    with subprocess.Popen(words, cwd=place, env=environment(tree, place), stderr=subprocess.PIPE) as process:
        while not written(run / "metrics.jsonl"):
            if process.poll() is not None:
                raise SystemExit(f"the training has ended: {process.communicate()[1].decode()}")
            time.sleep(0.005)
        process.kill()
    shutil.rmtree(run)


def written(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return b"\n" in path.read_bytes()
    return False


def cpu_time() -> float:
    """Seconds of all processors that processes have taken which this one began and which have ended."""
    used = os.times()
    return used.children_user + used.children_system


def measured(
    cases: dict[str, Callable[[Path], None]], trees: list[Path], rounds: int, clock: Callable[[], float]
) -> dict[str, list[list[float]]]:
    """Seconds of each case: for each checkout, those of its rounds; the checkouts take turns."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in trees] for name in cases}
    for number in range(-1, rounds):
        for name, case in cases.items():
            for i, tree in enumerate(trees):
                began = clock()
                case(tree)
                if number >= 0:
                    times[name][i].append(clock() - began)
    return times


def table(times: dict[str, list[list[float]]], trees: list[Path]) -> str:
    ratio = len(trees) == 2
    heads = [str(tree) for tree in trees] + (["ratio"] if ratio else [])
    lines = [f"| seconds: median (least) | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for name, of_trees in times.items():
        cells = [f"{statistics.median(of_tree):.2f} ({min(of_tree):.2f})" for of_tree in of_trees]
        if ratio:
            cells.append(f"{statistics.median(b / a for a, b in zip(*of_trees)):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
