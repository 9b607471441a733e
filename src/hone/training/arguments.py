"""The only place where our keys become transformers' TrainingArguments."""

from typing import Any

import torch
from transformers import TrainingArguments

from hone.config.fields import docs_of
from hone.config.schema import section_fields
from hone.config.sections.train import TrainSection
from hone.processes import world
from hone.runs import Run

PREFIX = "transformers.TrainingArguments."
OURS = {"save_total_limit", "resume_from_checkpoint"}  # we rotate and choose checkpoints ourselves


def slots(train: TrainSection, run: Run) -> int:
    """Micro-batches of a step: as many as when the run began, on however many processes it goes on."""
    return train.gradient_accumulation_steps * run.processes


def training_arguments(train: TrainSection, run: Run, *, has_validation: bool) -> TrainingArguments:
    """TrainingArguments of a config: each key goes where its `maps_to` says; a few are fixed by the engine.

    The micro-batches of a step are dealt among the processes that there are now: `gradient_accumulation_steps` is then
    how many of them each takes.

    The device is the first of CUDA, MPS, CPU that there is (`use_cpu` forces the last).
    """
    given: dict[str, Any] = {
        docs_of(field)["maps_to"].removeprefix(PREFIX): getattr(train, name)
        for name, field in section_fields("train").items()
        if name not in OURS and (docs_of(field)["maps_to"] or "").startswith(PREFIX)
    }
    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    chooses_best = has_validation and (train.load_best_model_at_end or train.early_stopping_patience is not None)
    given |= {
        "output_dir": str(run.folder),
        "gradient_accumulation_steps": -(-slots(train, run) // world()),
        "average_tokens_across_devices": False,  # our loss is of the whole step already
        "bf16": bool(train.bf16),
        "use_cpu": train.use_cpu or not accelerator,
        "eval_strategy": train.eval_strategy if has_validation else "no",
        "load_best_model_at_end": has_validation and train.load_best_model_at_end,
        "metric_for_best_model": "loss" if chooses_best or train.save_strategy == "best" else None,
        "greater_is_better": False,
        "disable_tqdm": True,  # progress lines are ours
        "remove_unused_columns": False,  # the collator decides what the model gets
        "logging_nan_inf_filter": False,  # a NaN is said, not averaged away
        "save_total_limit": None,
        "run_name": train.run_name or run.folder.name,
    }
    if not given["gradient_checkpointing"]:
        del given["gradient_checkpointing"]  # its name changes in transformers 6; only who uses it need care
    if given["optim"] == "muon":
        given["optim"] = "adamw_torch_fused"  # unknown to transformers: the engine makes it (`muon.py`)
    if given["optim"] == "adamw_torch_fused" and torch.backends.mps.is_available() and not given["use_cpu"]:
        given["optim"] = "adamw_torch"  # older MPS builds lack the fused kernel; the update is the same
    arguments = TrainingArguments(**given)
    if arguments.n_gpu > 1:  # one process, several GPUs: DataParallel would cut a flat row; torchrun uses them all
        arguments._n_gpu = 1
    return arguments
