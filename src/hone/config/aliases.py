"""Names from elsewhere: old Hugging Face names and other toolkits' names for our keys, and names with no counterpart.

A translated name works and gives a one-line notice; a name in `GONE` is an error that says what to do instead.

>>> ALIASES["warmup_ratio"].leaf
'warmup_steps'
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Alias:
    """A foreign name: our leaf, a word of explanation, and how its value becomes ours (None: unchanged).

    `convert` raises ValueError with a plain sentence when a value has no counterpart.
    """

    leaf: str
    note: str = ""
    convert: Callable[[Any], Any] | None = None


def _inverted(value: Any) -> Any:
    return not value if isinstance(value, bool) else value


def _share(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1:
        raise ValueError("a ratio is below 1 (0.1 = a tenth of all steps); a count of steps goes into warmup_steps")
    return value


def _percentage(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if value >= 1:
        raise ValueError("a number of rows has no counterpart: use validation_split_percentage, or validation_file")
    return round(value * 100.0, 9)


def _packed(value: Any) -> Any:
    return {True: "packed", False: "flat"}[value] if isinstance(value, bool) else value


def _padding_free(value: Any) -> Any:
    return {True: "flat", False: "padded"}[value] if isinstance(value, bool) else value


def _targets(value: Any) -> Any:
    if value in ("all", "all-linear"):
        return "all-linear"
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _all_linear(value: Any) -> Any:
    if value is not True:
        raise ValueError("only true has a counterpart; name the layers in lora_target_modules")
    return "all-linear"


def _adapter(value: Any) -> Any:
    if value == "qlora":
        raise ValueError("quantized training is not offered; `method: lora` with bf16 is the nearest")
    return "full" if value is None else value


def _peft(value: Any) -> Any:
    return {True: "lora", False: "full"}[value] if isinstance(value, bool) else value


def _resume(value: Any) -> Any:
    return {True: "auto", False: "never"}[value] if isinstance(value, bool) else value


def _text_column(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


def _hub_dataset(value: Any) -> Any:
    if isinstance(value, str) and value.endswith((".json", ".jsonl", ".csv", ".parquet", ".txt", ".gz")):
        raise ValueError("a local file goes into train_file")
    return value


def _flash(value: Any) -> Any:
    return {True: "flash_attention_2", False: "sdpa"}[value] if isinstance(value, bool) else value


_BATCH = "per device, before gradient_accumulation_steps"
_PROMPT = "the opposite sense: true here means that prompts are not trained"

ALIASES: dict[str, Alias] = {
    # model
    "base_model": Alias("model_name_or_path"),
    "model_name": Alias("model_name_or_path"),
    "model_id": Alias("model_name_or_path"),
    "pretrained_model_name_or_path": Alias("model_name_or_path"),
    "checkpoint_dir": Alias("model_name_or_path"),
    "init_from": Alias("model_name_or_path"),
    "tokenizer_name": Alias("tokenizer_name_or_path"),
    "tokenizer": Alias("tokenizer_name_or_path"),
    "revision": Alias("model_revision"),
    "torch_dtype": Alias("dtype"),
    "flash_attention": Alias("attn_implementation", "true is flash_attention_2, false is sdpa", _flash),
    # data
    "train_path": Alias("train_file"),
    "train_data": Alias("train_file"),
    "data_path": Alias("train_file"),
    "local_dataset": Alias("train_file"),
    "eval_file": Alias("validation_file"),
    "val_file": Alias("validation_file"),
    "validation_path": Alias("validation_file"),
    "dataset": Alias("dataset_name", "a hub name; files go into train_file", _hub_dataset),
    "dataset_config": Alias("dataset_config_name"),
    "dataset_split": Alias("dataset_train_split"),
    "dataset_test_split": Alias("dataset_validation_split"),
    "dataset_text_field": Alias("column_mapping", "our column name -> yours", _text_column),
    "text_column": Alias("column_mapping", "our column name -> yours", _text_column),
    "max_seq_length": Alias("max_length", "in tokens"),
    "max_seq_len": Alias("max_length", "in tokens"),
    "cutoff_len": Alias("max_length", "in tokens"),
    "sequence_len": Alias("max_length", "in tokens"),
    "seq_length": Alias("max_length", "in tokens"),
    "block_size": Alias("max_length", "in tokens"),
    "context_length": Alias("max_length", "in tokens"),
    "model_max_length": Alias("max_length", "in tokens"),
    "packing": Alias("batching", "true is packed, false is flat", _packed),
    "sample_packing": Alias("batching", "true is packed, false is flat", _packed),
    "neat_packing": Alias("batching", "true is packed, false is flat", _packed),
    "padding_free": Alias("batching", "true is flat, false is padded", _padding_free),
    "train_on_inputs": Alias("completion_only_loss", _PROMPT, _inverted),
    "train_on_prompt": Alias("completion_only_loss", _PROMPT, _inverted),
    "mask_prompt": Alias("completion_only_loss"),
    "train_on_completions": Alias("completion_only_loss"),
    "assistant_only_loss": Alias("completion_only_loss"),
    "val_size": Alias("validation_split_percentage", "in percent, not a share", _percentage),
    "val_set_size": Alias("validation_split_percentage", "in percent, not a share", _percentage),
    "test_size": Alias("validation_split_percentage", "in percent, not a share", _percentage),
    "max_samples": Alias("max_train_samples"),
    "max_val_samples": Alias("max_eval_samples"),
    "dataset_prepared_path": Alias("token_cache_dir"),
    # method
    "finetuning_type": Alias("method"),
    "adapter": Alias("method", "null is full", _adapter),
    "use_peft": Alias("method", "true is lora, false is full", _peft),
    "freeze_trainable_layers": Alias("num_unfrozen_layers", "counted from the top"),
    "lora_rank": Alias("lora_r"),
    "r": Alias("lora_r"),
    "lora_target": Alias("lora_target_modules", "a list, or all-linear", _targets),
    "target_modules": Alias("lora_target_modules", "a list, or all-linear", _targets),
    "layers_to_transform": Alias("lora_layers_to_transform"),
    "modules_to_save": Alias("lora_modules_to_save"),
    "lora_target_linear": Alias("lora_target_modules", "true is all-linear", _all_linear),
    # train
    "lr": Alias("learning_rate"),
    "lr_scheduler": Alias("lr_scheduler_type"),
    "scheduler": Alias("lr_scheduler_type"),
    "warmup_ratio": Alias("warmup_steps", "a value below 1 is a share of all steps", _share),
    "warmup": Alias("warmup_steps", "a value below 1 is a share of all steps"),
    "warmup_iters": Alias("warmup_steps", "a value below 1 is a share of all steps"),
    "lr_warmup_steps": Alias("warmup_steps", "a value below 1 is a share of all steps"),
    "optimizer": Alias("optim"),
    "beta1": Alias("adam_beta1"),
    "beta2": Alias("adam_beta2"),
    "grad_clip": Alias("max_grad_norm"),
    "gradient_clipping": Alias("max_grad_norm"),
    "max_norm": Alias("max_grad_norm"),
    "epochs": Alias("num_train_epochs"),
    "num_epochs": Alias("num_train_epochs"),
    "n_epochs": Alias("num_train_epochs"),
    "max_iters": Alias("max_steps", "optimizer steps"),
    "micro_batch_size": Alias("per_device_train_batch_size", _BATCH),
    "batch_size": Alias("per_device_train_batch_size", _BATCH),
    "train_batch_size": Alias("per_device_train_batch_size", _BATCH),
    "per_gpu_train_batch_size": Alias("per_device_train_batch_size", _BATCH),
    "gradient_accumulation": Alias("gradient_accumulation_steps"),
    "grad_accum_steps": Alias("gradient_accumulation_steps"),
    "activation_checkpointing": Alias("gradient_checkpointing"),
    "random_seed": Alias("seed"),
    "no_cuda": Alias("use_cpu"),
    "compile": Alias("torch_compile"),
    "num_workers": Alias("dataloader_num_workers"),
    "log_interval": Alias("logging_steps"),
    "evaluation_strategy": Alias("eval_strategy"),
    "eval_interval": Alias("eval_steps", "with eval_strategy: steps"),
    "save_interval": Alias("save_steps", "with save_strategy: steps"),
    "auto_resume_from_checkpoints": Alias("resume_from_checkpoint", "true is auto, false is never", _resume),
    "resume": Alias("resume_from_checkpoint", "true is auto, false is never", _resume),
    "wandb_name": Alias("run_name"),
    # eval, generate, output
    "max_tokens": Alias("max_new_tokens"),
    "num_samples": Alias("num_return_sequences"),
    "stop_strings": Alias("stop"),
    "stop_sequences": Alias("stop"),
    "out_dir": Alias("output_dir"),
    "overwrite_output_dir": Alias("overwrite"),
}

_CONFIG_OVERRIDES = "architecture keys go into config_overrides, e.g. `config_overrides: {n_layer: 6}`, with model_type"
_REMOVE = "remove the line"
_BY_TOKENS = "held-out rows are batched by tokens; set eval_tokens_per_batch if memory is short"

# name -> what to do instead
GONE: dict[str, str] = {
    "per_device_eval_batch_size": _BY_TOKENS,
    "per_gpu_eval_batch_size": _BY_TOKENS,
    "eval_batch_size": _BY_TOKENS,
    "save_safetensors": f"weights are always saved as safetensors; {_REMOVE}",
    "group_by_length": f"batching: flat and packed have no padding, so nothing is gained by sorting; {_REMOVE}",
    "logging_dir": f"logs are metrics.jsonl and train.log in output_dir; {_REMOVE}",
    "do_train": f"the command says what is done (`hone train`, `hone eval`); {_REMOVE}",
    "do_eval": f"the command says what is done (`hone train`, `hone eval`); {_REMOVE}",
    "do_predict": f"the command says what is done (`hone generate`); {_REMOVE}",
    "stage": f"what is trained follows from task and from the rows; {_REMOVE}",
    "do_sample": "temperature: 0 is greedy, any temperature above 0 samples",
    "num_beams": "beam search is not offered; use temperature, top_k and top_p",
    "load_in_4bit": "quantized training is not offered; bf16 with gradient_checkpointing and method: lora saves memory",
    "load_in_8bit": "quantized training is not offered; bf16 with gradient_checkpointing and method: lora saves memory",
    "quantization_bit": "quantized training is not offered; bf16 with gradient_checkpointing and method: lora",
    "global_batch_size": "set per_device_train_batch_size and gradient_accumulation_steps: their product (times the "
    "number of devices) is the global batch size",
    "evals_per_epoch": "set eval_strategy: steps and eval_steps below 1 (a share of all steps)",
    "saves_per_epoch": "set save_strategy: steps and save_steps below 1 (a share of all steps)",
    "datasets": "set train_file (a path or a list of paths), or dataset_name with dataset_train_split",
    "dataset_dir": "write the folder into train_file: paths are relative to the YAML file",
    "label_smoothing_factor": f"label smoothing is not offered, it would change what perplexity means; {_REMOVE}",
    "metric_for_best_model": f"the best checkpoint is the one with the lowest validation loss; {_REMOVE}",
    "greater_is_better": f"the best checkpoint is the one with the lowest validation loss; {_REMOVE}",
    "logging_first_step": f"set logging_steps: 1 to see every step; {_REMOVE}",
    "plot_loss": f"metrics.jsonl in output_dir holds the curves; {_REMOVE}",
    "wandb_project": "set report_to: wandb, and the project by the environment variable WANDB_PROJECT",
    "push_to_hub": f"nothing is uploaded by a run; upload output_dir with `hf upload`; {_REMOVE}",
    "hub_model_id": f"nothing is uploaded by a run; upload output_dir with `hf upload`; {_REMOVE}",
    "preprocessing_num_workers": f"tokens are prepared once and cached; {_REMOVE}",
    "remove_unused_columns": f"columns that the rows do not need are ignored by themselves; {_REMOVE}",
    "pad_to_max_length": "use batching: padded (to the longest of the batch), or windows (exactly max_length)",
    "chat_template": "the template is the tokenizer's own; template: chat asks for it",
    "system_prompt": "write it as the first message of each row: {role: system, content: ...}",
    "mask_history": "completion_only_loss: true trains every answer of a conversation, and no question",
    "n_layer": _CONFIG_OVERRIDES,
    "n_head": _CONFIG_OVERRIDES,
    "n_embd": _CONFIG_OVERRIDES,
    "hidden_size": _CONFIG_OVERRIDES,
    "num_hidden_layers": _CONFIG_OVERRIDES,
    "vocab_size": "the vocabulary size is the tokenizer's; set tokenizer_name_or_path",
    "device": "the accelerator is used when there is one; use_cpu: true forbids it",
    "fsdp": "one process only for now",
    "deepspeed": "one process only for now",
}

# a scalar given to a section's name: the leaf it most likely means
SECTION_SCALARS: dict[str, str] = {"model": "model_name_or_path", "output": "output_dir"}
