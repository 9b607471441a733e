"""Documents longer than a window, measured by windows that overlap: each token once, with as much context as there is.

The first window scores all it holds, each further one only its last `stride` tokens, of which the tokens before them
are the context; the last window ends with the document and is as long as the others. A document that fits into one
window is measured in a single pass, as it is without strides.

>>> windows(10, window=4, stride=2)
(array([0, 2, 4, 6]), array([ 4,  6,  8, 10]), array([1, 4, 6, 8]))
"""

from dataclasses import dataclass

import numpy as np

from hone.data.store import Split
from hone.data.truncate import IGNORE_INDEX, Item, TokenDataset, count_ones


def windows(n_tokens: int, *, window: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(starts, ends, firsts), (n,) int64 each: window i holds tokens [start, end) and scores [first, end).

    Token 0 has nothing before it and is never scored; tokens 1 to n_tokens - 1 are, each once.

    Args:
        stride: tokens that a further window scores; below `window`, so that the first of them has some context.
    """
    if not 1 <= stride < window:
        raise ValueError(f"a stride of {stride} in a window of {window}: expected 1 to {window - 1}")
    n_further = -(-max(n_tokens - window, 0) // stride)
    ends = np.minimum(window + stride * np.arange(1 + n_further), n_tokens)
    return np.maximum(ends - window, 0), ends, np.concatenate([[1], ends[:-1]])


@dataclass(frozen=True)
class StridedDataset:
    """Windows as examples. pieces: their ranges; firsts: (n,) int64, where in the split their scored tokens begin."""

    pieces: TokenDataset
    firsts: np.ndarray

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Item:
        """A window; what stands before its scored tokens is context, without labels."""
        item = self.pieces[index]
        item["labels"][: int(self.firsts[index] - self.pieces.starts[index])] = IGNORE_INDEX
        return item

    @property
    def split(self) -> Split:
        return self.pieces.split

    @property
    def lengths(self) -> np.ndarray:
        return self.pieces.lengths

    @property
    def documents(self) -> np.ndarray:
        return self.pieces.documents


def strided(dataset: TokenDataset, *, window: int, stride: int) -> StridedDataset:
    """Overlapping windows over the documents of `dataset`, each as far as its examples reach.

    Windows that have nothing to score (the middle of a long prompt) are left out.
    """
    split = dataset.split
    documents, group = np.unique(dataset.documents, return_inverse=True)
    reached = np.zeros(len(documents), np.int64)
    np.maximum.at(reached, group, dataset.starts + dataset.lengths)
    begins = split.starts[documents]
    cut = [windows(int(n), window=window, stride=stride) for n in reached - begins]
    counts = [len(starts) for starts, _, _ in cut]
    starts, ends, firsts = (
        np.concatenate([column + begin for column, begin in zip(columns, begins)]) for columns in zip(*cut)
    )
    scored = ends - firsts if split.supervised is None else count_ones(split.supervised, firsts, ends)
    useful = scored > 0
    pieces = TokenDataset(split, starts, ends - starts, np.repeat(documents, counts), max_length=window)
    return StridedDataset(pieces.select(useful), firsts[useful])
