"""The run folder: where everything about one training lives, and the only thing that reports and comparisons read.

model.safetensors, config.json, tokenizer.json …   the tuned model: `from_pretrained(folder)` loads it
manifest.json                                      size and SHA-256 of its files, and of what was measured
config.yaml, config.resolved.yaml                  the config as given, and with every key
env.json                                           versions, hardware, git commit, seed, data fingerprints
status.json                                        running | interrupted | failed | finished, and how far
metrics.jsonl, train.log                           one JSON object a log step; what was logged
eval/*.json                                        what was measured (`hone.results`)
eval/samples.jsonl                                 what base and tuned wrote, side by side
eval/base.code.jsonl, eval/tuned.code.jsonl        answers to the programming tasks
checkpoint-N/                                      resumable states; complete.json has size and SHA-256 of each file
"""

import difflib
import functools
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hone import results
from hone.config.dump import resolved_yaml
from hone.config.load import load_config
from hone.config.schema import Config, leaves
from hone.errors import HoneError
from hone.files import disk_errors, read_sealed, write_sealed, write_text_atomic
from hone.manifest import problems
from hone.processes import primary, world
from hone.results import Comparison, File, Measurement, R
from hone.results.benchmarks import CodeMeasurement

STATUS = "status.json"
RESOLVED = "config.resolved.yaml"
BEFORE_THE_START = ("config.yaml", STATUS, "env.json", "train.log", RESOLVED)  # written before anything is done
COMPLETE = "complete.json"  # of a checkpoint: its files and where training was
REPORT = "report.html"
TAIL_BYTES = 1 << 16  # of a file of which the end is looked at
SAVING = ".saving"  # a checkpoint that is being written or deleted
PACKAGES = ("hone-lm", "torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors", "datasets", "numpy")

# Keys that decide the weights: a folder whose run differs in one of them is another run.
IDENTITY_SECTIONS = ("model", "data", "method", "train")
NOT_IDENTITY = {
    "resume_from_checkpoint",
    "report_to",
    "run_name",
    "max_train_seconds",
    "token_cache_dir",
    "save_total_limit",
}


@dataclass(frozen=True)
class Run:
    """A run folder. Everything but the path is read from its files when asked for."""

    folder: Path

    @property
    def status(self) -> dict[str, Any]:
        """What status.json says; {"status": "unknown"} where there is none."""
        path = self.folder / STATUS
        found = read_sealed(path, required=False) if path.is_file() else {"status": "unknown"}
        if "status" not in found:
            raise HoneError("says nothing of a run: the file is damaged", where=str(path))
        return found

    @property
    def env(self) -> dict[str, Any]:
        """What env.json says of the machine, the packages and the data; empty where there is none."""
        path = self.folder / "env.json"
        return read_sealed(path, required=False) if path.is_file() else {}

    @property
    def processes(self) -> int:
        """How many trained it when it began: with the batch of each, that decides the batch of a step."""
        return int(str(self.env.get("processes", world())))

    def update(self, **values: Any) -> None:
        """Merge values into status.json; the primary of several processes alone does."""
        if not primary():
            return
        write_sealed(self.folder / STATUS, {**self.status, **values, "pid": os.getpid(), "updated": _now()})

    def file_of(self, name: str) -> Path:
        """eval/<name>.json."""
        return self.folder / "eval" / f"{name}.json"

    def has(self, name: str) -> bool:
        """Whether eval/<name>.json has been measured."""
        return self.file_of(name).is_file()

    def read(self, kind: type[R], name: str) -> R | None:
        """eval/<name>.json as what it should be; None where it has not been measured.

        Raises:
            HoneError: it is damaged, or of another version.
        """
        return results.read(kind, self.file_of(name))

    def write(self, name: str, result: File) -> None:
        """eval/<name>.json, whole or not at all."""
        results.write(self.file_of(name), result)

    @property
    def base(self) -> Measurement | None:
        """The model before training, on the held-out items."""
        return self.read(Measurement, "base")

    @property
    def tuned(self) -> Measurement | None:
        """The model after training, on the same items."""
        return self.read(Measurement, "tuned")

    @property
    def comparison(self) -> Comparison | None:
        """Base and tuned on the same items."""
        return self.read(Comparison, "compare")

    def code(self) -> tuple[CodeMeasurement | None, CodeMeasurement | None, Comparison | None]:
        """Base and tuned on the programming tasks, and their comparison."""
        base, tuned = (self.read(CodeMeasurement, f"{name}.code") for name in ("base", "tuned"))
        return base, tuned, self.read(Comparison, "compare.code")

    def metric_lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut off by a crash is left out.

        Raises:
            HoneError: another line is damaged.
        """
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return []
        found: list[dict[str, Any]] = []
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            try:
                found += [json.loads(line)] if line else []
            except ValueError as error:
                raise HoneError("not readable as JSON: the file is damaged", where=f"{path}:{number}") from error
        if not all(isinstance(line, dict) for line in found):
            raise HoneError("JSON objects were expected: the file is damaged", where=str(path))
        return found

    def last_metric(self, name: str) -> float | None:
        """The last number of this name in metrics.jsonl, from its end; None where there is none.

        Raises:
            HoneError: a line there is damaged.
        """
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return None
        with path.open("rb") as file:
            at = max(0, path.stat().st_size - TAIL_BYTES)
            file.seek(at)
            lines = file.read().split(b"\n")[1 if at else 0 : -1]  # a cut first line, an unfinished last one
        try:
            found = [json.loads(line) for line in reversed(lines) if line]
            return next(line[name] for line in found if line.get(name) is not None)
        except (ValueError, AttributeError, StopIteration):  # further ahead, or damaged: said by who reads all of it
            return next((line[name] for line in reversed(self.metric_lines()) if line.get(name) is not None), None)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = [p for p in self.folder.glob("checkpoint-*") if p.name[11:].isdigit() and (p / COMPLETE).is_file()]
        return sorted(found, key=lambda path: int(path.name[11:]))


def checkpoint_problems(checkpoint: Path) -> list[str]:
    """What of a complete checkpoint is not as it was written, each beginning with the file's name; reads all of it."""
    try:
        return problems(checkpoint, read_sealed(checkpoint / COMPLETE)["files"], hashes=True)
    except HoneError as error:
        return [f"{COMPLETE}: {error.what}"]


def living_status(status: dict[str, Any]) -> str:
    """The status of a run's status.json; one that says it is running but whose process is gone was killed."""
    import psutil

    name = str(status.get("status", "unknown"))
    return "killed" if name == "running" and not psutil.pid_exists(int(status.get("pid", -1))) else name


@contextmanager
def open_run(config: Config) -> Iterator[Run]:
    """The folder of `config`, held against other processes: a new one, or the same run's from before; never another's.

    Raises:
        HoneError: the folder holds another run (the differing keys are named), or something else, or cannot be written,
            or another process is training there.
    """
    folder = Path(config.output.output_dir)
    run = Run(folder)
    if config.output.overwrite:
        _remove_run(folder)
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise HoneError("is a file, not a folder", where=str(folder), fix="choose another output_dir")
        folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RESOLVED).is_file():
        _refuse_strangers(folder)
    with lock(run), _removed_if_empty(folder):
        if (folder / RESOLVED).is_file():
            _refuse_other_run(identity(config), folder)
        with _undone_on_failure(run), disk_errors(folder):
            (folder / "eval").mkdir(exist_ok=True)
            # this one claims the folder: a crash before it leaves nothing, after it the same command goes on
            if not (folder / RESOLVED).is_file():
                write_text_atomic(folder / RESOLVED, resolved_yaml(config))
            if not (folder / "config.yaml").is_file():
                write_text_atomic(folder / "config.yaml", config.source_text or resolved_yaml(config))
        yield run


def _refuse_strangers(folder: Path) -> None:
    """Raise a HoneError if something is there that a start of hone that was killed has not left."""
    refuse_without_config(folder)
    for path in sorted(folder.iterdir()):
        ours = path.name in ("eval", ".lock") or path.name.startswith(f".{RESOLVED}.tmp-")
        if not ours or (path.name == "eval" and any(path.iterdir())):
            raise HoneError(
                f"the output folder is not empty and holds no run of hone (found {path.name})",
                where=str(folder),
                fix="choose another output_dir (overwrite deletes only runs)",
            )


def refuse_without_config(folder: Path) -> None:
    """Raise a HoneError for a run whose config has gone: it is the first of its files, and says which run it is."""
    if (folder / STATUS).is_file() and not (folder / RESOLVED).is_file():
        fix = "put it back from a copy, or choose another output_dir"
        raise HoneError("missing, and nothing else says which run this is", where=str(folder / RESOLVED), fix=fix)


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """A folder that was refused, or whose start was undone, holds the lock's file at most."""
    try:
        yield
    finally:
        if folder.is_dir() and not [path for path in folder.iterdir() if path.name != ".lock"]:
            with suppress(OSError):  # Windows keeps an open .lock; a folder with one is still taken as new
                (folder / ".lock").unlink(missing_ok=True)
                folder.rmdir()


@contextmanager
def _undone_on_failure(run: Run) -> Iterator[None]:
    try:
        yield
    except HoneError:
        discard_unstarted(run)
        raise


def discard_unstarted(run: Run) -> None:
    """Delete what a start wrote if nothing was measured or trained: a mistake must not claim the folder.

    Otherwise the corrected configuration would be refused, as another run than the one that never began.
    """
    begun = [run.folder / "metrics.jsonl", *run.folder.glob("eval/*"), *run.folder.glob("checkpoint-*")]
    if any(path.exists() for path in begun):
        return
    for name in BEFORE_THE_START:
        with suppress(OSError):
            (run.folder / name).unlink()
    with suppress(OSError):  # not empty: somebody else's files stay
        (run.folder / "eval").rmdir()


def _remove_run(folder: Path) -> None:
    """Delete a folder that is a run of ours; anything else is left alone (and refused later)."""
    if (folder / RESOLVED).is_file():
        with lock(Run(folder)):  # refused while a process is training there
            pass
        with disk_errors(folder):
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != RESOLVED:
                    path.unlink()
            shutil.rmtree(folder)  # last what says that it is a run: killed before, the same command deletes the rest


def _refuse_other_run(new: dict[str, Any], folder: Path) -> None:
    old = identity(load_config(folder / RESOLVED))
    changed = [key for key in new if old.get(key) != new[key]]
    if not changed:
        return
    shown = [f"{key}: {_said(old.get(key))} there, {_said(new[key])} here" for key in changed]
    more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
    fix = "choose another output_dir, or give overwrite=true to delete that run"
    if all(_has_moved(old.get(key), new[key]) for key in changed):
        paths = f"write the new paths of {', '.join(changed)} into {folder / RESOLVED}"
        fix = f"if files were only moved, {paths}: then the same command goes on; else {fix}"
    raise HoneError(f"the output folder holds another run ({'; '.join(shown[:3])}{more})", where=str(folder), fix=fix)


def _has_moved(there: Any, here: Any) -> bool:
    """Whether a setting names a file or folder that has gone from where it was, and is of the same name elsewhere."""
    if isinstance(there, list) and isinstance(here, list):
        return len(there) == len(here) and all(map(_has_moved, there, here))
    if not (isinstance(there, str | Path) and isinstance(here, str | Path)):
        return False
    before, now = Path(there), Path(here)
    return before == now or (before.name == now.name and now.exists() and not before.exists())


def _said(value: Any) -> str:
    """A setting in a message: a path as it is typed."""
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    return str(value) if isinstance(value, Path) else repr(value)


def identity(config: Config) -> dict[str, Any]:
    """The keys that decide the weights of a run, by leaf name."""
    return {
        leaf: getattr(getattr(config, section), leaf)
        for leaf, section in leaves().items()
        if section in IDENTITY_SECTIONS and leaf not in NOT_IDENTITY
    }


@contextmanager
def lock(run: Run) -> Iterator[None]:
    """Hold the run folder: a second process is refused; a dead process's lock does not count."""
    held = FileLock(run.folder / ".lock")
    with disk_errors(run.folder):
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            fix = "wait for it, or use another one"
            raise HoneError("another process is training in this folder", where=str(run.folder), fix=fix) from error
    try:
        yield
    finally:
        held.release()


def is_held(run: Run) -> bool:
    """Whether some process is training in the folder."""
    try:
        with lock(run):
            return False
    except HoneError:
        return True


def environment() -> dict[str, object]:
    """Versions, hardware and commit: what one needs to repeat a run. No user name, no host name, no variables."""
    import torch

    return {
        "time": _now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "git": _git_commit(),
        "cpu_count": os.cpu_count(),
        "processes": world(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def versions() -> dict[str, str | None]:
    """Of hone and the packages that decide what a training gives."""
    return {name: _version(name) for name in PACKAGES}


@functools.cache  # a package does not change in a process that has loaded it, and each reading parses a file
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the current folder, with "+changes" if it is not clean; None outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        changes = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def find_runs(root: Path) -> list[Run]:
    """Run folders at `root` or up to three levels below it, by name.

    Raises:
        HoneError: `root` is not a folder.
    """
    if not root.is_dir():
        raise HoneError("no such folder", where=str(root), fix="name a folder that holds runs, e.g. `hone runs out`")
    patterns = (STATUS, f"*/{STATUS}", f"*/*/{STATUS}", f"*/*/*/{STATUS}")
    return [Run(path.parent) for path in sorted({p for pattern in patterns for p in root.glob(pattern)})]


def no_such_folder(name: str | Path) -> HoneError:
    """The mistake of naming a run or a model by a folder that is not there; the runs near it are named."""
    folder = Path(name).expanduser()
    root = next(parent for parent in folder.parents if parent.is_dir())
    runs = [] if root == Path(root.anchor or "/") else find_runs(root)  # a whole file system is not looked through
    names = [str(run.folder.relative_to(root)) for run in runs]
    near = difflib.get_close_matches(str(folder.relative_to(root)), names, n=1)
    listed = f"`hone runs {root}` lists what is there"
    if near:
        fix = f"did you mean {root / near[0]}? {listed}"
    elif names:
        shown = ", ".join(str(root / one) for one in names[:3]) + (f", … ({len(names)} in all)" if names[3:] else "")
        fix = f"runs there: {shown}; {listed}"
    else:
        fix = f"looked from {Path.cwd()}; `hone runs` lists the runs of a folder"
    return HoneError("no such folder", where=str(name), fix=fix)
