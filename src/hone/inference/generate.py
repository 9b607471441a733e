"""Sampling from a model: ids in, ids out; and the command's text in, text out.

>>> generate_ids(model, tokenizer, [15496], max_new_tokens=8)      # doctest: +SKIP
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens: temperature 0 is greedy; top_k 0 and top_p 1 keep every token."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    n: int = 1
    seed: int = 0
    stop: list[str] | None = None


def generate_texts(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompt: str, sampling: Sampling, template: str
) -> list[str]:
    """Answers to one prompt, spelled and tokenised exactly as in training.

    Raises:
        HoneError: the prompt fills the model's window.
    """
    from hone.data.templates import render_prompt
    from hone.data.tokenizer import adds_bos, start_ids
    from hone.models.load import max_positions

    chat = template == "chat"
    ids = start_ids(tokenizer, [render_prompt(prompt, template, tokenizer)], special=chat)[0]
    if not chat and adds_bos(tokenizer):
        ids = [tokenizer.bos_token_id, *ids]
    window = max_positions(model)
    if window is not None and len(ids) >= window:
        raise HoneError(f"the prompt has {len(ids)} tokens, the model's window {window}", fix="shorten the prompt")
    room = sampling.max_new_tokens if window is None else min(sampling.max_new_tokens, window - len(ids))
    rows = generate_ids(
        model,
        tokenizer,
        ids,
        max_new_tokens=room,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        n=sampling.n,
        seed=sampling.seed,
    )
    texts = [tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in rows]
    return [cut_at_stop(str(text), sampling.stop or []) for text in texts]


def generate_ids(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt_ids: list[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    n: int = 1,
    seed: int = 0,
) -> list[list[int]]:
    """Continue one prompt n times, by greedy choice (temperature 0) or by sampling; the end token stops and is cut off.

    Args:
        temperature: logits are divided by it. top_k: keep the k likeliest tokens, 0 for all. top_p: keep the smallest
            set of tokens whose probability reaches it (Holtzman et al. 2020, arXiv 1904.09751).
        seed: the same seed gives the same text on the same machine.
    """
    import torch
    from transformers import GenerationConfig

    if not prompt_ids:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if start is None:
            raise HoneError("the prompt is empty and the tokenizer has no start token", fix="give a prompt")
        prompt_ids = [start]
    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": top_p} if temperature > 0 else {}
    )
    end = tokenizer.eos_token_id
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_return_sequences=n if temperature > 0 else 1,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0),
        **sampling,
    )
    ids = torch.tensor([prompt_ids], device=model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    rows = [row[len(prompt_ids) :].tolist() for row in output]
    rows = [row[: row.index(end)] if end in row else row for row in rows]
    return rows if temperature > 0 else rows * n


def cut_at_stop(text: str, stop: list[str]) -> str:
    """The text before the first stop string.

    >>> cut_at_stop("a\\n\\ndef b", ["\\ndef ", "\\n\\n"])
    'a'
    """
    ends = [text.find(s) for s in stop if s and s in text]
    return text[: min(ends)] if ends else text
