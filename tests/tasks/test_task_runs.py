"""What holds for causal runs holds for both tasks alike: accumulation and resuming."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import hone
from conftest import SIGNALS
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
def test_sigterm_then_the_same_command_ends_bit_identical(
    task: str, tmp_path: Path, tokenizer: Any, write_rows: Any
) -> None:
    """With dropout, in the middle of an epoch."""
    config = settings(
        task, tmp_path, tokenizer, write_rows, n=60, num_train_epochs=4.0, per_device_train_batch_size=3,
        eval_strategy="steps", eval_steps=15, save_strategy="steps", save_steps=20, learning_rate=1e-3,
        eval_generate_samples=2, bf16=False,
    )  # fmt: skip
    config["config_overrides"] = GPT2 if task == "classification" else {**T5, "dropout_rate": 0.1}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    hone.train(hone.load_config(path, [f"output_dir={tmp_path / 'whole'}"]))
    command = [sys.executable, "-m", "hone", "train", str(path), f"output_dir={tmp_path / 'broken'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics, deadline = tmp_path / "broken" / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.is_file() or len(metrics.read_text().splitlines()) < 25):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert not (tmp_path / "broken" / "model.safetensors").is_file()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming from checkpoint-" in again.stderr
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("broken", "whole")]
    assert files[0] == files[1]
