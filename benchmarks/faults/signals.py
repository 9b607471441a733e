"""Every signal at every stage of a run, and the same command again: does it end as if nothing had happened?

The run stops where a stage is under way; the signal is sent; then the run goes on, if it can. The stages: the base is
measured, a training step, a checkpoint is written, the final model is written, the tuned model is measured, its
programs are graded (where there is bubblewrap), the card and the manifest are written, the report is written. A signal
that can be heard ends the run with exit code 130, one line that says how to go on, and a status.json that says so. Exit
code 1: something was lost or not said.

    python benchmarks/faults/signals.py                     # 40 trials, a minute on one core
"""

import json
import os
import select
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import trials

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGKILL")
HEARD = ("SIGTERM", "SIGINT", "SIGHUP")
GRADING = "grading"
TASKS = [
    {"task_id": name, "prompt": f"def {name}(a, b):\n", "entry_point": name, "tests": [f"assert {name}(1, 2) == {n}"]}
    for name, n in (("add", 3), ("subtract", -1))
]
STAGES: dict[str, trials.Moment] = {
    "base measured": ("hone.evaluation.held_out", "evaluate_model", 1),
    "training": ("hone.training.trainer.HoneTrainer", "training_step", 4),
    "saving a checkpoint": ("hone.training.trainer.RunTrainer", "_complete", 2),
    "saving the model": ("hone.training.checkpoint", "save_tokenizer", 1),
    "tuned measured": ("hone.evaluation.held_out", "evaluate_model", 2),
    GRADING: ("hone.grading.grade.Grader", "first", 3),  # two tasks, by base and by tuned
    "card and manifest": ("hone.training.train", "model_card", 1),
    "report": ("hone.training.train", "write_report_or_say", 1),
}


def sent(number: int, place: trials.Moment, args: list[str], folder: Path) -> trials.Ended:
    """Run until the place, send the signal, and wait for the end."""
    told, tell = os.pipe()
    gate, opener = os.pipe()

    def before() -> None:
        os.close(told)
        os.close(opener)  # a child that waits goes on when this process is killed
        trials.at(place, lambda: _stop(tell, gate))()

    child = trials.Trial(args, folder, before)
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


def _stop(tell: int, gate: int) -> None:
    """In the child: say that it is there, and wait for the signal."""
    os.write(tell, b"x")
    os.read(gate, 1)


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 if something was lost."""
    parser = trials.arguments(__doc__)
    parser.add_argument("--signals", default=",".join(SIGNALS))
    parser.add_argument("--stages", default=",".join(STAGES))
    given = parser.parse_args(argv)
    root = trials.places("signals", given.work)
    trials.make_inputs(root / "inputs")
    place = root / "run"
    (root / "inputs" / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    wholes: dict[bool, dict[str, Any]] = {}
    rows, troubles = [], []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a child has what this process has, and nohup ignores it
    for stage in given.stages.split(","):
        if stage == GRADING and not shutil.which("bwrap"):
            continue
        more = {"code_tasks": str(root / "inputs" / "tasks.jsonl"), "max_new_tokens": 8} if stage == GRADING else {}
        args = trials.command("full", root / "inputs", place, eval_base=True, **more)
        if bool(more) not in wholes:
            shutil.rmtree(place / "run", ignore_errors=True)
            trials.import_what_trials_need(args, place)
            wholes[bool(more)] = trials.result(place)
        whole, row = wholes[bool(more)], [stage]
        for name in given.signals.split(","):
            shutil.rmtree(place / "run", ignore_errors=True)
            first = sent(getattr(signal, name), STAGES[stage], args, place)
            said = not_said(stage, first, place / "run") if name in HEARD else []
            second = trials.run(args, place)
            row.append(how(first))
            bad = [f"exit code {second.code}: {trials.last_line(second.said)}"] if second.code else []
            bad += said + [f"{one} differs" for one in trials.differences(whole, place)]
            bad += [f"left over: {one}" for one in trials.leftovers(place)]
            if "Traceback" in first.said:
                bad.append(f"a traceback: {trials.last_line(first.said)}")
            troubles += [f"- {name} at {stage}: {one}" for one in bad]
        rows.append([*row, "equal" if not any(f" at {stage}:" in one for one in troubles) else "NO"])
    print(trials.table(["stage", *given.signals.split(","), "the same command"], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


def not_said(stage: str, ended: trials.Ended, run: Path) -> list[str]:
    """What of a signal that was heard is missing: the exit code, the line, the status."""
    said = [] if ended.code == 130 else [f"exit code {ended.code}, not 130"]
    last = trials.last_line(ended.said)
    if not (last.startswith("interrupted: ") and last.endswith("the same command goes on from there")):
        said.append(f"the last line is {last!r}")
    status = json.loads((run / "status.json").read_text())["status"] if run.is_dir() else "no folder"
    wanted = {"base measured": "no folder", "report": "finished"}.get(stage, "interrupted")
    return [*said, *([] if status == wanted else [f"status.json says {status}, not {wanted}"])]


def how(ended: trials.Ended) -> str:
    """How a run took a signal."""
    if ended.code == 0:
        return "went on to its end"
    if ended.code < 0:
        return f"killed ({signal.Signals(-ended.code).name})"
    return f"exit code {ended.code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
