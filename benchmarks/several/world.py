"""Tiny models and rows, the kinds of training, and how a group of processes is started with one."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[1] / "processes.py"
SLOTS = 12  # micro-batches of a step, in each column: gradient_accumulation_steps is 12 / processes
ROWS = 58  # 29 micro-batches of 2: steps of 12, 12 and 5

# kind -> settings over COMMON
COMMON: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "per_device_train_batch_size": 2, "num_train_epochs": 2, "learning_rate": 1e-3,
    "logging_steps": 1, "bootstrap_resamples": 100, "eval_tokens_per_batch": 60,
    "sample_prompts": 3, "memorization_samples": 5, "sample_max_new_tokens": 8,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "flat": {},
    "code-tasks": {"code_tasks": "tasks.jsonl", "temperature": 0.8, "num_return_sequences": 3, "max_new_tokens": 12},
    "packed": {"batching": "packed", "max_length": 64},
    "padded": {"batching": "padded", "load_best_model_at_end": True, "early_stopping_patience": 1},
    "windows": {"batching": "windows", "max_length": 16},
    "micro_batch_tokens": {"micro_batch_tokens": 70},
    "dropout": {"dropout": 0.1},
    "half-epoch": {"num_train_epochs": 1.5},
    "lora": {"method": "lora", "lora_r": 4, "learning_rate": 1e-2},
    "freeze-cache": {"method": "freeze", "num_unfrozen_layers": 1},
    "classification": {"task": "classification", "train_file": "labelled.jsonl", "validation_file": "judged.jsonl"},
    "seq2seq": {"task": "seq2seq", "model_name_or_path": "t5", "train_file": "pairs.jsonl",
                "validation_file": "few.jsonl", "eval_generate_samples": 7},
    "muon": {"optim": "muon"},
    "fsdp2": {"sharding": "fsdp2", "micro_batch_tokens": 70},
    "fsdp2-best": {"sharding": "fsdp2", "load_best_model_at_end": True, "gradient_checkpointing": True},
    "fsdp2-lora": {"sharding": "fsdp2", "method": "lora", "lora_r": 4, "learning_rate": 1e-2},
    "fsdp2-freeze": {"sharding": "fsdp2", "method": "freeze", "num_unfrozen_layers": 1},
    "fsdp2-seq2seq": {"sharding": "fsdp2", "task": "seq2seq", "model_name_or_path": "t5",
                      "train_file": "pairs.jsonl", "validation_file": "few.jsonl"},
    "fsdp2-classes": {"sharding": "fsdp2", "task": "classification", "train_file": "labelled.jsonl",
                      "validation_file": "judged.jsonl"},
}  # fmt: skip


def write_world(folder: Path) -> None:
    """A tiny GPT-2, a tiny T5, their tokenizer, and rows of very different lengths."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

    from hone.data.tokenizer import train_bpe

    folder.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(0)
    texts = [f"question {i}: " + "word " * drawn.randint(1, 9) for i in range(ROWS)]
    answers = ["answer " * drawn.randint(1, 12) + str(i) for i in range(ROWS)]
    tokenizer = train_bpe([*texts, *answers] * 4, vocab_size=300)
    torch.manual_seed(0)
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 256, "vocab_size": len(tokenizer)}
    gpt2 = AutoConfig.for_model("gpt2", **shape, **none, bos_token_id=0, eos_token_id=0)
    small = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    t5 = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, pad_token_id=0, eos_token_id=0, **small)
    for name, model in (
        ("gpt2", AutoModelForCausalLM.from_config(gpt2)), ("t5", T5ForConditionalGeneration(t5)),
    ):  # fmt: skip
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [{"prompt": text, "completion": answer} for text, answer in zip(texts, answers, strict=True)]
    files = {
        "pairs": rows,
        "few": [{"prompt": f"asked {i}: word", "completion": "answer " * (1 + i % 5)} for i in range(11)],
        "labelled": [{"text": text, "label": f"class {i % 3}"} for i, text in enumerate(texts)],
        "judged": [{"text": f"asked {i}: word", "label": f"class {i % 3}"} for i in range(11)],
        "tasks": [task(i) for i in range(5)],
    }
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def task(number: int) -> dict[str, Any]:
    """A function to be written whose tests pass with any body: what is answered and graded is looked at, not how well.

    The last one fills the model's window.
    """
    name = f"f{number}"
    words = "word " * (400 if number == 4 else number)
    prompt = f"def {name}(a):\n    '''Anything. {words}'''\n    return a\n"
    return {"task_id": name, "prompt": prompt, "entry_point": name, "tests": [f"assert {name}(2) == 2"]}


def settings(folder: Path, kind: str, out: str, processes: int, **more: Any) -> dict[str, Any]:
    """The configuration of one training; `processes` share its steps."""
    given = {"model_name_or_path": "gpt2", "train_file": "pairs.jsonl", "validation_file": "few.jsonl", **COMMON}
    given |= KINDS[kind] | {"gradient_accumulation_steps": SLOTS // processes, "output_dir": out} | more
    for leaf in ("model_name_or_path", "train_file", "validation_file", "output_dir", "code_tasks"):
        if leaf in given:
            given[leaf] = str(folder / given[leaf])
    return given


def train_here(configs: Sequence[dict[str, Any]]) -> None:
    """One after the other, in this process or in the group that it is one of."""
    import hone
    from hone.processes import joined

    with joined():
        for config in configs:
            hone.train(hone.load_config(config))


def started(processes: int, configs: Sequence[dict[str, Any]], folder: Path) -> None:
    """Train all of them in one group of processes, started by torchrun."""
    file = folder / f"configs-{processes}.json"
    file.write_text(json.dumps(list(configs)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [*torchrun, str(SCRIPT), "--inside", str(file)],
        env=environment(folder, processes),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{processes} processes: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def environment(folder: Path, processes: int = 1) -> dict[str, str]:
    """A cache for each number of processes: none is to find what another has computed."""
    return {**os.environ, "HONE_CACHE": str(folder / f"cache-{processes}"), "TOKENIZERS_PARALLELISM": "false"}


def hone_train(folder: Path, config: dict[str, Any], *more: str, prefix: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """`hone train` with these settings, as somebody would type it."""
    given = [f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in config.items()]
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "hone", "train", *given, *more],
        env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def at_line(file: Path, n: int, process: "subprocess.Popen[str]") -> None:
    """Wait until a file has so many lines, or the process has ended."""
    while process.poll() is None and (not file.is_file() or file.read_bytes().count(b"\n") < n):
        time.sleep(0.005)
