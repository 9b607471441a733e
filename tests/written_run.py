"""A run folder written by hand: every file that a report reads, with numbers chosen to be told apart in it."""

import json
from pathlib import Path
from typing import Any

from hone.config.dump import resolved_yaml
from hone.config.schema import Config

LOG = [
    {"step": 10, "loss": 5.25, "tokens": 1000, "supervised_tokens": 400, "learning_rate": 5e-4, "grad_norm": 2.0,
     "tokens_per_s": 300.0, "peak_memory_bytes": 1_500_000_000},
    {"step": 15, "eval_loss": 4.75},
    {"step": 20, "loss": 4.5, "tokens": 2100, "supervised_tokens": 850, "learning_rate": 1e-4, "grad_norm": 1.5,
     "tokens_per_s": 320.0, "peak_memory_bytes": 1_600_000_000},
]  # fmt: skip
SAID = """08:00:00 data: 99 training examples, 9,999 tokens, of an earlier start
08:02:44 data: 187 training examples, 23,979 tokens (10,358 supervised), template plain, batches flat
08:02:44 data: dropped 3 × rows without text: a.jsonl:4
08:02:44 data: overlap: 2 of 33
08:02:46 base: loss 5.5
"""


def measured(loss: float) -> dict[str, Any]:
    return {
        "loss": loss, "loss_interval": [loss - 0.15, loss + 0.15], "perplexity": 100 * loss,
        "perplexity_interval": [90 * loss, 110 * loss], "bits_per_byte": loss / 2, "bits_per_byte_interval": None,
        "n_tokens": 1934, "n_items": 33, "item": "document", "confidence_level": 0.95, "samples": [],
        "generation_quality": {"n_texts": 20, "parses": loss / 10, "parses_interval": [0.2, 0.7], "per_text": {}},
    }  # fmt: skip


def compared(difference: float, low: float, high: float, verdict: str) -> dict[str, Any]:
    return {
        "loss_difference": difference, "loss_difference_interval": [low, high], "loss_p_value": 0.00002,
        "loss_p_adjusted": 0.00004, "loss_detectable": 0.21, "n_items": 33, "item": "document",
        "confidence_level": 0.95, "verdict": verdict,
    }  # fmt: skip


def programs(*passed: bool) -> list[dict[str, Any]]:
    return [
        {"task_id": f"task/{i}", "passed": right, "verdict": "pass" if right else "wrong", "detail": ""}
        for i, right in enumerate(passed)
    ]


def over_seeds(mean: float, interval: list[float]) -> dict[str, Any]:
    return {
        "mean": mean, "lowest": mean - 0.1, "highest": mean + 0.1, "standard_deviation": 0.05,
        "standard_deviation_interval": [0.03, 0.11], "seeds_interval": interval, "interval": interval,
        "detectable": 0.17, "one_seed_noise": 0.2, "n_seeds": 2, "n_items": 33,
    }  # fmt: skip


def repeated() -> dict[str, Any]:
    runs = [
        {"seed": seed, "folder": f"seed-{seed}", "tuned": 4.3 + seed / 10, "tuned_interval": [4.1, 4.6],
         "change": -1.2, "change_interval": [-1.4, -1.0], "verdict": "better", "seconds": 30.0}
        for seed in (0, 1)
    ]  # fmt: skip
    change = over_seeds(-1.25, [-1.5, -1.1]) | {"sign_flip_p": 0.5, "smallest_p": 0.5, "verdict": "better"}
    return {
        "metric": "loss", "unit": "nats/token", "item": "document", "confidence_level": 0.95, "runs": runs,
        "seed_changes": ["the order of the rows"], "tuned": over_seeds(4.35, [4.0, 4.7]), "change": change,
    }  # fmt: skip


SAMPLE = {"item": 0, "prompt": "def f(x):\n", "reference": "    return 2 * x\n", "base": "    return y\n",
          "tuned": "    return x\n"}  # fmt: skip
OVERLAP = {
    "n_items": 33, "n_overlapping": 2, "n_exact": 1, "n_same_code": 0, "n_near": 1, "items": [
        {"item": 7, "row": 12, "kind": "exact", "share": 1.0, "text": "def leaked(): pass"},
    ],
}  # fmt: skip


COPIED = {
    "copied_characters_in_a_row": 50, "copied_words_in_a_row": 13, "prompts": {
        "training": {"n_items": 20, "base": {"copying": 0.05, "copying_interval": [0.01, 0.24]},
                     "tuned": {"copying": 0.45, "copying_interval": [0.26, 0.66]}, "copying_difference": 0.4,
                     "copying_difference_interval": [0.15, 0.6], "p_value": 0.0078},
        "held_out": {"n_items": 20, "tuned": {"copying": 0.0, "copying_interval": None}},
    },
}  # fmt: skip


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_run(folder: Path) -> Path:
    """A finished run of task causal, with programs graded, an overlap found and a repetition beside it."""
    config = Config()
    config.model.model_name_or_path = "distilgpt2"
    config.train.learning_rate = 3e-4
    settings = resolved_yaml(config)
    env = {
        "time": "2026-01-01", "python": "3.11.7", "platform": "Linux", "versions": {"torch": "2.13.0", "peft": None},
        "git": "abc", "cpu_count": 2, "torch_threads": 2, "cpu_capability": "AVX512", "gpus": [], "seed": 0,
        "data": {"train": [{"file": "train.jsonl", "bytes": 127373, "sha256": "577a9dedd7495abe"}]},
    }  # fmt: skip
    files = {
        "status.json": json.dumps({"status": "finished", "stage": "finished", "seconds": 94.2}),
        "metrics.jsonl": lines(LOG),
        "env.json": json.dumps(env),
        "config.resolved.yaml": settings,
        "train.log": SAID,
        "repeat.json": json.dumps(repeated()),
        "eval/base.json": json.dumps(measured(5.5)),
        "eval/tuned.json": json.dumps(measured(4.25)),
        "eval/compare.json": json.dumps(compared(-1.25, -1.4, -1.1, "better")),
        "eval/samples.jsonl": lines([SAMPLE]),
        "eval/overlap.json": json.dumps(OVERLAP),
        "eval/memorization.json": json.dumps(COPIED),
        "eval/base.code.jsonl": lines(programs(False, False, True, True)),
        "eval/tuned.code.jsonl": lines(programs(True, False, True, False)),
        "humaneval_results.jsonl": lines(programs(True, True)),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
