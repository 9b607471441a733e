"""How many generated programs are graded in a second, in two sandboxes each, and what is left behind afterwards.

Each program is different, so nothing comes from the cache. `bare` is the interpreter alone, twice a task, as the floor.

    python benchmarks/grading.py                                   # small tasks made on the spot
    python benchmarks/grading.py --tasks HumanEval.jsonl.gz        # a file's own solutions
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hone.grading.grade import grade
from hone.grading.sandbox.isolation import Sandbox
from hone.grading.sandbox.selftest import ready
from hone.grading.tasks import Task, as_task, read_tasks
from hone.hardware import count_cpus, read_cgroup, read_cpu


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=Path, help="a file of tasks with solutions")
    parser.add_argument("--samples", type=int, default=200, help="programs graded for each number of workers")
    parser.add_argument("--workers", default="1,2,3,4", help="numbers of workers to try")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=0, help="then grade this many and count what is left")
    parser.add_argument("--isolation", choices=("strict", "none"), default="strict")
    given = parser.parse_args(arguments)
    tasks = read_tasks(given.tasks) if given.tasks else made_tasks()
    model, _ = read_cpu()
    cpus = count_cpus(read_cgroup().cpus).usable
    print(f"{model}, {cpus:g} CPUs; Python {platform.python_version()}; {len(tasks)} tasks")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as own, ready(given.isolation) as sandbox:
        tempfile.tempdir = own  # so that only our temporary files are counted
        print(f"start-up check: {time.perf_counter() - began:.2f} s\n")
        print("| workers | tasks/s: median (spread) | bare, tasks/s |")
        print("| ---: | ---: | ---: |")
        rates: dict[int, list[tuple[float, float]]] = {int(n): [] for n in given.workers.split(",")}
        for number in range(given.rounds):
            for workers, found in rates.items():
                samples = distinct(tasks, given.samples, f"{number}-{workers}")
                bare = bare_per_s(given.samples // 4, workers, sandbox)
                found.append((graded_per_s(tasks, samples, workers, sandbox), bare))
        for workers, found in rates.items():
            graded, bares = (sorted(column) for column in zip(*found))
            middle = len(graded) // 2
            print(f"| {workers} | {graded[middle]:.1f} ({graded[0]:.1f} to {graded[-1]:.1f}) | {bares[middle]:.1f} |")
        if given.many:
            print(f"\n{given.many} more: {json.dumps(after_many(tasks, given.many, sandbox))}")


def made_tasks(n: int = 20) -> list[Task]:
    """Small tasks with a dozen calls each."""
    rows: list[dict[str, Any]] = [
        {
            "task_id": f"made/{number}",
            "prompt": f"def scale(numbers, by={number}):\n    '''Multiply each number.'''\n",
            "entry_point": "scale",
            "tests": [f"for n in range(12):\n    assert scale([n, 1.5]) == [n * {number}, 1.5 * {number}]"],
            "reference": "    return [number * by for number in numbers]\n",
        }
        for number in range(n)
    ]
    return [as_task(row) for row in rows]


def distinct(tasks: Sequence[Task], n: int, mark: str) -> list[dict[str, Any]]:
    """n samples, none like another: the tasks' solutions, each with a comment of its own."""
    samples = []
    for number in range(n):
        task = tasks[number % len(tasks)]
        samples.append({"task_id": task.task_id, "solution": f"{task.reference}\n# {mark}-{number}\n"})
    return samples


def graded_per_s(tasks: Sequence[Task], samples: Sequence[dict[str, Any]], workers: int, sandbox: Sandbox) -> float:
    began = time.perf_counter()
    results = grade(tasks, samples, workers=workers, sandbox=sandbox, timeout=10)
    seconds = time.perf_counter() - began
    failed = [result for result in results if not result.passed]
    if failed:
        sys.exit(f"a solution does not pass: {failed[0]}")
    return len(samples) / seconds


def bare_per_s(n: int, workers: int, sandbox: Sandbox) -> float:
    """Tasks a second if each cost no more than starting two interpreters."""
    words = [*sandbox.python, "-c", "pass"]

    def start(number: int) -> None:
        for _ in range(2):
            subprocess.run(words, check=True, env={})

    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(start, range(n)))
    return n / (time.perf_counter() - began)


def after_many(tasks: Sequence[Task], n: int, sandbox: Sandbox) -> dict[str, Any]:
    """Grade n programs; then the differences in descriptors, processes, zombies and files."""
    before = left()
    rate = graded_per_s(tasks, distinct(tasks, n, "many"), 3, sandbox)
    time.sleep(0.1)
    after = left()
    return {"tasks_per_s": round(rate, 1), "left": {name: after[name] - before[name] for name in before}}


def left() -> dict[str, int]:
    """Counts of what sandboxes could leave: zombies and bubblewraps of the machine, our descriptors, files."""
    zombies = sandboxes = 0
    for folder in Path("/proc").iterdir() if Path("/proc").is_dir() else []:
        if folder.name.isdigit():
            try:
                name, state = (folder / "stat").read_text().split("(", 1)[1].rsplit(") ", 1)
            except (OSError, IndexError):
                continue
            zombies += state[0] == "Z"
            sandboxes += name == "bwrap"
    descriptors = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    return {
        "zombies": zombies,
        "sandboxes": sandboxes,
        "descriptors": descriptors,
        "temporary files": len(list(Path(tempfile.gettempdir()).iterdir())),
    }


if __name__ == "__main__":
    main()
