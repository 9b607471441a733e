"""What is in a run folder, read so that a missing or damaged file costs its own part of the report and no other.

Every file is parsed by `Run`; here it is only noted what could not be.

>>> read_folder(Path("out/demo/functions")).comparison.verdict      # doctest: +SKIP
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hone import results
from hone.config.load import load_config
from hone.config.schema import Config
from hone.errors import HoneError
from hone.files import read_json
from hone.grading.tasks import Task, read_tasks
from hone.manifest import MANIFEST, measured_problems, model_problems
from hone.results import Comparison, Measurement
from hone.results.benchmarks import CodeMeasurement
from hone.results.contamination import Contamination, Memorization
from hone.results.repeat import Repeat
from hone.runs import RESOLVED, STATUS, Run, no_such_folder

T = TypeVar("T")
MARKERS = (STATUS, RESOLVED, "repeat.json", "eval")  # a folder with none of these is not a run

NOT_READ = "the same command tries again; if that does not help: overwrite=true trains anew"


@dataclass(frozen=True)
class Answer:
    """A graded program: a line of eval/<name>.code.jsonl. detail: the test that failed, or the error."""

    task_id: str
    text: str
    passed: bool
    verdict: str
    detail: str


@dataclass(frozen=True)
class Folder:
    """The files of a run, parsed. Empty or None: not there, or damaged and then named in `notes`.

    code: of "base", "tuned" and each file of samples that `hone grade` graded here. answers: the programs of "base" and
    "tuned". tasks: what was asked for, by task_id; empty where the file of tasks is gone. log: lines of train.log
    without their time. template: by which prompts were formatted.
    """

    path: Path
    status: dict[str, Any]
    metrics: list[dict[str, Any]]
    base: Measurement | None
    tuned: Measurement | None
    comparison: Comparison | None
    code: dict[str, CodeMeasurement]
    code_comparison: Comparison | None
    answers: dict[str, list[Answer]]
    tasks: dict[str, Task]
    contamination: Contamination | None
    memorization: Memorization | None
    repeat: Repeat | None
    env: dict[str, Any]
    config: Config | None
    log: list[str]
    template: str | None
    notes: list[str]

    @property
    def settings(self) -> Config:
        """The config, for whoever has seen that there is one."""
        if self.config is None:
            raise HoneError("its settings could not be read", where=str(self.path / RESOLVED), fix=NOT_READ)
        return self.config

    @property
    def measured(self) -> dict[str, Measurement]:
        """Those of "base" and "tuned" that there are."""
        return {name: found for name, found in (("base", self.base), ("tuned", self.tuned)) if found}


def read_folder(path: Path) -> Folder:
    """Read everything there is.

    Raises:
        HoneError: there is no such folder, or nothing of a run in it.
    """
    if not path.is_dir():
        raise no_such_folder(path)
    if not any((path / name).exists() for name in MARKERS):
        raise HoneError("is not a run", where=str(path), fix="name the folder of a run; `hone runs` lists them")
    run, notes = Run(path), list[str]()

    def tolerant(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except (HoneError, OSError, RecursionError) as error:
            notes.append(f"not read: {error}".replace(f"{path}/", ""))
            return otherwise

    def of(kind: type[results.R], name: str) -> results.R | None:
        return tolerant(lambda: run.read(kind, name), None)

    graded = {name: run.file_of(f"{name}.code") for name in ("base", "tuned")}
    for file in sorted([*path.glob("*_results.json"), *(path / "eval").glob("*_results.json")]):
        graded[file.name.removesuffix("_results.json")] = file
    code = {name: tolerant(partial(results.read, CodeMeasurement, file), None) for name, file in graded.items()}
    config = tolerant(lambda: load_config(path / RESOLVED) if (path / RESOLVED).is_file() else None, None)
    if (path / MANIFEST).is_file():
        changed = [*measured_problems(path), *model_problems(path)]
        changed += [] if (path / STATUS).is_file() else [f"{STATUS}: missing"]
        notes += [f"not as it was written: {problem}" for problem in changed]
    none: list[Answer] = []
    answers: dict[str, list[Answer]] = {}
    for name in ("base", "tuned"):
        answers[name] = tolerant(partial(_answers, path / "eval" / f"{name}.code.jsonl"), none)
    return Folder(
        path=path.resolve(),
        status=tolerant(lambda: run.status, {"status": "unknown"}),
        metrics=tolerant(run.metric_lines, []),
        base=of(Measurement, "base"),
        tuned=of(Measurement, "tuned"),
        comparison=of(Comparison, "compare"),
        code={name: found for name, found in code.items() if found},
        code_comparison=of(Comparison, "compare.code"),
        answers={name: found for name, found in answers.items() if found},
        tasks=_tasks(config.eval.code_tasks if config else None) if any(answers.values()) else {},
        contamination=of(Contamination, "contamination"),
        memorization=of(Memorization, "memorization"),
        repeat=tolerant(lambda: results.read(Repeat, path / "repeat.json"), None),
        env=tolerant(lambda: run.env, {}),
        config=config,
        log=[line[9:] for line in tolerant(lambda: _text(path / "train.log"), "").splitlines()],
        template=tolerant(lambda: _template(path / "template.json"), None),
        notes=notes,
    )


def _answers(path: Path) -> list[Answer]:
    """eval/<name>.code.jsonl, without what is not shown."""
    shown = ("task_id", "completion", "verdict", "detail")
    found = []
    for number, line in enumerate(_text(path).split("\n"), 1):  # a text may hold other ends of lines
        if not line:
            continue
        try:
            row = json.loads(line)
            task, text, verdict, detail = (str(row[key]) for key in shown)
            found.append(Answer(task, text, row["passed"] is True, verdict, detail))
        except (ValueError, KeyError, TypeError) as error:
            raise HoneError("a graded program was expected: the file is damaged", where=f"{path}:{number}") from error
    return found


def _tasks(path: Path | None) -> dict[str, Task]:
    """The tasks by their ids; none where their file is gone, which costs the prompts in the report and nothing else."""
    try:
        return {task.task_id: task for task in read_tasks(path)} if path and path.is_file() else {}
    except (HoneError, OSError):
        return {}


def _template(path: Path) -> str | None:
    found = read_json(path) if path.is_file() else {}
    return str(found["template"]) if isinstance(found, dict) and "template" in found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise HoneError("not UTF-8 text: the file is damaged", where=str(path)) from error
