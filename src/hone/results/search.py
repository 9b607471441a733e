"""Trainings that differ in settings, one of them chosen by some items and judged by others."""

from typing import Any

from pydantic import Field

from hone.results import Comparison, Estimate, File, Kind, Result


class SearchPoint(Result):
    """One training. values: of the keys that are searched over. chosen_by: the metric over the choosing items."""

    values: dict[str, Any]
    folder: str
    chosen_by: Estimate
    seconds: float | None


class Search(File):
    """search.json. points: best first.

    metric, kind, item: what was compared. n_choosing, n_judging: items, none of them in both halves.
    on_choosing, on_judging: the winner beside its base on the items that chose it, which flatter it, and on the others;
    None where the base was not measured. over_second: the winner beside the second on the others.
    """

    metric: str
    kind: Kind
    item: str
    points: list[SearchPoint] = Field(min_length=1)
    n_choosing: int
    n_judging: int
    confidence_level: float
    split_seed: int
    on_choosing: Comparison | None
    on_judging: Comparison | None
    over_second: Comparison | None

    @property
    def winner(self) -> SearchPoint:
        return self.points[0]
