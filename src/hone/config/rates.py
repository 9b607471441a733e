"""Which learning rate suits a base: the bundled model's own, measured; of other bases the usual range.

>>> lora = MethodSection(method="lora")
>>> suited(ModelSection(model_name_or_path="hone-base"), lora, TrainSection(learning_rate=1e-4))
Suited(start=0.01, said='hone-base takes about 0.01 with method: lora', off='low')
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hone import bundled
from hone.config.checks import BUNDLED_TASKS
from hone.config.sections.method import TASKS, MethodSection
from hone.config.sections.model import ModelSection
from hone.config.sections.train import TrainSection

FAR = 10  # a rate so many times below or above what suits is named
SMALL = 100_000_000  # bytes of weights: bases of fewer take the rates of the bundled model
# From, to: the rates that others begin with (docs/choosing.md, "Where to begin").
USUAL = {"full": (1e-5, 5e-5), "freeze": (3e-5, 1.5e-4), "lora": (1e-4, 2e-4)}
ENCODER_DECODERS = (3e-5, 3e-4)  # trained in full
FROM_SCRATCH = (3e-4, 6e-4)


@dataclass(frozen=True)
class Suited:
    """start: the rate to begin with. said: what suits, as a clause. off: whether the run's own rate is far from it."""

    start: float
    said: str
    off: Literal["low", "high"] | None


def suited(model: ModelSection, method: MethodSection, train: TrainSection) -> Suited | None:
    """What suits a run's base and method; None where no model is named, or no AdamW trains it."""
    name = model.model_name_or_path
    if (name is None and model.model_type is None) or not train.optim.startswith(("adamw", "paged_adamw")):
        return None
    low, high, said = _range(name, method)
    rate, rounded = train.learning_rate, 1 + 1e-9
    off: Literal["low", "high"] | None = "high" if rate * rounded >= high * FAR else None
    return Suited(high, said, "low" if rate * FAR <= low * rounded else off)


def _range(name: str | None, method: MethodSection) -> tuple[float, float, str]:
    """From, to, and both in words; the same number twice where one was measured."""
    if name is None:
        low, high = FROM_SCRATCH
        return low, high, f"from scratch, {low:g} to {high:g} are usual"
    if bundled.is_meant(name) or _is_small(Path(name)):
        rate = bundled.RATES[method.method]
        base = bundled.NAME if bundled.is_meant(name) else f"a base as small as {Path(name).name}"
        return rate, rate, f"{base} takes about {rate:g} with method: {method.method}"
    low, high = USUAL[method.method]
    if method.method == "full" and method.task in TASKS and method.task not in BUNDLED_TASKS:
        low, high = ENCODER_DECODERS
    return low, high, f"with method: {method.method}, {low:g} to {high:g} are usual"


def _is_small(folder: Path) -> bool:
    weights = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    return bool(weights) and sum(file.stat().st_size for file in weights) < SMALL


def lower_rate(model: ModelSection, method: MethodSection, train: TrainSection, part: int = 10) -> tuple[float, str]:
    """The rate to begin again with after a training that broke the model, and the words for it.

    It is the one that suits the base; where the run's own was hardly above that, a part of its own.
    """
    found, own = suited(model, method, train), train.learning_rate
    if found is not None and own >= 2 * found.start:
        return found.start, f"the rate that suits the base ({found.said})"
    return own / part, "a lower learning_rate"


def rate_notices(model: ModelSection, method: MethodSection, train: TrainSection) -> list[str]:
    """One line where the learning rate is far from what suits the base."""
    found = suited(model, method, train)
    if found is None or found.off is None:
        return []
    why = "so low that little is learned" if found.off == "low" else "so high that training may break the model"
    return [f"learning_rate is {train.learning_rate:g}, {why}: {found.said}"]
