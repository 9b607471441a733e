"""The same held-out items before and after: eval/base.json, eval/tuned.json, eval/compare.json, eval/samples.jsonl."""

import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.tokenizer import token_byte_lengths
from hone.data.views import TokenDataset
from hone.evaluation.generations import greedy, sample_prompts
from hone.evaluation.perplexity import ItemLosses, difference, item_losses, summarize
from hone.files import write_text_atomic
from hone.models.load import best_device, check_vocabulary, vocabulary_size
from hone.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("hone")


def losses_of(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", validation: TokenDataset, config: Config
) -> ItemLosses:
    """Losses of each validation item, with the batch size of the config."""
    lengths = token_byte_lengths(tokenizer, vocabulary_size(tokenizer))
    return item_losses(model, validation, lengths, tokens_per_batch=config.eval.eval_tokens_per_batch)


def loss_only(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", validation: TokenDataset, config: Config
) -> dict[str, float]:
    """What evaluation during training reports: the loss of eval/*.json without resampling or generations."""
    losses = losses_of(model, tokenizer, validation, config)
    loss = float(losses.nll.sum() / losses.n_tokens.sum())
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def measure(
    run: Run,
    name: str,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    validation: TokenDataset,
    config: Config,
) -> None:
    """Write eval/<name>.json, and the losses of each item beside it; nothing to do if they are there already."""
    if not len(validation):
        return
    if run.read_eval(name) is not None:
        return
    check_vocabulary(model, tokenizer)
    result, losses = evaluate_model(model, tokenizer, validation, config, name)
    items = {"nll": losses.nll.tolist(), "n_tokens": losses.n_tokens.tolist(), "n_bytes": losses.n_bytes.tolist()}
    run.write_eval(f"{name}.items", {"kind": losses.kind, **items})
    run.write_eval(name, result)
    log.info("%s: %s", name, describe_loss(result))


def evaluate_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    validation: TokenDataset,
    config: Config,
    name: str = "model",
) -> tuple[dict[str, Any], ItemLosses]:
    """Perplexity with intervals, and a few greedy continuations under the key `name`."""
    settings = config.eval
    began = time.perf_counter()
    model.to(best_device(config.train.use_cpu))
    losses = losses_of(model, tokenizer, validation, config)
    prompts = sample_prompts(validation, tokenizer, settings.sample_prompts)
    texts = greedy(model, tokenizer, [ids for ids, _ in prompts], settings.sample_max_new_tokens)
    samples = [{**about, name: text} for (_, about), text in zip(prompts, texts, strict=True)]
    result = summarize(losses, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples)
    return {**result.as_dict(), "samples": samples, "seconds": round(time.perf_counter() - began, 2)}, losses


def compare(run: Run, config: Config) -> None:
    """eval/compare.json: the paired difference on the same items; eval/samples.jsonl: the texts side by side."""
    base, tuned = run.read_eval("base"), run.read_eval("tuned")
    if base is None or tuned is None:
        return
    settings = config.eval
    change = difference(
        _read_items(run, "base"),
        _read_items(run, "tuned"),
        confidence=settings.confidence_level,
        resamples=settings.bootstrap_resamples,
    )
    run.write_eval(
        "compare",
        {
            "loss_difference": change.value,
            "loss_difference_interval": None if change.low is None else [change.low, change.high],
            "n_items": change.n_items,
            "item": tuned["item"],
            "confidence_level": settings.confidence_level,
            "verdict": verdict(change.low, change.high),
        },
    )
    samples = [{**b, "tuned": t["tuned"]} for b, t in zip(base["samples"], tuned["samples"], strict=True)]
    lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
    write_text_atomic(run.folder / "eval" / "samples.jsonl", "".join(f"{line}\n" for line in lines))


def _read_items(run: Run, name: str) -> ItemLosses:
    items = run.read_eval(f"{name}.items")
    assert items is not None, f"eval/{name}.items.json is written before eval/{name}.json"
    return ItemLosses(np.array(items["nll"]), np.array(items["n_tokens"]), np.array(items["n_bytes"]), items["kind"])


def verdict(low: float | None, high: float | None) -> str:
    """'better', 'worse' or 'not distinguishable', from the interval of the paired loss difference (tuned - base)."""
    if low is None or high is None:
        return "not distinguishable"
    return "better" if high < 0 else "worse" if low > 0 else "not distinguishable"


def describe_loss(result: dict[str, Any]) -> str:
    """'loss 3.12 [3.01, 3.24], perplexity 22.7 [20.3, 25.5], 1.42 bits per byte over 30 documents, 2,811 tokens'."""
    return (
        f"loss {shown(result, 'loss', '.4f')}, perplexity {shown(result, 'perplexity', ',.2f')}, "
        f"{result['bits_per_byte'] or math.nan:.4f} bits per byte over "
        f"{result['n_items']:,} {result['item']}s, {result['n_tokens']:,} tokens"
    )


def shown(result: dict[str, Any], key: str, form: str) -> str:
    """A value with its interval: '3.12 [3.01, 3.24]'."""
    interval = result[f"{key}_interval"]
    bounds = f"[{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "[one item: no interval]"
    return f"{result[key]:{form}} {bounds}"
