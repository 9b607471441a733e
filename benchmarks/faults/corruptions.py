"""A damaged file, and a command that reads it: is the file named, or is the damage without effect?

Six damages (a bit flipped, cut off, a page of zeros, emptied, swapped for another file, deleted) of each file of seven
scenes: a full and a LoRA training that were killed after two checkpoints, one that was killed between saving and
measuring, a finished full and a finished LoRA run, the caches of a frozen run, and the base of an adapter. Then the
commands that read it: `hone train` (goes on), `hone report`, `hone generate`, `hone compare`. Outcomes:

    named               the message, a warning or the report has the file's name
    harmless            the result equals that of the undamaged files, byte by byte (times left out)
    without the file    a message, but not of this file
    traceback           an exception reaches the user
    silent wrong        another result, and nothing said

Exit code 1: a traceback or a silent wrong result.

    python benchmarks/faults/corruptions.py                     # all, some 1,500 trials: ten minutes on one core
    python benchmarks/faults/corruptions.py --trials 300 --seed 1 --scenes "finished full"
"""

import shutil
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import signals
import trials

PAGE = 4096
OUTCOMES = ("named", "harmless", "without the file", "traceback", "silent wrong")
IGNORED = ("said.txt", "cfg.yaml", ".lock", "train.log")  # the harness's own, and what no command reads


class Scene(NamedTuple):
    """Files to damage, below the place, and the commands that read them."""

    files: list[str]
    commands: dict[str, list[str]]


def damaged(path: Path, damage: str, rng: Random) -> str | None:
    """Do one damage to a file; what it was in words, or None where it changes nothing."""
    before = path.read_bytes()
    if damage == "deleted":
        path.unlink()
        return "deleted"
    if damage == "swapped":
        others = [path.parent.parent / f"{name}/{path.name}" for name in ("checkpoint-2", "checkpoint-4")]
        others = [one for one in others if one.is_file() and one != path] or [
            one for one in sorted(path.parent.iterdir()) if one.is_file() and one != path and one.name not in IGNORED
        ]
        if not others:
            return None
        other = rng.choice(others)
        after, what = other.read_bytes(), f"swapped for {other.parent.name}/{other.name}"
    elif not before:
        return None
    elif damage == "bit flip":
        at, bit = rng.randrange(len(before)), rng.randrange(8)
        after, what = _put(before, at, bytes([before[at] ^ (1 << bit)])), f"bit {bit} of byte {at} flipped"
    elif damage == "cut off":
        size = rng.randrange(1, len(before)) if len(before) > 1 else 0
        after, what = before[:size], f"cut off at {size} of {len(before)}"
    elif damage == "zeroed page":
        at = rng.randrange(0, len(before), PAGE)
        size = min(PAGE, len(before) - at)
        after, what = _put(before, at, bytes(size)), f"{size} zeros at {at}"
    else:
        after, what = b"", "emptied"
    path.write_bytes(after)
    return what if after != before else None


DAMAGES = ("bit flip", "cut off", "zeroed page", "empty", "swapped", "deleted")


def _without(result: dict[str, Any], beginning: str) -> dict[str, Any]:
    return {name: content for name, content in result.items() if not name.startswith(beginning)}


def _put(content: bytes, at: int, piece: bytes) -> bytes:
    return content[:at] + piece + content[at + len(piece) :]


# ---- the scenes ------------------------------------------------------------------------------------------------------


class Stage:
    """A place whose files are put back for each trial, from a copy for each scene."""

    def __init__(self, root: Path, scenes: str | None) -> None:
        self.root, self.place, self.inputs = root, root / "place", root / "inputs"
        trials.make_inputs(self.inputs)
        trials.import_what_trials_need(self._command("lora"), self.place)
        makers = self._makers()
        self.scenes = {name: makers[name]() for name in (scenes.split(",") if scenes else makers)}

    def _command(self, kind: str, **more: Any) -> list[str]:
        trials.fresh(self.place)
        shutil.copytree(self.inputs / "model", self.place / "base")
        more = {"save_total_limit": 9, "model_name_or_path": str(self.place / "base"), **more}
        return trials.command(kind, self.inputs, self.place, **more)

    def _makers(self) -> dict[str, Any]:
        killed = ("hone.training.trainer.HoneTrainer", "training_step", 6)
        return {
            "killed full": lambda: self._killed("killed full", "full", killed),
            "killed LoRA": lambda: self._killed("killed LoRA", "lora", killed),
            "saved full": lambda: self._killed("saved full", "full", signals.STAGES["tuned measured"]),
            "finished full": lambda: self._finished("finished full", "full"),
            "finished LoRA": lambda: self._finished("finished LoRA", "lora"),
            "caches": self._caches,
            "base": self._base,
        }

    def _killed(self, name: str, kind: str, place: trials.Moment) -> Scene:
        args = self._command(kind, eval_base=True)
        signals.sent(9, place, args, self.place)
        return self._keep(name, "run", {"train": args})

    def _finished(self, name: str, kind: str) -> Scene:
        trials.run(self._command(kind, eval_base=True), self.place)
        run = str(self.place / "run")
        generate = ["generate", run, "--prompt", "add 1 and 2:", "--max-new-tokens", "8", "--json"]
        commands = {"report": ["report", run], "generate": generate, "compare": ["compare", run, "--json"]}
        for checkpoint in trials.trained_to(self.place / "run"):
            shutil.rmtree(checkpoint)
        return self._keep(name, "run", commands)

    def _caches(self) -> Scene:
        args = self._command("frozen with cache")
        trials.run(args, self.place)
        shutil.rmtree(self.place / "run")
        return self._keep("caches", "tokens", {"train": args})

    def _base(self) -> Scene:
        trials.run(self._command("lora", eval_base=True), self.place)
        generate = ["generate", str(self.place / "run"), "--prompt", "add 1 and 2:", "--max-new-tokens", "8", "--json"]
        return self._keep("base", "base", {"generate": generate})

    def _keep(self, name: str, below: str, commands: dict[str, list[str]]) -> Scene:
        shutil.copytree(self.place, self.root / name)
        files = [path for path in sorted((self.place / below).rglob("*")) if path.is_file()]
        return Scene([str(path.relative_to(self.place)) for path in files if path.name not in IGNORED], commands)

    def put_back(self, scene: str) -> None:
        """The files of a scene as they were."""
        shutil.rmtree(self.place)
        shutil.copytree(self.root / scene, self.place)

    def outcome_of(self, command: str, args: list[str]) -> tuple[int, str, Any]:
        """Exit code, all that was said (the report too), and the result."""
        ended = trials.run(args, self.place)
        if command == "train":
            return ended.code, ended.said, trials.result(self.place)
        page = self.place / "run" / "report.md"
        said = ended.said + (page.read_text(errors="replace") if command == "report" and page.is_file() else "")
        return ended.code, said, said

    def judged(self, scene: str, command: str, file: str, damage: str, rng: Random) -> tuple[str, str] | None:
        """One trial: its outcome and the words of it; None where the damage changes nothing."""
        self.put_back(scene)
        what = damaged(self.place / file, damage, rng)
        if what is None:
            return None
        code, said, found = self.outcome_of(command, self.scenes[scene].commands[command])
        words = f"{file} {what}, {command}: exit code {code}: {trials.last_line(said)[:200]}"
        if "Traceback" in said or code == trials.TRACEBACK:
            return "traceback", words
        if Path(file).name in said.replace(str(self.place / "cfg.yaml"), ""):
            return "named", words
        if code == 0:
            whole = self.whole[scene, command]
            if command == "train" and file.split("/")[1].startswith(
                "checkpoint-"
            ):  # one that is not read stays damaged
                whole, found = (_without(one, "checkpoint-") for one in (whole, found))
            return ("harmless" if found == whole else "silent wrong"), words
        return "without the file", words

    def measure_undamaged(self, scenes: list[str]) -> None:
        """What each command gives, twice: two that differ could not be compared with."""
        self.whole: dict[tuple[str, str], Any] = {}
        for scene in scenes:
            for command, args in self.scenes[scene].commands.items():
                found = []
                for _ in range(2):
                    self.put_back(scene)
                    found.append(self.outcome_of(command, args))
                if found[0][0] or found[0][2] != found[1][2]:
                    raise SystemExit(f"{scene}, {command}: undamaged it is not repeatable: {found[0][1]}")
                self.whole[scene, command] = found[0][2]


def main(argv: list[str]) -> int:
    """Run all, print the table; 1 for a traceback or a silent wrong result."""
    parser = trials.arguments(__doc__, shares="trial")
    parser.add_argument("--trials", type=int, help="draw so many; all without it")
    parser.add_argument("--scenes", help="names, with commas between them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    stage = Stage(trials.places("corruptions", given.work), given.scenes)
    scenes = list(stage.scenes)
    stage.measure_undamaged(scenes)
    todo = [
        (scene, command, file, damage)
        for scene in scenes
        for command in stage.scenes[scene].commands
        for file in stage.scenes[scene].files
        for damage in DAMAGES
    ]
    if given.trials:
        todo = sorted(trials.random_of(given.seed).sample(todo, min(given.trials, len(todo))))
    counts: dict[tuple[str, str], Counter[str]] = {}
    troubles = []
    for scene, command, file, damage in trials.share_of(todo, given.share):
        judged = stage.judged(scene, command, file, damage, trials.random_of(given.seed, scene, command, file, damage))
        if judged is None:
            continue
        outcome, words = judged
        counts.setdefault((scene, command), Counter())[outcome] += 1
        if outcome not in ("named", "harmless"):
            print(f"- {outcome}: {scene}: {words}", file=sys.stderr, flush=True)
            troubles += [f"- {outcome}: {scene}: {words}"] if outcome in ("traceback", "silent wrong") else []
    rows = [
        [f"{scene}, {command}", sum(c.values()), *(c[name] for name in OUTCOMES)]
        for (scene, command), c in counts.items()
    ]
    whole = sum(counts.values(), Counter())
    rows.append(["all", sum(whole.values()), *(whole[name] for name in OUTCOMES)])
    print(trials.table(["scene, command", "damages", *OUTCOMES], rows))
    print("\n".join(["", *troubles]) if troubles else "\nNothing was lost.")
    return int(bool(troubles))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
