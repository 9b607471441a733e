"""Writing a token store (`store.py` says what it holds), in memory that does not grow with the tokens.

It is written aside and renamed when complete (`publish.py`): an interrupted run leaves nothing that looks finished, and
of runs that write the same store at once the first one publishes.
"""

import hashlib
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hone.data.encode import Encoded
from hone.data.split import TRAIN, VAL, Dropped, SplitRule, assign_sides
from hone.data.store import FORMAT, Store, open_store
from hone.errors import HoneError
from hone.files import disk_errors, fsync_path
from hone.manifest import FileAbout, describe_file
from hone.publish import SETTING, begin, discard, publish, seal

WAITING_TOKENS = 1 << 16  # tokens that are written at once
COPY_TOKENS = 1 << 20  # tokens copied at once when a store is split: bounds memory


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
    """Write a whole store aside, then rename it to `folder`; one that another process has published by then stays.

    Args:
        validation_rows: held-out documents given by the user; None to hold some of `rows` out.
        dropped: the readers of `rows` count here what they drop while they are consumed.

    Raises:
        HoneError: no document is left for training, or the disk is full.
    """
    with disk_errors(folder, SETTING):
        aside = begin(folder)
        try:
            dtype = token_dtype(vocab_size)
            counts, files = _write_splits(aside.path, rows, validation_rows, rule, dtype, dropped)
            meta = {
                "format": FORMAT,
                "dtype": dtype.name,
                "vocab_size": vocab_size,
                **meta,
                "splits": counts,
                "dropped": [{"reason": r, "count": n, "first": dropped.first[r]} for r, n in dropped.counts.items()],
            }
            seal(aside.path, meta, files)
            publish(aside, folder)
        finally:
            discard(aside)
    return open_store(folder)


def _write_splits(
    folder: Path,
    rows: Iterable[Encoded],
    validation_rows: Iterable[Encoded] | None,
    rule: SplitRule,
    dtype: np.dtype[Any],
    dropped: Dropped,
) -> tuple[dict[str, dict[str, int]], dict[str, FileAbout]]:
    """What each split holds, and the manifest of the files."""
    everything, train, val = (TokenWriter(folder, name, dtype, name != "all") for name in ("all", "train", "val"))
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
    counts = {
        w.name: {"documents": len(w.starts) - 1, "tokens": w.n_tokens, "supervised_tokens": w.n_supervised}
        for w in (train, val)
    }
    return counts, train.finish() | val.finish()


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 holds GPT-2's 50,257 ids; larger vocabularies take uint32 (nanoGPT's convention)."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class TokenWriter:
    """Appends documents to `<name>.bin` and `.mask`; only the index (16 bytes a document) stays in memory.

    Args:
        stays: False for files that are discarded: they need no digests.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], stays: bool) -> None:
        self.folder, self.name, self.dtype = folder, name, dtype
        self.starts, self.digests, self.labels = array("q", [0]), array("Q"), array("i")
        self.n_tokens = self.n_supervised = 0
        self._bin: BinaryIO = (folder / f"{name}.bin").open("wb")
        self._mask: BinaryIO = (folder / f"{name}.mask").open("wb")
        self._hash = hashlib.blake2b(digest_size=8)
        self._stays, self._sums = stays, {"bin": hashlib.sha256(), "mask": hashlib.sha256()}  # for the manifest
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
        for name, file, content in (("bin", self._bin, ids.tobytes()), ("mask", self._mask, mask.tobytes())):
            file.write(content)
            if self._stays:
                self._sums[name].update(content)
        self.n_tokens += len(ids)
        self.n_supervised += int(np.count_nonzero(mask))

    def finish(self) -> dict[str, FileAbout]:
        """Write the index and bring everything to the disk; a mask that masks nothing is left out. The manifest."""
        self.flush()
        sizes = {"bin": self.n_tokens * self.dtype.itemsize, "mask": self.n_tokens}
        for file in (self._bin, self._mask):
            os.fsync(file.fileno())
            file.close()
        if self.n_supervised == self.n_tokens:
            self.path("mask").unlink()
            del sizes["mask"]
        files: dict[str, FileAbout] = {
            self.path(suffix).name: {"bytes": size, "sha256": self._sums[suffix].hexdigest()}
            for suffix, size in sizes.items()
        }
        indices = {"docs.npy": np.frombuffer(self.starts, dtype=np.int64)}
        if self.labels:
            indices["labels.npy"] = np.frombuffer(self.labels, dtype=np.int32)
        for suffix, values in indices.items():
            np.save(self.path(suffix), values)
            fsync_path(self.path(suffix))
            files[self.path(suffix).name] = describe_file(self.path(suffix))
        return files

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
