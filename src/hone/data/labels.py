"""Rows of a text and its class: encoded, stored with the label beside the tokens, and cut to length.

Class names are those of the training rows, sorted (by value where all are whole numbers). While rows are read a class
is numbered as it appears; the store remembers the names in that order, and the dataset renumbers.

>>> class_order(["10", "9", "2"]), class_order(["spam", "ham"])
(['2', '9', '10'], ['ham', 'spam'])
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from hone.data.encode import ROWS_PER_BATCH, Encoded
from hone.data.records import Example, Labelled
from hone.data.sources import OnBadRow, Row, refuse_row
from hone.data.special_tokens import Frame
from hone.data.store import Split
from hone.data.tokenizer import start_ids
from hone.data.truncate import Preview
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMED_CLASSES = 12  # in a message


class LabelledItem(TypedDict):
    """input_ids (T,) int64, framed; labels: the number of the class."""

    input_ids: np.ndarray
    labels: int


def encode_labelled(
    examples: Iterable[tuple[Row, Example]],
    tokenizer: "PreTrainedTokenizerBase",
    names: list[str],
    *,
    fixed: bool,
    on_drop: Callable[[str, str], None],
    on_bad_row: OnBadRow = "error",
) -> Iterator[Encoded]:
    """Tokenise labelled texts in the order given; `names` grows as classes appear, unless they are `fixed`.

    Raises:
        HoneError: a label that is empty or, where names are fixed, unknown (and `on_bad_row` is "error").
    """
    numbers = {name: i for i, name in enumerate(names)}
    usable = (found for row, example in examples if (found := _usable(row, example, on_drop)))
    while batch := list(islice(usable, ROWS_PER_BATCH)):
        for (row, example), ids in zip(batch, start_ids(tokenizer, [e.text for _, e in batch], special=False)):
            name = str(example.label)
            if not ids:  # characters that the tokenizer leaves out
                on_drop("empty text", row.where)
                continue
            if not name.strip():
                refuse_row("the label is empty", row.where, on_bad_row, on_drop)
                continue
            if name not in numbers and fixed:
                known = ", ".join(f"'{n}'" for n in class_order(names)[:NAMED_CLASSES])
                reason = f"label '{name}' does not occur in the training rows (known: {known})"
                refuse_row(reason, row.where, on_bad_row, on_drop)
                continue
            if name not in numbers:
                numbers[name] = len(names)
                names.append(name)
            yield Encoded(np.array(ids, np.int64), np.ones(len(ids), bool), True, numbers[name])


def _usable(row: Row, example: Example, on_drop: Callable[[str, str], None]) -> tuple[Row, Labelled] | None:
    assert isinstance(example, Labelled), "only the form text+label was asked for"
    if not example.text.strip():
        on_drop("empty text", row.where)
        return None
    return row, example


def class_order(names: Iterable[str]) -> list[str]:
    """Names sorted; by value where all of them are whole numbers."""
    found = list(names)
    try:
        return sorted(found, key=int)
    except ValueError:
        return sorted(found)


@dataclass(frozen=True)
class LabelledDataset:
    """A map-style dataset: `dataset[i]` is a framed text and its class.

    starts, sizes: (n,) int64, the tokens of each text as far as they are kept, without the frame.
    classes: (n,) int64, in the order of `names`. documents: (n,) int64. common: the most frequent training class.
    """

    split: Split
    starts: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray
    documents: np.ndarray
    names: list[str]
    frame: Frame
    common: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> LabelledItem:
        start = int(self.starts[index])
        ids = self.split.tokens[start : start + int(self.sizes[index])].astype(np.int64)
        return {"input_ids": self.frame.around(ids), "labels": int(self.classes[index])}

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: tokens of each row as the model sees it."""
        sizes: np.ndarray = self.sizes + self.frame.size
        return sizes

    @property
    def n_tokens(self) -> int:
        return int(self.lengths.sum())

    def n_supervised(self) -> np.ndarray:
        """(n,) int64: labels that count, one for each row."""
        return np.ones(len(self), np.int64)

    def counts(self) -> np.ndarray:
        """(classes,) int64: rows of each class."""
        return np.bincount(self.classes, minlength=len(self.names))

    def head(self, n: int | None) -> "LabelledDataset":
        """The first n rows, or all for None."""
        return self._select(np.arange(len(self) if n is None else min(n, len(self))), self.common)

    def with_common(self, common: int) -> "LabelledDataset":
        return self._select(np.arange(len(self)), common)

    def select(self, keep: np.ndarray) -> "LabelledDataset":
        """The rows at `keep`, a mask or indices (m,)."""
        return self._select(keep, self.common)

    def _select(self, keep: np.ndarray, common: int) -> "LabelledDataset":
        picked = {name: getattr(self, name)[keep] for name in ("starts", "sizes", "classes", "documents")}
        return replace(self, common=common, **picked)

    def preview(self, index: int) -> Preview:
        item = self[index]
        name = self.names[item["labels"]]
        return Preview(item["input_ids"], np.zeros(len(item["input_ids"]), bool), f"label {name}")

    def described(self) -> str:
        """'classes: ham 12 (60.0 %), spam 8 (40.0 %)'."""
        counts = self.counts()
        shown = [f"{n} {c:,} ({c / max(1, len(self)):.1%})" for n, c in zip(self.names, counts)]
        more = f", … ({len(shown)} in all)" if len(shown) > NAMED_CLASSES else ""
        return f"classes: {', '.join(shown[:NAMED_CLASSES])}{more}"


def view_labelled(
    split: Split, names_as_read: list[str], frame: Frame, max_length: int, *, drop_long: bool
) -> LabelledDataset:
    """The rows of a split, cut (or dropped) so that text and frame together have at most `max_length` tokens.

    Raises:
        HoneError: the frame alone fills `max_length`.
    """
    room = max_length - frame.size
    if room < 1:
        raise HoneError(f"max_length {max_length} leaves no room for a text", fix=f"set it above {frame.size}")
    names = class_order(names_as_read)
    number = np.array([names.index(name) for name in names_as_read], np.int64)
    starts, sizes = split.starts[:-1], np.diff(split.starts)
    classes = np.zeros(0, np.int64) if split.labels is None else number[split.labels]
    keep, left_out = np.arange(len(sizes)), {}
    if n_long := int((sizes > room).sum()):
        if drop_long:
            keep = keep[sizes <= room]
            left_out[f"texts longer than {room} tokens, dropped"] = n_long
        else:
            left_out[f"tokens cut off beyond {room}"] = int((sizes - room)[sizes > room].sum())
            left_out[f"texts longer than {room} tokens, truncated"] = n_long
    kept = np.minimum(sizes[keep], room)
    return LabelledDataset(split, starts[keep], kept, classes[keep], keep, names, frame, left_out=left_out)
