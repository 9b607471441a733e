"""data"""

from pathlib import Path
from typing import Any, Literal
from pydantic import Field
from hone.config.keys import *


class DataSection(Section):
    train_file: FileOrFiles = None
    validation_file: FileOrFiles = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    dataset_train_split: str = "train"
    dataset_validation_split: str | None = None
    column_mapping: dict[str, str] = {}
    template: Literal["auto", "plain", "instruction", "chat"] = "auto"
    completion_only_loss: bool = True
    append_eos: bool = True
    max_length: int = Field(512, ge=2)
    on_long_row: Literal["truncate", "drop", "split"] = "truncate"
    batching: Literal["flat", "packed", "windows", "padded"] = "flat"
    on_bad_row: Literal["error", "skip"] = "error"
    deduplicate: bool = False
    validation_split_percentage: float = Field(10.0, ge=0, le=50)
    split_seed: int = 0
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    bin_dtype: Literal["uint16", "uint32"] = "uint16"
    token_cache_dir: FilePath | None = None
