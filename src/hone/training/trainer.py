"""The engine: transformers' Trainer with four rules of its own, each in one method.

    data        the rows of a step are a pure function of (seed, epoch, step)   get_train_dataloader
    evaluation  exact loss over documents, not a mean of batch means            evaluate
    saving      written aside, verified, renamed; the oldest go last            `saving.py`
    loss        sum over supervised tokens / their number in the whole step     `loss.py`, `accelerations/attach.py`

Everything else (optimizers, schedules, clipping, mixed precision, trackers) is the Trainer's. The first three do not
ask what is learned: `class Mine(RunTrainer, DPOTrainer)` gives them to another trainer.

Of several processes each computes its micro-batches of a step, as many passes as it has, and the gradients are summed
once before the step (`_share_step`). There is no DistributedDataParallel: it would average what is to be summed, wait
in every pass, and cut its sums differently after a resume.
"""

import dataclasses
import functools
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import DefaultFlowCallback

from hone.accelerations.allocator import empty_cache, give_back_freed_memory
from hone.accelerations.attach import Attached, Batch
from hone.accelerations.equivalence import has_numbers
from hone.accelerations.frozen_cache import FrozenCache
from hone.data.batches import EpochBatches, PackedDataset
from hone.data.truncate import IGNORE_INDEX
from hone.errors import HoneError, first_line, is_out_of_memory
from hone.loss import Loss, refuse_bad_gradient, refuse_bad_loss
from hone.processes import any_of, from_primary, totals
from hone.runs import Run
from hone.training.callbacks import Progress
from hone.training.exchange import same_everywhere, sum_gradients
from hone.training.saving import Rehearsal, Resumed, SavingTrainer
from hone.training.sharding import clip

log = logging.getLogger("hone")

Measure = Callable[[PreTrainedModel], dict[str, float]]
Inputs = Callable[[Any, Batch], Batch]


class RunTrainer(SavingTrainer):
    """A Trainer within a run folder, or what makes any other Trainer one: call `enter` at the end of its constructor.

    Attributes:
        measure: model -> {"loss": …, "perplexity": …} on the validation documents; None for no evaluation.
    """

    measure: Measure | None

    def enter(
        self, run: Run, *, measure: Measure | None, keep_checkpoints: int | None, slots: int | None = None
    ) -> None:
        """Work in `run` from now on.

        Args:
            slots: micro-batches of a step, those of all processes; None for what its arguments say.

        The callbacks that print or show a progress bar are left out, for ours say it; the user's trackers (report_to)
        stay. What is added later comes after DefaultFlowCallback, whose decisions it may overrule.
        """
        self.run, self.measure, self.keep_checkpoints, self.progress = run, measure, keep_checkpoints, Progress()
        self.slots = slots or self.args.gradient_accumulation_steps * self.args.world_size
        flow = [c for c in self.callback_handler.callbacks if isinstance(c, DefaultFlowCallback)]
        trackers = [c for c in self.callback_handler.callbacks if c not in flow and not _prints(c)]
        self.callback_handler.callbacks = [*flow, *trackers, Resumed(self), Rehearsal(self)]

    def get_train_dataloader(self) -> DataLoader:
        """Unprepared by accelerate on purpose: the sampler shares micro-batches between processes itself."""
        self._batches = batches = self.epoch_batches()
        self.add_callback(_SetEpoch(batches))
        return DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.device.type == "cuda",
            generator=torch.Generator(),  # workers' seeds: drawn here, the global generator is left to dropout
        )

    def epoch_batches(self) -> EpochBatches:
        """The sampler, at the first epoch."""
        args, n = self.args, len(self.train_dataset)
        return EpochBatches(
            n, args.per_device_train_batch_size, args.seed,
            slots=self.slots, rank=args.process_index, world=args.world_size,
        )  # fmt: skip

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Measure the validation documents; the same numbers as eval/*.json."""
        if self.measure is None:
            raise HoneError("there are no validation rows to measure", fix="set validation_split_percentage above 0")
        began = time.perf_counter()
        measure = self.measure
        model = self.whole_model()
        if self.sharded:  # the primary alone has all weights
            found = from_primary(lambda: measure(model.to(self.args.device)))
        else:
            measured = measure(model)
            found = from_primary(lambda: measured)  # what follows from it is to be the same in all
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in found.items()}
        if self.whole is not None:
            self.whole.cpu()
        self.progress.paused_s += time.perf_counter() - began
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


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
        slots: int | None = None,
        sharded: bool = False,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=attached.dataset,
            eval_dataset=attached.dataset if measure else None,  # only its presence is looked at: `evaluate` is ours
            data_collator=functools.partial(_collated, collate=attached.collate),
            processing_class=tokenizer,
            compute_loss_func=functools.partial(_loss_of_outputs, loss=attached.loss),
        )
        self.enter(run, measure=measure, keep_checkpoints=keep_checkpoints, slots=slots)
        if self.args.world_size > 1:  # gradients are summed by `_share_step`
            prepare = self.accelerator.prepare_model
            self.accelerator.prepare_model = functools.partial(prepare, evaluation_mode=True)
        self.attached, self.inputs, self.sharded = attached, inputs, sharded
        self.step_batches: list[Any] = []  # the micro-batches of the step at hand
        self.step_loss: Any = 0.0  # of those that are done, on its device
        self._round = 0  # how many that are
        self._weight = 1.0  # of the loss of a pass
        self.add_callback(_FiniteLoss(self))
        if attached.cache:
            self.add_callback(_RefillCache(self))
            self.add_callback(_CloseCache(attached.cache))
        self._loss_shifts_labels = False  # labels count where they are not -100; a causal row's first one always is
        self.model_accepts_loss_kwargs = False  # the loss is ours: models are not given the token count

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if has_numbers(model):  # fake tensors (`hone plan`) are where they belong, and cannot be moved
            super()._move_model_to_device(model, device)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        if training and self.args.world_size > 1 and not self.sharded:
            same_everywhere(model)
        return super()._wrap_model(model, training, dataloader)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """This process's micro-batches of one step, and the supervised tokens of all; counts on the way."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        tokens = sum(batch.pop("num_tokens") for batch in batches)
        supervised = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches if batch)
        tokens, supervised = (int(total) for total in totals([tokens, supervised]))
        self.progress.tokens += tokens
        self.progress.supervised_tokens += supervised
        self.step_batches, self.step_loss, self._round = batches, 0.0, 0
        return batches, torch.tensor(supervised, device=device)

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward, in pieces of at most `micro_batch_tokens`: the same gradients, less held at once.

        Where that does not fit, the step begins again in smaller pieces, and so do all that follow.

        Returns:
            The loss of this micro-batch; of several processes, that of the whole step with the last one, 0 before.
        """
        loss = self._in_memory(model, inputs, num_items_in_batch)
        self._round += 1
        if self.args.world_size == 1:
            return loss
        return self._share_step(model) if self._round == len(self.step_batches) else torch.zeros_like(loss)

    def _share_step(self, model: Any) -> torch.Tensor:
        """Sum gradients and loss over the processes."""
        self.step_loss = torch.tensor(totals([float(self.step_loss)])[0], device=self.args.device)
        if not self.sharded:  # there each pass has summed them
            sum_gradients([p for p in model.parameters() if p.requires_grad])
        return self.step_loss.clone()

    def _in_memory(self, model: Any, inputs: Batch, num_items_in_batch: Any) -> torch.Tensor:
        try:
            return self._in_pieces(model, inputs, num_items_in_batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.sharded:  # others wait for this process in each pass
                raise
            reason = first_line(error)
        done = self._round
        while True:
            self._halve_pieces(reason)
            model.zero_grad()  # what reached the gradients before the memory ran out
            give_back_freed_memory()
            empty_cache(self.args.device)
            self.step_loss = 0.0
            try:
                for self._round in range(done + 1):
                    loss = self._in_pieces(model, self.step_batches[self._round], num_items_in_batch)
                return loss
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)

    def _in_pieces(self, model: Any, inputs: Batch, num_items_in_batch: Any) -> torch.Tensor:
        if self.sharded:
            return self._in_step(model, inputs, num_items_in_batch)
        if not inputs:  # a slot that is empty, so that all processes have as many
            return torch.zeros((), device=self.args.device)
        self._seed_slot()
        step = super().training_step
        loss = torch.stack([step(model, piece, num_items_in_batch) for piece in self.attached.pieces(inputs)]).sum()
        self.step_loss += loss.detach()
        return loss

    def _in_step(self, model: Any, inputs: Batch, num_items_in_batch: Any) -> torch.Tensor:
        """The same of a sharded model, whose weights travel in each pass: all processes take as many.

        One that has nothing left takes an example that counts nothing.
        """
        self._seed_slot()
        world = self.args.world_size
        pieces: list[Any] = self.attached.pieces(inputs) if inputs else []
        loss = torch.zeros((), device=self.args.device)
        while any(any_of([bool(pieces)])):
            self._weight = float(world) if pieces else 0.0  # the gradients of all processes become their mean
            piece = pieces.pop(0) if pieces else self.data_collator([self.train_dataset[0]])
            piece.pop("num_tokens", None)
            loss += super().training_step(model, piece, num_items_in_batch) / world
        self._weight = 1.0
        self.step_loss += loss
        return loss

    def _seed_slot(self) -> None:
        """Dropout, too, is a function of the place in the run."""
        slot = self._round * self.args.world_size + self.args.process_index
        seeds = np.random.SeedSequence([self.args.seed, self.state.global_step, slot])
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def _halve_pieces(self, reason: str) -> None:
        """Take pieces of half the tokens from now on.

        Raises:
            MemoryError: they are single examples already.
        """
        filled = [batch for batch in self.step_batches if batch]
        before = max(piece["input_ids"].numel() for batch in filled for piece in self.attached.pieces(batch))
        self.attached = dataclasses.replace(self.attached, micro_batch_tokens=max(1, before // 2))
        after = max(piece["input_ids"].numel() for batch in filled for piece in self.attached.pieces(batch))
        if after == before:
            raise MemoryError(reason)
        log.warning(
            "out of memory at step %d (%s): it begins again in pieces of at most %d tokens, and so do all that follow; "
            "micro_batch_tokens=%d begins so. What is learned stays the same",
            *(self.state.global_step + 1, reason, before // 2, before // 2),
        )

    def _clip_grad_norm(self, model: Any) -> Any:
        self.refuse_bad_step()
        norm = clip(model, self.args.max_grad_norm) if self.sharded else super()._clip_grad_norm(model)
        if norm is not None and self.accelerator.scaler is None:  # fp16 skips such a step and lowers its scale
            self._refuse(refuse_bad_gradient, norm)
        return norm

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if self.sharded and grad_norm is None:
            return clip(model, math.inf)
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def refuse_bad_step(self) -> None:
        """Raise `Diverged` if the loss of the step at hand is no number: its gradient must not reach the weights."""
        self._refuse(refuse_bad_loss, self.step_loss)

    def _refuse(self, refuse: Callable[[float, int, Sequence[int]], None], value: Any) -> None:
        if not math.isfinite(number := float(value)):
            refuse(number, self.state.global_step + 1, self.examples_of_step())

    def examples_of_step(self) -> list[int]:
        """The numbers of the training examples in the step at hand, those of all processes."""
        rows = [row for batch in self._batches.of_step(self.state.global_step % self._batches.steps) for row in batch]
        dataset = self.attached.dataset
        return [i for row in rows for i in dataset.rows[row]] if isinstance(dataset, PackedDataset) else rows

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, with the task's inputs and the attached accelerations."""
        with self.attached.forward(inputs) as given:
            loss = super().compute_loss(model, self.inputs(self.model, given), *args, **kwargs)
            return loss if self._weight == 1.0 else loss * self._weight


class _FiniteLoss(TrainerCallback):
    """Each step's loss is looked at before the weights take the step, also where gradients are not clipped."""

    def __init__(self, trainer: HoneTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.refuse_bad_step()


class _RefillCache(TrainerCallback):
    """What a killed run had remembered in its first epoch is computed again, in the batches of that epoch.

    In other batches it would differ in the last digits, and with it the weights from those of an undisturbed run.
    """

    def __init__(self, trainer: HoneTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, cache = self.trainer, self.trainer.attached.cache
        if trainer.resumed is None or cache is None or cache.known.all():
            return
        examples: Any = trainer.train_dataset
        with torch.no_grad(), trainer.compute_loss_context_manager():
            for rows in filter(None, trainer.epoch_batches()):
                batch = trainer._prepare_inputs(trainer.data_collator([examples[row] for row in rows]))
                batch.pop("num_tokens")
                for piece in trainer.attached.pieces(batch):
                    trainer.compute_loss(trainer.model, piece)
        cache.share()


class _CloseCache(TrainerCallback):
    """What was remembered serves other runs too, as soon as all of it is."""

    def __init__(self, cache: FrozenCache) -> None:
        self.cache = cache

    def on_epoch_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.cache.share()
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
    """Tell the sampler which epoch begins: the data loader is not one of accelerate's, which would.

    And say how much of it is done, in micro-batches of all processes: the loop counts those of one.
    """

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def on_epoch_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.batches.set_epoch(int((state.epoch or 0) + 1e-9))

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.batches.world > 1:
            whole, steps = divmod(state.global_step, self.batches.steps)
            state.epoch = whole + steps * self.batches.slots / self.batches.micro_batches


def _collated(items: list[Any], *, collate: Callable[[Any], Batch]) -> Batch:
    """A micro-batch; one without examples fills a step in which others have one more."""
    return collate(items) if items else {"num_tokens": 0}


def _loss_of_outputs(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None, *, loss: Loss) -> torch.Tensor:
    return loss(outputs.logits, labels, num_items_in_batch)


def _prints(callback: TrainerCallback) -> bool:
    return type(callback).__name__ in {"PrinterCallback", "ProgressCallback", "NotebookProgressCallback"}
