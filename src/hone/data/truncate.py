"""What of each document is trained or measured: the only rule for length.

A view is one training example: a range of one document. Nothing is copied; this is arithmetic on a split's index.

    truncate   the first max_length tokens of each document
    drop       whole documents of at most max_length tokens
    split      consecutive pieces of at most max_length tokens
    windows    consecutive pieces of exactly max_length tokens; the remainder is left out
"""

import mmap
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np

from hone.data.dataset import Dataset, Preview
from hone.data.store import Split

IGNORE_INDEX = -100  # PyTorch's cross-entropy skips this label
COUNTED_AT_ONCE = 1 << 19  # tokens: bounds memory
LongRow = Literal["truncate", "drop", "split", "windows"]


class Item(TypedDict):
    """input_ids (T,) int64; labels (T,) int64, aligned with input_ids, -100 where not supervised."""

    input_ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, repr=False)
class TokenDataset(Dataset):
    """Rows of tokens: labels are the tokens themselves, -100 where the split does not supervise them.

    max_length: tokens that an example has at most.
    """

    max_length: int = field(kw_only=True)

    def __getitem__(self, index: int) -> Item:
        start, size = int(self.starts[index]), int(self.sizes[index])
        ids = self.split.tokens[start : start + size].astype(np.int64)
        labels = ids.copy()
        if self.split.supervised is not None:
            labels[self.split.supervised[start : start + size] == 0] = IGNORE_INDEX
        labels[:1] = IGNORE_INDEX  # nothing stands before an example's first token that could predict it
        return {"input_ids": ids, "labels": labels}

    def n_supervised(self) -> np.ndarray:
        if self.split.supervised is None:
            return np.maximum(self.sizes - 1, 0)
        return count_ones(self.split.supervised, self.starts + 1, self.starts + np.maximum(self.sizes, 1))

    def preview(self, index: int) -> Preview:
        item = self[index]
        supervised: np.ndarray = item["labels"] >= 0
        # the first token has no label because nothing precedes it; it is shown as what the mask says of it
        if len(supervised) > 1 and self.split.supervised is None:
            supervised[0] = supervised[1]
        return Preview(item["input_ids"], supervised)

    def described(self) -> str:
        return f"{int(self.n_supervised().sum()):,} supervised"


def count_ones(mask: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Ones of mask[starts[i]:ends[i]], (n,) int64; `mask` (T,) uint8 may be mapped and larger than the memory."""
    counts = np.zeros(len(starts), dtype=np.int64)
    order = np.argsort(starts, kind="stable")  # the ranges do not overlap: their ends are sorted, too
    starts, ends = starts[order], ends[order]
    first = 0
    while first < len(order):
        begin = int(starts[first])
        # the ranges of one stretch of the mask; at least one, however long it is
        last = max(first + 1, int(np.searchsorted(ends, begin + COUNTED_AT_ONCE, side="right")))
        stretch = mask[begin : int(ends[last - 1])]
        if last == first + 1:
            counts[order[first]] = np.count_nonzero(stretch)
        else:
            before = np.concatenate([[0], np.cumsum(stretch, dtype=np.int32)])  # ones before each place
            counts[order[first:last]] = before[ends[first:last] - begin] - before[starts[first:last] - begin]
        _forget_pages(mask)
        first = last
    return counts


def _forget_pages(array: np.ndarray) -> None:
    """Give back the pages of a mapped file: read once, they would count as this process's memory ever after."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def limited(sizes: np.ndarray, limit: int, what: str, *, drop: bool) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Which texts are kept, (n,) bool; what is left of each, (n,) int64; and what both cost, reason -> count.

    Args:
        sizes: (n,) int64, tokens of each text. what: texts, documents, … drop: leave out what is longer, do not cut it.
    """
    long = sizes > limit
    left_out = {}
    if long.any() and drop:
        left_out[f"{what} longer than {limit} tokens, dropped"] = int(long.sum())
    elif long.any():
        left_out[f"tokens cut off beyond {limit}"] = int((sizes - limit)[long].sum())
        left_out[f"{what} longer than {limit} tokens, truncated"] = int(long.sum())
    return ~long if drop else np.ones(len(sizes), bool), np.minimum(sizes, limit), left_out


def view(split: Split, max_length: int, long_row: LongRow) -> TokenDataset:
    """Cut each document by the rule and leave out what has nothing to supervise, counting both."""
    begins, sizes, documents = split.starts[:-1], np.diff(split.starts), np.arange(split.n_documents)
    if long_row in ("truncate", "drop"):
        keep, kept, left_out = limited(sizes, max_length, "documents", drop=long_row == "drop")
        dataset = TokenDataset(split, begins, kept, documents, max_length=max_length, left_out=left_out).select(keep)
    else:
        pieces = sizes // max_length if long_row == "windows" else -(-sizes // max_length)
        rest = int((sizes % max_length).sum()) if long_row == "windows" else 0
        documents = np.repeat(documents, pieces)
        nth = np.arange(len(documents)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0, 1, … within a document
        starts = begins[documents] + nth * max_length
        left_out = {f"tokens in remainders shorter than {max_length}": rest} if rest else {}
        kept = np.minimum(max_length, split.starts[documents + 1] - starts)
        dataset = TokenDataset(split, starts, kept, documents, max_length=max_length, left_out=left_out)
    useful = dataset.n_supervised() > 0
    return (
        dataset
        if useful.all()
        else dataset.select(useful, f"examples with nothing to supervise within {max_length} tokens")
    )
