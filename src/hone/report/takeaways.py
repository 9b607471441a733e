"""What a run shows, in plain sentences for somebody who reads such a page for the first time."""

from dataclasses import dataclass

from hone.report.blocks import Point, Points, Section
from hone.report.folder import Folder
from hone.report.verdict import passing
from hone.results import Comparison, Difference
from hone.show import figure, plural

TURNED = 0.01  # the held-out loss has risen again if its last point is this share above its lowest


@dataclass(frozen=True)
class Course:
    """How the held-out loss went during the training: where it was lowest, and whether it rose afterwards."""

    lowest_step: int
    lowest_epoch: float | None
    epochs: float | None
    rose: bool
    falls: bool


def takeaways(folder: Folder) -> Section | None:
    """What was found, how sure that is, how the training went, and what the numbers are too good for."""
    found = folder.code_comparison or folder.comparison
    if found is None:
        return None
    points = [*_programs(folder), *_classes(folder), *_loss(folder), *_luck(found), *_training(folder), *_leak(folder)]
    return Section("In plain words", [Points([Point(text) for text in points])])


def _programs(folder: Folder) -> list[str]:
    counts = passing(folder)
    if counts is None:
        return []
    before, after, n = counts
    solved = f"Before the training the model solved {before:,} of {plural(n, 'programming task')}, now it solves "
    solved += f"{after:,}: it writes one program for each, and all tests of the task must pass."
    failed = {verdict: count for verdict, count in folder.code["tuned"].verdicts.items() if verdict != "pass"}
    if failed:
        wrong, other = failed.pop("wrong", 0), sum(failed.values())
        parts = [f"{wrong:,} run but give a wrong result"] if wrong else []
        parts += [f"{other:,} stop with an error or do not come to an end"] if other else []
        solved += f" Of the other programs, {' and '.join(parts)}."
    return [solved]


def _classes(folder: Folder) -> list[str]:
    tuned = folder.tuned
    if tuned is None or tuned.classes is None or "accuracy" not in tuned.metrics:
        return []
    right, always = tuned.value("accuracy"), tuned.classes.majority_accuracy
    sentence = f"The tuned model names the right class in {right:.0%} of the {plural(tuned.n_items, tuned.item)}. "
    sentence += f"Always answering “{tuned.classes.majority_class}” would be right in {always:.0%}"
    return [sentence + (": it has learned less than that." if right <= always else ".")]


def _loss(folder: Folder) -> list[str]:
    """The loss as perplexity: the number of equally likely tokens that the model chooses between."""
    found, base, tuned = folder.comparison, folder.base, folder.tuned
    if found is None or base is None or tuned is None or "loss" not in found.metrics:
        return []
    if "perplexity" not in base.metrics or "perplexity" not in tuned.metrics:
        return []
    before, after = (figure(one.value("perplexity"), ",.3g") for one in (base, tuned))
    verdict = found.metrics["loss"].verdict
    if verdict == "not distinguishable":
        return [
            f"Text that it was not trained on surprises it about as much as before (perplexity {before} → {after})."
        ]
    less = "less" if verdict == "better" else "more"
    return [
        f"Text that it was not trained on surprises it {less} than before: perplexity {before} → {after}, as if it "
        f"had to choose between about {after} equally likely tokens at each place, and before between {before}."
    ]


def _luck(found: Comparison) -> list[str]:
    change = found.metrics[found.headline]
    these = plural(found.n_items, found.item)
    if change.verdict == "not distinguishable":
        sentence = f"These {these} cannot tell the change from chance. That does not mean that nothing changed."
        return [sentence + _least(change)]
    sentence = "If the training had changed nothing, chance would make a difference as large as this one in "
    return [f"{sentence}{_often(change.p_adjusted)}. What another seed would give is not known from one run."]


def _least(change: Difference) -> str:
    effect = change.minimum_detectable_effect
    return "" if effect is None else f" A change smaller than {effect:.2g} would mostly be missed."


def _often(p: float) -> str:
    """'about 17 of 1,000 comparisons', 'fewer than 1 of 10,000 comparisons'."""
    if p < 0.0001:
        return "fewer than 1 of 10,000 comparisons"
    of = 1000 if p >= 0.001 else 10_000
    return f"about {max(1, round(p * of)):,} of {of:,} comparisons"


def course_of(folder: Folder) -> Course | None:
    """The held-out loss over the training; None with fewer than two measurements of it."""
    points = [line for line in folder.metrics if isinstance(line.get("eval_loss"), (int, float))]
    if len(points) < 2:
        return None
    lowest = min(points, key=lambda line: line["eval_loss"])
    last, before = points[-1], points[-2]
    return Course(
        lowest_step=lowest["step"],
        lowest_epoch=lowest.get("epoch"),
        epochs=last.get("epoch"),
        rose=last["eval_loss"] > lowest["eval_loss"] * (1 + TURNED),
        falls=last is lowest and last["eval_loss"] < before["eval_loss"] * (1 - TURNED),
    )


def _training(folder: Folder) -> list[str]:
    course = course_of(folder)
    if course is None or folder.tuned is None:
        return []
    if course.rose:
        place = f"step {course.lowest_step:,}" + _epoch(course.lowest_epoch, course.epochs)
        return [f"The held-out loss was lowest at {place} and rose after that: the model began to overfit its rows."]
    if course.falls:
        return ["The held-out loss was still falling at the last measurement: a longer training may give more."]
    return ["The held-out loss had stopped falling at the end, and did not rise: the training was about long enough."]


def _epoch(lowest: float | None, last: float | None) -> str:
    return "" if lowest is None or last is None else f" (epoch {lowest:.3g} of {last:.3g})"


def _leak(folder: Folder) -> list[str]:
    found, dropped = folder.contamination, folder.config is not None and folder.config.data.overlap == "drop"
    if found is None or dropped or not found.n_contaminated:
        return []
    held = f"{found.n_contaminated:,} of the {found.n_items:,} held-out {found.item}s are in the training rows too"
    return [f"{held}, so the numbers on this page are better than they would be on new ones."]
