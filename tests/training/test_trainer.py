"""The engine's rules for data, evaluation and saving, mixed into a trainer with a loss of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import hone
from conftest import pairs
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


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["flat", "packed", "padded"])
def test_the_examples_of_a_step_are_known(
    batching: str, tmp_path: Path, model_folder: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the step at hand have as many tokens as the step counts: the message of a bad step names their rows."""
    config = hone.load_config(
        {"model_name_or_path": str(model_folder), "train_file": str(write_rows("rows.jsonl", pairs(22))), "bf16": False,
         "batching": batching, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "use_cpu": True,
         "num_train_epochs": 2, "eval_base": False, "sample_prompts": 0, "output_dir": str(tmp_path / "run"),
         "max_length": 48, "validation_split_percentage": 10, "logging_steps": 1}
    )  # fmt: skip
    lengths = hone.prepare(config).train.lengths
    seen: list[tuple[int, int]] = []

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((trainers[0].progress.tokens, int(lengths[trainers[0].examples_of_step()].sum())))

    trainers: list[Any] = []
    entered = RunTrainer.enter

    def enter(self: Any, *args: Any, **kwargs: Any) -> None:
        trainers.append(self)
        entered(self, *args, **kwargs)

    monkeypatch.setattr(RunTrainer, "enter", enter)
    hone.train(config, callbacks=[Look()])
    counted = [after - before for (before, _), (after, _) in zip([(0, 0), *seen], seen)]
    assert len(seen) > 4 and counted == [tokens for _, tokens in seen]


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["flat", "padded"])
def test_out_of_memory_halves_the_pieces_and_not_the_step(
    batching: str,
    tmp_path: Path,
    model_folder: Path,
    write_rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As if more than 60 tokens at once were too many, which shows after their gradients are there: the step is done
    again, with its earlier micro-batches. Weights as without it to 1e-6 (plain SGD, float32, sums in another order)."""
    from safetensors.torch import load_file

    settings = {
        "model_name_or_path": str(model_folder), "train_file": str(write_rows("rows.jsonl", pairs(24))), "bf16": False,
        "batching": batching, "per_device_train_batch_size": 6, "gradient_accumulation_steps": 2, "use_cpu": True,
        "num_train_epochs": 2, "eval_base": False, "sample_prompts": 0, "validation_split_percentage": 0,
        "optim": "sgd", "learning_rate": 0.05, "logging_steps": 1,
    }  # fmt: skip
    plain = hone.train(hone.load_config({**settings, "output_dir": str(tmp_path / "plain")}))
    step = Trainer.training_step

    def small(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = step(self, model, inputs, *args, **kwargs)
        if inputs["input_ids"].numel() > 60:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return loss

    monkeypatch.setattr(Trainer, "training_step", small)
    tight = hone.train(hone.load_config({**settings, "output_dir": str(tmp_path / "tight")}))
    assert "out of memory at step 1 (CUDA out of memory" in caplog.text and "micro_batch_tokens=" in caplog.text
    for a, b in zip(plain.metric_lines(), tight.metric_lines(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5) and a["tokens"] == b["tokens"]
    one, other = (load_file(run.folder / "model.safetensors") for run in (plain, tight))
    for name, tensor in one.items():
        assert float((tensor - other[name]).abs().max()) <= 1e-6, name


@pytest.mark.slow
def test_single_examples_that_do_not_fit_are_out_of_memory(
    tmp_path: Path, model_folder: Path, write_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(Trainer, "training_step", full)
    config = {"model_name_or_path": str(model_folder), "train_file": str(write_rows("rows.jsonl", pairs(8)))}
    with pytest.raises(MemoryError, match="can't allocate memory"):
        hone.train(hone.load_config({**config, "use_cpu": True, "output_dir": str(tmp_path / "run")}))
