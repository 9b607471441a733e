"""Several processes against one: the same training, whatever their number? Tiny models on the CPU, float32.

    python benchmarks/processes.py                        # a table: each kind of training on 2, 3 and 4 processes
    python benchmarks/processes.py --only flat,lora       # some kinds
    python benchmarks/processes.py --kills 20             # kill -9 of a random process at random moments, max_restarts

Speed is not measured: the processes share the cores of one machine.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SLOTS = 12  # micro-batches of a step, in each column: gradient_accumulation_steps is 12 / processes
ROWS = 58  # 29 micro-batches of 2: steps of 12, 12 and 5
SAME = ("loss", "eval_loss", "grad_norm", "learning_rate", "epoch", "tokens", "supervised_tokens")

# kind -> settings over COMMON
COMMON: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "per_device_train_batch_size": 2, "num_train_epochs": 2, "learning_rate": 1e-3,
    "logging_steps": 1, "sample_prompts": 0, "memorization_samples": 0, "bootstrap_resamples": 100,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "flat": {},
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
                "validation_file": "few.jsonl"},
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
    }
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def settings(folder: Path, kind: str, out: str, processes: int, **more: Any) -> dict[str, Any]:
    """The configuration of one training; `processes` share its steps."""
    given = {"model_name_or_path": "gpt2", "train_file": "pairs.jsonl", "validation_file": "few.jsonl", **COMMON}
    given |= KINDS[kind] | {"gradient_accumulation_steps": SLOTS // processes, "output_dir": out} | more
    for leaf in ("model_name_or_path", "train_file", "validation_file", "output_dir"):
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
        [*torchrun, __file__, "--inside", str(file)],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{processes} processes: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HONE_CACHE": str(folder / "cache"), "TOKENIZERS_PARALLELISM": "false"}


# ---- what is compared ------------------------------------------------------------------------------------------------


def differences(one: Path, other: Path) -> dict[str, float]:
    """Largest differences of two runs: of the lines of metrics.jsonl, of the weights, of what was measured."""
    import numpy as np
    from safetensors.torch import load_file

    from hone.runs import Run

    lines, others = Run(one).metric_lines(), Run(other).metric_lines()
    found = {"steps": float(abs(len(lines) - len(others)))}
    for key in SAME:
        pairs = [(a[key], b[key]) for a, b in zip(lines, others) if a.get(key) is not None]
        found[key] = max((abs(a - b) for a, b in pairs), default=0.0)
    files = [next(run.glob("*model.safetensors")) for run in (one, other)]
    a, b = (load_file(file) for file in files)
    assert a.keys() == b.keys()
    found["weights"] = max(float((a[name] - b[name]).abs().max()) for name in a)
    for name in ("base", "tuned"):
        before, after = (json.loads((run / "eval" / f"{name}.json").read_text())["metrics"] for run in (one, other))
        found[name] = max(abs(before[key]["value"] - after[key]["value"]) for key in before if key != "perplexity")
    return {key: float(np.round(value, 12)) for key, value in found.items()}


def table(folder: Path, kinds: Sequence[str], worlds: Sequence[int]) -> bool:
    """Train each kind on one process and on more; print the differences; whether all are small."""
    os.environ |= environment(folder)
    train_here([settings(folder, kind, f"{kind}-1", 1) for kind in kinds])
    for world in worlds:
        started(world, [settings(folder, kind, f"{kind}-{world}", world) for kind in kinds], folder)
    fine = True
    print(
        f"{'kind':20} {'processes':>9} {'loss':>8} {'grad_norm':>9} {'weights':>8} {'tuned':>8}  tokens, steps, epoch"
    )
    for kind in kinds:
        for world in worlds:
            found = differences(folder / f"{kind}-1", folder / f"{kind}-{world}")
            counts = {key: found[key] for key in ("steps", "tokens", "supervised_tokens", "epoch", "learning_rate")}
            bars = (2e-5, 5e-4) if kind == "muon" else (1e-6, 1e-5)  # muon computes inside in bfloat16
            good = found["loss"] < bars[0] and found["weights"] < bars[1] and max(counts.values()) < 1e-9
            fine &= good
            line = f"{kind:20} {world:>9} {found['loss']:8.1e} {found['grad_norm']:9.1e} {found['weights']:8.1e} "
            line += f"{found['tuned']:8.1e}  {'equal' if max(counts.values()) < 1e-9 else counts}"
            print(line + ("" if good else "  WRONG"), flush=True)
    return fine


# ---- kills -----------------------------------------------------------------------------------------------------------


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


def kills(folder: Path, n: int, seed: int) -> bool:
    """Kill -9 of a random one of three processes at random moments: finished by itself, with the same bytes?

    The launcher starts them again (`max_restarts`); one trial in four kills twice. Three in four moments are steps of
    the training, one is anywhere from the start of the processes on.
    """
    import psutil

    drawn, equal = random.Random(seed), 0
    config = settings(folder, "flat", "undisturbed", 3, num_train_epochs=8, nproc_per_node=3, save_steps=2)
    config |= {"save_strategy": "steps", "eval_strategy": "no"}
    began = time.monotonic()
    whole = hone_train(folder, config)
    assert whole.communicate()[0] is not None and whole.returncode == 0
    took = time.monotonic() - began
    wanted = (folder / "undisturbed" / "model.safetensors").read_bytes()
    for trial in range(n):
        run = folder / f"killed-{trial}"
        process = hone_train(folder, {**config, "output_dir": str(run)}, "max_restarts=3")
        killed = []
        lines = run / "metrics.jsonl"
        for _ in range(1 + (drawn.random() < 0.25)):
            if drawn.random() < 0.25:
                time.sleep(drawn.uniform(0.1, 0.9) * took)
            else:
                at_line(lines, drawn.randrange(1, 24), process)
            workers = psutil.Process(process.pid).children() if process.poll() is None else []
            if workers:
                number = drawn.randrange(len(workers))
                workers[number].kill()
                step = lines.read_bytes().count(b"\n") if lines.is_file() else 0
                killed.append(f"process {number} after {step} steps")
        said, _ = process.communicate(timeout=40 * took)
        weights = run / "model.safetensors"
        same = process.returncode == 0 and weights.is_file() and weights.read_bytes() == wanted
        equal += same
        print(f"{trial + 1:3} {'equal' if same else 'WRONG'}  {', '.join(killed) or 'ended before'}", flush=True)
        if not same:
            print(said[-2000:])
        shutil.rmtree(run, ignore_errors=True)
    print(f"{equal} of {n} finished by themselves with the same bytes")
    return equal == n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, separated by commas")
    parser.add_argument("--worlds", default="2,3,4", help="numbers of processes")
    parser.add_argument("--kills", type=int, help="so many trials with kill -9")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the processes")
    parser.add_argument("--work", type=Path, help="a folder to work in; by default one that is deleted")
    given = parser.parse_args()
    if given.inside:
        train_here(json.loads(given.inside.read_text()))
        return
    folder = given.work or Path(tempfile.mkdtemp(prefix="processes-"))
    try:
        if not (folder / "pairs.jsonl").is_file():
            write_world(folder)
        if given.kills:
            raise SystemExit(0 if kills(folder, given.kills, given.seed) else 1)
        fine = table(folder, given.only.split(","), [int(world) for world in given.worlds.split(",")])
    finally:
        if given.work is None:
            shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
