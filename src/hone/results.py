"""What was measured, in memory and as eval/*.json: typed, with a version, one reader and one writer.

Every file says what its numbers mean (`Kind`), so that a report or a comparison needs to know no task.

eval/base.json, eval/tuned.json                  Measurement
eval/base.items.json, eval/tuned.items.json      Items: the same, item by item, for paired tests
eval/compare.json, eval/compare.code.json        Comparison: base and tuned on the same items, metric by metric

>>> Estimate(value=3.12, low=3.01, high=3.24).bounds
(3.01, 3.24)
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.errors import HoneError
from hone.files import read_json, write_json_atomic

VERSION: Literal[1] = 1  # of all these files; a file of another version is refused, not guessed at
Verdict = Literal["better", "worse", "not distinguishable"]


class Result(BaseModel):
    """What all of these have in common: immutable, and nothing but the fields that are named."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Kind(Result):
    """What a metric is. heading: of its column. form: of its numbers (`format`). top: no value lies above it.

    restates: the metric that this one says again in another unit; it shares that one's p-value.
    """

    heading: str
    unit: str
    higher_is_better: bool
    form: str = ".3f"
    top: float | None = None
    restates: str | None = None


class Level(Estimate):
    """A metric of one model."""

    kind: Kind


class Sample(Result):
    """What the model wrote for one item (or answered, for a classifier)."""

    item: int
    prompt: str
    reference: str | None = None
    text: str


class ClassScores(Result):
    """One class of a classifier; rows: how many there are of it."""

    precision: float
    recall: float
    f1: float
    rows: int


class ClassReport(Result):
    """confusion[i][j]: rows of class i that were answered with class j, in the order of `classes`.

    majority_accuracy: of always answering the most frequent class of the training rows.
    """

    classes: dict[str, ClassScores]
    confusion: list[list[int]]
    majority_class: str
    majority_accuracy: float


class Measurement(File):
    """A model on held-out items. metrics: the headline first. item: what one is called ("document", "row").

    quality: of the written samples (`metrics.generation_quality`), n_texts of them.
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
    samples: list[Sample] = Field(default_factory=list)

    def value(self, name: str) -> float:
        """The metric `name` without its interval."""
        return self.metrics[name].value


class ItemValues(Result):
    """One metric item by item: sum(numerator) / sum(weight) is its value. weight: None where every item counts 1."""

    kind: Kind
    numerator: list[float]
    weight: list[float] | None = None


class Items(File):
    """The numbers of each item. fingerprint: SHA-256 of the items' texts. metrics: the headline first."""

    item: str
    fingerprint: str | None = None
    metrics: dict[str, ItemValues]


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
    """Two models on the same items. a, b: their names. metrics: the headline first; its verdict is the verdict."""

    a: str
    b: str
    item: str
    n_items: int
    confidence_level: float
    metrics: dict[str, Difference]

    @property
    def headline(self) -> str:
        return next(iter(self.metrics))

    @property
    def verdict(self) -> Verdict:
        return self.metrics[self.headline].verdict


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


def write(path: Path, result: File) -> None:
    """Write a result as JSON, whole or not at all."""
    write_json_atomic(path, result.model_dump(mode="json"))


def _first_problem(error: ValidationError, found: Any) -> str:
    if isinstance(found, dict) and found.get("version") != VERSION:
        return f"version {found.get('version')}, expected {VERSION}: the file is of another hone, or damaged"
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
