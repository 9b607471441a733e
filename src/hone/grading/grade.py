"""Samples of a model graded by the tests of their tasks: in sandboxes, in parallel, each distinct program once.

A sample is {task_id, completion}: a continuation of the prompt (HumanEval's contract) or a chat answer, from which the
program is taken (`extract.py`); or {task_id, solution}: a whole program, taken as it is. A time-out is believed only
when the program, alone, runs out of time again; where the task has a reference, the time allowed is at least four
times what that takes. A sandbox that fails or tests that are broken end the grading: they are never a verdict.

>>> results = grade(read_tasks(path), [{"task_id": "add", "completion": "    return a + b"}])      # doctest: +SKIP
>>> summary(results).pass_at_k[1].estimate      # doctest: +SKIP
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hone.data.sources import read_rows
from hone.errors import HoneError
from hone.files import write_text_atomic
from hone.grading.extract import programs_of
from hone.grading.pass_at_k import pass_rates
from hone.grading.sandbox import HarnessError
from hone.grading.sandbox.isolation import Isolation, Sandbox
from hone.grading.sandbox.selftest import ready
from hone.grading.sandbox.verdict import Exam, ForeignArgument, Outcome, judge, together
from hone.grading.tasks import Task
from hone.hardware import count_cpus, read_cgroup
from hone.processes import on_this_machine
from hone.results import write
from hone.results.benchmarks import CodeMeasurement, PassAtK

TIMEOUT_S = 3.0
REFERENCE_FACTOR = 4.0
REFERENCE_S = 60.0  # the longest a reference may take
SAMPLE = "a sample has task_id and completion (what the model wrote after the prompt) or solution (a whole program)"
Job = tuple[str, tuple[str, ...]]  # a task's id, and the programs to try, best first


@dataclass(frozen=True)
class Sample:
    """One answer: `text` is a whole program if `whole`, else what the model wrote after the prompt."""

    task_id: str
    text: str
    whole: bool = False
    where: str | None = None


@dataclass(frozen=True)
class Result:
    """One graded sample. `detail` quotes the program: escape it where it is printed.

    index: the sample's place among the samples, from 0. program: what was run, as it was taken out of the answer.
    """

    index: int
    task_id: str
    passed: bool
    verdict: str
    detail: str
    isolation: str
    trust: str
    seconds: float
    program: str


def grade(
    tasks: Sequence[Task],
    samples: Sequence[Sample | Mapping[str, Any]],
    *,
    isolation: Isolation = "strict",
    timeout: float = TIMEOUT_S,
    workers: int | None = None,
    sandbox: Sandbox | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Grade samples; results in their order.

    Args:
        isolation: "strict" refuses where programs cannot be isolated; "none" runs them as the user.
        timeout: seconds a program may compute, for all tests of its task.
        workers: programs at a time; default: one more than the processors.
        sandbox: of `hone.grading.sandbox.selftest.ready`, to share its start-up check between calls.
        on_result: called once for each distinct program with the result of its first sample, time-outs last.

    Raises:
        HoneError: a sample that is none, or of no task; a sandbox that fails; broken tests.
    """
    if not timeout > 0:
        raise HoneError(f"a time limit of {timeout} s", fix="give a positive number of seconds")
    by_id = {task.task_id: task for task in tasks}
    read = [_checked(sample if isinstance(sample, Sample) else as_sample(sample), by_id) for sample in samples]
    jobs: list[Job] = [
        (s.task_id, (s.text,) if s.whole else tuple(programs_of(by_id[s.task_id], s.text))) for s in read
    ]
    with ExitStack() as stack:
        if sandbox is None:
            sandbox = stack.enter_context(ready(isolation))
        count = workers or default_workers()
        grader = Grader(sandbox, timeout)
        pool = stack.enter_context(closing_pool(count))
        waiting: dict[Job, Future[Outcome]] = {}
        first: dict[Job, int] = {}
        for index, job in enumerate(jobs):
            if job not in waiting:
                waiting[job], first[job] = pool.submit(grader.first, by_id[job[0]], job[1]), index
        outcomes = {}
        for job, future in waiting.items():
            outcomes[job] = future.result()
            if on_result and outcomes[job].verdict != "timeout":
                on_result(_result(first[job], job, outcomes[job], sandbox))
        for job, outcome in outcomes.items():  # nothing else runs now
            if outcome.verdict == "timeout":
                outcomes[job] = grader.again(by_id[job[0]], job[1])
                if on_result:
                    on_result(_result(first[job], job, outcomes[job], sandbox))
        return [_result(index, job, outcomes[job], sandbox) for index, job in enumerate(jobs)]


def _result(index: int, job: Job, outcome: Outcome, sandbox: Sandbox) -> Result:
    task_id, programs = job
    passed, seconds = outcome.verdict == "pass", round(outcome.seconds, 4)
    how = (outcome.verdict, outcome.detail, sandbox.isolation, outcome.trust, seconds)
    return Result(index, task_id, passed, *how, programs[outcome.chosen])


def default_workers() -> int:
    """One more than this process's share of the processors: a sandbox waits a little while it is set up."""
    return max(1, int(count_cpus(read_cgroup().cpus).usable) // on_this_machine()) + 1


@contextmanager
def closing_pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that start nothing more once something has gone wrong."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="grade")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class Grader:
    """Outcomes of programs in one kind of sandbox; remembers what the references of the tasks showed."""

    def __init__(self, sandbox: Sandbox, timeout: float) -> None:
        self.sandbox, self.timeout = sandbox, timeout
        self.lock = threading.Lock()
        self.references: dict[str, Future[Outcome]] = {}

    def first(self, task: Task, programs: Sequence[str]) -> Outcome:
        """The outcome within the plain time limit."""
        return self.attempt(task, programs, self.timeout)

    def again(self, task: Task, programs: Sequence[str]) -> Outcome:
        """A second try for a program that ran out of time while others ran too."""
        seconds = self.timeout
        if task.reference is not None:
            seconds = max(seconds, REFERENCE_FACTOR * self.reference(task).seconds)
        return self.attempt(task, programs, seconds)

    def attempt(self, task: Task, programs: Sequence[str], seconds: float) -> Outcome:
        outcome = self.run(task, programs, seconds)
        if outcome.verdict != "unsupported-type" or task.reference is None:
            return outcome
        # A right answer may be an object that does not travel: then the reference's does not either.
        if self.reference(task).trust == "same-process":
            return self.run_together(task, programs, seconds)
        return outcome

    def run(self, task: Task, programs: Sequence[str], seconds: float) -> Outcome:
        if not task.together:
            try:
                return self.placed(task, judge, programs, seconds)
            except ForeignArgument:
                pass
        return self.run_together(task, programs, seconds)

    def run_together(self, task: Task, programs: Sequence[str], seconds: float) -> Outcome:
        """In one process a program can break the tests: where the reference does not, it was the program."""
        try:
            return self.placed(task, together, programs, seconds)
        except HarnessError as error:
            if task.reference is None or list(programs) == [task.reference]:
                raise
            self.reference(task)
            return Outcome("exception", f"it breaks the tests: {error.what}", "same-process", 0.0)

    def placed(self, task: Task, how: Callable[..., Outcome], programs: Sequence[str], seconds: float) -> Outcome:
        """One run; a failure of the harness names the task."""
        try:
            return how(self.sandbox, Exam(task.calls, task.tests, task.setup), programs, seconds)
        except HarnessError as error:
            fix = error.fix or "no verdict was given; this is about the tests or the machine, not about the model"
            raise HarnessError(f"task '{task.task_id}': {error.what}", where=task.where, fix=fix) from error

    def reference(self, task: Task) -> Outcome:
        """The outcome of a task's own solution, found once; it has to pass."""
        with self.lock:
            known = self.references.get(task.task_id)
            future = known or self.references.setdefault(task.task_id, Future())
        if known is None:
            try:
                future.set_result(self._run_reference(task))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _run_reference(self, task: Task) -> Outcome:
        assert task.reference is not None
        outcome = self.run(task, [task.reference], REFERENCE_S)
        if outcome.verdict == "unsupported-type":
            outcome = self.placed(task, together, [task.reference], REFERENCE_S)
        if outcome.verdict != "pass":
            what = f"task '{task.task_id}': its own solution does not pass: {outcome.verdict} ({outcome.detail})"
            raise HarnessError(what, where=task.where, fix="repair the task, or leave it out")
        return outcome


# --- samples and results --------------------------------------------------------------------------------------------


def as_sample(columns: Mapping[str, Any], where: str | None = None) -> Sample:
    """One row as a sample.

    Raises:
        HoneError: it is none.
    """
    texts = {name: columns[name] for name in ("completion", "solution") if columns.get(name) is not None}
    if columns.get("task_id") is None or len(texts) != 1 or not all(isinstance(text, str) for text in texts.values()):
        raise HoneError(f"no sample: the columns are {', '.join(map(str, columns))}", where=where, fix=SAMPLE)
    ((name, text),) = texts.items()
    return Sample(str(columns["task_id"]), text, name == "solution", where)


def _checked(sample: Sample, by_id: Mapping[str, Task]) -> Sample:
    if sample.task_id not in by_id:
        some = ", ".join(list(by_id)[:3])
        what = f"no task has the task_id '{sample.task_id[:80]}'"
        raise HoneError(what, where=sample.where, fix=f"the tasks are {some}{' …' if len(by_id) > 3 else ''}")
    return sample


def read_samples(path: Path) -> list[Sample]:
    """All samples of a file.

    Raises:
        HoneError: a row that is none, with file and line; no rows.
    """
    rows = read_rows([path], on_bad_row="error", on_skip=lambda reason, where: None)
    samples = [as_sample(row.columns, row.where) for row in rows]
    if not samples:
        raise HoneError("no samples", where=str(path), fix=SAMPLE)
    return samples


def references(tasks: Iterable[Task]) -> list[Sample]:
    """The tasks' own solutions as samples: all must pass, or the tasks are not fit for use."""
    return [Sample(task.task_id, task.reference, True, task.where) for task in tasks if task.reference is not None]


def results_path(samples: Path) -> Path:
    """`samples.jsonl` -> `samples_results.jsonl`, also for `samples.jsonl.gz`."""
    name = samples.name.removesuffix(".gz")
    return samples.with_name(f"{name[: -len(Path(name).suffix)] if Path(name).suffix else name}_results.jsonl")


def write_results(path: Path, results: Iterable[Result], found: CodeMeasurement) -> None:
    """One JSON object a line, in the samples' order, and what they say together beside it as .json; each file whole."""
    write_text_atomic(path, "".join(json.dumps(asdict(result)) + "\n" for result in results))
    write(path.with_suffix(".json"), found)


def summary(results: Sequence[Result], ks: Iterable[int] = (1, 10, 100), tasks: Sequence[Task] = ()) -> CodeMeasurement:
    """pass@k with intervals over tasks, counts of verdicts, and what was graded how.

    Args:
        ks: those for which every task has too few samples are left out, but for 1.
        tasks: all of them, to count those without a sample.
    """
    passed = _by_task(results)
    wanted = [k for k in sorted(set(ks)) if k == 1 or any(len(each) >= k for each in passed.values())]
    by_trust = {
        trust: _pass_rates(_by_task([r for r in results if r.trust == trust]), wanted)
        for trust in sorted({result.trust for result in results})
    }
    return CodeMeasurement(
        pass_at_k=_pass_rates(passed, wanted),
        pass_at_k_by_trust=by_trust,
        verdicts=dict(Counter(result.verdict for result in results).most_common()),
        trust=dict(Counter(result.trust for result in results).most_common()),
        isolation=sorted({result.isolation for result in results}),
        passed=passed,
        n_samples=len(results),
        n_tasks=len(passed),
        tasks_without_samples=[task.task_id for task in tasks if task.task_id not in passed],
        confidence_level=0.95,
    )


def _by_task(results: Iterable[Result]) -> dict[str, list[bool]]:
    """task_id -> whether each of its samples passed."""
    found: dict[str, list[bool]] = {}
    for result in results:
        found.setdefault(result.task_id, []).append(result.passed)
    return found


def _pass_rates(passed: Mapping[str, list[bool]], ks: Iterable[int]) -> dict[int, PassAtK]:
    return pass_rates([(len(each), sum(each)) for each in passed.values()], ks)
