"""Examples to tokens and labels: the only rule for what is supervised.

Each example is rendered into segments (`templates.render`); every segment is tokenised on its own, so that generation,
which feeds the rendered prompt alone, sees exactly the ids that training saw. Data rows never smuggle in special
tokens: a literal "<|endoftext|>" in a row is ordinary text (only chat templates spell real ones). The end token is
appended by us and supervised. Cutting to `max_length` comes later (`views.py`): the same tokens serve every length.

>>> rule = EncodeRule(template="plain", completion_only_loss=True, append_eos=True)
>>> for row in encode(examples, tokenizer, rule, on_drop=print): print(row.ids, row.supervised)   # doctest: +SKIP
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hone.data.records import Example
from hone.data.sources import Row
from hone.data.templates import Segment, render
from hone.data.tokenizer import adds_bos, continuation_ids, start_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_PER_BATCH = 1000  # rows handed to the tokenizer's threads at once,
CHARACTERS_PER_BATCH = 1 << 22  # or fewer when they are long: memory stays flat


@dataclass(frozen=True)
class EncodeRule:
    """What decides ids and labels, apart from the tokenizer."""

    template: str
    completion_only_loss: bool
    append_eos: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example, or one piece of a text too big to hold at once (`ends` is True for its last piece).

    ids: (T,) int64. supervised: (T,) bool, True where the token counts in the loss.
    """

    ids: np.ndarray
    supervised: np.ndarray
    ends: bool


def encode(
    examples: Iterable[tuple[Row, Example]],
    tokenizer: "PreTrainedTokenizerBase",
    rule: EncodeRule,
    *,
    on_drop: Callable[[str, str], None],
) -> Iterator[Encoded]:
    """Tokenise examples in the order given, in batches, in bounded memory.

    Args:
        on_drop: called with (reason, where) for each example that has nothing to supervise.
    """
    opens = True  # does the next row open a document, or continue a text read in pieces?
    for batch in _batches(examples):
        rendered: list[_Rendered] = []
        for row, example in batch:
            item = _Rendered(row, render(example, rule.template, tokenizer), opens)
            opens = row.ends
            if item.whole and not any(segment.supervised and segment.text.strip() for segment in item.segments):
                on_drop("empty output: nothing to learn" if len(item.segments) > 1 else "empty text", row.where)
                continue
            rendered.append(item)
        yield from _encode_batch(rendered, tokenizer, rule)


class _Rendered(NamedTuple):
    row: Row
    segments: list[Segment]
    opens: bool  # the first piece of its document

    @property
    def whole(self) -> bool:
        return self.opens and self.row.ends


def _batches(examples: Iterable[tuple[Row, Example]]) -> Iterator[list[tuple[Row, Example]]]:
    batch: list[tuple[Row, Example]] = []
    characters = 0
    for row, example in examples:
        batch.append((row, example))
        characters += sum(len(value) for value in row.columns.values() if isinstance(value, str))
        if len(batch) >= ROWS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode_batch(
    rendered: list[_Rendered], tokenizer: "PreTrainedTokenizerBase", rule: EncodeRule
) -> Iterator[Encoded]:
    special = rule.template == "chat"  # only a template of the tokenizer's own spells real special tokens
    opening = [item.segments[0].text for item in rendered if item.opens]
    continuing = [s.text for item in rendered for s in (item.segments[1:] if item.opens else item.segments)]
    first = iter(start_ids(tokenizer, opening, special=special))
    later = iter(continuation_ids(tokenizer, continuing, special=special))
    bos = tokenizer.bos_token_id if not special and adds_bos(tokenizer) else None
    eos = tokenizer.eos_token_id if rule.append_eos else None
    for item in rendered:
        parts = [next(first if item.opens and i == 0 else later) for i in range(len(item.segments))]
        flags = [segment.supervised or not rule.completion_only_loss for segment in item.segments]
        if bos is not None and item.opens:
            parts, flags = [[bos], *parts], [flags[0], *flags]  # an example's first token is never a target anyway
        if eos is not None and item.row.ends and not (special and _ends_itself(parts, eos)):
            parts, flags = [*parts, [eos]], [*flags, True]
        lengths = [len(part) for part in parts]
        ids = np.fromiter(chain.from_iterable(parts), dtype=np.int64, count=sum(lengths))
        supervised = np.repeat(np.array(flags, dtype=bool), lengths)
        yield Encoded(ids, supervised, item.row.ends)


def _ends_itself(parts: list[list[int]], eos: int) -> bool:
    """A chat template usually closes the turn itself; a second end token would teach the model to say it twice."""
    tail = list(chain.from_iterable(parts[-2:]))[-3:]  # the end token may be followed by the template's newline
    return eos in tail
