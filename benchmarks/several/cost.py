"""What several processes cost: bytes sent in a step, one process and two with a core each, the time of a checkpoint.

Bytes are those of the loopback device in a network namespace of their own, counted by the kernel: all that the
processes send to each other, headers included. In turns: one process on one core, two processes on two.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from several.world import SCRIPT, environment

ALONE_ON_THE_NET = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "-"]
# name -> model type and its shape: the first is the 82M of distilgpt2, the second a Qwen2 of fewer, narrower layers
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "82M": ("gpt2", {"n_layer": 6, "n_head": 12, "n_embd": 768, "n_positions": 256, "vocab_size": 50257}),
    "19M": ("qwen2", {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 8,
                      "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": 30000}),
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"method": "lora", "lora_r": 64},
    "fsdp2": {"sharding": "fsdp2"},
}
ROWS_TOKENS = 120


class Clock(TrainerCallback):
    """When each step ended and what had been sent until then; how long each checkpoint took."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []
        self.saves: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append((time.perf_counter(), sent_bytes()))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saves.append(time.perf_counter() - self.steps[-1][0])


def sent_bytes() -> int:
    """By the loopback device of this network namespace, since it began."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    return 0


def train_timed(config: dict[str, Any], out: Path) -> None:
    """Train, and write what the clock of the first process says."""
    import hone
    from hone.processes import joined, primary

    clock = Clock()
    with joined():
        run = hone.train(hone.load_config(config), callbacks=[clock])
        if primary():
            rates = [line["tokens_per_s"] for line in run.metric_lines() if "tokens_per_s" in line]
            out.write_text(json.dumps({"steps": clock.steps, "saves": clock.saves, "tokens_per_s": rates}))


def timed(folder: Path, config: dict[str, Any], processes: int, *, counted: bool = False) -> dict[str, Any]:
    """One training by `torchrun`, each process with one thread, on as many cores."""
    given, out = folder / "timed.json", folder / "clock.json"
    given.write_text(json.dumps(config))
    shutil.rmtree(config["output_dir"], ignore_errors=True)
    cores = sorted(os.sched_getaffinity(0))[:processes]
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores))]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [*(ALONE_ON_THE_NET if counted else pinned), *torchrun, str(SCRIPT), "--timed", str(given), str(out)],
        env={**environment(folder, processes), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{processes} processes: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def write_shapes(folder: Path) -> None:
    """Random models of both shapes with the tiny tokenizer, and rows of some length."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "gpt2")
    for name, (model_type, shape) in SHAPES.items():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **shape)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    text = "word " * ROWS_TOKENS
    rows = [{"text": f"{i} {text}"} for i in range(256)]
    (folder / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def config_of(folder: Path, shape: str, way: str, processes: int, *, rows: int, steps: int) -> dict[str, Any]:
    """Some steps of so many rows each, in micro-batches of 4, without measuring anything."""
    return {
        "model_name_or_path": str(folder / shape), "train_file": str(folder / "long.jsonl"), "max_length": 128,
        "output_dir": str(folder / f"cost-{shape}-{way}-{processes}-{rows}"), "use_cpu": True, "bf16": False,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": rows // 4 // processes, "max_steps": steps,
        "validation_split_percentage": 0, "logging_steps": 1, "save_strategy": "no", **WAYS[way],
    }  # fmt: skip


def costs(folder: Path, rounds: int) -> bool:
    """All three tables."""
    if not (folder / "82M").is_dir():
        write_shapes(folder)
    bytes_sent(folder)
    one_and_two(folder, rounds)
    return True


def bytes_sent(folder: Path) -> None:
    """Counted by the kernel, and expected: of all processes together, in a step of two micro-batches each."""
    import hone

    print(f"{'shape':6} {'way':6} {'processes':>9} {'passes':>6} {'sent, MB a step':>16} {'expected':>9}  ratio")
    for shape, way, processes in [
        *(("82M", way, 2) for way in WAYS),
        *(("19M", way, processes) for way in WAYS for processes in (2, 4)),
    ]:
        config = config_of(folder, shape, way, processes, rows=8 * processes, steps=5)
        counts = [sent for _, sent in timed(folder, config, processes, counted=True)["steps"]]
        sent = (counts[-1] - counts[1]) / (len(counts) - 2)
        planned = hone.plan(hone.load_config({**config, "nproc_per_node": processes}))
        expected = processes * planned.memory.sent
        line = f"{shape:6} {way:6} {processes:>9} {2:>6} {sent / 1e6:>16.1f} {expected / 1e6:>9.1f}"
        print(f"{line}  {sent / expected:.3f}", flush=True)


def one_and_two(folder: Path, rounds: int) -> None:
    """Tokens a second of one process on one core and of two on two, in turn; and checkpoints."""
    for rows in (8, 32):
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for processes in (1, 2):
                config = config_of(folder, "82M", "full", processes, rows=rows, steps=4 if rows < 32 else 3)
                rates[processes].append(statistics.median(timed(folder, config, processes)["tokens_per_s"][1:]))
        pairs = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
        print(
            f"82M, {rows} rows of {ROWS_TOKENS} tokens a step: 1 process {_spread(rates[1], '.0f')} tokens/s, "
            f"2 processes {_spread(rates[2], '.0f')}, ratio {_spread(pairs, '.2f')}",
            flush=True,
        )
    saves: dict[str, list[float]] = {}
    for _ in range(rounds):
        for way, processes in (("full", 1), ("full", 2), ("fsdp2", 2)):
            config = config_of(folder, "82M", way, processes, rows=8, steps=4) | {"save_strategy": "steps"}
            found = timed(folder, config | {"save_steps": 1}, processes)["saves"]
            saves.setdefault(f"{way}, {processes}", []).append(statistics.median(found))
    for name, seconds in saves.items():
        print(f"82M, a checkpoint of {name}: {_spread(seconds, '.2f')} s", flush=True)


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
