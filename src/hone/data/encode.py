"""Examples to tokens and labels: the only rule for what is supervised.

Each example is rendered into segments (`templates.render`); every segment is tokenised on its own, so that generation,
which feeds the rendered prompt alone, sees exactly the ids that training saw. Rows never smuggle in special tokens: a
literal "<|endoftext|>" in a row is ordinary text (only chat templates write real ones). The end token is appended by us
and supervised. Truncation to `max_length` comes later (`truncate.py`): the same tokens serve every length.

>>> rule = EncodeRule(template="plain", completion_only_loss=True, append_eos=True)
>>> for row in encode(examples, tokenizer, rule, on_drop=print): print(row.ids, row.supervised)   # doctest: +SKIP
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hone.data.pretoken_cache import WordIds, word_ids
from hone.data.records import BadRow, Example
from hone.data.sources import OnBadRow, Row, refuse_row
from hone.data.templates import Segment, render
from hone.data.tokenizer import adds_bos, continuation_ids, start_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_PER_BATCH = 1000  # rows tokenised at once, laid out in one array,
CHARACTERS_PER_BATCH = 1 << 20  # or fewer when they are long: memory stays flat


@dataclass(frozen=True)
class EncodeRule:
    """What decides ids and labels, apart from the tokenizer."""

    template: str
    completion_only_loss: bool
    append_eos: bool


class Encoded(NamedTuple):
    """One example, or one piece of a text too big to hold at once (`ends` is True for its last piece).

    ids: (T,) int64. supervised: (T,) bool, True where the token counts in the loss. label: the number of its class.
    """

    ids: np.ndarray
    supervised: np.ndarray
    ends: bool
    label: int | None = None


def encode(
    examples: Iterable[tuple[Row, Example]],
    tokenizer: "PreTrainedTokenizerBase",
    rule: EncodeRule,
    *,
    on_drop: Callable[[str, str], None],
    on_bad_row: OnBadRow = "error",
) -> Iterator[Encoded]:
    """Tokenise examples in the order given, in batches, in bounded memory.

    Args:
        on_bad_row: what to do with a row that the template refuses.
        on_drop: called with (reason, where) for each example that has nothing to supervise.
    """
    words: WordIds | None = None
    for number, batch in enumerate(_batches(examples, tokenizer, rule.template, on_drop, on_bad_row)):
        if number == 0 and rule.template != "chat":  # a chat template writes special tokens, which are not words
            words = word_ids(tokenizer, _texts(batch))
        yield from _encode_batch(batch, tokenizer, rule, words)


class _Rendered(NamedTuple):
    segments: list[Segment]  # never empty
    opens: bool  # the first piece of its document
    ends: bool  # the last one


def _batches(
    examples: Iterable[tuple[Row, Example]],
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    on_drop: Callable[[str, str], None],
    on_bad_row: OnBadRow,
) -> Iterator[list[_Rendered]]:
    """Examples as segments of text, without those that have nothing to learn from; no batch is empty."""
    batch: list[_Rendered] = []
    characters = 0
    opens = True  # does the next row open a document, or continue a text read in pieces?
    for row, example in examples:
        try:
            item = _Rendered(render(example, template, tokenizer), opens, row.ends)
        except BadRow as error:
            refuse_row(error.what, row.where, on_bad_row, on_drop)
            continue
        opens = row.ends
        if item.opens and item.ends and not any(s.supervised and s.text.strip() for s in item.segments):
            on_drop("empty output: nothing to learn" if len(item.segments) > 1 else "empty text", row.where)
            continue
        batch.append(item)
        for segment in item.segments:
            characters += len(segment.text)
        if len(batch) >= ROWS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode_batch(
    batch: list[_Rendered], tokenizer: "PreTrainedTokenizerBase", rule: EncodeRule, words: WordIds | None
) -> Iterator[Encoded]:
    """The segments (S) of all items (I) tokenised at once into one array of tokens (T), of which each item is a slice.

    For example a prompt "ab" with its answer "c", and a text "de", a token each letter, before E ends both items:

        ids          a b c|d e  (T,)     lengths  2 1|2  (S,)     starts  0|3  (I,)     first  0|2  (I,)
        supervised   0 0 1|1 1  (T,)     flags    0 1|1  (S,)     ends    3|5  (I,)     last   1|2  (I,)

        after E at 3 and at 5:    ids  a b c E|d e E    supervised  0 0 1 1|1 1 1    ends  4|7
    """
    special = rule.template == "chat"  # only a template of the tokenizer's own writes real special tokens
    ids, lengths = words.ids(_texts(batch)) if words else _segment_ids(batch, tokenizer, special)
    flags = np.array([s.supervised or not rule.completion_only_loss for item in batch for s in item.segments])
    supervised = np.repeat(flags, lengths)
    segment_ends = np.cumsum(lengths)
    n_segments = np.array([len(item.segments) for item in batch])
    last = np.cumsum(n_segments) - 1
    first = last - n_segments + 1
    ends = segment_ends[last]
    starts = np.concatenate([[0], ends[:-1]])

    # (I,) bool: which items get a begin-of-text token, which an end token
    begins = np.array([item.opens for item in batch]) & (not special and adds_bos(tokenizer))
    closes = np.array([item.ends for item in batch]) & (rule.append_eos and tokenizer.eos_token_id is not None)
    if special:
        # A chat template usually closes the turn itself, perhaps with a line break behind; a second end token would
        # teach the model to say it twice. It is looked for in the last three tokens, from the last answer on: the end
        # of a prompt before a short answer is none of the answer's.
        for i in np.flatnonzero(closes).tolist():
            answers = [n for n, segment in enumerate(batch[i].segments) if segment.supervised]
            segment = first[i] + (answers[-1] if answers else 0)
            begin = segment_ends[segment] - lengths[segment]
            closes[i] = tokenizer.eos_token_id not in ids[max(begin, ends[i] - 3) : ends[i]]

    # the tokens to insert, item by item: begin-of-text before its start, the end token before its end
    keep = np.stack([begins, closes], axis=1).ravel()
    at = np.stack([starts, ends], axis=1).ravel()[keep]
    values = np.tile([tokenizer.bos_token_id or 0, tokenizer.eos_token_id or 0], len(batch))[keep]
    # an example's first token is never a target, whatever is said of it here; its end token is one
    counts = np.stack([flags[first], np.ones(len(batch), dtype=bool)], axis=1).ravel()[keep]
    ids, supervised = np.insert(ids, at, values), np.insert(supervised, at, counts)
    ends = ends + np.cumsum(begins.astype(np.int64) + closes)
    start = 0
    for item, end in zip(batch, ends.tolist(), strict=True):
        yield Encoded(ids[start:end], supervised[start:end], item.ends)
        start = end


def _texts(batch: list[_Rendered]) -> list[str]:
    return [segment.text for item in batch for segment in item.segments]


def _segment_ids(
    batch: list[_Rendered], tokenizer: "PreTrainedTokenizerBase", special: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all segments end to end, (T,) int64, and how many each has, (segments,) int64."""
    opening = [item.segments[0].text for item in batch if item.opens]
    continuing = [s.text for item in batch for s in (item.segments[1:] if item.opens else item.segments)]
    opened = iter(start_ids(tokenizer, opening, special=special))
    continued = iter(continuation_ids(tokenizer, continuing, special=special))
    parts = [next(opened if item.opens and i == 0 else continued) for item in batch for i in range(len(item.segments))]
    lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
    return np.fromiter(chain.from_iterable(parts), dtype=np.int64, count=int(lengths.sum())), lengths
