"""Which documents are trained on and which are held out, and what is counted of the rest.

Splitting is by document, and exact duplicates always fall on the same side.

>>> choose_validation(np.arange(10, dtype=np.uint64), percentage=20, seed=0).sum()
np.int64(2)
"""

from dataclasses import dataclass, field

import numpy as np

from hone.data.ngrams import splitmix64
from hone.data.store import Split, empty_split
from hone.errors import HoneError

NAMED_PER_REASON = 10  # dropped rows are all counted; this many of each kind are named
TRAIN, VAL, NEITHER = 0, 1, 2  # the sides of a document


@dataclass
class Dropped:
    """Everything that did not become training tokens: how often, and where first. notes: what else was noticed."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something about the rows once, however many sides it is true of."""
        if text not in self.notes:
            self.notes.append(text)

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
class SplitRule:
    """How documents are shared between train and val.

    percentage: of the distinct documents held out when no validation rows are given (a single document is cut by
    position instead, if it is `continuous`). deduplicate: keep only the first of equal training documents.
    """

    percentage: float
    seed: int
    deduplicate: bool
    continuous: bool = True


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
