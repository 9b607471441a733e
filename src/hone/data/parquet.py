"""Rows of a parquet file, in memory that its own size bounds: a few kilobytes of it can say gigabytes.

Two ways lead there. A long text may stand once in a column's dictionary and be named in each row; and a page of zeros
packs well. So what a group of rows can unpack to is asked of the file before it is read: a group with long texts in a
dictionary is read by their numbers, row by row; one that unpacks to far more than it holds is refused. It is asked in
a process of its own, which a damaged file may end (pyarrow aborts where what is said of a column contradicts itself).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from hone.data.opening import FIX, PLENTY_BYTES, PLENTY_TIMES, refuse_unpacked
from hone.data.trial import tried
from hone.errors import HoneError, first_line

ROWS = 256  # read at a time
BATCH_BYTES = 256 << 20  # what so many rows may take, in the worst case, to be read at once
DICTIONARY_BYTES = 1 << 20  # of a column: less cannot hold a text so long that 256 of it matter
CPU_SECONDS, MEMORY_BYTES = 20, 4 << 30  # for what the files say of themselves; libraries reserve more than they use
WIDTHS = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8, "INT96": 12}
PROGRAM = """
import gzip
import pyarrow.parquet
for name in asked["files"]:
    try:
        with (gzip.open if name.lower().endswith(".gz") else open)(name, "rb") as stream:
            about = pyarrow.parquet.ParquetFile(stream).metadata
            groups = [about.row_group(i) for i in range(about.num_row_groups)]
            if about.num_columns > asked["columns"]:
                groups = []
            found = [[g.column(i) for i in range(g.num_columns)] for g in groups]
            facts = [
                [(c.path_in_schema, c.physical_type, c.has_dictionary_page, c.total_uncompressed_size,
                  c.total_compressed_size, c.num_values) for c in columns] for columns in found
            ]
    except Exception:
        facts = None
    print(json.dumps(facts), flush=True)
"""


class Column(NamedTuple):
    """What a file says of a column in one group of rows."""

    path: str
    kind: str
    has_dictionary: bool
    unpacked: int
    packed: int
    n_values: int

    @property
    def nested(self) -> bool:
        """Whether one row has many of its values."""
        return "." in self.path


Groups = list[list[Column]]


def described(paths: Sequence[Path], max_columns: int) -> dict[Path, Groups | None]:
    """What parquet files say of their groups of rows; None for one that is damaged, so that nothing can be asked."""
    if not paths:
        return {}
    return _described(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths), max_columns)


@lru_cache(maxsize=8)
def _described(files: tuple[tuple[Path, int, int], ...], max_columns: int) -> dict[Path, Groups | None]:
    import numpy
    import pyarrow

    asked = {"files": [str(path.resolve()) for path, _, _ in files], "columns": max_columns}
    _, said = tried(PROGRAM, asked, [pyarrow, numpy], cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES)
    lines: list[Groups | None] = [None] * len(files)
    for i, line in enumerate(said.splitlines()[: len(files)]):  # fewer, or half of one, where a file ended the process
        with suppress(ValueError):
            groups = json.loads(line)
            lines[i] = groups and [[Column(*facts) for facts in columns] for columns in groups]
    return {path: found for (path, _, _), found in zip(files, lines, strict=True)}


def parquet_rows(
    stream: IO[bytes],
    path: Path,
    groups: Groups | None,
    max_columns: int,
    max_bytes: int,
    only: range | None = None,
    columns: list[str] | None = None,
) -> Iterator[Mapping[str, object]]:
    """The rows, each at most `max_bytes` large.

    Args:
        groups: as `described` gives it.
        only: the groups of rows to read; None for all. columns: those to read; None for all.

    Raises:
        HoneError: no parquet, damaged, or made to take all memory.
    """
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(stream)
        refuse_width(file.metadata.num_columns, max_columns, str(path))
        number = unpacked = 0
        for group in only or range(file.num_row_groups):
            if groups is None:
                raise ValueError("what it says of its columns is damaged")
            _refuse_bomb(groups[group], path)
            texts = _in_dictionaries(groups[group])
            careful = None
            if texts and _widest(stream, group, texts) * ROWS > BATCH_BYTES:
                careful = pyarrow.parquet.ParquetFile(stream, read_dictionary=texts)
            for batch in (careful or file).iter_batches(batch_size=ROWS, row_groups=[group], columns=columns):
                if careful is None:
                    yield from batch.to_pylist()
                    number += len(batch)
                    continue
                for piece in (batch.slice(i, 1) for i in range(len(batch))):
                    size = sum(map(_size, piece.columns))
                    unpacked += size
                    refuse_unpacked(unpacked, path)
                    if size > max_bytes:
                        what = f"the row unpacks to {size >> 20:,} MiB, at most {max_bytes >> 20} MiB are read"
                        raise HoneError(what, where=f"{path}:{number + 1}", fix="leave it out, or split its texts")
                    yield from piece.to_pylist()
                    number += 1
    except (HoneError, MemoryError):
        raise
    except Exception as error:  # of a damaged file pyarrow raises anything: ArrowInvalid, RuntimeError, KeyError …
        if isinstance(error, OSError) and error.errno is not None:  # the disk's own
            raise
        fix = "fetch or write it again"
        raise HoneError(f"not readable as parquet: {first_line(error)}", where=str(path), fix=fix) from error


def refuse_width(n: int, most: int, where: str) -> None:
    """Raise a HoneError for a table of more than `most` columns."""
    if n > most:
        raise HoneError(f"{n:,} columns, at most {most:,} are read", where=where, fix="keep those to train on")


def _refuse_bomb(columns: Sequence[Column], path: Path) -> None:
    """Raise a HoneError if a group of rows unpacks to far more than it holds, by what it says of itself."""
    for column in columns:
        unpacked = max(column.unpacked, column.n_values * WIDTHS.get(column.kind, 1) if column.nested else 0)
        if unpacked > PLENTY_BYTES and unpacked > PLENTY_TIMES * max(1, column.packed):
            what = f"column '{column.path}': {column.packed:,} bytes unpack to {unpacked >> 20:,} MiB"
            raise HoneError(what, where=str(path), fix=FIX)


def _in_dictionaries(columns: Sequence[Column]) -> list[str]:
    """Text columns whose values, in this group, stand in a dictionary that may hold long ones."""
    wide = [one for one in columns if one.has_dictionary and one.unpacked > DICTIONARY_BYTES]
    return [one.path for one in wide if one.kind == "BYTE_ARRAY"]


def _widest(stream: IO[bytes], group: int, texts: list[str]) -> float:
    """Bytes that a row of the group may take by its dictionaries; without end where it may name many of them."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(stream, read_dictionary=texts)
    batch = next(file.iter_batches(batch_size=1, row_groups=[group], columns=texts), None)
    longest = [length for column in (batch.columns if batch else []) for length in _longest(column)]
    nested = any("." in name for name in texts)
    return math.inf if nested and max(longest, default=0) > DICTIONARY_BYTES // 16 else float(sum(longest))


def _longest(array: Any) -> Iterator[int]:
    """The longest entry of each dictionary in an array."""
    import pyarrow
    import pyarrow.compute

    if isinstance(array, pyarrow.DictionaryArray):
        yield pyarrow.compute.max(pyarrow.compute.binary_length(array.dictionary)).as_py() or 0
    elif isinstance(array, pyarrow.StructArray):
        for part in array.flatten():
            yield from _longest(part)
    elif hasattr(array, "flatten") and hasattr(array, "values"):
        yield from _longest(array.values)


def _size(array: Any) -> int:
    """Bytes of an array when it is written out."""
    import pyarrow
    import pyarrow.compute

    if isinstance(array, pyarrow.DictionaryArray):
        lengths = pyarrow.compute.binary_length(array.dictionary)
        return pyarrow.compute.sum(pyarrow.compute.take(lengths, array.indices)).as_py() or 0
    if isinstance(array, pyarrow.StructArray):
        return sum(map(_size, array.flatten()))
    if hasattr(array, "flatten") and hasattr(array, "values"):
        return _size(array.flatten()) + 8 * len(array)
    return int(array.nbytes)
