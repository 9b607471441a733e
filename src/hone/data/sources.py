"""Rows from files, folders and the hub: streamed, in order, in bounded memory.

Reads .jsonl .ndjson .json .csv .parquet .txt .md .py and .gz of those. Text files are one document each; everything
else holds one row per record. UTF-8 only, checked strictly. What a row means is decided in `records.py`; token files
(.bin) belong to `store.py`; nothing here executes code from a data set.

>>> for row in read_rows([Path("train.jsonl")], on_bad_row="error", on_skip=print):        # doctest: +SKIP
...     print(row.where, row.columns)
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hone.data.limited import Limited
from hone.data.opening import open_bytes, readable
from hone.data.parquet import parquet_rows, reading_process, refuse_width
from hone.data.streams import (
    DecodeError,
    check_utf8,
    holds_list,
    json_items,
    json_values,
    not_utf8,
    refuse_many_values,
    text_pieces,
)
from hone.errors import HoneError, first_line
from hone.hub import no_retries

OnBadRow = Literal["error", "skip"]
OnSkip = Callable[[str, str], None]  # (reason, where)

TEXT_SUFFIXES = (".txt", ".md", ".py")
ROW_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
TABLE_SUFFIXES = (".tsv", ".tab", ".xlsx", ".xls", ".ods")  # not read: named so that the message says what to do
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})  # and every hidden one, such as .git and .venv
ABOUT_A_FOLDER = frozenset({"README", "LICENSE", "LICENCE", "CHANGELOG", "CONTRIBUTING", "NOTICE"})
ACCEPTED = f"accepted: {' '.join((*ROW_SUFFIXES, *TEXT_SUFFIXES))}, and .gz of those"

MAX_COLUMNS = 10_000  # of a table: more is a matrix, or made to take all memory
MAX_RECORD_BYTES = 32 << 20  # one line, one item of a JSON list, one csv field: more is a broken file, not a row
PIECE_BYTES = 1 << 20  # a text file larger than this is handed on in pieces
MAX_PIECE_CHARACTERS = 8 << 20  # a piece without any white space is cut here, wherever that is
COUNTED_AT_ONCE = 1 << 20  # bytes in which lines are counted
HEAD_BYTES = 4096  # enough of a .json file to see what it holds


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it was found.

    source: the file as the user named it, or the hub's name. line: 1-based line of the record's start (jsonl, csv) or
    row number (JSON list, parquet, hub); 0 for a whole text file. ends: False if the next row continues this text.
    """

    columns: Mapping[str, Any]
    source: str
    line: int
    ends: bool = True

    @property
    def where(self) -> str:
        """`train.jsonl:17`, or `book.txt` for a whole file."""
        return f"{self.source}:{self.line}" if self.line else self.source


def refuse_row(reason: str, where: str, on_bad_row: OnBadRow, on_skip: OnSkip) -> None:
    """The one rule for a bad row: stop with an error that names it, or report it to `on_skip` and go on."""
    if on_bad_row == "error":
        raise HoneError(reason, where=where, fix="repair the row, or leave bad rows out (and counted): on_bad_row=skip")
    on_skip(reason, where)


def read_rows(paths: Sequence[Path], *, on_bad_row: OnBadRow, on_skip: OnSkip) -> Iterator[Row]:
    """Rows of the files, in the order given; folders and patterns are expanded (see `expand`).

    Raises:
        HoneError: a file is missing, empty, cut off, of an unknown kind, or (with `on_bad_row` "error") has a bad row.
    """
    files = expand(paths)
    tables = reading_process(MAX_COLUMNS, MAX_RECORD_BYTES) if any(_kind(one) == ".parquet" for one in files) else None
    for path in files:
        with readable(path):
            yield from _read_file(path, tables, on_bad_row, on_skip)


def read_hub_rows(
    dataset_name: str, dataset_config_name: str | None, split: str, *, revision: str | None = None
) -> Iterator[Row]:
    """Rows of a data set from the Hugging Face hub (streamed) or from a local folder in its layout.

    Row numbers count from 1 in the split. Loading scripts are never run: `datasets` no longer does, and nothing here
    asks for it.

    Raises:
        HoneError: no such data set, configuration or split, or it cannot be reached.
    """
    from datasets import load_dataset

    local, online = Path(dataset_name).is_dir(), False
    if not local and (dataset_name.startswith((".", "/", "~")) or dataset_name.count("/") > 1):
        raise HoneError("no such folder", where=dataset_name, fix="a hub name looks like name or owner/name")
    try:
        with no_retries(dataset_name) as online:  # out of reach: a copy in the cache of `datasets` will do
            streaming = online and not local
            rows = load_dataset(dataset_name, dataset_config_name, split=split, revision=revision, streaming=streaming)
        for number, columns in enumerate(rows, 1):
            yield Row(columns, dataset_name, number)
    except (OSError, ValueError, RuntimeError) as error:  # `datasets` and `huggingface_hub` raise all three
        if isinstance(error, HoneError):
            raise
        reason = first_line(error)[:300]
        fix = "check dataset_name, dataset_config_name and the split"
        if not local and online:
            fix += "; without a network, download the files once and name them in train_file"
        elif not local:
            reason = "the hub cannot be reached, and there is no copy in its cache"
            fix = "`hone init RECIPE --with-data` writes the recipe with rows to try it; or name files of your own: "
            fix += "train_file=FILE dataset_name="
        raise HoneError(f"cannot read the data set, split '{split}': {reason}", where=dataset_name, fix=fix) from error


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files to read: folders and patterns (`src/**/*.py`) are replaced by their files, sorted.

    In a folder, hidden files, empty files, files of unknown kinds and the folders that tools fill are passed over. A
    folder whose files are partly rows and partly texts is refused (only a README and its like may be among rows):
    which of the two is meant cannot be guessed.

    Raises:
        HoneError: nothing there, nothing readable there, or a file named by itself is empty or of an unknown kind.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += _one_kind(path, _files_below(path))
        elif path.exists():
            files.append(_checked(path))
        elif any(character in "*?[" for character in str(path)):
            files += _one_kind(path, _files_matching(path))
        else:
            raise HoneError("no such file or folder", where=str(path), fix=f"looked in {Path.cwd()}; {ACCEPTED}")
    if not files:
        raise HoneError("no data files given", fix="name a file or a folder, e.g. train_file: data/train.jsonl")
    return files


def _kind(path: Path) -> str:
    """The suffix that decides how to read: ".jsonl" for both a.jsonl and a.jsonl.gz; "" if unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in (*TEXT_SUFFIXES, *ROW_SUFFIXES) else ""


def _usable(path: Path) -> bool:
    return not path.name.startswith(".") and bool(_kind(path)) and path.stat().st_size > 0


def _skipped_folder(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED_FOLDERS


def _files_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _skipped_folder(name)]
        found += [path for name in names if (path := Path(parent, name)).is_file() and _usable(path)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _files_matching(pattern: Path) -> list[Path]:
    try:
        matches = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:  # "**" next to other characters
        raise HoneError(str(error), where=str(pattern), fix="write a pattern such as 'src/**/*.py'") from None
    return [
        path
        for path in matches
        if path.is_file() and _usable(path) and not any(map(_skipped_folder, set(path.parts[:-1]) - set(pattern.parts)))
    ]


def _one_kind(given: Path, found: list[Path]) -> list[Path]:
    """`found`, if all of it is rows or all of it is texts."""
    rows = [path for path in found if _kind(path) in ROW_SUFFIXES]
    texts = [path for path in found if _kind(path) in TEXT_SUFFIXES]
    if rows:
        texts = [path for path in texts if path.name.split(".")[0].upper() not in ABOUT_A_FOLDER]
    if rows and texts:
        raise HoneError(
            f"mixes rows ({rows[0].name}) and texts ({texts[0].name})",
            where=str(given),
            fix=f"name the files, a sub-folder, or a pattern such as '{given if given.is_dir() else '.'}/**/*.py'",
        )
    if not rows and not texts:
        raise HoneError("no data files found here", where=str(given), fix=ACCEPTED)
    return rows or texts


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise HoneError("is a device or a pipe, not a file", where=str(path), fix="write its rows into a file first")
    if path.suffix.lower() == ".bin":
        fix = "give one token file by itself, or use the text or rows it was made from"
        raise HoneError("token files (.bin) cannot be read as rows", where=str(path), fix=fix)
    if not _kind(path):
        table = path.suffix.lower() in TABLE_SUFFIXES
        fix = f"save the table as CSV, with commas and in UTF-8; {ACCEPTED}" if table else ACCEPTED
        raise HoneError(f"unknown kind of file '{path.suffix or path.name}'", where=str(path), fix=fix)
    if path.stat().st_size == 0:
        raise HoneError("the file is empty", where=str(path), fix="check how it was written, or name another file")
    return path


def _read_file(path: Path, tables: Limited | None, on_bad_row: OnBadRow, on_skip: OnSkip) -> Iterator[Row]:
    match _kind(path):
        case ".jsonl" | ".ndjson":
            rows = _line_rows(path, on_bad_row, on_skip)
        case ".json":
            rows = _json_rows(path, on_bad_row, on_skip)
        case ".csv":
            rows = _csv_rows(path, on_bad_row, on_skip)
        case ".parquet" if tables:
            rows = _parquet_rows(path, tables)
        case _:
            yield from _text_rows(path, on_bad_row, on_skip)
            return
    first = next(rows, None)
    if first is None:
        raise HoneError(
            "no usable rows in the file", where=str(path), fix="check how it was written, or name another file"
        )
    yield first
    yield from rows


def read_part(path: Path, begin: int, end: int, on_bad_row: OnBadRow, on_skip: OnSkip) -> Iterator[Row]:
    """Rows of the lines that begin in bytes [begin, end) of a file of JSON lines that is not packed.

    Lines are numbered from the first one of the part, which `begin` must be the start of; an error names its line in
    the file.
    """
    with readable(path):
        try:
            yield from _line_rows(path, on_bad_row, on_skip, begin, end)
        except HoneError as error:
            source, _, number = str(error.where).rpartition(":")
            if not begin or source != str(path) or not number.isdigit():
                raise
            line = int(number) + lines_before(path, begin)
            raise HoneError(error.what, where=f"{source}:{line}", fix=error.fix) from error


def lines_before(path: Path, begin: int) -> int:
    """How many lines end before a byte of a file."""
    with path.open("rb") as stream:
        ends = 0
        while begin > 0 and (piece := stream.read(min(begin, COUNTED_AT_ONCE))):
            ends += piece.count(b"\n")
            begin -= len(piece)
        return ends


def _line_rows(
    path: Path, on_bad_row: OnBadRow, on_skip: OnSkip, begin: int = 0, end: int | None = None
) -> Iterator[Row]:
    """JSON lines. Whatever is wrong with one line, the next ones stay readable."""
    source, loads, number = str(path), json.loads, 0
    with open_bytes(path) as stream:
        if begin:
            stream.seek(begin)
        offset = stream.tell()  # of the line, in bytes
        while (end is None or offset < end) and (line := stream.readline(MAX_RECORD_BYTES)):
            number += 1
            try:
                refuse_many_values(line)
                columns = loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                if not line.isspace():
                    refuse_row(_line_problem(error, line, offset, number), f"{source}:{number}", on_bad_row, on_skip)
            else:
                if type(columns) is dict:
                    yield Row(columns, source, number)
                else:
                    refuse_row(_not_an_object(columns), f"{source}:{number}", on_bad_row, on_skip)
            offset += len(line)


def _line_problem(error: Exception, line: bytes, offset: int, number: int) -> str:
    if isinstance(error, UnicodeDecodeError):
        return not_utf8(line[error.start], offset + error.start)
    if len(line) == MAX_RECORD_BYTES:
        return f"the line is longer than {MAX_RECORD_BYTES >> 20} MiB"
    hint = " (is the file one JSON document, not one a line? Then name it .json)" if number == 1 else ""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}{hint}"
    return f"not valid JSON: {error}{hint}"


def _not_an_object(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return f"a row must be a JSON object with named columns, not {names.get(type(value), 'null')}"


def _json_rows(path: Path, on_bad_row: OnBadRow, on_skip: OnSkip) -> Iterator[Row]:
    """A .json file: a list of objects, {"data": [...]}, JSON lines, or objects spread over lines."""
    with open_bytes(path) as stream:
        if not holds_list(stream.peek(HEAD_BYTES)) and _is_object(stream.readline(MAX_RECORD_BYTES)):
            yield from _line_rows(path, on_bad_row, on_skip)
            return
    with open_bytes(path) as stream:
        read = json_items if holds_list(stream.peek(HEAD_BYTES)) else json_values
        try:
            for number, item in enumerate(read(stream, max_characters=MAX_RECORD_BYTES), 1):
                if isinstance(item, dict):
                    yield Row(item, str(path), number)
                else:
                    refuse_row(_not_an_object(item), f"{path}:{number}", on_bad_row, on_skip)
        except DecodeError as error:
            fix = "it cannot be skipped, because where the next row begins is unknown: repair it, or use JSON lines"
            raise HoneError(error.reason, where=f"{path}:{error.line}", fix=fix) from error


def _is_object(line: bytes) -> bool:
    try:
        refuse_many_values(line)
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _csv_rows(path: Path, on_bad_row: OnBadRow, on_skip: OnSkip) -> Iterator[Row]:
    """A .csv file with a header line; all values are text. Rows are numbered by the line they begin on."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))  # the default refuses texts over 128 KiB
    source = str(path)
    problems: list[str] = []  # of the record being read
    with open_bytes(path) as stream:
        reader = csv.reader(_csv_lines(stream, problems), strict=True)
        header: list[str] | None = None
        while True:
            line, fields = reader.line_num + 1, None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):
                    fix = "close the quote; every row after it was read as part of this one"
                    raise HoneError(
                        "a quote is opened here and never closed", where=f"{source}:{line}", fix=fix
                    ) from None
                problems.append(f"not valid CSV: {error}")
            if fields == [] and not problems:  # an empty line
                continue
            if header is None:
                header = _csv_header(fields or [], problems, f"{source}:{line}")
                continue
            if fields is not None and len(fields) != len(header):
                problems.append(f"{len(fields)} fields where the header has {len(header)} ({', '.join(header)[:80]})")
            if problems:
                refuse_row(problems[0], f"{source}:{line}", on_bad_row, on_skip)
                problems.clear()
            elif fields is not None:
                yield Row(dict(zip(header, fields)), source, line)


def _csv_lines(stream: "io.BufferedReader[Any]", problems: list[str]) -> Iterator[str]:
    """Decoded lines; what is not UTF-8 is reported, so that it costs one record and not the file."""
    offset = stream.tell()
    while line := stream.readline(MAX_RECORD_BYTES):
        try:
            refuse_many_values(line)
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.append(not_utf8(line[error.start], offset + error.start))
            yield line.decode("utf-8", errors="replace")
        except ValueError as error:
            problems.append(str(error))
            yield "\n"
        offset += len(line)


def _csv_header(fields: list[str], problems: list[str], where: str) -> list[str]:
    if problems:
        fix = "the first line names the columns; save the table as CSV, with commas and in UTF-8"
        raise HoneError(f"the header cannot be read: {problems[0]}", where=where, fix=fix)
    refuse_width(len(fields), MAX_COLUMNS, where)
    if repeated := sorted(name for name, times in Counter(fields).items() if times > 1):
        raise HoneError(f"two columns are named '{repeated[0]}'", where=where, fix="rename one in the header")
    return fields


def _parquet_rows(path: Path, tables: Limited) -> Iterator[Row]:
    with path.open("rb"):  # whatever the system has against it
        pass
    for number, columns in enumerate(parquet_rows(tables, path), 1):
        yield Row(columns, str(path), number)


def _text_rows(path: Path, on_bad_row: OnBadRow, on_skip: OnSkip) -> Iterator[Row]:
    """One text file as one document, in pieces of about `PIECE_BYTES`."""
    with open_bytes(path) as stream:  # a first pass, so that a file is used whole or not at all
        try:
            check_utf8(stream)
        except DecodeError as error:
            refuse_row(error.reason, f"{path}:{error.line}", on_bad_row, on_skip)
            return
    with open_bytes(path) as stream:
        for text, ends in text_pieces(stream, PIECE_BYTES, MAX_PIECE_CHARACTERS):
            yield Row({"text": text}, str(path), 0, ends)
