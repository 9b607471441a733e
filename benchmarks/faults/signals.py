"""Every signal at every stage of a run, and the same command again: does it end as if nothing had happened?

The run stops where a stage is under way; the signal is sent; then the run goes on, if it can. The stages: the base is
measured, a training step, a checkpoint is written, the final model is written, the tuned model is measured, the card
and the manifest are written, the report is written. Exit code 1: something was lost.

    python benchmarks/faults/signals.py                     # 35 trials, under a minute on one core
"""

import argparse
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import trials

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGKILL")
Place = tuple[str, str, int]  # the module or class, its function, and which call of it
STAGES: dict[str, Place] = {
    "base measured": ("hone.evaluation.held_out", "evaluate_model", 1),
    "training": ("hone.training.trainer.HoneTrainer", "training_step", 4),
    "saving a checkpoint": ("hone.training.trainer.RunTrainer", "_complete", 2),
    "saving the model": ("hone.training.checkpoint", "save_tokenizer", 1),
    "tuned measured": ("hone.evaluation.held_out", "evaluate_model", 2),
    "card and manifest": ("hone.training.train", "model_card", 1),
    "report": ("hone.training.train", "write_report_or_say", 1),
}


def stops(place: Place, tell: int, gate: int) -> Callable[[], None]:
    """What the child does first: it will say when it is there, and wait for the signal."""
    owner_name, name, nth = place

    def before() -> None:
        import importlib

        module, _, kind = owner_name.rpartition(".")
        owner: Any = (
            getattr(importlib.import_module(module), kind) if kind[0].isupper() else importlib.import_module(owner_name)
        )
        function, count = getattr(owner, name), 0

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth:
                os.write(tell, b"x")
                os.read(gate, 1)
            return function(*args, **kwargs)

        setattr(owner, name, call)

    return before


def sent(number: int, place: Place, args: list[str], folder: Path) -> trials.Ended:
    """Run until the place, send the signal, and wait for the end."""
    told, tell = os.pipe()
    gate, opener = os.pipe()
    child = trials.Trial(args, folder, stops(place, tell, gate))
    os.close(tell)
    os.close(gate)
    try:
        select.select([told], [], [])
        if not os.read(told, 1):
            raise SystemExit(f"the run ended before {place[1]}: {child.wait().said}")
        child.kill(number)
        os.write(opener, b"x")
        return child.wait()
    finally:
        os.close(told)
        os.close(opener)


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", default=",".join(SIGNALS))
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--work", type=Path)
    given = parser.parse_args(argv)
    root = trials.places("signals", given.work)
    trials.make_inputs(root / "inputs")
    place = root / "run"
    args = trials.command("full", root / "inputs", trials.fresh(place), eval_base=True)
    trials.import_what_trials_need(args, place)
    whole, rows, troubles = trials.result(place), [], []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a child has what this process has, and nohup ignores it
    for stage in given.stages.split(","):
        row: list[object] = [stage]
        for name in given.signals.split(","):
            shutil.rmtree(place / "run", ignore_errors=True)
            first = sent(getattr(signal, name), STAGES[stage], args, place)
            second = trials.run(args, place)
            row.append(how(first))
            bad = [f"exit code {second.code}: {trials.last_line(second.said)}"] if second.code else []
            bad += [f"{one} differs" for one in trials.differences(whole, place)]
            bad += [f"left over: {one}" for one in trials.leftovers(place)]
            if "Traceback" in first.said:
                bad.append(f"a traceback: {trials.last_line(first.said)}")
            troubles += [f"- {name} at {stage}: {one}" for one in bad]
        rows.append([*row, "equal" if not any(f" at {stage}:" in one for one in troubles) else "NO"])
    print(trials.table(["stage", *given.signals.split(","), "the same command"], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


def how(ended: trials.Ended) -> str:
    """How a run took a signal."""
    if ended.code == 0:
        return "went on to its end"
    if ended.code < 0:
        return f"killed ({signal.Signals(-ended.code).name})"
    return f"exit code {ended.code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
