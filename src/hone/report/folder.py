"""What is in a run folder, read so that a missing or damaged file costs its own part of the report and no other.

Every file is parsed by `Run`; here it is only noted what could not be.

>>> read_folder(Path("out/demo/functions")).comparison.verdict      # doctest: +SKIP
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hone import results
from hone.config.load import load_config
from hone.config.schema import Config
from hone.errors import HoneError
from hone.results import Comparison, Measurement
from hone.results.benchmarks import CodeMeasurement
from hone.results.contamination import Contamination, Memorization
from hone.results.repeat import Repeat
from hone.runs import RESOLVED, STATUS, Run

T = TypeVar("T")
MARKERS = (STATUS, RESOLVED, "repeat.json", "eval")  # a folder with none of these is not a run


@dataclass(frozen=True)
class Folder:
    """The files of a run, parsed. Empty or None: not there, or damaged and then named in `notes`.

    code: of "base", "tuned" and each file of samples that `hone grade` graded here. log: lines of train.log without
    their time.
    """

    path: Path
    status: dict[str, Any]
    metrics: list[dict[str, Any]]
    base: Measurement | None
    tuned: Measurement | None
    comparison: Comparison | None
    code: dict[str, CodeMeasurement]
    code_comparison: Comparison | None
    contamination: Contamination | None
    memorization: Memorization | None
    repeat: Repeat | None
    env: dict[str, Any]
    config: Config | None
    settings: str
    log: list[str]
    notes: list[str]

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
        raise HoneError("no such folder", where=str(path), fix="name the folder of a run; `hone runs` lists them")
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
    return Folder(
        path=path.resolve(),
        status=tolerant(lambda: run.status, {"status": "unknown"}),
        metrics=tolerant(run.metric_lines, []),
        base=of(Measurement, "base"),
        tuned=of(Measurement, "tuned"),
        comparison=of(Comparison, "compare"),
        code={name: found for name, found in code.items() if found},
        code_comparison=of(Comparison, "compare.code"),
        contamination=of(Contamination, "contamination"),
        memorization=of(Memorization, "memorization"),
        repeat=tolerant(lambda: results.read(Repeat, path / "repeat.json"), None),
        env=tolerant(lambda: run.env, {}),
        config=tolerant(lambda: load_config(path / RESOLVED) if (path / RESOLVED).is_file() else None, None),
        settings=tolerant(lambda: _text(path / RESOLVED), ""),
        log=[line[9:] for line in tolerant(lambda: _text(path / "train.log"), "").splitlines()],
        notes=notes,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise HoneError("not UTF-8 text: the file is damaged", where=str(path)) from error
