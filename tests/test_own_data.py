"""What people who bring their own tables and texts meet: each mistake is named, and each line says what to type."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone.cli import app
from hone.data.records import recognise
from hone.errors import HoneError
from hone.inference import predict as predicting
from written_run import write_run


def said(*arguments: str, code: int = 1) -> str:
    """What a command prints to stderr; it ends with `code`, and without a traceback."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit | type(None)), result.exception
    return str(result.stderr)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


# ---- Python --------------------------------------------------------------------------------------------------------


def test_predict_takes_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(predicting, "ready_classifier", lambda name: (None, None))
    monkeypatch.setattr(predicting, "predict", lambda model, tokenizer, texts, length: asked.append(list(texts)) or [])
    hone.predict("run", "I was charged")
    hone.predict("run", ["a", "b"])
    assert asked == [["I was charged"], ["a", "b"]]


@pytest.mark.parametrize("lines", ["", '{"step": 1, "eval_loss": 2.0}\n'])
def test_metrics_have_their_columns_where_nothing_was_logged(here: Path, lines: str) -> None:
    run = hone.Run(write_run(here / "run"))
    (run.folder / "metrics.jsonl").write_text(lines)
    frame = run.metrics()
    assert {"step", "epoch", "loss", "eval_loss"} <= set(frame.columns)
    assert frame["loss"].dropna().empty


def test_a_data_frame_is_answered_with_the_line_that_writes_it() -> None:
    import pandas

    with pytest.raises(HoneError, match=r'df\.to_json\("rows\.jsonl", orient="records", lines=True\)'):
        hone.train(pandas.DataFrame(pairs(3)))  # type: ignore[arg-type]


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("unable to mmap 12 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    ],
    ids=["errno", "mmap"],
)
def test_no_memory_to_load_a_model_is_out_of_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    from transformers import AutoModelForCausalLM

    def fails(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fails)
    message = said("generate", "hone-base", "x")
    assert "error: out of memory" in message and "did you mean" not in message


# ---- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tsv.tsv", "q.xlsx"])
def test_a_table_of_another_kind_is_data(name: str) -> None:
    Path(name).write_text("question\tanswer\na\tb\n")
    message = said("check", name)
    assert f"unknown kind of file '{Path(name).suffix}'" in message
    assert "as CSV" in message and "accepted: .jsonl" in message


def test_another_separator_is_named() -> None:
    Path("semi.csv").write_text("question;answer\na;b\n")
    assert "separated by ';'" in said("check", "semi.csv")


@pytest.mark.parametrize(
    "columns, mapping",
    [
        (["Question", " Answer"], {"instruction": "Question", "output": " Answer"}),
        (["Prompt ", "completion"], {"prompt": "Prompt "}),
        (["Text", "Label"], {"text": "Text", "label": "Label"}),
        (["Instruction", "Input", "Output"], {"instruction": "Instruction", "input": "Input", "output": "Output"}),
    ],
)
def test_headers_are_known_whatever_their_case(columns: list[str], mapping: dict[str, str]) -> None:
    assert recognise(columns, {})[1] == mapping


def test_case_does_not_hide_a_context() -> None:
    with pytest.raises(HoneError, match="no known form"):
        recognise(["Question", "Context", "Answer"], {})


def test_labelled_rows_of_a_causal_training_are_named_by_their_columns() -> None:
    write("x.jsonl", [{"text": "a", "label": "b"}])
    message = said("check", "x.jsonl", "task=causal")
    assert "cannot format rows of text+label" in message and "Labelled" not in message


@pytest.mark.parametrize("command", ["check", "prepare"])
def test_a_wrong_name_in_column_mapping_is_named_by_its_line(command: str) -> None:
    Path("q.csv").write_text("question,answer\na,b\nc,d\n")
    lines = ["model_name_or_path: hone-base", "train_file: q.csv", "column_mapping: {promt: question}"]
    Path("causal.yaml").write_text("\n".join(lines) + "\n")
    message = said(command, "causal.yaml")
    assert "causal.yaml:3: column_mapping has an unknown name 'promt'" in message
    assert "did you mean 'prompt'?" in message


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        (["headline", "text"], "headline"),
        (["text", "id"], "text"),
        (["id", "Review"], "Review"),
        (["sentence", "label"], "sentence"),
        (["review", "comment"], None),
        (["body"], None),
    ],
)
def test_predict_reads_the_column_that_was_trained_on(tmp_path: Path, columns: list[str], taken: str | None) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.resolved.yaml").write_text("column_mapping: {text: headline, label: kind}\n")
    write("new.jsonl", [{name: f"of {name}" for name in columns}])
    if taken:
        assert predicting.read_texts(Path("new.jsonl"), tmp_path / "run") == [f"of {taken}"]
        return
    with pytest.raises(HoneError, match="no column of texts: expected 'headline'") as caught:
        predicting.read_texts(Path("new.jsonl"), tmp_path / "run")
    assert "new.jsonl:1" in str(caught.value) and f"found: {', '.join(columns)}" in str(caught.value)


# ---- rows to measure that are not those of the run ------------------------------------------------------------------


def test_rows_given_to_eval_are_read_alone_and_by_their_own_columns() -> None:
    write("general.jsonl", [{"text": f"There are {i} words in this sentence."} for i in range(3)])
    lines = [
        "model_name_or_path: hone-base",
        "train_file: gone.csv",
        "column_mapping: {prompt: mail, completion: reply}",
    ]
    Path("run.yaml").write_text("\n".join(lines) + "\n")
    result = CliRunner().invoke(app, ["eval", "hone-base", "run.yaml", "validation_file=general.jsonl", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_items"] == 3


def test_a_mapping_of_other_columns_is_not_applied() -> None:
    mapping = {"prompt": "mail", "completion": "reply"}
    assert recognise(["text"], mapping) == ("text", {})
    with pytest.raises(HoneError, match="does not have"):
        recognise(["text", "mail"], mapping)
    write("general.jsonl", pairs(3))
    message = said("check", "general.jsonl", "column_mapping={prompt: mail, completion: reply}", code=0)
    assert "column_mapping is not applied" in message


# ---- check ---------------------------------------------------------------------------------------------------------


def test_check_counts_what_training_would_drop() -> None:
    write("some.jsonl", [*pairs(3), {"prompt": "a", "completion": " "}])
    assert "dropped: 1 × empty output: nothing to learn (" in said("check", "some.jsonl", code=0)


def labelled(*labels: str) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def test_check_looks_at_labels() -> None:
    write("x.jsonl", labelled("billing", "technical", "billing", "technical", "tehnical", " billing"))
    message = said("check", "x.jsonl", code=0)
    assert "billing 2" in message and "technical 2" in message
    assert "x.jsonl:5: label 'tehnical' has one row; did you mean 'technical'?" in message
    assert "x.jsonl:6: label ' billing' has blanks around it" in message
    write("empty.jsonl", labelled("a", "b", " "))
    assert "empty.jsonl:3: the label is empty" in said("check", "empty.jsonl")
    write("held.jsonl", labelled("billing", "other"))
    message = said("check", "train_file=x.jsonl", "validation_file=held.jsonl")
    assert "held.jsonl:2: label 'other' does not occur in the training rows" in message


# ---- what Python shows of prepared rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["causal", "classification"])
def test_prepared_rows_are_shown_in_a_line(task: str) -> None:
    labelled = [{"text": f"{i} a word", "label": "ab"[i % 2]} for i in range(20)]
    asked = [{"prompt": f"{i} a ", "completion": "word"} for i in range(20)]
    write("rows.jsonl", labelled if task == "classification" else asked)
    found = hone.prepare(model_name_or_path="hone-base", train_file="rows.jsonl", task=task, max_length=64)
    assert "array" not in repr(found) and len(repr(found)) < 400
    kind = "LabelledDataset" if task == "classification" else "TokenDataset"
    assert f"train={kind}({len(found.train)} examples, {found.train.n_tokens} tokens, " in repr(found)
    assert f"validation={kind}(" in str(found) and "template='plain'" in str(found)


# ---- few rows to train on ------------------------------------------------------------------------------------------

FEW = "to train on. A model learns the form of so few at most, and soon repeats them: 50 make a beginning, 400 are"


@pytest.mark.parametrize(
    ("settings", "n"),
    [
        (("validation_split_percentage=0",), 54),
        ((), 49),  # a tenth is held out
        (("max_train_samples=8",), 8),
        (("validation_file=held.jsonl",), 54),
    ],
)
def test_check_and_prepare_say_that_few_rows_are_trained_on(settings: tuple[str, ...], n: int) -> None:
    write("some.jsonl", pairs(54))
    write("held.jsonl", pairs(4))
    noted = said("check", "train_file=some.jsonl", *settings, code=0)
    assert noted.count(f"only {n} examples {FEW}") == (n < 50), noted
    result = CliRunner().invoke(app, ["prepare", "train_file=some.jsonl", *settings])
    counted = int(result.stdout.split(" training examples")[0].split()[-1].replace(",", ""))
    assert result.stdout.count(f"only {counted} examples {FEW}") == (counted < 50), result.stdout


def test_rows_that_contamination_leaves_are_counted() -> None:
    texts = [
        f"The answer to question {i} is {i * i}, as everybody can work out alone {i + 7} times." for i in range(60)
    ]
    write("all.jsonl", [{"text": text} for text in texts])
    write("held.jsonl", [{"text": text} for text in texts[:59]])
    result = CliRunner().invoke(app, ["prepare", "train_file=all.jsonl", "validation_file=held.jsonl", "overlap=drop"])
    assert f"only 1 example {FEW}" in result.stdout, result.output


def test_texts_that_are_cut_are_not_counted_by_check(here: Path) -> None:
    Path("book.txt").write_text("It was the best of times. " * 600)
    assert FEW not in said("check", "book.txt", code=0)
    assert FEW in said("check", "book.txt", "on_long_row=truncate", code=0)
