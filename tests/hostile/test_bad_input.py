"""Bad input of many kinds, through the command line: one clear message, exit code 1, nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]

SCRATCH = ("model_name_or_path=null", "model_type=gpt2", "tokenizer_name_or_path=./model")


def add_to_config(project: Path, line: str) -> str:
    """Append a line to cfg.yaml; its place as messages name it."""
    path = project / "cfg.yaml"
    text = path.read_text()
    path.write_text(f"{text}{line}\n")
    return f"cfg.yaml:{len(text.splitlines()) + 1}: "


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def pair(prompt: str, completion: str) -> str:
    return json.dumps({"prompt": prompt, "completion": completion})


# ---- the configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lerning_rate: 1e-4", ("unknown key 'lerning_rate'", "did you mean 'learning_rate'")),
        ("learning_rate: fast", ("learning_rate must be a number, greater than 0", "'fast'")),
        ("learning_rate: -1e-4", ("greater than 0", "-0.0001")),
        ("max_length: 32", ("duplicate key 'max_length'", "cfg.yaml:3", "remove one")),
        ("lora_dropout: 1.5", ("lora_dropout must be a number, at least 0, less than 1, not 1.5",)),
        ("num_train_epochs: 0", ("num_train_epochs", "greater than 0")),
        ("optim: [adamw", ("not valid YAML",)),
    ],
    ids=["unknown-key", "wrong-type", "negative", "duplicate", "beyond-bounds", "zero-epochs", "broken-yaml"],
)
def test_a_wrong_line_is_named(project: Path, hone: Hone, refused: Refused, line: str, words: tuple[str, ...]) -> None:
    place = add_to_config(project, line)
    message = refused(hone("train", "cfg.yaml"), *words)
    assert place in message or "not valid YAML" in message
    assert not (project / "out").exists()


def test_max_length_1_is_refused_on_the_command_line(hone: Hone, refused: Refused) -> None:
    refused(hone("train", "cfg.yaml", "max_length=1"), "command line: max_length", "at least 2")


def test_yaml_1_2_numbers_and_no_are_accepted(project: Path, hone: Hone) -> None:
    """`1e-4` is text and `no` is false to YAML 1.1 readers; people mean a number and a name."""
    from hone.config.load import load_config

    add_to_config(project, "learning_rate: 1e-4")
    result = hone("check", "cfg.yaml", "--all")
    assert result.exit_code == 0, result.stderr
    assert "learning_rate: 0.0001\n" in result.stdout
    assert 'eval_strategy: "no"\n' in result.stdout
    config = load_config("cfg.yaml")
    assert (config.train.learning_rate, config.train.eval_strategy) == (1e-4, "no")


def test_a_folder_a_missing_file_and_nothing_are_no_configuration(hone: Hone, refused: Refused) -> None:
    refused(hone("train", "model"), "model: is a folder", "YAML")
    refused(hone("train", "nothere.yaml"), "nothere.yaml: no such file", "hone init")
    refused(hone("train", "seed=1", "cfg.yaml"), "'cfg.yaml' is out of place", "before the settings")
    refused(hone("train"), "no model", "no training data", "train_file")


# ---- the rows -----------------------------------------------------------------------------------------------------


def test_a_missing_file_leaves_no_output_folder(project: Path, hone: Hone, refused: Refused) -> None:
    refused(hone("train", "cfg.yaml", "train_file=nothere.jsonl"), "nothere.jsonl: no such file or folder", ".jsonl")
    assert not (project / "out").exists()


def test_an_empty_file(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "train.jsonl").write_bytes(b"")
    refused(hone("train", "cfg.yaml"), "train.jsonl: the file is empty")
    assert not (project / "out").exists()


def test_one_malformed_line_in_ten_thousand(project: Path, hone: Hone, refused: Refused) -> None:
    lines = [json.dumps({"text": f"n{i}"}) for i in range(10_000)]
    lines[6172] = '{"text": "cut o'
    write_lines(project / "train.jsonl", lines)
    refused(hone("prepare", "cfg.yaml"), "train.jsonl:6173: not valid JSON", "on_bad_row=skip")
    result = hone("prepare", "cfg.yaml", "on_bad_row=skip")
    assert result.exit_code == 0, result.output
    assert "dropped 1 × not valid JSON" in result.stdout
    assert "train.jsonl:6173" in result.stdout


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"txt": "a"}', ("mixed forms", "text", "txt", "on_bad_row=skip")),
        (pair("a", "b"), ("mixed forms", "the first row is text", "prompt, completion")),
        ('{"text": ["a"]}', ("column 'text' must be text, not list",)),
        ("3", ("must be a JSON object", "a number")),
    ],
    ids=["wrong-column", "mixed-forms", "wrong-value", "no-object"],
)
def test_a_bad_row_names_file_and_line(
    project: Path, hone: Hone, refused: Refused, bad: str, words: tuple[str, ...]
) -> None:
    lines = (project / "train.jsonl").read_text().splitlines()
    write_lines(project / "train.jsonl", [*lines[:3], bad, *lines[3:]])
    refused(hone("train", "cfg.yaml"), "train.jsonl:4: ", *words)
    assert not (project / "out").exists()
    result = hone("prepare", "cfg.yaml", "on_bad_row=skip", "--json")
    assert [(entry["count"], entry["first"]) for entry in json.loads(result.stdout)["dropped"]] == [
        (1, [f"{project / 'train.jsonl'}:4"])
    ]


def test_columns_of_no_known_form(project: Path, hone: Hone, refused: Refused) -> None:
    write_lines(project / "train.jsonl", ['{"body": "a"}'])
    refused(hone("train", "cfg.yaml"), "train.jsonl:1: no known form in columns: body", "prompt+completion")
    (project / "a.csv").write_text("question,context,answer\na,b,c\n")
    refused(hone("train", "cfg.yaml", "train_file=a.csv"), "a.csv:", "question, context, answer", "column_mapping")


def test_invalid_utf_8(project: Path, hone: Hone, refused: Refused) -> None:
    path = project / "train.jsonl"
    path.write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n' + path.read_bytes())
    refused(hone("train", "cfg.yaml"), "train.jsonl:2: not UTF-8", "0xe9", "iconv")


def test_empty_texts_are_dropped_and_named_and_nothing_else_is_an_error(
    project: Path, hone: Hone, refused: Refused
) -> None:
    lines = (project / "train.jsonl").read_text().splitlines()
    write_lines(project / "train.jsonl", [*lines[:3], '{"text": ""}', *lines[3:]])
    result = hone("prepare", "cfg.yaml")
    assert result.exit_code == 0, result.output
    assert "dropped 1 × empty text" in result.stdout
    assert "train.jsonl:4" in result.stdout
    write_lines(project / "train.jsonl", ['{"text": ""}'] * 5)
    refused(hone("train", "cfg.yaml"), "no training rows are left", "5 × empty text", "train.jsonl:1")
    assert not (project / "out").exists()


def test_prompts_that_leave_no_room_for_an_answer(project: Path, hone: Hone, refused: Refused) -> None:
    write_lines(project / "train.jsonl", [pair("a word and another " * 40, f"answer {i}") for i in range(8)])
    message = refused(hone("train", "cfg.yaml"), "cfg.yaml:3: no example is left", "max_length 64", "raise max_length")
    assert "nothing to supervise" in message
    assert not (project / "out").exists()


def test_windows_longer_than_every_text(hone: Hone, refused: Refused) -> None:
    refused(hone("train", "cfg.yaml", "batching=windows"), "max_length 64", "remainders", "lower max_length")


def test_no_validation_rows_is_a_warning_unless_they_were_asked_for(
    project: Path, hone: Hone, refused: Refused
) -> None:
    result = hone("train", "cfg.yaml", "validation_split_percentage=0")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("no validation rows: nothing will be measured") == 1
    refused(hone("eval", "out"), "no validation rows to measure", "validation_file=")
    best = (
        "validation_split_percentage=0",
        "load_best_model_at_end=true",
        "eval_strategy=epoch",
        "save_strategy=epoch",
    )
    refused(hone("train", "cfg.yaml", *best), "load_best_model_at_end needs validation data")
    write_lines(project / "val.jsonl", ['{"text": ""}'])
    named = ("validation_file=val.jsonl", "output_dir=other")
    refused(hone("train", "cfg.yaml", *named), "command line: no validation row is left", "empty text")


# ---- token files --------------------------------------------------------------------------------------------------


def test_token_files_of_odd_size_empty_or_mixed(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "odd.bin").write_bytes(b"abc")
    (project / "empty.bin").write_bytes(b"")
    refused(hone("train", "cfg.yaml", "train_file=odd.bin"), "odd.bin: 3 bytes", "uint16", "bin_dtype")
    refused(hone("train", "cfg.yaml", "train_file=empty.bin"), "empty.bin: the file is empty")
    refused(hone("train", "cfg.yaml", "train_file=[odd.bin, train.jsonl]"), "cannot be mixed")


def test_token_ids_beyond_the_vocabulary(project: Path, hone: Hone, refused: Refused) -> None:
    np.full(300, 50, dtype="<u2").tofile(project / "good.bin")
    np.full(300, 999, dtype="<u2").tofile(project / "bad.bin")
    assert hone("prepare", "cfg.yaml", "train_file=good.bin", "--show", "1").exit_code == 0
    for settings in (["train_file=bad.bin"], ["train_file=good.bin", "validation_file=bad.bin"]):
        refused(
            hone("train", "cfg.yaml", *settings), "command line: the token file has id 999", "embedding", "bin_dtype"
        )


@pytest.mark.parametrize("name", ["train.bin", "train.docs.npy", "meta.json"])
def test_a_damaged_token_store(project: Path, hone: Hone, name: str, caplog: pytest.LogCaptureFixture) -> None:
    arguments = ("prepare", "cfg.yaml", f"token_cache_dir={project / 'cache'}")
    assert hone(*arguments).exit_code == 0
    (path,) = (project / "cache").glob(f"*/{name}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert hone(*arguments).exit_code == 0
    assert f"{path.parent}: token store is damaged ({name}: " in caplog.text
    assert path.read_bytes() == whole, "it was written again"
    assert hone(*arguments).exit_code == 0 and caplog.text.count("store is damaged") == 1


# ---- models -------------------------------------------------------------------------------------------------------


def test_a_hub_name_without_a_network(project: Path, hone: Hone, refused: Refused) -> None:
    name = "model_name_or_path=nobody/nothing"
    refused(hone("train", "cfg.yaml", name), "nobody/nothing is not on this machine", "without a network")
    refused(hone("train", "cfg.yaml", name, "tokenizer_name_or_path=./model"), "nobody/nothing", "without a network")
    refused(hone("generate", "nobody/nothing", "-p", "x"), "nobody/nothing", "no folder of that name")
    assert not (project / "out").exists()


def test_a_model_folder_without_weights_or_with_pickled_ones(project: Path, hone: Hone, refused: Refused) -> None:
    (project / "model/model.safetensors").unlink()
    refused(hone("train", "cfg.yaml"), "model: the model folder has no weights", "model.safetensors", "copy")
    (project / "model/pytorch_model.bin").write_bytes(b"\x80\x04.")
    refused(hone("train", "cfg.yaml"), "pytorch_model.bin", "safetensors", "pickle is never loaded")
    refused(hone("check", "cfg.yaml"), "pytorch_model.bin")
    assert not (project / "out").exists()


def test_damaged_or_incomplete_weights(project: Path, hone: Hone, refused: Refused) -> None:
    from safetensors.torch import load_file, save_file

    path, config = project / "model/model.safetensors", project / "model/config.json"
    good, about = path.read_bytes(), config.read_text()
    path.write_bytes(good[:1000])
    refused(hone("generate", "model", "-p", "x"), "model: cannot load the model", "download it again")
    path.write_bytes(good)
    save_file({k: v for k, v in load_file(path).items() if ".h.1." not in k}, path, metadata={"format": "pt"})
    refused(hone("train", "cfg.yaml"), "weights are incomplete", "transformer.h.1.", "random")
    path.write_bytes(good)
    config.write_text(about.replace('"n_embd": 32', '"n_embd": 64'))
    refused(hone("train", "cfg.yaml"), "config.json and the weights differ", "(96,) there", "(192,) by config.json")


def test_a_tokenizer_larger_than_the_model(project: Path, hone: Hone, refused: Refused) -> None:
    from hone.data.tokenizer import save_tokenizer, train_bpe

    save_tokenizer(
        train_bpe([f"alpha{i} beta{i * 7} gamma delta" for i in range(300)] * 2, vocab_size=600), project / "tok"
    )
    message = refused(hone("train", "cfg.yaml", "tokenizer_name_or_path=./tok"), "command line: the tokenizer has")
    assert "rows" in message and "tokenizer_name_or_path" in message
    assert not (project / "out").exists()


def test_max_length_beyond_the_positions(project: Path, hone: Hone, refused: Refused) -> None:
    refused(hone("train", "cfg.yaml", "max_length=300"), "max_length is 300", "256 positions", "256 or less")
    assert not (project / "out").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["config_overrides={n_layr: 2}"], ("no key 'n_layr'", "did you mean 'n_layer'?")),
        (["config_overrides={n_layer: two}"], ("cannot build a gpt2 model", "n_layer", "two")),
        (["config_overrides={n_layer: -1}"], ("cannot build a gpt2 model", "-1 layers")),
        (["config_overrides={n_layer: 1, n_embd: 17, n_head: 2}"], ("cannot build a gpt2 model", "divisible")),
        (["config_overrides={n_layer: 1, vocab_size: 9}"], ("embedding only 9 rows", "remove vocab_size")),
        (["model_type=gtp2"], ("unknown model_type 'gtp2'", "did you mean 'gpt2'?")),
        (["model_type=t5"], ("'t5' is not a decoder", "gpt2")),
    ],
    ids=["unknown-override", "wrong-type", "negative", "indivisible", "vocabulary", "unknown-type", "encoder"],
)
def test_impossible_architectures(
    project: Path, hone: Hone, refused: Refused, settings: list[str], words: tuple[str, ...]
) -> None:
    refused(hone("train", "cfg.yaml", *SCRATCH, *settings), "command line: ", *words)
    assert not (project / "out").exists()


def test_a_lora_target_and_layers_that_do_not_exist(project: Path, hone: Hone, refused: Refused) -> None:
    place = add_to_config(project, "lora_target_modules: [q_proj]")
    refused(hone("train", "cfg.yaml", "method=lora"), place, "no linear layer 'q_proj'", "c_attn", "all-linear")
    freeze = ("method=freeze", "num_unfrozen_layers=9")
    refused(hone("train", "cfg.yaml", *freeze), "num_unfrozen_layers is 9", "2 blocks", "2 or less")
    assert not (project / "out").exists()


SMALL_RATE = "takes about 0.001 with method: full): learning_rate=0.001 "


def test_a_loss_that_is_no_number(project: Path, hone: Hone, refused: Refused) -> None:
    settings = ("learning_rate=1e6", "max_steps=8", "validation_split_percentage=0")
    refused(hone("train", "cfg.yaml", *settings), "the loss is nan at step", "with the rows train.jsonl:", SMALL_RATE)
    assert not (project / "out/model.safetensors").exists()
    assert json.loads((project / "out/status.json").read_text())["status"] == "failed"
    # the same when no step in between is logged, and no checkpoint of it is kept
    quiet = ("logging_steps=100", "output_dir=quiet")
    refused(hone("train", "cfg.yaml", *settings, *quiet), "training diverged", SMALL_RATE)
    saving = ("logging_steps=100", "save_strategy=steps", "save_steps=1", "output_dir=saving")
    refused(hone("train", "cfg.yaml", *settings, *saving), "checkpoint-", "has the last weights", "training diverged")
    assert len(list((project / "saving").glob("checkpoint-*"))) < 8
    assert not list(project.glob("*/model.safetensors"))[1:]  # but the base's


def test_a_tracker_or_a_checkpoint_that_is_not_there(project: Path, hone: Hone, refused: Refused) -> None:
    refused(hone("train", "cfg.yaml", "report_to=[nonsense]"), "tracker 'nonsense'", "remove report_to")
    refused(hone("train", "cfg.yaml", "resume_from_checkpoint=nothere"), "no complete checkpoint", "checkpoint-N")
    assert not (project / "out").exists()
