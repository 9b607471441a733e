"""What stands around a text: the special tokens a tokenizer frames it with, and the token that rows are padded with.

Texts are stored without their frame; datasets add it, so that cutting a long text never loses its closing token.

>>> frame(bert_tokenizer)                                                          # doctest: +SKIP
Frame(prefix=(101,), suffix=(102,))
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hone.data.tokenizer import start_ids
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Frame(NamedTuple):
    """Ids before and after every text, as the tokenizer itself puts them."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def around(self, ids: np.ndarray, *, ends: bool = True) -> np.ndarray:
        """`ids` (T,) int64 framed; without the suffix unless the text `ends` here."""
        return np.concatenate([self.prefix, ids, self.suffix if ends else ()]).astype(np.int64)


def frame(tokenizer: "PreTrainedTokenizerBase") -> Frame:
    """The frame this tokenizer puts around one text: [CLS] … [SEP] (BERT), <s> … </s> (BART), … </s> (T5), or none."""
    inner = start_ids(tokenizer, ["x"], special=False)[0]
    whole: list[int] = tokenizer("x")["input_ids"]
    for at in range(len(whole) - len(inner) + 1):
        if whole[at : at + len(inner)] == inner:
            return Frame(tuple(whole[:at]), tuple(whole[at + len(inner) :]))
    return Frame()


def closed_frame(tokenizer: "PreTrainedTokenizerBase") -> Frame:
    """The same, with the end token at the end if the tokenizer puts none there: a decoder has to learn where to stop.

    Raises:
        HoneError: the tokenizer has no end token.
    """
    found, end = frame(tokenizer), tokenizer.eos_token_id
    if end is None:
        raise HoneError("the tokenizer has no end token: a generated text would never end", fix="set its eos_token")
    return found if end in found.suffix else Frame(found.prefix, (*found.suffix, end))


def padding_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token to pad with: the tokenizer's own, or else the end token.

    A classifier reads the last token of a row that is not padding, and finds it by its id. So it must be one that no
    text holds: never the unknown token, which texts of other scripts end with (where there is a choice).

    Raises:
        HoneError: the tokenizer has neither.
    """
    given = [token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None]
    if not given:
        raise HoneError("the tokenizer has neither a padding nor an end token", fix="set its pad_token")
    return next((token for token in given if token != tokenizer.unk_token_id), given[0])
