"""Tokens on disk: written once, memory-mapped ever after, never half valid.

A store is a folder named by a hash of everything that decides its content (the bytes of the data files, the tokenizer,
the encode rule, the split). It holds two splits, `train` and `val`, each as

    train.bin       tokens end to end, uint16 or uint32, little-endian (nanoGPT's layout)
    train.mask      one byte a token, 1 = supervised; absent when every token is
    train.docs.npy  (documents + 1,) int64, where each document starts, and where the last one ends
    train.labels.npy  (documents,) int32, the number of each document's class; only where rows are labelled
    meta.json       format, dtype, counts of everything read, dropped and why

It is written under a temporary name and renamed when complete: an interrupted run leaves nothing that looks finished.
Splitting is by document, and exact duplicates always fall on the same side. Cutting to a length: `truncate.py`.
"""

import hashlib
import os
import shutil
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

from hone.data.encode import Encoded
from hone.data.ngrams import splitmix64
from hone.errors import HoneError
from hone.files import disk_errors, fsync_path, read_json, write_json_atomic

FORMAT = 1  # raise when the meaning of the files changes: old stores are then written anew
NAMED_PER_REASON = 10  # dropped rows are all counted; this many of each kind are named
WAITING_TOKENS = 1 << 16  # tokens that are written at once
COPY_TOKENS = 1 << 20  # tokens copied at once when a store is split: bounds memory
TRAIN, VAL, NEITHER = 0, 1, 2  # the sides of a document


@dataclass
class Dropped:
    """Everything that did not become training tokens: how often, and where first."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.first.setdefault(reason, [])
        if len(named) < NAMED_PER_REASON:
            named.append(where)

    def add_many(self, reason: str, count: int) -> None:
        """Count rows whose places are not known any more."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.first.setdefault(reason, [])

    def summary(self) -> str:
        """One line: '6 × empty output: nothing to learn (data.json:17, …)'."""
        lines = [
            f"{n} × {r}" + (f" ({', '.join(self.first[r])})" if self.first[r] else "") for r, n in self.counts.items()
        ]
        return "dropped: " + "; ".join(lines) if lines else "nothing was dropped: the data is empty"


@dataclass(frozen=True)
class Split:
    """Documents of one split, memory-mapped.

    tokens: (T,) uint16 or uint32. supervised: (T,) uint8 or None when every token is supervised.
    starts: (documents + 1,) int64; document d is tokens[starts[d]:starts[d + 1]].
    labels: (documents,) int32, or None where rows have no classes.
    """

    tokens: np.ndarray
    supervised: np.ndarray | None
    starts: np.ndarray
    labels: np.ndarray | None = None

    @property
    def n_documents(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True)
class Store:
    """An opened store: two splits and what is known about how they came to be."""

    folder: Path | None
    train: Split
    val: Split
    meta: dict[str, Any]


def empty_split() -> Split:
    return Split(np.zeros(0, np.uint16), None, np.zeros(1, np.int64))


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 holds GPT-2's 50,257 ids; larger vocabularies take uint32 (nanoGPT's convention)."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class TokenWriter:
    """Appends documents to `<name>.bin` and `.mask`; only the index (16 bytes a document) stays in memory."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self.folder, self.name, self.dtype = folder, name, dtype
        self.starts, self.digests, self.labels = array("q", [0]), array("Q"), array("i")
        self.n_tokens = self.n_supervised = 0
        self._bin: BinaryIO = (folder / f"{name}.bin").open("wb")
        self._mask: BinaryIO = (folder / f"{name}.mask").open("wb")
        self._hash = hashlib.blake2b(digest_size=8)
        self._waiting: list[Encoded] = []
        self._waiting_tokens = 0

    def add(self, row: Encoded) -> None:
        """Append one document, or one piece of it; what is added reaches the files and the index with `flush`."""
        self._waiting.append(row)
        self._waiting_tokens += len(row.ids)
        if self._waiting_tokens >= WAITING_TOKENS:
            self._write_waiting()

    def _write_waiting(self) -> None:
        """Write the rows that wait, together, and remember each document's hash."""
        if not self._waiting:
            return
        ids = np.concatenate([row.ids for row in self._waiting]).astype(self.dtype)
        mask = np.concatenate([row.supervised for row in self._waiting]).astype(np.uint8)
        id_bytes, mask_bytes, width = ids.view(np.uint8).data, mask.data, self.dtype.itemsize
        start = 0
        for row in self._waiting:
            end = start + len(row.ids)
            self._hash.update(id_bytes[start * width : end * width])
            self._hash.update(mask_bytes[start:end])
            if row.ends:
                self.starts.append(self.n_tokens + end)
                if row.label is not None:
                    self.labels.append(row.label)
                    self._hash.update(row.label.to_bytes(4, "little"))
                self.digests.append(int.from_bytes(self._hash.digest(), "little"))
                self._hash = hashlib.blake2b(digest_size=8)
            start = end
        self.append(ids, mask)
        self._waiting, self._waiting_tokens = [], 0

    def append(self, ids: np.ndarray, mask: np.ndarray) -> None:
        """Write tokens (n,) of the store's dtype and their mask (n,) uint8, without ending a document."""
        self._bin.write(ids.tobytes())
        self._mask.write(mask.tobytes())
        self.n_tokens += len(ids)
        self.n_supervised += int(np.count_nonzero(mask))

    def finish(self) -> None:
        """Write the index and bring everything to the disk; a mask that masks nothing is left out."""
        self.flush()
        for file in (self._bin, self._mask):
            os.fsync(file.fileno())
            file.close()
        if self.n_supervised == self.n_tokens:
            self.path("mask").unlink()
        indices = {"docs.npy": np.frombuffer(self.starts, dtype=np.int64)}
        if self.labels:
            indices["labels.npy"] = np.frombuffer(self.labels, dtype=np.int32)
        for suffix, values in indices.items():
            np.save(self.path(suffix), values)
            fsync_path(self.path(suffix))

    def flush(self) -> None:
        self._write_waiting()
        self._bin.flush()
        self._mask.flush()

    def discard(self) -> None:
        self._bin.close()
        self._mask.close()
        self.path("bin").unlink()
        self.path("mask").unlink()

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"


def choose_validation(digests: np.ndarray, percentage: float, seed: int) -> np.ndarray:
    """Which documents are held out: (documents,) bool.

    Distinct documents are ranked by a hash of (seed, document), and the first `percentage` per cent (at least one, if
    there are two) are held out. All copies of a document share its rank, so no exact duplicate straddles the split.
    """
    distinct = np.unique(digests)
    if percentage <= 0 or len(distinct) < 2:
        return np.zeros(len(digests), dtype=bool)
    n_held = min(max(1, round(len(distinct) * percentage / 100)), len(distinct) - 1)
    last = np.partition(splitmix64(distinct, seed + 1), n_held - 1)[n_held - 1]
    held: np.ndarray = splitmix64(digests, seed + 1) <= last  # one-to-one: no two digests share a rank
    return held


@dataclass(frozen=True)
class SplitRule:
    """How documents are shared between train and val.

    percentage: of the distinct documents held out when no validation rows are given (a single document is cut by
    position instead, if it is `continuous`). deduplicate: keep only the first of equal training documents.
    """

    percentage: float
    seed: int
    deduplicate: bool
    continuous: bool = True


def write_store(
    folder: Path,
    rows: Iterable[Encoded],
    validation_rows: Iterable[Encoded] | None,
    rule: SplitRule,
    *,
    vocab_size: int,
    dropped: Dropped,
    meta: dict[str, Any],
) -> Store:
    """Write a whole store under a temporary name, then rename it to `folder`.

    Args:
        validation_rows: held-out documents given by the user; None to hold some of `rows` out.
        dropped: the readers of `rows` count here what they drop while they are consumed.

    Raises:
        HoneError: no document is left for training, or the disk is full.
    """
    with disk_errors(folder, "token_cache_dir=… (or HONE_CACHE)"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
        temporary.mkdir()
        try:
            counts = _write_splits(temporary, rows, validation_rows, rule, token_dtype(vocab_size), dropped)
            meta = {
                "format": FORMAT,
                "dtype": token_dtype(vocab_size).name,
                "vocab_size": vocab_size,
                **meta,
                "splits": counts,
                "dropped": [{"reason": r, "count": n, "first": dropped.first[r]} for r, n in dropped.counts.items()],
            }
            write_json_atomic(temporary / "meta.json", meta)
            fsync_path(temporary)
            shutil.rmtree(folder, ignore_errors=True)  # only ever an older format or a damaged one
            temporary.rename(folder)
            fsync_path(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return open_store(folder)


def _write_splits(
    folder: Path,
    rows: Iterable[Encoded],
    validation_rows: Iterable[Encoded] | None,
    rule: SplitRule,
    dtype: np.dtype[Any],
    dropped: Dropped,
) -> dict[str, Any]:
    everything, train, val = (TokenWriter(folder, name, dtype) for name in ("all", "train", "val"))
    for row in rows:
        everything.add(row)
    everything.flush()
    if not len(everything.digests):
        raise HoneError("no training rows are left: every row was dropped", fix=dropped.summary())
    for row in validation_rows or ():
        val.add(row)
    val.flush()
    starts, digests = np.frombuffer(everything.starts, np.int64), np.frombuffer(everything.digests, np.uint64)
    held = None if validation_rows is None else np.array(val.digests)
    starts, sides = assign_sides(starts, digests, held, rule, dropped)
    _copy(everything, starts, sides, train, val)
    everything.discard()
    for writer in (train, val):
        writer.finish()
    return {
        name: {"documents": len(w.starts) - 1, "tokens": w.n_tokens, "supervised_tokens": w.n_supervised}
        for name, w in (("train", train), ("val", val))
    }


def assign_sides(
    starts: np.ndarray, digests: np.ndarray, held: np.ndarray | None, rule: SplitRule, dropped: Dropped
) -> tuple[np.ndarray, np.ndarray]:
    """Document borders (n + 1,) and the side of each document (n,): TRAIN, VAL or NEITHER.

    Args:
        starts: (n + 1,) borders as read. digests: (n,) uint64, equal for equal documents.
        held: digests of the validation documents that were given; None to hold some of these out.
    """
    sides = np.full(len(digests), TRAIN, dtype=np.int8)
    if rule.deduplicate:
        _, first = np.unique(digests, return_index=True)
        copies = np.ones(len(digests), dtype=bool)
        copies[first] = False
        sides[copies] = NEITHER
        dropped.add_many("exact duplicate of an earlier row", int(copies.sum()))
    if held is not None:
        shared = np.isin(digests, held) & (sides == TRAIN)
        sides[shared] = NEITHER
        dropped.add_many("also in the validation data (left out of training)", int(shared.sum()))
    elif len(digests) > 1:
        sides[choose_validation(digests, rule.percentage, rule.seed) & (sides == TRAIN)] = VAL
    elif rule.percentage > 0 and rule.continuous:  # one document: its end is held out, as nanoGPT does
        cut = starts[1] - round(int(starts[1]) * rule.percentage / 100)
        starts, sides = np.array([0, cut, starts[1]]), np.array([TRAIN, VAL], dtype=np.int8)
    if not (sides == TRAIN).any():
        raise HoneError("no training rows are left", fix=dropped.summary())
    return starts, sides


def _copy(everything: TokenWriter, starts: np.ndarray, sides: np.ndarray, train: TokenWriter, val: TokenWriter) -> None:
    """Append each document to the split of its side, reading at most COPY_TOKENS at once."""
    writers = {TRAIN: train, VAL: val}
    for side, writer in writers.items():
        sizes = np.diff(starts)[sides == side]
        writer.starts.frombytes((np.cumsum(sizes) + writer.n_tokens).astype(np.int64).tobytes())
        if everything.labels:
            writer.labels.frombytes(np.frombuffer(everything.labels, np.int32)[sides == side].tobytes())
    with everything.path("bin").open("rb") as bin_file, everything.path("mask").open("rb") as mask_file:
        for at in range(0, int(starts[-1]), COPY_TOKENS):
            ids = np.frombuffer(bin_file.read(COPY_TOKENS * everything.dtype.itemsize), dtype=everything.dtype)
            mask = np.frombuffer(mask_file.read(COPY_TOKENS), dtype=np.uint8)
            end = at + len(ids)
            first, last = np.searchsorted(starts, at, side="right") - 1, np.searchsorted(starts, end)
            sizes = np.diff(np.clip(starts[first : last + 1], at, end))  # of the documents, as far as they are here
            for side, writer in writers.items():
                keep = np.repeat(sides[first:last] == side, sizes)
                writer.append(ids[keep], mask[keep])


def open_store(folder: Path) -> Store:
    """Memory-map a finished store.

    Raises:
        HoneError: a file is missing, truncated or of another format.
    """
    try:
        meta = read_json(folder / "meta.json")
        if meta["format"] != FORMAT:
            raise HoneError(f"token store of format {meta['format']}, expected {FORMAT}", where=str(folder))
        dtype = np.dtype(meta["dtype"])
        return Store(folder, _open_split(folder, "train", dtype, meta), _open_split(folder, "val", dtype, meta), meta)
    except HoneError as error:
        fix = f"delete {folder} (it is only a cache) and run again"
        raise HoneError(error.what, where=error.where, fix=fix) from error
    except (OSError, ValueError, KeyError, TypeError) as error:  # cut off, deleted, or not what we write
        raise _damaged(folder, str(error)) from error


def _damaged(path: Path, reason: str) -> HoneError:
    folder = path if path.is_dir() else path.parent
    return HoneError(
        f"token store is damaged ({reason})", where=str(path), fix=f"delete {folder} (it is only a cache) and run again"
    )


def _open_split(folder: Path, name: str, dtype: np.dtype[Any], meta: dict[str, Any]) -> Split:
    n_tokens = meta["splits"][name]["tokens"]
    if n_tokens == 0:
        return empty_split()
    sizes = {folder / f"{name}.bin": n_tokens * dtype.itemsize}
    if meta["splits"][name]["supervised_tokens"] < n_tokens:
        sizes[folder / f"{name}.mask"] = n_tokens
    for path, size in sizes.items():
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise _damaged(path, f"{found:,} bytes, expected {size:,}")
    starts = np.load(folder / f"{name}.docs.npy", allow_pickle=False)
    if starts.ndim != 1 or starts[0] != 0 or starts[-1] != n_tokens:
        raise _damaged(folder / f"{name}.docs.npy", "the index does not fit the tokens")
    mask, labels = folder / f"{name}.mask", None
    if meta.get("label_names"):
        labels = np.load(folder / f"{name}.labels.npy", allow_pickle=False)
        if labels.shape != (len(starts) - 1,) or not 0 <= labels.min() <= labels.max() < len(meta["label_names"]):
            raise _damaged(folder / f"{name}.labels.npy", "the labels do not fit the documents")
    return Split(
        tokens=np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r"),
        supervised=np.memmap(mask, dtype=np.uint8, mode="r") if mask in sizes else None,
        starts=starts,
        labels=labels,
    )


def open_bin(path: Path, dtype: str, end_token_id: int | None) -> Split:
    """A token file that another tool wrote (nanoGPT's train.bin): documents end at the end token, all is supervised.

    Raises:
        HoneError: missing, empty, or its size does not fit the dtype.
    """
    if not path.is_file():
        raise HoneError("no such file", where=str(path), fix="check data.train_file")
    item = np.dtype(dtype).newbyteorder("<")
    size = path.stat().st_size
    if size == 0:
        raise HoneError("the file is empty", where=str(path), fix="write it again; one token is the least")
    if size % item.itemsize:
        raise HoneError(
            f"{size:,} bytes are not a whole number of {dtype} tokens ({item.itemsize} bytes each)",
            where=str(path),
            fix="the file is cut off (copy it again), or not a token file, or of another width (set bin_dtype)",
        )
    tokens = np.memmap(path, dtype=item, mode="r")
    ends = [
        np.flatnonzero(tokens[a : a + COPY_TOKENS] == end_token_id) + a + 1
        for a in range(0, len(tokens), COPY_TOKENS)
        if end_token_id is not None
    ]
    starts = np.unique(np.concatenate([[0], *ends, [len(tokens)]])).astype(np.int64)
    return Split(tokens, None, starts)


def split_bin(split: Split, rule: SplitRule) -> tuple[Split, Split]:
    """Hold the last documents of a token file out (its end, if it is one document), without copying it."""
    n = split.n_documents
    if rule.percentage <= 0:
        return split, empty_split()
    if n > 1:
        cut = n - min(max(1, round(n * rule.percentage / 100)), n - 1)
        return Split(split.tokens, None, split.starts[: cut + 1]), Split(split.tokens, None, split.starts[cut:])
    end = int(split.starts[1])
    cut = end - round(end * rule.percentage / 100)
    return Split(split.tokens, None, np.array([0, cut])), Split(split.tokens, None, np.array([cut, end]))


def _remove_leftovers(parent: Path) -> None:
    """Delete what a killed process left half written; a live process's temporary folder is left alone."""
    for path in parent.glob("*.tmp-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and int(pid) != os.getpid() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
