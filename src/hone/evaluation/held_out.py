"""The same held-out items before and after: eval/base.json, eval/tuned.json, eval/compare.json, eval/samples.jsonl."""

import hashlib
import json
import logging
import time

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.schema import Config
from hone.data.dataset import Dataset
from hone.errors import HoneError
from hone.evaluation.bench import Bench
from hone.files import write_text_atomic
from hone.hardware import best_device
from hone.metrics.continuations import decode
from hone.models.inspect import check_vocabulary
from hone.processes import from_primary
from hone.results import Items, Measurement, side_by_side
from hone.runs import Run
from hone.show import measurement_line
from hone.statistics.paired import compare_items
from hone.tasks.task import Task

log = logging.getLogger("hone")


def measure(bench: Bench, name: str, model: PreTrainedModel) -> None:
    """Write eval/<name>.json and eval/<name>.items.json; nothing to do if they are there already."""
    run, task, tokenizer, validation = bench.run, bench.task, bench.tokenizer, bench.data.validation
    if not len(validation) or from_primary(lambda: run.has(name)):
        return
    check_vocabulary(model, tokenizer)
    result, items = evaluate_model(model, task, tokenizer, validation, bench.config)
    from_primary(lambda: _write(bench, name, result, items))
    log.info("%s: %s", name, measurement_line(result))


def _write(bench: Bench, name: str, result: Measurement, items: Items) -> None:
    seen = fingerprint(bench.data.validation, bench.task, bench.tokenizer)
    bench.run.write(f"{name}.items", items.model_copy(update={"fingerprint": seen}))
    bench.run.write(name, result)


def fingerprint(validation: Dataset, task: Task, tokenizer: PreTrainedTokenizerBase) -> str:
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
    model: PreTrainedModel, task: Task, tokenizer: PreTrainedTokenizerBase, validation: Dataset, config: Config
) -> tuple[Measurement, Items]:
    """The task's numbers with intervals and a few samples; and the numbers of each item."""
    began = time.perf_counter()
    model.to(best_device(config.train.use_cpu))
    result, items = task.measure(model, tokenizer, validation, config.eval)
    return result.model_copy(update={"seconds": round(time.perf_counter() - began, 2)}), items


def _items(run: Run, name: str) -> Items:
    found = run.read(Items, f"{name}.items")
    if found is None:  # it is written before eval/<name>.json, which is there
        fix = f"put it back, or remove {run.file_of(name)} as well"
        raise HoneError("the file is missing", where=str(run.file_of(f"{name}.items")), fix=fix)
    return found


def compare(bench: Bench) -> None:
    """eval/compare.json: the paired difference on the same items; eval/samples.jsonl: the texts side by side."""
    run, settings = bench.run, bench.config.eval
    base, tuned = run.base, run.tuned
    if base is None or tuned is None:
        return
    before, after = (_items(run, name) for name in ("base", "tuned"))
    change = compare_items(before, after, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples)
    run.write("compare", change)
    lines = [json.dumps(pair.model_dump(), ensure_ascii=False) for pair in side_by_side(base, tuned)]
    write_text_atomic(run.folder / "eval" / "samples.jsonl", "".join(f"{line}\n" for line in lines))
