"""Public benchmarks by name, through the lm-eval package: a thin call, with an interval and a count for each number.

The model is loaded as everywhere here (a run, an adapter, a folder, a hub name) and handed over ready. lm-eval's cache
of answers is never used: it is not keyed by the model, so that base and tuned could share answers
(EleutherAI/lm-evaluation-harness#4063). It fetches the data of the tasks from the hub. Tasks that run generated code
are refused by it: `hone eval --code-tasks` runs code in a sandbox.

>>> evaluate_public("runs/light-lab", ["arc_easy"], config.eval).tasks["arc_easy"]["acc"]      # doctest: +SKIP
PublicScore(value=0.412, low=0.392, high=0.432, n_items=2376, higher_is_better=True)
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from scipy import stats

from hone.config.sections.eval import EvalSection
from hone.errors import HoneError, first_line
from hone.inference.generate import ready_model, trained_template
from hone.results import Estimate
from hone.results.benchmarks import PublicScore, PublicScores
from hone.statistics.intervals import wilson_interval

INSTALL = "pip install 'hone-lm[lm-eval]'"
BATCH_SIZE = 16


def evaluate_public(
    name: str,
    tasks: Sequence[str],
    settings: EvalSection,
    *,
    as_chat: bool = False,
    limit: int | None = None,
    num_fewshot: int | None = None,
) -> PublicScores:
    """lm-eval's numbers of the model `name` on its tasks.

    Args:
        as_chat: with the tokenizer's chat template; always so for a run that was trained with it.
        limit: only the first so many items of each task; such a number is no benchmark result.
        num_fewshot: examples before each question; None: as each task says.

    Raises:
        HoneError: lm-eval is not installed, knows no such task, or fails; no such model.
    """
    try:
        simple_evaluate = importlib.import_module("lm_eval").simple_evaluate
        wrapped = importlib.import_module("lm_eval.models.huggingface").HFLM
    except ModuleNotFoundError as error:
        raise HoneError(f"public benchmarks need the lm-eval package ({error})", fix=INSTALL) from error
    model, tokenizer = ready_model(name)
    as_chat = as_chat or trained_template(name) == "chat"
    try:
        found = simple_evaluate(
            model=wrapped(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE),
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            limit=limit,
            use_cache=None,
            cache_requests=False,
            log_samples=False,
            apply_chat_template=as_chat,
            confirm_run_unsafe_code=False,
        )
    except Exception as error:  # unknown names, no network, anything of a task's own code
        fix = "`lm-eval ls tasks` lists the names; the data of a task comes from the hub, once"
        raise HoneError(f"lm-eval: {first_line(error)}", where=", ".join(tasks), fix=fix) from error
    versions = {name: str(version) for name, version in found.get("versions", {}).items()}
    return PublicScores(
        tasks={task: _scores(task, found, settings.confidence_level) for task in found["results"]},
        versions={"lm-eval": metadata.version("lm-eval"), **versions},
        n_shot=found.get("n-shot", {}),
        chat_template=as_chat,
        limit=limit,
        confidence_level=settings.confidence_level,
    )


def _scores(task: str, found: Mapping[str, Any], confidence: float) -> dict[str, PublicScore]:
    """metric -> score, without an interval where lm-eval gives no standard error; of one task or group."""
    n = _n_items(task, found)
    better = found.get("higher_is_better", {}).get(task, {})
    scores = {}
    for key, value in found["results"][task].items():
        metric, _, filtered = key.partition(",")
        if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = found["results"][task].get(f"{metric}_stderr,{filtered}")
        score = interval_of(float(value), error if isinstance(error, int | float) else None, n, confidence)
        scores[metric if filtered == "none" else f"{metric} ({filtered})"] = PublicScore(
            value=score.value, low=score.low, high=score.high, n_items=n, higher_is_better=better.get(metric)
        )
    return scores


def _n_items(task: str, found: Mapping[str, Any]) -> int:
    """Items of a task, or of all tasks of a group."""
    counts = found.get("n-samples", {})
    if task in counts:
        return int(counts[task]["effective"])
    return sum(_n_items(inner, found) for inner in found.get("group_subtasks", {}).get(task, []))


def interval_of(value: float, error: float | None, n: int, confidence: float) -> Estimate:
    """An interval from a mean and its standard error over n items.

    A mean of yes-or-no items is known by its standard error, sqrt(p (1 - p) / (n - 1)), and gets Wilson's interval:
    0 right of 20 leaves room above 0. Anything else is taken as normal.

    >>> [round(x, 3) for x in interval_of(0.0, 0.0, 20, 0.95).bounds]
    [0.0, 0.161]
    """
    if error is None or not math.isfinite(error) or n < 2:
        return Estimate(value=value)
    if 0 <= value <= 1 and math.isclose(error, math.sqrt(value * (1 - value) / (n - 1)), rel_tol=1e-6, abs_tol=1e-12):
        return wilson_interval(round(value * n), n, confidence)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * error
    return Estimate(value=value, low=value - half, high=value + half)
