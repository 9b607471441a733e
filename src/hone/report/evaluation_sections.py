"""The sections of what was measured: numbers before and after, graded programs, samples, confusions, seeds."""

import math
from collections import Counter
from typing import Any

from hone.evaluation.columns import COLUMNS, ENOUGH_TEXTS, code_change
from hone.grading.pass_at_k import estimate
from hone.metrics.generation_quality import HEADINGS
from hone.report.blocks import Block, Grid, Pieces, Sample, Samples, Section, Table, Text
from hone.report.folder import Folder
from hone.report.text import differences, number, shortened, with_interval
from hone.report.verdict import p_text, p_value
from hone.statistics.intervals import Interval

CODE = "Generated code, by its unit tests"
SHOWN_SAMPLES = 24
SHOWN_CLASSES = 20  # of a confusion matrix; beyond that, the most frequent confusions


def metrics(folder: Folder) -> Section | None:
    """Base, tuned and their paired difference, each with its interval."""
    measured = {name: found for name, found in (("base", folder.base), ("tuned", folder.tuned)) if found}
    if not measured:
        return None
    last = list(measured.values())[-1]
    compare = folder.compare or {}
    rows = []
    for heading, key, form in COLUMNS[folder.task]:
        if key in last:
            found = [_value(measured.get(name), key, form) for name in ("base", "tuned")]
            rows.append([heading, *found, *_difference(compare, key, form)])
    columns = [0, *(i for i in range(1, 6) if any(row[i] != "–" for row in rows))]  # empty ones are left out
    head = ["", "base", "tuned", "tuned − base, paired", "p", "could show"]
    level = last.get("confidence_level", 0.95)
    item = last.get("item", "item")
    tokens = f", {last['n_tokens']:,} tokens" if "n_tokens" in last else ""
    caption = f"{last['n_items']:,} held-out {item}s{tokens}; in brackets {level:.0%} intervals over {item}s."
    blocks: list[Block] = [
        Table([head[i] for i in columns], [[row[i] for i in columns] for row in rows], caption=caption)
    ]
    if notes := _beside(last, compare):
        blocks.append(Text(notes))
    return Section("Held-out data, before and after", blocks)


def _value(found: dict[str, Any] | None, key: str, form: str) -> str:
    return "–" if not found else with_interval(found.get(key), found.get(f"{key}_interval"), form)


def _difference(compare: dict[str, Any], key: str, form: str) -> list[str]:
    """The paired difference with its interval, its p, and the smallest change that these items show."""
    signed = f"+{form}"
    nats, interval = compare.get("loss_difference"), compare.get("loss_difference_interval")
    if key == "perplexity" and nats is not None:  # the same difference, said again: perplexity is exp(loss)
        return [
            "× "
            + with_interval(
                math.exp(min(nats, 700.0)), interval and [math.exp(min(x, 700.0)) for x in interval], ".3f"
            ),
            "–",
            "–",
        ]
    key = "chrf_mean" if key == "chrf" else key
    change = with_interval(compare.get(f"{key}_difference"), compare.get(f"{key}_difference_interval"), signed)
    p, shown = p_value(compare, key), compare.get(f"{key}_detectable")
    return [change, "–" if p is None else p_text(p).removeprefix("=\N{NO-BREAK SPACE}"), number(shown, ".2g")]


def _beside(last: dict[str, Any], compare: dict[str, Any]) -> str:
    """What the numbers are to be read beside."""
    told = []
    if "majority_class" in last:
        told.append(f"Always answering “{last['majority_class']}” has an accuracy of {last['majority_accuracy']:.3f}.")
    if "only_tuned_right" in compare:
        told.append(f"{compare['only_tuned_right']} rows are newly right, {compare['only_base_right']} newly wrong.")
    if any(key.endswith("_detectable") for key in compare):
        told.append("‘Could show’: the smallest change that such a comparison finds 8 times in 10.")
    tested = {key for key in compare if key.endswith("_p_adjusted")} - {"bits_per_byte_p_adjusted"}  # loss, said again
    if len(tested) > 1:
        told.append(f"p is adjusted (Holm) for {len(tested)} comparisons.")
    if "chrf" in last:
        told.append(
            f"Exact match, chrF, BLEU and ROUGE-L are of {last.get('n_written', 0):,} written texts; "
            "chrF and BLEU are of the whole set at once and have no interval; "
            "the difference of chrF is of the texts' mean."
        )
    return " ".join(told)


def code(folder: Folder) -> Section | None:
    """Programs graded by unit tests: pass and fail of each task, base beside tuned."""
    if not folder.grades:
        wanted = folder.config.eval.code_tasks if folder.config else None
        told = f"The tasks of {wanted} were not run; train.log says why. `hone eval RUN --code-tasks FILE` runs them."
        return Section(CODE, [Text(told)]) if wanted and folder.status.get("status") == "finished" else None
    tasks = {name: _by_task(rows) for name, rows in folder.grades.items()}
    rows = []
    for name, found in tasks.items():
        first = estimate([(n, passed) for passed, n in found.values()], [1])[0].interval
        share = "–" if first is None else with_interval(first.value, _bounds(first), ".3f")
        graded = folder.grades[name]
        failed = Counter(str(row.get("verdict", "?")) for row in graded if not row["passed"])
        why = ", ".join(f"{count:,} {verdict}" for verdict, count in failed.most_common(5))
        passed = sum(bool(row["passed"]) for row in graded)
        rows.append([name, share, f"{passed:,} of {len(graded):,}", f"{len(found):,}", why or "–"])
    caption = "pass@1: the share of tasks that one program solves; in brackets 95% intervals over tasks."
    blocks: list[Block] = [
        Table(["", "pass@1", "programs that pass", "tasks", "why the others do not"], rows, "lrrrl", caption)
    ]
    if folder.compare_code:
        blocks.append(Text(code_change(folder.compare_code)))
    pair = [tasks.pop(name) for name in ("base", "tuned")] if {"base", "tuned"} <= set(tasks) else []
    blocks += _pair(*pair) if pair else []
    for name, found in tasks.items():
        blocks += [
            Text(f"{name}:"),
            _grid({task: "●" if passed else "·" for task, (passed, _) in found.items()}, ALONE),
        ]
    return Section(CODE, blocks)


def _bounds(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


BOTH = {"●": "both pass", "+": "only tuned passes", "−": "only base passes", "·": "none passes"}
ALONE = {"●": "passes", "·": "fails"}


def _pair(base: dict[str, tuple[int, int]], tuned: dict[str, tuple[int, int]]) -> list[Block]:
    marks = {}
    for task in (task for task in tuned if task in base):
        before, after = base[task][0] > 0, tuned[task][0] > 0
        marks[task] = "●" if before and after else "+" if after else "−" if before else "·"
    count = Counter(marks.values())
    table = Table(
        ["", "tuned passes", "tuned fails"],
        [["base passes", f"{count['●']}", f"{count['−']}"], ["base fails", f"{count['+']}", f"{count['·']}"]],
        caption=f"{len(marks):,} tasks that both were given; a task passes if one of its programs does.",
    )
    return [table, _grid(marks, BOTH)]


def _grid(marks: dict[str, str], legend: dict[str, str]) -> Grid:
    return Grid([(mark, task) for task, mark in marks.items()], legend)


def _by_task(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """task_id -> (passed, samples)."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        right, n = found.get(str(row["task_id"]), (0, 0))
        found[str(row["task_id"])] = (right + bool(row["passed"]), n + 1)
    return found


def samples(folder: Folder) -> Section | None:
    """Texts of base and tuned side by side, what differs marked."""
    source = folder.samples or list((folder.tuned or folder.base or {}).get("samples", []))
    if not source or folder.task == "classification":
        return _answers(source)
    shown = [_sample(sample) for sample in source[:SHOWN_SAMPLES]]
    told = "Marked: what the other text lacks; not marked where the two have little in common."
    if len(source) > len(shown):
        told = f"The first {len(shown)} of {len(source):,}. {told}"
    return Section("Samples", [Text(told), Samples(shown)])


def written(folder: Folder) -> Section | None:
    """What the written texts look like, and how much of them is copied from the training rows."""
    blocks: list[Block] = []
    results = {"base": folder.base or {}, "tuned": folder.tuned or {}}
    found = {name: result.get("generation_quality", {}) for name, result in results.items()}
    found = {name: quality for name, quality in found.items() if quality.get("n_texts", 0) >= ENOUGH_TEXTS}
    if found:
        names = [key for key in HEADINGS if any(key in quality for quality in found.values())]
        rows = [[HEADINGS[key], *(_value(quality, key, ".3g") for quality in found.values())] for key in names]
        n = max(quality["n_texts"] for quality in found.values())
        blocks.append(
            Table(["", *found], rows, caption=f"{n:,} texts; means and shares, in brackets intervals over texts.")
        )
    if folder.memorization:
        blocks.append(_copied(folder.memorization))
    return Section("What is written", blocks) if blocks else None


def _copied(found: dict[str, Any]) -> Table:
    rows = []
    for group, copied in found["prompts"].items():
        shares = [_value(copied.get(name), "copying", ".3f") for name in ("base", "tuned")]
        p = copied.get("p_value")
        change = with_interval(copied.get("copying_difference"), copied.get("copying_difference_interval"), "+.3f")
        said = "–" if p is None else p_text(p).removeprefix("=\N{NO-BREAK SPACE}")
        rows.append([group.replace("_", "-"), f"{copied['n_items']:,}", *shares, change, said])
    caption = (
        f"Share of prompts whose continuation copies at least {found['copied_characters_in_a_row']} characters "
        f"or {found['copied_words_in_a_row']} words from a training row."
    )
    return Table(["prompts from rows", "n", "base copies", "tuned copies", "tuned − base", "p"], rows, caption=caption)


def _sample(sample: dict[str, Any]) -> Sample:
    texts = {name: shortened(str(sample[name])) for name in ("base", "tuned") if name in sample}
    answers: dict[str, Pieces] = {name: [(text, False)] for name, text in texts.items()}
    if len(texts) == 2:
        answers["base"], answers["tuned"] = differences(texts["base"], texts["tuned"])
    reference = sample.get("reference")
    title = f"Item {sample.get('item', '?')}"
    return Sample(
        title, shortened(str(sample["prompt"])), None if reference is None else shortened(str(reference)), answers
    )


def _answers(source: list[dict[str, Any]]) -> Section | None:
    """Rows and the classes they were given."""
    if not source:
        return None
    rows = [
        [shortened(str(s["prompt"]))[:300], *(str(s.get(name, "–")) for name in ("reference", "base", "tuned"))]
        for s in source[:SHOWN_SAMPLES]
    ]
    return Section("Samples", [Table(["text", "true", "base", "tuned"], rows, "llll")])


def confusion(folder: Folder) -> Section | None:
    """Which class was taken for which, and how well each is found."""
    blocks: list[Block] = []
    for name, found in (("base", folder.base), ("tuned", folder.tuned)):
        if found and "confusion" in found:
            blocks.append(_matrix(f"{name}: rows of each class (down) by the answer (across)", found))
    last = folder.tuned or folder.base or {}
    if "classes" not in last:
        return None
    rows = [
        [label, *(f"{numbers[key]:.3f}" for key in ("precision", "recall", "f1")), f"{numbers['rows']:,}"]
        for label, numbers in last["classes"].items()
    ]
    which = "tuned" if folder.tuned else "base"
    blocks.append(Table(["class", "precision", "recall", "F1", "rows"], rows, caption=f"{which}, class by class"))
    return Section("Classes", blocks)


def _matrix(caption: str, found: dict[str, Any]) -> Table:
    names, counts = list(found["classes"]), found["confusion"]
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
    rows = [
        [
            str(row["seed"]),
            with_interval(row["tuned"], row.get("tuned_interval"), ".4f"),
            with_interval(row.get("change"), row.get("change_interval"), "+.4f"),
            row.get("verdict") or "–",
        ]
        for row in found["runs"]
    ]
    tuned, change = found["tuned"], found["change"] or {}
    mean = with_interval(change.get("mean"), change.get("interval"), "+.4f")
    rows.append(["mean", with_interval(tuned["mean"], tuned["interval"], ".4f"), mean, change.get("verdict", "–")])
    head = ["seed", f"tuned ({found['unit']})", "tuned − base, paired", ""]
    caption = (
        f"{tuned['n_seeds']} seeds, the same {tuned['n_items']:,} held-out {found['item']}s; in brackets "
        f"{found['confidence_level']:.0%} intervals, of each seed over {found['item']}s, of the mean over seeds and "
        f"{found['item']}s."
    )
    told = [f"The seed changes: {', '.join(found['seed_changes'])}."]
    if change.get("standard_deviation") is not None:
        spread = with_interval(change["standard_deviation"], change.get("standard_deviation_interval"), ".2g")
        told.append(f"Standard deviation of the change over seeds: {spread}.")
    if change.get("sign_flip_p") is not None:
        told.append(
            f"Sign-flip test over seeds: p {p_text(change['sign_flip_p'])}; so many seeds cannot give less than "
            f"{change['smallest_p']:.2g}."
        )
    if change.get("detectable") is not None:
        told.append(f"These seeds and items show a change of {change['detectable']:.2g} 8 times in 10.")
    return Section("Seeds", [Table(head, rows, "rrrl", caption), Text(" ".join(told))])
