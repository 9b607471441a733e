"""How numbers, intervals, sizes, durations and tables are written, wherever hone prints them; imports nothing heavy."""

import math
from collections.abc import Sequence

from hone.errors import printable
from hone.results import ClassReport, ClassScores, Comparison, Difference, Estimate, Measurement
from hone.results.benchmarks import CodeMeasurement

SEEN = 29  # items: with 0.95 or more of certainty one of a kind that makes up a tenth is among them
NO_INTERVAL = "[one item: no interval]"
BEGINNING, RELIABLE = 50, 400  # training examples
ENOUGH_TEXTS = 10  # fewer written texts are read, not counted


def figure(value: float, form: str, longest: float = 1e9) -> str:
    """A number as a table shows it; a ruined model's perplexity by its power of ten, not by 300 digits.

    longest: from where on it is its power of ten.

    >>> figure(6475.77, ",.2f"), figure(1.2e304, ",.2f")
    ('6,475.77', '1e+304')
    """
    return f"{value:{form}}" if abs(value) < longest else f"{value:.0e}"


def estimate(found: Estimate | None, form: str, alone: str = "") -> str:
    """'3.12 [3.01, 3.24]'; `alone` behind a value without an interval; '-' where there is no value.

    >>> estimate(Estimate(value=-1.5, low=-2, high=-1), "+.1f")
    '-1.5 [-2.0, -1.0]'
    """
    if found is None:
        return "-"
    bounds = f"[{figure(found.bounds[0], form)}, {figure(found.bounds[1], form)}]" if found.bounds else alone
    return f"{figure(found.value, form)} {bounds}".rstrip()


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned on the left, two spaces apart."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows]]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def size(n_bytes: float) -> str:
    """
    >>> size(2_464_100_352), size(81_000_000)
    ('2.46 GB', '81 MB')
    """
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """
    >>> duration(3725.2), duration(33.8)
    ('1 h 02 min', '34 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, s = divmod(math.floor(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {s:02d} s"


def in_lines(head: str, parts: Sequence[str], width: int = 100) -> list[str]:
    """Parts after one another, each line with its head and, unless one part alone is longer, within `width`.

    >>> in_lines("left out", ["a cache", "a fused head"], width=20)
    ['left out: a cache;', 'left out: a fused head']
    """
    lines = [f"{head}: {parts[0] if parts else 'none'}"]
    for part in parts[1:]:
        if len(lines[-1]) + len(f"; {part};") <= width:
            lines[-1] += f"; {part}"
        else:
            lines[-1] += ";"
            lines.append(f"{head}: {part}")
    return lines


# ---- results as lines ------------------------------------------------------------------------------------------------


def plural(n: int, item: str) -> str:
    """
    >>> plural(1, "document"), plural(2811, "document")
    ('1 document', '2,811 documents')
    """
    return f"{n:,} {item}{'' if n == 1 else 's'}"


def few_rows(n_examples: int) -> str:
    """What so few training examples mean; nothing from BEGINNING on (docs/choosing.md, "How many rows").

    >>> few_rows(8).split(".")[0], few_rows(50)
    ('only 8 examples to train on', '')
    """
    if n_examples >= BEGINNING:
        return ""
    return (
        f"only {plural(n_examples, 'example')} to train on. A model learns the form of so few at most, and soon "
        f"repeats them: {BEGINNING} make a beginning, {RELIABLE} are the least to rely on"
    )


def measurement_line(found: Measurement) -> str:
    """'loss 3.120 [3.010, 3.240] nats/token, perplexity 22.70 [20.30, 25.50] over 30 documents, 2,811 tokens'."""
    parts = []
    for level in found.metrics.values():
        of = f" (of {level.n_items:,})" if level.n_items is not None else ""
        unit = f" {level.kind.unit}" if level.kind.unit else ""
        parts.append(f"{level.kind.heading} {estimate(level, level.kind.form)}{unit}{of}")
    line = f"{', '.join(parts)} over {plural(found.n_items, found.item)}, {found.n_tokens:,} tokens"
    if found.classes is not None:
        always = f"always '{printable(found.classes.majority_class)}'"
        line += f" ({always}: accuracy {found.classes.majority_accuracy:.3f})"
    return line


def change_line(found: Comparison) -> str:
    """'tuned - base, paired: -0.120 [-0.150, -0.090] nats/token: better (p = 0.0002; 30 documents show …)'."""
    parts = []
    for change in found.metrics.values():
        if change.kind.restates not in found.metrics:
            part = f"{estimate(change.difference, f'+{change.kind.form}', NO_INTERVAL)} {change.kind.noun}"
            if change.only_b is not None:
                part += f" ({plural(change.only_b, found.item)} newly right, {change.only_a} newly wrong)"
            parts.append(part)
    first = found.metrics[found.headline]
    shown = shows(first, found.item, found.confidence_level)
    evidence = f"{first.test}: p = {first.p_adjusted:.2g}{f'; {shown}' if shown else ''}"
    return f"{found.b} - {found.a}, paired: {'; '.join(parts)}: {found.verdict} ({evidence})"


def least_p(n_items: int) -> float:
    """The smallest p that so many items can give: all of them changed in one direction.

    >>> least_p(4), least_p(6)
    (0.125, 0.03125)
    """
    return float(2.0 ** (1 - n_items))


def too_few(n_items: int, confidence: float) -> bool:
    """Whether so few items can show no change at all, however large it is.

    >>> too_few(5, 0.95), too_few(6, 0.95)
    (True, False)
    """
    return least_p(n_items) >= 1 - confidence


def may_miss(found: Comparison) -> str:
    """What a verdict of few items cannot see: items of a rare kind that the model changed otherwise, and much.

    Only where a verdict rests on a mean that one item can turn (a loss, not a share), and nothing from SEEN on.
    """
    n = found.n_items
    unbounded = any(one.verdict != "not distinguishable" and one.kind.top is None for one in found.metrics.values())
    if n >= SEEN or not unbounded:
        return ""
    missed = (
        f"a kind that makes up a tenth of all {found.item}s is missing among {n} with a chance of {100 * 0.9**n:.0f} %"
    )
    return f"few {found.item}s: {missed}, and could turn the mean; {SEEN} bring that below 5 %"


def shows(found: Difference, item: str, confidence: float) -> str:
    """What so many items can show, 8 times in 10; nothing where they do not tell: '30 documents show a change of …'."""
    these = plural(found.n_items, item)
    if too_few(found.n_items, confidence):
        return f"{these} {'is' if found.n_items == 1 else 'are'} too few to show any change"
    effect = found.minimum_detectable_effect
    return "" if effect is None else f"{these} show a change of {effect:.2g} or more"


def class_scores(found: ClassScores, missing: str = "-") -> list[str]:
    """Precision, recall and F1 as cells; a dash each for a class without held-out rows, of which they do not exist.

    >>> class_scores(ClassScores(precision=0, recall=0, f1=0, rows=0))
    ['-', '-', '-']
    """
    scores = (found.precision, found.recall, found.f1)
    return [f"{score:.3f}" if found.rows else missing for score in scores]


def unmeasured_classes(found: ClassReport) -> list[str]:
    """The classes without held-out rows."""
    return [name for name, one in found.classes.items() if not one.rows]


def code_line(found: CodeMeasurement) -> str:
    """'pass@1 0.300 [0.146, 0.519] over 20 tasks (20 answers: 6 pass, 10 wrong, 4 exception)'."""
    rates = [
        f"pass@{k} {estimate(rate.estimate, '.3f', NO_INTERVAL)}"
        for k, rate in found.pass_at_k.items()
        if rate.estimate
    ]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found.verdicts.items())
    return f"{', '.join(rates)} over {plural(found.n_tasks, 'task')} ({plural(found.n_samples, 'answer')}: {counts})"


def code_lines(base: CodeMeasurement | None, tuned: CodeMeasurement | None, change: Comparison | None) -> list[str]:
    """Base, tuned and the difference on programming tasks, as far as they were measured."""
    lines = [f"{name}: {code_line(found)}" for name, found in (("base", base), ("tuned", tuned)) if found]
    return [*lines, f"programs, {change_line(change)}"] if change else lines
