"""What each task reads: the forms of rows it can use, how they are encoded, and the datasets it sees of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.config.sections.data import DataSection
from hone.data.encode import Encoded, EncodeRule, encode
from hone.data.labels import LabelledDataset, encode_labelled, view_labelled
from hone.data.records import REQUIRED, Example, Form
from hone.data.seq2seq import PairDataset, encode_pairs, view_pairs
from hone.data.sources import Row
from hone.data.special_tokens import closed_frame, frame
from hone.data.store import Store
from hone.data.truncate import LongRow, TokenDataset, view
from hone.errors import HoneError, placed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Examples = Iterable[tuple[Row, Example]]


@dataclass(frozen=True)
class Reading:
    """What encoding one side's rows depends on; `names` of classes grow as they are consumed, unless they are fixed."""

    data: DataSection
    tokenizer: "PreTrainedTokenizerBase"
    template: str
    on_drop: Callable[[str, str], None]
    names: list[str]
    names_are_fixed: bool


@dataclass(frozen=True)
class TaskData:
    """forms: of rows that the task can use. encode: rows to tokens. views: a store to training and validation data."""

    forms: tuple[Form, ...]
    encode: Callable[[Examples, Reading], Iterator[Encoded]]
    views: "Callable[[Config, Store, PreTrainedTokenizerBase], tuple[Any, Any]]"


def _causal_rows(rows: Examples, reading: Reading) -> Iterator[Encoded]:
    data = reading.data
    rule = EncodeRule(reading.template, data.completion_only_loss, data.append_eos)
    return encode(rows, reading.tokenizer, rule, on_drop=reading.on_drop, on_bad_row=data.on_bad_row)


def _labelled_rows(rows: Examples, reading: Reading) -> Iterator[Encoded]:
    return encode_labelled(
        rows,
        reading.tokenizer,
        reading.names,
        fixed=reading.names_are_fixed,
        on_drop=reading.on_drop,
        on_bad_row=reading.data.on_bad_row,
    )


def _pair_rows(rows: Examples, reading: Reading) -> Iterator[Encoded]:
    return encode_pairs(rows, reading.tokenizer, reading.template, on_drop=reading.on_drop)


def _causal_views(
    config: Config, store: Store, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[TokenDataset, TokenDataset]:
    length = config.data.max_length
    rule: LongRow = "windows" if config.data.batching == "windows" else config.data.on_long_row
    # a pure text is measured whole, in pieces; a row with a prompt as it is trained, but by strides also beyond that
    whole = store.val.supervised is None or rule == "windows" or config.eval.eval_stride is not None
    return view(store.train, length, rule), view(store.val, length, "split" if whole else rule)


def _labelled_views(
    config: Config, store: Store, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[LabelledDataset, LabelledDataset]:
    names, around, drop_long = store.meta["label_names"], frame(tokenizer), config.data.on_long_row == "drop"
    with placed(config.where("max_length")):
        train, validation = (
            view_labelled(split, names, around, config.data.max_length, drop_long=drop_long)
            for split in (store.train, store.val)
        )
    return train, validation


def _pair_views(config: Config, store: Store, tokenizer: "PreTrainedTokenizerBase") -> tuple[PairDataset, PairDataset]:
    data, around = config.data, closed_frame(tokenizer)
    with placed(config.where("max_target_length") or config.where("max_length")):
        train, validation = (
            view_pairs(split, around, data.max_length, data.max_target_length, drop_long=data.on_long_row == "drop")
            for split in (store.train, store.val)
        )
    return train, validation


TASK_DATA: dict[str, TaskData] = {
    "causal": TaskData(tuple(REQUIRED), _causal_rows, _causal_views),
    "classification": TaskData(("labelled",), _labelled_rows, _labelled_views),
    "seq2seq": TaskData(("source_target", "instruction", "pair"), _pair_rows, _pair_views),
}


def refuse_one_class(train: LabelledDataset) -> None:
    """Raise a HoneError if all training rows are of one class."""
    found = np.flatnonzero(train.counts())
    if len(found) < 2:
        raise HoneError(
            f"all training rows have the label '{train.names[found[0]]}': there is nothing to tell apart",
            fix="add rows of other classes, or look whether column_mapping: {label: …} names the right column",
        )
