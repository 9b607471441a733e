"""The data a config names, as it lies there: its files or its hub data set, their rows, and what they are by content.

>>> fingerprints(config.data)                                                      # doctest: +SKIP
{'train': [{'file': 'train.jsonl', 'bytes': 5120, 'sha256': '…'}]}
"""

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from hone.config.fields import as_paths
from hone.config.sections.data import DataSection
from hone.data.records import (
    REQUIRED,
    Example,
    Form,
    Instruction,
    Labelled,
    Pair,
    SourceTarget,
    Text,
    examples,
    mapping_note,
    recognise,
    unused_note,
)
from hone.data.shards import is_corpus, open_corpus
from hone.data.sources import OnBadRow, Row, expand, read_hub_rows, read_rows, refuse_row
from hone.data.split import Dropped
from hone.data.store import open_bin
from hone.data.templates import border_note, render, resolve_template
from hone.errors import HoneError, placed
from hone.hub import no_retries

Side = Literal["train", "validation"]
FIRST_ROWS = 1000  # of each file, for a first look
NAMED_LABELS = 12  # in a message


def files_of(section: DataSection, side: Side) -> list[Path]:
    """The files and folders of one side."""
    return as_paths(section.train_file if side == "train" else section.validation_file)


def is_bin(paths: list[Path]) -> bool:
    """Whether there are token files of another tool among them."""
    return any(path.suffix == ".bin" for path in paths)


def is_tokens(paths: list[Path]) -> bool:
    """Whether there are token files or a sealed corpus among them: nothing that has rows."""
    return is_bin(paths) or any(map(is_corpus, paths))


def rows_of(section: DataSection, side: Side, on_skip: Callable[[str, str], None]) -> Iterator[Row]:
    """The rows of one side; `on_skip` is called with (reason, where) for each that cannot be read and is left out."""
    if section.dataset_name:
        split = section.dataset_train_split if side == "train" else section.dataset_validation_split
        return read_hub_rows(section.dataset_name, section.dataset_config_name, str(split))
    return read_rows(files_of(section, side), on_bad_row=section.on_bad_row, on_skip=on_skip)


def fingerprints(section: DataSection) -> dict[str, Any]:
    """What the data is, by content: SHA-256 of every file, or the hub data set's name and commit."""
    if section.dataset_name:
        return {
            "dataset": section.dataset_name,
            "config": section.dataset_config_name,
            "splits": [section.dataset_train_split, section.dataset_validation_split],
            "commit": _hub_commit(section.dataset_name),
        }
    sides: tuple[Side, ...] = ("train", "validation")
    return {
        side: [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in (paths if is_bin(paths) else expand(paths))
        ]
        for side in sides
        if (paths := files_of(section, side))
    }


def _hub_commit(name: str) -> str | None:
    """The data set's current commit; None when it is a local folder or the hub does not answer."""
    if Path(name).is_dir():
        return None
    from huggingface_hub import HfApi

    try:
        with no_retries(name) as online:
            return HfApi().dataset_info(name, timeout=10).sha if online else None
    except Exception:  # offline or unknown: reading the rows will say which, in full
        return None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(section: DataSection) -> None:
    """Refuse missing, empty or unreadable data files without reading their rows."""
    for path in files_of(section, "train") + files_of(section, "validation"):
        if path.suffix == ".bin":
            open_bin(path, section.bin_dtype, None)
        elif is_corpus(path):
            open_corpus(path)
        else:
            expand([path])


@dataclass(frozen=True)
class FirstLook:
    """What the first rows of one side are.

    n_rows: read. complete: whether these are all. notes: as `row_notes`. dropped: what would not be trained on.
    labels: of a classification, how many rows each has and where the first one is.
    """

    form: Form
    n_rows: int
    complete: bool
    notes: list[str]
    dropped: Dropped
    labels: dict[str, tuple[int, str]]

    def __str__(self) -> str:
        unit = "row" if self.n_rows == 1 else "rows"
        return f"{'' if self.complete else 'at least '}{self.n_rows:,} {unit} of {'+'.join(REQUIRED[self.form])}"


def first_look(section: DataSection, side: Side, forms: Collection[Form] | None) -> FirstLook | None:
    """Read the first rows of each file as training would; None for token files, a corpus and hub data sets.

    Args:
        forms: those that the task can use, None for all.

    Raises:
        HoneError: as `prepare` would say it of these rows.
    """
    paths = files_of(section, side)
    if not paths or is_tokens(paths):
        return None
    dropped = Dropped()
    complete = True

    def first_rows(path: Path) -> Iterator[Row]:
        nonlocal complete
        rows = read_rows([path], on_bad_row=section.on_bad_row, on_skip=dropped.add)
        yield from islice(rows, FIRST_ROWS)
        complete = complete and next(rows, None) is None

    usable = tuple(REQUIRED) if forms is None else forms
    found = examples(
        chain.from_iterable(first_rows(path) for path in expand(paths)),
        column_mapping=section.column_mapping,
        on_bad_row=section.on_bad_row,
        on_skip=dropped.add,
        forms=usable,
    )
    first = next(found, None)
    if first is None:
        raise HoneError(f"no {side} rows", fix=next(iter(dropped.counts), "the data is empty"))
    form, mapping = recognise(first[0].columns, section.column_mapping, usable)
    template = resolve_template(section.template, form, True) if forms is None else "chat"
    if template != "chat":  # of a chat only its tokenizer knows
        with placed(first[0].where):
            render(first[1], template, None)
    notes = row_notes(section, *first, form, mapping, plain=template == "plain")
    n_rows, labels = 0, dict[str, tuple[int, str]]()
    for row, example in chain([first], found):
        n_rows += row.ends
        if row.ends and (reason := _nothing_to_learn(example)):
            dropped.add(reason, row.where)
        elif isinstance(example, Labelled):
            _count_label(labels, str(example.label), row.where, section.on_bad_row, dropped)
    return FirstLook(form, max(1, n_rows), complete, notes, dropped, labels)


def row_notes(
    section: DataSection, row: Row, example: Example, form: Form, mapping: dict[str, str], *, plain: bool
) -> list[str]:
    """What the first row shows that may be meant otherwise: columns by other names, columns not used, texts joined.

    plain: whether the template joins texts as they are.
    """
    notes = [mapping_note(mapping)] if mapping != section.column_mapping else []
    if not section.column_mapping and (unused := unused_note(row.columns, form, mapping)):
        notes.append(unused)
    if plain and section.template == "auto" and (joined := border_note(example)):
        notes.append(joined)
    return notes


def _nothing_to_learn(example: Example) -> str | None:
    """Why a row will be left out, if what it is to teach is empty."""
    match example:
        case Text(text) | Labelled(text, _):
            return None if text.strip() else "empty text"
        case Pair(_, answer) | Instruction(_, _, answer) | SourceTarget(_, answer):
            return None if answer.strip() else "empty output: nothing to learn"
    return None


def _count_label(
    labels: dict[str, tuple[int, str]], name: str, where: str, on_bad_row: OnBadRow, dropped: Dropped
) -> None:
    if not name.strip():
        refuse_row("the label is empty", where, on_bad_row, dropped.add)
        return
    count, first = labels.get(name, (0, where))
    labels[name] = (count + 1, first)


def label_notes(train: FirstLook) -> list[str]:
    """How many rows each class has; which has one alone, and which is written with blanks around it."""
    labels = train.labels
    if not labels:
        return []
    listed = [f"{name} {count:,}" for name, (count, _) in sorted(labels.items())]
    more = f", … ({len(listed)} in all)" if len(listed) > NAMED_LABELS else ""
    notes = []
    for name, (count, where) in labels.items():
        if name != name.strip():
            notes.append(f"{where}: label {name!r} has blanks around it: a class of its own, not '{name.strip()}'")
        elif count == 1 and train.complete:
            others = [other for other, (rows, _) in labels.items() if rows > 1]
            near = difflib.get_close_matches(name, others, n=1, cutoff=0.7)
            notes.append(f"{where}: label '{name}' has one row" + (f"; did you mean '{near[0]}'?" if near else ""))
    return [f"classes: {', '.join(listed[:NAMED_LABELS])}{more}", *notes[:NAMED_LABELS]]


def refuse_unseen_labels(section: DataSection, train: FirstLook, held: FirstLook) -> None:
    """Raise a HoneError for a held-out label that no training row has, as training would; or count it as dropped."""
    if not train.complete:
        return
    known = ", ".join(f"'{name}'" for name in sorted(train.labels)[:NAMED_LABELS])
    for name, (_, where) in held.labels.items():
        if name not in train.labels:
            reason = f"label '{name}' does not occur in the training rows (known: {known})"
            refuse_row(reason, where, section.on_bad_row, held.dropped.add)


def refuse_two_templates(section: DataSection, train: Form, validation: Form) -> None:
    """Raise a HoneError where the two sides would be formatted differently."""
    one, other = (resolve_template(section.template, form, True) for form in (train, validation))
    if one != other:
        raise HoneError(
            f"validation rows are formatted by the template '{other}', training rows by '{one}'",
            fix="give both in the same form, or set template",
        )
