"""A few greedy continuations of held-out examples: what the numbers look like as text."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hone.data.truncate import TokenDataset

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXT_PROMPT_TOKENS = 32  # a plain text has no prompt: its first third, at most this many tokens, serves as one


class Written(NamedTuple):
    """A continuation, and whether it ended by itself, not by the limit."""

    text: str
    ended: bool


def sample_prompts(
    dataset: TokenDataset, tokenizer: "PreTrainedTokenizerBase", n: int
) -> list[tuple[list[int], dict[str, Any]]]:
    """Prompts from evenly spaced held-out examples, as (ids, {"item", "prompt", "reference"})."""
    prompts = []
    for index in evenly_spaced(len(dataset), n):
        item = dataset[index]
        ids = item["input_ids"]
        if dataset.split.supervised is None:
            cut = max(1, min(TEXT_PROMPT_TOKENS, len(ids) // 3))
        else:
            cut = int(np.flatnonzero(item["labels"] >= 0)[0])
        about = {
            "item": index,
            "prompt": decode(tokenizer, ids[:cut]),
            "reference": decode(tokenizer, ids[cut:]),
        }
        prompts.append((ids[:cut].tolist(), about))
    return prompts


def evenly_spaced(n_items: int, n: int) -> list[int]:
    """At most n indices below n_items, the first and the last among them.

    >>> evenly_spaced(9, 3)
    [0, 4, 8]
    """
    indices: list[int] = np.linspace(0, n_items - 1, min(n, n_items)).round().astype(int).tolist()
    return indices


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Any) -> str:
    """Text of ids without special tokens, spaces untouched."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def greedy(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: list[list[int]], max_new_tokens: int
) -> list[str]:
    """The texts of `continuations`."""
    return [written.text for written in continuations(model, tokenizer, prompts, max_new_tokens)]


def continuations(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: list[list[int]], max_new_tokens: int
) -> list[Written]:
    """The most likely continuation of each prompt, up to the end token or the window's end."""
    from hone.inference.generate import generate_ids
    from hone.models.inspect import max_positions

    room = max_positions(model)
    found = []
    for ids in prompts:
        limit = max_new_tokens if room is None else min(max_new_tokens, room - len(ids))
        new = generate_ids(model, tokenizer, ids, max_new_tokens=limit, temperature=0.0) if limit > 0 else [[]]
        found.append(Written(decode(tokenizer, new[0]), len(new[0]) < limit))
    return found
