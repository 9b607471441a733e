"""How far a tokenizer shortens a text: bytes per token over texts, which should be ones it was not trained on.

>>> found = bytes_per_token(tokenizer, held_out)                                      # doctest: +SKIP
>>> found.n_tokens, found.ratio.value                                                 # doctest: +SKIP
(25306, 3.71)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from hone.data.tokenizer import start_ids
from hone.errors import HoneError
from hone.results import Estimate
from hone.statistics.intervals import ratio_interval

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS_PER_BATCH = 256


@dataclass(frozen=True)
class BytesPerToken:
    """n_entries: of the vocabulary. ratio: UTF-8 bytes per token, with its interval; higher is shorter."""

    n_entries: int
    n_texts: int
    n_bytes: int
    n_tokens: int
    ratio: Estimate


def bytes_per_token(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str]) -> BytesPerToken:
    """Of texts that hold something; special tokens in them are ordinary text.

    Raises:
        HoneError: the texts hold nothing.
    """
    n_bytes: list[int] = []
    n_tokens: list[int] = []
    iterator = filter(None, texts)
    while batch := list(islice(iterator, TEXTS_PER_BATCH)):
        n_bytes += [len(text.encode("utf-8")) for text in batch]
        n_tokens += [len(ids) for ids in start_ids(tokenizer, batch, special=False)]
    if not n_tokens:
        raise HoneError("no text to measure a tokenizer on")
    ratio = ratio_interval(np.array(n_bytes), np.array(n_tokens), positive=True)
    return BytesPerToken(len(tokenizer), len(n_tokens), sum(n_bytes), sum(n_tokens), ratio)
