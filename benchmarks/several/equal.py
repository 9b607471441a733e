"""The same training on one process and on several: losses, weights, and what is measured."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from several.world import environment, settings, started, train_here

SAME = ("loss", "eval_loss", "grad_norm", "learning_rate", "epoch", "tokens", "supervised_tokens")
TIMES = re.compile(r'"(?:seconds|seal)": *[^,}\n]+')  # a seal is a hash of all, the time included


def differences(one: Path, other: Path) -> dict[str, float]:
    """Largest differences of two runs: of the lines of metrics.jsonl, of the weights, of what was measured.

    files: how many of those about the base, which has the same weights in both, are not the same, times aside.
    """
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
    mine, theirs = (about_the_base(run) for run in (one, other))
    found["files"] = float(sum(mine.get(name) != theirs.get(name) for name in mine.keys() | theirs.keys()))
    return {key: float(np.round(value, 12)) for key, value in found.items()}


def about_the_base(run: Path) -> dict[str, str]:
    """Losses item by item, samples, continuations, answers and verdicts."""
    files = [*(run / "eval").glob("base.*"), *(run / "eval").glob("memorization.base.*")]
    return {file.name: TIMES.sub("", file.read_text()) for file in files}


def table(folder: Path, kinds: Sequence[str], worlds: Sequence[int]) -> bool:
    """Train each kind on one process and on more; print the differences; whether all are small."""
    os.environ |= environment(folder)
    train_here([settings(folder, kind, f"{kind}-1", 1) for kind in kinds])
    for world in worlds:
        started(world, [settings(folder, kind, f"{kind}-{world}", world) for kind in kinds], folder)
    fine = True
    head = f"{'kind':20} {'processes':>9} {'loss':>8} {'grad_norm':>9} {'weights':>8} {'tuned':>8}  "
    print(f"{head}{'base':6}tokens, steps, epoch")
    for kind in kinds:
        for world in worlds:
            found = differences(folder / f"{kind}-1", folder / f"{kind}-{world}")
            counts = {key: found[key] for key in ("steps", "tokens", "supervised_tokens", "epoch", "learning_rate")}
            bars = (2e-5, 5e-4) if kind == "muon" else (1e-6, 1e-5)  # muon computes inside in bfloat16
            good = found["loss"] < bars[0] and found["weights"] < bars[1] and max(counts.values()) < 1e-9
            good = good and not found["files"]
            fine &= good
            line = f"{kind:20} {world:>9} {found['loss']:8.1e} {found['grad_norm']:9.1e} {found['weights']:8.1e} "
            line += f"{found['tuned']:8.1e}  {'other' if found['files'] else 'equal':6}"
            line += "equal" if max(counts.values()) < 1e-9 else str(counts)
            print(line + ("" if good else "  WRONG"), flush=True)
    return fine
