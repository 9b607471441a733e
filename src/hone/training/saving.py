"""Saving and resuming of any Trainer within a run folder; what a checkpoint's files are: `checkpoint.py`, `state.py`.

`trainer.RunTrainer` is built on it.
"""

import contextlib
import copy
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import TrainerState

from hone.files import disk_errors, fsync_path, write_json_atomic
from hone.loss import refuse_diverged
from hone.manifest import describe_files, file_digest
from hone.models.adapter import BASE, describe_base
from hone.processes import from_primary, primary
from hone.runs import SAVING, Run
from hone.show import size
from hone.training.callbacks import Progress
from hone.training.checkpoint import Reached, refuse_unlike, saved_bytes, seal_checkpoint
from hone.training.exchange import same_everywhere
from hone.training.sharding import cut_like, shard, whole_state
from hone.training.state import (
    GENERATORS,
    OPTIMIZER,
    SCALER,
    SCHEDULER,
    generators,
    read_state,
    set_generators,
    write_state,
)

log = logging.getLogger("hone")

REHEARSED_FROM_S = 600.0  # a training of less has little to lose
REHEARSAL_SHARE, SLOW_DISK = 0.01, 100e6  # of the training; bytes a second


class SavingTrainer(Trainer):
    """Checkpoints are written aside, verified and renamed, hold no pickle, and say all that a resume needs.

    Attributes:
        keep_checkpoints: how many to keep, None for all; the best one is kept besides.
        progress: what was trained on so far. resumed: by the checkpoint that training goes on from.
    """

    run: Run
    keep_checkpoints: int | None
    model: Any
    slots: int
    whole: Any = None  # of a sharded model, in the primary: the copy that is measured and saved
    sharded: bool = False
    _is_settled: bool = False  # `whole` has the best weights, not the last
    progress: Progress
    control: TrainerControl
    resumed: Reached | None = None
    _written_to: Path | None = None  # while a checkpoint is being saved

    def finish(self, checkpoint: Path) -> None:
        """Take the weights of a training whose end this checkpoint is, without a step: its last ones, or the best."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self._load_from_checkpoint(str(checkpoint))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Written aside, synced, described in `complete.json`, renamed, read again; then the rotation.

        There is always a good one, and a folder named checkpoint-N is always a whole one.
        """
        began = time.perf_counter()
        folder = self.run.folder / f"checkpoint-{self.state.global_step}"
        if from_primary(folder.is_dir):
            return  # the end of an epoch may also be a save step
        saved = self.whole_model()
        from_primary(lambda: refuse_diverged(saved))
        with disk_errors(folder), self._aside() as aside:
            super()._save_checkpoint(model, trial)
            self.state.best_model_checkpoint = from_primary(lambda: self._complete(aside / folder.name, folder))
        with disk_errors(folder):
            from_primary(self._rotate)
        self.progress.paused_s += time.perf_counter() - began

    def rehearse(self, left_s: float) -> None:
        """Save once and read it back, so that a training of hours does not find at its end that it cannot be saved.

        Args:
            left_s: what the training will take. A short one is not rehearsed; nor one whose saving could take more than
                `REHEARSAL_SHARE` of it, on a disk of `SLOW_DISK` bytes a second.
        """
        if left_s < REHEARSED_FROM_S or self.args.world_size > 1:
            return
        n_bytes = saved_bytes(self.model, self.optimizer)
        if n_bytes / SLOW_DISK > REHEARSAL_SHARE * left_s:
            share = f"{REHEARSAL_SHARE:.0%} of the training"
            log.info("saving was not rehearsed: %s may take more than %s", size(n_bytes), share)
            return
        began = time.perf_counter()
        with disk_errors(self.run.folder), self._aside() as aside:
            super()._save_checkpoint(self.model, None)
            refuse_unlike(aside, describe_files(aside))
        free, seconds = shutil.disk_usage(self.run.folder).free, time.perf_counter() - began
        self.progress.paused_s += seconds
        log.info("saving was rehearsed: %s in %.1f s, read back as it was written", size(n_bytes), seconds)
        if free < 2 * n_bytes:
            fix = f"each checkpoint takes {size(n_bytes)}, and the next is written before the last goes: free some now"
            log.warning("the disk has %s left; %s", size(free), fix)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Path]:
        """Within it the Trainer writes into a folder that is gone afterwards."""
        self._written_to = self.run.folder / SAVING
        try:
            yield self._written_to
        finally:
            self._written_to = None
            if self.args.should_save:
                shutil.rmtree(self.run.folder / SAVING, ignore_errors=True)  # its space is needed

    def _get_output_dir(self, trial: Any) -> str:
        """Where the Trainer writes `checkpoint-N`."""
        return str(self._written_to or self.run.folder)

    def _complete(self, written: Path, folder: Path) -> str | None:
        """Seal the checkpoint; returns the best one's folder."""
        best = self.state.best_model_checkpoint
        if best and Path(best) == written:
            self.state.best_model_checkpoint = str(folder)
            self.state.save_to_json(str(written / TRAINER_STATE_NAME))
        (written / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle, beside a model that the Trainer itself saves
        model = self.whole or self.model
        if hasattr(model, "peft_config"):
            write_json_atomic(written / BASE, describe_base(model))
        metrics = self.run.folder / "metrics.jsonl"
        if metrics.is_file():
            fsync_path(metrics)  # its lines are part of what a resume goes on from
        reached = Reached(
            step=self.state.global_step,
            ended=self._ended(),
            world_size=self.args.world_size,
            slots=self.slots,
            metrics_bytes=_size(metrics),
            metrics_sha256=file_digest(metrics) if metrics.is_file() else None,
            loss_sum=float(self._tr_loss),
            logged_step=self._globalstep_last_logged,
            tokens=self.progress.tokens,
            supervised_tokens=self.progress.supervised_tokens,
            used_s=self.progress.used_s,
        )
        seal_checkpoint(written, folder, reached)
        return self.state.best_model_checkpoint

    def _ended(self) -> bool:
        """Whether no step follows: whoever resumes there has only to take the weights."""
        patience = self._patience()
        spent = patience and patience.early_stopping_patience_counter >= patience.early_stopping_patience
        stops = self.control.should_training_stop and not self.progress.interrupted
        return bool(stops or spent or self.state.global_step >= self.state.max_steps)

    # ---- state without pickles: `state.py` -----------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights, config and tokenizer: the Trainer's own adds its arguments in a pickle that nobody reads."""
        model = self.whole or self.model
        if not hasattr(model, "save_pretrained"):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = output_dir or self.args.output_dir
            model.save_pretrained(folder, state_dict=state_dict)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = self.optimizer.state_dict()
        state = whole_state(state) if self.sharded else state
        if self.args.should_save:
            write_state(Path(output_dir), OPTIMIZER, state)
            write_state(Path(output_dir), SCHEDULER, self.lr_scheduler.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = read_state(Path(checkpoint), OPTIMIZER)
            self.optimizer.load_state_dict(cut_like(state, self.optimizer) if self.sharded else state)
            self.lr_scheduler.load_state_dict(read_state(Path(checkpoint), SCHEDULER))

    def _save_scaler(self, output_dir: str) -> None:
        if self.accelerator.scaler is not None and self.args.should_save:
            write_state(Path(output_dir), SCALER, self.accelerator.scaler.state_dict())

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.accelerator.scaler is not None and checkpoint is not None:
            self.accelerator.scaler.load_state_dict(read_state(Path(checkpoint), SCALER))

    def _save_rng_state(self, output_dir: str) -> None:
        if self.args.should_save:
            write_state(Path(output_dir), GENERATORS, generators(self.args.device))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_generators(read_state(Path(checkpoint), GENERATORS), self.args.device)

    # ---- a sharded model: `sharding.py` --------------------------------------------------------------------------

    def whole_model(self) -> Any:
        """The model with all of its weights, as they are now; all processes call it, and the primary may use it."""
        if not self.sharded or self.optimizer is None:
            return self.model
        if self._is_settled:
            return self.whole or self.model
        weights = whole_state(self.model.state_dict())
        if self.whole is not None:
            self.whole.load_state_dict(weights)
        return self.whole or self.model

    def create_optimizer(self, *args: Any) -> Any:
        """The Trainer's. A model is cut before that, when its weights are loaded, those of a checkpoint as well."""
        if self.sharded and self.optimizer is None:
            same_everywhere(self.model)
            self.whole = copy.deepcopy(self.model).cpu() if primary() else None
            shard(self.model)
        return super().create_optimizer(*args)

    def _load_best_model(self) -> None:
        if not self.sharded or self.optimizer is None:
            super()._load_best_model()
            return
        if self.whole is not None:
            cut, self.model = self.model, self.whole
            super()._load_best_model()
            self.model = cut
        self._is_settled = True

    def _load_callback_state(self) -> None:
        """How often in a row the loss has not fallen; the Trainer would count from 0 again."""
        patience, saved = self._patience(), self.state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
        if patience and saved:
            patience.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]

    def _patience(self) -> EarlyStoppingCallback | None:
        found = (c for c in self.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback))
        return next(found, None)

    def _rotate(self) -> None:
        if self.keep_checkpoints is None:
            return
        best = Path(self.state.best_model_checkpoint).name if self.state.best_model_checkpoint else None
        for path in self.run.checkpoints()[: -self.keep_checkpoints]:
            if path.name != best:
                shutil.rmtree(path.rename(self.run.folder / SAVING))  # what a crash leaves does not look whole


class Resumed(TrainerCallback):
    """The loss since the last line of metrics.jsonl, which the loop would begin again at 0."""

    def __init__(self, trainer: SavingTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.resumed is not None:
            self.trainer._tr_loss += self.trainer.resumed.loss_sum
            self.trainer._globalstep_last_logged = self.trainer.resumed.logged_step


class Rehearsal(TrainerCallback):
    """After the first step of this process: how long will it all take, and can it be saved?"""

    def __init__(self, trainer: SavingTrainer) -> None:
        self.trainer = trainer
        self.began: float | None = None
        self.is_done = False

    def on_step_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = self.began or time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.is_done and self.began is not None:
            self.is_done = True
            self.trainer.rehearse((time.perf_counter() - self.began) * (state.max_steps - state.global_step))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
