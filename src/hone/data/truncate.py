"""What of each document is trained or measured: the only rule for length.

A view is one training example: a range of one document. Nothing is copied; this is arithmetic on a split's index.

    truncate   the first max_length tokens of each document
    drop       whole documents of at most max_length tokens
    split      consecutive pieces of at most max_length tokens
    windows    consecutive pieces of exactly max_length tokens; the remainder is left out
"""

import mmap
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict

import numpy as np

from hone.data.store import Split

IGNORE_INDEX = -100  # PyTorch's cross-entropy skips this label
COUNTED_AT_ONCE = 1 << 19  # tokens: bounds memory
LongRow = Literal["truncate", "drop", "split", "windows"]


class Preview(NamedTuple):
    """One example for people: its ids (T,), which of them are supervised (T,) bool, and a note."""

    ids: np.ndarray
    supervised: np.ndarray
    note: str = ""


class Item(TypedDict):
    """input_ids (T,) int64; labels (T,) int64, aligned with input_ids, -100 where not supervised."""

    input_ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class TokenDataset:
    """A map-style dataset over a split: `dataset[i]` is one example.

    starts, lengths, documents: (n,) int64, each example's range in the tokens and the document it comes from.
    left_out: what the length rule cost, reason -> count.
    """

    split: Split
    starts: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Item:
        start, length = int(self.starts[index]), int(self.lengths[index])
        ids = self.split.tokens[start : start + length].astype(np.int64)
        labels = ids.copy()
        if self.split.supervised is not None:
            labels[self.split.supervised[start : start + length] == 0] = IGNORE_INDEX
        labels[:1] = IGNORE_INDEX  # nothing stands before an example's first token that could predict it
        return {"input_ids": ids, "labels": labels}

    @property
    def n_tokens(self) -> int:
        return int(self.lengths.sum())

    def select(self, keep: np.ndarray) -> "TokenDataset":
        """The examples at `keep`, a mask or indices (m,)."""
        return TokenDataset(self.split, self.starts[keep], self.lengths[keep], self.documents[keep], self.left_out)

    def head(self, n: int | None) -> "TokenDataset":
        """The first n examples, or all for None."""
        return self if n is None else self.select(np.arange(min(n, len(self))))

    def n_supervised(self) -> np.ndarray:
        """(n,) int64: labels that count, for each example."""
        if self.split.supervised is None:
            return np.maximum(self.lengths - 1, 0)
        return count_ones(self.split.supervised, self.starts + 1, self.starts + np.maximum(self.lengths, 1))

    def preview(self, index: int) -> Preview:
        item = self[index]
        supervised: np.ndarray = item["labels"] >= 0
        # the first token has no label because nothing precedes it; it is shown as what the mask says of it
        if len(supervised) > 1 and self.split.supervised is None:
            supervised[0] = supervised[1]
        return Preview(item["input_ids"], supervised)


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


def view(split: Split, max_length: int, long_row: LongRow) -> TokenDataset:
    """Cut each document by the rule and leave out what has nothing to supervise, counting both."""
    begins, sizes = split.starts[:-1], np.diff(split.starts)
    documents = np.arange(len(sizes))
    left_out: dict[str, int] = {}
    too_long = sizes > max_length
    if long_row == "truncate":
        left_out[f"tokens cut off beyond {max_length}"] = int((sizes - max_length)[too_long].sum())
        left_out[f"documents longer than {max_length} tokens, truncated"] = int(too_long.sum())
        starts, lengths = begins, np.minimum(sizes, max_length)
    elif long_row == "drop":
        left_out[f"documents longer than {max_length} tokens, dropped"] = int(too_long.sum())
        documents = documents[~too_long]
        starts, lengths = begins[documents], sizes[documents]
    else:
        pieces = sizes // max_length if long_row == "windows" else -(-sizes // max_length)
        documents = np.repeat(documents, pieces)
        nth = np.arange(len(documents)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0, 1, … within a document
        starts = begins[documents] + nth * max_length
        lengths = np.minimum(max_length, split.starts[documents + 1] - starts)
        if long_row == "windows":
            left_out[f"tokens in remainders shorter than {max_length}"] = int((sizes % max_length).sum())
    dataset = TokenDataset(split, starts, lengths, documents, left_out)
    useful = dataset.n_supervised() > 0
    if not useful.all():
        left_out[f"examples with nothing to supervise within {max_length} tokens"] = int((~useful).sum())
        dataset = dataset.select(useful)
    for reason in [reason for reason, count in left_out.items() if not count]:
        del left_out[reason]
    return dataset
