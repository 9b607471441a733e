"""A fault at every system call of a save: an error (ENOSPC, EIO, EINTR) or SIGKILL, and the same command again.

The calls on the run folder of four parts of a run are listed once with strace: its start (until env.json), the saving
of a checkpoint (with the rotation of the one before), the saving of the final model, and the end (measurement, card,
manifest, report). Then there is one run for each call and each fault, in which exactly this call fails; afterwards the
same command without a fault has to end with weights, optimizer, metrics and measurements equal byte by byte to those
of an undisturbed run. Calls that change the disk get each of the four; calls that read it get EIO: a kill there finds
the disk as the next change would. Exit code 1: something was lost, or said in a traceback.

    python benchmarks/faults/sweep.py                              # all parts: half an hour on one core
    python benchmarks/faults/sweep.py --parts model --share 1/3    # a third of the calls of one part

Needs strace: sudo apt-get install strace.
"""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import straced
import trials
from straced import Call

FAULTS = ("ENOSPC", "EIO", "EINTR", "SIGKILL")
AT_ONCE, MESSAGE, KILLED = "finished at once", "one message, then finished", "killed, then finished"
TRACEBACK, LOST = "traceback, then finished", "LOST"
OUTCOMES = (AT_ONCE, MESSAGE, KILLED, TRACEBACK, LOST)
Around = Callable[..., Any]


def start(around: Around) -> None:
    """From the opening of the folder to what is known of the machine and the data."""
    from hone.training import train

    train.open_run = around(train.open_run, enters=True)
    train._remember_inputs = around(train._remember_inputs, leaves=True)


def checkpoint(around: Around) -> None:
    """The second save, which the first one gives way to."""
    from hone.training.trainer import RunTrainer

    save = around(RunTrainer._save_checkpoint, enters=True, leaves=True, nth=2)
    RunTrainer._save_checkpoint = save  # type: ignore[method-assign]


def model(around: Around) -> None:
    """The final weights, tokenizer and manifest."""
    from hone.training import train

    train.save_model = around(train.save_model, enters=True, leaves=True)


def end(around: Around) -> None:
    """From the measurement of the tuned model to the report."""
    from hone.training import train

    train.measure = around(train.measure, enters=True)
    train.write_report_or_say = around(train.write_report_or_say, leaves=True)


PARTS = {part.__name__: part for part in (start, checkpoint, model, end)}


class Sweep:
    """One kind of run in one place, and what it gives undisturbed."""

    def __init__(self, kind: str, place: Path, inputs: Path, **more: Any) -> None:
        self.place = place
        self.args = trials.command(kind, inputs, trials.fresh(self.place), save_total_limit=1, **more)
        trials.import_what_trials_need(self.args, self.place)
        self.again()
        ended = trials.run(self.args, self.place)
        if ended.code:
            raise SystemExit(f"the undisturbed run failed: {ended.said}")
        self.whole = trials.result(self.place)

    def again(self) -> None:
        """No run; its tokens stay."""
        shutil.rmtree(self.place / "run", ignore_errors=True)

    def calls(self, part: str) -> list[Call]:
        """The calls of a part on the run folder."""
        self.again()
        return straced.calls(self.args, self.place, PARTS[part], self.place / "calls.txt")

    def outcome(self, part: str, call: Call, fault: str) -> tuple[str, str]:
        """How a run with one fault, and the same command after it, ended; and what is to be said of it."""
        self.again()
        first = straced.trial(self.args, self.place, PARTS[part], straced.fault(call, fault))
        second = trials.run(self.args, self.place)
        bad = [f"exit code {second.code}: {trials.last_line(second.said)}"] if second.code else []
        bad += [f"{name} differs" for name in trials.differences(self.whole, self.place)]
        bad += [f"left over: {name}" for name in trials.leftovers(self.place)]
        if bad:
            return LOST, "; ".join(bad)
        if "Traceback" in first.said or first.code == trials.TRACEBACK:
            return TRACEBACK, trials.last_line(first.said)
        if first.code == -9:
            return KILLED, ""
        return (MESSAGE if first.code else AT_ONCE), trials.last_line(first.said)


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 if something was lost or not said well."""
    parser = trials.arguments(__doc__, shares="call")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--kind", default="full", choices=list(trials.KINDS)[:4])
    given = parser.parse_args(argv)
    if why := straced.available():
        print(why)
        return 2
    root = trials.places("sweep", given.work)
    trials.make_inputs(root / "inputs")
    sweep = Sweep(given.kind, root / "sweep", root / "inputs")
    rows, troubles, said = [], [], Counter[str]()
    for part in given.parts.split(","):
        found = sweep.calls(part)
        chosen = trials.share_of(found, given.share)
        for fault in FAULTS:
            count: Counter[str] = Counter()
            swept = [call for call in chosen if call.changes or fault == "EIO"]
            for call in swept:
                what, words = sweep.outcome(part, call, fault)
                count[what] += 1
                said[json.dumps([part, fault, call.name, what, words[:150]])] += 1
                if what in (TRACEBACK, LOST):
                    troubles.append(f"- {what}: {fault} at {call.name}({call.text[:90]} of {part}: {words[:300]}")
                    print(troubles[-1], file=sys.stderr, flush=True)
            rows.append([f"{part}, {fault}", len(found), len(swept), *(count[name] for name in OUTCOMES)])
    (root / "said.json").write_text("\n".join(f"{n} {line}" for line, n in said.most_common()))
    print(trials.table(["part, fault", "calls", "trials", *OUTCOMES], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
