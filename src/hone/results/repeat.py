"""Several trainings that differ by their seed."""

from pydantic import Field

from hone.results import Estimate, File, Kind, Result, Verdict


class SeedVariance(Result):
    """A metric over several seeds, measured on the same items. None where one seed, or one item, cannot tell.

    mean: its interval is for other seeds and other items; mean_on_these_items: for other seeds alone.
    standard_deviation: of the seeds' values. minimum_detectable_effect: the smallest mean that so many seeds and items
    tell from 0 with probability 0.8. one_seed_noise: how far two single trainings lie apart at most by their seeds
    alone, with the confidence of the intervals.
    """

    mean: Estimate
    mean_on_these_items: Estimate
    lowest: float
    highest: float
    standard_deviation: Estimate | None
    p_value: float | None
    minimum_detectable_effect: float | None
    one_seed_noise: float | None
    n_seeds: int
    n_items: int


class SeedChange(SeedVariance):
    """Tuned - base over seeds. over_seed_noise: the mean in standard deviations. sign_flip_p: by seeds alone."""

    over_seed_noise: float | None
    sign_flip_p: float | None
    smallest_sign_flip_p: float
    p_adjusted: float | None = None
    verdict: Verdict = "not distinguishable"


class RepeatedMetric(Result):
    """One metric over the seeds; change: None where the base was not measured."""

    kind: Kind
    item: str
    tuned: SeedVariance
    change: SeedChange | None


class SeedRun(Result):
    """The headline of one training, as its own folder has it."""

    seed: int
    folder: str
    tuned: Estimate
    change: Estimate | None
    verdict: Verdict | None
    seconds: float | None


class Repeat(File):
    """repeat.json: what several trainings show together. metrics: the headline first.

    seed_changes: what differs between the runs. same_seed_spread: seeds that were trained more than once -> largest
    minus smallest value.
    """

    metrics: dict[str, RepeatedMetric] = Field(min_length=1)
    runs: list[SeedRun]
    confidence_level: float
    split_seed: int
    seed_changes: list[str]
    base_depends_on_seed: bool
    same_seed_spread: dict[int, float]

    @property
    def headline(self) -> str:
        return next(iter(self.metrics))
