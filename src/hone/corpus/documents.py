"""The first stage: rows to documents, filtered and masked.

A result holds texts.parquet (text, part, line) and digests.npy, (documents, 2) uint64: a hash of each text, by
which copies are found and the held-out documents are chosen.

>>> for batch in texts_of(work, rank): print(len(batch.texts))                     # doctest: +SKIP
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hone.corpus.blocks import blocks_of, through
from hone.corpus.inputs import Part, rows_before, rows_of
from hone.corpus.masking import mask
from hone.corpus.quality import kind_of, unfit
from hone.corpus.schema import CorpusConfig
from hone.corpus.work import About, Drops, Place, Work
from hone.data.inputs import file_sha256
from hone.data.sources import Row, refuse_row
from hone.errors import HoneError
from hone.results.corpus import InputFile

TEXTS, DIGESTS = "texts.parquet", "digests.npy"
SCHEMA = pa.schema([("text", pa.string()), ("part", pa.int32()), ("line", pa.int64())])
GROUP_BYTES = 4 << 20  # of text, in a group of rows: read and held at once
BAD_ROW = "a row that cannot be read"


@dataclass
class Batch:
    """Consecutive documents. numbers: of each in its task."""

    numbers: list[int]
    texts: list[str]
    places: list[Place]


@dataclass
class _Reading:
    """What is counted while the rows of a task are read."""

    drops: Drops = field(default_factory=Drops)
    masked: dict[str, int] = field(default_factory=dict)
    n_read: int = 0


def write_documents(work: Work, rank: int, out: Path) -> About:
    """Read, filter and mask the documents of a task."""
    parts, settings = work.plan.tasks[rank], work.settings
    reading = _Reading()
    digests: list[bytes] = []
    contents: list[bytes] = []  # of the texts that wait to be written, with their places
    places: list[Place] = []
    n_bytes = waiting = 0
    with pq.ParquetWriter(
        out / TEXTS, SCHEMA, compression="zstd", use_dictionary=False, write_statistics=False
    ) as file:
        for text, place in _documents(parts, settings, reading):
            content = text.encode()
            digests.append(hashlib.blake2b(content, digest_size=16).digest())
            contents.append(content)
            places.append(place)
            n_bytes += len(content)
            waiting += len(content)
            if waiting >= GROUP_BYTES:
                file.write_batch(_group(contents, places))
                contents, places, waiting = [], [], 0
        if contents:
            file.write_batch(_group(contents, places))
    np.save(out / DIGESTS, np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2))
    return About(
        n_read=reading.n_read,
        n_documents=len(digests),
        n_bytes=n_bytes,
        inputs=[input_of(part, settings) for part in parts],
        dropped=reading.drops.listed(),
        masked=reading.masked,
    )


def _group(contents: list[bytes], places: list[Place]) -> pa.RecordBatch:
    """Rows of the file. Of lists and arrays pyarrow would make the same, but for that it imports pandas."""
    ends = np.cumsum([0, *map(len, contents)]).astype(np.int32)
    parts = np.array([place.part for place in places], np.int32)
    lines = np.array([place.line for place in places], np.int64)
    buffers: list[list[np.ndarray | bytes]] = [[ends, b"".join(contents)], [parts], [lines]]
    columns = [
        pa.Array.from_buffers(column.type, len(contents), [None, *(pa.py_buffer(one) for one in of)])
        for column, of in zip(SCHEMA, buffers)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def input_of(part: Part, settings: CorpusConfig) -> InputFile:
    """What a part was, by content."""
    if part.how == "hub":
        return InputFile(file=part.name, first=part.begin, n_bytes=None, sha256=settings.read.dataset_revision)
    if part.how != "lines":
        sha256 = file_sha256(Path(part.path))
        return InputFile(file=part.name, first=part.begin, n_bytes=part.n_bytes, sha256=sha256)
    digest, left = hashlib.sha256(), part.end - part.begin
    with Path(part.path).open("rb") as stream:
        stream.seek(part.begin)
        while left and (piece := stream.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
    return InputFile(file=part.name, first=part.begin, n_bytes=part.n_bytes, sha256=digest.hexdigest())


def _documents(parts: list[Part], settings: CorpusConfig, reading: _Reading) -> Iterator[tuple[str, Place]]:
    """The documents of a task that are kept, and where each was found."""
    blocks = blocks_of(settings.filter.blocks)
    for number, part in enumerate(parts):
        kind = kind_of(part.name, settings.filter.quality)
        for text, row in _texts(part, number, settings, reading):
            reading.n_read += 1
            place = Place(part=number, line=row.line)
            if (reason := _unlicensed(row, settings)) or (reason := unfit(text, kind, settings.filter)):
                reading.drops.add(reason, place)
                continue
            text, reason = through(blocks, text, part.name)
            if reason or not text.strip():
                reading.drops.add(reason or "empty", place)
                continue
            if settings.filter.mask_secrets:
                text, found = mask(text)
                for what, n in found.items():
                    reading.masked[what] = reading.masked.get(what, 0) + n
            yield text, place


def _texts(part: Part, number: int, settings: CorpusConfig, reading: _Reading) -> Iterator[tuple[str, Row]]:
    """The texts of a part, the pieces of a long file joined; those that cannot be read are counted or refused."""
    read = settings.read
    column = "text" if part.how == "web" or _is_text(part) else read.text_column

    def skipped(reason: str, where: str) -> None:
        line = where.rpartition(":")[2]
        reading.drops.add(BAD_ROW, Place(part=number, line=int(line) if line.isdigit() else 0))

    wanted = [column, *([settings.filter.licence_column] if settings.filter.licence_column else [])]
    pieces: list[str] = []
    n_characters = 0
    for row in rows_of(part, read, wanted, skipped):
        text = row.columns.get(column)
        if (reason := _unreadable(text, column, row)) is not None:
            # an error names the line in the file, which has to be counted; `skipped` wants the line in the part
            line = row.line + (0 if read.on_bad_row == "skip" else rows_before(part))
            refuse_row(reason, f"{part.path}:{line}", read.on_bad_row, skipped)
            continue
        if n_characters <= settings.filter.max_characters:  # a longer one is dropped: no need to hold all of it
            pieces.append(str(text))
        n_characters += len(str(text))
        if row.ends:
            yield "".join(pieces), row
            pieces, n_characters = [], 0


def _is_text(part: Part) -> bool:
    return part.name.lower().removesuffix(".gz").endswith((".txt", ".md", ".py"))


def _unreadable(text: object, column: str, row: Row) -> str | None:
    if column in row.columns and not isinstance(text, str):
        return f"column '{column}' holds no text, but {text!r:.40}"
    if not isinstance(text, str):
        return f"no text in column '{column}' (columns here: {', '.join(map(str, row.columns))[:120]})"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the text holds half a character (\\ud800 to \\udfff)"
    return None


def _unlicensed(row: Row, settings: CorpusConfig) -> str | None:
    rules = settings.filter
    if not rules.licences:
        return None
    licence = row.columns.get(str(rules.licence_column))
    allowed = {name.lower() for name in rules.licences}
    if not isinstance(licence, str) or not licence.strip():
        return "no licence is named"
    return None if licence.strip().lower() in allowed else "another licence"


# ---- reading back ----------------------------------------------------------------------------------------------------


def digests_of(work: Work, rank: int) -> np.ndarray:
    """(documents, 2) uint64 of a task."""
    return np.load(work.result("documents", rank) / DIGESTS, mmap_mode="r", allow_pickle=False)


def texts_of(work: Work, rank: int, without: np.ndarray) -> Iterator[Batch]:
    """Documents of a task, some megabytes at a time.

    Args:
        without: (m,) numbers of those to leave out.
    """
    gone = set(without.tolist())
    path = work.result("documents", rank) / TEXTS
    first = 0
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                found = file.read_row_group(group).to_pydict()
                numbers = [first + i for i in range(len(found["text"])) if first + i not in gone]
                places = [Place(part=found["part"][n - first], line=found["line"][n - first]) for n in numbers]
                texts = [found["text"][n - first] for n in numbers]
                first += len(found["text"])
                yield Batch(numbers, texts, places)
    except (pa.ArrowException, OSError) as error:
        raise HoneError("the result of an earlier task is damaged", where=str(path), fix="run again") from error
