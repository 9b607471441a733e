"""A training of a tiny model leaves its report, with the numbers that its own files have."""

from pathlib import Path
from typing import Any

import hone
from conftest import pairs
from hone.report.build import build_report
from hone.report.folder import read_folder


def test_a_training_leaves_its_report(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    config = hone.load_config(
        {
            "model_name_or_path": str(model_folder),
            "train_file": str(write_rows("train.jsonl", pairs(24))),
            "validation_file": str(write_rows("val.jsonl", pairs(40)[30:])),
            "use_cpu": True,
            "max_length": 128,
            "logging_steps": 1,
            "num_train_epochs": 1,
            "sample_prompts": 2,
            "sample_max_new_tokens": 4,
            "save_strategy": "no",
            "output_dir": str(tmp_path / "run"),
        }
    )
    run = hone.train(config)
    assert run.tuned and run.comparison
    loss = run.tuned.metrics["loss"]
    shown = f"{loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}]"
    for name in ("report.html", "report.md"):
        text = (run.folder / name).read_text(encoding="utf-8")
        assert shown in text and "train.jsonl" in text and "24 training examples" in text
    report = build_report(read_folder(run.folder))
    assert report.notes == []
    assert report.verdict.word.lower() == run.comparison.verdict
