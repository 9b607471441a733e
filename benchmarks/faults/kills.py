"""SIGKILL (or another signal) at random instants, and the same command again: does it end as if nothing had happened?

Full training, LoRA, frozen blocks with a cache, classification and `hone repeat`, in turn. At least half of the kills
of each fall inside preparing the data, saving (checkpoints, the final model) or publishing the cache, the others
anywhere; one trial in five is killed again while it resumes. The child says when it begins and ends such a stretch, so
what is counted is where a kill fell, not where it was aimed at. Afterwards the same command has to end with code 0,
weights, optimizer, metrics and measurements equal byte by byte to those of an undisturbed run (times left out), and no
temporary file, half checkpoint or dead process's cache may be left. The instants are drawn with --seed from the times
of the undisturbed run. Exit code 1: something was lost.

    python benchmarks/faults/kills.py                       # 200 kills, five minutes on one core
    python benchmarks/faults/kills.py --signal SIGTERM      # the run ends by itself, wherever it is
"""

import json
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import trials

AGAIN = 5  # one trial in so many is killed a second time
BEGINS, ENDS = "+", "-"  # how a line of the child begins
ELSEWHERE = "elsewhere"


class Span(NamedTuple):
    """Of the undisturbed run: what was done inside, and how long it took."""

    name: str
    seconds: float


class Work(NamedTuple):
    """One kind of run: where, its command, and what it gives undisturbed."""

    kind: str
    place: Path
    args: list[str]
    result: dict[str, Any]
    seconds: float
    spans: list[Span]


def marks(write: int) -> Callable[[], None]:
    """What a child does first: it says on `write` when it begins and ends to prepare, save or publish."""

    def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            os.write(write, f"{BEGINS}{name}\n".encode())
            try:
                return function(*args, **kwargs)
            finally:
                os.write(write, f"{ENDS}{time.monotonic() - began} {name}\n".encode())

        return call

    def before() -> None:
        from hone.accelerations.frozen_cache import FrozenCache
        from hone.training import train
        from hone.training.trainer import RunTrainer

        train.prepare = told("preparing", train.prepare)
        train.save_model = told("saving the model", train.save_model)
        RunTrainer._save_checkpoint = told("saving a checkpoint", RunTrainer._save_checkpoint)  # type: ignore[method-assign]
        FrozenCache.publish = told("publishing the cache", FrozenCache.publish)  # type: ignore[method-assign]

    return before


def undisturbed(kind: str, inputs: Path, place: Path) -> Work:
    """Run it once to import what it needs, once to know what it gives and how long it takes."""
    trials.import_what_trials_need(trials.command(kind, inputs, trials.fresh(place)), place)
    args = trials.command(kind, inputs, trials.fresh(place))
    read, write = os.pipe()
    ended = trials.run(args, place, marks(write))
    os.close(write)
    with os.fdopen(read) as stream:
        spans = [_span(line) for line in stream if line.startswith(ENDS)]
    if ended.code or trials.leftovers(place):
        raise SystemExit(f"{kind}: the undisturbed run failed: {ended.said}")
    return Work(kind, place, args, trials.result(place), ended.seconds, spans)


def _span(line: str) -> Span:
    """
    >>> _span("-0.25 saving the model")
    Span(name='saving the model', seconds=0.25)
    """
    seconds, _, name = line.removeprefix(ENDS).strip().partition(" ")
    return Span(name, float(seconds))


def killed(work: Work, rng: Random, number: int, *, inside: bool) -> tuple[str, str] | None:
    """Start the command, send a signal at an instant; where it fell and what was said, or None if it was too late."""
    read, write = os.pipe()
    name = rng.choice(sorted({span.name for span in work.spans}))
    nth = rng.choice([i for i, span in enumerate(work.spans) if span.name == name])
    share = rng.random()
    trial = trials.Trial(work.args, work.place, marks(write))
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as stream:
        told = b""
        if inside:
            told = _until_begin(read, nth)
            time.sleep(share * work.spans[nth].seconds)
        else:
            time.sleep(share * work.seconds)
        os.set_blocking(read, False)
        told += stream.read() or b""
        trial.kill(number)
        ended = trial.wait()
        if number == signal.SIGKILL:  # it has told nothing since it was killed, and is exact; others end by themselves
            told += stream.read() or b""
    return None if ended.code == 0 else (_where(told.decode()), ended.said)


def _until_begin(read: int, number: int) -> bytes:
    """Wait until the child begins its span of this number, or ends; what it has told until then."""
    told = b""
    while told.count(BEGINS.encode()) <= number:
        select.select([read], [], [])
        said = os.read(read, 4096)
        if not said:
            break
        told += said
    return told


def _where(told: str) -> str:
    """What a child was in when it told no more.

    >>> _where("+preparing\\n-0.1 preparing\\n+saving the model\\n")
    'in saving the model'
    """
    open_ones: list[str] = []
    for line in told.splitlines():
        if line.startswith(BEGINS):
            open_ones.append(line.removeprefix(BEGINS))
        else:
            open_ones.remove(_span(line).name)
    return f"in {open_ones[-1]}" if open_ones else ELSEWHERE


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 if something was lost."""
    parser = trials.arguments(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--kinds", default=",".join(trials.KINDS))
    given = parser.parse_args(argv)
    number = getattr(signal, given.signal)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a child has what this process has, and nohup ignores it
    root = trials.places("kills", given.work)
    trials.make_inputs(root / "inputs")
    works = [undisturbed(kind, root / "inputs", root / kind.replace(" ", "-")) for kind in given.kinds.split(",")]
    counts = {work.kind: Counter[str]() for work in works}
    troubles: list[str] = []
    trial = 0
    while sum(count["kills"] for count in counts.values()) < given.kills:
        work = works[trial % len(works)]
        troubles += one_trial(work, trials.random_of(given.seed, trial), counts[work.kind], trial, number)
        trial += 1
    columns = ["kills", ELSEWHERE, *sorted({name for each in counts.values() for name in each if name[:3] == "in "})]
    columns += ["trials", "resumed", "finished equal", "left-over files", "lost"]
    rows = [[kind, *(count[name] for name in columns)] for kind, count in counts.items()]
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, len(columns) + 1))])  # type: ignore[misc]
    print(trials.table(["run", *columns], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


def one_trial(work: Work, rng: Random, count: Counter[str], trial: int, number: int) -> list[str]:
    """Send a signal once or twice, finish it, and say what is not as it should be."""
    trials.fresh(work.place)
    work.place.joinpath("cfg.yaml").write_text(json.dumps(trials.settings(work.kind, *_folders(work)), indent=1))
    count["trials"] += 1
    said: list[str] = []
    fell: list[str] = []
    for _ in range(1 + (rng.randrange(AGAIN) == 0)):
        inside = 2 * count[ELSEWHERE] >= count["kills"]
        if (found := killed(work, rng, number, inside=inside)) is not None:
            count["kills"] += 1
            count[found[0]] += 1
            fell.append(found[0])
            said += [f"a traceback: {trials.last_line(found[1])}"] if "Traceback" in found[1] else []
    ended = trials.run(work.args, work.place)
    count["resumed"] += "resuming from" in ended.said
    if ended.code:
        said.append(f"exit code {ended.code}: {trials.last_line(ended.said)}")
    elif other := trials.differences(work.result, work.place):
        said.append(f"differs: {', '.join(other)}")
    count["finished equal"] += not said
    count["lost"] += bool(said)
    if left := trials.leftovers(work.place):
        count["left-over files"] += len(left)
        said.append(f"left over: {', '.join(left)}")
    return [f"- trial {trial} ({work.kind}, {', then '.join(fell) or 'too late'}): {one}" for one in said]


def _folders(work: Work) -> tuple[Path, Path]:
    return work.place.parent / "inputs", work.place


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
