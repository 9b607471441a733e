"""Runs that belong together, because one command has trained them: those of a `hone repeat`, of a search or a grid.

>>> kind_of(["seed-0", "seed-1-run-2"]), kind_of(["learning_rate-0.0001,lora_r-8"]), kind_of(["a", "b"])
('seeds', 'settings', None)
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hone.config.schema import leaves
from hone.errors import HoneError
from hone.results import Difference, read
from hone.results.repeat import Repeat
from hone.results.search import Search
from hone.serve.refusal import JsonObject

TOGETHER = ("repeat.json", "search.json")
SEED = re.compile(r"seed-\d+(-run-\d+)?")


def kind_of(names: Sequence[str]) -> Literal["seeds", "settings"] | None:
    """What the folders of one folder differ in, by their names."""
    if all(SEED.fullmatch(name) for name in names):
        return "seeds"
    leaf_names = leaves()
    return "settings" if all(name.split("-")[0] in leaf_names and "-" in name for name in names) else None


def groups_of(folder: Path, ids: Sequence[str]) -> list[JsonObject]:
    """Each group with its runs, and what they show together where that was written.

    Args:
        ids: names of runs, relative to the folder.
    """
    inside: dict[str, list[str]] = {}
    for name in ids:
        parent, _, _ = name.rpartition("/")
        if name != ".":
            inside.setdefault(parent, []).append(name)
    found = []
    for parent, runs in inside.items():
        kind = kind_of([name.rpartition("/")[2] for name in runs])
        if kind is not None and (len(runs) > 1 or _written(folder / parent)):
            group = {"id": parent or ".", "name": parent or folder.name, "kind": kind, "runs": runs}
            found.append({**group, **_together(folder / parent)})
    return found


def _written(place: Path) -> bool:
    return any((place / name).is_file() for name in TOGETHER)


def _together(place: Path) -> JsonObject:
    """metric, before, after, spread (of the seeds: their standard deviation), best, verdict; only what is known."""
    try:
        if (repeat := read(Repeat, place / "repeat.json")) is not None:
            return _of_seeds(repeat)
        if (search := read(Search, place / "search.json")) is not None:
            return _of_settings(search)
    except HoneError as error:
        return {"error": str(error)}
    return {}


def _of_seeds(found: Repeat) -> JsonObject:
    metric = found.metrics[found.headline]
    spread, change = metric.tuned.standard_deviation, metric.change
    return {
        "metric": found.headline,
        "before": None if change is None else metric.tuned.mean.value - change.mean.value,
        "after": metric.tuned.mean.value,
        "spread": spread.value if spread else None,
        "verdict": change.verdict if change else None,
    }


def _of_settings(found: Search) -> JsonObject:
    """The winner, by the items that did not choose it."""
    judged: Difference | None = found.on_judging.metrics.get(found.metric) if found.on_judging else None
    return {
        "metric": found.metric,
        "before": judged.a.value if judged else None,
        "after": judged.b.value if judged else None,
        "best": ", ".join(f"{leaf} {value}" for leaf, value in found.winner.values.items()),
        "verdict": judged.verdict if judged else None,
    }
