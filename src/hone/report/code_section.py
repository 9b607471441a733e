"""The section of graded programs: how many pass, which ones, and a few of them to read with what their tests say."""

from collections.abc import Sequence
from typing import TypeVar

from hone.report.blocks import Block, Grid, Mark, Sample, Samples, Section, Table, Text
from hone.report.folder import Answer, Folder
from hone.report.paths import shown
from hone.report.text import differences, estimate, p_text, shortened
from hone.results import Comparison
from hone.results.benchmarks import CodeMeasurement
from hone.show import plural

CODE = "Generated code, by its unit tests"
SHOWN = 3  # programs of each kind: newly passing, no longer passing, still failing
FOLDED = 200  # newly passing programs that can be looked up in the page
BOTH = {"●": "both pass", "+": "only tuned passes", "−": "only base passes", "·": "none passes"}
ALONE = {"●": "passes", "·": "fails"}
T = TypeVar("T")


def code(folder: Folder) -> Section | None:
    """Programs graded by unit tests: pass and fail of each task, base and tuned."""
    if not folder.code:
        wanted = folder.config.eval.code_tasks if folder.config else None
        if not wanted or folder.status.get("status") != "finished":
            return None
        why = f"The tasks of {shown(wanted, folder.path)} were not run; train.log says why."
        return Section(CODE, [Text(f"{why} `hone eval RUN --code-tasks FILE` runs them.")])
    rows = []
    for name, found in folder.code.items():
        rate = found.pass_at_k[1].estimate if 1 in found.pass_at_k else None
        failed = [(verdict, count) for verdict, count in found.verdicts.items() if verdict != "pass"]
        why = ", ".join(f"{count:,} {verdict}" for verdict, count in failed[:5])
        passed = f"{found.verdicts.get('pass', 0):,} of {found.n_samples:,}"
        rows.append([name, estimate(rate, ".3f"), passed, f"{found.n_tasks:,}", why or "–"])
    caption = "pass@1: the share of tasks that one program solves; in brackets 95% intervals over tasks."
    blocks: list[Block] = [
        Table(["", "pass@1", "programs that pass", "tasks", "why the others do not"], rows, "lrrrl", caption)
    ]
    if folder.code_comparison:
        blocks.append(Text(_difference(folder.code_comparison)))
    alone = dict(folder.code)
    if {"base", "tuned"} <= set(alone):
        blocks += _pair(alone.pop("base"), alone.pop("tuned"))
        blocks += _programs(folder)
    for name, found in alone.items():
        marks = {task: "●" if any(passed) else "·" for task, passed in found.passed.items()}
        blocks += [Text(f"{name}:"), _grid(marks, ALONE)]
    return Section(CODE, blocks)


def _difference(found: Comparison) -> str:
    """The paired difference of the pass rates, with its test."""
    change = found.metrics[found.headline]
    size = estimate(change.difference, f"+{change.kind.form}")
    newly = "" if change.only_b is None else f"{change.only_b:,} newly right, {change.only_a:,} newly wrong; "
    return f"{change.kind.heading}, tuned − base, paired: {size} ({newly}{change.test}, p {p_text(change.p_adjusted)})."


def _marks(base: CodeMeasurement, tuned: CodeMeasurement) -> dict[str, str]:
    """task_id -> its mark, of the tasks that both were given."""
    marks = {}
    for task in (task for task in tuned.passed if task in base.passed):
        before, after = any(base.passed[task]), any(tuned.passed[task])
        marks[task] = "●" if before and after else "+" if after else "−" if before else "·"
    return marks


def _pair(base: CodeMeasurement, tuned: CodeMeasurement) -> list[Block]:
    marks = _marks(base, tuned)
    both, gained, lost, none = (sum(mark == one for mark in marks.values()) for one in BOTH)
    table = Table(
        ["", "tuned passes", "tuned fails"],
        [["base passes", f"{both}", f"{lost}"], ["base fails", f"{gained}", f"{none}"]],
        caption=f"{len(marks):,} tasks that both were given; a task passes if one of its programs does.",
        shades=[[None, *(count / max(len(marks), 1) for count in row)] for row in ((both, lost), (gained, none))],
    )
    return [table, _grid(marks, BOTH)]


def _grid(marks: dict[str, str], legend: dict[str, str]) -> Grid:
    return Grid([(mark, task) for task, mark in marks.items()], legend)


# ---- programs to read ------------------------------------------------------------------------------------------------


def _programs(folder: Folder) -> list[Block]:
    """Some programs of each kind, spread over the tasks; and all that newly pass, to be looked up."""
    answers = {name: first_answers(found) for name, found in folder.answers.items()}
    if not {"base", "tuned"} <= set(answers):
        return []
    marks = _marks(folder.code["base"], folder.code["tuned"])
    of_mark = {mark: [task for task, one in marks.items() if one == mark and _has(answers, task)] for mark in BOTH}
    blocks: list[Block] = []
    for mark, title in (("+", "newly passing"), ("−", "no longer passing"), ("·", "still failing")):
        tasks = of_mark[mark]
        if tasks:
            some = spread(tasks, SHOWN)
            heading = f"{title.capitalize()}: {len(some)} of {plural(len(tasks), 'task')}"
            blocks.append(Samples([_sample(folder, answers, task) for task in some], heading))
    if len(of_mark["+"]) > SHOWN:
        newly = of_mark["+"][:FOLDED]
        title = f"All {len(newly)} newly passing programs"
        blocks.append(Samples([_sample(folder, answers, task, ["tuned"]) for task in newly], title, folded=True))
    blocks.append(Text("Every program with its verdict: eval/base.code.jsonl and eval/tuned.code.jsonl."))
    return blocks


def first_answers(found: Sequence[Answer]) -> dict[str, Answer]:
    """One answer of each task: the first that passes, else the first."""
    first: dict[str, Answer] = {}
    for answer in found:
        if answer.task_id not in first or (answer.passed and not first[answer.task_id].passed):
            first[answer.task_id] = answer
    return first


def _has(answers: dict[str, dict[str, Answer]], task: str) -> bool:
    return all(task in answers[name] for name in ("base", "tuned"))


def _sample(folder: Folder, answers: dict[str, dict[str, Answer]], task: str, names: Sequence[str] = ()) -> Sample:
    found = {name: answers[name][task] for name in names or ("base", "tuned")}
    prompt = shortened(folder.tasks[task].prompt) if task in folder.tasks else ""
    texts = {name: shortened(answer.text) for name, answer in found.items()}
    pieces = {name: [(text, False)] for name, text in texts.items()}
    if len(texts) == 2:
        pieces["base"], pieces["tuned"] = differences(texts["base"], texts["tuned"])
    return Sample(task, prompt, None, pieces, {name: mark_of(answer) for name, answer in found.items()})


def mark_of(answer: Answer) -> Mark:
    """'passes', or 'fails' with the test or the error."""
    if answer.passed:
        return Mark("passes", True)
    why = answer.detail or answer.verdict
    return Mark(f"fails: {why[:300]}", False)


def spread(items: Sequence[T], n: int) -> list[T]:
    """At most n of them, evenly spaced, the first and the last among them.

    >>> spread("abcde", 3)
    ['a', 'c', 'e']
    """
    if len(items) <= n:
        return list(items)
    return [items[round(i * (len(items) - 1) / (n - 1))] for i in range(n)]
