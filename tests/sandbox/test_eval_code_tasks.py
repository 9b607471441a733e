"""Tasks put to a model: how they are asked, where answers end, what is kept, counted, compared, and when nothing is."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import hone
from conftest import SHARED, pairs
from hone.cli import app
from hone.config.sections.generate import GenerateSection
from hone.data.templates import render_prompt
from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError
from hone.evaluation import code_tasks as code_eval
from hone.evaluation.code_tasks import graded
from hone.grading import ask as solve
from hone.grading.pass_at_k import passed_items
from hone.grading.sandbox import HarnessError, IsolationError, selftest
from hone.grading.sandbox.isolation import open_sandbox
from hone.grading.tasks import as_task, read_tasks
from hone.results import Difference
from hone.results.benchmarks import CodeSetup, Sampling
from hone.statistics.paired import compare_items
from written_run import programs

RIGHT = "    return a + b\n"
ROWS = [
    {
        "task_id": f"add{i}",
        "prompt": f"def add{i}(a, b):\n    '''Add {'very ' * i}well.'''\n",
        "entry_point": f"add{i}",
        "tests": [f"assert add{i}(1, 2) == 3"],
        "reference": RIGHT,
    }
    for i in range(3)
]
WORDS = {"task_id": "w", "prompt": "Double x.", "entry_point": "double", "tests": ["assert double(2) == 4"]}
GREEDY = GenerateSection(max_new_tokens=8)


@pytest.fixture
def sandbox() -> Iterator[Any]:
    with open_sandbox("none") as found:
        yield found


@pytest.fixture
def tasks_file(write_rows: Any) -> Path:
    return write_rows("tasks.jsonl", ROWS)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """answering(function of the prompt -> answers): the model's part is played by it; what was asked is returned."""

    def replace(answer: Callable[[Any], list[str]]) -> list[Any]:
        asked: list[Any] = []

        def generate(model: Any, tokenizer: Any, prompts: Any, settings: Any, template: str) -> Any:
            for prompt in prompts:
                asked.append((prompt.example, settings.stop))
                yield answer(prompt.example)

        monkeypatch.setattr(solve, "generate_texts", generate)
        return asked

    return replace


# ---- how a task is asked ----


def test_code_is_continued_and_ends_at_the_next_definition() -> None:
    asked, stops = solve.question(as_task(ROWS[0]), "plain")
    assert asked == ROWS[0]["prompt"]
    assert {"\ndef ", "\nclass ", "\nif __name__", "\nprint("} <= set(stops)


def test_words_are_a_docstring_that_names_the_function() -> None:
    asked, stops = solve.question(as_task(WORDS), "plain")
    assert asked == '"""\nDouble x.\nassert double(2) == 4\n"""\n'
    assert "\ndef " not in stops and '\n"""' in stops
    chunk = as_task({**WORDS, "tests": ["for i in range(3):\n    assert double(i) == 2 * i"]})
    assert "The name to define: double" in str(solve.question(chunk, "plain")[0]), "no tests but a first line are shown"
    named = as_task({**WORDS, "prompt": 'Write double(x), """twice""" x.'})
    assert solve.question(named, "plain")[0] == "\"\"\"\nWrite double(x), '''twice''' x.\n\"\"\"\n"


def test_a_prompt_ends_where_the_tokenizer_lets_a_body_begin() -> None:
    """A line break that a body's indentation would join is left to the model: alone, it is nothing it has read."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from hone import bundled
    from hone.data.tokenizer import train_bpe

    prompt = str(ROWS[0]["prompt"])
    texts = [prompt + RIGHT] * 9
    joins = train_bpe(texts, vocab_size=400)
    assert solve.open_ended(prompt, joins) == prompt[:-1]
    assert solve.open_ended(f"{prompt}    ", joins) == prompt[:-1]
    assert solve.open_ended(prompt, load_tokenizer(bundled.folder())) == prompt[:-1]
    backend = Tokenizer(models.BPE())
    after_signs = Regex(r"[^\s\w]+\n*|\w+|\s")  # as many newer models: a line break belongs to the quotes before it
    backend.pre_tokenizer = pre_tokenizers.Split(after_signs, "isolated")
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    assert solve.open_ended(prompt, PreTrainedTokenizerFast(tokenizer_object=backend)) == prompt


@pytest.mark.parametrize("last", ["x = a", "# sum of both:", "'two  '", "total", "# your code here"])
def test_a_prompt_that_a_model_may_go_on_with_in_its_last_line_is_left_whole(last: str, tokenizer: Any) -> None:
    prompt = f"def f(a):\n    {last}\n"
    assert solve.open_ended(prompt, tokenizer) == prompt
    assert solve.open_ended("def f(a):\n    if a:\n", tokenizer) == "def f(a):\n    if a:"


def test_the_model_is_asked_the_open_end(
    answering: Callable[..., list[Any]], sandbox: Any, tiny_model: Any, tokenizer: Any, tasks_file: Path
) -> None:
    asked = answering(lambda prompt: ["\n" + RIGHT])
    result, _ = graded(tiny_model(), tokenizer, read_tasks(tasks_file), GREEDY, "plain", sandbox)
    assert sorted(prompt for prompt, _ in asked) == sorted(str(row["prompt"]).rstrip() for row in ROWS)
    assert all(map(all, result.passed.values()))


def test_an_instruction_model_is_asked_as_it_was_trained() -> None:
    asked, stops = solve.question(as_task(ROWS[0]), "instruction")
    spelled = render_prompt(asked, "instruction", None)
    expected = (
        "### Instruction:\nComplete this Python code.\n\n### Input:\n" + ROWS[0]["prompt"] + "\n\n### Response:\n"
    )
    assert spelled == expected and "\n### Instruction:" in stops
    assert render_prompt(solve.question(as_task(WORDS), "instruction")[0], "instruction", None).startswith(
        "### Instruction:\nDouble x.\nassert double(2) == 4\n\n### Response:"
    )


@pytest.mark.parametrize("name", ["humaneval/HumanEval.jsonl.gz", "mbpp/sanitized-mbpp.json"])
def test_no_published_solution_is_cut(name: str) -> None:
    if not (SHARED / name).is_file():
        pytest.skip("the published tasks are not here")
    for task in read_tasks(SHARED / name):
        assert task.reference is not None
        answer = task.reference.removeprefix(task.prompt) if task.prompt_is_code else task.reference
        assert not [stop for stop in solve.question(task, "plain")[1] if stop in answer], task.task_id


# ---- answers, kept ----


def test_each_prompt_is_answered_once_in_order_of_length(
    answering: Any, tiny_model: Any, tokenizer: Any, sandbox: Any
) -> None:
    asked = answering(lambda prompt: [RIGHT if "very" in prompt else "    return 7\n"])
    tasks = [as_task(row) for row in reversed(ROWS)]
    result, rows = graded(tiny_model(), tokenizer, tasks, GREEDY, "plain", sandbox)
    lengths = [len(prompt) for prompt, _ in asked]
    assert len(lengths) == 3 and lengths == sorted(lengths)
    assert [row["task_id"] for row in rows] == ["add2", "add1", "add0"], "in the order of the tasks"
    assert result.passed == {"add2": [True], "add1": [True], "add0": [False]}
    rate = result.pass_at_k[1].estimate
    assert rate and rate.value == pytest.approx(2 / 3) and result.n_samples == 3
    again, _ = graded(tiny_model(), tokenizer, tasks, GREEDY, "plain", sandbox)
    assert len(asked) == 3, "answered before"
    assert again.passed == result.passed


@pytest.mark.parametrize("change", ["weights", "tokens", "temperature", "seed", "template", "tied", "prompt"])
def test_nothing_is_taken_from_another_model_prompt_or_setting(
    change: str, answering: Any, tiny_model: Any, tokenizer: Any, sandbox: Any
) -> None:
    asked = answering(lambda prompt: [RIGHT])
    task, settings, model, template = as_task(ROWS[0]), GREEDY, tiny_model(), "plain"
    graded(model, tokenizer, [task], settings, template, sandbox)
    if change == "weights":  # the last of many numbers, by one unit in the last place
        with torch.no_grad():
            last = list(model.parameters())[-1].view(-1)
            last[-1] = torch.nextafter(last[-1], torch.tensor(torch.inf))
    elif change == "template":
        template = "instruction"
    elif change == "prompt":
        task = as_task({**ROWS[0], "prompt": "def add0(a, b):\n    '''Other words.'''\n"})
    elif change == "tied":
        model.config.tie_word_embeddings = not model.config.tie_word_embeddings
    else:
        update = {"tokens": {"max_new_tokens": 9}, "temperature": {"temperature": 0.5}, "seed": {"sampling_seed": 1}}
        settings = GREEDY.model_copy(update=update[change])
    graded(model, tokenizer, [task], settings, template, sandbox)
    assert len(asked) == 2


def test_an_interrupted_generation_goes_on(answering: Any, tiny_model: Any, tokenizer: Any, sandbox: Any) -> None:
    def stops_at_the_second(prompt: str) -> list[str]:
        if "add1" in prompt:
            raise KeyboardInterrupt
        return [RIGHT]

    tasks = [as_task(row) for row in ROWS]
    answering(stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        graded(tiny_model(), tokenizer, tasks, GREEDY, "plain", sandbox)
    (file,) = solve.answers_folder().iterdir()
    file.write_bytes(file.read_bytes() + b'{"prompt": "half a li')
    asked = answering(lambda prompt: [RIGHT])
    result, _ = graded(tiny_model(), tokenizer, tasks, GREEDY, "plain", sandbox)
    assert len(asked) == 2 and all(map(all, result.passed.values()))
    asked = answering(lambda prompt: [RIGHT])
    graded(tiny_model(), tokenizer, tasks, GREEDY, "plain", sandbox)
    assert not asked, "what follows half a line is read"


def test_a_task_too_long_for_the_window_is_failed_by_name(
    answering: Any, tiny_model: Any, tokenizer: Any, sandbox: Any
) -> None:
    answering(lambda prompt: [RIGHT])
    long = as_task({**ROWS[1], "prompt": "def add1(a, b):\n    '''" + "Add. " * 300 + "'''\n"})
    result, rows = graded(tiny_model(), tokenizer, [as_task(ROWS[0]), long], GREEDY, "plain", sandbox)
    assert result.verdicts == {"pass": 1, "no-room": 1} and result.n_tasks == 2
    assert rows[1]["verdict"] == "no-room" and result.passed["add1"] == [False]


def test_answers_at_the_limit_are_counted(answering: Any, tiny_model: Any, tokenizer: Any, sandbox: Any) -> None:
    long = "    return a + b  # the sum of the two numbers\n"
    answering(lambda prompt: [long if "very" in prompt else "    x\n"])
    result, _ = graded(tiny_model(), tokenizer, [as_task(row) for row in ROWS], GREEDY, "plain", sandbox)
    assert result.n_at_limit == 2


def test_real_generation_is_the_model_s_own(tiny_model: Any, tokenizer: Any) -> None:
    """No part played: the kept answers are those of generate_texts, n for each task."""
    tasks, model = [as_task(row) for row in ROWS], tiny_model()
    settings = GenerateSection(max_new_tokens=6, temperature=1.0, num_return_sequences=3)
    found = solve.solve(model, tokenizer, tasks, settings, "plain")
    own = settings.model_copy(update={"stop": list(solve.AFTER_A_FUNCTION)})
    from hone.inference.generate import generate_texts

    expected = list(
        generate_texts(model, tokenizer, [solve.open_ended(task.prompt, tokenizer) for task in tasks], own, "plain")
    )
    assert [found[task.task_id] for task in tasks] == expected and len(expected[0]) == 3


# ---- base and tuned ----


def paired(base: dict[str, list[bool]], tuned: dict[str, list[bool]]) -> Difference:
    return compare_items(passed_items(base), passed_items(tuned)).metrics["passed"]


def results(*passed: int) -> dict[str, list[bool]]:
    return {f"t{i}": [bool(one)] for i, one in enumerate(passed)}


def test_paired_by_hand() -> None:
    found = paired(results(0, 0, 0, 0, 0, 0, 1, 1), results(1, 1, 1, 1, 1, 1, 1, 0))
    assert (found.only_b, found.only_a, found.n_items, found.test) == (6, 1, 8, "McNemar")
    assert found.difference.value == pytest.approx(5 / 8)
    assert found.p_value == pytest.approx(0.125) and found.verdict == "not distinguishable"
    low, high = found.difference.bounds or (1, 0)
    assert low < 5 / 8 < high
    assert paired(results(*[0] * 8), results(*[1] * 8)).verdict == "better"
    assert paired(results(*[1] * 8), results(*[0] * 8)).verdict == "worse"


def test_no_difference_is_no_certainty() -> None:
    found = paired(results(*[0] * 20), results(*[0] * 20))
    assert (found.difference.value, found.p_value, found.verdict) == (0.0, 1.0, "not distinguishable")
    low, high = found.difference.bounds or (0, 0)
    assert low < -0.1 and high > 0.1
    several = {"a": [False, False], "b": [True, False]}
    assert (paired(several, several).difference.low or 0) < -0.3


def test_several_answers_a_task_are_compared_by_task() -> None:
    base = {f"t{i}": [False, False, False, True] for i in range(10)}
    tuned = {f"t{i}": [False, i > 0, i > 0, True] for i in range(10)}
    found = paired(base, tuned)
    assert found.test == "sign flip" and found.verdict == "better"
    assert found.difference.value == pytest.approx(0.45) and found.n_differing == 9


def config_of(model_folder: Path, write_rows: Any, tmp_path: Path, **keys: Any) -> Any:
    rows = write_rows("rows.jsonl", pairs(24))
    base = {"model_name_or_path": str(model_folder), "train_file": str(rows), "output_dir": str(tmp_path / "run"),
            "max_length": 64, "max_steps": 1, "sample_prompts": 0, "max_new_tokens": 6}  # fmt: skip
    return hone.load_config({**base, **keys})


def test_train_measures_base_and_tuned(
    model_folder: Path, tasks_file: Path, write_rows: Any, tmp_path: Path, strict_sandbox: Any
) -> None:
    run = hone.train(config_of(model_folder, write_rows, tmp_path, code_tasks=str(tasks_file)))
    base, tuned, comparison = run.code()
    assert base and tuned and comparison and base.about
    assert base.n_tasks == tuned.n_tasks == comparison.n_items == 3
    assert base.about.template == "plain" and base.isolation == ["strict"]
    rows = [json.loads(line) for line in (run.folder / "eval" / "tuned.code.jsonl").read_text().splitlines()]
    assert [row["task_id"] for row in rows] == ["add0", "add1", "add2"]
    assert "completion" in rows[0] and rows[0]["isolation"] == "strict"
    from hone.tables.run import before_after

    shown = before_after(run)
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert "Not distinguishable: 0 → 0 of 3 tasks pass" in card and "3 of the 3 tasks still fail" in card
    assert shown.startswith("Not distinguishable: 0 -> 0 of 3 tasks pass; p = 1; ")
    assert "still failing, prompt:" in shown and "base: pass@1 0.000 [0.000, " in shown


@pytest.mark.parametrize("error", [IsolationError("no bubblewrap"), HarnessError("a sandbox failed")])
def test_train_goes_on_where_programs_cannot_run(
    error: Exception,
    model_folder: Path,
    tasks_file: Path,
    write_rows: Any,
    tmp_path: Path,
    monkeypatch: Any,
    caplog: Any,
) -> None:
    @contextmanager
    def none(isolation: str) -> Iterator[Any]:
        raise error
        yield

    monkeypatch.setattr(selftest, "ready", none)
    run = hone.train(config_of(model_folder, write_rows, tmp_path, code_tasks=str(tasks_file)))
    assert run.status["status"] == "finished" and run.comparison
    assert not list((run.folder / "eval").glob("*.code*")), "nothing is called wrong"
    assert f"the code tasks are not measured: {error}" in caplog.text


def test_a_mistake_in_the_tasks_is_known_before_training(model_folder: Path, write_rows: Any, tmp_path: Path) -> None:
    bad = write_rows("tasks.jsonl", [{"task_id": "a", "prompt": "x"}])
    with pytest.raises(HoneError, match=r"tasks.jsonl:1: no tests"):
        hone.train(config_of(model_folder, write_rows, tmp_path, code_tasks=str(bad)))
    assert not (tmp_path / "run").exists(), "the corrected config may use the folder"
    with pytest.raises(HoneError, match="no such"):
        hone.train(config_of(model_folder, write_rows, tmp_path, code_tasks=str(tmp_path / "absent.jsonl")))


def test_other_tasks_are_not_compared(tmp_path: Path, caplog: Any) -> None:
    from hone.runs import Run

    (tmp_path / "eval").mkdir()
    run = Run(tmp_path)
    for name, template in (("base", "plain"), ("tuned", "instruction")):
        drawn = Sampling(
            max_new_tokens=9, temperature=0, top_k=0, top_p=1, num_return_sequences=1, sampling_seed=0, stop=[]
        )
        about = CodeSetup(tasks_sha256="a", template=template, settings=drawn)
        run.write(f"{name}.code", programs(True, False).model_copy(update={"about": about}))
    code_eval.compare(SimpleNamespace(run=run, config=hone.load_config({})))
    assert not run.has("compare.code") and "not compared" in caplog.text


# ---- the command ----


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_command(model_folder: Path, tasks_file: Path, tmp_path: Path, strict_sandbox: Any) -> None:
    out = tmp_path / "answers.jsonl"
    words = ["eval", str(model_folder), "--code-tasks", str(tasks_file), "max_new_tokens=6"]
    done = invoke(*words, "--output", str(out), "--samples", "2", "--temperature", "0.8")
    assert done.exit_code == 0, done.output
    assert "pass@1: 0.000 [" in done.stdout and "6 samples of 3 tasks" in done.stdout
    assert "template plain; temperature 0.8" in done.stdout
    assert len(out.read_text().splitlines()) == 6
    again = invoke("grade", str(tasks_file), str(out), "--json")
    assert again.exit_code == 0, again.output
    found = json.loads(invoke(*words, "--json").stdout)
    assert found["n_samples"] == 3 and found["about"]["settings"]["max_new_tokens"] == 6


def test_the_command_refuses_without_a_sandbox_before_the_model_is_loaded(
    tasks_file: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = invoke("eval", "no/such/model", "--code-tasks", str(tasks_file))
    assert done.exit_code == 1 and "bubblewrap is not installed" in done.stderr
    assert "--isolation none" in done.stderr


def test_the_command_s_mistakes(tasks_file: Path, model_folder: Path) -> None:
    both = invoke("eval", str(model_folder), "--code-tasks", str(tasks_file), "--tasks", "arc_easy")
    assert both.exit_code == 1 and "one of them" in both.stderr
    greedy = invoke("eval", str(model_folder), "--code-tasks", str(tasks_file), "--samples", "3")
    assert greedy.exit_code == 1 and "temperature 0 gives the same text" in greedy.stderr
    odd = invoke("eval", str(model_folder), "--code-tasks", str(tasks_file), "--isolation", "some")
    assert odd.exit_code == 1 and "unknown isolation" in odd.stderr
