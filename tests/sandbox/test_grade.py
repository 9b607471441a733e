"""Samples to results: order, cache, time-outs tried again, references, broken tests, files, the command."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import SHARED
from hone.cli import app
from hone.data.sources import read_rows
from hone.errors import HoneError
from hone.grading import grade as grading
from hone.grading.grade import Sample, as_sample, grade, read_samples, results_path, summary, write_results
from hone.grading.sandbox import HarnessError
from hone.grading.sandbox.isolation import Sandbox
from hone.grading.sandbox.verdict import Exam, Outcome
from hone.grading.tasks import Task, as_task, read_tasks
from hone.results import json_text, read
from hone.results.benchmarks import CodeMeasurement

ROWS: list[dict[str, Any]] = [
    {
        "task_id": "add",
        "prompt": "def add(a, b):\n    '''Add.'''\n",
        "entry_point": "add",
        "tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
        "reference": "    return a + b\n",
    },
    {
        "task_id": "match",
        "prompt": "Write a function that finds an a.",
        "code": "import re\ndef find(x):\n    return re.search('a', x)\n",
        "test_list": ["assert find('bab')", "assert not find('b')"],
    },
    {
        "task_id": "pair",
        "prompt": "Write a class Pair of x and y, and a function that sums one.",
        "code": "class Pair:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n"
        "def total(p):\n    return p.x + p.y\n",
        "test_list": ["assert total(Pair(1, 2)) == 3"],
    },
    {
        "task_id": "call",
        "prompt": "def call(f):\n",
        "entry_point": "call",
        "tests": ["assert call(lambda: 3) == 3"],
        "reference": "    return f()\n",
    },
]
TASKS = [as_task(row) for row in ROWS]
RIGHT = {"task_id": "add", "completion": "    return a + b\n"}
WRONG = {"task_id": "add", "completion": "    return a - b\n"}


def verdicts(results: Sequence[grading.Result]) -> list[str]:
    return [result.verdict for result in results]


def test_results_are_in_the_samples_order(any_sandbox: Sandbox) -> None:
    samples: list[dict[str, Any]] = [
        RIGHT,
        WRONG,
        {"task_id": "add", "solution": "def add(a, b):\n    return a + b\n"},
        {"task_id": "add", "completion": "```python\ndef add(a, b):\n    return a + b\n```"},
        {"task_id": "add", "solution": "    return a + b\n"},
        {"task_id": "match", "completion": "def find(x):\n    return 'a' in x\n"},
        {"task_id": "match", "completion": "import re\ndef find(x):\n    return re.search('a+', x)\n"},
        {"task_id": "match", "completion": "def find(x):\n    return object()\n"},
        {"task_id": "pair", "solution": ROWS[2]["code"]},
        {"task_id": "pair", "solution": "def total(p):\n    return 3\n"},
        {"task_id": "call", "completion": "    return f()\n"},
    ]
    results = grade(TASKS, samples, sandbox=any_sandbox, workers=3)
    assert verdicts(results) == [
        "pass", "wrong", "pass", "pass", "syntax", "pass", "pass", "wrong", "pass", "exception", "pass",
    ]  # fmt: skip
    assert [result.task_id for result in results] == [sample["task_id"] for sample in samples]
    assert [result.index for result in results] == list(range(len(samples)))
    assert results[0].program == ROWS[0]["prompt"] + RIGHT["completion"]
    assert [results[i].program for i in (2, 4)] == [samples[i]["solution"] for i in (2, 4)], (
        "whole programs as they are"
    )
    apart = ["same-process" if i in (6, 7, 8, 9, 10) else "two-sandboxes" for i in range(11)]
    assert [result.trust for result in results] == apart
    assert {result.isolation for result in results} == {any_sandbox.isolation}
    found = summary(results, (1, 2, 100), [*TASKS, Task("x", "p", "f", ("f",), ("t",))])
    assert found.trust == {"two-sandboxes": 6, "same-process": 5}
    assert list(found.pass_at_k) == [1, 2], "nobody has 100 samples"
    rate = found.pass_at_k[1].estimate
    assert rate and rate.value == pytest.approx((3 / 5 + 2 / 3 + 1 / 2 + 1) / 4)
    assert found.pass_at_k[2].estimate is None and found.pass_at_k[2].n_too_few == 1
    assert found.pass_at_k_by_trust["two-sandboxes"][1].n_tasks == 2
    assert found.tasks_without_samples == ["x"]
    assert CodeMeasurement.model_validate_json(json_text(found)) == found


def test_rows_say_which_program_was_run(any_sandbox: Sandbox) -> None:
    """The one that was taken out of the answer, also where it does not end; a constant above it is part of it."""
    program = "R = {}\n\n\ndef add(a, b):\n    while R:\n        pass\n    return a + b\n"
    together = as_task({**ROWS[0], "task_id": "one", "prompt": "Add.", "reference": None, "same_process": True})
    apart = as_task({**ROWS[0], "task_id": "two", "prompt": "Add.", "reference": None})
    samples = [
        {"task_id": task, "completion": f"Sure, it's\n\n{program.format(r)}\nHope it helps!\n{more}"}
        for task in ("one", "two") for r, more in ((0, ""), (1, ""), (0, "def g(:"))
    ] + [{"task_id": "two", "completion": "def add(a, b:"}, {"task_id": "two", "completion": ""}]  # fmt: skip
    results = grade([together, apart], samples, sandbox=any_sandbox, timeout=0.5)
    assert verdicts(results) == ["pass", "timeout", "pass"] * 2 + ["syntax", "exception"]
    assert [result.trust for result in results[:3]] == ["same-process"] * 3
    programs = [program.format(r).strip() for r in (0, 1, 0)] * 2
    assert [result.program.strip() for result in results] == [*programs, "def add(a, b:", ""]
    assert [result.index for result in results] == list(range(8))


def test_one_flipped_expectation_fails_everything_honest(any_sandbox: Sandbox) -> None:
    """Whoever passes a test whose expected value is wrong has not computed it."""
    flipped = as_task({**ROWS[0], "tests": ["assert add(1, 2) == 4"]})
    assert verdicts(grade([flipped], [RIGHT, WRONG], sandbox=any_sandbox)) == ["wrong", "wrong"]


class Counting:
    """A `judge` that counts, and times out as it is told."""

    def __init__(self, timeouts: int = 0, seconds: float = 0.01) -> None:
        self.calls: list[tuple[tuple[str, ...], float]] = []
        self.timeouts, self.seconds = timeouts, seconds
        self.now = self.most = 0

    def __call__(self, sandbox: Sandbox, exam: Exam, programs: Sequence[str], seconds: float) -> Outcome:
        self.now += 1
        self.most = max(self.most, self.now)
        self.calls.append((tuple(programs), seconds))
        time.sleep(self.seconds)
        self.now -= 1
        if "slow" in programs[0] and sum("slow" in p[0] for p, _ in self.calls) <= self.timeouts:
            return Outcome("timeout", "", "two-sandboxes", seconds)
        return Outcome("pass", "", "two-sandboxes", 2.0)


SANDBOX = Sandbox("none", (), (), None)


def test_the_same_program_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(grading, "judge", counting)
    seen: list[grading.Result] = []
    results = grade(TASKS, [RIGHT, WRONG, RIGHT, RIGHT], sandbox=SANDBOX, on_result=seen.append)
    assert len(counting.calls) == len(seen) == 2 and len(results) == 4


def test_a_time_out_is_tried_again_alone_with_the_references_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"task_id": "add", "solution": "slow"}
    counting = Counting(timeouts=1)
    monkeypatch.setattr(grading, "judge", counting)
    seen: list[grading.Result] = []
    results = grade(TASKS, [slow, RIGHT, WRONG], sandbox=SANDBOX, timeout=3.0, workers=3, on_result=seen.append)
    assert verdicts(results) == ["pass", "pass", "pass"] and verdicts(seen) == ["pass", "pass", "pass"]
    (again,) = [seconds for programs, seconds in counting.calls[3:] if programs == ("slow",)]
    assert again == 8.0, "four times the two seconds that the reference took"
    assert counting.calls[-1][0] == ("slow",) and counting.most > 1
    counting = Counting(timeouts=2)
    monkeypatch.setattr(grading, "judge", counting)
    assert verdicts(grade(TASKS, [slow], sandbox=SANDBOX)) == ["timeout"], "twice is believed"


@pytest.mark.slow
def test_a_slow_reference_gives_slow_programs_time(any_sandbox: Sandbox) -> None:
    burn = (
        "import time\ndef add(a, b):\n    until = time.process_time() + {}\n"
        "    while time.process_time() < until:\n        pass\n    return a + b\n"
    )
    task = as_task({**ROWS[0], "tests": ["assert add(1, 2) == 3"], "prompt": "Add.", "reference": burn.format(0.6)})
    samples = [{"task_id": "add", "solution": burn.format(1.3)}, {"task_id": "add", "solution": burn.format(30)}]
    assert verdicts(grade([task], samples, sandbox=any_sandbox, timeout=0.5)) == ["pass", "timeout"]


def test_broken_tests_stop_the_grading(any_sandbox: Sandbox) -> None:
    broken = as_task({**ROWS[0], "tests": ["import nothing_of_this_name\nassert add(1, 2) == 3"]}, "tasks.jsonl:7")
    with pytest.raises(HarnessError, match=r"tasks\.jsonl:7: task 'add': the tests are broken: ModuleNotFoundError"):
        grade([broken], [RIGHT] * 3, sandbox=any_sandbox)
    failing = as_task({**ROWS[1], "code": "def find(x):\n    return x.nothing\n"})
    with pytest.raises(HarnessError, match="its own solution does not pass"):
        grade([failing], [{"task_id": "match", "solution": "def find(x):\n    return object()"}], sandbox=any_sandbox)


def test_a_program_that_breaks_the_tests_it_shares_a_process_with(any_sandbox: Sandbox) -> None:
    task = as_task({**ROWS[2], "test_list": ["import math\nassert total(Pair(1, 2)) == 3"]})
    program = "import builtins\ndef no(*a, **k):\n    raise ImportError('no')\nbuiltins.__import__ = no\n"
    (result,) = grade([task], [{"task_id": "pair", "solution": program}], sandbox=any_sandbox)
    assert (result.verdict, result.trust) == ("exception", "same-process")


BAD = [
    {"task_id": "add"},
    {"completion": "x"},
    {"task_id": "add", "completion": 3},
    {"task_id": "add", "completion": "x", "solution": "y"},
    {"task_id": "add", "completion": None},
]


@pytest.mark.parametrize("row", BAD)
def test_rows_that_are_no_samples(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(RIGHT) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(HoneError, match=r"samples\.jsonl:2: no sample"):
        read_samples(path)
    with pytest.raises(HoneError, match="no sample"):
        as_sample(row)


def test_unknown_tasks_and_time_limits() -> None:
    with pytest.raises(HoneError, match=r"s\.jsonl:4: no task has the task_id 'other'"):
        grade(TASKS, [Sample("other", "", where="s.jsonl:4")], sandbox=SANDBOX)
    for timeout in (0.0, -1.0, math.nan):
        with pytest.raises(HoneError, match="time limit"):
            grade(TASKS, [RIGHT], sandbox=SANDBOX, timeout=timeout)


def test_files_of_results(tmp_path: Path) -> None:
    for name, expected in (
        ("s.jsonl", "s_results.jsonl"),
        ("s.jsonl.gz", "s_results.jsonl"),
        ("s", "s_results.jsonl"),
        ("a.b.json", "a.b_results.jsonl"),
    ):
        assert results_path(tmp_path / name) == tmp_path / expected
    result = grading.Result(0, "add", False, "exception", "\ud800\x1b[2J é\n", "none", "two-sandboxes", 0.1, "\ud800")
    write_results(tmp_path / "r.jsonl", [result, result], summary([result, result]))
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert len(lines) == 2 and list(json.loads(lines[0])) == [
        "index", "task_id", "passed", "verdict", "detail", "isolation", "trust", "seconds", "program",
    ]  # fmt: skip
    together = read(CodeMeasurement, tmp_path / "r.json")
    assert together and together.passed == {"add": [False, False]}


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["grade", *arguments])


def write_files(folder: Path, samples: list[dict[str, Any]]) -> tuple[str, str]:
    for name, rows in (("tasks.jsonl", ROWS), ("samples.jsonl", samples)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "tasks.jsonl"), str(folder / "samples.jsonl")


def test_the_command(tmp_path: Path, any_sandbox: Sandbox) -> None:
    tasks, samples = write_files(tmp_path, [RIGHT, WRONG])
    done = invoke(tasks, samples, "--k", "1,2", "--workers", "2", "--isolation", any_sandbox.isolation)
    assert done.exit_code == 0, done.output
    assert "pass@1: 0.500" in done.stdout and "pass@2: 1.000" in done.stdout
    assert "3 tasks have no sample" in done.stdout and "wrong" in done.stdout
    assert (
        ("isolation: NONE" in done.stdout)
        == ("warning: no isolation" in done.stderr)
        == (any_sandbox.isolation == "none")
    )
    rows = [json.loads(line) for line in (tmp_path / "samples_results.jsonl").read_text().splitlines()]
    assert [row["passed"] for row in rows] == [True, False]
    assert {row["isolation"] for row in rows} == {any_sandbox.isolation}
    done = invoke(tasks, "--json", "--isolation", any_sandbox.isolation)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdicts"] == {"pass": 4}, "the tasks' own solutions"


def test_the_commands_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, samples = write_files(tmp_path, [{"task_id": "nobody", "completion": ""}])
    for arguments, message in (
        ([tasks, samples], "no task has the task_id 'nobody'"),
        ([tasks, samples, "--k", "1,x"], "list of numbers"),
        ([tasks, samples, "--isolation", "some"], "unknown isolation"),
        ([tasks, str(tmp_path / "none.jsonl")], "none.jsonl"),
        ([samples, tasks], "no tests"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 1 and message in done.stderr, done.output
    write_files(tmp_path, [RIGHT])
    monkeypatch.setenv("PATH", str(tmp_path))
    done = invoke(tasks, samples)
    assert done.exit_code == 1 and "cannot be isolated" in done.stderr and "--isolation none" in done.stderr
    assert not (tmp_path / "samples_results.jsonl").exists()


# --- the published tasks, where they are at hand --------------------------------------------------------------------

HUMANEVAL = SHARED / "humaneval" / "HumanEval.jsonl.gz"
MBPP = SHARED / "mbpp" / "sanitized-mbpp.json"
CHEATS = {
    "an answer that is equal to everything": (
        "    class E:\n        def __eq__(self, other):\n            return True\n    return E()\n"
    ),
    "an exit that reports success": "    import sys\n    sys.exit(0)\n",
    "a walk through the frames": (
        "    import sys\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in list(frame.f_locals.values()):\n"
        "            if type(value) is list:\n                value.append('passed')\n        frame = frame.f_back\n"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("path, n", [(HUMANEVAL, 164), (MBPP, 427)], ids=["HumanEval", "MBPP"])
def test_published_solutions_pass(path: Path, n: int, strict_sandbox: Sandbox) -> None:
    if not path.is_file():
        pytest.skip("the file is not here")
    tasks = read_tasks(path)
    results = grade(tasks, grading.references(tasks), sandbox=strict_sandbox)
    assert [result for result in results if not result.passed] == []
    assert len(results) == n
    assert sum(result.trust == "same-process" for result in results) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("path", [HUMANEVAL, MBPP], ids=["HumanEval", "MBPP"])
def test_published_solutions_pass_in_any_dress(path: Path, strict_sandbox: Sandbox, tmp_path: Path) -> None:
    """With CRLF line ends, a constant above that they need, and prose around or a fence."""
    if not path.is_file():
        pytest.skip("the file is not here")
    rows = [row.columns for row in read_rows([path], on_bad_row="error", on_skip=lambda *_: None)]
    tasks = [as_task({name: windows(value) for name, value in row.items()}) for row in rows]
    dresses = ["{}", "Sure, here's it:\n\n{}\nHope this helps!\n", "So:\n```python\n{}```\nThat's it.\n"]
    samples = []
    for i, task in enumerate(tasks):
        assert task.reference
        lines = task.reference.replace("\r\n", "\n").rstrip().split("\n")
        last = max(number for number, line in enumerate(lines) if line.lstrip().startswith(("return ", "return(")))
        margin = lines[last][: -len(lines[last].lstrip())]
        lines.insert(last, f"{margin}assert RADIUS == 3")
        answer = dresses[i % 3].replace("{}", "RADIUS = 3\n" + "\n".join(lines) + "\n")
        samples.append({"task_id": task.task_id, "completion": windows(answer)})
    results = grade(tasks, samples, sandbox=strict_sandbox)
    assert [result for result in results if not result.passed] == []
    assert sum("RADIUS = 3" in result.program for result in results) == len(tasks)


def windows(value: Any) -> Any:
    """Text, or a list of it, with the line ends of Windows."""
    if isinstance(value, list):
        return [windows(one) for one in value]
    return value.replace("\n", "\r\n") if isinstance(value, str) else value


@pytest.mark.slow
@pytest.mark.parametrize("body", CHEATS.values(), ids=CHEATS.keys())
def test_cheats_pass_nothing(body: str, strict_sandbox: Sandbox) -> None:
    if not HUMANEVAL.is_file():
        pytest.skip("the file is not here")
    tasks = read_tasks(HUMANEVAL)
    results = grade(tasks, [{"task_id": task.task_id, "completion": body} for task in tasks], sandbox=strict_sandbox)
    assert sum(result.passed for result in results) == 0


@pytest.mark.slow
def test_the_benchmark_prints_rates(any_sandbox: Sandbox) -> None:
    words = [
        sys.executable,
        "benchmarks/grading.py",
        "--samples",
        "8",
        "--rounds",
        "1",
        "--workers",
        "2",
        "--many",
        "12",
    ]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([*words, "--isolation", any_sandbox.isolation], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| 2 ")]
    assert float(row.split("|")[2].split()[0]) > 0
    left = json.loads(done.stdout.split("more: ")[1])["left"]
    assert left["descriptors"] == 0
