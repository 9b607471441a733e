"""`hone.speed_up` in somebody else's Trainer: the same losses and weights as without it (float32)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_batching import make_items

import hone


def trained(model: Any, rows: list[Any], collator: Any, folder: Path) -> list[float]:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, max_steps=6, per_device_train_batch_size=3, gradient_accumulation_steps=2,
        learning_rate=1e-2, optim="sgd", logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        seed=0,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collator)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2"])
def test_a_plain_trainer_learns_the_same(architecture: str, tiny_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import DataCollatorWithFlattening

    items = make_items(len(tokenizer), [5, 17, 9, 30, 2, 12, 21, 8])
    rows = [{"input_ids": item["input_ids"].tolist(), "labels": item["labels"].tolist()} for item in items]
    plain, fast = tiny_model(architecture), tiny_model(architecture)
    done = hone.speed_up(fast)
    assert {"variable-length attention", "fused cross-entropy"} <= set(done)
    assert any("GELU" in part for part in done) is (architecture == "gpt2")
    want = trained(plain, rows, DataCollatorWithFlattening(), tmp_path / "plain")
    got = trained(fast, rows, hone.flat_collator, tmp_path / "fast")
    assert got == pytest.approx(want, abs=1e-4) and len(got) == 6
    for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-3, msg=name)


def test_outside_of_training_the_model_is_as_it_was(tiny_model: Any) -> None:
    model, plain = tiny_model("gpt2"), tiny_model("gpt2")
    hone.speed_up(model)
    ids = torch.arange(10)[None] % 50
    torch.testing.assert_close(model(input_ids=ids, labels=ids).logits, plain(input_ids=ids).logits)
    model.train()
    assert model(input_ids=ids, labels=ids).logits is None
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert torch.equal(model.eval().generate(ids, max_new_tokens=4), plain.generate(ids, max_new_tokens=4))


def test_what_does_not_fit_is_left_out(tiny_model: Any) -> None:
    model = tiny_model("gemma2", final_logit_softcapping=0.5)
    assert not {"variable-length attention", "fused cross-entropy"} & set(hone.speed_up(model))
