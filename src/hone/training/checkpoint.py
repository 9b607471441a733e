"""Files of a run that must never be half, or other than they were written: checkpoints and the final model.

A checkpoint is written aside, synced, described in `complete.json` (each file's size and SHA-256, the versions, the
step), renamed, and read again from the disk before an older one goes. A resume takes the newest whose files are still
those; the others are named and set aside.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.config.schema import Where
from hone.data.tokenizer import save_tokenizer
from hone.errors import HoneError
from hone.files import disk_errors, follow_umask, fsync_path, read_sealed, write_json_atomic, write_sealed
from hone.loss import refuse_diverged
from hone.manifest import MANIFEST, FileAbout, describe_files, model_problems, problems
from hone.models.adapter import BASE, check_base, describe_base
from hone.models.classifier_head import CLASSIFIES, LABELS, architecture, class_names
from hone.processes import primary
from hone.runs import COMPLETE, RESOLVED, SAVING, Run, checkpoint_problems, versions
from hone.training.callbacks import Progress

log = logging.getLogger("hone")


@dataclass(frozen=True)
class Reached:
    """Where training was when a checkpoint was saved: what its other files do not say. It stands in `complete.json`.

    Attributes:
        step: steps done. ended: none follows. world_size: processes that did the last ones. slots: micro-batches of a
            step, of all processes.
        metrics_bytes, metrics_sha256: of metrics.jsonl.
        loss_sum: of the steps since `logged_step`, the last one with a line there.
        tokens, supervised_tokens, used_s: as of `Progress`.
    """

    step: int
    ended: bool
    world_size: int
    slots: int
    metrics_bytes: int
    metrics_sha256: str | None
    loss_sum: float
    logged_step: int
    tokens: int
    supervised_tokens: int
    used_s: float


MODEL_ASIDE = ".model.tmp"
DAMAGED = ".damaged"  # behind the name of a checkpoint that is set aside


# ---- which checkpoint to go on from ----------------------------------------------------------------------------------


def checkpoint_to_resume(run: Run, wanted: str, where: Where) -> Path | None:
    """The newest valid checkpoint ("auto"), the one that is wanted, or None to begin at the start ("never").

    Raises:
        HoneError: the one that is wanted is not there, not complete or damaged.
    """
    if wanted == "never":
        return None
    if wanted != "auto":
        if not (Path(wanted) / COMPLETE).is_file():
            raise HoneError(
                f"no complete checkpoint there: {wanted}",
                where=where("resume_from_checkpoint"),
                fix="name a checkpoint-N folder, or remove resume_from_checkpoint: the newest is found by itself",
            )
        if damages := checkpoint_problems(Path(wanted)):
            raise HoneError(
                f"this checkpoint is damaged: {'; '.join(damages)}",
                where=wanted,
                fix="remove resume_from_checkpoint: the newest valid one is found by itself",
            )
        return Path(wanted)
    for checkpoint in reversed(run.checkpoints()):
        damages = checkpoint_problems(checkpoint)
        if not damages:
            return checkpoint
        aside = checkpoint.with_name(checkpoint.name + DAMAGED)
        with disk_errors(checkpoint):
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
        log.warning("damaged, and set aside as %s: %s", aside, "; ".join(f"{checkpoint / d}" for d in damages))
    return None


def restore(run: Run, checkpoint: Path, progress: Progress) -> Reached:
    """Bring what lives outside the Trainer back to a checkpoint: counts, and the metrics written after it."""
    reached = reached_at(checkpoint)
    progress.tokens, progress.supervised_tokens = reached.tokens, reached.supervised_tokens
    progress.used_s = reached.used_s
    if not primary():
        return reached
    there = written_metrics(run, reached)
    metrics = run.folder / "metrics.jsonl"
    if metrics.is_file():
        with metrics.open("r+b") as file:
            file.truncate(there.rfind(b"\n") + 1)  # of a file cut off by a crash, whole lines are kept
    return reached


def reached_at(checkpoint: Path) -> Reached:
    """What a checkpoint's `complete.json` says of the training."""
    about = read_sealed(checkpoint / COMPLETE)
    return Reached(**{field.name: about[field.name] for field in fields(Reached)})


def written_metrics(run: Run, reached: Reached) -> bytes:
    """The lines of metrics.jsonl as of a checkpoint; other ones are named."""
    metrics = run.folder / "metrics.jsonl"
    there = metrics.read_bytes()[: reached.metrics_bytes] if metrics.is_file() else b""
    if reached.metrics_bytes and hashlib.sha256(there).hexdigest() != reached.metrics_sha256:
        log.warning("%s: the lines up to step %d are not what was written (the weights are)", metrics, reached.step)
    return there


def refuse_other_base(model: PreTrainedModel, checkpoint: Path, base: str) -> None:
    """Raise a HoneError if an adapter's checkpoint was trained on other weights than those just loaded."""
    if hasattr(model, "peft_config"):
        check_base(model, checkpoint, base, "put the base back that it was trained on, or begin again: overwrite=true")


def refuse_other_steps(checkpoint: Path, slots: int, accumulation: int, where: Where) -> None:
    """Raise a HoneError if a checkpoint is of steps of another size: its number of steps would be another place here.

    Args:
        slots: micro-batches of a step from now on. accumulation: what of that is `gradient_accumulation_steps`.
    """
    theirs = reached_at(checkpoint).slots
    if theirs != slots:
        processes = slots // accumulation
        there = (
            f"gradient_accumulation_steps={theirs // processes}" if theirs % processes == 0 else "one process, with "
        )
        there += "" if theirs % processes == 0 else f"gradient_accumulation_steps={theirs}"
        raise HoneError(
            f"this checkpoint was trained in steps of {theirs} micro-batches, and this run takes {slots} a step",
            where=where("resume_from_checkpoint") or str(checkpoint),
            fix=f"go on with {there}, in a new output_dir",
        )


def sweep(run: Run) -> None:
    """Delete what a killed process left half written in a run folder; to be called by the holder of its lock."""
    shutil.rmtree(run.folder / SAVING, ignore_errors=True)
    shutil.rmtree(run.folder / MODEL_ASIDE, ignore_errors=True)
    for folder in (run.folder, run.folder / "eval"):
        for path in folder.glob(".*.tmp-*"):
            path.unlink(missing_ok=True)
    for path in run.folder.glob("checkpoint-*"):
        if path.name[11:].isdigit() and not (path / COMPLETE).is_file():
            shutil.rmtree(path, ignore_errors=True)


# ---- writing them ----------------------------------------------------------------------------------------------------


def seal_checkpoint(written: Path, folder: Path, reached: Reached) -> None:
    """Make the files in `written` a checkpoint of the name `folder`: described, synced, renamed, read again.

    Raises:
        HoneError: the disk returns other bytes than were written.
    """
    follow_umask(written)
    write_sealed(written / COMPLETE, {**asdict(reached), "versions": versions(), "files": describe_files(written)})
    for path in (*written.rglob("*"), written):
        fsync_path(path)
    written.rename(folder)
    fsync_path(folder.parent)
    try:
        refuse_unlike(folder, read_sealed(folder / COMPLETE)["files"])
    except HoneError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse_unlike(folder: Path, files: Mapping[str, FileAbout]) -> None:
    """Read files again, from the disk and not from the memory of the system.

    Raises:
        HoneError: it returns other bytes than were written.
    """
    for name in files:
        fsync_path(folder / name)
        _forget(folder / name)
    if damages := problems(folder, files, hashes=True):
        raise HoneError(
            f"the disk returned other bytes than were written: {'; '.join(damages)}",
            where=str(folder),
            fix="look at the disk; older checkpoints are kept, and the same command goes on from the last one",
        )


def saved_bytes(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> int:
    """About what a checkpoint takes: weights (of an adapter, those that train) and the optimizer's state."""
    weights = [p for p in model.parameters() if p.requires_grad or not hasattr(model, "peft_config")]
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*weights, *states])


def _forget(path: Path) -> None:
    """Ask the system to drop its copy of a file, so that the next reading is of the disk."""
    if hasattr(os, "posix_fadvise") and path.is_file():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def save_model(model: Any, tokenizer: PreTrainedTokenizerBase, template: str, folder: Path) -> None:
    """Model (or adapter), tokenizer and template name, written aside, synced and moved to the run's root, weights last.

    Weights are safetensors; a tied tensor is written once and tied again by the loader. `manifest.json` describes the
    files.
    """
    temporary = folder / MODEL_ASIDE
    refuse_diverged(model)
    with disk_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            model.save_pretrained(temporary, safe_serialization=True)
            follow_umask(temporary)
            save_tokenizer(tokenizer, temporary)
            write_json_atomic(temporary / "template.json", {"template": template})
            if architecture(model).endswith(CLASSIFIES):
                about = {"labels": class_names(model), "pad_token_id": model.config.pad_token_id}
                write_json_atomic(temporary / LABELS, about)
            if hasattr(model, "peft_config"):
                write_json_atomic(temporary / BASE, describe_base(model))
            files = sorted(temporary.iterdir(), key=lambda path: path.suffix == ".safetensors")
            for path in files:
                fsync_path(path)
            # not the card: another is written when all is measured
            described = describe_files(temporary, [path.name for path in files if path.name != "README.md"])
            for path in files:
                path.replace(folder / path.name)
            fsync_path(folder)
            write_sealed(folder / MANIFEST, {"versions": versions(), "files": described})
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def seal_run(run: Run) -> None:
    """Add to `manifest.json`, under `measured`, the configs and what was measured: none of it changes any more."""
    names = [RESOLVED, "config.yaml", "env.json", "metrics.jsonl"]
    names += [f"eval/{path.name}" for path in run.folder.glob("eval/*")]
    measured = describe_files(run.folder, [name for name in names if (run.folder / name).is_file()])
    write_sealed(run.folder / MANIFEST, {**read_sealed(run.folder / MANIFEST), "measured": measured})


def saved_problems(folder: Path) -> list[str]:
    """What of a saved model is not as it was written; reads all of it."""
    return model_problems(folder, whole=True) if (folder / MANIFEST).is_file() else [f"{MANIFEST}: missing"]
