"""Several settings of some keys, and which of them is best: chosen by one half of the items, judged by the other.

The smallest of many losses is small by luck too: who reports the loss that a setting was chosen by reports the luck.
So half of the held-out items choose, the others say how good the winner is. Each training is an ordinary run in a
folder of its own, as of `hone train`; `search.json` has what they show together.

A grid trains every combination. A range is searched by optuna's TPE sampler (Bergstra et al. 2011,
https://papers.nips.cc/paper/4443), which proposes each setting by the losses of those before.

>>> found = search(load_config("my.yaml"), {"learning_rate": [1e-4, 3e-4, 1e-3]})        # doctest: +SKIP
>>> found.winner.values, found.on_judging.verdict                                         # doctest: +SKIP
({'learning_rate': 0.0003}, 'better')
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hone.accelerations.precision import resolve_precision
from hone.cache import token_cache
from hone.config.checks import require_training
from hone.config.dump import flow
from hone.config.grid import Point, Space, grid, point_name
from hone.config.load import load_config
from hone.config.schema import Config, leaves
from hone.errors import HoneError
from hone.evaluation.compare import Measured, of_run, same_items
from hone.models.fallback import with_fallback
from hone.results import Comparison, write
from hone.results.search import Search, SearchPoint
from hone.runs import Run
from hone.statistics.paired import Metric, compare_metrics, estimate
from hone.tasks import chosen
from hone.tasks.task import Task
from hone.training.repeat import base_depends_on_seed
from hone.training.several import nothing_measured, refuse_single_run, train_several

log = logging.getLogger("hone")

FEWEST_ITEMS = 8  # in two halves: fewer cannot tell anything
MOST_TRAININGS = 1000
LOG_FROM = 10.0  # a range whose end is so many times its start is searched by its logarithm
DIGITS = 3  # of what is proposed: a finer rate is not another rate, and the folder is named by it


def search(
    config: Config, space: Space, *, trials: int | None = None, jobs: int = 1, task: Task | None = None
) -> Search:
    """Train what is not trained yet, and write `search.json`; returns what is in it.

    Args:
        space: key -> a list of values, or (lowest, highest).
        trials: how many settings to try; every combination of the lists where it is not given.
        jobs: so many trainings at a time, in processes of their own.
        task: one of your own, in the place of the one that the config names.

    Raises:
        HoneError: as `train`; or nothing to search over, too few held-out items, runs that were not measured alike.
        Interrupted: a signal came; the same call goes on from there.
    """
    own = task
    config, task = chosen(config, own)
    require_training(config)
    refuse_single_run(config, own, jobs)
    _refuse_wrong_space(space, trials)
    same_base = all(leaves()[leaf] in ("train", "method") for leaf in space)
    same_base = same_base and not ("seed" in space and base_depends_on_seed(config.model, task.model))

    measured: Run | None = None

    def train(points: list[Point]) -> list[Run]:
        nonlocal measured
        configs = [_of_point(config, point) for point in points]
        runs, measured = train_several(configs, own, jobs=jobs, one_base=same_base, measured=measured)
        if not all(run.has("tuned") for run in runs):
            raise nothing_measured(config.where)
        return runs

    if trials is None:
        points = grid(space)
        runs = train(points)
    else:
        points, runs = _proposed(_Proposer(space, config.train.seed), trials, jobs, train, config.data.split_seed)
    found = _judged(points, runs, config.data.split_seed, config.eval.confidence_level)
    write(Path(config.output.output_dir) / "search.json", found)
    return found


def _refuse_wrong_space(space: Space, trials: int | None) -> None:
    if not space:
        fix = "give a list, learning_rate=[1e-4,3e-4], or a range, learning_rate=1e-5..1e-3 --trials 12"
        raise HoneError("there is nothing to search over: no key has several values", fix=fix)
    if "output_dir" in space or "overwrite" in space:
        raise HoneError("each training has a folder of its own", where="output_dir", fix="search over other keys")
    ranges = [leaf for leaf, choices in space.items() if isinstance(choices, tuple)]
    if ranges and trials is None:
        fix = f"say how many settings to try: --trials 12; or give a list: {ranges[0]}=[…]"
        raise HoneError(f"{ranges[0]} has a range, of which every value cannot be tried", where="--trials", fix=fix)
    number = len(grid(space)) if trials is None else trials
    if not 1 < number <= MOST_TRAININGS:
        fix = f"from 2 to {MOST_TRAININGS} can be compared"
        raise HoneError(f"{number} trainings are asked for", where="--trials" if trials else None, fix=fix)


def _of_point(config: Config, point: Point) -> Config:
    """The configuration of one training, checked as a command line's is."""
    folder = Path(config.output.output_dir) / point_name(point)
    settings = [f"{leaf}={flow(value)}" for leaf, value in point.items()]
    one = with_fallback(load_config(config, settings).changed({"output_dir": folder}))
    return resolve_precision(one, token_cache(config.data.token_cache_dir))


# ---- which one is best ---------------------------------------------------------------------------------------------


def halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the items that choose, and of those that judge; the same for every search with this seed."""
    order = np.random.default_rng([seed, n]).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def _part(metric: Metric, at: np.ndarray) -> Metric:
    return Metric(metric.kind, metric.numerator[at], None if metric.weight is None else metric.weight[at])


def _measured(runs: Sequence[Run]) -> list[Measured]:
    """The tuned model of each run, on the same items."""
    found = [of_run(run.folder, "tuned") for run in runs]
    for other in found[1:]:
        same_items(found[0], other)
    n_items = len(next(iter(found[0].metrics.values())).numerator)
    if n_items < FEWEST_ITEMS:
        raise HoneError(
            f"{n_items} held-out items are too few to choose by one half of them and judge by the other",
            where=str(runs[0].folder),
            fix=f"hold out {FEWEST_ITEMS} or more: validation_split_percentage, or another validation_file",
        )
    return found


def _choosing_values(runs: Sequence[Run], split_seed: int) -> list[float]:
    """The headline of each run over the choosing items; smaller is better."""
    measured = _measured(runs)
    name, metric = next(iter(measured[0].metrics.items()))
    choosing, _ = halves(len(metric.numerator), split_seed)
    sign = -1.0 if metric.kind.higher_is_better else 1.0
    parts = [_part(one.metrics[name], choosing) for one in measured]
    return [sign * float(part.numerator.sum() / part.weights.sum()) for part in parts]


def _judged(points: Sequence[Point], runs: Sequence[Run], split_seed: int, confidence: float) -> Search:
    """What search.json has."""
    measured = _measured(runs)
    name, metric = next(iter(measured[0].metrics.items()))
    choosing, judging = halves(len(metric.numerator), split_seed)
    order = np.argsort(_choosing_values(runs, split_seed), kind="stable").tolist()
    winner = runs[order[0]]

    def compared(a: Measured, b: Measured, at: np.ndarray) -> Comparison:
        parts = [{key: _part(one, at) for key, one in side.metrics.items()} for side in (a, b)]
        metrics = compare_metrics(*parts, confidence=confidence)
        return Comparison(
            a=a.name, b=b.name, item=b.item, n_items=len(at), confidence_level=confidence, metrics=metrics
        )

    best = measured[order[0]]
    base = of_run(winner.folder, "base") if winner.has("base") else None
    return Search(
        metric=name,
        kind=metric.kind,
        item=best.item,
        points=[
            SearchPoint(
                values=dict(points[i]),
                folder=runs[i].folder.name,
                chosen_by=estimate(_part(measured[i].metrics[name], choosing), confidence=confidence),
                seconds=runs[i].status.get("seconds"),
            )
            for i in order
        ],
        n_choosing=len(choosing),
        n_judging=len(judging),
        confidence_level=confidence,
        split_seed=split_seed,
        on_choosing=base and compared(base, best, choosing),
        on_judging=base and compared(base, best, judging),
        over_second=compared(measured[order[1]], best, judging) if len(runs) > 1 else None,
    )


# ---- ranges --------------------------------------------------------------------------------------------------------


class _Proposer:
    """optuna's sampler, asked for settings and told their losses: the same ones for the same seed and losses.

    So a search that was interrupted proposes the same settings again, which are trained already.
    """

    def __init__(self, space: Space, seed: int) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            fix = "pip install 'hone-lm[search]'; or give lists alone, without --trials: every combination is tried"
            raise HoneError(
                "settings are proposed by optuna, which is not installed", where="--trials", fix=fix
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = {leaf: _distribution(choices) for leaf, choices in space.items()}
        self.lists: Mapping[str, Any] = {leaf: found for leaf, found in space.items() if isinstance(found, list)}
        self.study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True))
        self.asked: list[Any] = []  # since `learn`

    def propose(self, number: int) -> list[Point]:
        self.asked = [self.study.ask(self.space) for _ in range(number)]
        return [{leaf: self._value(leaf, value) for leaf, value in trial.params.items()} for trial in self.asked]

    def learn(self, values: Sequence[float]) -> None:
        """The losses of what was proposed last."""
        for trial, value in zip(self.asked, values, strict=True):
            self.study.tell(trial, value)

    def _value(self, leaf: str, value: Any) -> Any:
        if leaf in self.lists:
            return self.lists[leaf][value]
        return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def _proposed(
    proposer: _Proposer, trials: int, jobs: int, train: Callable[[list[Point]], list[Run]], split_seed: int
) -> tuple[list[Point], list[Run]]:
    """Train what the sampler proposes, `jobs` settings at a time; a setting that is proposed again is trained once."""
    trained: dict[str, tuple[Point, Run]] = {}
    for number in range(0, trials, jobs):
        batch = proposer.propose(min(jobs, trials - number))
        new = {point_name(point): point for point in batch if point_name(point) not in trained}
        trained |= {name: (new[name], run) for name, run in zip(new, train(list(new.values())))}
        values = dict(zip(trained, _choosing_values([run for _, run in trained.values()], split_seed)))
        proposer.learn([values[point_name(point)] for point in batch])
    return [point for point, _ in trained.values()], [run for _, run in trained.values()]


def _distribution(choices: list[Any] | tuple[float, float]) -> Any:
    """Of a list the index is searched: its values may be of any type."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(choices, list):
        return CategoricalDistribution(list(range(len(choices))))
    low, high = choices
    by_log = low > 0 and high / low >= LOG_FROM
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=by_log)
    return FloatDistribution(float(low), float(high), log=by_log)
