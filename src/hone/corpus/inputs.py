"""What there is to read, cut into tasks: by sizes alone, so that the tasks do not depend on who does them.

A task holds about `task_mb` of input. Large files of JSON lines are cut between lines and parquet between its groups
of rows; other files stay whole. Documents are in the order of the files: those of a folder sorted by name.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hone.config.fields import as_paths
from hone.corpus.schema import ReadSection
from hone.corpus.web import is_web, web_files, web_rows
from hone.data.limited import Limited
from hone.data.opening import readable
from hone.data.parquet import parquet_groups, parquet_rows, reading_process
from hone.data.sources import (
    MAX_COLUMNS,
    MAX_RECORD_BYTES,
    OnBadRow,
    OnSkip,
    Row,
    expand,
    lines_before,
    read_hub_rows,
    read_part,
    read_rows,
)
from hone.errors import HoneError, first_line

How = Literal["file", "lines", "groups", "web", "hub"]
HUB_BYTES = 64_000_000  # taken for what a shard of a hub data set holds where it does not say


class Part(BaseModel):
    """A file, or a part of one. name: as people see it. begin, end: bytes, groups of rows, or shards of a data set.

    n_bytes: of the part, on the disk. mtime_ns: when the file was changed last.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    name: str
    how: How
    begin: int
    end: int
    n_bytes: int
    mtime_ns: int


def tasks_of(read: ReadSection, task_bytes: int) -> list[list[Part]]:
    """Everything to read, a list a task.

    Raises:
        HoneError: nothing there, or a file that cannot be read by its kind or its name.
    """
    tasks: list[list[Part]] = []
    room = 0
    for part in _hub_parts(read) if read.dataset_name else _parts(as_paths(read.files), task_bytes):
        if not tasks or part.n_bytes > room:
            tasks.append([])
            room = task_bytes
        tasks[-1].append(part)
        room -= part.n_bytes
    return tasks


def _parts(given: Sequence[Path], task_bytes: int) -> Iterator[Part]:
    for path in given:
        files = web_files(path) or expand([path])
        for file in files:
            with readable(file):
                yield from _parts_of(file, _name(file, path), task_bytes)


def _name(file: Path, given: Path) -> str:
    """A file below what was given: 'src/a/b.py' for the folder src, 'b.py' for the file itself.

    >>> _name(Path("/data/src/a/b.py"), Path("/data/src")), _name(Path("/data/b.py"), Path("/data/b.py"))
    ('src/a/b.py', 'b.py')
    """
    if file == given:
        return file.name
    root = given if given.is_dir() else Path(os.path.commonpath([file, given])).joinpath()
    return (Path(root.name) / file.relative_to(root)).as_posix()


def _parts_of(path: Path, name: str, task_bytes: int) -> Iterator[Part]:
    about = path.stat()
    size, suffix = about.st_size, path.suffix.lower()

    def part(how: How, begin: int, end: int, n_bytes: int) -> Part:
        absolute = str(path.resolve())
        return Part(
            path=absolute, name=name, how=how, begin=begin, end=end, n_bytes=n_bytes, mtime_ns=about.st_mtime_ns
        )

    if is_web(path):
        yield part("web", 0, size, size)
    elif suffix in (".jsonl", ".ndjson") and size > task_bytes:
        borders = _line_borders(path, size, task_bytes)
        for begin, end in pairwise(borders):
            yield part("lines", begin, end, end - begin)
    elif suffix == ".parquet" and (groups := parquet_groups(_tables(), path)):
        sizes = [group.n_bytes for group in groups]
        first = held = 0
        for number, n_bytes in enumerate(sizes):
            if held and held + n_bytes > task_bytes:
                yield part("groups", first, number, held)
                first, held = number, 0
            held += n_bytes
        yield part("groups", first, len(sizes), held)
    else:
        yield part("file", 0, size, size)


def _line_borders(path: Path, size: int, task_bytes: int) -> list[int]:
    """Where parts of about `task_bytes` begin, each at the start of a line; and the end."""
    borders = [0]
    with path.open("rb") as stream:
        for at in range(task_bytes, size, task_bytes):
            stream.seek(at - 1)
            stream.readline()
            if borders[-1] < stream.tell() < size:
                borders.append(stream.tell())
    return [*borders, size]


def _hub_parts(read: ReadSection) -> Iterator[Part]:
    """The shards of a data set, a part each."""
    name = str(read.dataset_name)
    shown = Path(name).name if Path(name).is_dir() else name
    # one row, for its messages where there is no such data set, or no network
    next(read_hub_rows(name, read.dataset_config_name, read.dataset_split, revision=read.dataset_revision), None)
    stream = _hub_stream(read)
    split = (stream.info.splits or {}).get(read.dataset_split)
    n_bytes = split.num_bytes // stream.num_shards if split and split.num_bytes else HUB_BYTES
    for number in range(stream.num_shards):
        yield Part(path=name, name=shown, how="hub", begin=number, end=number + 1, n_bytes=n_bytes, mtime_ns=0)


def _hub_stream(read: ReadSection):  # type: ignore[no-untyped-def]  # datasets has no types
    from datasets import load_dataset

    name = str(read.dataset_name)
    try:
        return load_dataset(
            name, read.dataset_config_name, split=read.dataset_split, revision=read.dataset_revision, streaming=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        fix = "check dataset_name, dataset_config_name and dataset_split"
        raise HoneError(f"cannot read the data set: {first_line(error)[:300]}", where=name, fix=fix) from error


# ---- rows of a part --------------------------------------------------------------------------------------------------


def rows_of(part: Part, read: ReadSection, columns: list[str], on_skip: OnSkip) -> Iterator[Row]:
    """The rows of a part, numbered from its beginning.

    Args:
        columns: those that are needed; more may be read.

    Raises:
        HoneError: the file has changed or cannot be read, or (with on_bad_row "error") has a bad row.
    """
    path = Path(part.path)
    if part.how != "hub":
        refuse_changed(part)
    if part.how == "lines":
        return read_part(path, part.begin, part.end, read.on_bad_row, on_skip)
    if part.how == "groups":
        return _group_rows(path, range(part.begin, part.end), columns)
    if part.how == "web":
        return web_rows(path, on_skip)
    if part.how == "hub":
        stream = _hub_stream(read)
        shard = stream.shard(stream.num_shards, part.begin)
        return (Row(row, part.name, number) for number, row in enumerate(shard, 1))
    return _file_rows(path, read.on_bad_row, on_skip)


def rows_before(part: Part) -> int:
    """How many lines, or rows of parquet, of its file lie before a part."""
    if part.how == "lines":
        return lines_before(Path(part.path), part.begin)
    if part.how == "groups" and part.begin:
        groups = parquet_groups(_tables(), Path(part.path)) or []
        return sum(group.n_rows for group in groups[: part.begin])
    return 0


def refuse_changed(part: Part) -> None:
    """Raise a HoneError where a file is not the one that was planned with."""
    try:
        about = Path(part.path).stat()
    except OSError as error:
        raise HoneError(f"cannot read: {error.strerror}", where=part.path, fix="put it back, or run again") from error
    if about.st_mtime_ns != part.mtime_ns:
        raise HoneError("the file was changed while it was read", where=part.path, fix="the same command begins anew")


def _file_rows(path: Path, on_bad_row: OnBadRow, on_skip: OnSkip) -> Iterator[Row]:
    return read_rows([path], on_bad_row=on_bad_row, on_skip=on_skip)


def _group_rows(path: Path, groups: range, columns: list[str]) -> Iterator[Row]:
    with readable(path):
        for number, row in enumerate(parquet_rows(_tables(), path, groups, columns), 1):
            yield Row(row, str(path), number)


def _tables() -> Limited:
    return reading_process(MAX_COLUMNS, MAX_RECORD_BYTES)
