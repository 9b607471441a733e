"""Power lost at each change of the disk: only what was synced is there, and the same command again.

A SIGKILL loses nothing that was written; a power cut does. So a part of a run (as in `sweep.py`) is traced once; then
it is killed at each call that changes the disk, and of what is there then, this is taken away: the content of every
file that was not synced since it was last written, and, in a second and a third variant, every rename whose folder was
not synced since (the name's old content comes back; a folder also goes back as it is now, half deleted, say). From each
of these disks the same command has to go on to weights, optimizer and metrics equal byte by byte to those of an
undisturbed run. metrics.jsonl may lack lines if that is said. Exit code 1: something was lost.

    python benchmarks/faults/powerloss.py                           # checkpoint and model: ten minutes on one core
    python benchmarks/faults/powerloss.py --parts checkpoint --share 1/3

Needs strace: sudo apt-get install strace.
"""

import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import straced
import trials
from straced import Call
from sweep import PARTS, Sweep

VARIANTS = ("renames kept", "renames undone", "folders back as they are")
WRITES = {"write", "writev", "pwrite64", "ftruncate", "openat"}
OF_FD = re.compile(r"^\d+<([^>]*)>")
PATHS = re.compile(r'"(/[^"]*)"')
OF_A_PROCESS = re.compile(r"\.tmp-\d+$|/\.tmp\w+$")  # names that differ from run to run; the sweep removes them


class Rename:
    """One that was made and whose folder is not synced yet. number: which change it was."""

    def __init__(self, number: int, old: str, new: str) -> None:
        self.number, self.old, self.new = number, old, new


def pending(calls: list[Call]) -> Iterator[tuple[set[str], list[Rename]]]:
    """Before each call: the files whose content may be lost, and the renames that may not have happened."""
    dirty: set[str] = set()
    renames: list[Rename] = []
    for number, call in enumerate(calls):
        yield set(dirty), list(renames)
        inside, names = OF_FD.match(call.text), PATHS.findall(call.text)
        if call.name.startswith("rename") and len(names) == 2:
            old, new = names
            dirty = {
                new + path.removeprefix(old) if path == old or path.startswith(f"{old}/") else path for path in dirty
            }
            renames.append(Rename(number, old, new))
        elif call.name in ("fsync", "fdatasync") and inside:
            dirty.discard(inside[1])
            renames = [one for one in renames if str(Path(one.new).parent) != (inside[1] or "/")]
        elif call.name in WRITES:
            dirty.add(inside[1] if inside else names[0])


def lose(run: Path, variant: str, dirty: set[str], renames: list[Rename], before: dict[int, Path]) -> bool:
    """Take from a killed run's folder what a power cut would; False where this variant takes nothing more."""
    for name in dirty:
        if (run / name[1:]).is_file():
            (run / name[1:]).write_bytes(b"")
    if variant == VARIANTS[0]:
        return bool(dirty)
    undone = [one for one in reversed(renames) if variant == VARIANTS[1] or (run / one.new[1:]).is_dir()]
    for one in undone:
        old, new, kept = run / one.old[1:], run / one.new[1:], before.get(one.number)
        if variant == VARIANTS[2]:
            if new.is_dir() and not old.exists():
                new.rename(old)
            continue
        if kept is None:
            return False
        for path, was in ((new, kept / one.new[1:]), (old, kept / one.old[1:])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if was.is_dir():
                shutil.copytree(was, path)
            elif was.is_file() and not OF_A_PROCESS.search(str(was)):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(was, path)
    return bool(undone)


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 if something was lost."""
    parser = trials.arguments(__doc__, shares="point")
    parser.add_argument("--parts", default="checkpoint,model")
    given = parser.parse_args(argv)
    if why := straced.available():
        print(why)
        return 2
    root = trials.places("powerloss", given.work)
    trials.make_inputs(root / "inputs")
    sweep = Sweep("full", root)
    rows, troubles = [], []
    for part in given.parts.split(","):
        calls = [call for call in sweep.calls(part) if call.changes]
        lost = list(pending(calls))
        chosen = trials.share_of(range(len(calls)), given.share)
        needed = {one.number for number in chosen for one in lost[number][1]}
        disks = trials.fresh(root / f"{part}-disks")
        for number in sorted({*chosen, *needed}):
            sweep.again()
            straced.trial(sweep.args, sweep.place, PARTS[part], straced.fault(calls[number], "SIGKILL"))
            shutil.copytree(sweep.place / "run", disks / str(number))
        before = {number: disks / str(number) for number in needed}
        for variant in VARIANTS:
            count: Counter[str] = Counter()
            for number in chosen:
                sweep.again()
                shutil.copytree(disks / str(number), sweep.place / "run")
                if not lose(sweep.place / "run", variant, *lost[number], before):
                    continue
                count["disks"] += 1
                said = ended(sweep)
                count["lost"] += bool(said)
                where = f"{part}, before {calls[number].name}({calls[number].text[:80]}, {variant}"
                troubles += [f"- {where}: {said}"] if said else []
            rows.append(
                [f"{part}, {variant}", len(calls), count["disks"], count["disks"] - count["lost"], count["lost"]]
            )
    print(trials.table(["part, variant", "changes", "disks", "finished equal", "lost"], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


def ended(sweep: Sweep) -> str:
    """The same command on what is left of the disk; what is wrong then, or nothing."""
    found = trials.run(sweep.args, sweep.place)
    if found.code:
        return f"exit code {found.code}: {trials.last_line(found.said)}"
    other = trials.differences(sweep.whole, sweep.place)
    if "metrics.jsonl: the lines" in found.said:
        other = [name for name in other if name != "metrics.jsonl"]
    wrong = [f"{name} differs" for name in other] + [f"left over: {name}" for name in trials.leftovers(sweep.place)]
    return "; ".join(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
