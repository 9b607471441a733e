"""What a run shows, in plain sentences for somebody who reads such a page for the first time."""

from dataclasses import dataclass

from hone.config.rates import Suited, suited
from hone.report.blocks import Point, Points, Section
from hone.report.folder import Folder
from hone.report.run_sections import few_trained_on
from hone.report.verdict import passing
from hone.results import Comparison, Difference
from hone.results.contamination import leaked
from hone.show import figure, plural, too_few

TURNED = 0.01  # the held-out loss has risen again if its last point is this share above its lowest
RISEN = 0.1  # the loss went up if it is this share above where it began; less is noise of few rows
MOVED = 0.02  # the loss hardly moved if it changed by less than this share
JUMPED = 0.5  # the same of a training loss, which is of the few rows of a step
NO_VOCABULARY = 1e6  # tokens: a perplexity above it is worse than guessing
NUMBERS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"]


@dataclass(frozen=True)
class Course:
    """How the held-out loss went during the training: where it was lowest, and whether it rose afterwards."""

    lowest: float
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
    points = [*_programs(folder), *_classes(folder), *_loss(folder), *_luck(folder, found)]
    points += [*lower_loss(folder), *_training(folder), *_few_rows(folder), *_leak(folder)]
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
    levels = [one.value("perplexity") for one in (base, tuned)]
    before, after = (figure(level, ",.3g") for level in levels)
    verdict, n = found.metrics["loss"].verdict, found.metrics["loss"].n_items
    moved = f"Measured on {plural(n, 'text')}, perplexity went from {before} to {after}."
    if levels[0] < NO_VOCABULARY < levels[1]:
        return [f"{moved} That is worse than guessing among all tokens there are: the training broke the model."]
    if too_few(n, found.confidence_level):
        these = f"{NUMBERS[n] if n < len(NUMBERS) else n} text{' is' if n == 1 else 's are'}"
        return [f"{moved} {these} too few to call that more than luck."]
    if verdict == "not distinguishable":
        return [f"{moved} That could be chance."]
    less = "less" if verdict == "better" else "more"
    return [
        f"Text that it was not trained on surprises it {less} than before: perplexity {before} → {after}, as if it "
        f"had to choose between about {after} equally likely tokens at each place, and before between {before}."
    ]


def _luck(folder: Folder, found: Comparison) -> list[str]:
    change = found.metrics[found.headline]
    if found is folder.comparison and too_few(found.n_items, found.confidence_level) and _loss(folder):
        return []  # said there
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


def lower_loss(folder: Folder) -> list[str]:
    """What a lower loss does not say, where nothing else was measured."""
    changes = folder.comparison.metrics if folder.comparison else {}
    others = [name for name, one in changes.items() if "loss" not in (name, one.kind.restates, one.kind.exponential_of)]
    if others or folder.code or "loss" not in changes or changes["loss"].verdict != "better":
        return []
    return [
        "A lower loss does not mean right answers: read the samples, or give unit tests with `code_tasks` "
        "(`hone explain code_tasks`)."
    ]


def few_items(folder: Folder) -> bool:
    """Whether so little was held out that no change of it can be shown."""
    found = folder.tuned or folder.base
    return found is not None and too_few(found.n_items, found.confidence_level)


def loss_rose(folder: Folder) -> bool:
    """Whether the training went wrong from the start: the held-out loss went up (without it, that of training).

    Not where it had fallen first: that is overfitting, and another mistake.
    """
    change, course = folder.comparison.metrics.get("loss") if folder.comparison else None, course_of(folder)
    if change is not None:
        if course is not None and course.rose and course.lowest < change.a.value:
            return False
        return change.verdict == "worse" or change.b.value > change.a.value * (1 + RISEN)
    logged = [line["loss"] for line in folder.metrics if "loss" in line]
    finite = [loss for loss in logged if isinstance(loss, (int, float))]
    return len(finite) < len(logged) or (len(finite) > 1 and finite[-1] > finite[0] * (1 + JUMPED))


def course_of(folder: Folder) -> Course | None:
    """The held-out loss over the training; None with fewer than two measurements of it, or of too few items."""
    if few_items(folder):
        return None
    points = [line for line in folder.metrics if isinstance(line.get("eval_loss"), (int, float))]
    if len(points) < 2:
        return None
    lowest = min(points, key=lambda line: line["eval_loss"])
    last, before = points[-1], points[-2]
    return Course(
        lowest=lowest["eval_loss"],
        lowest_step=lowest["step"],
        lowest_epoch=lowest.get("epoch"),
        epochs=last.get("epoch"),
        rose=last["eval_loss"] > lowest["eval_loss"] * (1 + TURNED),
        falls=last is lowest and last["eval_loss"] < before["eval_loss"] * (1 - TURNED),
    )


def suited_rate(folder: Folder) -> Suited | None:
    """The learning rate that suits the run's base and method; None where nothing is known of them."""
    config = folder.config
    return suited(config.model, config.method, config.train) if config else None


def too_slow(folder: Folder) -> Suited | None:
    """What would have suited a run that was trained at a rate far below it; None of other runs."""
    suits, course = suited_rate(folder), course_of(folder)
    went_wrong = loss_rose(folder) or (course is not None and course.rose)
    return None if folder.tuned is None or suits is None or suits.off != "low" or went_wrong else suits


def _hardly_moved(folder: Folder) -> bool:
    change = folder.comparison.metrics.get("loss") if folder.comparison else None
    return change is not None and abs(change.b.value - change.a.value) < MOVED * abs(change.a.value)


def _training(folder: Folder) -> list[str]:
    """How the held-out loss went, and where the learning rate explains it."""
    if folder.tuned is None:
        return []
    course = course_of(folder)
    if loss_rose(folder):
        suits = suited_rate(folder)
        why = f" The {_rate(folder, 'high', suits)}." if suits and suits.off == "high" else ""
        return [f"The loss went up instead of down.{why}"] if course or why else []
    if suits := too_slow(folder):
        the = "The loss hardly moved: the" if _hardly_moved(folder) else "The"
        return [f"{the} {_rate(folder, 'low', suits)}. A higher one learns more in the same steps."]
    if course is None:
        return []
    if course.rose:
        place = f"step {course.lowest_step:,}" + _epoch(course.lowest_epoch, course.epochs)
        return [f"The held-out loss was lowest at {place} and rose after that: the model began to overfit its rows."]
    if course.falls:
        return ["The held-out loss was still falling at the last measurement: a longer training may give more."]
    if _hardly_moved(folder):
        return ["The held-out loss hardly moved: whether the training was long enough cannot be told from it."]
    return ["The held-out loss had stopped falling at the end, and did not rise: the training was about long enough."]


def _few_rows(folder: Folder) -> list[str]:
    few = few_trained_on(folder.log)
    return [f"{few[0].upper()}{few[1:]}."] if few else []


def _rate(folder: Folder, what: str, suits: Suited) -> str:
    """'learning rate, 1e-06, was far too low: hone-base takes about 0.001 with method: full'."""
    return f"learning rate, {folder.settings.train.learning_rate:g}, was far too {what}: {suits.said}"


def _epoch(lowest: float | None, last: float | None) -> str:
    return "" if lowest is None or last is None else f" (epoch {lowest:.3g} of {last:.3g})"


def _leak(folder: Folder) -> list[str]:
    found, dropped = folder.contamination, folder.config is not None and folder.config.data.overlap == "drop"
    if found is None or dropped or not found.n_contaminated:
        return []
    held = f"Of the {plural(found.n_items, f'held-out {found.item}')}, {leaked(found)}"
    return [f"{held}: the numbers on this page are better than they would be on new ones."]
