"""Files of a run that must never be half: the final model, and which checkpoint to go on from."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from hone.config.schema import Where
from hone.data.tokenizer import save_tokenizer
from hone.errors import HoneError
from hone.files import disk_errors, follow_umask, fsync_path, read_json, write_json_atomic
from hone.loss import refuse_diverged
from hone.models.adapter import BASE, base_identity
from hone.models.classifier_head import CLASSIFIES, LABELS, architecture, class_names
from hone.runs import COMPLETE, Run
from hone.training.callbacks import Progress


def checkpoint_to_resume(run: Run, wanted: str, where: Where) -> Path | None:
    """The newest complete checkpoint ("auto"), the one that is wanted, or None to begin at the start ("never")."""
    if wanted == "never":
        return None
    if wanted != "auto":
        if not (Path(wanted) / COMPLETE).is_file():
            raise HoneError(
                f"no complete checkpoint there: {wanted}",
                where=where("resume_from_checkpoint"),
                fix="name a checkpoint-N folder, or remove resume_from_checkpoint: the newest is found by itself",
            )
        _refuse_damaged(Path(wanted))
        return Path(wanted)
    checkpoints = run.checkpoints()
    if not checkpoints:
        return None
    _refuse_damaged(checkpoints[-1])
    return checkpoints[-1]


def _refuse_damaged(checkpoint: Path) -> None:
    """Raise a HoneError if a file of a complete checkpoint was cut off later; headers are read, not the weights."""
    for path in sorted(checkpoint.iterdir()):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="np"):
                    pass
            elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):  # its list of contents is at its end
                raise ValueError("not all of it is there")
        except (SafetensorError, OSError, ValueError) as damage:
            raise HoneError(
                f"this checkpoint's file is damaged: {damage}",
                where=str(path),
                fix=f"delete {checkpoint}: the same command then goes on from the one before it, or from the start",
            ) from damage


def restore(run: Run, checkpoint: Path, progress: Progress) -> None:
    """Bring what lives outside the Trainer back to a checkpoint: counts, and the metrics written after it."""
    about = read_json(checkpoint / COMPLETE)
    progress.tokens, progress.supervised_tokens = about["tokens"], about["supervised_tokens"]
    metrics = run.folder / "metrics.jsonl"
    if metrics.is_file():
        with metrics.open("r+b") as file:
            file.truncate(about["metrics_bytes"])


def save_model(model: Any, tokenizer: PreTrainedTokenizerBase, template: str, folder: Path) -> None:
    """Model (or adapter), tokenizer and template name, written aside, synced and moved to the run's root, weights last.

    Weights are safetensors; a tied tensor is written once and tied again by the loader.
    """
    temporary = folder / ".model.tmp"
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
                write_json_atomic(temporary / BASE, base_identity(model))
            files = sorted(temporary.iterdir(), key=lambda path: path.suffix == ".safetensors")
            for path in files:
                fsync_path(path)
            for path in files:
                path.replace(folder / path.name)
            fsync_path(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
