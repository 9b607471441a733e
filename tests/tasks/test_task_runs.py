"""What holds for causal runs holds for both tasks alike: accumulation and resuming."""

import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import hone
from conftest import SIGNALS, sigterm_at
from hone.errors import Interrupted
from tiny_tasks import GPT2, GPT2_DRY, QUIET, T5, labelled_rows, pair_rows


def settings(task: str, tmp_path: Path, tokenizer: Any, write_rows: Any, n: int = 24, **more: Any) -> dict[str, Any]:
    rows = labelled_rows if task == "classification" else pair_rows
    tokenizer.save_pretrained(tmp_path / "tok")
    return {
        **QUIET,
        "task": task,
        "model_type": "gpt2" if task == "classification" else "t5",
        "config_overrides": GPT2_DRY if task == "classification" else T5,
        "tokenizer_name_or_path": str(tmp_path / "tok"),
        "train_file": str(write_rows("train.jsonl", rows(n))),
        "validation_file": str(write_rows("val.jsonl", rows(n + 6)[n:])),
        "max_target_length": 16,
        **more,
    }


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "seq2seq"])
def test_accumulation_8x1_equals_1x8(task: str, tmp_path: Path, tokenizer: Any, write_rows: Any) -> None:
    """Uneven targets, uneven class weights: a mean of means would differ. Loss 1e-5, weights 1e-6 (float32 sums)."""
    common = settings(task, tmp_path, tokenizer, write_rows, num_train_epochs=2.0, learning_rate=0.05, optim="sgd")
    if task == "classification":
        common["class_weights"] = "balanced"
    runs = []
    for micro, accumulate in ((8, 1), (1, 8)):
        out = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulate}
        runs.append(hone.train(hone.load_config({**common, **out, "output_dir": str(tmp_path / f"{micro}")})))
    logs = [[line["loss"] for line in run.metric_lines() if "loss" in line] for run in runs]
    assert len(logs[0]) == 6
    for a, b in zip(*logs, strict=True):
        assert math.isclose(a, b, abs_tol=1e-5)
    one, other = (load_file(run.folder / "model.safetensors") for run in runs)
    for name, tensor in one.items():
        assert float((tensor - other[name]).abs().max()) <= 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "seq2seq"])
@SIGNALS
def test_sigterm_then_the_same_call_ends_bit_identical(
    task: str, tmp_path: Path, tokenizer: Any, write_rows: Any
) -> None:
    """With dropout, in the middle of an epoch."""
    common = settings(
        task, tmp_path, tokenizer, write_rows, n=60, num_train_epochs=4.0, per_device_train_batch_size=3,
        eval_strategy="steps", eval_steps=15, save_strategy="steps", save_steps=20, learning_rate=1e-3,
        eval_generate_samples=2, bf16=False,
    )  # fmt: skip
    common["config_overrides"] = GPT2 if task == "classification" else {**T5, "dropout_rate": 0.1}

    def config(name: str) -> Any:
        return hone.load_config({**common, "output_dir": str(tmp_path / name)})

    whole = hone.train(config("whole"))
    with pytest.raises(Interrupted, match="stopped at step 26"):
        hone.train(config("broken"), callbacks=[sigterm_at(25)])
    assert not (tmp_path / "broken" / "model.safetensors").is_file()
    broken = hone.train(config("broken"))
    files = [(run.folder / "model.safetensors").read_bytes() for run in (broken, whole)]
    assert files[0] == files[1]
