"""Numbers of written texts by hand; texts made to break parsers break nothing; code runs in a sandbox or not."""

import time
from pathlib import Path
from typing import Any

import pytest

import hone
from hone.config import load_config
from hone.metrics import generation_quality
from hone.metrics.generation_quality import candidates, distinct, each, line_run, parsable, quality
from hone.tables.run import before_after

PROMPT = "def add(a, b):\n"
BODY = '    """Their sum."""\n    return a + b\n'


def test_numbers_by_hand() -> None:
    texts, references = ["x y x y", "same\nsame\n\nsame\nother", ""], ["x y x y", "none", "a"]
    per_text = each(texts, references=references)
    assert per_text["distinct_1"] == [0.5, 0.5, None] and per_text["distinct_2"] == [2 / 3, 2 / 3, None]
    assert per_text["line_run"] == [1, 3, 0]
    assert per_text["characters"] == [7, 21, 0] and per_text["words"] == [4, 4, 0]
    assert per_text["chrf"][0] == pytest.approx(100) and per_text["chrf"][2] == 0
    found = quality(texts, references=references, ended=[True, False, True])
    assert (found["distinct_1"].value, found["distinct_1"].n_items) == (0.5, 2)
    assert found["ended"].value == pytest.approx(2 / 3) and (found["ended"].low or 1) < 0.5
    assert "parses" not in found  # no definition anywhere: no code


def test_code_is_judged_as_a_continuation_of_its_prompt() -> None:
    broken, empty, prose = "    return a +\n", "\n", "    is the sum of two\n"
    per_text = each([BODY, broken, empty, prose], prompts=[PROMPT] * 4)
    assert per_text["parses"] == [True, False, False, False]
    assert per_text["has_return"] == [True, True, False, False]
    assert per_text["has_docstring"] == [True, False, False, False]
    assert per_text["has_def"] == [False] * 4  # the prompt's own does not count
    found = quality([BODY, broken, empty, prose], prompts=[PROMPT] * 4)["parses"]
    assert found.value == 0.25 and found.bounds and found.bounds[0] < 0.25 < found.bounds[1]


def test_answers_with_and_without_fences() -> None:
    ask = "### Instruction:\nWrite `add`.\n\n### Response:\n"
    per_text = each(
        [PROMPT + BODY, f"Sure:\n```python\n{PROMPT}{BODY}```\n", "I cannot."],
        prompts=[ask] * 3,
        references=[PROMPT + BODY] * 3,
    )
    assert per_text["parses"] == [True, True, False]
    assert per_text["has_def"] == [True, True, False]


def test_a_task_in_code_with_an_answer_after_it_is_not_continued() -> None:
    ask = "### Instruction:\nMend this:\ndef add(a, b):\n    return a\n\n### Response:\n"
    assert candidates(PROMPT + BODY, ask) == [PROMPT + BODY]


@pytest.mark.parametrize(
    "hostile", ["(" * 5000, "-" * 200_000 + "1", "a." * 100_000 + "b", "\x00", "\ud800", "x = '" + "{" * 9999]
)
def test_hostile_texts_do_not_reach_us(hostile: str) -> None:
    began = time.monotonic()
    found = parsable([["x = 1"], [hostile], ["def f(", "y = 2"], []])
    assert [found[0], found[2], found[3]] == ["x = 1", "y = 2", None]
    assert found[1] in (None, hostile)
    assert time.monotonic() - began < 60


def test_a_child_that_dies_costs_its_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = generation_quality.PARSER.replace(
        "        try:\n", "        if 'die' in program: import os; os._exit(1)\n        try:\n", 1
    )
    monkeypatch.setattr(generation_quality, "PARSER", dying)
    assert parsable([["a = 1"], ["die"], ["b = 2"], ["die", "c = 3"], ["d = 4"]]) == [
        "a = 1",
        None,
        "b = 2",
        None,
        "d = 4",
    ]


def test_a_child_that_hangs_costs_its_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = generation_quality.PARSER.replace(
        "        try:\n", "        while 'hang' in program: pass\n        try:\n", 1
    )
    monkeypatch.setattr(generation_quality, "PARSER", hanging)
    monkeypatch.setattr(generation_quality, "PARSE_S", 1.0)
    assert parsable([["a = 1"], ["hang"], ["b = 2"]]) == ["a = 1", None, "b = 2"]


def test_nothing_is_executed_by_parsing(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    assert quality([f"open({str(trap)!r}, 'w')\ndef f(): pass"], references=["def f(): pass"])["parses"].value == 1.0
    assert not trap.exists()


def test_runs_only_in_a_sandbox(any_sandbox: Any) -> None:
    texts = [BODY, "    return a\nraise SystemExit(3)\n", "    return a\n1 / 0\n", "    return ("]
    per_text = each(texts, prompts=[PROMPT] * 4, sandbox=any_sandbox)
    assert per_text["runs"][0] is True and per_text["runs"][3] is False
    assert "runs" not in quality(texts, prompts=[PROMPT] * 4)
    bare = each(["raise ValueError\n", "x = 1\n"], references=["def f(): pass"] * 2, sandbox=any_sandbox)
    assert bare["runs"] == [False, True]


def test_edges() -> None:
    assert distinct([], 1) is None and distinct(["a"], 2) is None and distinct(["a"], 1) == 1.0
    assert line_run("") == 0 and line_run("\n\n") == 0 and line_run("a\nb\na") == 1
    one = quality(["only one"])
    assert one["distinct_1"].value == 1.0 and one["distinct_1"].bounds is None


def test_a_run_has_it_beside_its_samples(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = {"model_name_or_path": str(model_folder), "max_length": 64, "max_steps": 1, "use_cpu": True}
    rows = [{"text": f"def f{i}(x):\n    return x + {i}\n"} for i in range(60)]
    config |= {"train_file": str(write_rows("t.jsonl", rows)), "validation_split_percentage": 20, "sample_prompts": 10}
    run = hone.train(load_config({**config, "output_dir": str(tmp_path / "run"), "sample_max_new_tokens": 8}))
    for result in (run.base, run.tuned):
        assert result and result.n_texts == len(result.samples) == 10
        assert {"parses", "ended", "distinct_2", "chrf", "has_return"} <= set(result.quality)
        lengths = [len(sample.text) for sample in result.samples]
        assert result.quality["characters"].value == pytest.approx(sum(lengths) / 10)
    text = before_after(run)
    assert "over 10 written texts" in text
    row = next(line for line in text.splitlines() if line.startswith("ends by itself"))
    assert row.count("[") == 2, "base and tuned, with intervals"
