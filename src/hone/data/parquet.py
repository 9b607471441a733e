"""Rows of a parquet file, read in a process with limits: a few kilobytes of it can say gigabytes.

A long text may stand once in a column's dictionary and be named in each row; a page of zeros packs well; what a file
says of its sizes may be untrue; and pyarrow aborts where it contradicts itself. So the file is never opened here: the
process (`parquet_process.py`) reads it, and what comes from there is bounded, row by row.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hone.data.limited import Ended, Limited
from hone.data.opening import FIX, PLENTY_BYTES, PLENTY_TIMES
from hone.data.parquet_process import Limits
from hone.errors import HoneError, first_line

SECONDS = 20.0  # of the processor, for one batch of rows
MEMORY_BYTES = 1 << 30  # for what is read at once, and for its copy
MAX_VALUES = 2_000_000  # of one row


def reading_process(max_columns: int, max_row_bytes: int) -> Limited:
    """The process that reads parquet files, for `parquet_rows`; it is started by the first of them."""
    import numpy
    import pyarrow

    limits = Limits(
        SECONDS,
        MEMORY_BYTES,
        max_columns,
        max_row_bytes,
        MAX_VALUES,
        plenty_bytes=PLENTY_BYTES,
        plenty_times=PLENTY_TIMES,
    )
    return Limited("hone.data.parquet_process", limits._asdict(), [pyarrow, numpy])


class Group(NamedTuple):
    """A group of rows. n_bytes: packed."""

    n_rows: int
    n_bytes: int


def parquet_groups(process: Limited, path: Path) -> list[Group] | None:
    """What a file says of its groups of rows; None for one that is damaged."""
    try:
        process.ask({"file": str(path.resolve()), "about": True})
        said = process.line()
    except Ended:
        return None
    return [Group(*group) for group in said["groups"]] if "groups" in said else None


def parquet_rows(
    process: Limited, path: Path, groups: range | None = None, columns: list[str] | None = None
) -> Iterator[Mapping[str, object]]:
    """The rows of a file.

    Args:
        process: as `reading_process` gives it; it reads one file after the other.
        groups: those to read, one after the other; None for all.
        columns: those to read where they are there; None for all.

    Raises:
        HoneError: no parquet, damaged, or made to take all memory.
    """
    from pyarrow import ipc

    done = False
    try:
        some = None if groups is None else (groups.start, groups.stop)
        about = {"file": str(path.resolve()), "packed": path.stat().st_size, "groups": some, "columns": columns}
        process.ask({**about, "about": False})
        while "bytes" in (said := process.line()):
            piece = ipc.open_stream(process.read(said["bytes"])).read_next_batch()
            yield from piece.to_pylist()
        done = True
    except Ended as ended:
        done = True
        raise _over_a_limit(ended, path) from None
    finally:
        if not done:  # whoever reads the rows has enough of them
            process.stop()
    if "end" not in said:
        raise _problem(said, path)


def _over_a_limit(ended: Ended, path: Path) -> HoneError:
    if ended.limit == "memory":
        return HoneError(f"a row takes more than {MEMORY_BYTES >> 20:,} MiB to read", where=str(path), fix=FIX)
    if ended.limit == "time":
        return HoneError(f"some rows take more than {SECONDS:g} seconds to read", where=str(path), fix=FIX)
    what = f"not readable as parquet: what it says of itself is contradictory (exit code {ended.code})"
    return HoneError(what, where=str(path), fix="fetch or write it again")


def _problem(said: Mapping[str, Any], path: Path) -> HoneError:
    """What the process found wrong, as a message."""
    if "wrong" in said and said["row"] is not None:
        return HoneError(said["wrong"], where=f"{path}:{said['row']}", fix="leave it out, or split its texts")
    if "wrong" in said:
        fix = "keep those to train on" if "columns" in said["wrong"] else FIX
        return HoneError(said["wrong"], where=str(path), fix=fix)
    what = first_line(str(said["damaged"]))
    if said.get("errno") is not None:  # the disk's own
        return HoneError(f"cannot read: {what}", where=str(path))
    return HoneError(f"not readable as parquet: {what}", where=str(path), fix="fetch or write it again")


def refuse_width(n: int, most: int, where: str) -> None:
    """Raise a HoneError for a table of more than `most` columns."""
    if n > most:
        raise HoneError(f"{n:,} columns, at most {most:,} are read", where=where, fix="keep those to train on")
