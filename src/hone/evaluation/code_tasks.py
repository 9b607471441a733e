"""A model on programming tasks: answers generated, graded in boxes by the tests of the tasks, pass@k with its interval.

`measure` and `compare` are what a training does with `code_tasks`: eval/base.code.json, eval/tuned.code.json, the
answers beside them in eval/<name>.code.jsonl, and eval/compare.code.json. Where programs cannot be isolated, or the
boxes fail, nothing of this is measured, and it is said: that is never a verdict on the model.

>>> result, rows = evaluate_code("runs/light-lab", Path("HumanEval.jsonl.gz"), config)      # doctest: +SKIP
>>> result["pass_at_k"]["1"]["value"]                                                         # doctest: +SKIP
"""

import json
import logging
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.schema import Config
from hone.config.sections.generate import GenerateSection
from hone.errors import HoneError
from hone.evaluation.columns import code_line
from hone.files import write_text_atomic
from hone.grading.ask import solve, tasks_sha256
from hone.grading.sandbox import HarnessError, IsolationError
from hone.grading.tasks import Task, read_tasks
from hone.hardware import best_device
from hone.inference.generate import chosen_template, ready_model
from hone.runs import Run
from hone.statistics.intervals import Interval, detectable_share, mcnemar, ratio_interval, sign_flip

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.grading.sandbox.isolation import Isolation, Sandbox

# Boxes and grading are imported where they are used: they need Linux, and training does not.
log = logging.getLogger("hone")
Measured = tuple[dict[str, Any], list[dict[str, Any]]]  # eval/<name>.code.json, and a row for each answer
DRAWN = ("max_new_tokens", "temperature", "top_k", "top_p", "num_return_sequences", "sampling_seed", "stop")


def evaluate_code(name: str, path: Path, config: Config, isolation: "Isolation" = "strict") -> Measured:
    """`hone eval NAME --code-tasks PATH`: the numbers, and a row for each answer.

    Raises:
        IsolationError: programs cannot be run safely here; said before the model is loaded.
        HoneError: no such model or tasks; a box that fails; broken tests.
    """
    from hone.grading.sandbox.selftest import ready

    tasks = read_tasks(path)
    with ready(isolation) as box:
        model, tokenizer = ready_model(name)
        given = None if config.data.template == "auto" else config.data.template
        return graded(model, tokenizer, tasks, config.generate, chosen_template(name, given, tokenizer), box)


def graded(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: Sequence[Task],
    settings: GenerateSection,
    template: str,
    box: "Sandbox",
) -> Measured:
    """Generate, grade and count."""
    from hone.grading.grade import Result, Sample, grade, summary

    began = time.perf_counter()
    answers = solve(model, tokenizer, tasks, settings, template)
    n = settings.num_return_sequences
    asked = [Sample(task.task_id, text) for task in tasks for text in answers.get(task.task_id, ())]
    found = iter(grade(tasks, asked, sandbox=box))
    rows, results = [], []
    for task in tasks:
        unasked = Result(task.task_id, False, "no-room", "the prompt fills the model's window", box.isolation, "-", 0.0)
        for i, text in enumerate(answers.get(task.task_id, [""] * n)):
            result = next(found) if task.task_id in answers else unasked
            results.append(result)
            rows.append({"task_id": task.task_id, "sample": i, "completion": text, **asdict(result)})
    passed: dict[str, list[int]] = {task.task_id: [] for task in tasks}
    for result in results:
        passed[result.task_id].append(int(result.passed))
    limit = settings.max_new_tokens
    about = {
        "tasks_sha256": tasks_sha256(tasks),
        "template": template,
        "settings": {key: getattr(settings, key) for key in DRAWN},
    }
    return {
        **summary(results, tasks=tasks),
        "about": about,
        "n_at_limit": sum(_length(tokenizer, row["completion"]) >= limit - 1 for row in rows),
        "passed": passed,
        "seconds": round(time.perf_counter() - began, 2),
    }, rows


def _length(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    """Tokens of an answer, by spelling it again: it may have had a few more as it was generated."""
    return len(tokenizer.encode(text, add_special_tokens=False))


def rows_text(rows: Sequence[dict[str, Any]]) -> str:
    """JSON lines; `hone grade TASKS` takes them as samples, too."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ---- before and after ------------------------------------------------------------------------------------------------


def measure(
    run: Run,
    name: str,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: Sequence[Task],
    template: str,
    config: Config,
) -> None:
    """Write eval/<name>.code.json and eval/<name>.code.jsonl; nothing to do if they are there, or without tasks."""
    if not tasks or run.read_eval(f"{name}.code") is not None:
        return
    try:
        from hone.grading.sandbox.selftest import ready

        with ready("strict") as box:
            model.to(best_device(config.train.use_cpu))
            result, rows = graded(model, tokenizer, tasks, config.generate, template, box)
    except (IsolationError, HarnessError, ModuleNotFoundError) as error:  # the last on Windows
        command = ["hone", "eval", str(run.folder), "--code-tasks", str(config.eval.code_tasks)]
        later = f"afterwards: {shlex.join(command)}"
        log.warning("%s: the code tasks are not measured: %s\n  %s", name, error, later)
        return
    write_text_atomic(run.folder / "eval" / f"{name}.code.jsonl", rows_text(rows))
    run.write_eval(f"{name}.code", result)
    log.info("%s: %s", name, code_line(result))


def compare(run: Run, config: Config) -> None:
    """eval/compare.code.json, where both were measured, and on the same tasks in the same way."""
    base, tuned = run.read_eval("base.code"), run.read_eval("tuned.code")
    if base is None or tuned is None:
        return
    if base["about"] != tuned["about"]:
        log.warning("base and tuned were measured on other code tasks, or in another way: they are not compared")
        return
    confidence = config.eval.confidence_level
    run.write_eval("compare.code", paired(base["passed"], tuned["passed"], confidence, config.eval.bootstrap_resamples))


def paired(
    base: dict[str, list[int]], tuned: dict[str, list[int]], confidence: float = 0.95, resamples: int = 2000
) -> dict[str, Any]:
    """Tuned minus base share of passed answers, task by task: above 0 is better.

    Args:
        base, tuned: task_id -> 1 for each answer that passed, 0 for each that did not.

    One answer a task: McNemar's exact test; several: signs flipped by task. The verdict is the test's.
    """
    if base.keys() != tuned.keys():
        raise HoneError("base and tuned were measured on different tasks")
    before, after = (np.array([np.mean(found[task]) for task in base]) for found in (base, tuned))
    gained, lost, n = int((after > before).sum()), int((after < before).sum()), len(before)
    if all(len(found[task]) == 1 for found in (base, tuned) for task in base):
        p_value, test, change = mcnemar(lost, gained), "McNemar, exact", paired_shares(lost, gained, n, confidence)
    else:
        p_value, test = sign_flip(after - before, resamples=resamples), "sign flip over tasks"
        change = ratio_interval(after - before, np.ones(n), confidence=confidence, resamples=resamples)
        if not (gained or lost):  # resampling zeros would claim certainty
            change = paired_shares(0, 0, n, confidence)
    least = detectable_share(n, gained + lost, alpha=1 - confidence)
    certain = p_value < 1 - confidence and change.value != 0
    return {
        "pass_difference": change.value,
        "pass_difference_interval": None if change.low is None else [change.low, change.high],
        "only_tuned_better": gained,
        "only_base_better": lost,
        "p_value": p_value,
        "test": test,
        "detectable_difference": least if math.isfinite(least) else None,
        "n_items": n,
        "item": "task",
        "confidence_level": confidence,
        "verdict": "not distinguishable" if not certain else "better" if change.value > 0 else "worse",
    }


def paired_shares(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Interval:
    """B's share minus A's on n yes-or-no items, with an interval that is wide also where none differ.

    The adjusted Wald interval of Bonett and Price (2012, Journal of Educational and Behavioral Statistics 37).

    >>> [round(x, 3) for x in (paired_shares(0, 0, 20).low, paired_shares(0, 0, 20).high)]
    [-0.126, 0.126]
    """
    from scipy import stats

    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * math.sqrt((a + b - (b - a) ** 2) / (n + 2))
    return Interval((only_b - only_a) / n, max(b - a - half, -1.0), min(b - a + half, 1.0), n)
