"""What was measured, in memory and as eval/*.json: typed, with a version, one reader and one writer.

Every file says what its numbers mean (`Kind`), so that a report or a comparison needs to know no task.

eval/base.json, eval/tuned.json                  Measurement
eval/base.items.json, eval/tuned.items.json      Items: the same, item by item, for paired tests
eval/compare.json, eval/compare.code.json        Comparison: base and tuned on the same items, metric by metric
eval/base.code.json, eval/tuned.code.json        CodeMeasurement: programs against unit tests
eval/contamination.json                          Contamination: held-out items in the training rows
eval/memorization.json                           Memorization: training rows in what is written
repeat.json                                      Repeat: several trainings that differ by their seed

>>> Estimate(value=3.12, low=3.01, high=3.24).bounds
(3.01, 3.24)
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hone.errors import HoneError
from hone.files import read_json, write_json_atomic

VERSION: Literal[1] = 1  # of all these files; a file of another version is refused, not guessed at
Verdict = Literal["better", "worse", "not distinguishable"]


class Result(BaseModel):
    """What all of these have in common: immutable, nothing but the fields that are named, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(Result):
    """A result that is a file of its own."""

    version: Literal[1] = VERSION


R = TypeVar("R", bound=File)


class Estimate(Result):
    """A number and its confidence interval; low and high are None where one item is all there is."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def mapped(self, function: Callable[[float], float]) -> "Estimate":
        """The same of an increasing function of the value, such as exp."""
        low, high = (None if bound is None else function(bound) for bound in (self.low, self.high))
        return Estimate(value=function(self.value), low=low, high=high)

    def negated(self) -> "Estimate":
        low, high = (None if bound is None else -bound for bound in (self.high, self.low))
        return Estimate(value=-self.value, low=low, high=high)


class Kind(Result):
    """What a metric is. heading: of its column. unit: empty where the heading says it. form: of its numbers (`format`).

    higher_is_better: None where neither is; then two models are not compared in it. top: no value lies above it.
    per_token: counted in the model's own tokens, so that two models are compared in it only if they have the same ones.
    restates: the metric that this one says again in another unit; it shares that one's p-value. exponential_of: the
    metric whose exponential this is: a difference of that one is a ratio of this one.
    """

    heading: str
    unit: str = ""
    higher_is_better: bool | None
    form: str = ".3f"
    top: float | None = None
    per_token: bool = False
    restates: str | None = None
    exponential_of: str | None = None

    @property
    def title(self) -> str:
        """'loss (nats/token)', 'accuracy': of a column."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    @property
    def noun(self) -> str:
        """'nats/token', 'accuracy': behind a number."""
        return self.unit or self.heading


class Level(Estimate):
    """A metric of one model. n_items: how many items it is of, where that is not all of them."""

    kind: Kind
    n_items: int | None = None


def level_of(kind: Kind, found: Estimate, n_items: int | None = None) -> Level:
    return Level(value=found.value, low=found.low, high=found.high, kind=kind, n_items=n_items)


class Sample(Result):
    """What the model wrote for one item (or answered, for a classifier)."""

    item: int
    prompt: str
    reference: str | None = None
    text: str


class SideBySide(Result):
    """What base and tuned wrote for one item; a line of eval/samples.jsonl."""

    item: int
    prompt: str
    reference: str | None = None
    base: str | None = None
    tuned: str | None = None


class ClassScores(Result):
    """One class of a classifier; rows: how many there are of it."""

    precision: float
    recall: float
    f1: float
    rows: int


class ClassReport(Result):
    """confusion[i][j]: rows of class i that were answered with class j, in the order of `classes`.

    averages: "macro" and "weighted", over the classes that occur. majority_accuracy: of always answering the most
    frequent class of the training rows.
    """

    classes: dict[str, ClassScores]
    averages: dict[str, ClassScores]
    confusion: list[list[int]]
    majority_class: str
    majority_accuracy: float


class Measurement(File):
    """A model on held-out items. metrics: the headline first. item: what one is called ("document", "row").

    quality: of the written samples (`metrics.generation_quality`), n_texts of them. signatures: of the libraries that
    scored them.
    """

    task: str
    metrics: dict[str, Level]
    n_items: int
    item: str
    n_tokens: int
    confidence_level: float
    seconds: float = 0.0
    n_bytes: int | None = None
    classes: ClassReport | None = None
    quality: dict[str, Level] = Field(default_factory=dict)
    n_texts: int = 0
    signatures: list[str] = Field(default_factory=list)
    samples: list[Sample] = Field(default_factory=list)

    def value(self, name: str) -> float:
        """The metric `name` without its interval."""
        return self.metrics[name].value


def side_by_side(base: Measurement | None, tuned: Measurement | None) -> list[SideBySide]:
    """The samples of both, item by item; of one alone where only that one was measured."""
    texts: dict[int, dict[str, str]] = {}
    known: dict[int, Sample] = {}
    for name, found in (("base", base), ("tuned", tuned)):
        for sample in found.samples if found else ():
            known.setdefault(sample.item, sample)
            texts.setdefault(sample.item, {})[name] = sample.text
    return [SideBySide(item=i, prompt=one.prompt, reference=one.reference, **texts[i]) for i, one in known.items()]


class ItemValues(Result):
    """One metric item by item: sum(numerator) / sum(weight) is its value. weight: None where every item counts 1."""

    kind: Kind
    numerator: list[float]
    weight: list[float] | None = None

    @model_validator(mode="after")
    def _is_a_ratio(self) -> Self:
        if self.weight is not None:
            if len(self.weight) != len(self.numerator):
                raise ValueError("numerator and weight have different lengths")
            if min(self.weight, default=0.0) < 0 or not sum(self.weight) > 0:
                raise ValueError("a weight below 0, or no weight at all")
        return self


class Items(File):
    """The numbers of each item. fingerprint: SHA-256 of the items' texts. metrics: the headline first, one at least.

    Some metrics may be of fewer items than others (of those for which a text was written).
    """

    item: str
    fingerprint: str | None = None
    metrics: dict[str, ItemValues] = Field(min_length=1)


class Difference(Result):
    """One metric of B and A on the same items, b - a.

    p_adjusted: p_value adjusted for the number of metrics (Holm). minimum_detectable_effect: the smallest true
    difference that a test of so many items finds with probability `power`; None where it cannot be said.
    only_a, only_b: of yes-or-no items, those that A alone, and B alone, got right.
    """

    kind: Kind
    a: Estimate
    b: Estimate
    difference: Estimate
    p_value: float
    p_adjusted: float
    test: str
    minimum_detectable_effect: float | None
    power: float
    n_items: int
    n_differing: int
    only_a: int | None = None
    only_b: int | None = None
    verdict: Verdict


class Comparison(File):
    """Two models on the same items. a, b: their names. metrics: the headline first; its verdict is the verdict.

    only_in_a, only_in_b: items that only one of them has, which are left out.
    """

    a: str
    b: str
    item: str
    n_items: int
    confidence_level: float
    metrics: dict[str, Difference] = Field(min_length=1)
    only_in_a: list[str] = Field(default_factory=list)
    only_in_b: list[str] = Field(default_factory=list)

    @property
    def headline(self) -> str:
        return next(iter(self.metrics))

    @property
    def verdict(self) -> Verdict:
        return self.metrics[self.headline].verdict


# ---- programs against unit tests -------------------------------------------------------------------------------------


class PassAtK(Result):
    """pass@k over tasks; estimate: None where one of the tasks has fewer than k samples (n_too_few have)."""

    estimate: Estimate | None
    n_tasks: int
    n_too_few: int = 0


class Sampling(Result):
    """How answers were drawn: these keys of the section `generate`."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    num_return_sequences: int
    sampling_seed: int
    stop: list[str]


class CodeSetup(Result):
    """What must be the same for two measurements to be compared."""

    tasks_sha256: str
    template: str
    settings: Sampling


class CodeMeasurement(File):
    """Answers to programming tasks, graded by the tests of the tasks: eval/base.code.json, eval/tuned.code.json.

    pass_at_k: of each k; by_trust: the same of the samples that were kept apart from their tests in one way.
    passed: task_id -> whether each of its samples passed. n_at_limit: samples that ended by the limit of tokens.
    """

    pass_at_k: dict[int, PassAtK]
    pass_at_k_by_trust: dict[str, dict[int, PassAtK]]
    verdicts: dict[str, int]
    trust: dict[str, int]
    isolation: list[str]
    passed: dict[str, list[bool]]
    n_samples: int
    n_tasks: int
    tasks_without_samples: list[str]
    confidence_level: float
    about: CodeSetup | None = None
    n_at_limit: int = 0
    seconds: float = 0.0


# ---- training data in the held-out items, and in what is written -----------------------------------------------------


class ContaminatedItem(Result):
    """A held-out item and the worst of the training rows that hold it. share, code_share: of the item's n-grams."""

    item: int
    row: int
    kind: str
    share: float
    code_share: float
    text: str
    row_text: str


class Contamination(File):
    """eval/contamination.json: held-out items that occur in the training rows. not_searched: why none were looked for.

    n: tokens of an n-gram. near: the share of an item's n-grams that makes a row "near". n_short: items of fewer than
    n tokens. rows: all that hold an item. items: the worst first.
    """

    not_searched: str | None = None
    item: str = "document"
    n: int = 0
    near: float = 0.0
    n_items: int = 0
    n_rows: int = 0
    n_short: int = 0
    n_contaminated: int = 0
    by_kind: dict[str, int] = Field(default_factory=dict)
    items: list[ContaminatedItem] = Field(default_factory=list)
    rows: list[int] = Field(default_factory=list)
    seconds: float = 0.0


class Continuations(File):
    """eval/memorization.base.json, ….tuned.json: prompts from training and held-out rows, and what follows them."""

    training: list[Sample]
    held_out: list[Sample]


class Copying(Result):
    """Of the continuations of one group of prompts, for "base" and "tuned": how many copy, and how much of them.

    copying: share of texts that copy; copied_characters: share of characters. change: tuned - base, by prompt.
    """

    n_items: int
    copying: dict[str, Level]
    copied_characters: dict[str, Level]
    change: Difference | None = None


class CopiedText(Result):
    model: str
    prompts: str
    item: int
    copied: str


class Memorization(File):
    """eval/memorization.json: how much of what is written is copied from the n_rows training rows.

    prompts: "training" and "held_out", where there are such. examples: the longest copies first.
    """

    copied_characters_in_a_row: int
    copied_words_in_a_row: int
    max_new_tokens: int
    n_rows: int
    confidence_level: float
    prompts: dict[str, Copying]
    examples: list[CopiedText] = Field(default_factory=list)


# ---- public benchmarks -----------------------------------------------------------------------------------------------


class PublicScore(Estimate):
    """A number of lm-eval's. higher_is_better: None where it does not say."""

    n_items: int
    higher_is_better: bool | None


class PublicScores(File):
    """What `hone eval --tasks` found: task -> metric -> score. limit: only the first so many items of each task."""

    tasks: dict[str, dict[str, PublicScore]]
    versions: dict[str, str]
    n_shot: dict[str, int]
    chat_template: bool
    limit: int | None
    confidence_level: float


# ---- several trainings that differ by their seed ---------------------------------------------------------------------


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


# ---- files -----------------------------------------------------------------------------------------------------------


def read(kind: type[R], path: Path) -> R | None:
    """The file as what it should be; None where there is none.

    Raises:
        HoneError: it is damaged, or of another version.
    """
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise HoneError(f"not a {kind.__name__.lower()} ({_first_problem(error, found)})", where=str(path)) from error


def json_text(result: Result) -> str:
    """One line of JSON, as the commands print it."""
    return json.dumps(result.model_dump(mode="json"))


def write(path: Path, result: File) -> None:
    """Write a result as JSON, whole or not at all."""
    write_json_atomic(path, result.model_dump(mode="json"))


def _first_problem(error: ValidationError, found: Any) -> str:
    if isinstance(found, dict) and found.get("version") != VERSION:
        return f"version {found.get('version')}, expected {VERSION}: the file is of another hone, or damaged"
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
