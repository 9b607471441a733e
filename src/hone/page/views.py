"""What the page shows of one run, or of two: plain JSON, and the report's own blocks as HTML.

The static report and the page share blocks, words and renderer (`report/`): what is said once is said in both.
"""

from collections.abc import Sequence

import numpy as np

from hone.config.dump import flow
from hone.config.load import load_config
from hone.config.schema import leaves
from hone.errors import HoneError
from hone.evaluation.compare import compare, compare_code, of_run, same_items
from hone.report.blocks import Sample, Samples, Section, Table
from hone.report.build import build_report
from hone.report.files_section import files
from hone.report.folder import read_folder
from hone.report.page import fragment
from hone.report.run_sections import curves
from hone.report.text import differences, shortened
from hone.results import SideBySide, side_by_side
from hone.runs import RESOLVED, Run
from hone.serve.refusal import JsonObject
from hone.show import NO_INTERVAL, estimate
from hone.statistics.paired import adjusted, verdict
from hone.tables.results import sentence

ELSEWHERE = (curves, files)  # the page draws the first as it grows, and serves no files
OPEN = 2  # samples, the others folded away
LETTERS = "ABCDEFGHIJKL"  # of runs that are compared, and so many at most
TONES = {"better": "good", "worse": "bad"}
ITEMS = 40  # of wins and losses that can be leafed through


def run_view(run: Run) -> JsonObject:
    """Verdict, and the report's sections as HTML."""
    report = build_report(read_folder(run.folder), without=ELSEWHERE)
    return {
        "title": report.name,
        "subtitle": report.subtitle,
        "verdict": {"word": report.verdict.word, "rest": report.verdict.rest, "tone": report.verdict.tone},
        "also": list(report.verdict.also),
        "html": fragment(report.sections, report.notes),
    }


def compare_view(runs: Sequence[Run]) -> JsonObject:
    """Tuned models on the same items, each compared with the first: differences, intervals, verdicts, settings.

    Of two also each metric, and item by item. problem: in words, where they cannot be compared; curves and settings are
    there all the same.
    """
    if len(runs) < 2:
        raise HoneError("two runs are compared, or more", fix="tick them in the table of runs")
    found: JsonObject = {"settings": fragment([_settings(runs)])}
    try:
        return {**found, **(_two(*runs) if len(runs) == 2 else _several(runs))}
    except HoneError as error:
        return {**found, "problem": str(error)}


def _two(a: Run, b: Run) -> JsonObject:
    comparison = compare(a, b)
    code = compare_code(a, b)
    head = ["", "A", "B", "B − A, paired", "p", "B is"]
    changes = {**(code.metrics if code else {}), **comparison.metrics}
    rows = [
        [
            change.kind.title,
            estimate(change.a, change.kind.form, NO_INTERVAL),
            estimate(change.b, change.kind.form, NO_INTERVAL),
            estimate(change.difference, f"+{change.kind.form}", NO_INTERVAL),
            _p(change.p_adjusted),
            change.verdict,
        ]
        for change in changes.values()
    ]
    caption = f"Over {comparison.n_items:,} {comparison.item}s that both were measured on. {' '.join(comparison.notes)}"
    table = Section("Difference", [Table(head, rows, "lrrrrl", caption)])
    named = comparison.model_copy(update={"a": "A", "b": "B"})
    code = code and code.model_copy(update={"a": "A", "b": "B"})
    return {
        "verdict": TONES.get(next(iter(changes.values())).verdict, "open"),
        "sentence": sentence(named, code),
        "html": fragment([table]),
        "items": fragment([_items(a, b)]),
    }


def _several(runs: Sequence[Run]) -> JsonObject:
    """Each of the others beside the first by the headline, p adjusted for their number."""
    first, *others = runs
    found = [compare(first, other) for other in others]
    name = next(iter(found[0].metrics))
    changes = {LETTERS[i]: one.metrics[name] for i, one in enumerate(found, 1) if name in one.metrics}
    if len(changes) < len(others):
        raise HoneError(f"not all of them have {name}", fix="compare alike tasks, two at a time")
    p_adjusted = adjusted({letter: (one.p_value, one.kind) for letter, one in changes.items()}, changes)
    kind = changes["B"].kind
    verdicts = {
        letter: verdict(p_adjusted[letter], one.difference, kind, alpha=1 - found[0].confidence_level)
        for letter, one in changes.items()
    }
    rows = [["A", estimate(changes["B"].a, kind.form, NO_INTERVAL), "–", "–", "–"]]
    rows += [
        [
            letter,
            estimate(one.b, kind.form, NO_INTERVAL),
            estimate(one.difference, f"+{kind.form}", NO_INTERVAL),
            _p(p_adjusted[letter]),
            verdicts[letter],
        ]
        for letter, one in changes.items()
    ]
    caption = f"Over {found[0].n_items:,} {found[0].item}s; p adjusted for {len(others)} comparisons (Holm)."
    table = Table(["", kind.title, "− A, paired", "p", "than A"], rows, "lrrrl", caption)
    better, worse = (sum(one == word for one in verdicts.values()) for word in ("better", "worse"))
    rest = len(others) - better - worse
    return {
        "verdict": "open",
        "sentence": f"Of {len(others)} runs beside A, {better} better, {worse} worse, {rest} not distinguishable",
        "html": fragment([Section("Difference", [table])]),
        "items": "",
    }


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _settings(runs: Sequence[Run]) -> Section:
    """What differs; the output folder, which always does, left out."""
    configs = [load_config(run.folder / RESOLVED) for run in runs]
    rows = []
    for leaf, section in leaves().items():
        values = [flow(getattr(getattr(config, section), leaf)) for config in configs]
        if len(set(values)) > 1 and leaf != "output_dir":
            rows.append([f"{section}.{leaf}", *values])
    which = "both" if len(runs) == 2 else "all"
    caption = f"Every other key is the same in {which}." if rows else "No key differs but the output folder."
    letters = list(LETTERS[: len(runs)])
    return Section("Settings", [Table(["key", *letters], rows, "l" * (1 + len(runs)), caption)])


def _items(a: Run, b: Run) -> Section:
    """The items in which the two differ most, B's greatest wins first, with what each wrote where that was kept."""
    left, right = same_items(of_run(a.folder, "tuned"), of_run(b.folder, "tuned"))
    name, first = next(iter(left.metrics.items()))
    values = [side.metrics[name].numerator / side.metrics[name].weights for side in (left, right)]
    gains = (values[1] - values[0]) * (1 if first.kind.higher_is_better else -1)
    order = np.argsort(-gains, kind="stable").tolist()
    shown = order if len(order) <= ITEMS else [*order[: ITEMS // 2], *order[-ITEMS // 2 :]]
    form = first.kind.form
    numbers = [*values, gains]
    rows = [[f"{left.item} {i}", *(format(n[i], f"+{form}" if n is gains else form) for n in numbers)] for i in shown]
    caption = f"B is better on {(gains > 0).sum():,} of {len(gains):,} items, A on {(gains < 0).sum():,}."
    head = ["item", f"A ({first.kind.noun})", f"B ({first.kind.noun})", "B better by"]
    section = Section("Item by item", [Table(head, rows, "lrrr", caption)])
    written = [one for one in side_by_side(a.tuned, b.tuned) if one.base is not None and one.tuned is not None]
    if written:
        shown_samples = [_sample(one) for one in written]
        section.blocks.append(Samples(shown_samples[:OPEN], "What both wrote"))
        if more := shown_samples[OPEN:]:
            section.blocks.append(Samples(more, f"{len(more)} more", folded=True))
    return section


def _sample(found: SideBySide) -> Sample:
    before, after = differences(shortened(found.base or ""), shortened(found.tuned or ""))
    return Sample(f"Item {found.item}", shortened(found.prompt), found.reference, {"A": before, "B": after})
