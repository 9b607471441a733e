"""What was measured, in memory and as eval/*.json: typed, with a version, one reader and one writer.

Every file says what its numbers mean (`Kind`), so that a report or a comparison needs to know no task.

eval/base.json, eval/tuned.json                  Measurement
eval/base.items.json, eval/tuned.items.json      Items: the same, item by item, for paired tests
eval/compare.json, eval/compare.code.json        Comparison: base and tuned on the same items, metric by metric
eval/base.code.json, eval/tuned.code.json        CodeMeasurement (`results.benchmarks`)
eval/contamination.json, eval/memorization.json  Contamination, Memorization (`results.contamination`)
eval/memorization.base.json, ….tuned.json        Continuations (`results.contamination`)
repeat.json                                      Repeat (`results.repeat`)
search.json                                      Search (`results.search`)

>>> Estimate(value=3.12, low=3.01, high=3.24).bounds
(3.01, 3.24)
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hone.errors import HoneError
from hone.files import read_sealed, write_sealed

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
    difference that a test of so many items finds with probability `power`; None where it is unknown.
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

    only_in_a, only_in_b: items that only one of them has, which are left out. notes: in what else the two differ.
    """

    a: str
    b: str
    item: str
    n_items: int
    confidence_level: float
    metrics: dict[str, Difference] = Field(min_length=1)
    only_in_a: list[str] = Field(default_factory=list)
    only_in_b: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def headline(self) -> str:
        return next(iter(self.metrics))

    @property
    def verdict(self) -> Verdict:
        return self.metrics[self.headline].verdict


# ---- files -----------------------------------------------------------------------------------------------------------


def read(kind: type[R], path: Path) -> R | None:
    """The file as what it should be; None where there is none.

    Raises:
        HoneError: it is damaged, or of another version.
    """
    if not path.is_file():
        return None
    found = read_sealed(path, required=False)
    try:
        found.setdefault("version", None)  # a file that does not say is not ours
        return kind.model_validate(found)
    except ValidationError as error:
        raise HoneError(f"not readable as {kind.__name__} ({_first_problem(error, found)})", where=str(path)) from error


def json_text(result: Result) -> str:
    """One line of JSON, as the commands print it."""
    return json.dumps(result.model_dump(mode="json"))


def write(path: Path, result: File) -> None:
    """Write a result as JSON with a seal, whole or not at all."""
    write_sealed(path, result.model_dump(mode="json"))


def _first_problem(error: ValidationError, found: dict[str, Any]) -> str:
    if found.get("version") != VERSION:
        return f"version {found.get('version')}, expected {VERSION}: the file is of another hone, or damaged"
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
