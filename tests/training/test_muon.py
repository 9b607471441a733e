"""Muon: one step against formulas of its own, which weights it takes, and a resumed run that ends bit-identical."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hone
from conftest import pairs
from hone.errors import HoneError
from hone.planning.plan import make_plan
from hone.runs import Run
from hone.training.muon import hidden_matrices, muon
from hone.training.state import read_state


def muon_steps(weight: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float) -> np.ndarray:
    """In float64, the quintic applied to the singular values of a whole decomposition."""
    momentum = np.zeros_like(weight)
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient
        direction = 0.95 * momentum + 0.05 * gradient  # Nesterov's look ahead
        left, values, right = np.linalg.svd(direction / np.linalg.norm(direction), full_matrices=False)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        size = 0.2 * np.sqrt(max(weight.shape))
        weight = (1 - rate * decay) * weight - rate * size * (left * values) @ right
    return weight


def adamw_steps(weight: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float) -> np.ndarray:
    mean = square = np.zeros_like(weight)
    for number, gradient in enumerate(gradients, 1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        step = mean / (1 - 0.9**number) / (np.sqrt(square / (1 - 0.999**number)) + 1e-8)
        weight = (1 - rate * decay) * weight - rate * step
    return weight


def test_steps_are_those_of_the_formulas(tiny_model: Any) -> None:
    """Tolerance: 8 % of the move for Muon, whose products are bfloat16 in PyTorch; 1e-6 for AdamW."""
    model, rate, decay = tiny_model("gpt2"), 0.01, 0.5
    optimizer = muon(model, learning_rate=rate, weight_decay=decay)
    before = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    random = np.random.default_rng(0)
    gradients = {name: [random.normal(size=w.shape) for _ in range(3)] for name, w in before.items()}
    for number in range(3):
        for name, p in model.named_parameters():
            p.grad = torch.tensor(gradients[name][number], dtype=torch.float32)
        optimizer.step()
    hidden = hidden_matrices(model)
    for name, p in model.named_parameters():
        found = p.detach().double().numpy()
        if name in hidden:
            wanted = muon_steps(before[name], gradients[name], rate, decay)
            assert np.linalg.norm(found - wanted) < 0.08 * np.linalg.norm(wanted - before[name]), name
        else:
            wanted = adamw_steps(before[name], gradients[name], rate, decay if p.dim() > 1 else 0.0)
            assert np.abs(found - wanted).max() < 1e-6, name


def test_embeddings_heads_and_vectors_stay_with_adamw(tiny_model: Any) -> None:
    kinds = {name.split(".", 3)[-1] for name in hidden_matrices(tiny_model("gpt2"))}
    assert kinds == {"attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"}
    llama = hidden_matrices(tiny_model("llama", tie_word_embeddings=False))
    assert not any("embed" in name or "lm_head" in name or "norm" in name for name in llama)
    assert len(llama) == 2 * 7, "query, key, value, output, gate, up and down of two blocks"


def test_a_model_without_a_hidden_matrix_is_refused(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    model.requires_grad_(False)
    model.transformer.ln_f.requires_grad_(True)
    with pytest.raises(HoneError, match="hidden matrix"):
        muon(model, learning_rate=1.0, weight_decay=0.0)


def settings(model_folder: Path, write_rows: Any, **more: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model_folder),
        "train_file": str(write_rows("train.jsonl", pairs(40))),
        "validation_split_percentage": 0,
        "optim": "muon",
        "bf16": False,
        "use_cpu": True,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "max_length": 128,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2.0,
        "save_strategy": "steps",
        "save_steps": 7,
        "logging_steps": 1,
        **more,
    }


def test_resumed_ends_bit_identical(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    """The first part is stopped by removing what came after its checkpoint, so momentum must come from the file."""
    common = settings(model_folder, write_rows, save_total_limit=None)
    whole = hone.train(hone.load_config({**common, "output_dir": str(tmp_path / "whole")}))
    again = tmp_path / "again"
    hone.train(hone.load_config({**common, "output_dir": str(again)}))
    for name in ("checkpoint-14", "checkpoint-20"):
        (again / name / "complete.json").unlink()
    (again / "model.safetensors").unlink()
    Run(again).update(status="interrupted", stage="training")
    resumed = hone.train(hone.load_config({**common, "output_dir": str(again)}))
    assert (again / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert [line["loss"] for line in resumed.metric_lines()] == [line["loss"] for line in whole.metric_lines()]


def test_the_rate_follows_the_schedule_in_both_parts(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    run = hone.train(hone.load_config(settings(model_folder, write_rows, output_dir=str(tmp_path / "run"))))
    state = read_state(run.checkpoints()[-1], "optimizer")
    rates = {group["lr"] for group in state["param_groups"]}
    assert len(state["param_groups"]) == 3 and len(rates) == 1 and rates.pop() < 1e-3


def test_the_plan_counts_one_number_a_matrix_weight(tmp_path: Path, model_folder: Path, write_rows: Any) -> None:
    found = make_plan(hone.load_config(settings(model_folder, write_rows, output_dir=str(tmp_path / "run"))))
    run = hone.train(hone.load_config(settings(model_folder, write_rows, output_dir=str(tmp_path / "run"))))
    state = read_state(run.checkpoints()[-1], "optimizer")["state"].values()
    kept = sum(t.numel() * t.element_size() for item in state for t in item.values() if t.dim() > 0)
    assert found.memory.optimizer == kept
