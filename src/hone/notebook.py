"""A run as Python users hold it, in a script or a notebook: what `hone.train` returns, and `hone.Run` opens.

The run folder itself is `hone.runs.Run`; this adds what needs a model, a report or a table. In a notebook a run shows
its verdict and the numbers before and after; `print` says the same in one line.

>>> run = Run("out/demo/functions")                                 # doctest: +SKIP
>>> run                                                             # doctest: +SKIP
Run('out/demo/functions'): finished, hone-base, loss 1.229 -> 0.675 (better), unit tests 0 -> 40 of 190
>>> run.generate("Write a function double(x).")[0]                  # doctest: +SKIP
"""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hone import runs
from hone.errors import HoneError, printable
from hone.report.blocks import Table
from hone.report.build import verdict_and_tables, write_report
from hone.results import Comparison, Measurement, SideBySide, side_by_side
from hone.results.repeat import Repeat
from hone.results.search import Search
from hone.show import figure, measurement_line
from hone.tables.plan import plan_text
from hone.tables.results import comparison_text, repeat_text
from hone.tables.run import before_after, run_row, runs_table
from hone.tables.search import search_text

if TYPE_CHECKING:
    from pandas import DataFrame

    from hone.convert.export import Exported
    from hone.inference.generate import SamplingOptions
    from hone.planning.plan import Plan

# Colours that are read on white and on black; everything else is the notebook's own.
TONES = {"good": "#2e9e5b", "bad": "#d9534f", "open": "#8a8a8a"}
RULE = "1px solid rgba(128,128,128,.4)"


class Run(runs.Run):
    """One training and its folder. `hone.Run(folder)` opens one; everything but the path is read from its files.

    Attributes:
        folder: the path; `from_pretrained(run.folder)` loads the tuned model.
        status: what status.json says: {"status": "finished", "seconds": 34.2, …}.
        base, tuned: what was measured before and after; `run.tuned.value("perplexity")`. None where it was not.
        comparison: the paired difference of the two; `run.comparison.verdict` is "better", "worse" or
            "not distinguishable".
        env: versions, hardware, fingerprints of the data.

    Raises:
        HoneError: the folder is not there, or is not a run.
    """

    def __init__(self, folder: "str | Path | runs.Run") -> None:
        super().__init__(folder.folder if isinstance(folder, runs.Run) else Path(folder))
        if not any((self.folder / name).is_file() for name in (runs.STATUS, runs.RESOLVED)):
            if not self.folder.exists():
                raise runs.no_such_folder(self.folder)
            fix = "name the folder of a run; hone.find_runs() lists them"
            raise HoneError("is not a run", where=str(self.folder), fix=fix)

    def __repr__(self) -> str:
        """Status, base, the first number before and after, and the verdict, in one line."""
        row = run_row(self)
        parts = [f"{row['status']}", f"{Path(str(row['base'])).name if row['base'] else 'unknown base'}"]
        try:
            parts += _numbers(self)
        except HoneError as error:
            parts.append(f"not readable: {error.what}")
        return f"Run({str(self.folder)!r}): {', '.join(parts)}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the table of before and after, the unit tests."""
        try:
            verdict, tables = verdict_and_tables(self.folder)
        except HoneError as error:
            return f"<pre>{_safe(str(error))}</pre>"
        return (
            f'<div style="border-left:4px solid {TONES[verdict.tone]};padding:.2em 0 .2em .9em;max-width:70em">'
            f"<div><b>{_safe(verdict.word)}</b>: {_safe(verdict.rest)}</div>"
            f"{''.join(map(_table, tables))}"
            f'<div style="opacity:.75;margin-top:.5em"><code>{_safe(str(self.folder))}</code></div></div>'
        )

    def report(self) -> Path:
        """Write report.html and report.md of the files as they are now; the path of report.html."""
        write_report(self.folder)
        return self.folder / "report.html"

    def compare(self, other: "runs.Run | str | Path | None" = None, *, confidence: float = 0.95) -> Comparison:
        """The tuned model compared with the base; or another run with this one: `other` is better, if it is.

        Raises:
            HoneError: one of the two was not measured, or on other items.
        """
        from hone.evaluation.compare import compare

        return compare(self, other, confidence=confidence)

    def generate(self, prompt: str, *, template: str | None = None, **options: "Unpack[SamplingOptions]") -> list[str]:
        """Answers of the tuned model, as `hone.generate` gives them."""
        from hone.inference.generate import answers

        return next(answers(str(self.folder), [prompt], template, options))

    def metrics(self) -> "DataFrame":
        """A row for each log step: step, epoch, loss, eval_loss, learning_rate, tokens …

        Columns that a step does not have are NaN there: `run.metrics()["eval_loss"].dropna()`. The first four are
        always there, also where nothing was logged because the run has fewer steps than `logging_steps`.
        """
        from pandas import DataFrame

        frame = DataFrame(self.metric_lines())
        always = [name for name in ("step", "epoch", "loss", "eval_loss") if name not in frame]
        return frame.reindex(columns=[*frame.columns, *always])

    def samples(self) -> list[SideBySide]:
        """What base and tuned wrote for the same held-out items: prompt, reference, base, tuned."""
        return side_by_side(self.base, self.tuned)

    def export(
        self, to: str, *, output: str | Path | None = None, dtype: str | None = None, base: str | None = None
    ) -> "Exported":
        """The tuned model for other programs, as `hone.export` writes it; `run.export("merged")` removes an adapter."""
        from hone.convert.export import export

        target = None if output is None else Path(output)
        return export(str(self.folder), to, output=target, dtype=dtype, base=base)


class Runs(list[Run]):
    """Runs by name; in a notebook and printed, a table as of `hone runs`."""

    def __repr__(self) -> str:
        return runs_table([*self])

    def _repr_html_(self) -> str:
        rows = [run_row(run) for run in self]
        head = ["run", "status", "base", "data", "metric", "before", "after", "seconds"]
        return _table(Table(head, [[_cell(row[name]) for name in head] for row in rows], "lllllrrr"))


def find_runs(folder: str | Path = ".") -> Runs:
    """The runs in a folder, up to three levels down.

    Raises:
        HoneError: there is no such folder.
    """
    return Runs(Run(found.folder) for found in runs.find_runs(Path(folder)))


def text(found: "Run | Measurement | Comparison | Repeat | Search | Plan") -> str:
    """What the command that makes it prints, for scripts: `print(hone.text(hone.plan("my.yaml")))`."""
    if isinstance(found, runs.Run):
        return before_after(found)
    if isinstance(found, Measurement):
        return measurement_line(found)
    if isinstance(found, Comparison):
        return comparison_text(found)
    if isinstance(found, Repeat):
        return repeat_text(found)
    if isinstance(found, Search):
        return search_text(found)
    return plan_text(found)


def _numbers(run: runs.Run) -> list[str]:
    """'loss 1.229 -> 0.675 (better)', 'unit tests 0 -> 40 of 190'; what was not measured is left out."""
    found = []
    if (change := run.comparison) is not None:
        first = change.metrics[change.headline]
        levels = [figure(level.value, first.kind.form) for level in (first.a, first.b)]
        found.append(f"{first.kind.heading} {levels[0]} -> {levels[1]} ({first.verdict})")
    base, tuned, _ = run.code()
    if tuned is not None:
        before = f"{base.verdicts.get('pass', 0):,} -> " if base else ""
        found.append(f"unit tests {before}{tuned.verdicts.get('pass', 0):,} of {tuned.n_samples:,}")
    return found or ["not measured"]


# ---- as HTML ---------------------------------------------------------------------------------------------------------


def _table(table: Table) -> str:
    """Every cell escaped; numbers on the right; wide tables scroll instead of widening the page."""
    style = "background:none;color:inherit;border:none;font-size:inherit"
    sides = "text-align:left", "text-align:right;white-space:nowrap"
    body = ""
    for tag, rows in (("th", [table.head]), ("td", table.rows)):
        for row in rows:
            cells = (
                f'<{tag} style="{style};{sides[table.right(i)]};padding:.25em .8em .25em 0">{_safe(cell)}</{tag}>'
                for i, cell in enumerate(row)
            )
            body += f'<tr style="background:none;border-bottom:{RULE}">{"".join(cells)}</tr>'
    caption = f'<div style="opacity:.75">{_safe(table.caption)}</div>' if table.caption else ""
    return (
        f'<div style="overflow-x:auto;margin-top:.5em"><table style="border-collapse:collapse;{style}">{body}</table>'
        f"</div>{caption}"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    return escape(printable(text))
