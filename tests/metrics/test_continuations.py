"""Greedy continuations: all prompts in one batch, each as transformers continues it alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hone.metrics.continuations import Written, continuations, decode, evenly_spaced

PROMPTS = [[5, 6, 7, 8], [9], list(range(20, 60)), [11, 12], [13] * 17]


def alone(model: Any, tokenizer: Any, prompt: list[int], limit: int) -> Written:
    """By transformers' generate, up to the end token, 0."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, pad_token_id=0
    )
    new = out[0, len(prompt) :].tolist()
    return Written(decode(tokenizer, new[: new.index(0)] if 0 in new else new), 0 in new)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama", "qwen2"])
def test_in_a_batch_as_alone(architecture: str, tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    model = tiny_model(architecture, tie_word_embeddings=False)
    with torch.no_grad():  # an end token that some of the prompts lead to
        model.get_output_embeddings().weight[0] *= 3
    expected = [alone(model, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert len({written.text for written in expected}) >= 4, "the prompts differ, and so must the texts"
    model.train()
    assert continuations(model, tokenizer, PROMPTS, 12) == expected
    assert model.training, "left as it was"


def test_ends(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    """The end token, the limit, the window, and a prompt that fills the window."""
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[17] * 100)  # always token 17
    word = decode(tokenizer, [17])
    prompts = [[5] * 254, [5] * 256, [7, 8], []]
    texts = [word * 2, "", word * 6, word * 6]
    assert continuations(model, tokenizer, prompts, 6) == [Written(text, False) for text in texts]
    with torch.no_grad():
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[0] * 100)
    assert continuations(model, tokenizer, prompts, 6) == [Written("", i != 1) for i in range(4)]
    assert continuations(model, tokenizer, [], 6) == []


def test_evenly_spaced() -> None:
    assert evenly_spaced(9, 3) == [0, 4, 8]
    assert evenly_spaced(2, 5) == [0, 1]
    assert evenly_spaced(0, 5) == []
