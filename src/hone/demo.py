"""`hone demo`: the whole path on one machine, offline, in under three minutes.

1. a tokenizer and a small GPT-2 trained from scratch on the source of Python's own standard library;
2. that model fine-tuned on the shipped functions (`assets/demo`), measured before and after on held-out ones.
"""

import logging
import sysconfig
import time
from importlib import resources
from pathlib import Path
from typing import Any

from hone.config.load import load_config
from hone.data.tokenizer import bytes_per_token, save_tokenizer, train_bpe
from hone.errors import HoneError
from hone.runs import Run
from hone.training.train import train

log = logging.getLogger("hone")

# Tables, tests and vendored copies teach a model little about how functions are written.
SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "idle_test",
    "lib2to3",
    "encodings",
    "pydoc_data",
    "site-packages",
    "dist-packages",
}
SKIPPED |= {"turtledemo", "msilib", "ensurepip", "__pycache__", "distutils", "config-3"}
VOCAB_SIZE = 4096
PRETRAIN_SECONDS = 75.0


def demo(folder: Path) -> Run:
    """Run both trainings below `folder` and return the fine-tuning run; what is finished is not done again.

    Raises:
        HoneError: this Python came without the source of its library.
    """
    files = library_files(Path(sysconfig.get_path("stdlib")))
    tokenizer_folder = folder / "tokenizer"
    if not (tokenizer_folder / "tokenizer.json").is_file():
        _train_tokenizer(files, tokenizer_folder)
    settings = _settings(folder, files)
    log.info("\n== 1. pre-training a small GPT-2 on %d files of the standard library", len(files))
    pretrained = train(load_config(settings["pretrain"]))
    log.info("\n== 2. fine-tuning it on small functions")
    return train(load_config({**settings["finetune"], "model_name_or_path": str(pretrained.folder)}))


def library_files(root: Path) -> list[Path]:
    """The source files of a Python installation's library, without tests, tables and vendored packages.

    Raises:
        HoneError: fewer than 100 files, as in a Python stripped of its sources.
    """
    files = [path for path in sorted(root.rglob("*.py")) if not SKIPPED & set(path.relative_to(root).parts[:-1])]
    files = [path for path in files if path.stat().st_size and _is_utf8(path)]
    if len(files) < 100:
        raise HoneError(
            f"the demo trains on Python's library, but only {len(files)} source files of it are here",
            where=str(root),
            fix="use a full Python, or train on your own files: `hone init code-from-scratch`",
        )
    return files


def _is_utf8(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _train_tokenizer(files: list[Path], folder: Path) -> None:
    began = time.perf_counter()
    held_out = files[::20]
    texts = (path.read_text(encoding="utf-8") for path in files if path not in set(held_out))
    tokenizer = train_bpe(texts, vocab_size=VOCAB_SIZE)
    save_tokenizer(tokenizer, folder)
    ratio = bytes_per_token(tokenizer, (path.read_text(encoding="utf-8") for path in held_out))
    log.info(
        "tokenizer: %d tokens, %.2f bytes per token on %d held-out files (%.1f s)",
        len(tokenizer),
        ratio.ratio,
        len(held_out),
        time.perf_counter() - began,
    )


def _settings(folder: Path, files: list[Path]) -> dict[str, dict[str, Any]]:
    data = resources.files("hone") / "assets" / "demo"
    shared = {"seed": 0, "save_total_limit": 1, "lr_scheduler_type": "cosine"}
    pretrain = {
        **shared,
        "model_type": "gpt2",
        "tokenizer_name_or_path": str(folder / "tokenizer"),
        "config_overrides": {
            "n_layer": 4,
            "n_head": 4,
            "n_embd": 256,
            "n_positions": 512,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),  # one pass over the data cannot overfit
        },
        "train_file": [str(path) for path in files],
        "validation_split_percentage": 2.0,
        "max_length": 128,
        "batching": "windows",
        "max_eval_samples": 100,
        "per_device_train_batch_size": 8,
        "max_steps": 600,
        "max_train_seconds": PRETRAIN_SECONDS,
        "learning_rate": 2e-3,
        "warmup_steps": 40,
        "weight_decay": 0.1,
        "logging_steps": 50,
        "eval_strategy": "no",
        "save_strategy": "no",
        "sample_prompts": 0,
        "output_dir": str(folder / "pretrained"),
    }
    finetune = {
        **shared,
        "train_file": str(data / "train.jsonl"),
        "validation_file": str(data / "validation.jsonl"),
        "max_length": 256,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 4.0,
        "learning_rate": 5e-4,
        "warmup_steps": 10,
        "logging_steps": 10,
        "save_strategy": "epoch",
        "output_dir": str(folder / "functions"),
    }
    return {"pretrain": pretrain, "finetune": finetune}
