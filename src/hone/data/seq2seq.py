"""Rows of a source and a target for encoder-decoders: encoded, stored end to end, and cut to length.

A document of the store is its source (mask 0) and then its target (mask 1), both without special tokens; the dataset
frames each as the tokenizer does. A target that was cut has no end token: the model must not learn to stop there.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from hone.data.encode import ROWS_PER_BATCH, Encoded
from hone.data.records import Example, Pair, SourceTarget
from hone.data.sources import Row
from hone.data.special_tokens import Frame
from hone.data.store import Split
from hone.data.templates import render
from hone.data.tokenizer import start_ids
from hone.data.truncate import Preview, count_ones
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PairItem(TypedDict):
    """input_ids (S,) int64, the framed source; labels (T,) int64, the framed target, not shifted."""

    input_ids: np.ndarray
    labels: np.ndarray


def encode_pairs(
    examples: Iterable[tuple[Row, Example]],
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    *,
    on_drop: Callable[[str, str], None],
) -> Iterator[Encoded]:
    """Tokenise sources and targets in the order given; what a template puts before the answer is the source."""
    rows = (pair for row, example in examples if (pair := _pair(row, example, template, on_drop)))
    while batch := list(islice(rows, ROWS_PER_BATCH)):
        ids = start_ids(tokenizer, [text for pair in batch for text in pair], special=False)
        for source, target in zip(ids[::2], ids[1::2], strict=True):
            supervised = np.arange(len(source) + len(target)) >= len(source)
            yield Encoded(np.array(source + target, np.int64), supervised, True)


def _pair(row: Row, example: Example, template: str, on_drop: Callable[[str, str], None]) -> tuple[str, str] | None:
    if isinstance(example, SourceTarget):
        example = Pair(example.source, example.target)
    source, target = (segment.text for segment in render(example, template, None))
    if not target.strip():
        on_drop("empty target: nothing to learn", row.where)
        return None
    return source, target


@dataclass(frozen=True)
class PairDataset:
    """A map-style dataset: `dataset[i]` is a framed source and its framed target.

    starts, n_source, n_target: (n,) int64, where a document starts and the sizes of its two whole parts, unframed.
    """

    split: Split
    starts: np.ndarray
    n_source: np.ndarray
    n_target: np.ndarray
    documents: np.ndarray
    frame: Frame
    max_length: int
    max_target_length: int
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> PairItem:
        source = self._part(index, source=True)[: self.max_length - self.frame.size]
        target = self._part(index, source=False)
        labels = self.frame.around(target[: self.max_target_length])
        if len(labels) > self.max_target_length:
            labels = self.frame.around(target, ends=False)[: self.max_target_length]
        return {"input_ids": self.frame.around(source), "labels": labels}

    def _part(self, index: int, *, source: bool) -> np.ndarray:
        start, n = int(self.starts[index]), int(self.n_source[index])
        end = start + n + int(self.n_target[index])
        return self.split.tokens[slice(start, start + n) if source else slice(start + n, end)].astype(np.int64)

    def reference(self, index: int) -> np.ndarray:
        """Ids of the whole target, however long, without frame."""
        return self._part(index, source=False)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: source and target tokens of each row together, framed, as far as they are kept."""
        source = np.minimum(self.n_source + self.frame.size, self.max_length)
        total: np.ndarray = source + self.n_supervised()
        return total

    @property
    def n_tokens(self) -> int:
        return int(self.lengths.sum())

    def n_supervised(self) -> np.ndarray:
        """(n,) int64: target tokens that count, the frame's included."""
        return np.minimum(self.n_target + self.frame.size, self.max_target_length)

    def head(self, n: int | None) -> "PairDataset":
        """The first n rows, or all for None."""
        return self if n is None else self.select(np.arange(min(n, len(self))))

    def select(self, keep: np.ndarray) -> "PairDataset":
        picked = {name: getattr(self, name)[keep] for name in ("starts", "n_source", "n_target", "documents")}
        return replace(self, **picked)

    def preview(self, index: int) -> Preview:
        item = self[index]
        supervised = np.arange(len(item["input_ids"]) + len(item["labels"])) >= len(item["input_ids"])
        return Preview(np.concatenate([item["input_ids"], item["labels"]]), supervised, "source, then target")

    def described(self) -> str:
        return f"sources of up to {self.max_length} tokens, targets of up to {self.max_target_length}"


def view_pairs(split: Split, frame: Frame, max_length: int, max_target_length: int, *, drop_long: bool) -> PairDataset:
    """The rows of a split; a source or target beyond its length is cut, or its row dropped, and counted.

    Raises:
        HoneError: the frame alone fills one of the lengths.
    """
    if min(max_length, max_target_length) <= frame.size:
        raise HoneError(
            f"max_length {max_length} or max_target_length {max_target_length} leaves no room for a text",
            fix=f"set both above {frame.size}",
        )
    starts, sizes = split.starts[:-1], np.diff(split.starts)
    n_target = sizes if split.supervised is None else count_ones(split.supervised, starts, split.starts[1:])
    n_source = sizes - n_target
    long_source, long_target = n_source > max_length - frame.size, n_target > max_target_length - frame.size
    keep, left_out = np.arange(len(sizes)), {}
    verb = "dropped" if drop_long else "truncated"
    for what, limit, which in (("sources", max_length, long_source), ("targets", max_target_length, long_target)):
        if which.any():
            left_out[f"{what} longer than {limit} tokens, {verb}"] = int(which.sum())
    if drop_long:
        keep = keep[~(long_source | long_target)]
    everything = PairDataset(
        split, starts, n_source, n_target, np.arange(len(sizes)), frame, max_length, max_target_length, left_out
    )
    return everything.select(keep)
