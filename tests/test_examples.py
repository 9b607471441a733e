"""The examples do what they say: the plain loop takes the same steps as the engine, and its model folder loads.

Same weights, same batches, float32, no dropout: each step's loss within 1e-5 of the engine's.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hone
from conftest import load_script, pairs

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def plain_loop() -> Any:
    return load_script(EXAMPLES / "plain_loop.py")


@pytest.mark.parametrize("unfrozen", [None, 1])
def test_plain_loop_trains_as_the_engine(
    unfrozen: int | None, plain_loop: Any, tmp_path: Path, model_folder: Path, write_rows: Any
) -> None:
    rows = write_rows("rows.jsonl", pairs(40))
    out = tmp_path / "plain"
    losses = plain_loop.train(
        model_folder, rows, out, epochs=3, learning_rate=3e-3, max_length=64, unfrozen=unfrozen, seed=7
    )
    settings = {
        "model_name_or_path": str(model_folder), "train_file": str(rows), "output_dir": str(tmp_path / "engine"),
        "max_length": 64, "num_train_epochs": 3, "learning_rate": 3e-3, "batching": "padded", "seed": 7,
        "use_cpu": True, "logging_steps": 1, "save_strategy": "no", "eval_strategy": "no", "sample_prompts": 0,
    } | ({} if unfrozen is None else {"method": "freeze", "num_unfrozen_layers": unfrozen})  # fmt: skip
    run = hone.train(hone.load_config(settings))
    expected = [line["loss"] for line in run.metric_lines() if "loss" in line]
    assert len(losses) == len(expected) > 10
    differences = [abs(a - b) for a, b in zip(losses, expected, strict=True)]
    assert max(differences) <= 1e-5, differences
    assert losses[-1] < losses[0] - 0.2, "it must learn, or equal losses show little"

    ids = torch.arange(1, 60)[None]
    with torch.no_grad():
        loaded, tokenizer = hone.load(out)
        logits = loaded(ids).logits
        torch.testing.assert_close(plain_loop.load_gpt2(out)(ids), logits, atol=1e-5, rtol=0)
        base, engine = (hone.load(folder)[0](ids).logits for folder in (model_folder, run.folder))
    assert float((logits - engine).abs().max()) < 0.02 < float((logits - base).abs().max())
    assert tokenizer.decode(tokenizer("add 1")["input_ids"]) == "add 1"


def test_plain_loop_measures_as_hone_does(plain_loop: Any, tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    rows = write_rows("rows.jsonl", pairs(40))
    config = hone.load_config({"model_name_or_path": str(model_folder), "train_file": str(rows), "use_cpu": True})
    mine = plain_loop.evaluate(plain_loop.load_gpt2(model_folder), hone.prepare(config).validation)
    assert math.isclose(mine, hone.evaluate(model_folder, config).value("loss"), abs_tol=1e-5)


def test_plain_loop_from_the_command_line(
    plain_loop: Any,
    tmp_path: Path,
    model_folder: Path,
    write_rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = write_rows("rows.jsonl", pairs(20))
    words = ["plain_loop.py", str(model_folder), str(rows), "--output", str(tmp_path / "out"), "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--unfrozen", "1", "--max-length", "64"])
    plain_loop.main()
    assert "epoch 1: loss" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "gpt2"
    monkeypatch.setattr(sys, "argv", [*words, "--unfrozen", "9"])
    with pytest.raises(SystemExit, match="error: 9 blocks to train, but the model has 2"):
        plain_loop.main()
