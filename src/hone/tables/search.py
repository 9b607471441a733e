"""A search as a terminal shows it: the settings by what chose them, then what the winner is worth."""

from pathlib import Path

from hone.results import Comparison
from hone.results.search import Search
from hone.show import NO_INTERVAL, estimate, may_miss, plural, table


def search_text(found: Search, folder: Path | None = None) -> str:
    """The trainings, best first; then the winner on the items that had no part in the choice."""
    noun, form = found.kind.noun, found.kind.form
    rows = [
        [
            *(str(value) for value in point.values.values()),
            estimate(point.chosen_by, form, NO_INTERVAL),
            "-" if point.seconds is None else f"{point.seconds:.0f} s",
            point.folder,
        ]
        for point in found.points
    ]
    header = [*found.winner.values, f"{noun}, choosing half", "time", "folder"]
    parts = [table(header, rows), "\n".join(_judged(found))]
    return "\n\n".join([*parts, f"runs and search.json: {folder}"] if folder else parts)


def _judged(found: Search) -> list[str]:
    values = ", ".join(f"{leaf}={value}" for leaf, value in found.winner.values.items())
    lines = [
        f"chosen: {values}, by {plural(found.n_choosing, found.item)}; judged by the other {found.n_judging}, which "
        "had no part in the choice"
    ]
    if found.on_judging is not None and found.on_choosing is not None:
        lines.append(f"tuned - base, judging half: {_difference(found, found.on_judging)}: {found.on_judging.verdict}")
        flattering = _difference(found, found.on_choosing)
        lines.append(f"tuned - base, choosing half: {flattering}: do not quote it, the choice flatters it")
        lines += filter(None, [may_miss(found.on_judging)])
    if found.over_second is not None:
        told = found.over_second.verdict
        words = "which of the two is better, these items cannot tell" if told == "not distinguishable" else told
        lines.append(f"first - second, judging half: {_difference(found, found.over_second)}: {words}")
    lines.append("one seed each: before you rely on it, train the winner with others (hone repeat)")
    return lines


def _difference(found: Search, comparison: Comparison) -> str:
    change = comparison.metrics[found.metric].difference
    return f"{estimate(change, f'+{found.kind.form}', NO_INTERVAL)} {found.kind.noun}"
