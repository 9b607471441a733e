"""From documents to tokens to shards.

    tokens   of each task: what is left of its documents, tokenised as hone tokenises texts, in two files
    shards   the tokens of all tasks one after another, cut after every `shard_tokens`, never inside a document

Which documents are held out is decided by a hash of their text: where they stood does not matter.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hone.corpus.copies import copies_of
from hone.corpus.documents import Batch, digests_of, texts_of
from hone.corpus.leaks import leaks_of
from hone.corpus.near import near_of
from hone.corpus.tokenizer import kept
from hone.corpus.work import About, Drops, Work
from hone.data.encode import EncodeRule, encode
from hone.data.ngrams import splitmix64
from hone.data.records import Example, Text
from hone.data.sources import Row
from hone.data.store_writer import TokenWriter, token_dtype
from hone.results.corpus import Shard

SPLITS = ("train", "val")
RULE = EncodeRule(template="plain", completion_only_loss=True, append_eos=True)
COPY, NEAR, LEAK = "copy of an earlier document", "nearly an earlier document", "holds an evaluation item"
COPIED_AT_ONCE = 1 << 20  # tokens


def write_tokens(work: Work, rank: int, out: Path, *, n_copy_tasks: int, near: bool, leaks: bool) -> About:
    """Tokenise what is left of a task's documents."""
    about = work.plan.tokenizer
    tokenizer = kept(work.folder, work.settings.tokens.tokenizer_name_or_path, about.sha256)
    reasons: dict[int, str] = dict.fromkeys(leaks_of(work, rank).tolist() if leaks else (), LEAK)
    reasons |= {number: NEAR for number, _, _ in (near_of(work, rank).tolist() if near else ())}
    reasons |= dict.fromkeys(copies_of(work, rank, n_copy_tasks).tolist(), COPY)
    held = held_out(digests_of(work, rank), work.settings.tokens.validation_percentage, work.settings.tokens.split_seed)
    drops, sides, n_bytes = Drops(), list[bool](), 0

    def documents() -> Iterator[tuple[Row, Example]]:
        nonlocal n_bytes
        for number, text, batch, at in _numbered(texts_of(work, rank, np.zeros(0, np.int64))):
            if number in reasons:
                drops.add(reasons[number], batch.places[at])
                continue
            sides.append(bool(held[number]))
            n_bytes += len(text.encode())
            yield Row({}, "", number), Text(text)

    writers = [TokenWriter(out, name, token_dtype(about.n_entries), False) for name in SPLITS]
    for n, row in enumerate(encode(documents(), tokenizer, RULE, on_drop=_refuse_dropped)):
        if sides[n]:  # a row is a part of the array of a whole batch, which the few held-out ones would keep for long
            row = row._replace(ids=row.ids.copy(), supervised=row.supervised.copy())
        writers[sides[n]].add(row)
    for writer in writers:
        writer.finish()
    n_documents = sum(len(writer.starts) - 1 for writer in writers)
    n_tokens = sum(writer.n_tokens for writer in writers)
    return About(n_documents=n_documents, n_bytes=n_bytes, n_tokens=n_tokens, dropped=drops.listed())


def _numbered(batches: Iterable[Batch]) -> Iterator[tuple[int, str, Batch, int]]:
    for batch in batches:
        for at, (number, text) in enumerate(zip(batch.numbers, batch.texts)):
            yield number, text, batch, at


def _refuse_dropped(reason: str, where: str) -> None:
    raise AssertionError(f"document {where} was dropped: {reason}")  # those without a text were dropped before


def held_out(digests: np.ndarray, percentage: float, seed: int) -> np.ndarray:
    """Which documents are held out, (n,) bool, by a hash of their text and the seed alone."""
    drawn = splitmix64(np.asarray(digests[:, 0]), seed + 1)
    return drawn < np.uint64(min(int(percentage / 100 * 2**64), 2**64 - 1))


# ---- shards ----------------------------------------------------------------------------------------------------------


def shard_borders(work: Work, split: str) -> list[np.ndarray]:
    """For each task, the borders (shards + 1,) of every shard's documents among the task's own.

    Shard i holds the documents that begin at tokens [i, i + 1) * shard_tokens of the split.
    """
    starts = [np.load(work.result("tokens", rank) / f"{split}.docs.npy", mmap_mode="r") for rank in range(work.n_tasks)]
    sizes = np.array([int(one[-1]) for one in starts])
    before = np.cumsum(sizes) - sizes
    step = work.settings.tokens.shard_tokens
    cuts = np.arange(-(-int(sizes.sum()) // step) + 1) * step
    return [np.searchsorted(one[:-1], cuts - first) for one, first in zip(starts, before.tolist())]


def write_shards(work: Work, rank: int, out: Path, *, n_tasks: int) -> About:
    """Every n-th shard, beginning with the one of this rank; shards without a document do not exist."""
    shards, dtype = [], token_dtype(work.plan.tokenizer.n_entries)
    for split in SPLITS:
        borders = shard_borders(work, split)
        full = [i for i in range(len(borders[0]) - 1) if any(own[i] < own[i + 1] for own in borders)]
        for number in range(rank, len(full), n_tasks):
            ranges = [(int(own[full[number]]), int(own[full[number] + 1])) for own in borders]
            name = f"{split}-{number:05d}"
            shards.append(_write_shard(work, split, name, ranges, dtype, out))
    total = {"n_documents": sum(one.documents for one in shards), "n_tokens": sum(one.tokens for one in shards)}
    return About(shards=shards, **total)


def _write_shard(
    work: Work, split: str, name: str, ranges: list[tuple[int, int]], dtype: np.dtype[np.uint16], out: Path
) -> Shard:
    """Copy documents [begin, end) of each task into a shard."""
    borders, largest, inputs = [np.zeros(1, np.int64)], 0, list[int]()
    n_inputs = 0
    with (out / f"{name}.bin").open("wb") as file:
        for task, (begin, end) in enumerate(ranges):
            n_here = len(work.plan.tasks[task])
            if begin < end:
                folder = work.result("tokens", task)
                starts = np.load(folder / f"{split}.docs.npy", mmap_mode="r")[begin : end + 1].astype(np.int64)
                largest = max(largest, _copy(folder / f"{split}.bin", int(starts[0]), int(starts[-1]), dtype, file))
                borders.append(starts[1:] - starts[0] + borders[-1][-1])
                inputs += range(n_inputs, n_inputs + n_here)
            n_inputs += n_here
    index = np.concatenate(borders)
    np.save(out / f"{name}.docs.npy", index)
    return Shard(
        name=name,
        split="train" if split == "train" else "val",
        documents=len(index) - 1,
        tokens=int(index[-1]),
        largest_id=largest,
        inputs=inputs,
    )


def _copy(source: Path, begin: int, end: int, dtype: np.dtype[np.uint16], file: BinaryIO) -> int:
    """Append tokens [begin, end) of a file, and the largest of them."""
    largest = 0
    with source.open("rb") as stream:
        stream.seek(begin * dtype.itemsize)
        while begin < end:
            content = stream.read(min(end - begin, COPIED_AT_ONCE) * dtype.itemsize)
            tokens = np.frombuffer(content, dtype)
            largest = max(largest, int(tokens.max()))
            file.write(content)
            begin += len(tokens)
    return largest
