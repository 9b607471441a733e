"""What is said on the log: the usual lines as they are, a ruined model's perplexity by its power of ten."""

import logging
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hone.training.callbacks import MetricsLog, Progress


@pytest.mark.parametrize(
    ("perplexity", "said"),
    [(27.3391, "27.3391"), (6475.77, "6475.7700"), (999_999.0, "999999.0000"), (5.2e113, "5e+113")],
)
def test_a_huge_perplexity_is_said_by_its_power_of_ten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, perplexity: float, said: str
) -> None:
    lines = MetricsLog(tmp_path / "metrics.jsonl", Progress(), 1.0, 1.0, lambda: 0)
    state = TrainerState(global_step=5, epoch=0.5)
    logs = {"eval_loss": 3.3083, "eval_perplexity": perplexity}
    with caplog.at_level(logging.INFO, logger="hone"):
        lines.on_log(TrainingArguments(output_dir=str(tmp_path)), state, TrainerControl(), logs=logs)
    assert caplog.messages == [f"step 5  validation loss 3.3083  perplexity {said}"]
    assert str(perplexity) in (tmp_path / "metrics.jsonl").read_text(), "the file keeps the number"
