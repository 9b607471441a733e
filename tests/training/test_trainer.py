"""The engine's rules for data, evaluation and saving, mixed into a trainer with a loss of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hone.data.batches import EpochBatches
from hone.runs import Run
from hone.training.trainer import RunTrainer


class DoublingTrainer(Trainer):
    """Somebody else's trainer."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().compute_loss(model, inputs, *args, **kwargs)


class Mixed(RunTrainer, DoublingTrainer):
    def __init__(self, run: Run, **settings: Any) -> None:
        super().__init__(**settings)
        self.enter(run, measure=lambda model: {"loss": 0.5}, keep_checkpoints=1)


def test_another_trainer_can_have_them(tiny_model: Any, tmp_path: Path) -> None:
    rows = [{"input_ids": torch.tensor([i, 1, 2]), "labels": torch.tensor([i, 1, 2])} for i in range(7)]
    seen: list[int] = []

    def collate(items: list[Any]) -> dict[str, Any]:
        seen.extend(int(item["input_ids"][0]) for item in items)
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}

    args = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=2, num_train_epochs=2, save_steps=3,
        eval_strategy="epoch", report_to="none", disable_tqdm=True, seed=5,
    )  # fmt: skip
    trainer = Mixed(
        Run(tmp_path), model=tiny_model("gpt2"), args=args, train_dataset=rows, eval_dataset=rows, data_collator=collate
    )
    plain = float(trainer.model(**{key: value[None] for key, value in rows[0].items()}).loss)
    doubled = trainer.compute_loss(trainer.model, {key: value[None] for key, value in rows[0].items()})
    assert float(doubled) == pytest.approx(2 * plain, rel=1e-4)
    trainer.train()
    batches = EpochBatches(len(rows), 2, seed=5)
    expected = [i for batch in batches for i in batch]
    batches.set_epoch(1)
    assert seen == expected + [i for batch in batches for i in batch]
    assert [path.name for path in Run(tmp_path).checkpoints()] == ["checkpoint-8"], "the older ones went"
    assert [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line] == [0.5, 0.5]
