"""Putting the engine together: which dataset, collator, arguments and callbacks a config means."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hone.cache import frozen_cache
from hone.config.schema import Config
from hone.data.batches import PackedDataset, filled, flat, packed, padded
from hone.data.prepare import Prepared
from hone.data.special_tokens import padding_id
from hone.errors import HoneError
from hone.hardware import best_device
from hone.runs import Run
from hone.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.training.trainer import HoneTrainer

log = logging.getLogger("hone")


def build_trainer(
    run: Run,
    config: Config,
    tokenizer: "PreTrainedTokenizerBase",
    model: "PreTrainedModel",
    data: Prepared,
    request: Any,
) -> tuple["HoneTrainer", Any]:
    """The engine for this data and model, and the callback that stops it on `request`."""
    import torch
    from transformers import EarlyStoppingCallback

    from hone.accelerations.allocator import keep_freed_memory
    from hone.accelerations.equivalence import heeds_logits_to_keep
    from hone.accelerations.gelu import fuse_gelu
    from hone.hardware import matmul_gflops, peak_memory_bytes
    from hone.models.inspect import flops_per_token
    from hone.training.arguments import training_arguments
    from hone.training.callbacks import MetricsLog, Progress, Stopper
    from hone.training.muon import muon
    from hone.training.trainer import HoneTrainer

    task = TASKS[config.method.task]
    if config.train.keep_freed_memory and best_device(config.train.use_cpu) == "cpu":
        keep_freed_memory()
    if config.train.fused_gelu:
        fuse_gelu(model)
    dataset, collate = layout(config, tokenizer, model, data)
    measured = len(data.validation) > 0
    args = training_arguments(config, run, has_validation=measured)
    compute = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else model.dtype
    prefix, dataset, collate = _prefix_cache(config, model, data, dataset, collate, compute)
    scored = (
        config.method.task == "causal" and config.train.scored_rows_only and heeds_logits_to_keep(model, data.train)
    )
    size = 1024 if args.device.type == "cpu" else 8192
    progress, stopper = Progress(), Stopper(request, config.train.max_train_seconds)
    callbacks = [
        stopper,
        MetricsLog(
            run.folder / "metrics.jsonl",
            progress,
            flops_per_token(model),
            matmul_gflops(compute, str(args.device), size) * 1e9,
            peak_memory_bytes,
        ),
    ]
    if measured and config.train.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.train.early_stopping_patience))
    trainer = HoneTrainer(
        model,
        args,
        run=run,
        train_dataset=dataset,
        tokenizer=tokenizer,
        collate=collate,
        inputs=task.inputs,
        loss=task.loss(config, data),
        measure=functools.partial(task.watch, tokenizer=tokenizer, validation=data.validation, config=config)
        if measured
        else None,
        keep_checkpoints=config.train.save_total_limit,
        progress=progress,
        scored_rows_only=scored,
        prefix=prefix,
        micro_batch_tokens=config.train.micro_batch_tokens if config.method.task == "causal" else None,
        head=_fused_head(config, args, model, data) if scored else None,
        callbacks=callbacks,
    )
    if config.train.optim == "muon":
        trainer.optimizer = muon(
            model,
            learning_rate=args.learning_rate,
            weight_decay=args.weight_decay,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            decayed=trainer.get_decay_parameter_names(model),
        )
    return trainer, stopper


def layout(
    config: Config, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel", data: Prepared
) -> tuple[Any, Callable[[Sequence[Any]], dict[str, Any]]]:
    """Dataset and collator of `data.batching`; flat and packed step aside where the model would mix examples."""

    if (collated := TASKS[config.method.task].collate) is not None:
        return data.train, functools.partial(collated, pad_token_id=padding_id(tokenizer))
    batching = config.data.batching
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    if batching in ("flat", "packed") and not _isolated(config, model, data.train):
        log.warning("%s lets examples of one row see each other: batching padded instead", type(model).__name__)
        batching = "padded"
    if batching == "flat":
        return data.train, functools.partial(flat, size=filled)
    if batching == "packed":
        rows = PackedDataset(data.train, config.data.max_length)
        return rows, functools.partial(packed, max_length=config.data.max_length, pad_token_id=pad)
    return data.train, functools.partial(padded, pad_token_id=pad)


def _isolated(config: Config, model: "PreTrainedModel", dataset: Any) -> bool:
    """Does the model keep examples of one row apart: by attention on each example alone, or by transformers' mask?"""
    from hone.accelerations.equivalence import keeps_examples_apart
    from hone.accelerations.varlen_attention import use_segments

    device = best_device(config.train.use_cpu)
    if config.train.segment_attention and use_segments(model, config.data.max_length, device):
        if keeps_examples_apart(model, dataset):
            return True
        model.set_attn_implementation("sdpa")
    return keeps_examples_apart(model, dataset)


def _prefix_cache(
    config: Config, model: "PreTrainedModel", data: Prepared, dataset: Any, collate: Any, dtype: Any
) -> tuple[Any, Any, Any]:
    """The cache of a frozen bottom, and dataset and collator for it; None and those given where there is none."""
    from hone.accelerations.equivalence import TOLERANCE
    from hone.accelerations.frozen_cache import Numbered, PrefixCache, numbered

    train = config.train
    is_flat = isinstance(collate, functools.partial) and collate.func is flat
    if not train.prefix_cache_gb or not is_flat or train.fp16:
        return None, dataset, collate
    cache = PrefixCache.open(
        model,
        dataset,
        frozen_cache(config.data.token_cache_dir),
        limit_bytes=train.prefix_cache_gb * 1e9,
        dtype=dtype,
        keep=train.num_train_epochs > 1 and train.max_steps <= 0,
    )
    if cache is None or not cache.agrees(model, dataset, TOLERANCE[str(dtype).removeprefix("torch.")]):
        return None, dataset, collate
    return cache, Numbered(dataset), functools.partial(numbered, collate=collate)


def _fused_head(config: Config, args: Any, model: "PreTrainedModel", data: Prepared) -> Any:
    """The fused head where it applies and agrees with the plain loss; None otherwise, with the reason said."""
    import torch

    from hone.accelerations.equivalence import head_difference
    from hone.accelerations.fused_cross_entropy import FusedHead

    if not config.train.fused_head or args.fp16 or args.fsdp:  # loss scaling comes too late; a shard is no whole matrix
        return None
    head = FusedHead.of(model)
    if head is None:
        log.info("%s has no plain output layer: its loss is computed as it is", type(model).__name__)
        return None
    if difference := head_difference(model, head, data.train):
        log.info("%s: output layer and loss are left as they are (fused, %s)", type(model).__name__, difference)
        return None
    if args.bf16:
        head.dtype = torch.bfloat16  # accelerate's autocast ends with the model, and makes its outputs float32
    return head


def refuse_missing_trackers(config: Config) -> None:
    """Say now, not after the base has been measured, that a tracker of report_to is not installed."""
    from transformers.integrations import get_available_reporting_integrations

    installed = get_available_reporting_integrations()
    wanted = config.train.report_to
    missing = [name for name in ([wanted] if isinstance(wanted, str) else wanted or []) if name not in installed]
    if missing and missing not in (["none"], ["all"]):
        raise HoneError(
            f"report_to: the tracker '{missing[0]}' is not known or not installed",
            where=config.where("report_to"),
            fix=f"installed here: {', '.join(installed) or 'none'}; or install its package, or remove report_to",
        )


def refuse_foreign_ids(config: Config, model: "PreTrainedModel", data: Prepared) -> None:
    """Token files of another tool may be of another vocabulary, which would read beyond the embedding."""
    if data.store.folder is not None:  # our own stores hold the tokenizer's ids, and that was compared already
        return
    rows = model.get_input_embeddings().weight.shape[0]
    for key, split in (("train_file", data.store.train), ("validation_file", data.store.val)):
        top = int(split.tokens.max()) if len(split.tokens) else 0
        if top >= rows:
            raise HoneError(
                f"the token file has id {top:,}, but the model's embedding only {rows:,} rows",
                where=config.where(key) or config.where("train_file"),
                fix=f"use the model whose tokenizer wrote it, or set bin_dtype (now {config.data.bin_dtype})",
            )
