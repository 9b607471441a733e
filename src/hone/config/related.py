"""Which keys to know first, and which belong together: what `hone explain` and the reference point to."""

# The ten that decide most: what is learned, from which rows, how far each step goes, and what it costs.
MOST_USED = (
    "model_name_or_path",
    "train_file",
    "validation_file",
    "max_length",
    "task",
    "method",
    "lora_r",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
)

# Keys that are read or changed together; a key may be in several groups.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("model_name_or_path", "offline_model_name_or_path", "tokenizer_name_or_path", "model_revision"),
    ("model_revision", "trust_remote_code"),
    ("model_type", "config_overrides", "tokenizer_name_or_path"),
    ("dtype", "bf16", "fp16", "tf32", "use_cpu"),
    ("attn_implementation", "segment_attention", "batching"),
    ("train_file", "validation_file", "column_mapping", "template"),
    ("dataset_name", "dataset_config_name", "dataset_train_split", "dataset_validation_split", "column_mapping"),
    ("validation_file", "validation_split_percentage", "split_seed", "max_eval_samples", "overlap"),
    ("completion_only_loss", "append_eos", "template"),
    ("max_length", "on_long_row", "batching", "max_target_length"),
    ("on_bad_row", "deduplicate", "overlap", "max_train_samples"),
    ("bin_dtype", "token_cache_dir", "train_file"),
    ("task", "method", "class_weights", "max_target_length"),
    ("method", "num_unfrozen_layers", "lora_r"),
    ("num_unfrozen_layers", "unfreeze_head", "unfreeze_embeddings"),
    ("lora_r", "lora_alpha", "lora_target_modules", "use_rslora"),
    ("lora_target_modules", "lora_layers_to_transform", "lora_modules_to_save"),
    ("lora_dropout", "dropout", "weight_decay"),
    ("scored_rows_only", "segment_attention", "fused_head", "fused_gelu", "keep_freed_memory", "torch_compile"),
    ("prefix_cache_gb", "num_unfrozen_layers", "token_cache_dir"),
    ("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs"),
    ("optim", "learning_rate", "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon"),
    ("num_train_epochs", "max_steps", "max_train_seconds", "early_stopping_patience"),
    ("per_device_train_batch_size", "gradient_accumulation_steps", "micro_batch_tokens", "gradient_checkpointing"),
    ("nproc_per_node", "gradient_accumulation_steps", "max_restarts", "sharding"),
    ("nnodes", "nproc_per_node", "rdzv_backend", "rdzv_endpoint", "rdzv_id", "node_rank"),
    ("max_restarts", "save_strategy", "save_steps"),
    ("sharding", "gradient_checkpointing"),
    ("seed", "split_seed", "sampling_seed"),
    ("dataloader_num_workers", "torch_compile"),
    ("logging_strategy", "logging_steps", "report_to", "run_name"),
    ("eval_strategy", "eval_steps", "load_best_model_at_end", "early_stopping_patience"),
    ("save_strategy", "save_steps", "save_total_limit", "resume_from_checkpoint", "output_dir"),
    ("load_best_model_at_end", "save_strategy"),
    ("eval_base", "max_eval_samples", "eval_tokens_per_batch", "eval_stride"),
    ("confidence_level", "bootstrap_resamples"),
    ("code_tasks", "num_return_sequences", "temperature", "max_new_tokens"),
    ("sample_prompts", "sample_max_new_tokens", "memorization_samples", "eval_generate_samples"),
    ("temperature", "top_k", "top_p", "sampling_seed"),
    ("max_new_tokens", "stop", "append_eos"),
    ("output_dir", "overwrite", "run_name"),
)


def related(leaf: str) -> list[str]:
    """The keys that share a group with this one, in the order of the groups.

    >>> related("confidence_level")
    ['bootstrap_resamples']
    """
    return list(dict.fromkeys(other for group in GROUPS if leaf in group for other in group if other != leaf))
