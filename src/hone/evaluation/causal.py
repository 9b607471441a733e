"""A causal model on held-out documents: loss, perplexity, bits per byte, and a few greedy continuations."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.tokenizer import token_byte_lengths
from hone.data.views import TokenDataset
from hone.evaluation.generations import greedy, sample_prompts
from hone.evaluation.perplexity import ItemLosses, difference, item_losses, summarize
from hone.models.load import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def losses_of(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", validation: TokenDataset, config: Config
) -> ItemLosses:
    """Losses of each validation item, with the batch size of the config."""
    lengths = token_byte_lengths(tokenizer, vocabulary_size(tokenizer))
    return item_losses(model, validation, lengths, tokens_per_batch=config.eval.eval_tokens_per_batch)


def watch(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", validation: TokenDataset, config: Config
) -> dict[str, float]:
    """What evaluation during training reports: the loss of eval/*.json without resampling or generations."""
    return loss_and_perplexity(losses_of(model, tokenizer, validation, config))


def loss_and_perplexity(losses: ItemLosses) -> dict[str, float]:
    loss = float(losses.nll.sum() / losses.n_tokens.sum())
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def measure(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    validation: TokenDataset,
    config: Config,
    name: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of eval/<name>.json with a few greedy continuations, and the losses of each item."""
    settings = config.eval
    losses = losses_of(model, tokenizer, validation, config)
    prompts = sample_prompts(validation, tokenizer, settings.sample_prompts)
    texts = greedy(model, tokenizer, [ids for ids, _ in prompts], settings.sample_max_new_tokens)
    samples = [{**about, name: text} for (_, about), text in zip(prompts, texts, strict=True)]
    result = summarize(losses, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples)
    return {**result.as_dict(), "samples": samples}, losses.as_dict()


def compare_losses(base: dict[str, Any], tuned: dict[str, Any], config: Config) -> dict[str, Any]:
    """The paired difference of the losses of the same items, tuned minus base: below 0 is better."""
    settings = config.eval
    before, after = (
        ItemLosses(np.array(items["nll"]), np.array(items["n_tokens"]), np.array(items["n_bytes"]), items["kind"])
        for items in (base, tuned)
    )
    change = difference(before, after, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples)
    return {
        "loss_difference": change.value,
        "loss_difference_interval": None if change.low is None else [change.low, change.high],
        "n_items": change.n_items,
        "item": after.kind,
        "confidence_level": settings.confidence_level,
        "verdict": verdict(change.low, change.high),
    }


def verdict(low: float | None, high: float | None) -> str:
    """'better', 'worse' or 'not distinguishable', from the interval of the paired loss difference (tuned - base)."""
    if low is None or high is None:
        return "not distinguishable"
    return "better" if high < 0 else "worse" if low > 0 else "not distinguishable"
