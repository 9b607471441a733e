"""Bad input of classification and seq2seq, through the command line; and what `hone predict` reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_tasks import BART, labelled_rows, pair_rows

pytest_plugins = ["spoiled"]

CLASSIFY = ("task=classification",)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_missing_label_column(hone: Any, refused: Any) -> None:
    refused(hone("train", "cfg.yaml", *CLASSIFY), "train.jsonl:1", "no known form in columns: text", "text+label")
    refused(hone("train", "cfg.yaml", "task=seq2seq"), "train.jsonl:1", "source+target", "prompt+completion")


def test_a_row_without_a_label(project: Path, hone: Any, refused: Any) -> None:
    rows = labelled_rows(20)
    write_lines(project / "train.jsonl", [*rows[:4], {"text": "x"}, *rows[4:]])
    refused(hone("train", "cfg.yaml", *CLASSIFY), "train.jsonl:5", "mixed forms")
    for bad, word in ((None, "must be a class name"), (1.5, "must be a class name"), ("  ", "label is empty")):
        write_lines(project / "train.jsonl", [*rows[:4], {"text": "x", "label": bad}, *rows[4:]])
        refused(hone("train", "cfg.yaml", *CLASSIFY), "train.jsonl:5", word)
    assert not (project / "out").exists()


def test_one_class_only(project: Path, hone: Any, refused: Any) -> None:
    write_lines(project / "train.jsonl", [{**row, "label": "spam"} for row in labelled_rows(20)])
    message = refused(hone("train", "cfg.yaml", *CLASSIFY), "all training rows have the label 'spam'")
    assert "cfg.yaml:2" in message


def test_an_unseen_label_in_the_validation_rows(project: Path, hone: Any, refused: Any) -> None:
    write_lines(project / "train.jsonl", labelled_rows(20))
    write_lines(project / "val.jsonl", [*labelled_rows(24)[20:], {"text": "so so", "label": "even"}])
    command = ("train", "cfg.yaml", *CLASSIFY, "validation_file=val.jsonl")
    refused(hone(*command), "val.jsonl:5", "label 'even' does not occur", "'bad', 'good'")
    skipped = hone("prepare", *command[1:], "on_bad_row=skip", "--json")
    assert skipped.exit_code == 0, skipped.output
    assert "label 'even'" in json.loads(skipped.stdout)["dropped"][0]["reason"]


def test_a_label_the_model_does_not_know_at_eval(project: Path, hone: Any, refused: Any) -> None:
    write_lines(project / "train.jsonl", labelled_rows(30))
    done = hone("train", "cfg.yaml", *CLASSIFY)
    assert done.exit_code == 0, done.output
    write_lines(project / "other.jsonl", [{**row, "label": row["label"].upper()} for row in labelled_rows(20)])
    refused(hone("eval", "out", "train_file=other.jsonl"), "does not know the class", "bad, good")
    refused(
        hone("eval", "out", "task=causal", "train_file=other.jsonl", "column_mapping={text: text}"),
        "rows of text+label",
    )
    refused(hone("eval", "model", "cfg.yaml", *CLASSIFY), "is a decoder", "needs a model that can classify")


def test_a_model_that_cannot_do_the_task(project: Path, hone: Any, refused: Any) -> None:
    write_lines(project / "train.jsonl", pair_rows(20))
    refused(hone("train", "cfg.yaml", "task=seq2seq"), "an encoder-decoder, such as t5")
    scratch = ("model_name_or_path=null", "tokenizer_name_or_path=./model")
    refused(hone("train", "cfg.yaml", "task=seq2seq", "model_type=gpt2", *scratch), "'gpt2' is not an encoder-decoder")
    refused(hone("predict", "model", "--text", "x"), "GPT2LMHeadModel is not a classifier", "hone generate")
    assert not (project / "out").exists()


def test_keys_that_contradict_the_task(hone: Any, refused: Any) -> None:
    refused(hone("check", "cfg.yaml", *CLASSIFY, "batching=windows"), "batching: windows is for task: causal")
    refused(hone("check", "cfg.yaml", *CLASSIFY, "on_long_row=split"), "on_long_row: split is for task: causal")
    refused(hone("check", "cfg.yaml", "task=seq2seq", "template=chat"), "template: chat")
    result = hone("check", "cfg.yaml", "class_weights=balanced")
    assert "class_weights has no effect with task: causal" in result.stderr


def test_target_lengths_the_model_does_not_have(project: Path, hone: Any, refused: Any) -> None:
    write_lines(project / "train.jsonl", pair_rows(20))
    overrides = json.dumps(BART)
    command = ("train", "cfg.yaml", "task=seq2seq", "model_name_or_path=null", "model_type=bart")
    command += ("tokenizer_name_or_path=./model", f"config_overrides={overrides}", "max_target_length=65")
    refused(hone(*command), "max_target_length is 65, but the model has 64 positions")


def test_token_files_have_no_labels(project: Path, hone: Any, refused: Any) -> None:
    import numpy as np

    np.arange(100, dtype=np.uint16).tofile(project / "train.bin")
    refused(hone("train", "cfg.yaml", *CLASSIFY, "train_file=train.bin"), "token files (.bin) have no rows")


@pytest.mark.slow
def test_predict_reads_texts_from_everywhere(project: Path, hone: Any, refused: Any) -> None:
    write_lines(project / "train.jsonl", labelled_rows(60))
    overrides = ("num_train_epochs=6", "learning_rate=3e-3", "max_steps=-1", "eval_base=false")
    done = hone("train", "cfg.yaml", *CLASSIFY, *overrides)
    assert done.exit_code == 0, done.output
    result = hone("predict", "out", "--text", "day 1 is sunny", "--text", "day 2 is sad")
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["good", "bad"]
    result = hone("predict", "out", "--json", stdin="day 2 is sad\n\nday 1 is sunny\n")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["label"] for row in rows] == ["bad", "good"]
    assert rows[0]["probability"] == max(rows[0]["probabilities"].values())
    (project / "texts.txt").write_text("day 1 is sunny\n" * 3)
    assert hone("predict", "out", "texts.txt").stdout.count("good") == 3
    assert hone("predict", "out", "train.jsonl").stdout.count("bad") == 20
    long = hone("predict", "out", "--text", "day 1 is sunny " * 60)
    assert "was cut" in long.stderr
    refused(hone("predict", "out", stdin="\n"), "no texts")
    refused(hone("predict", "out", "texts.txt", "--text", "x"), "both --text and a file")
    refused(hone("predict", "out", "nothere.txt"), "no such file")
    write_lines(project / "no.jsonl", [{"body": "x"}])
    refused(hone("predict", "out", "no.jsonl"), "no.jsonl:1: no column of texts: expected 'text'; found: body")
    write_lines(project / "no.jsonl", [{"text": "day 1"}, {"text": " "}])
    refused(hone("predict", "out", "no.jsonl"), "no.jsonl:2: the row has no text in its column 'text'")
    refused(hone("predict", "out", stdin=b"\xff\xfe"), "stdin: not UTF-8")


def test_a_task_that_there_is_not(hone: Any, refused: Any) -> None:
    for command in ("check", "train", "prepare", "plan"):
        refused(hone(command, "cfg.yaml", "task=clasification"), "unknown task", "did you mean 'classification'?")
