"""A few greedy continuations of held-out examples: what the numbers look like as text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.sections.generate import GenerateSection
from hone.data.dataset import Dataset
from hone.inference.engine import Engine, Request, answer_all
from hone.inference.generate import answer_rule, start_id
from hone.inference.stream import Answer
from hone.models.inspect import reads_source
from hone.processes import shared
from hone.results import Sample

TEXT_PROMPT_TOKENS = 32  # a plain text has no prompt: its first third, at most this many tokens, serves as one


class Written(NamedTuple):
    """A continuation, and whether it ended by itself, not by the limit."""

    text: str
    ended: bool


def sample_prompts(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, n: int) -> list[tuple[list[int], Sample]]:
    """Prompts from evenly spaced held-out examples: their ids, and a sample whose text is still to be written."""
    prompts = []
    for index in evenly_spaced(len(dataset), n):
        item = dataset[index]
        ids = item["input_ids"]
        if dataset.split.supervised is None:
            cut = max(1, min(TEXT_PROMPT_TOKENS, len(ids) // 3))
        else:
            cut = int(np.flatnonzero(item["labels"] >= 0)[0])
        prompt, reference = decode(tokenizer, ids[:cut]), decode(tokenizer, ids[cut:])
        prompts.append((ids[:cut].tolist(), Sample(item=index, prompt=prompt, reference=reference, text="")))
    return prompts


def evenly_spaced(n_items: int, n: int) -> list[int]:
    """At most n indices below n_items, the first and the last among them.

    >>> evenly_spaced(9, 3)
    [0, 4, 8]
    """
    indices: list[int] = np.linspace(0, n_items - 1, min(n, n_items)).round().astype(int).tolist()
    return indices


def decode(tokenizer: PreTrainedTokenizerBase, ids: Any) -> str:
    """Text of ids without special tokens, spaces untouched."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], max_new_tokens: int
) -> list[str]:
    """The texts of `continuations`."""
    return [written.text for written in continuations(model, tokenizer, prompts, max_new_tokens)]


def continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], max_new_tokens: int
) -> list[Written]:
    """The most likely continuation of each prompt, up to the end token or the window's end, without dropout.

    Of an encoder-decoder the prompts are sources, framed, and what it writes to each is its continuation.
    """
    texts = shared(prompts, lambda mine: _continued(model, tokenizer, mine, max_new_tokens))
    return [Written(*one) for one in texts]


def _continued(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[tuple[str, bool]]:
    """The same of this process alone, whose share of the prompts these are."""
    settings = GenerateSection(max_new_tokens=max_new_tokens)
    rows = [ids or [start_id(tokenizer)] for ids in prompts]
    answers = [
        Answer(
            tokenizer,
            [] if reads_source(model) else row,
            answer_rule(model, tokenizer, "plain", settings, len(row)),
        )
        for row in rows
    ]
    training = model.training
    model.eval()
    requests = [Request(row, answer, settings) for row, answer in zip(rows, answers) if answer.room > 0]
    answer_all(Engine(model), requests)
    model.train(training)
    return [(decode(tokenizer, answer.ids), answer.ended == "end token") for answer in answers]
