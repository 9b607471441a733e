"""Power lost at each change of the disk: only what was synced is there, and the same command again.

A SIGKILL loses nothing that was written; a power cut does. So a part of a run is traced once; then it is killed at each
call that changes the disk, and of what is there then, this is taken away: the content of every file that was not synced
since it was last written; in a second and a third variant also every rename whose folder was not synced since (the
name's old content comes back; a folder also goes back as it is now, half deleted, say); in a fourth, the new files that
were not synced are gone. The parts:

    start        from the making of the folder to the first step: configuration, token store, the base's measurement
    cache        of a frozen run: from the making of its cache to where later runs may use it
    checkpoint   the second save, which the first one gives way to
    model        the final weights, tokenizer and manifest
    end          the measurement of the tuned model, comparison, samples, card, seal, report

From each of these disks the same command has to go on to weights, optimizer, metrics and measurements equal byte by
byte to those of an undisturbed run, with card and report, and `hone verify` may find nothing. metrics.jsonl may lack
lines if that is said. Exit code 1: something was lost.

    python benchmarks/faults/powerloss.py                           # all parts: forty minutes on one core
    python benchmarks/faults/powerloss.py --parts checkpoint --share 1/3

Needs strace: sudo apt-get install strace.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import straced
import trials
from straced import Call
from sweep import Around, Sweep, checkpoint, model

VARIANTS = ("renames kept", "renames undone", "folders back as they are", "new files gone")
WRITES = {"write", "writev", "pwrite64", "ftruncate", "fallocate", "openat"}
DISK = ("run", "tokens")  # the folders that a power cut finds
WRITTEN = ("README.md", "report.md", "report.html")  # with clocks in them: there, and not empty
MEASURED = {"eval_base": True, "sample_prompts": 1, "max_new_tokens": 8}
OF_FD = re.compile(r"^\d+<([^>]*)>")
PATHS = re.compile(r'"(/[^"]*)"')
OF_A_PROCESS = re.compile(r"\.tmp-\d+$|/\.tmp\w+$")  # names that differ from run to run; the sweep removes them


def start(around: Around) -> None:
    """From the making of the folder to the first step."""
    from hone.training import train
    from hone.training.trainer import HoneTrainer

    train.open_run = around(train.open_run, enters=True)
    step = around(HoneTrainer.training_step, leaves=True)
    HoneTrainer.training_step = step  # type: ignore[method-assign]


def cache(around: Around) -> None:
    """From the making of a frozen cache to where later runs may use it."""
    from hone.accelerations import frozen_cache
    from hone.accelerations.frozen_cache import FrozenCache

    frozen_cache.begin = around(frozen_cache.begin, enters=True)
    FrozenCache.publish = around(FrozenCache.publish, leaves=True)  # type: ignore[method-assign]


def end(around: Around) -> None:
    """From the measurement of the tuned model to the report."""
    from hone.training import train

    train.measure = around(train.measure, enters=True, nth=2)
    train.write_report_or_say = around(train.write_report_or_say, leaves=True)


PARTS = {"start": start, "cache": cache, "checkpoint": checkpoint, "model": model, "end": end}


class Rename:
    """One that was made and whose folder is not synced yet. number: which change it was."""

    def __init__(self, number: int, old: str, new: str) -> None:
        self.number, self.old, self.new = number, old, new


class Pending(NamedTuple):
    """What a power cut may take. dirty: files whose content; new: those of them that were never synced, whole."""

    dirty: set[str]
    new: set[str]
    renames: list[Rename]


def pending(calls: list[Call]) -> Iterator[Pending]:
    """Before each call: what is not synced."""
    dirty: set[str] = set()
    new: set[str] = set()
    renames: list[Rename] = []
    for number, call in enumerate(calls):
        yield Pending(set(dirty), dirty & new, list(renames))
        inside, names = OF_FD.match(call.text), PATHS.findall(call.text)
        if call.name.startswith("rename") and len(names) == 2:
            old, to = names
            dirty, new = (
                {to + path.removeprefix(old) if path == old or path.startswith(f"{old}/") else path for path in paths}
                for paths in (dirty, new)
            )
            renames.append(Rename(number, old, to))
        elif call.name in ("fsync", "fdatasync") and inside:
            dirty.discard(inside[1])
            new.discard(inside[1])
            renames = [one for one in renames if str(Path(one.new).parent) != (inside[1] or "/")]
        elif call.name in WRITES:
            dirty.add(inside[1] if inside else names[0])
            if call.name == "openat" and ("O_EXCL" in call.text or "O_TRUNC" in call.text):
                new.add(names[0])


def lose(disk: Path, variant: str, lost: Pending, before: dict[int, Path]) -> bool:
    """Take from a killed run's folders what a power cut would; False where this variant takes nothing more."""
    dirty, new, renames = lost
    for name in dirty:
        if (disk / name[1:]).is_file():
            (disk / name[1:]).write_bytes(b"")
    if variant == VARIANTS[0]:
        return bool(dirty)
    if variant == VARIANTS[3]:
        for name in new:
            (disk / name[1:]).unlink(missing_ok=True)
        return bool(new)
    undone = [one for one in reversed(renames) if variant == VARIANTS[1] or (disk / one.new[1:]).is_dir()]
    for one in undone:
        if variant == VARIANTS[2]:
            if (disk / one.new[1:]).is_dir() and not (disk / one.old[1:]).exists():
                (disk / one.new[1:]).rename(disk / one.old[1:])
        elif one.number not in before:
            return False
        else:
            for name in (one.new[1:], one.old[1:]):
                _put_back(disk / name, before[one.number] / name)
    return bool(undone)


def _put_back(path: Path, was: Path) -> None:
    """A name as it was before a rename."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if was.is_dir():
        shutil.copytree(was, path)
    elif was.is_file() and not OF_A_PROCESS.search(str(was)):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(was, path)


def copy(disk: Path, to: Path) -> None:
    """The folders that a power cut finds."""
    for name in DISK:
        shutil.rmtree(to / name, ignore_errors=True)
        if (disk / name).is_dir():
            shutil.copytree(disk / name, to / name)


class Cuts:
    """A part of a run: its changes of the disk, and what each of them finds there.

    part: by name. kept: where the disks are put.
    """

    def __init__(self, part: str, sweep: Sweep, kept: Path, share: str) -> None:
        self.part, self.sweep, self.kept = part, sweep, trials.fresh(kept)
        self._empty()
        found = straced.calls(sweep.args, sweep.place, PARTS[part], sweep.place / "calls.txt", DISK)
        self.calls = [call for call in found if call.changes]
        self.lost = list(pending(self.calls))
        self.chosen = trials.share_of(range(len(self.calls)), share)
        needed = {one.number for number in self.chosen for one in self.lost[number].renames}
        for number in sorted({*self.chosen, *needed}):
            self._empty()
            straced.trial(sweep.args, sweep.place, PARTS[part], straced.fault(self.calls[number], "SIGKILL"))
            copy(sweep.place, kept / str(number))
        self.before = {number: kept / str(number) for number in needed}

    def _empty(self) -> None:
        """No run; and for what belongs to a start, no caches either."""
        self.sweep.again()
        if self.part in ("start", "cache"):
            shutil.rmtree(self.sweep.place / "tokens", ignore_errors=True)

    def go_on(self, variant: str) -> Iterator[str]:
        """For each disk of this variant: what is wrong when the same command has gone on from it, or nothing."""
        for number in self.chosen:
            copy(self.kept / str(number), self.sweep.place)
            if lose(self.sweep.place, variant, self.lost[number], self.before):
                said, call = ended(self.sweep), self.calls[number]
                yield said and f"- {self.part}, before {call.name}({call.text[:80]}, {variant}: {said}"


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 if something was lost."""
    parser = trials.arguments(__doc__, shares="point")
    parser.add_argument("--parts", default=",".join(PARTS))
    given = parser.parse_args(argv)
    if why := straced.available():
        print(why)
        return 2
    root = trials.places("powerloss", given.work)
    trials.make_inputs(root / "inputs")
    rows, troubles = [], []
    sweeps: dict[str, Sweep] = {}
    for part in given.parts.split(","):
        kind = "frozen with cache" if part == "cache" else "full"
        if kind not in sweeps:
            sweeps[kind] = Sweep(kind, root / kind.replace(" ", "-"), root / "inputs", **MEASURED)
        cuts = Cuts(part, sweeps[kind], root / f"{part}-disks", given.share)
        for variant in VARIANTS:
            said = list(cuts.go_on(variant))
            troubles += filter(None, said)
            rows.append([f"{part}, {variant}", len(cuts.calls), len(said), said.count(""), len(said) - said.count("")])
    print(trials.table(["part, variant", "changes", "disks", "finished equal", "lost"], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


def ended(sweep: Sweep) -> str:
    """The same command on what is left of the disk; what is wrong then, or nothing."""
    from hone.verify import verify

    found = trials.run(sweep.args, sweep.place)
    if found.code:
        return f"exit code {found.code}: {trials.last_line(found.said)}"
    run = sweep.place / "run"
    other = trials.differences(sweep.whole, sweep.place)
    if "metrics.jsonl: the lines" in found.said:
        other = [name for name in other if name != "metrics.jsonl"]
    wrong = [f"{name} differs" for name in other] + [f"left over: {name}" for name in trials.leftovers(sweep.place)]
    wrong += [f"no {name}" for name in WRITTEN if not (run / name).is_file() or not (run / name).stat().st_size]
    return "; ".join([*wrong, *(f"verify: {problem}" for problem in verify(str(run)).problems)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
