"""Rules between keys: every conflict names both of them and its line; every rule has a case that passes."""

from pathlib import Path
from typing import Any

import pytest

from hone.config import load_config
from hone.config.checks import has_validation, require_training
from hone.config.fields import as_paths
from hone.config.sections.data import DataSection
from hone.errors import HoneError

SCRATCH = {"model_type": "gpt2", "tokenizer_name_or_path": "t"}
BEST = {"load_best_model_at_end": True}

CONFLICTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({**SCRATCH, "model_name_or_path": "gpt2"}, ("model_name_or_path", "model_type")),
    ({"model_type": "gpt2"}, ("model_type", "tokenizer_name_or_path")),
    ({"config_overrides": {"n_layer": 2}}, ("config_overrides", "model_type")),
    ({**SCRATCH, "method": {"method": "lora"}}, ("method: lora", "from scratch")),
    ({"dataset_name": "a/b", "train_file": "a"}, ("dataset_name", "train_file")),
    ({"dataset_name": "a/b", "validation_file": "a"}, ("dataset_name", "validation_file")),
    ({"dataset_config_name": "a"}, ("dataset_config_name", "dataset_name")),
    ({"dataset_validation_split": "a"}, ("dataset_validation_split", "dataset_name")),
    ({"bf16": True, "fp16": True}, ("bf16", "fp16")),
    ({"max_steps": 0}, ("max_steps", "num_train_epochs")),
    ({"lr_scheduler_type": "constant", "warmup_steps": 5}, ("lr_scheduler_type", "warmup_steps")),
    ({"eval_steps": 1.5}, ("eval_steps", "whole steps")),
    ({**BEST, "eval_strategy": "no"}, ("load_best_model_at_end", "eval_strategy")),
    ({"early_stopping_patience": 2, "eval_strategy": "no"}, ("early_stopping_patience", "eval_strategy")),
    ({"save_strategy": "best", "eval_strategy": "no"}, ("save_strategy", "eval_strategy")),
    ({**BEST, "validation_split_percentage": 0}, ("load_best_model_at_end", "validation_split_percentage")),
    ({**BEST, "save_strategy": "steps"}, ("load_best_model_at_end", "save_strategy", "eval_strategy")),
    (
        {**BEST, "save_strategy": "steps", "eval_strategy": "steps", "save_steps": 5, "eval_steps": 2},
        ("save_steps", "eval_steps"),
    ),
    (
        {**BEST, "save_strategy": "steps", "eval_strategy": "steps", "save_steps": 0.5, "eval_steps": 2},
        ("save_steps", "eval_steps"),
    ),
    ({"optim": "muon", "method": "lora"}, ("optim", "method")),
    ({"num_return_sequences": 2}, ("num_return_sequences", "temperature")),
    ({"model_name_or_path": "/m/base", "output_dir": "/m/base"}, ("model_name_or_path", "output_dir")),
    (
        {"train_file": "/m/out/a.jsonl", "output_dir": "/m/out", "overwrite": True},
        ("overwrite", "train_file", "output_dir"),
    ),
    (
        {"model_name_or_path": "/m/out/c", "output_dir": "/m/out", "overwrite": True},
        ("overwrite", "model_name_or_path"),
    ),
]


@pytest.mark.parametrize(("values", "names"), CONFLICTS)
def test_conflicts_name_their_keys(values: dict[str, Any], names: tuple[str, ...]) -> None:
    with pytest.raises(HoneError) as caught:
        load_config(values)
    assert all(name in str(caught.value) for name in names) and "mistakes" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {**SCRATCH, "config_overrides": {"n_layer": 2}},
        {"dataset_name": "a/b", "dataset_config_name": "c", "dataset_validation_split": "d"},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5},
        BEST,
        {**BEST, "save_strategy": "best"},
        {**BEST, "validation_split_percentage": 0, "validation_file": "v"},
        {**BEST, "save_strategy": "steps", "eval_strategy": "steps", "save_steps": 6, "eval_steps": 2},
        {**BEST, "save_strategy": "steps", "eval_strategy": "steps", "save_steps": 0.3, "eval_steps": 0.1},
        {**BEST, "save_strategy": "steps", "eval_strategy": "steps", "save_steps": 20},  # eval_steps: logging_steps, 10
        {"early_stopping_patience": 2, "save_strategy": "no"},
        {"batching": "windows", "completion_only_loss": True},
        {"num_return_sequences": 2, "temperature": 0.5},
        {"train_file": "/m/out/a.jsonl", "output_dir": "/m/out"},
        {"eval_strategy": "no", "validation_split_percentage": 0},
    ],
)
def test_what_fits_together_is_accepted(values: dict[str, Any]) -> None:
    load_config(values)


@pytest.mark.parametrize("values", [values for values, _ in CONFLICTS if "load_best_model_at_end" in values][2:])
def test_the_schedule_rules_are_those_of_training_arguments(values: dict[str, Any], tmp_path: Path) -> None:
    from transformers import TrainingArguments

    with pytest.raises(ValueError, match="load_best_model_at_end requires"):
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{"eval_strategy": "epoch", **values})


def test_conflicts_name_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cfg.yaml").write_text("seed: 1\nfp16: true\n\neval_strategy: no\n")
    with pytest.raises(HoneError) as caught:
        load_config("cfg.yaml", ["bf16=true", "load_best_model_at_end=true"])
    assert str(caught.value).startswith("cfg.yaml: 2 mistakes\n  cfg.yaml:2: bf16 and fp16 are both true")
    assert "command line: load_best_model_at_end needs evaluations" in str(caught.value)


def test_require_training() -> None:
    with pytest.raises(HoneError) as caught:
        require_training(load_config())
    assert "no model" in str(caught.value) and "no training data" in str(caught.value)
    with pytest.raises(HoneError, match="no training data"):
        require_training(load_config({"model_name_or_path": "gpt2"}))
    require_training(load_config({"model_name_or_path": "gpt2", "train_file": "a"}))
    require_training(load_config({**SCRATCH, "dataset_name": "a/b"}))


def test_require_training_sees_conflicts_assigned_later() -> None:
    config = load_config({"model_name_or_path": "gpt2", "train_file": "a"})
    config.train.bf16 = config.train.fp16 = True
    with pytest.raises(HoneError, match="bf16 and fp16 are both true"):
        require_training(config)


def test_keys_without_effect_are_said(tmp_path: Path) -> None:
    assert load_config({"lora_r": 4}).notices == ["lora_r has no effect with method: full (it needs lora)"]
    assert load_config({"lora_r": 4, "method": "lora"}).notices == []
    assert "on_long_row has no effect with batching: windows" in load_config(
        {"on_long_row": "drop", "batching": "windows"}
    ).notices[0]  # fmt: skip
    assert load_config({"method": "freeze"}).notices == []  # defaults are never reported


def test_a_resolved_config_has_no_notices_of_its_own(tmp_path: Path) -> None:
    """Every key is given in it, also those that another key switches off."""
    from hone.config import resolved_yaml

    (tmp_path / "r.yaml").write_text(resolved_yaml(load_config({"train_file": "/a"})))
    assert load_config(tmp_path / "r.yaml").notices == []


def test_small_helpers() -> None:
    assert as_paths(None) == [] and as_paths(Path("a")) == [Path("a")] and as_paths([Path("a")]) == [Path("a")]
    assert has_validation(DataSection()) and not has_validation(DataSection(validation_split_percentage=0))
