"""The engine: transformers' Trainer with four rules of its own, each in one method.

    data        micro-batches are a pure function of (seed, epoch, index)       get_train_dataloader
    evaluation  exact loss over documents, not a mean of batch means            evaluate
    saving      a checkpoint counts only when complete; the oldest go last      _save_checkpoint
    loss        sum over supervised tokens / their number in the whole step     `loss.py`, `accelerations/attach.py`

Everything else (optimizers, schedules, clipping, mixed precision, accelerate, FSDP, trackers) is the Trainer's. The
first three do not ask what is learned: `class Mine(RunTrainer, DPOTrainer)` gives them to another trainer.
"""

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer_callback import DefaultFlowCallback

from hone.accelerations.attach import Attached
from hone.accelerations.equivalence import has_numbers
from hone.accelerations.frozen_cache import FrozenCache
from hone.data.batches import EpochBatches
from hone.data.truncate import IGNORE_INDEX
from hone.errors import HoneError, first_line
from hone.files import disk_errors, follow_umask, fsync_path, write_json_atomic
from hone.loss import Loss, refuse_diverged
from hone.runs import COMPLETE, Run
from hone.training.callbacks import Progress

log = logging.getLogger("hone")

Measure = Callable[[PreTrainedModel], dict[str, float]]
Inputs = Callable[[Any, dict[str, Any]], dict[str, Any]]


class RunTrainer(Trainer):
    """A Trainer within a run folder, or what makes any other Trainer one: call `enter` at the end of its constructor.

    Attributes:
        measure: model -> {"loss": …, "perplexity": …} on the validation documents; None for no evaluation.
        keep_checkpoints: how many to keep, None for all; the best one is kept besides.
        progress: what was trained on so far.
    """

    run: Run
    measure: Measure | None
    keep_checkpoints: int | None
    progress: Progress
    control: TrainerControl

    def enter(self, run: Run, *, measure: Measure | None, keep_checkpoints: int | None) -> None:
        """Work in `run` from now on.

        The callbacks that print or show a progress bar are left out, for ours say it; the user's trackers (report_to)
        stay. What is added later comes after DefaultFlowCallback, whose decisions it may overrule.
        """
        self.run, self.measure, self.keep_checkpoints, self.progress = run, measure, keep_checkpoints, Progress()
        flow = [c for c in self.callback_handler.callbacks if isinstance(c, DefaultFlowCallback)]
        trackers = [c for c in self.callback_handler.callbacks if c not in flow and not _prints(c)]
        self.callback_handler.callbacks = [*flow, *trackers]

    def get_train_dataloader(self) -> DataLoader:
        """Unprepared by accelerate on purpose: the sampler shares micro-batches between processes itself."""
        batches = EpochBatches(
            len(self.train_dataset),
            self.args.per_device_train_batch_size,
            self.args.seed,
            rank=self.args.process_index,
            world=self.args.world_size,
        )
        if not len(batches):
            raise HoneError(f"{len(self.train_dataset)} examples are too few for {self.args.world_size} processes")
        self.add_callback(_SetEpoch(batches))
        return DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.device.type == "cuda",
            generator=torch.Generator(),  # workers' seeds: drawn here, the global generator is left to dropout
        )

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Measure the validation documents; the same numbers as eval/*.json."""
        if self.measure is None:
            raise HoneError("there are no validation rows to measure", fix="set validation_split_percentage above 0")
        began = time.perf_counter()
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in self.measure(self.model).items()}
        self.progress.paused_s += time.perf_counter() - began
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's files, synced, then `complete.json`, then the rotation: there is always a good one."""
        began = time.perf_counter()
        folder = self.run.folder / f"checkpoint-{self.state.global_step}"
        if (folder / COMPLETE).is_file():
            return  # the end of an epoch may also be a save step
        refuse_diverged(model)
        try:
            with disk_errors(folder):
                super()._save_checkpoint(model, trial)
                if self.args.should_save:
                    self._complete(folder)
        except HoneError:
            shutil.rmtree(folder, ignore_errors=True)  # half a checkpoint is worth nothing, and its space is needed
            raise
        if self.args.should_save:
            self._rotate()
        self.progress.paused_s += time.perf_counter() - began

    def _complete(self, folder: Path) -> None:
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that we never read
        follow_umask(folder)
        for path in folder.rglob("*"):
            fsync_path(path)
        about = {"step": self.state.global_step, "metrics_bytes": _size(self.run.folder / "metrics.jsonl")}
        write_json_atomic(folder / COMPLETE, {**about, **vars(self.progress)})
        fsync_path(self.run.folder)

    def _rotate(self) -> None:
        if self.keep_checkpoints is None:
            return
        best = Path(self.state.best_model_checkpoint).name if self.state.best_model_checkpoint else None
        others = [path for path in self.run.checkpoints()[: -self.keep_checkpoints] if path.name != best]
        for path in others:
            (path / COMPLETE).unlink()  # first the mark, so that a crash in between leaves nothing that looks whole
            shutil.rmtree(path)


class HoneTrainer(RunTrainer):
    """See the module. Built by `setup.build_trainer`; anything a Trainer can do, this can.

    Args:
        attached: data set, collator, loss and how the model is called (`accelerations/attach.py`).
        inputs: model, batch -> what the model is called with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        run: Run,
        tokenizer: PreTrainedTokenizerBase,
        attached: Attached,
        inputs: Inputs,
        measure: Measure | None,
        keep_checkpoints: int | None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=attached.dataset,
            eval_dataset=attached.dataset if measure else None,  # only its presence is looked at: `evaluate` is ours
            data_collator=attached.collate,
            processing_class=tokenizer,
            compute_loss_func=functools.partial(_loss_of_outputs, loss=attached.loss),
        )
        self.enter(run, measure=measure, keep_checkpoints=keep_checkpoints)
        self.attached, self.inputs = attached, inputs
        if attached.cache:
            self.add_callback(_CloseCache(attached.cache))
        self._loss_shifts_labels = False  # labels count where they are not -100; a causal row's first one always is
        self.model_accepts_loss_kwargs = False  # the loss is ours: models are not given the token count

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if has_numbers(model):  # fake tensors (`hone plan`) are where they belong, and cannot be moved
            super()._move_model_to_device(model, device)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one step and their supervised tokens; counts both on the way."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self.progress.tokens += batch.pop("num_tokens")
            self.progress.supervised_tokens += int((batch["labels"] != IGNORE_INDEX).sum())
        return batches, num_items

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward, in pieces of at most `micro_batch_tokens`: the same gradients, less held at once."""
        step = super().training_step
        return torch.stack([step(model, piece, num_items_in_batch) for piece in self.attached.pieces(inputs)]).sum()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, with the task's inputs and the attached accelerations."""
        with self.attached.forward(inputs) as given:
            return super().compute_loss(model, self.inputs(self.model, given), *args, **kwargs)


class _CloseCache(TrainerCallback):
    """What was remembered serves other runs too, as soon as all of it is."""

    def __init__(self, cache: FrozenCache) -> None:
        self.cache = cache

    def on_epoch_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if os.name == "posix":  # Windows renames no folder whose files are mapped
            self._keep(self.cache.publish)

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self._keep(self.cache.close)

    def _keep(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, HoneError) as error:  # costs the next run its head start, not this one its result
            log.warning("the frozen cache is not kept: %s", first_line(error))


class _SetEpoch(TrainerCallback):
    """Tell the sampler which epoch begins: the data loader is not one of accelerate's, which would."""

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def on_epoch_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.batches.set_epoch(int((state.epoch or 0) + 1e-9))


def _loss_of_outputs(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None, *, loss: Loss) -> torch.Tensor:
    return loss(outputs.logits, labels, num_items_in_batch)


def _prints(callback: TrainerCallback) -> bool:
    return type(callback).__name__ in {"PrinterCallback", "ProgressCallback", "NotebookProgressCallback"}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
