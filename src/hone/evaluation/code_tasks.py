"""A model on programming tasks: answers generated, graded in a sandbox by the tasks' own tests, pass@k.

`measure` and `compare` are what a training does with `code_tasks`: eval/base.code.json, eval/tuned.code.json, the
answers in eval/<name>.code.jsonl, and eval/compare.code.json. Where programs cannot be isolated, or the sandbox fails,
nothing of this is measured, and that is logged: it is never a verdict on the model.

>>> result, rows = evaluate_code("runs/light-lab", Path("HumanEval.jsonl.gz"), GenerateSection())      # doctest: +SKIP
>>> result.pass_at_k[1].estimate.value                                                                  # doctest: +SKIP
"""

import json
import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.sections.generate import GenerateSection
from hone.evaluation.bench import Bench
from hone.files import write_text_atomic
from hone.grading.ask import solve, tasks_sha256
from hone.grading.pass_at_k import passed_items
from hone.grading.sandbox import HarnessError, IsolationError
from hone.grading.tasks import Task, read_tasks, tasks_of
from hone.hardware import best_device
from hone.inference.generate import chosen_template, ready_model
from hone.processes import everybodys, from_primary, shared
from hone.results.benchmarks import CodeMeasurement, CodeSetup, Sampling
from hone.runs import Run
from hone.show import code_line
from hone.statistics.paired import compare_items

if TYPE_CHECKING:
    from hone.grading.sandbox.isolation import Isolation, Sandbox

# The sandbox and grading are imported where they are used: they need Linux, and training does not.
log = logging.getLogger("hone")
Row = dict[str, Any]  # of an answer: task_id, sample, completion and the fields of `grading.grade.Result`
Measured = tuple[CodeMeasurement, list[Row]]


def evaluate_code(
    name: str,
    path: Path,
    settings: GenerateSection,
    *,
    template: str | None = None,
    isolation: "Isolation" = "strict",
) -> Measured:
    """`hone eval NAME --code-tasks PATH`: the numbers, and a row for each answer.

    Args:
        template: how tasks are formatted; None: as the model was trained.

    Raises:
        IsolationError: programs cannot be run safely here; known before the model is loaded.
        HoneError: no such model or tasks; a sandbox that fails; broken tests.
    """
    from hone.grading.sandbox.selftest import ready

    tasks = read_tasks(path)
    with ready(isolation) as sandbox:
        model, tokenizer = ready_model(name)
        return graded(model, tokenizer, tasks, settings, chosen_template(name, template, tokenizer), sandbox)


def graded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    settings: GenerateSection,
    template: str,
    sandbox: "Sandbox",
) -> Measured:
    """Generate, grade and count; of several processes each does its share of the tasks, in its own sandbox."""
    from hone.grading.grade import Result, Sample, grade, summary

    def verdicts(mine: Sequence[Task]) -> list[list[Row]]:
        """Of each task's answers; none for a task that was not asked."""
        asked = [Sample(task.task_id, text) for task in mine for text in answers.get(task.task_id, ())]
        found = iter(grade(mine, asked, sandbox=sandbox))
        return [[asdict(next(found)) for _ in answers.get(task.task_id, ())] for task in mine]

    began = time.perf_counter()
    answers = solve(model, tokenizer, tasks, settings, template)
    n = settings.num_return_sequences
    found = shared(tasks, verdicts, mistakes=(HarnessError,))
    rows: list[Row] = []
    graded_samples = []
    for task, of_task in zip(tasks, found, strict=True):
        why = ("no-room", "the prompt fills the model's window", sandbox.isolation, "-", 0.0, "")
        unasked = Result(-1, task.task_id, False, *why)
        for i, text in enumerate(answers.get(task.task_id, [""] * n)):
            result = replace(Result(**of_task[i]) if of_task else unasked, index=len(rows))
            graded_samples.append(result)
            rows.append({"task_id": task.task_id, "sample": i, "completion": text, **asdict(result)})
    limit = settings.max_new_tokens
    drawn = Sampling.model_validate({key: getattr(settings, key) for key in Sampling.model_fields})
    more = {
        "about": CodeSetup(tasks_sha256=tasks_sha256(tasks), template=template, settings=drawn),
        "n_at_limit": sum(_length(tokenizer, row["completion"]) >= limit - 1 for row in rows),
        "seconds": round(time.perf_counter() - began, 2),
    }
    return summary(graded_samples, tasks=tasks).model_copy(update=more), rows


def _length(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Tokens of an answer, by tokenizing it again: it may have had a few more as it was generated."""
    return len(tokenizer.encode(text, add_special_tokens=False))


def rows_text(rows: Sequence[Row]) -> str:
    """JSON lines; `hone grade TASKS` takes them as samples, too."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ---- before and after ------------------------------------------------------------------------------------------------


def measure(bench: Bench, name: str, model: PreTrainedModel) -> None:
    """Write eval/<name>.code.json and eval/<name>.code.jsonl; nothing to do if they are there, or without tasks."""
    run, config, tasks = bench.run, bench.config, tasks_of(bench.config.eval.code_tasks, bench.config.where)
    if not tasks or from_primary(lambda: run.has(f"{name}.code")):
        return
    try:
        with _sandbox_of_each() as sandbox:
            model.to(best_device(config.train.use_cpu))
            result, rows = graded(model, bench.tokenizer, tasks, config.generate, bench.data.template, sandbox)
    except (IsolationError, HarnessError) as error:
        command = ["hone", "eval", str(run.folder), "--code-tasks", str(config.eval.code_tasks)]
        later = f"afterwards: {shlex.join(command)}"
        log.warning("%s: the code tasks are not measured: %s\n  %s", name, error, later)
        return
    from_primary(lambda: _write(run, name, result, rows))
    log.info("%s: %s", name, code_line(result))


@contextmanager
def _sandbox_of_each() -> Iterator["Sandbox"]:
    """A sandbox in each process, or in none of them.

    Raises:
        IsolationError: one of them has none.
    """
    from hone.grading.sandbox.selftest import ready

    with ExitStack() as stack:
        opened: list[Sandbox] = []
        everybodys(lambda: opened.append(stack.enter_context(ready("strict"))), mistakes=(IsolationError,))
        yield opened[0]


def _write(run: Run, name: str, result: CodeMeasurement, rows: Sequence[Row]) -> None:
    write_text_atomic(run.folder / "eval" / f"{name}.code.jsonl", rows_text(rows))
    run.write(f"{name}.code", result)


def compare(bench: Bench) -> None:
    """eval/compare.code.json, where both were measured, and on the same tasks in the same way."""
    run, settings = bench.run, bench.config.eval
    base, tuned, _ = run.code()
    if base is None or tuned is None:
        return
    if base.about != tuned.about:
        log.warning("base and tuned were measured on other code tasks, or in another way: they are not compared")
        return
    before, after = (passed_items({task: found.passed[task] for task in base.passed}) for found in (base, tuned))
    change = compare_items(before, after, confidence=settings.confidence_level, resamples=settings.bootstrap_resamples)
    run.write("compare.code", change)
