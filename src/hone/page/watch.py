"""Run folders as they grow: a row for each, read again only when its files have changed; metrics from a place on.

Nothing here speaks to a training. Files are the truth, so a page, this server and a training may each die and return.

>>> folder = Watched(Path("runs"))                                                              # doctest: +SKIP
>>> [row["id"] for row in folder.rows()]                                                        # doctest: +SKIP
['a', 'seeds/seed-1']
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.errors import HoneError, printable
from hone.page.groups import TOGETHER, groups_of
from hone.results import read
from hone.results.benchmarks import CodeMeasurement
from hone.runs import RESOLVED, STATUS, Run, find_runs, living_status
from hone.serve.refusal import JsonObject
from hone.tables.run import run_row

LOOKED_AT_S = 1.0  # between two looks for new folders
MOST_BYTES = 4 << 20  # of metrics or log, in one answer
MOST_POINTS = 2000  # of a curve: more than a screen has columns
SHOWN = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_s", "peak_memory_bytes")
CHANGING = (STATUS, "metrics.jsonl", RESOLVED, "eval/base.json", "eval/tuned.json", "eval/tuned.code.json")


@dataclass
class Watched:
    """The runs below a folder."""

    folder: Path
    _looked: float = -LOOKED_AT_S
    _runs: dict[str, Run] = field(default_factory=dict)
    _rows: dict[str, tuple[tuple[Any, ...], JsonObject]] = field(default_factory=dict)
    _groups: tuple[tuple[Any, ...], list[JsonObject]] = ((), [])

    def run(self, name: str) -> Run:
        """The run of this name: only what was found below the folder has one, so no path leads out of it.

        Raises:
            HoneError: there is none.
        """
        runs = self._found()
        if name not in runs:
            raise HoneError(f"no run '{name[:200]}' in {self.folder}")
        return runs[name]

    def rows(self) -> list[JsonObject]:
        """What the table of runs shows, by name."""
        rows = [self._row(name, run) for name, run in self._found().items()]
        kept = {row["id"] for row in rows}
        self._rows = {name: found for name, found in self._rows.items() if name in kept}
        return rows

    def groups(self) -> list[JsonObject]:
        """Those of the runs that one command has trained, as `groups_of` has them."""
        names = list(self._found())
        parents = {self.folder / name.rpartition("/")[0] for name in names}
        state = (*names, *(_state(parent / file) for parent in sorted(parents) for file in TOGETHER))
        if state != self._groups[0]:
            self._groups = (state, groups_of(self.folder, names))
        return self._groups[1]

    def _found(self) -> dict[str, Run]:
        if time.monotonic() - self._looked >= LOOKED_AT_S:
            runs = find_runs(self.folder) if self.folder.is_dir() else []
            self._runs = {self._name(run): run for run in runs}
            self._looked = time.monotonic()
        return self._runs

    def _name(self, run: Run) -> str:
        return run.folder.relative_to(self.folder).as_posix()

    def _row(self, name: str, run: Run) -> JsonObject:
        state = tuple(_state(run.folder / file) for file in CHANGING)
        if name not in self._rows or self._rows[name][0] != state:
            self._rows[name] = (state, _row_of(name, run))
        row = self._rows[name][1]
        return {**row, "status": living_status({"status": row["status"], "pid": row["pid"]})}


def _state(path: Path) -> tuple[int, int] | None:
    """What changes when a file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _row_of(name: str, run: Run) -> JsonObject:
    row = run_row(run)
    try:
        status = run.status
        code = read(CodeMeasurement, run.file_of("tuned.code"))
        passed = {"passed": code.verdicts.get("pass", 0), "tasks": code.n_samples} if code else {}
        comparison = run.comparison
    except HoneError as error:
        return {**row, "id": name, "pid": -1, "status": "damaged", "error": str(error)}
    return {
        **row,
        **passed,
        "id": name,
        "status": status["status"],
        "stage": status.get("stage"),
        "error": status.get("error") or row.get("error"),
        "pid": int(status.get("pid", -1)),
        "updated": status.get("updated"),
        "verdict": comparison.verdict if comparison else None,
        "base": Path(str(row["base"])).name if row.get("base") else None,
        "data": Path(str(row["data"])).name if row.get("data") else None,
    }


# ---- from a place on -----------------------------------------------------------------------------------------------


def metrics_from(path: Path, offset: int) -> JsonObject:
    """The log lines of a training behind a byte of its metrics.jsonl: columns, and where the next call goes on.

    reset: the file is shorter than it was, because a resumed training cut it back: what was shown before is void. Only
    whole lines are read, so a line that is being written comes with the next call.
    """
    size = path.stat().st_size if path.is_file() else 0
    reset = offset > size
    begin = 0 if reset else offset
    lines: list[JsonObject] = []
    more = False
    if size > begin:
        with path.open("rb") as file:
            file.seek(begin)
            text = file.read(MOST_BYTES)
        more = len(text) == MOST_BYTES
        text = text[: text.rfind(b"\n") + 1]
        begin += len(text)
        lines = [found for line in text.splitlines() if isinstance(found := _parsed(line), dict)]
    kept = thinned(lines)
    columns = {name: [_number(line.get(name)) for line in kept] for name in ("step", *SHOWN)}
    return {"reset": reset, "next": begin, "more": more and bool(lines), "columns": columns}


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # a line of a damaged file costs its point
        return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def thinned(lines: Sequence[JsonObject], most: int = MOST_POINTS) -> Sequence[JsonObject]:
    """At most about so many lines: of each stretch the smallest and the largest loss, and whatever was held out.

    >>> [line["loss"] for line in thinned([{"loss": x} for x in (5, 1, 2, 9, 3, 3)], most=4)]
    [5, 1, 9, 3]
    """
    if len(lines) <= most:
        return lines
    stretches = most // 2
    kept: list[int] = []
    for part in range(stretches):
        places = range(part * len(lines) // stretches, (part + 1) * len(lines) // stretches)
        losses = [(loss, i) for i in places if (loss := _number(lines[i].get("loss"))) is not None]
        kept += [min(losses)[1], max(losses)[1]] if losses else []
        kept += [i for i in places if lines[i].get("eval_loss") is not None]
    return [lines[i] for i in sorted(set(kept))]


def log_tail(path: Path, lines: int = 200) -> list[str]:
    """The last lines of train.log."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64_000))
        text = file.read().decode("utf-8", errors="replace")
    return [printable(line) for line in text.splitlines()[-lines:]]
