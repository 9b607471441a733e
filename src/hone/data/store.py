"""Tokens on disk: written once, memory-mapped ever after, never half valid.

A store is a folder named by a hash of everything that decides its content (the bytes of the data files, the tokenizer,
the encode rule, the split). It holds two splits, `train` and `val`, each as

    train.bin       tokens end to end, uint16 or uint32, little-endian (nanoGPT's layout)
    train.mask      one byte a token, 1 = supervised; absent when every token is
    train.docs.npy  (documents + 1,) int64, where each document starts, and where the last one ends
    train.labels.npy  (documents,) int32, the number of each document's class; only where rows are labelled
    meta.json       format, dtype, counts of everything read, dropped and why; the manifest of the files above

Writing it: `store_writer.py`. Which documents go where: `split.py`. Cutting to a length: `truncate.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone.data.token_files import TokenFiles
from hone.errors import HoneError
from hone.files import read_sealed
from hone.publish import META, seal_problems

FORMAT = 2  # raise when the meaning of the files changes: old stores are then written anew
SEARCHED_AT_ONCE = 1 << 20  # tokens: bounds memory


@dataclass(frozen=True)
class Split:
    """Documents of one split, memory-mapped.

    tokens: (T,) uint16 or uint32, of one file or of many. supervised: (T,) uint8, None when every token is supervised.
    starts: (documents + 1,) int64; document d is tokens[starts[d]:starts[d + 1]].
    labels: (documents,) int32, or None where rows have no classes.
    """

    tokens: np.ndarray | TokenFiles
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


def open_store(folder: Path) -> Store:
    """Memory-map a finished store. A small one is compared with its manifest wholly, a large one by its sizes.

    Raises:
        HoneError: a file is missing, damaged or of another format.
    """
    try:
        if found := seal_problems(folder):
            raise _damaged(folder, "; ".join(found))
        meta = read_sealed(folder / META)
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
        np.flatnonzero(tokens[a : a + SEARCHED_AT_ONCE] == end_token_id) + a + 1
        for a in range(0, len(tokens), SEARCHED_AT_ONCE)
        if end_token_id is not None
    ]
    starts = np.unique(np.concatenate([[0], *ends, [len(tokens)]])).astype(np.int64)
    return Split(tokens, None, starts)
