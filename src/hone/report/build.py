"""A report from a run folder, and its two files. Any part that cannot be made is left out and named, none breaks it.

>>> write_report(Path("out/demo/functions"))      # doctest: +SKIP
"""

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from hone.files import write_text_atomic
from hone.report import (
    code_section,
    evaluation_sections,
    files_section,
    next_steps,
    run_sections,
    samples,
    takeaways,
    words,
)
from hone.report.blocks import Report, Section, Table, Verdict
from hone.report.folder import Folder, read_folder
from hone.report.markdown import to_markdown
from hone.report.page import to_html
from hone.report.verdict import verdict_of
from hone.runs import REPORT

log = logging.getLogger("hone")
SECTIONS: tuple[Callable[[Folder], Section | None], ...] = (
    takeaways.takeaways,
    next_steps.next_steps,
    code_section.code,
    evaluation_sections.metrics,
    samples.samples,
    run_sections.curves,
    evaluation_sections.written,
    evaluation_sections.confusion,
    evaluation_sections.seeds,
    run_sections.data,
    run_sections.cost,
    run_sections.settings,
    words.words,
    files_section.files,
)
T = TypeVar("T")


def write_report(path: Path) -> Report:
    """Write report.html and report.md into a run folder, from its files alone.

    Raises:
        HoneError: this is not a run folder, or it cannot be written.
    """
    report = build_report(read_folder(path))
    write_text_atomic(path / "report.md", to_markdown(report))
    write_text_atomic(path / REPORT, to_html(report))  # last: where it is, the other is too
    return report


def write_report_or_say(path: Path) -> None:
    """`write_report` at the end of a training: whatever goes wrong is logged, and costs the report only."""
    try:
        write_report(path)
    except Exception as error:
        log.warning("no report was written (%s); try `hone report %s`", error, path)


def verdict_and_tables(path: Path) -> tuple[Verdict, list[Table]]:
    """The head of a report alone: the verdict, and the first tables of what was measured and of graded programs.

    Raises:
        HoneError: this is not a run folder.
    """
    folder = read_folder(path)
    sections = [evaluation_sections.metrics(folder), code_section.code(folder)]
    tables = [[block for block in section.blocks if isinstance(block, Table)][:1] for section in sections if section]
    return verdict_of(folder), [table for first in tables for table in first]


def build_report(folder: Folder, without: Collection[Callable[[Folder], Section | None]] = ()) -> Report:
    """Every section there is something for, in the order a reader asks; `without` some that are shown elsewhere."""
    notes = list(folder.notes)

    def made(what: str, make: Callable[[Folder], T], otherwise: T) -> T:
        try:
            return make(folder)
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            IndexError,
            OverflowError,
        ) as error:  # a file of another form
            notes.append(f"left out: {what}, its files have an unexpected form ({type(error).__name__}: {error})")
            return otherwise

    verdict = made("the verdict", verdict_of, Verdict("Unknown", "the comparison cannot be read"))
    makers = [make for make in SECTIONS if make not in without]
    sections = [section for make in makers if (section := made(make.__name__, make, None)) and section.blocks]
    return Report(folder.path.name, made("the subtitle", _subtitle, ""), verdict, sections, notes)


def _subtitle(folder: Folder) -> str:
    """'distilgpt2, causal, lora, trained on train.jsonl'."""
    if folder.config is None:
        return ""
    config = folder.config
    base = config.model.model_name_or_path or f"{config.model.model_type} from scratch"
    files = config.data.train_file
    source = str(files[0] if isinstance(files, list) else files) if files else config.data.dataset_name
    name = Path(base).name if Path(base).is_absolute() else base
    return f"{name}, {config.method.task}, {config.method.method}" + (f", on {Path(source).name}" if source else "")
