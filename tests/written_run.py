"""A run folder written by hand: every file that a report reads, with numbers chosen to be told apart in it."""

import json
from pathlib import Path
from typing import Any

from hone.config.dump import resolved_yaml
from hone.config.schema import Config
from hone.results import Comparison, Difference, Estimate, File, Kind, Level, Measurement, Sample, Verdict, write
from hone.results.benchmarks import CodeMeasurement, PassAtK
from hone.results.contamination import ContaminatedItem, Contamination, Copying, Memorization
from hone.results.repeat import Repeat, RepeatedMetric, SeedChange, SeedRun, SeedVariance

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
08:02:44 data: contamination: 2 of 33
08:02:46 base: loss 5.5
"""
LOSS = Kind(heading="loss", unit="nats/token", higher_is_better=False, per_token=True)
PERPLEXITY = Kind(heading="perplexity", higher_is_better=False, form=",.2f", exponential_of="loss")
BITS = Kind(heading="bits per byte", higher_is_better=False, restates="loss")
PARSES = Kind(heading="parses", higher_is_better=True, form=".2f", top=1.0)
PASSED = Kind(heading="pass rate", higher_is_better=True, top=1.0)
COPYING = Kind(heading="copying", higher_is_better=False, form=".0%", top=1.0)


def of(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def level(kind: Kind, value: float, low: float | None = None, high: float | None = None) -> Level:
    return Level(kind=kind, value=value, low=low, high=high)


def measured(loss: float, text: str = "", samples: list[Sample] | None = None) -> Measurement:
    sample = Sample(item=0, prompt="def f(x):\n", reference="    return 2 * x\n", text=text)
    return Measurement(
        task="causal",
        metrics={
            "loss": level(LOSS, loss, loss - 0.15, loss + 0.15),
            "perplexity": level(PERPLEXITY, 100 * loss, 90 * loss, 110 * loss),
            "bits_per_byte": level(BITS, loss / 2),
        },
        n_items=33,
        item="document",
        n_tokens=1934,
        confidence_level=0.95,
        quality={"parses": level(PARSES, loss / 10, 0.2, 0.7)},
        n_texts=20,
        samples=[sample] if samples is None else samples,
    )


def difference(kind: Kind, change: Estimate, verdict: Verdict, p: float = 0.00004, **more: Any) -> Difference:
    given = {"a": of(5.5), "b": of(5.5 + change.value), "p_value": p / 2, "p_adjusted": p, "test": "sign flip",
             "minimum_detectable_effect": 0.21, "power": 0.8, "n_items": 33, "n_differing": 33}  # fmt: skip
    return Difference.model_validate({**given, **more, "kind": kind, "difference": change, "verdict": verdict})


def compared(change: Estimate, verdict: Verdict, kind: Kind = LOSS, **more: Any) -> Comparison:
    found = difference(kind, change, verdict, **more)
    return Comparison(
        a="base", b="tuned", item="document", n_items=33, confidence_level=0.95, metrics={kind.heading: found}
    )


def programs(*passed: bool, names: list[str] | None = None) -> CodeMeasurement:
    names = names or [f"task/{i}" for i in range(len(passed))]
    verdicts = {"pass": sum(passed), "wrong": len(passed) - sum(passed)}
    return CodeMeasurement(
        pass_at_k={1: PassAtK(estimate=of(sum(passed) / len(passed), 0.15, 0.85), n_tasks=len(passed))},
        pass_at_k_by_trust={},
        verdicts={verdict: count for verdict, count in verdicts.items() if count},
        trust={},
        isolation=["strict"],
        passed={name: [right] for name, right in zip(names, passed, strict=True)},
        n_samples=len(passed),
        n_tasks=len(passed),
        tasks_without_samples=[],
        confidence_level=0.95,
    )


def code_lines(*passed: bool) -> str:
    """eval/<name>.code.jsonl of `programs`: what passes returns 1, what fails has a test that says so."""
    return lines([
        {"task_id": f"task/{i}", "sample": 0, "completion": f"def f{i}():\n    return {int(right)}\n", "passed": right,
         "verdict": "pass" if right else "wrong", "detail": "" if right else f"assert f{i}() == 1", "seconds": 0.1}
        for i, right in enumerate(passed)
    ])  # fmt: skip


def over_seeds(mean: Estimate) -> SeedVariance:
    return SeedVariance(
        mean=mean,
        mean_on_these_items=mean,
        lowest=mean.value - 0.1,
        highest=mean.value + 0.1,
        standard_deviation=of(0.05, 0.03, 0.11),
        p_value=0.01,
        minimum_detectable_effect=0.17,
        one_seed_noise=0.2,
        n_seeds=2,
        n_items=33,
    )


def repeated() -> Repeat:
    runs = [
        SeedRun(seed=seed, folder=f"seed-{seed}", tuned=of(4.3 + seed / 10, 4.1, 4.6), change=of(-1.2, -1.4, -1.0),
                verdict="better", seconds=30.0)
        for seed in (0, 1)
    ]  # fmt: skip
    more = {"over_seed_noise": 25.0, "sign_flip_p": 0.5, "smallest_sign_flip_p": 0.5, "verdict": "better"}
    change = SeedChange.model_validate({**dict(over_seeds(of(-1.25, -1.5, -1.1))), **more})
    metric = RepeatedMetric(kind=LOSS, item="document", tuned=over_seeds(of(4.35, 4.0, 4.7)), change=change)
    return Repeat(metrics={"loss": metric}, runs=runs, confidence_level=0.95, split_seed=0,
                  seed_changes=["the order of the rows"], base_depends_on_seed=False, same_seed_spread={})  # fmt: skip


CONTAMINATION = Contamination(
    n_items=33,
    n_contaminated=2,
    by_kind={"exact": 1, "same code": 0, "near": 1},
    items=[
        ContaminatedItem(
            item=7, row=12, kind="exact", share=1.0, code_share=1.0, text="def leaked(): pass", row_text="def leaked()"
        )
    ],
)
MEMORIZATION = Memorization(
    copied_characters_in_a_row=50,
    copied_words_in_a_row=13,
    max_new_tokens=64,
    n_rows=187,
    confidence_level=0.95,
    prompts={
        "training": Copying(
            n_items=20,
            copying={"base": level(COPYING, 0.05, 0.01, 0.24), "tuned": level(COPYING, 0.45, 0.26, 0.66)},
            copied_characters={},
            change=difference(COPYING, of(0.4, 0.15, 0.6), "worse", p_value=0.0078),
        ),
        "held_out": Copying(n_items=20, copying={"tuned": level(COPYING, 0.0)}, copied_characters={}),
    },
)


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_run(folder: Path) -> Path:
    """A finished run of task causal, with programs graded, contamination found and a repetition in it."""
    config = Config()
    config.model.model_name_or_path = "distilgpt2"
    config.train.learning_rate = 3e-4
    env = {
        "time": "2026-01-01", "python": "3.11.7", "platform": "Linux", "versions": {"torch": "2.13.0", "peft": None},
        "git": "abc", "cpu_count": 2, "torch_threads": 2, "cpu_capability": "AVX512", "gpus": [], "seed": 0,
        "data": {"train": [{"file": "train.jsonl", "bytes": 127373, "sha256": "577a9dedd7495abe"}]},
    }  # fmt: skip
    texts = {
        "status.json": json.dumps({"status": "finished", "seconds": 94.2, "try_it": "hone generate {run} -p '…'"}),
        "metrics.jsonl": lines(LOG),
        "env.json": json.dumps(env),
        "config.resolved.yaml": resolved_yaml(config),
        "train.log": SAID,
        "template.json": json.dumps({"template": "plain"}),
        "eval/base.code.jsonl": code_lines(False, False, True, True),
        "eval/tuned.code.jsonl": code_lines(True, False, True, False),
    }
    results: dict[str, File] = {
        "repeat.json": repeated(),
        "eval/base.json": measured(5.5, "    return y\n"),
        "eval/tuned.json": measured(4.25, "    return x\n"),
        "eval/compare.json": compared(of(-1.25, -1.4, -1.1), "better"),
        "eval/contamination.json": CONTAMINATION,
        "eval/memorization.json": MEMORIZATION,
        "eval/base.code.json": programs(False, False, True, True),
        "eval/tuned.code.json": programs(True, False, True, False),
        "humaneval_results.json": programs(True, True),
    }
    (folder / "eval").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, result in results.items():
        write(folder / name, result)
    return folder
