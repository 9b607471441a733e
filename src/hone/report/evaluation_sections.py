"""The sections of what was measured: numbers before and after, samples, confusions, seeds."""

import math

from hone.report.blocks import Block, Section, Table, Text
from hone.report.folder import Folder
from hone.report.text import estimate, number, p_cell, p_text
from hone.results import ClassReport, Comparison, Level, Measurement
from hone.results.contamination import Memorization
from hone.show import ENOUGH_TEXTS, class_scores, may_miss, plural, unmeasured_classes

SHOWN_CLASSES = 20  # of a confusion matrix; beyond that, the most frequent confusions


def metrics(folder: Folder) -> Section | None:
    """Base, tuned and their paired difference, each with its interval."""
    measured, comparison = folder.measured, folder.comparison
    if not measured:
        return None
    last = list(measured.values())[-1]
    rows = []
    for name, level in last.metrics.items():
        found = [measured[side].metrics.get(name) if side in measured else None for side in ("base", "tuned")]
        levels = [estimate(one, level.kind.form) for one in found]
        rows.append([level.kind.title, *levels, *(_difference(comparison, name, level) if comparison else ["–"] * 3)])
    columns = [0, *(i for i in range(1, 6) if any(row[i] != "–" for row in rows))]  # empty ones are left out
    head = ["", "base", "tuned", "tuned − base, paired", "p", "MDE"]
    caption = (
        f"{plural(last.n_items, f'held-out {last.item}')}, {last.n_tokens:,} tokens; "
        f"in brackets {last.confidence_level:.0%} intervals over {last.item}s."
    )
    blocks: list[Block] = [
        Table([head[i] for i in columns], [[row[i] for i in columns] for row in rows], caption=caption)
    ]
    if notes := _notes(last, comparison, "MDE" in [head[i] for i in columns]):
        blocks.append(Text(" ".join(notes)))
    return Section("Held-out data, before and after", blocks)


def _difference(comparison: Comparison, name: str, level: Level) -> list[str]:
    """The paired difference with its interval, its p, and the smallest change that these items show."""
    if (log := comparison.metrics.get(level.kind.exponential_of or "")) is not None:
        ratio = log.difference.mapped(lambda change: math.exp(min(change, 700.0)))
        return [f"× {estimate(ratio, '.3f')}", "–", "–"]
    found = comparison.metrics.get(name)
    if found is None:
        return ["–"] * 3
    effect = number(found.minimum_detectable_effect, ".2g")
    return [estimate(found.difference, f"+{found.kind.form}"), p_cell(found.p_adjusted), effect]


def _notes(last: Measurement, comparison: Comparison | None, has_mde: bool) -> list[str]:
    """What the numbers are to be read with."""
    notes = []
    if last.classes is not None:
        share = f"{last.classes.majority_accuracy:.3f}"
        notes.append(f"Always answering “{last.classes.majority_class}” has an accuracy of {share}.")
    changes = comparison.metrics.values() if comparison else ()
    for change in changes:
        if change.only_b is not None:
            newly = f"{change.only_b} {last.item}s are newly right, {change.only_a} newly wrong"
            notes.append(f"By {change.kind.heading}, {newly}.")
    if has_mde:
        notes.append("MDE: the minimum detectable effect, which such a comparison finds 8 times in 10.")
    if comparison and (missed := may_miss(comparison)):
        notes.append(f"{missed[0].upper()}{missed[1:]}.")
    tested = [change for change in changes if comparison and change.kind.restates not in comparison.metrics]
    if len(tested) > 1:
        notes.append(f"p is adjusted (Holm) for {len(tested)} comparisons.")
    for n in sorted({level.n_items for level in last.metrics.values() if level.n_items is not None}):
        headings = [level.kind.heading for level in last.metrics.values() if level.n_items == n]
        notes.append(f"Of {n:,} {last.item}s: {', '.join(headings)}.")
    return notes


def written(folder: Folder) -> Section | None:
    """What the written texts look like, and how much of them is copied from the training rows."""
    blocks: list[Block] = []
    found = {name: one for name, one in folder.measured.items() if one.n_texts >= ENOUGH_TEXTS}
    kinds = {name: level.kind for one in found.values() for name, level in one.quality.items()}
    if kinds:
        rows = [
            [kind.heading, *(estimate(one.quality.get(name), ".3g") for one in found.values())]
            for name, kind in kinds.items()
        ]
        n = max(one.n_texts for one in found.values())
        caption = f"{n:,} texts; means and shares, in brackets intervals over texts."
        blocks.append(Table(["", *found], rows, caption=caption))
    if folder.memorization:
        blocks.append(_copied(folder.memorization))
    return Section("What is written", blocks) if blocks else None


def _copied(found: Memorization) -> Table:
    rows = []
    for group, one in found.prompts.items():
        shares = [estimate(one.copying.get(name), ".3f") for name in ("base", "tuned")]
        change = [estimate(one.change.difference, "+.3f"), p_cell(one.change.p_value)] if one.change else ["–", "–"]
        rows.append([group.replace("_", "-"), f"{one.n_items:,}", *shares, *change])
    caption = (
        f"Share of prompts whose continuation copies at least {found.copied_characters_in_a_row} characters "
        f"or {found.copied_words_in_a_row} words from a training row."
    )
    return Table(["prompts from rows", "n", "base copies", "tuned copies", "tuned − base", "p"], rows, caption=caption)


def confusion(folder: Folder) -> Section | None:
    """Which class was taken for which, and how well each is found."""
    reports = {name: found.classes for name, found in folder.measured.items() if found.classes}
    if not reports:
        return None
    blocks: list[Block] = [
        _matrix(f"{name}: rows of each class (down) by the answer (across)", found) for name, found in reports.items()
    ]
    which, last = list(reports.items())[-1]
    rows = [[label, *class_scores(one, "–"), f"{one.rows:,}"] for label, one in last.classes.items()]
    missing = "; –: no held-out rows of this class" if unmeasured_classes(last) else ""
    caption = f"{which}, class by class{missing}"
    blocks.append(Table(["class", "precision", "recall", "F1", "rows"], rows, caption=caption))
    return Section("Classes", blocks)


def _matrix(caption: str, found: ClassReport) -> Table:
    names, counts = list(found.classes), found.confusion
    if len(names) <= SHOWN_CLASSES:
        shades = [[None, *(count / max(sum(row), 1) for count in row)] for row in counts]
        rows = [[label, *(f"{count:,}" for count in row)] for label, row in zip(names, counts, strict=True)]
        return Table(["true \\ answer", *names], rows, caption=caption, shades=shades)
    pairs = [(counts[i][j], a, b) for i, a in enumerate(names) for j, b in enumerate(names) if i != j and counts[i][j]]
    rows = [[true, answer, f"{count:,}"] for count, true, answer in sorted(pairs, reverse=True)[:SHOWN_CLASSES]]
    return Table(["true", "answered", "rows"], rows, "llr", f"{caption.split(':')[0]}: the most frequent confusions")


def seeds(folder: Folder) -> Section | None:
    """The same training with other seeds: each, and what they tell together."""
    found = folder.repeat
    if not found:
        return None
    metric = found.metrics[found.headline]
    tuned, change, item = metric.tuned, metric.change, metric.item
    rows = [
        [str(run.seed), estimate(run.tuned, ".4f"), estimate(run.change, "+.4f"), run.verdict or "–"]
        for run in found.runs
    ]
    mean = [estimate(change.mean, "+.4f"), change.verdict] if change else ["–", "–"]
    rows.append(["mean", estimate(tuned.mean, ".4f"), *mean])
    head = ["seed", f"tuned ({metric.kind.noun})", "tuned − base, paired", ""]
    caption = (
        f"{tuned.n_seeds} seeds, the same {tuned.n_items:,} held-out {item}s; in brackets {found.confidence_level:.0%} "
        f"intervals, of each seed over {item}s, of the mean over seeds and {item}s."
    )
    notes = [f"The seed changes: {', '.join(found.seed_changes)}."]
    if change and change.standard_deviation:
        spread = estimate(change.standard_deviation, ".2g")
        notes.append(f"Standard deviation of the change over seeds: {spread}.")
    if change and change.sign_flip_p is not None:
        notes.append(
            f"Sign-flip test over seeds: p {p_text(change.sign_flip_p)}; so many seeds cannot give less than "
            f"{change.smallest_sign_flip_p:.2g}."
        )
    if change and change.minimum_detectable_effect is not None:
        notes.append(f"These seeds and items show a change of {change.minimum_detectable_effect:.2g} 8 times in 10.")
    return Section("Seeds", [Table(head, rows, "rrrl", caption), Text(" ".join(notes))])
