"""Reads parquet files, within limits: what `data/parquet.py` asks, in a process of its own.

Asked for a file, it answers with pieces of the table as Arrow's bytes, small enough to be turned into rows, and with
`end`; or with what is wrong. A batch of rows that does not fit into memory is read again in smaller ones.
"""

import gzip
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from hone.data.limited import MEMORY, answer, asked, limit_memory, limit_time

SIZES = (256, 16, 1)  # rows read at once


class Limits(NamedTuple):
    """What one reading may take. seconds: for a batch; row_bytes, values: of a row; plenty: see `opening.py`."""

    seconds: float
    memory_bytes: int
    columns: int
    row_bytes: int
    values: int
    plenty_bytes: int
    plenty_times: int


class Wrong(Exception):
    """Something about a file that is to be said. row: its number, from 1."""

    def __init__(self, words: str, row: int | None = None) -> None:
        super().__init__(words)
        self.words, self.row = words, row


def main() -> None:
    """Answer until the other side closes."""
    questions = asked()
    limits = Limits(**next(questions))
    import pyarrow
    import pyarrow.parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others reserve far more than they use
    pyarrow.set_cpu_count(1)
    limit_memory(_reserved() + limits.memory_bytes)
    answer("started")
    for question in questions:
        limit_time(limits.seconds)
        try:
            with _opened(question["file"]) as stream:
                file = pyarrow.parquet.ParquetFile(stream)
                if file.metadata.num_columns > limits.columns:
                    raise Wrong(f"{file.metadata.num_columns:,} columns, at most {limits.columns:,} are read")
                if question["about"]:
                    answer({"groups": _groups(file.metadata)})
                    continue
                for piece in _pieces(file, question, limits):
                    payload = _as_bytes(piece)
                    answer({"bytes": len(payload)}, payload)
                    limit_time(limits.seconds)
                answer({"end": True})
        except Wrong as wrong:
            answer({"wrong": wrong.words, "row": wrong.row})
        except MemoryError:
            sys.exit(MEMORY)
        except Exception as error:  # of a damaged file pyarrow raises anything: ArrowInvalid, RuntimeError, KeyError …
            answer({"damaged": str(error)[:500], "errno": getattr(error, "errno", None)})
        limit_time(0)


def _reserved() -> int:
    """Bytes of memory that this process has asked for, most of it by libraries that use little of it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    except OSError:
        return 1 << 30


def _opened(name: str) -> IO[bytes]:
    packed = name.lower().endswith(".gz")
    return gzip.open(name, "rb") if packed else Path(name).open("rb")  # type: ignore[return-value]


def _groups(about: Any) -> list[tuple[int, int]]:
    """How many rows and bytes, packed, each group has."""
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    return [(one.num_rows, sum(one.column(i).total_compressed_size for i in range(one.num_columns))) for one in groups]


def _pieces(file: Any, question: Mapping[str, Any], limits: Limits) -> Iterator[Any]:
    """The rows that are asked for, in pieces that are small enough to be sent."""
    unpacked = number = 0
    packed = question["packed"]
    for batch in _batches(file, question["groups"], question["columns"]):
        size = _total(_size, batch)
        unpacked += size
        if unpacked > limits.plenty_bytes and unpacked > limits.plenty_times * packed:
            raise Wrong(f"{packed:,} bytes unpack to {unpacked >> 20:,} MiB or more")
        few = size <= limits.row_bytes and _total(_n_values, batch) <= limits.values
        for piece in [batch] if few else (batch.slice(i, 1) for i in range(len(batch))):
            if not few:
                _refuse_large_row(piece, number + 1, limits)
            number += len(piece)
            yield piece


def _batches(file: Any, groups: Sequence[int] | None, columns: Sequence[str] | None) -> Iterator[Any]:
    """Batches of rows, each group of them in the largest that fit into memory. None: all groups, all columns."""
    there = file.schema_arrow.names
    wanted = [name for name in columns or () if name in there] or None
    for group in range(file.num_row_groups) if groups is None else range(*groups):
        done = 0
        for size in SIZES:
            read = 0
            try:
                for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=wanted, use_threads=False):
                    read += len(batch)
                    if read > done:
                        yield batch
                        done = read
                break
            except MemoryError:
                if size == SIZES[-1]:
                    raise


def _refuse_large_row(row: Any, number: int, limits: Limits) -> None:
    if (size := _total(_size, row)) > limits.row_bytes:
        what = f"the row unpacks to {size >> 20:,} MiB, at most {limits.row_bytes >> 20} MiB are read"
        raise Wrong(what, number)
    if _total(_n_values, row) > limits.values:
        raise Wrong(f"a row of more than {limits.values:,} values", number)


def _total(measure: Callable[[Any], int], rows: Any) -> int:
    return sum(map(measure, rows.columns))


def _size(array: Any) -> int:
    """Bytes of an array when it is written out, each text of a dictionary as often as it is named."""
    import pyarrow
    import pyarrow.compute

    if isinstance(array, pyarrow.DictionaryArray):
        if not _is_text(array.dictionary.type):
            return 8 * len(array)
        lengths = pyarrow.compute.binary_length(array.dictionary)
        return pyarrow.compute.sum(pyarrow.compute.take(lengths, array.indices)).as_py() or 0
    if isinstance(array, pyarrow.StructArray):
        return sum(map(_size, array.flatten()))
    if _is_list(array):
        return _size(array.flatten()) + 8 * len(array)
    return int(array.nbytes)


def _n_values(array: Any) -> int:
    """Numbers, texts and the like in an array, those in lists too."""
    import pyarrow

    if isinstance(array, pyarrow.StructArray):
        return len(array) + sum(map(_n_values, array.flatten()))
    return len(array) + (_n_values(array.flatten()) if _is_list(array) else 0)


def _is_list(array: Any) -> bool:
    return hasattr(array, "flatten") and hasattr(array, "values")  # a map too


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_kind(kind) for is_kind in kinds)


def _as_bytes(piece: Any) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, piece.schema) as writer:
        writer.write_batch(piece)
    return bytes(sink.getvalue())
