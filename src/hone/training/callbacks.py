"""What happens around the steps: metrics.jsonl, progress lines, and stopping cleanly."""

import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone.files import disk_errors
from hone.loss import refuse_bad_loss
from hone.processes import any_of, totals
from hone.progress import STEP, Lines
from hone.show import duration, figure

log = logging.getLogger("hone")


@dataclass
class Progress:
    """Kept by the trainer: what was trained on so far, and for how long.

    Attributes:
        tokens: without padding. used_s: since training began, in all processes that had a part in it.
        paused_s: of this process alone, seconds of measuring and saving.
        interrupted: a signal ends the training before its time.
    """

    tokens: int = 0
    supervised_tokens: int = 0
    used_s: float = 0.0
    paused_s: float = 0.0
    interrupted: bool = False


@dataclass
class StopRequest:
    """Set by a signal; read at the end of each step."""

    signal_number: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGTERM, SIGINT or SIGHUP into a request to stop after this step; a second one stops at once.

    Where SIGHUP is ignored it stays so: that is what `nohup` asks for.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread only
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request.signal_number is not None:
            raise KeyboardInterrupt
        request.signal_number = number
        log.warning("stopping after this step and saving (once more to stop at once)")

    numbers = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Windows has none
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP interrupt as Ctrl-C does, wherever the run is; a second one ends it at once.

    Whoever ignores them or listens to them himself still does.
    """
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a process that was forked has nothing to put in order
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt

    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class Stopper(TrainerCallback):
    """End training after this step, with a checkpoint, on a signal or when the time is up.

    It also puts off a save that falls on the end of an epoch or of training until what is due there has been measured:
    whoever resumes from a checkpoint finds all of its step in it.

    Args:
        max_seconds: from the first step on, over all processes that had a part in the training.
    """

    def __init__(self, request: StopRequest, max_seconds: float | None, progress: Progress) -> None:
        self.request, self.max_seconds, self.progress = request, max_seconds, progress
        self.began = time.monotonic()
        self.timed_out = self.save_is_due = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.began = time.monotonic() - self.progress.used_s

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.used_s = time.monotonic() - self.began
        is_late = self.max_seconds is not None and self.progress.used_s >= self.max_seconds
        is_asked, is_late = any_of([self.request.signal_number is not None, is_late])
        if is_asked:
            self.request.signal_number = self.request.signal_number or signal.SIGTERM  # another process got it
            self.progress.interrupted = not control.should_training_stop
            control.should_training_stop = control.should_save = True
        elif is_late:
            self.timed_out = control.should_training_stop = True
            control.should_save = control.should_save or args.save_strategy != "no"
        self.save_is_due = control.should_save and (control.should_training_stop or _epoch_is_whole(state))
        if self.save_is_due:
            control.should_save = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.progress.interrupted and not _epoch_is_whole(state):
            # the loop runs its end of epoch also when it is broken off: nothing is due then
            control.should_evaluate = control.should_save = control.should_log = False
        control.should_save = control.should_save or self.save_is_due
        self.save_is_due = False


def _epoch_is_whole(state: TrainerState) -> bool:
    return float(state.epoch or 0).is_integer()


class Bar(TrainerCallback):
    """A bar over the steps with the last loss, for a training in Python where nobody has set up logging."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.lines.begin(state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.lines.bar is not None:
            self.lines.bar.update(1)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = (kwargs.get("logs") or {}).get("loss")
        if self.lines.bar is not None and loss is not None:
            self.lines.bar.set_postfix_str(f"loss {loss:.4f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.lines.end()


@dataclass
class MetricsLog(TrainerCallback):
    """Append one JSON object a log step to metrics.jsonl, and say the same on the log with an ETA.

    Args:
        progress: live counts, kept by the trainer, of all processes.
        flops_per_token: of forward and backward, for MFU; peak_flops: the measured matrix-product rate (flop/s) of all
            processes.
        peak_memory: peak memory of this process so far, in bytes; the line has the sum over the processes.
    """

    path: Path
    progress: Progress
    flops_per_token: float
    peak_flops: float
    peak_memory: Callable[[], int]
    _last: tuple[float, int, int] = (0.0, 0, 0)  # seconds of training, tokens, step at the last line
    _first: tuple[float, int] = (0.0, 0)  # seconds and step at the start, for the ETA

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._last = (self._seconds(), self.progress.tokens, state.global_step)
        self._first = (self._seconds(), state.global_step)

    def _seconds(self) -> float:
        return time.perf_counter() - self.progress.paused_s

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs: dict[str, Any] = kwargs.get("logs") or {}
        if "loss" in logs:
            self._write(state, self._training_line(state, logs))
            refuse_bad_loss(logs["loss"], state.global_step)
        elif "eval_loss" in logs:
            line = {"step": state.global_step, "epoch": state.epoch, **logs}
            self._write(state, line)
            said = [
                f"{k.removeprefix('eval_').replace('_', ' ')} {figure(v, '.4f', 1e6)}"
                for k, v in logs.items()
                if k[:5] == "eval_"
            ]
            log.info("step %d  validation %s", state.global_step, "  ".join(said))
            refuse_bad_loss(logs["eval_loss"], state.global_step)
        elif "train_loss" in logs:  # the mean over the run, said at its end: a short run may log nothing else
            refuse_bad_loss(logs["train_loss"], state.global_step)

    def _training_line(self, state: TrainerState, logs: dict[str, Any]) -> dict[str, Any]:
        now, (last, tokens, step) = self._seconds(), self._last
        seconds, steps = now - last, state.global_step - step
        tokens_per_s = (self.progress.tokens - tokens) / seconds
        line = {
            "step": state.global_step,
            "epoch": state.epoch,
            "loss": logs["loss"],
            "grad_norm": logs.get("grad_norm"),
            "learning_rate": logs.get("learning_rate"),
            "tokens": self.progress.tokens,
            "supervised_tokens": self.progress.supervised_tokens,
            "tokens_per_s": tokens_per_s,
            "step_s": seconds / max(steps, 1),
            "mfu": tokens_per_s * self.flops_per_token / self.peak_flops if self.peak_flops else None,
            "peak_memory_bytes": int(totals([self.peak_memory()])[0]),
        }
        self._last = (now, self.progress.tokens, state.global_step)
        began, first_step = self._first
        done, left = state.global_step - first_step, state.max_steps - state.global_step
        log.info(
            "step %d/%d  loss %.4f  lr %.2e  %s tokens/s  %.0f MB  ETA %s",
            state.global_step,
            state.max_steps,
            logs["loss"],
            logs.get("learning_rate") or 0.0,
            f"{tokens_per_s:,.0f}",
            line["peak_memory_bytes"] / 1e6,
            duration((now - began) / max(done, 1) * left),
            extra=STEP,
        )
        return line

    def _write(self, state: TrainerState, line: dict[str, Any]) -> None:
        if not state.is_world_process_zero:
            return
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")
