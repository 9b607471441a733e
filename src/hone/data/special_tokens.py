"""The special tokens that a tokenizer adds around a text, and the token that rows are padded with.

Texts are stored without them; data sets add them, so that truncating a long text never loses its closing token.

>>> special_tokens(bert_tokenizer)                                                 # doctest: +SKIP
SpecialTokens(prefix=(101,), suffix=(102,))
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hone.data.tokenizer import start_ids
from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SpecialTokens(NamedTuple):
    """Ids before and after every text, as the tokenizer itself puts them."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def around(self, ids: np.ndarray, *, ends: bool = True) -> np.ndarray:
        """The prefix, `ids` (T,) int64 and the suffix; no suffix unless the text `ends` here."""
        return np.concatenate([self.prefix, ids, self.suffix if ends else ()]).astype(np.int64)


def special_tokens(tokenizer: "PreTrainedTokenizerBase", *, must_end: bool = False) -> SpecialTokens:
    """What this tokenizer puts around one text: [CLS] … [SEP] (BERT), <s> … </s> (BART), … </s> (T5), or nothing.

    Args:
        must_end: with the end token at the end if the tokenizer puts none there: a decoder has to learn where to stop.

    Raises:
        HoneError: it must end, and the tokenizer has no end token.
    """
    inner = start_ids(tokenizer, ["x"], special=False)[0]
    whole: list[int] = tokenizer("x")["input_ids"]
    places = (at for at in range(len(whole) - len(inner) + 1) if whole[at : at + len(inner)] == inner)
    at = next(places, None)
    found = SpecialTokens() if at is None else SpecialTokens(tuple(whole[:at]), tuple(whole[at + len(inner) :]))
    end = tokenizer.eos_token_id
    if must_end and end is None:
        raise HoneError("the tokenizer has no end token: a generated text would never end", fix="set its eos_token")
    if must_end and end not in found.suffix:
        return SpecialTokens(found.prefix, (*found.suffix, int(end)))
    return found


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
