"""Prepared examples: what everybody may ask of a data set, and what those of all tasks have in common.

>>> train = prepare(config, task, tokenizer).train                                 # doctest: +SKIP
>>> len(train), train.n_tokens, train[0]["input_ids"]                              # doctest: +SKIP
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np

from hone.data.store import Split


class Preview(NamedTuple):
    """One example for people: its ids (T,), which of them are supervised (T,) bool, and a word about it."""

    ids: np.ndarray
    supervised: np.ndarray
    note: str = ""


@dataclass(frozen=True, repr=False)
class Dataset(ABC):
    """A map-style data set: `dataset[i]` is an example, a range of one document. Nothing is copied from the split.

    starts, sizes: (n,) int64, each example's range in the tokens. documents: (n,) int64, the document it comes from.
    left_out: what cutting to a length cost, reason -> count. A task may add further arrays with a row an example.
    """

    split: Split
    starts: np.ndarray
    sizes: np.ndarray
    documents: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        """How much there is, and not the arrays: `repr=False` keeps a subclass's own from taking its place."""
        return f"{type(self).__name__}({len(self):,} examples, {self.n_tokens:,} tokens, {self.described()})"

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """An example as its task's collator takes it: a dictionary with input_ids and labels."""

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: tokens of each example as the model sees it."""
        return self.sizes

    @property
    def n_tokens(self) -> int:
        return int(self.lengths.sum())

    @abstractmethod
    def n_supervised(self) -> np.ndarray:
        """(n,) int64: labels that count, for each example."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of what the model's head scores; none where that is the vocabulary."""
        return ()

    def select(self, keep: np.ndarray, because: str = "") -> Self:
        """The examples at `keep`, a mask or indices (m,); how many that leaves out is counted under a reason."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        picked: dict[str, Any] = {n: array[keep] for n, array in arrays.items() if isinstance(array, np.ndarray)}
        chosen = replace(self, **picked)
        if because and len(chosen) < len(self):
            return replace(chosen, left_out={**self.left_out, because: len(self) - len(chosen)})
        return chosen

    def head(self, n: int | None) -> Self:
        """The first n examples, or all for None."""
        return self if n is None else self.select(np.arange(min(n, len(self))))

    @abstractmethod
    def preview(self, index: int) -> Preview:
        """An example for people."""

    @abstractmethod
    def described(self) -> str:
        """What is supervised, in a few words."""
