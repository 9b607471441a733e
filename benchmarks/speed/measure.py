"""The parent's side: start the children, give them turns, and keep every number.

Only one child computes at a time; that the others use no processor meanwhile is measured, not assumed.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from speed.environment import environment
from speed.tables import Table

PROGRAM = Path(__file__).resolve().parents[1] / "speed.py"
CEILING = "matrix products"
QUIET = 0.15  # CPUs that other programs may use when a turn begins


@dataclass
class Turn:
    """One turn of one set-up. rates: operations a second of large products, before and after it.

    others: CPUs that other programs used meanwhile.
    """

    seconds: float
    tokens: int
    losses: list[float]
    rates: list[dict[str, float]]
    others: float
    held_out: float | None = None  # loss of the rows held out, at its end
    first_step_s: float | None = None  # from the start of the process to the end of its first step, where it is fresh

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    def rate(self, dtype: str) -> float:
        return statistics.mean(rate[dtype] for rate in self.rates)


@dataclass
class SetupResult:
    """What is known of one set-up: its turns, and the memory and time of its processes (the last one's)."""

    turns: list[Turn] = field(default_factory=list)
    warm_up_losses: list[float] = field(default_factory=list)
    flops_per_token: float = 0.0
    set_up_s: list[float] = field(default_factory=list)
    baseline: int = 0
    peak: int = 0


@dataclass
class Measured:
    setups: dict[str, SetupResult]
    began: str
    idle_cpu: float = 0.0  # the largest share of one processor that the waiting children used together in a turn

    def to_json(self, name: str) -> dict[str, Any]:
        return {"table": name, "environment": environment(), **asdict(self)}


class Child:
    """A child process: `ask(steps)` makes it train so many and returns its answer."""

    def __init__(self, task: dict[str, Any], folder: Path) -> None:
        self.name = task["setup"]
        self.first_step_s: float | None = None
        self.peak = 0  # bytes, as of its last turn
        self.scratch = folder / f"{self.name}-{time.time_ns()}"
        self.scratch.mkdir()
        self.log = self.scratch / "log.txt"
        # Waiting threads sleep instead of spinning: a child between its turns must leave the cores to the others.
        sleeping = {} if task["spin"] else {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
        self.began = time.perf_counter()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), "--child", json.dumps({**task, "scratch": str(self.scratch)})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **sleeping},
            )

    def listen(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
            raise SystemExit(f"speed.py: the set-up {self.name} ended with status {self.process.returncode}:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, steps: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.listen()

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def run_child(task: dict[str, Any], folder: Path) -> None:
    """A child that does one thing and ends."""
    child = Child(task, folder)
    if child.process.wait():
        raise SystemExit(f"speed.py: {task['setup']} failed:\n{child.log.read_text(errors='replace')[-2000:]}")
    child.stop()


def run_rounds(
    table: Table, task: dict[str, Any], setups: list[str], rounds: int, steps: int, tokens: list[int], folder: Path
) -> Measured:
    """Every set-up's turns. tokens: the real tokens of each step, the same for all."""
    measured = Measured({name: SetupResult() for name in setups}, datetime.now().isoformat(timespec="seconds"))
    ceiling = Child({**task, "setup": CEILING}, folder)
    ceiling.listen()
    children = {}
    try:
        if table.alive:
            children = {name: start(name, table, task, measured.setups[name], folder) for name in setups}
        for number in range(rounds):
            for name in setups if number % 2 == 0 else setups[::-1]:  # a machine that slows down is then fair to all
                result = measured.setups[name]
                child = children[name] if table.alive else start(name, table, task, result, folder)
                waiting = [other for other in [ceiling, *children.values()] if other is not child]
                wait_for_quiet(task["patience_s"])
                done = table.warm_up + (number * steps if table.alive else 0)
                turn, idle_cpu = take_turn(child, ceiling, waiting, tokens[: done + steps], steps)
                result.turns.append(turn)
                result.peak = max(result.peak, child.peak)
                measured.idle_cpu = max(measured.idle_cpu, idle_cpu)
                say(f"round {number + 1}: {name}: {turn.tokens_per_s:,.0f} tokens/s")
                if not table.alive:
                    child.stop()
    finally:
        for child in [ceiling, *children.values()]:
            child.stop()
    return measured


def start(name: str, table: Table, task: dict[str, Any], result: SetupResult, folder: Path) -> Child:
    """A child that is set up and has run its first, unmeasured steps."""
    from speed.peers import DROPOUT_AS_IT_COMES

    model = folder / ("as-it-comes" if name in DROPOUT_AS_IT_COMES else "no-dropout")
    child = Child({**task, "setup": name, "folder": str(model)}, folder)
    about = child.listen()
    result.set_up_s.append(time.perf_counter() - child.began)
    result.flops_per_token, result.baseline = about["flops_per_token"], about["baseline"]
    result.warm_up_losses = []
    for step in range(table.warm_up):
        result.warm_up_losses += child.ask(1)["losses"]
        if step == 0:
            child.first_step_s = time.perf_counter() - child.began
    say(f"{name}: set up in {result.set_up_s[-1]:.1f} s")
    return child


def take_turn(child: Child, ceiling: Child, waiting: list[Child], tokens: list[int], steps: int) -> tuple[Turn, float]:
    """`steps` steps of one child between two measurements of the ceiling; and the CPUs that waiting children used.

    tokens: real ones of all its steps from the first to the last of this turn.
    """

    def used() -> tuple[float, float, float, float]:
        return time.perf_counter(), cpu_seconds([child]), cpu_seconds(waiting), busy_seconds()

    rates = [ceiling.ask(1)["rates"]]
    before = used()
    answer = child.ask(steps)
    wall, working, idle, busy = (after - at for at, after in zip(before, used()))
    rates.append(ceiling.ask(1)["rates"])
    counted = answer["tokens_so_far"]
    assert counted in (None, sum(tokens)), f"{child.name}: {counted} tokens, not {sum(tokens)}: these are other rows"
    child.peak = answer["peak"]
    others = max((busy - working) / wall, 0.0)
    trained = sum(tokens[-steps:])
    turn = Turn(answer["seconds"], trained, answer["losses"], rates, others, answer["held_out"], child.first_step_s)
    return turn, idle / wall


def cpu_seconds(children: list[Child]) -> float:
    """Seconds of processor time these have used so far."""
    times = [psutil.Process(child.process.pid).cpu_times() for child in children]
    return float(sum(time.user + time.system for time in times))


def busy_seconds() -> float:
    """Seconds of processor time that anything on this machine has used so far."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "steal", 0.0))


def wait_for_quiet(patience_s: float) -> None:
    """Until other programs leave the processors alone, but no longer than that."""
    began = time.perf_counter()
    while time.perf_counter() - began < patience_s:
        before = busy_seconds()
        time.sleep(0.5)
        if (busy_seconds() - before) / 0.5 < QUIET:
            return


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
