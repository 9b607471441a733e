"""How long a corpus will be in tokens, before it is tokenised: every row is read, a sample of rows is tokenised.

Characters are counted for every document; the sample says how many tokens a character makes, and which share of them
is supervised. Reading stops after a while: then there is at least as much as is said.

>>> lengths = estimate_lengths(config, tokenizer)           # doctest: +SKIP
>>> lengths.train.sum(), lengths.how                        # doctest: +SKIP
"""

import itertools
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hone.config.schema import Config
from hone.data.encode import EncodeRule, encode
from hone.data.inputs import Side, rows_of
from hone.data.prepare import Prepared
from hone.data.records import BadRow, Example, detect_form, examples
from hone.data.sources import Row
from hone.data.store import Split
from hone.data.templates import render, resolve_template
from hone.data.truncate import LongRow, view
from hone.errors import HoneError, placed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE_ROWS = 1000
READ_SECONDS = 10.0  # reading stops then; about half a gigabyte of JSON lines


@dataclass(frozen=True)
class Lengths:
    """Tokens of each example. train, supervised: (n,) of the training data, all tokens and those that count in the
    loss. validation: (m,). how: where the numbers come from, in words. exact: whether they were counted."""

    train: np.ndarray
    supervised: np.ndarray
    validation: np.ndarray
    how: str
    exact: bool


def counted_lengths(data: Prepared) -> Lengths:
    """Lengths of data that is tokenised already."""
    return Lengths(data.train.lengths, data.train.n_supervised(), data.validation.lengths, "counted in the data", True)


@dataclass(frozen=True)
class _Side:
    """Documents of one side: characters of each, (n,), tokens a character, supervised share of the tokens."""

    characters: np.ndarray
    tokens_per_character: float
    supervised_share: float
    complete: bool

    def starts(self) -> np.ndarray:
        """(n + 1,) where each document would start in a token file."""
        tokens = np.maximum(1, np.round(self.characters * self.tokens_per_character)).astype(np.int64)
        return np.concatenate([[0], np.cumsum(tokens)])


def estimate_lengths(config: Config, tokenizer: "PreTrainedTokenizerBase") -> Lengths:
    """Lengths of the training and validation examples of rows for `task: causal`, by a sample.

    Raises:
        HoneError: no rows, or rows of no known form.
    """
    data = config.data
    rule: LongRow = "windows" if data.batching == "windows" else data.on_long_row
    side = _read(config, "train", tokenizer)
    train, validation = side.starts(), np.zeros(1, np.int64)
    if data.validation_file or data.dataset_validation_split:
        validation = _read(config, "validation", tokenizer).starts()
    elif data.validation_split_percentage > 0:
        train, validation = _split(train, data.validation_split_percentage, data.split_seed)
    cut = view(_bare(train), data.max_length, rule).head(data.max_train_samples)
    held = view(_bare(validation), data.max_length, "split").head(data.max_eval_samples)
    if not len(cut):
        raise HoneError(
            f"no example would be left to train on with max_length {data.max_length}",
            where=config.where("max_length"),
            fix="lower max_length, or set batching: flat" if rule == "windows" else "raise max_length",
        )
    how = f"estimated from {min(SAMPLE_ROWS, len(side.characters)):,} tokenised rows"
    how += "" if side.complete else f"; at least so many: reading was stopped after {READ_SECONDS:.0f} s"
    supervised = np.clip(np.round(cut.lengths * side.supervised_share), 1, np.maximum(cut.lengths - 1, 1))
    return Lengths(cut.lengths, supervised.astype(np.int64), held.lengths, how, False)


def _read(config: Config, side: Side, tokenizer: "PreTrainedTokenizerBase") -> _Side:
    """Count the characters of every document, and tokenise a uniform sample of the rows."""
    data = config.data
    found = examples(
        rows_of(data, side, lambda *_: None),
        column_mapping=data.column_mapping,
        on_bad_row=data.on_bad_row,
        on_skip=lambda *_: None,
    )
    first = next(found, None)
    if first is None:
        raise HoneError(f"no {side} rows", where=config.where(f"{side}_file"))
    with placed(config.where("template")):
        form = detect_form(first[0].columns, data.column_mapping)
        template = resolve_template(data.template, form, bool(getattr(tokenizer, "chat_template", None)))
    chance, stop = random.Random(data.split_seed), time.monotonic() + READ_SECONDS
    characters = [0]
    sample: list[tuple[Row, Example]] = []
    complete = True
    for n, (row, example) in enumerate(itertools.chain([first], found), 1):
        try:
            characters[-1] += sum(len(segment.text) for segment in render(example, template, tokenizer))
        except BadRow:
            continue
        if row.ends:
            characters.append(0)
        place = n - 1 if n <= SAMPLE_ROWS else chance.randrange(n)  # every row is as likely to be kept
        if place < SAMPLE_ROWS:
            sample[place : place + 1] = [(row, example)]
        if time.monotonic() > stop:
            complete = False
            break
    rule = EncodeRule(template, data.completion_only_loss, data.append_eos)
    n_characters = sum(len(s.text) for _, example in sample for s in render(example, template, tokenizer))
    encoded = list(encode(sample, tokenizer, rule, on_drop=lambda *_: None, on_bad_row="skip"))
    n_tokens = sum(len(row.ids) for row in encoded)
    if not n_tokens or not n_characters:
        raise HoneError(f"no {side} rows are left: they are all empty", where=config.where(f"{side}_file"))
    share = sum(int(row.supervised.sum()) for row in encoded) / n_tokens
    lengths = np.array(characters if characters[-1] else characters[:-1], dtype=np.int64)
    return _Side(lengths[lengths > 0], n_tokens / n_characters, share, complete)


def _split(starts: np.ndarray, percentage: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts of the documents that are trained on and of those held out; of a single document, its end."""
    sizes = np.diff(starts)
    if len(sizes) == 1:
        cut = sizes[0] - round(int(sizes[0]) * percentage / 100)
        return np.array([0, cut]), np.array([0, sizes[0] - cut])
    n_held = min(max(1, round(len(sizes) * percentage / 100)), len(sizes) - 1)
    held = np.zeros(len(sizes), dtype=bool)
    held[np.random.default_rng(seed).permutation(len(sizes))[:n_held]] = True
    train, validation = (np.concatenate([[0], np.cumsum(sizes[keep])]) for keep in (~held, held))
    return train, validation


def _bare(starts: np.ndarray) -> Split:
    """A split whose documents have a length and no tokens."""
    return Split(np.zeros(0, np.uint16), None, starts)
