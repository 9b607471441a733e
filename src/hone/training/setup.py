"""Putting the engine together: the arguments, accelerations, optimizer and callbacks that a config means."""

import functools
import logging

import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from hone.accelerations.attach import Options, attach
from hone.cache import frozen_cache
from hone.config.schema import Config, Where
from hone.config.sections.data import DataSection
from hone.config.sections.train import TrainSection
from hone.data.prepare import Prepared
from hone.data.special_tokens import padding_id
from hone.errors import HoneError
from hone.hardware import matmul_gflops, peak_memory_bytes
from hone.models.inspect import flops_per_token
from hone.processes import refuse_disagreement, totals
from hone.progress import lines_shown
from hone.runs import Run
from hone.show import in_lines
from hone.tasks.task import Task
from hone.training.arguments import slots, training_arguments
from hone.training.callbacks import Bar, MetricsLog, Stopper, StopRequest
from hone.training.muon import muon
from hone.training.sharding import is_sharded, sharding_refused
from hone.training.trainer import HoneTrainer

log = logging.getLogger("hone")

UNSHARDED = "leave sharding out, or that key"


def build_trainer(
    run: Run,
    config: Config,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    data: Prepared,
    request: StopRequest,
) -> tuple[HoneTrainer, Stopper]:
    """The engine for this data and model, ready to train, and the callback that stops it on `request`."""
    args = training_arguments(config.train, run, has_validation=len(data.validation) > 0)
    dtype, size = mixed_precision(args) or model.dtype, 1024 if args.device.type == "cpu" else 8192
    rate = totals([matmul_gflops(dtype, str(args.device), size)])[0]
    trainer = build_engine(run, config, task, args, tokenizer, model, data)
    refuse_disagreement("accelerations", trainer.attached.notes)
    for line in in_lines("accelerations", trainer.attached.notes):
        log.info("%s", line)
    stopper = Stopper(request, config.train.max_train_seconds, trainer.progress)
    trainer.add_callback(stopper)
    trainer.add_callback(
        MetricsLog(
            run.folder / "metrics.jsonl", trainer.progress, flops_per_token(model), rate * 1e9, peak_memory_bytes
        )
    )
    if lines := lines_shown():
        trainer.add_callback(Bar(lines))
    if trainer.measure and config.train.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(config.train.early_stopping_patience))
    return trainer, stopper


def build_engine(
    run: Run,
    config: Config,
    task: Task,
    args: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    data: Prepared,
) -> HoneTrainer:
    """The engine as it computes a step, without anything that watches it; a model without weights will do."""

    def measure(model: PreTrainedModel) -> dict[str, float]:
        return task.watch(model, tokenizer, data.validation, config.eval)

    collate = task.collate and functools.partial(task.collate, pad_token_id=padding_id(tokenizer))
    sharded = is_sharded(config.launch)
    cuts = sharded or config.launch.cuts  # a plan is made by one process
    if cuts and (why := sharding_refused(config.train)):
        raise HoneError(f"sharding: fsdp2 is not offered here: {why}", where=config.where("sharding"), fix=UNSHARDED)
    options = attach_options(config.train, config.data, args, tokenizer, sharded=cuts)
    trainer = HoneTrainer(
        model,
        args,
        run=run,
        tokenizer=tokenizer,
        attached=attach(model, data.train, options, loss=task.loss(config.method, data), collate=collate),
        inputs=task.inputs,
        measure=measure if len(data.validation) else None,
        keep_checkpoints=config.train.save_total_limit,
        slots=slots(config.train, run),
        sharded=sharded,
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
    return trainer


def attach_options(
    train: TrainSection,
    data: DataSection,
    args: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sharded: bool = False,
) -> Options:
    """What of a config decides about accelerations."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    return Options(
        speed=train,
        device=args.device.type,
        max_length=data.max_length,
        batching=data.batching,
        pad_token_id=pad,
        autocast=mixed_precision(args),
        sharded=sharded,
        cache_folder=frozen_cache(data.token_cache_dir),
        several_epochs=args.num_train_epochs > 1 and args.max_steps <= 0,
    )


def mixed_precision(args: TrainingArguments) -> torch.dtype | None:
    """The type that products are computed in where it is not that of the weights."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None


def refuse_missing_trackers(wanted: str | list[str] | None, where: Where) -> None:
    """Say now, not after the base has been measured, that a tracker of report_to is not installed."""
    installed = get_available_reporting_integrations()
    missing = [name for name in ([wanted] if isinstance(wanted, str) else wanted or []) if name not in installed]
    if missing and missing not in (["none"], ["all"]):
        raise HoneError(
            f"report_to: the tracker '{missing[0]}' is not known or not installed",
            where=where("report_to"),
            fix=f"installed here: {', '.join(installed) or 'none'}; or install its package, or remove report_to",
        )


def refuse_foreign_ids(data: Prepared, model: PreTrainedModel, where: Where) -> None:
    """Token files of another tool may be of another vocabulary, which would read beyond the embedding."""
    if data.store.folder is not None:  # our own stores hold the tokenizer's ids, and that was compared already
        return
    rows = model.get_input_embeddings().weight.shape[0]
    for key, split in (("train_file", data.store.train), ("validation_file", data.store.val)):
        top = int(split.tokens.max()) if len(split.tokens) else 0
        if top >= rows:
            raise HoneError(
                f"the token file has id {top:,}, but the model's embedding only {rows:,} rows",
                where=where(key) or where("train_file"),
                fix=f"use the model whose tokenizer wrote it, or set bin_dtype (now {data.store.meta['dtype']})",
            )
