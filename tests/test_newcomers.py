"""What newcomers type: every line works, or is answered with the exact line to type."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone import hub
from hone.cli import app, guarded
from hone.commands import shared
from hone.commands.examples import EXAMPLES
from hone.commands.given import words
from hone.commands.hints import COMMANDS, OPTIONS
from hone.config.checks import FORMS
from hone.config.schema import Config
from hone.data.records import recognise
from hone.errors import HoneError
from hone.models.source import check_source
from hone.tasks import task_of

GROUP: Any = get_command(app)
Refused = Callable[..., str]


def invoke(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, list(arguments), **options)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_rows: Any) -> Path:
    """A folder with a newcomer's files, and the current one."""
    write_rows("data.jsonl", pairs(12))
    write_rows("eval.jsonl", pairs(4))
    write_rows("wrong.jsonl", [{"code": "def f(): pass", "summary": "does nothing"}])
    (tmp_path / "book.txt").write_text("It was the best of times, it was the worst of times.\n" * 60)
    (tmp_path / "qa.csv").write_text(
        "id,question,answer\n" + "".join(f"{i},What is {i}+1?,{i + 1}\n" for i in range(9))
    )
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("def f(x):\n    return x\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused() -> Refused:
    """refused("train", "x", says=[...]) -> the message of a command that ends with exit code 1 or 2."""

    def check(*arguments: str, says: list[str], code: int = 1) -> str:
        result = invoke(*arguments)
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit | type(None)), result.exception
        for word in says:
            assert word in result.stderr, result.stderr
        return str(result.stderr)

    return check


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configs that `hone train` was called with, in place of training."""
    found: list[Config] = []
    monkeypatch.setattr(hone, "train", lambda config: found.append(config) or Config())
    monkeypatch.setattr("hone.commands.train._print_run", lambda run, as_json: None)
    return found


# ---- data in the place of a config ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.jsonl", "book.txt", "code", "qa.csv"])
def test_data_alone_is_trained_on_with_the_bundled_model(here: Path, trained: list[Config], name: str) -> None:
    result = invoke("train", name)
    assert result.exit_code == 0, result.output
    (config,) = trained
    assert config.model.model_name_or_path == "hone-base"
    assert config.data.train_file == here / name
    assert config.train.learning_rate == 1e-3
    assert config.output.output_dir == here / "runs" / name.split(".")[0]
    assert config.data.on_long_row == ("split" if name in ("book.txt", "code") else "truncate")
    (line,) = result.stderr.splitlines()
    for said in ("model_name_or_path=hone-base", "learning_rate=1e-3", f"output_dir=runs/{name.split('.')[0]}"):
        assert said in line, "one line says what is assumed"


def test_labelled_rows_make_a_classifier(here: Path, trained: list[Config], refused: Refused) -> None:
    Path("reviews.csv").write_text("text,label\n" + "Good film,pos\nBad film,neg\n" * 5)
    assert invoke("train", "reviews.csv").exit_code == 0
    assert trained[0].method.task == "classification"
    checked = refused("check", "reviews.csv", "task=causal", says=["reviews.csv:2", "task=classification"])
    prepared = refused("prepare", "reviews.csv", "task=causal", says=["task=classification"])
    assert checked.splitlines()[-1] == prepared.splitlines()[-1]


def test_what_is_given_is_not_assumed(here: Path, trained: list[Config], model_folder: Path) -> None:
    invoke("train", "data.jsonl", "lr=2e-4", "output_dir=mine", "--num_train_epochs", "1")
    invoke("train", "train_file=data.jsonl", "method=lora")
    invoke("train", "data.jsonl", "--method", "freeze")
    invoke("train", f"model_name_or_path={model_folder}", "data.jsonl")
    assert invoke("train", "--bf16", "data.jsonl", "--save-strategy", "no", "--seed", "3").exit_code == 0
    first, lora, freeze, other, mixed = trained
    assert freeze.train.learning_rate == 3e-3
    assert (mixed.data.train_file, mixed.train.bf16, mixed.train.seed) == (here / "data.jsonl", True, 3)
    assert (first.train.learning_rate, first.output.output_dir) == (2e-4, here / "mine")
    assert (first.train.num_train_epochs, first.model.model_name_or_path) == (1, "hone-base")
    assert (lora.train.learning_rate, lora.model.model_name_or_path) == (1e-2, "hone-base")
    assert (other.train.learning_rate, other.output.output_dir) == (5e-5, here / "out")


def test_a_config_is_taken_as_it_is(here: Path, trained: list[Config], refused: Refused) -> None:
    Path("my.yaml").write_text("model_name_or_path: gpt2\ntrain_file: eval.jsonl\n")
    for arguments in (
        ["my.yaml"],
        ["--config", "my.yaml"],
        ["-c", "my.yaml"],
        ["config=my.yaml"],
        ["--config=my.yaml"],
    ):
        assert invoke("train", *arguments, "seed=7").exit_code == 0
    assert [config.train.seed for config in trained] == [7] * 5
    assert invoke("train", "my.yaml", "data.jsonl").exit_code == 0
    assert trained[-1].data.train_file == here / "data.jsonl", "data merges with a config"
    assert trained[-1].train.learning_rate == 5e-5
    Path("none.yaml").write_text("train_file: data.jsonl\n")
    refused("check", "none.yaml", says=["no model", "model_name_or_path: hone-base"])
    refused("train", "my.yaml", "--config", "none.yaml", says=["two configs"])


@pytest.mark.parametrize(
    ("content", "is_config"),
    [
        ('{"model_name_or_path": "m", "train_file": "rows.jsonl"}', True),
        ('{"data": {"train_file": "rows.jsonl"}}', True),
        ('[{"text": "a"}]', False),
        ('{"text": "a"}\n{"text": "b"}\n', False),
        ('{"instruction": "say a", "output": "a"}', False),  # a row, and `output` is a section's name
        ("[" * 100_000, False),
    ],
)
def test_json_is_a_config_or_rows_by_what_is_in_it(tmp_path: Path, content: str, is_config: bool) -> None:
    path = tmp_path / "given.json"
    path.write_text(content, encoding="utf-8")
    found = words([str(path)], "train_file")
    assert (found.config, found.data) == ((str(path), []) if is_config else (None, [str(path)]))


def test_resume_is_answered(here: Path, trained: list[Config]) -> None:
    result = invoke("train", "data.jsonl", "--resume")
    assert result.exit_code == 0 and len(trained) == 1
    assert "the same command resumes" in result.stderr
    assert invoke("train", "data.jsonl", "--resume", "false").exit_code == 0
    assert trained[-1].train.resume_from_checkpoint == "never"


def test_two_data_files_are_not_both_trained_on(here: Path, trained: list[Config], refused: Refused) -> None:
    refused("train", "data.jsonl", "eval.jsonl", says=["train_file=data.jsonl validation_file=eval.jsonl"])
    refused("train", "data.jsonl", "train_file=qa.csv", says=["data.jsonl and train_file are both given"])
    assert invoke("train", "data.jsonl", "qa.csv").exit_code == 0
    assert trained[0].data.train_file == [here / "data.jsonl", here / "qa.csv"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("train recipe=light-lab", ["hone init light-lab", "hone train light-lab.yaml"]),
        ("train --recipe light-lab", ["hone init light-lab"]),
        ("train light-lab", ["hone init light-lab"]),
        ("train light_lab.yaml", ["hone init light-lab"]),
        ("train gpt2", ["model_name_or_path=gpt2", "hone init"]),
        ("train", ["no model", "hone train data.jsonl", "hone init"]),
        ("train nothere.jsonl", ["nothere.jsonl: no such file"]),
        ("init light_lab", ["hone init light-lab"]),
        ("init LIGHT-LAB", ["hone init light-lab"]),
        ("compare hone-base distilgpt2", ["hone runs", "hone eval hone-base eval.jsonl"]),
        ("compare hone-base", ["hone eval hone-base eval.jsonl"]),
        ("eval hone-base", ["hone eval hone-base eval.jsonl"]),
    ],
)
def test_the_line_to_type_is_named(here: Path, refused: Refused, line: str, says: list[str]) -> None:
    refused(*line.split(), says=says)


def test_rows_of_ones_own_stay(here: Path, refused: Refused) -> None:
    (here / "train.jsonl").write_text('{"text": "mine"}\n')
    says = ["train.jsonl: exists already", "leave out --with-data to keep your own rows", "--output"]
    refused("init", "light-lab", "--with-data", says=says)
    assert not (here / "light-lab.yaml").exists() and (here / "train.jsonl").read_text() == '{"text": "mine"}\n'
    assert invoke("init", "light-lab").exit_code == 0
    assert "--with-data" not in refused("init", "light-lab", says=["light-lab.yaml: exists already"])


ASK_A_MODEL = [
    "generate NAME x",
    "chat NAME",
    "predict NAME --text x",
    "eval NAME",
    "export NAME --to merged",
    "compare NAME",
]
ASK_A_MODEL += ["report NAME", "eval NAME --text x", "compare NAME NAME", "predict NAME qa.csv"]


@pytest.mark.parametrize("line", ASK_A_MODEL)
@pytest.mark.parametrize("typed", ["runs/ligt-lab", "./runs/ligt-lab", "mine/ligt-lab"])
def test_a_run_mistyped_is_no_name_of_the_hub(
    here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, line: str, typed: str
) -> None:
    monkeypatch.setattr(hub, "in_reach", lambda: pytest.fail("the hub was asked"))
    run = here / Path(typed).parent / "light-lab"
    run.mkdir(parents=True)
    (run / "status.json").write_text("{}")
    meant = str(run.relative_to(here))
    words = [typed if word == "NAME" else word for word in line.split()]
    refused(*words, says=["ligt-lab: no such folder", f"did you mean {meant}?", "hone runs"])


@pytest.mark.parametrize("line", ASK_A_MODEL)
def test_runs_near_a_folder_that_is_not_there_are_named(here: Path, refused: Refused, line: str) -> None:
    for name in "abcd":
        (here / "out" / "lab" / name).mkdir(parents=True)
        (here / "out" / "lab" / name / "status.json").write_text("{}")
    (here / "empty").mkdir()
    for typed, says in (
        ("out/something", "runs there: out/lab/a, out/lab/b, out/lab/c, … (4 in all); `hone runs out` lists"),
        ("empty/nothere", f"looked from {here}"),
        ("runs/nothere", "runs there: out/lab/a, "),
    ):
        words = [typed if word == "NAME" else word for word in line.split()]
        refused(*words, says=[f"{typed}: no such folder", says])


def test_a_name_of_the_hub_beside_a_folder_of_models_stays_one(here: Path) -> None:
    (here / "Qwen" / "Qwen2-0.5B").mkdir(parents=True)
    check_source("Qwen/Qwen2-1.5B")
    check_source("openai-community/gpt2")


def test_init_lists() -> None:
    assert invoke("init", "--list").stdout == invoke("init").stdout


def test_a_folder_of_a_model_or_run_is_no_data(model_folder: Path, refused: Refused) -> None:
    refused("train", str(model_folder), says=[f"model_name_or_path={model_folder}"])
    with pytest.raises(HoneError, match="no value"):
        words(["--config"], "train_file")


# ---- check ---------------------------------------------------------------------------------------------------------


def test_check_prints_what_is_not_the_default_and_what_the_rows_are(here: Path, model_folder: Path) -> None:
    Path("my.yaml").write_text(f"model_name_or_path: {model_folder}\ntrain_file: data.jsonl\nlearning_rate: 1e-4\n")
    result = invoke("check", "my.yaml", "seed=7", "validation_file=eval.jsonl")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) < 15
    assert "learning_rate: 0.0001  # my.yaml:3" in result.stdout and "seed: 7  # command line" in result.stdout
    assert "train_file: data.jsonl  # my.yaml:2" in result.stdout
    assert "max_length: 256" in result.stdout, "as trained: the model has no more positions"
    assert "warmup_steps" not in result.stdout
    assert "ok: 12 rows of prompt+completion, 4 rows of prompt+completion held out" in result.stderr
    everything = invoke("check", "my.yaml", "--all")
    assert "max_length: 256" in everything.stdout and len(everything.stdout.splitlines()) > 100


def test_check_looks_at_the_columns(here: Path, refused: Refused) -> None:
    checked = refused("check", "wrong.jsonl", says=["wrong.jsonl:1: no known form in columns: code, summary"])
    prepared = refused("prepare", "wrong.jsonl", says=[])
    assert checked == prepared, "check says what prepare would"
    refused("check", "data.jsonl", "task=classification", says=["data.jsonl:1: no known form", "text+label"])
    Path("two.jsonl").write_text('{"text": "a"}\n{"txt": "b"}\n')
    refused("check", "two.jsonl", says=["two.jsonl:2: mixed forms"])
    chat = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    Path("chat.jsonl").write_text(json.dumps(chat) + "\n")
    refused("check", "train_file=data.jsonl", "validation_file=chat.jsonl", says=["template 'chat'"])


def test_the_forms_of_check_are_those_of_the_tasks() -> None:
    for task, forms in FORMS.items():
        config = Config()
        config.method.task = task
        assert set(task_of(config).forms) == set(forms or task_of(config).forms)
        assert forms is not None or len(task_of(config).forms) == 7


# ---- rows with other names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "form", "mapping"),
    [
        ("id question answer", "instruction", {"instruction": "question", "output": "answer"}),
        ("problem input solution", "instruction", {"instruction": "problem", "output": "solution"}),
        ("prompt response", "pair", {"completion": "response"}),
        ("input output", "pair", {"prompt": "input", "completion": "output"}),
        ("instruction input response", "instruction", {"output": "response"}),
        ("path content size", "text", {"text": "content"}),
        ("instruction input output answer", "instruction", {}),
    ],
)
def test_other_names_are_taken(columns: str, form: str, mapping: dict[str, str]) -> None:
    assert recognise(columns.split(), {}) == (form, mapping)


@pytest.mark.parametrize(
    "columns",
    [
        *("question context answer", "question prompt answer", "question answer response", "a b", "content summary"),
        *("instruction question answer", "prompt problem solution", "question input reply response"),
    ],
)
def test_names_that_may_mean_two_things_are_not(columns: str) -> None:
    with pytest.raises(HoneError, match="no known form"):
        recognise(columns.split(), {})


def test_a_given_mapping_is_final() -> None:
    with pytest.raises(HoneError, match="does not have"):
        recognise(["question", "answer"], {"prompt": "q"})


def test_questions_and_answers_are_prepared_with_a_notice(here: Path, model_folder: Path) -> None:
    for _ in range(2):  # the second time from the token cache
        result = invoke("prepare", "qa.csv", f"model_name_or_path={model_folder}", "--show", "1")
        assert result.exit_code == 0, result.output
        assert "'question' is taken as instruction" in result.stdout
        assert "column_mapping={instruction: question, output: answer}" in result.stdout
        assert re.search(r"What is \d\+1\?\n\n### Response:\n⟦", result.stdout)


GLUED = "the first row is trained as 'What is 0+1?' + '1', nothing between (template=instruction, or plain if meant)"


@pytest.mark.parametrize("command", ["check", "prepare"])
def test_a_prompt_joined_with_its_answer_is_shown_once(here: Path, model_folder: Path, command: str) -> None:
    mapped = ("qa.csv", "column_mapping={prompt: question, completion: answer}", f"model_name_or_path={model_folder}")
    assert invoke(command, *mapped).output.count(GLUED) == 1
    assert "nothing between" not in invoke(command, *mapped, "template=plain").output
    assert "nothing between" not in invoke(command, *mapped, "template=instruction").output
    assert "nothing between" not in invoke(command, "data.jsonl", f"model_name_or_path={model_folder}").output


@pytest.mark.parametrize("command", ["check", "prepare"])
@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"id": 7, "question": "q", "answer": "a", "text": "q a"},
            "trained on: text; not: question, answer (column_mapping={instruction: question, output: answer} takes",
        ),
        ({"text": "a b", "title": "t"}, "not: title (column_mapping={instruction: …, output: …} names others)"),
        (
            {"instruction": "i", "output": "o", "context": "c"},
            "trained on: instruction, output; not: context (column_mapping={input: context} takes it as well)",
        ),
        ({"instruction": "i", "output": "o", "text": "i o", "id": "x7", "input": "y"}, None),
        ({"prompt": "p ", "completion": "c", "task_id": "x", "test": "assert 1"}, None),
    ],
)
def test_columns_that_are_not_used_are_named(
    here: Path, write_rows: Any, model_folder: Path, command: str, row: dict[str, Any], says: str | None
) -> None:
    learned = next(name for name in ("output", "completion", "text") if name in row)
    write_rows("rows.jsonl", [{**row, learned: f"{row[learned]} {i}"} for i in range(9)])
    result = invoke(command, "rows.jsonl", f"model_name_or_path={model_folder}")
    assert result.exit_code == 0, result.output
    assert result.output.count("trained on:") == (says is not None), result.output
    assert says is None or says in result.output


# ---- commands and options from elsewhere ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test", "list", "sample", "finetune", "fine-tune", "merge", "infer", "tune"])
def test_other_commands_are_answered(refused: Refused, name: str) -> None:
    message = refused(name, says=[f"no such command: {name}", "hone "], code=2)
    assert "Did you mean" not in message


def test_hints_name_commands_that_exist() -> None:
    for hint in [*COMMANDS.values(), *(hint.format(command="chat") for _, _, hint in OPTIONS)]:
        for name in re.findall(r"\bhone ([a-z]+)", hint):
            assert name in GROUP.commands, hint
    assert not set(COMMANDS) & set(GROUP.commands), "a command that is there needs no hint"


def test_help_and_version() -> None:
    assert invoke("--version").stdout == invoke("version").stdout == f"{hone.__version__}\n"
    assert invoke("help").stdout == invoke("--help").stdout
    for name in ("train", "chat", "eval"):
        assert invoke("help", name).stdout == invoke(name, "--help").stdout
    assert invoke("help", "finetune").exit_code == 2
    assert "hone train" in invoke("help", "finetune").stderr


def test_completion_is_offered() -> None:
    assert "--install-completion" in invoke("--help").stdout


@pytest.mark.parametrize(
    "name", ["chat", "eval", "grade", "generate", "compare", "report", "predict", "convert", "export"]
)
def test_bare_commands_name_an_example(refused: Refused, name: str) -> None:
    message = refused(name, says=[f"e.g. {EXAMPLES[name][0][0]}"], code=2)
    assert ("hone runs" in message) == (name not in ("grade",))


def test_options_from_elsewhere(refused: Refused) -> None:
    refused("init", "--recipe", "light-lab", says=["no option --recipe", "hone init light-lab"], code=2)
    refused("chat", "--model", "hone-base", says=["hone chat MODEL"], code=2)


# ---- help ----------------------------------------------------------------------------------------------------------


def test_every_command_has_examples_that_parse() -> None:
    assert set(EXAMPLES) == set(GROUP.commands)
    for name, lines in EXAMPLES.items():
        for line, what in lines:
            program, command, *tokens = shlex.split(line)
            assert (program, command) == ("hone", name), line
            GROUP.commands[name].make_context(name, tokens)
            assert what and len(line) + len(what) < 110, line
            assert line in invoke(name, "--help").stdout


def test_help_of_training_names_ten_keys_and_explain() -> None:
    text = invoke("train", "--help").stdout
    assert "hone explain KEY" in text
    from hone.config.related import MOST_USED

    assert len(MOST_USED) == 10 and all(key in text for key in MOST_USED)
    assert "current folder" in text and "that file's folder" in text


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_nothing_in_help_is_eaten_as_markup(name: str) -> None:
    def squeezed(text: str) -> str:
        return re.sub(r"[\s│]+", "", text)

    shown = squeezed(invoke(name, "--help", env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).stdout)
    for parameter in GROUP.commands[name].params:
        if text := getattr(parameter, "help", None):
            assert squeezed(text) in shown, text


def test_the_default_of_template_is_shown() -> None:
    assert "[as trained]" in re.sub(r"[\s│]+", " ", invoke("generate", "--help").stdout)


# ---- models and texts ----------------------------------------------------------------------------------------------


def test_a_prompt_needs_no_option(model_folder: Path, refused: Refused) -> None:
    named = invoke("generate", str(model_folder), "-p", "def add(", "--max-new-tokens", "4")
    bare = invoke("generate", str(model_folder), "def add(", "--max-new-tokens", "4")
    assert bare.exit_code == 0, bare.output
    assert bare.stdout == named.stdout
    refused("generate", str(model_folder), "a", "-p", "b", says=["more than one"])


@pytest.mark.parametrize("word", ["quit", "exit", "/quit", "/exit", " Quit ", "exit()", "bye", "/bye", "\\q"])
def test_words_that_leave_a_chat(model_folder: Path, word: str) -> None:
    result = invoke("chat", str(model_folder), "--max-new-tokens", "2", input=f"{word}\nnever asked\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "", "nothing was sent to the model"
    assert "quit to leave" in result.stderr


def test_a_sentence_with_such_a_word_is_a_message(model_folder: Path) -> None:
    result = invoke("chat", str(model_folder), "--max-new-tokens", "2", input="quit smoking\n")
    assert result.stdout.strip()


def test_eval_of_a_file_alone(here: Path, model_folder: Path) -> None:
    alone = json.loads(invoke("eval", str(model_folder), "validation_file=eval.jsonl", "--json").stdout)
    bare = json.loads(invoke("eval", str(model_folder), "eval.jsonl", "--json").stdout)
    beside = json.loads(
        invoke("eval", str(model_folder), "train_file=qa.csv", "validation_file=eval.jsonl", "--json").stdout
    )
    assert alone["metrics"] == bare["metrics"] == beside["metrics"]
    assert alone["n_items"] == 4


def test_eval_of_a_text(here: Path, model_folder: Path) -> None:
    import torch

    text = "def add(a, b):\n    return a + b\n"
    result = invoke("eval", str(model_folder), "--text", text, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    model, tokenizer = hone.load(model_folder)
    ids = torch.tensor([[*tokenizer.encode(text), tokenizer.eos_token_id]])
    with torch.no_grad():
        expected = float(model(input_ids=ids, labels=ids).loss)
    assert found["metrics"]["loss"]["value"] == pytest.approx(expected, rel=1e-4)
    both = invoke("eval", str(model_folder), "--text", text, "--text", "x = 1\n", "--json")
    assert json.loads(both.stdout)["n_items"] == 2


# ---- positions, precision, memory, network -------------------------------------------------------------------------


@pytest.fixture
def short_model(tmp_path: Path, tiny_model: Any, tokenizer: Any) -> Path:
    folder = tmp_path / "short"
    tiny_model("gpt2", n_positions=128).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_max_length_is_the_models_window_where_nobody_set_it(
    here: Path, short_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from hone.models.fallback import with_fallback

    keys = {"model_name_or_path": str(short_model), "train_file": "data.jsonl"}
    assert with_fallback(hone.load_config(keys)).data.max_length == 128
    assert "max_length=128" in caplog.text
    assert with_fallback(hone.load_config({**keys, "max_length": 64})).data.max_length == 64
    assert with_fallback(hone.load_config({**keys, "max_length": 512})).data.max_length == 512, (
        "for the model to refuse"
    )
    scratch = {"model_type": "gpt2", "tokenizer_name_or_path": "x", "config_overrides": {"n_positions": 96}}
    assert with_fallback(hone.load_config(scratch)).data.max_length == 96
    result = invoke("eval", str(short_model), "book.txt")
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_a_run_of_128_positions_is_tuned_further(here: Path, short_model: Path) -> None:
    result = invoke("train", f"model_name_or_path={short_model}", "data.jsonl", "max_steps=1", "sample_prompts=0")
    assert result.exit_code == 0, result.output
    assert "max_length: 128" in Path("out/config.resolved.yaml").read_text()


def test_fp16_without_cuda_is_refused(here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.accelerations.precision.best_device", lambda use_cpu=False: "cpu")
    refused("check", "data.jsonl", "use_cpu=true", "fp16=true", says=["use_cpu", "remove fp16", "bf16"])
    for command in ("check", "plan", "train"):
        refused(command, "data.jsonl", "fp16=true", says=["fp16 needs a CUDA GPU", "remove fp16", "bf16"])
    monkeypatch.setattr("hone.accelerations.precision.best_device", lambda use_cpu=False: "cuda")
    assert invoke("check", "data.jsonl", "fp16=true").exit_code == 0


def out_of_memory_errors() -> list[BaseException]:
    import torch

    return [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you …"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000000 bytes."),
        MemoryError(),
    ]


@pytest.mark.parametrize("error", out_of_memory_errors(), ids=lambda error: str(error)[:12])
def test_out_of_memory_is_one_message(here: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(config: Any) -> None:
        raise error

    monkeypatch.setattr(hone, "train", fails)
    result = invoke("train", "data.jsonl")
    assert result.exit_code == 1, result.exception
    said = result.stderr
    assert "error: out of memory" in said and "docs/troubleshooting.md" in said
    ladder = list(re.findall(r"^    (\w+)=", said, re.M))
    assert ladder[:3] == ["eval_tokens_per_batch", "micro_batch_tokens", "gradient_checkpointing"]
    assert set(ladder) <= {leaf for section in Config().model_dump().values() for leaf in section}


def test_other_errors_keep_their_traceback() -> None:
    def fails(settings: Any = None) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        guarded(fails)()


def test_a_data_set_out_of_reach_is_one_message_at_once(
    here: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "in_reach", lambda: asked.append("x") or False)
    began = time.process_time()
    settings = ("dataset_name=owner/nothing", "max_length=64", "learning_rate=1e-3")
    result = invoke("prepare", f"model_name_or_path={model_folder}", *settings)
    assert result.exit_code == 1, result.output
    assert "owner/nothing: cannot read the data set" in result.stderr
    assert "the hub cannot be reached" in result.stderr and "train_file=FILE" in result.stderr
    assert "Retry" not in result.stderr and len(result.stderr.splitlines()) == 2
    assert asked and time.process_time() - began < 30


@pytest.mark.slow
def test_train_on_a_data_file_from_end_to_end(here: Path) -> None:
    """In a process of its own, as it is typed; and once more, which shows the finished run."""
    words = ["train", "qa.csv", "max_steps=1", "sample_prompts=0", "use_cpu=true", "bf16=false"]
    command = [sys.executable, "-m", "hone", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=300)
    assert done.returncode == 0, done.stderr
    assert "hone-base" in done.stderr and "Traceback" not in done.stderr
    again = invoke(*words)
    assert again.exit_code == 0 and "hone-base" in again.stderr and "is finished" in again.stderr, again.output
    assert (here / "runs" / "qa" / "report.html").is_file()


def test_notes_of_a_command_line_go_to_stderr(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = shared.config_of(["data.jsonl"])
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("note: no model given")
    assert config.where("learning_rate") == "assumed"
