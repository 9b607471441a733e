"""How long a corpus will be in tokens, before it is tokenised: every row is read, a sample of rows is tokenised.

Characters are counted for every document; the sample says how many tokens a character makes, and which share of them
is supervised. The result is the data that `prepare` would make, by the rules of the store, with every id 0. Reading
stops after a while: then there is at least as much as is said.

>>> data, how = estimated_data(config, task, tokenizer)           # doctest: +SKIP
>>> data.train.lengths.sum(), how                                 # doctest: +SKIP
"""

import hashlib
import random
import time
from array import array
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from hone.config.schema import Config, Where
from hone.config.sections.data import DataSection
from hone.data.inputs import Side
from hone.data.prepare import Prepared, Reading, examples_of, refuse_empty
from hone.data.records import BadRow, Example
from hone.data.sources import Row
from hone.data.split import TRAIN, VAL, Dropped, SplitRule, assign_sides
from hone.data.store import Split, Store, empty_split
from hone.data.templates import render
from hone.errors import HoneError
from hone.progress import counted
from hone.tasks.task import Task

SAMPLE_ROWS = 1000
READ_SECONDS = 10.0  # reading stops then; about half a gigabyte of JSON lines


@dataclass(frozen=True)
class Estimate:
    """Documents of one side. starts: (n + 1,) where each would start in a token file. digests: (n,) of their texts.

    supervised_share: of the tokens. n_rows: read. complete: whether all were.
    """

    starts: np.ndarray
    digests: np.ndarray
    supervised_share: float
    template: str
    n_rows: int
    complete: bool


def estimated_data(config: Config, task: Task, tokenizer: PreTrainedTokenizerBase) -> tuple[Prepared, str]:
    """The data of a task whose examples are rows of tokens, as a sample lets it expect; and where the lengths are from.

    Raises:
        HoneError: no rows, rows of no known form, or no example long enough.
    """
    data, dropped = config.data, Dropped()
    train = _read(data, config.where, task, "train", tokenizer, dropped)
    held = None
    if data.validation_file or data.dataset_validation_split:
        held = _read(data, config.where, task, "validation", tokenizer, dropped)
    rule = SplitRule(data.validation_split_percentage, data.split_seed, data.deduplicate)
    starts, sides = assign_sides(train.starts, train.digests, None if held is None else held.digests, rule, dropped)
    sizes = np.diff(starts)
    val = _split(sizes[sides == VAL], train.supervised_share)
    if held is not None:
        val = _split(np.diff(held.starts), held.supervised_share)
    store = Store(None, _split(sizes[sides == TRAIN], train.supervised_share), val, {"dropped": []})
    trained, validation = task.views(config, store, tokenizer)
    trained, validation = trained.head(data.max_train_samples), validation.head(data.max_eval_samples)
    refuse_empty(data, store, trained, validation, config.where)
    how = f"estimated from {min(SAMPLE_ROWS, train.n_rows):,} tokenised rows"
    how += "" if train.complete else f"; at least so many: reading was stopped after {READ_SECONDS:.0f} s"
    return Prepared(store, trained, validation, train.template, cached=False, seconds=0.0), how


def _read(
    data: DataSection, where: Where, task: Task, side: Side, tokenizer: PreTrainedTokenizerBase, dropped: Dropped
) -> Estimate:
    """Count the characters of every document, and tokenise a uniform sample of the rows."""
    _, template, found = examples_of(data, task, side, tokenizer, dropped, where)
    chance, stop = random.Random(data.split_seed), time.monotonic() + READ_SECONDS
    sizes, digests, seen = array("q", [0]), array("Q"), hashlib.blake2b(digest_size=8)  # of documents; the last is open
    sample: list[tuple[Row, Example]] = []
    sampled: list[int] = []  # characters of each row of the sample
    n, complete = 0, True
    for n, (row, example) in enumerate(counted(found, "reading rows"), 1):
        try:
            text = "".join(segment.text for segment in render(example, template, tokenizer))
        except BadRow:
            continue
        sizes[-1] += len(text)
        seen.update(text.encode())
        if row.ends and sizes[-1]:
            digests.append(int.from_bytes(seen.digest(), "little"))
            sizes.append(0)
            seen = hashlib.blake2b(digest_size=8)
        place = n - 1 if n <= SAMPLE_ROWS else chance.randrange(n)  # every row is as likely to be kept
        if place < SAMPLE_ROWS:
            sample[place : place + 1], sampled[place : place + 1] = [(row, example)], [len(text)]
        if time.monotonic() > stop:
            complete = False
            break
    if sizes[-1]:
        digests.append(int.from_bytes(seen.digest(), "little"))
    reading = Reading(data, tokenizer, template, dropped.add, [], names_are_fixed=False)
    encoded = list(task.encode(sample, reading))
    n_tokens = sum(len(row.ids) for row in encoded)
    if not n_tokens or not sum(sampled):
        raise HoneError(f"no {side} rows are left: they are all empty", where=where(f"{side}_file"))
    tokens = np.maximum(1, np.round(np.array(sizes[: len(digests)]) * (n_tokens / sum(sampled)))).astype(np.int64)
    share = sum(int(row.supervised.sum()) for row in encoded) / n_tokens
    starts = np.concatenate([[0], np.cumsum(tokens)])
    return Estimate(starts, np.array(digests, np.uint64), share, template, n, complete)


def _split(sizes: np.ndarray, supervised_share: float) -> Split:
    """Documents of these lengths (n,) whose ids are all 0, the end of each supervised."""
    if not len(sizes):
        return empty_split()
    starts = np.concatenate([[0], np.cumsum(sizes)])
    trained = np.clip(np.round(sizes * supervised_share), 1, sizes).astype(np.int64)
    runs = np.stack([sizes - trained, trained], axis=1).reshape(-1)  # (2 n,): prompt, completion, prompt, …
    mask = None if supervised_share == 1 else np.repeat(np.tile(np.array([0, 1], np.uint8), len(sizes)), runs)
    return Split(np.broadcast_to(np.uint16(0), starts[-1:]), mask, starts)
