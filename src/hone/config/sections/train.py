"""train"""

from pathlib import Path
from typing import Any, Literal
from pydantic import Field
from hone.config.keys import *


class TrainSection(Section):
    learning_rate: float = Field(5e-5, gt=0)
    lr_scheduler_type: str = "linear"
    warmup_steps: int | float = 0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    optim: str = "adamw_torch_fused"
    max_grad_norm: float = 1.0
    num_train_epochs: float = 3.0
    max_steps: int = -1
    max_train_seconds: float | None = None
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    seed: int = 42
    bf16: bool = False
    fp16: bool = False
    tf32: bool | None = None
    use_cpu: bool = False
    torch_compile: bool = False
    dataloader_num_workers: int = 0
    logging_strategy: Literal["steps", "epoch"] = "steps"
    logging_steps: int | float = 10
    eval_strategy: Literal["no", "steps", "epoch"] = "epoch"
    eval_steps: int | float | None = None
    save_strategy: Literal["no", "steps", "epoch", "best"] = "epoch"
    save_steps: int | float = 500
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = False
    early_stopping_patience: int | None = None
    resume_from_checkpoint: str = "auto"
    report_to: str | list[str] = "none"
    run_name: str | None = None
