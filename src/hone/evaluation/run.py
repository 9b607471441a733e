"""The same held-out items before and after: eval/base.json, eval/tuned.json, eval/compare.json, eval/samples.jsonl."""

import hashlib
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.data.dataset import Dataset
from hone.files import write_text_atomic
from hone.hardware import best_device
from hone.metrics.continuations import decode
from hone.models.inspect import check_vocabulary
from hone.runs import Run
from hone.show import with_bounds
from hone.statistics.paired import before_after
from hone.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("hone")


def measure(
    run: Run,
    name: str,
    model: "PreTrainedModel",
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    validation: Dataset,
    config: Config,
) -> None:
    """Write eval/<name>.json, and the numbers of each item beside it; nothing to do if they are there already."""
    if not len(validation):
        return
    if run.read_eval(name) is not None:
        return
    check_vocabulary(model, tokenizer)
    result, items = evaluate_model(model, task, tokenizer, validation, config, name)
    run.write_eval(f"{name}.items", {**items, "fingerprint": fingerprint(validation, task, tokenizer)})
    run.write_eval(name, result)
    log.info("%s: %s", name, describe(result))


def fingerprint(validation: Dataset, task: Task, tokenizer: "PreTrainedTokenizerBase") -> str:
    """SHA-256 of the items' texts, white space aside: the same whatever tokenizer cut them, if none cut them short."""
    seen = hashlib.sha256()
    starts = np.flatnonzero(np.diff(validation.documents, prepend=-1))  # the pieces of a document lie side by side
    for first, last in zip(starts, [*starts[1:], len(validation)], strict=True):
        pieces = [validation[i] for i in range(first, last)]
        texts = [decode(tokenizer, np.concatenate([piece["input_ids"] for piece in pieces]))]
        if (answer := task.answer(validation, int(first), tokenizer)) is not None:
            texts.append(answer)
        for text in texts:
            seen.update("".join(text.split()).encode("utf-8", "replace") + b"\0")
    return seen.hexdigest()


def evaluate_model(
    model: "PreTrainedModel",
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    validation: Dataset,
    config: Config,
    name: str = "model",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task's numbers with intervals and a few samples under the key `name`; and the numbers of each item."""
    began = time.perf_counter()
    model.to(best_device(config.train.use_cpu))
    result, items = task.measure(model, tokenizer, validation, config, name)
    return {**result, "seconds": round(time.perf_counter() - began, 2)}, items


def compare(run: Run, config: Config) -> None:
    """eval/compare.json: the paired difference on the same items; eval/samples.jsonl: the texts side by side."""
    base, tuned = run.read_eval("base"), run.read_eval("tuned")
    if base is None or tuned is None:
        return
    items = [run.read_eval(f"{name}.items") for name in ("base", "tuned")]
    assert items[0] and items[1], "eval/<name>.items.json is written before eval/<name>.json"
    settings = config.eval
    change = before_after(
        items[0], items[1], confidence=settings.confidence_level, resamples=settings.bootstrap_resamples
    )
    run.write_eval("compare", change)
    samples = [{**b, "tuned": t["tuned"]} for b, t in zip(base["samples"], tuned["samples"], strict=True)]
    lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
    write_text_atomic(run.folder / "eval" / "samples.jsonl", "".join(f"{line}\n" for line in lines))


def describe(result: dict[str, Any]) -> str:
    """'loss 3.12 [3.01, 3.24], perplexity 22.7 [20.3, 25.5], 1.42 bits per byte over 30 documents, 2,811 tokens'."""
    over = f"over {result['n_items']:,} {result['item']}s, {result['n_tokens']:,} tokens"
    if result.get("task") == "classification":
        return (
            f"accuracy {shown(result, 'accuracy', '.4f')}, macro F1 {shown(result, 'macro_f1', '.4f')}, "
            f"balanced accuracy {shown(result, 'balanced_accuracy', '.4f')}, loss {shown(result, 'loss', '.4f')} "
            f"{over} (always '{result['majority_class']}': accuracy {result['majority_accuracy']:.4f})"
        )
    told = (
        f"loss {shown(result, 'loss', '.4f')}, perplexity {shown(result, 'perplexity', ',.2f')}, "
        f"{result['bits_per_byte'] or math.nan:.4f} bits per byte {over}"
    )
    if "exact_match" in result:
        told += (
            f"; {result['n_written']} written: exact match {shown(result, 'exact_match', '.3f')}, "
            f"chrF {result['chrf']:.2f}, BLEU {result['bleu']:.2f}, ROUGE-L {shown(result, 'rouge_l', '.3f')}"
        )
    return told


def shown(result: dict[str, Any], key: str, form: str) -> str:
    """A value with its interval: '3.12 [3.01, 3.24]'."""
    return with_bounds(result[key], result[f"{key}_interval"], form, alone="[one item: no interval]")
