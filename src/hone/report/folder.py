"""What is in a run folder, read so that a missing or damaged file costs its own part of the report and no other.

>>> read_folder(Path("out/demo/functions")).compare["verdict"]      # doctest: +SKIP
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hone.config.load import load_config
from hone.config.schema import Config
from hone.errors import HoneError
from hone.files import read_json
from hone.runs import RESOLVED, STATUS, Run

T = TypeVar("T")
MARKERS = (STATUS, RESOLVED, "repeat.json", "eval")  # a folder with none of these is no run


@dataclass(frozen=True)
class Folder:
    """The files of a run, parsed. Empty or None: not there, or damaged and then named in `notes`.

    grades: name of a set of graded programs ('base', 'tuned', or a results file) -> its rows (task_id, passed, …).
    log: lines of train.log without their time.
    """

    path: Path
    status: dict[str, Any]
    metrics: list[dict[str, Any]]
    base: dict[str, Any] | None
    tuned: dict[str, Any] | None
    compare: dict[str, Any] | None
    compare_code: dict[str, Any] | None
    samples: list[dict[str, Any]]
    grades: dict[str, list[dict[str, Any]]]
    overlap: dict[str, Any] | None
    memorization: dict[str, Any] | None
    repeat: dict[str, Any] | None
    env: dict[str, Any]
    config: Config | None
    settings: str
    log: list[str]
    notes: list[str]

    @property
    def task(self) -> str:
        for found in (self.tuned, self.base, self.compare):
            if found and "task" in found:
                return str(found["task"])
        return self.config.method.task if self.config else "causal"


def read_folder(path: Path) -> Folder:
    """Read everything there is.

    Raises:
        HoneError: there is no such folder, or nothing of a run in it.
    """
    if not path.is_dir():
        raise HoneError("no such folder", where=str(path), fix="name the folder of a run; `hone runs` lists them")
    if not any((path / name).exists() for name in MARKERS):
        raise HoneError("holds no run", where=str(path), fix="name the folder of a run; `hone runs` lists them")
    run, notes = Run(path), list[str]()

    def tolerant(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except (HoneError, OSError, RecursionError) as error:
            notes.append(f"not read: {error}".replace(f"{path}/", ""))
            return otherwise

    def of_json(name: str) -> dict[str, Any] | None:
        return tolerant(lambda: _object(path / name), None)

    grades = {name: tolerant(partial(_lines, file), list[dict[str, Any]]()) for name, file in _graded(path).items()}
    grades = {name: rows for name, rows in grades.items() if rows}
    return Folder(
        path=path.resolve(),
        status=tolerant(lambda: run.status, {"status": "unknown"}),
        metrics=tolerant(lambda: _objects(run.metrics(), path / "metrics.jsonl"), []),
        base=of_json("eval/base.json"),
        tuned=of_json("eval/tuned.json"),
        compare=of_json("eval/compare.json"),
        compare_code=of_json("eval/compare.code.json"),
        samples=tolerant(lambda: _lines(path / "eval" / "samples.jsonl"), []),
        grades=grades,
        overlap=of_json("eval/overlap.json"),
        memorization=of_json("eval/memorization.json"),
        repeat=of_json("repeat.json"),
        env=of_json("env.json") or {},
        config=tolerant(lambda: load_config(path / RESOLVED) if (path / RESOLVED).is_file() else None, None),
        settings=tolerant(lambda: _text(path / RESOLVED), ""),
        log=[line[9:] for line in tolerant(lambda: _text(path / "train.log"), "").splitlines()],
        notes=notes,
    )


def _object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    return _objects([read_json(path)], path)[0]


def _objects(values: list[Any], path: Path) -> list[dict[str, Any]]:
    if not all(isinstance(value, dict) for value in values):
        raise HoneError("JSON objects were expected: the file is damaged", where=str(path))
    return values


def _lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; none where there is no file."""
    try:
        return _objects([json.loads(line) for line in _text(path).split("\n") if line.strip()], path)
    except json.JSONDecodeError as error:
        raise HoneError("not readable as JSON lines: the file is damaged", where=str(path)) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise HoneError("not UTF-8 text: the file is damaged", where=str(path)) from error


def _graded(path: Path) -> dict[str, Path]:
    """Files of graded programs: those of the evaluation first, then what `hone grade` wrote here."""
    found = {name: path / "eval" / f"{name}.code.jsonl" for name in ("base", "tuned")}
    others = sorted([*path.glob("*_results.jsonl"), *(path / "eval").glob("*_results.jsonl")])
    return found | {file.name.removesuffix("_results.jsonl"): file for file in others}
