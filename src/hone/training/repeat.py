"""One configuration trained with several seeds: is the change larger than the seed variance?

Each seed is an ordinary run in `<output_dir>/seed-<n>`, trained and resumed as `hone train` does. All use the same
tokens, the same held-out rows (chosen by split_seed, not by the seed), the same cache of a frozen prefix, and one
measurement of the base where that does not depend on the seed. `repeat.json` has what they show together.

>>> found = repeat(load_config("recipe.yaml"), [1, 2, 3, 4, 5, 6])        # doctest: +SKIP
>>> change = found.metrics["loss"].change                                 # doctest: +SKIP
>>> change.mean.bounds, change.verdict                                    # doctest: +SKIP
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hone.accelerations.precision import resolve_precision
from hone.cache import token_cache
from hone.config.checks import require_training
from hone.config.grid import seed_folders
from hone.config.schema import Config
from hone.config.sections.model import ModelSection
from hone.errors import HoneError
from hone.grading.pass_at_k import passed_items
from hone.models.fallback import with_fallback
from hone.models.kinds import ModelKind
from hone.processes import refuse_several
from hone.results import Estimate, Items, Measurement, write
from hone.results.benchmarks import CodeMeasurement
from hone.results.repeat import Repeat, RepeatedMetric, SeedChange, SeedRun
from hone.runs import Run
from hone.statistics.intervals import sign_flip
from hone.statistics.paired import Metric, adjusted, metrics_of, verdict
from hone.statistics.seed_variance import over_seeds, smallest_p
from hone.tasks import chosen
from hone.tasks.task import Task
from hone.training.several import nothing_measured, refuse_single_run, train_several

Measured = tuple[str, Metric]  # what an item of it is, and the metric
LARGEST_SEED = 2**32 - 1
AGAIN = "overwrite=true trains and measures all of them again; or choose another output_dir"


def repeat(config: Config, seeds: Sequence[int], task: Task | None = None, *, jobs: int = 1) -> Repeat:
    """Train with each seed what is not trained yet, and write `repeat.json`; returns what is in it.

    Args:
        task: one of your own, in the place of the one that the config names.
        jobs: so many trainings at a time, in processes of their own.

    Raises:
        HoneError: as `train`; or no seeds, nothing to measure, or runs that were not measured alike.
        Interrupted: a signal came; the same call goes on from there.
    """
    refuse_several("hone repeat")
    own = task
    config, task = chosen(config, own)
    require_training(config)
    _refuse_wrong_seeds(seeds)
    refuse_single_run(config, own, jobs)
    folder, names = Path(config.output.output_dir), seed_folders(seeds)
    first = with_fallback(config.changed({"seed": seeds[0], "output_dir": folder / names[0]}))
    config = config.model_copy(update={name: getattr(first, name) for name in ("model", "method", "data")})
    config = resolve_precision(config, token_cache(config.data.token_cache_dir))
    configs = [config.changed({"seed": seed, "output_dir": folder / name}) for seed, name in zip(seeds, names)]
    same_base = not base_depends_on_seed(config.model, task.model)
    runs, _ = train_several(configs, own, jobs=jobs, one_base=same_base)
    if not all(run.has("tuned") for run in runs):
        raise nothing_measured(config.where)
    result = _together(config, task.model, seeds, runs)
    write(folder / "repeat.json", result)
    return result


def seed_changes(section: ModelSection, method: str, kind: ModelKind) -> list[str]:
    """What differs between the runs."""
    changes = ["the order of the rows", "dropout where there is any"]
    if section.model_type is not None:
        changes.append("all initial weights")
    elif kind.new_head:
        changes.append("the initial weights of a new head")
    if method == "lora":
        changes.append("the initial weights of the adapter")
    return changes


def base_depends_on_seed(section: ModelSection, kind: ModelKind) -> bool:
    """Whether there are random weights before training; a new adapter changes nothing yet."""
    return section.model_type is not None or kind.new_head


# ---- before the runs -----------------------------------------------------------------------------------


def _refuse_wrong_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise HoneError("no seeds", where="--seeds", fix="6 are the fewest that a sign-flip test can take for p < 0.05")
    if wrong := [seed for seed in seeds if not 0 <= seed <= LARGEST_SEED]:
        raise HoneError(f"{wrong[0]} is not a seed", where="--seeds", fix=f"seeds are from 0 to {LARGEST_SEED}")


# ---- after the runs ------------------------------------------------------------------------------------------------


def _together(config: Config, kind: ModelKind, seeds: Sequence[int], runs: list[Run]) -> Repeat:
    """What repeat.json has: each metric, the headline first."""
    confidence = config.eval.confidence_level
    tuned = _metrics(runs, "tuned", confidence)
    base = _metrics(runs, "base", confidence) if all(run.has("base") for run in runs) else []
    firsts = [seeds.index(seed) for seed in dict.fromkeys(seeds)]  # a seed twice is not a second draw
    metrics = {
        name: _over_runs([run[name] for run in tuned], [run[name] for run in base], firsts, confidence)
        for name in tuned[0]
        if all(name in run for run in [*tuned, *base])
    }
    headline = next(iter(metrics))
    values = np.array([run[headline][1].numerator.sum() / run[headline][1].weights.sum() for run in tuned])
    return Repeat(
        metrics=_judged(metrics, confidence),
        runs=[_row(run, seed, headline) for run, seed in zip(runs, seeds)],
        confidence_level=confidence,
        split_seed=config.data.split_seed,
        seed_changes=seed_changes(config.model, config.method.method, kind),
        base_depends_on_seed=base_depends_on_seed(config.model, kind),
        same_seed_spread=_same_seed_spread(seeds, values),
    )


def _over_runs(tuned: list[Measured], base: list[Measured], firsts: list[int], confidence: float) -> RepeatedMetric:
    """One metric of the runs numbered `firsts`: `tuned`, and `change` = tuned - base where the base was measured."""
    item, metric = tuned[0]
    weights = metric.weights
    values = np.array([metric.numerator for _, metric in tuned], dtype=np.float64)[firsts]  # (seeds, items)
    change = None
    if base:
        differences = values - np.array([metric.numerator for _, metric in base], dtype=np.float64)[firsts]
        found = over_seeds(differences, weights, confidence)
        noise = found.standard_deviation.value if found.standard_deviation else None
        change = SeedChange.model_validate(
            {
                **dict(found),
                "over_seed_noise": abs(found.mean.value) / noise if noise else None,
                "sign_flip_p": sign_flip(differences.sum(1)) if found.n_seeds > 1 else None,
                "smallest_sign_flip_p": smallest_p(found.n_seeds),
            }
        )
    return RepeatedMetric(kind=metric.kind, item=item, tuned=over_seeds(values, weights, confidence), change=change)


def _judged(metrics: dict[str, RepeatedMetric], confidence: float) -> dict[str, RepeatedMetric]:
    """Each change with p adjusted for the number of metrics (Holm) and a verdict: the rule of `statistics.paired`."""
    changes = {name: found.change for name, found in metrics.items() if found.change}
    known = {
        name: (change.p_value, metrics[name].kind) for name, change in changes.items() if change.p_value is not None
    }
    p_adjusted = adjusted(known, counted=known)
    judged = dict(metrics)
    for name, change in changes.items():
        kind = metrics[name].kind
        p = p_adjusted.get(name)
        found = verdict(1.0 if p is None else p, change.mean, kind, alpha=1 - confidence)
        update = {"change": change.model_copy(update={"p_adjusted": p, "verdict": found})}
        judged[name] = metrics[name].model_copy(update=update)
    return judged


def _metrics(runs: list[Run], name: str, confidence: float) -> list[dict[str, Measured]]:
    """The metrics of each run, on the same items; the headline's first.

    Raises:
        HoneError: the runs were trained or measured on different data or items, or with other settings.
    """
    found, circumstances = [], []
    for run in runs:
        items, result = run.read(Items, f"{name}.items"), run.read(Measurement, name)
        code = run.read(CodeMeasurement, f"{name}.code")
        assert items is not None and result is not None, f"eval/{name}.json is there without its items"
        measured = {key: (items.item, metric) for key, metric in metrics_of(items).items()}
        if code is not None:
            tasks = passed_items(code.passed)
            measured |= {key: (tasks.item, metric) for key, metric in metrics_of(tasks).items()}
        found.append(measured)
        circumstances.append(
            {
                "data": run.env["data"],
                "set of held-out items": (items.fingerprint, [each.weight for each in items.metrics.values()]),
                "confidence_level": result.confidence_level,
                "set of code tasks, or way to solve them": code and code.about,
            }
        )
    asked = {**circumstances[0], "confidence_level": confidence}
    for run, own in zip(runs, circumstances):
        if other := [what for what in asked if own[what] != asked[what]]:
            raise HoneError(f"was trained or measured with another {other[0]}", where=str(run.folder), fix=AGAIN)
    return found


def _row(run: Run, seed: int, headline: str) -> SeedRun:
    """One seed's numbers, as its own folder has them."""
    tuned, comparison = run.tuned, run.comparison
    assert tuned is not None, "each of the runs is measured"
    level = tuned.metrics[headline]
    return SeedRun(
        seed=seed,
        folder=run.folder.name,
        tuned=Estimate(value=level.value, low=level.low, high=level.high),
        change=comparison.metrics[headline].difference if comparison else None,
        verdict=comparison.verdict if comparison else None,
        seconds=run.status.get("seconds"),
    )


def _same_seed_spread(seeds: Sequence[int], values: np.ndarray) -> dict[int, float]:
    """Seeds that were trained more than once -> largest minus smallest value: 0 where training repeats exactly."""
    by_seed = {seed: values[[other == seed for other in seeds]] for seed in seeds}
    return {seed: float(np.ptp(own)) for seed, own in by_seed.items() if len(own) > 1}
