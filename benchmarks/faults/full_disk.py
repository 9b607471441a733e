"""A disk that fills up or becomes read-only at a moment of a run; then there is space, and the same command again.

Run and caches are on a small tmpfs of their own (in a mount namespace: nothing of the machine is touched). At each of
ten moments, from the preparing to the report, and in each of three ways (full; full but for 20 kB, so that a file
breaks off in its middle; read-only) the run goes on as it can. Then the space is given back, and the same command has
to end with weights, optimizer, metrics and measurements equal byte by byte to those of an undisturbed run, from the
newest checkpoint that was there. Exit code 1: something was lost, or said in a traceback.

    python benchmarks/faults/full_disk.py                                       # 30 trials, a minute on one core
    python benchmarks/faults/full_disk.py --kind "frozen with cache" --ways full,nearly

Needs Linux, and the right to mount (as root, or in a user namespace).
"""

import ctypes
import fcntl
import json
import os
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import trials

MOMENTS: dict[str, trials.Moment] = {
    "preparing": ("hone.training.train", "prepare", 1),
    "token store": ("hone.data.store_writer", "seal", 1),
    "inputs known": ("hone.training.train", "_remember_inputs", 1),
    "base measured": ("hone.evaluation.held_out", "evaluate_model", 1),
    "training": ("hone.training.trainer.HoneTrainer", "training_step", 4),
    "saving a checkpoint": ("hone.training.trainer.RunTrainer", "_complete", 2),
    "deleting a checkpoint": ("hone.training.trainer.RunTrainer", "_rotate", 3),
    "saving the model": ("hone.training.checkpoint", "save_tokenizer", 1),
    "tuned measured": ("hone.evaluation.held_out", "evaluate_model", 2),
    "report": ("hone.training.train", "write_report_or_say", 1),
}
WAYS = ("full", "nearly", "read-only")
DISK_MB, LEFT_BYTES = 16, 20_000
FILLER, NOT_SPOILED = "filler", 99
OUTCOMES = ("finished at once", "one message", "traceback", "resumed", "finished equal", "lost")
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000  # of unshare(2)
RDONLY, REMOUNT, PRIVATE = 0x1, 0x20, 0x40000 | 0x4000  # of mount(2)


class Said(NamedTuple):
    """Of one trial: how the run took it, and what is wrong after the same command."""

    first: str
    resumed: bool
    wrong: list[str]


def available() -> str | None:
    """Why there can be no such trial here; None if there can."""
    if sys.platform != "linux":
        return "a disk for each trial needs Linux's mount namespaces"
    child = os.fork()
    if child == 0:
        try:
            own_mounts()
            os._exit(0)
        except OSError:
            os._exit(1)
    return "this machine allows no mount of one's own" if os.waitpid(child, 0)[1] else None


def own_mounts() -> None:
    """Give this process, which has no threads, mounts of its own: as root, or as the root of a user namespace."""
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", NEW_MOUNTS)
    except OSError:
        _call("unshare", NEW_USER | NEW_MOUNTS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", None, b"/", None, PRIVATE, None)


def mount(place: Path, flags: int = 0) -> None:
    """A small tmpfs at a folder; or with other flags, the one that is there."""
    size = f"size={DISK_MB}m".encode()
    _call("mount", b"tmpfs", os.fsencode(place), b"tmpfs", flags, size)


def _call(name: str, *args: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_ulong(one) if isinstance(one, int) and name == "mount" else one for one in args]
    if getattr(libc, name)(*given):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def fill(place: Path, left: int) -> None:
    """Take all space but so many bytes."""
    with (place / FILLER).open("wb", buffering=0) as file:
        piece = 1 << 20
        while piece:
            try:
                file.write(bytes(piece))
            except OSError:
                piece //= 4
        file.truncate(file.tell() - left)


def make_read_only(place: Path) -> None:
    """As a disk does after an error. A file that is open to be written (log, lock) would forbid it: open it anew."""
    for one in Path("/proc/self/fd").iterdir():
        number, target = int(one.name), os.path.realpath(one)
        if target.startswith(f"{place}/") and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            again = os.open(target, os.O_RDONLY)
            os.dup2(again, number)
            os.close(again)
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    mount(place, REMOUNT | RDONLY)


def spoil(place: Path, way: str) -> None:
    """What happens to the disk in the run's process."""
    try:
        if way == "read-only":
            make_read_only(place)
        else:
            fill(place, LEFT_BYTES if way == "nearly" else 0)
    except OSError:
        traceback.print_exc()
        os._exit(NOT_SPOILED)


def one_trial(kind: str, root: Path, moment: str, way: str, whole: dict[str, object]) -> Said:
    """In a process with mounts of its own: the run, the disk, the space, the same command."""
    place = root / "disk"
    own_mounts()
    mount(place)
    args = trials.command(kind, root / "inputs", place, eval_base=True, save_total_limit=1)
    first = trials.run(
        args, root, trials.at(MOMENTS[moment], lambda: spoil(place, way))
    )  # what it says is kept in root
    if first.code == NOT_SPOILED:
        raise RuntimeError(first.said)
    if way == "read-only":
        mount(place, REMOUNT)
    else:
        (place / FILLER).unlink()
    there = trials.trained_to(place / "run")
    second = trials.run(args, root)
    wrong = [f"exit code {second.code}: {trials.last_line(second.said)}"] if second.code else []
    wrong += [f"{name} differs" for name in trials.differences(whole, place)]
    wrong += [f"left over: {name}" for name in trials.leftovers(place)]
    if (
        there
        and f"resuming from {there[-1].name}" not in second.said
        and not (place / "run" / "manifest.json").is_file()
    ):
        wrong.append(f"{there[-1].name} was there, and is not what it resumed from")
    if "Traceback" in first.said:
        return Said("traceback", False, [*wrong, f"a traceback: {trials.last_line(first.said)}"])
    if first.code and first.said.count("\nerror: ") + first.said.startswith("error: ") != 1:
        wrong.append(f"not one message: {first.said[-300:]}")
    elif first.code and str(place) not in trials.last_line(first.said):
        wrong.append(f"a message without the file: {trials.last_line(first.said)}")
    return Said("one message" if first.code else "finished at once", "resuming from" in second.said, wrong)


def in_a_process(kind: str, root: Path, moment: str, way: str, whole: dict[str, object]) -> Said:
    """`one_trial` in a fork, whose mounts end with it."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(one_trial(kind, root, moment, way, whole)).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    if not said:
        raise SystemExit(f"no outcome of {way} at {moment}: see above")
    return Said(*json.loads(said))


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 if something was lost."""
    parser = trials.arguments(__doc__)
    parser.add_argument("--kind", default="full", choices=list(trials.KINDS)[:4])
    parser.add_argument("--moments", default=",".join(MOMENTS))
    parser.add_argument("--ways", default=",".join(WAYS), help="read-only is not for a cache that is mapped")
    given = parser.parse_args(argv)
    if why := available():
        print(why)
        return 2
    root = trials.places("full_disk", given.work)
    trials.make_inputs(root / "inputs")
    place = trials.fresh(root / "disk")
    args = trials.command(given.kind, root / "inputs", place, eval_base=True, save_total_limit=1)
    ended = trials.import_what_trials_need(args, root)
    if ended.code:
        raise SystemExit(f"the undisturbed run failed: {ended.said}")
    whole = trials.result(place)
    trials.fresh(place)
    rows, troubles = [], []
    for moment in given.moments.split(","):
        count: Counter[str] = Counter()
        for way in given.ways.split(","):
            said = in_a_process(given.kind, root, moment, way, whole)
            count[said.first] += 1
            count["resumed"] += said.resumed
            count["lost" if said.wrong else "finished equal"] += 1
            troubles += [f"- {way} at {moment}: {one}" for one in said.wrong]
        rows.append([moment, len(given.ways.split(",")), *(count[name] for name in OUTCOMES)])
    print(trials.table(["moment", "trials", *OUTCOMES], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
