"""What to do after this very run, with the exact commands: two to five lines, the most useful first."""

import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from hone.config.rates import lower_rate
from hone.data.shards import is_corpus
from hone.report.blocks import Point, Points, Section
from hone.report.folder import Folder
from hone.report.paths import typed
from hone.report.run_sections import few_trained_on, n_trained_on
from hone.report.takeaways import course_of, few_items, loss_rose, too_slow
from hone.report.verdict import passing
from hone.results import side_by_side
from hone.results.contamination import leaked
from hone.runs import RESOLVED, living_status
from hone.show import plural, too_few

FEW = 100  # held-out items: fewer rarely show a small change
GOOD = 50  # of them, for a beginning
MOST_HELD_OUT = 50  # per cent
SUFFIXES = ["more-held-out", "measured", "shorter", "lower-rate", "higher-rate", "clean", "longer", "seeds", "merged"]
SHORT = 80  # characters of a prompt in a command
MOST = 5
LOSS_ROSE = "The loss went up"


def next_steps(folder: Folder) -> Section | None:
    """The steps that fit this run; none where its settings cannot be read."""
    points = steps_after(folder)
    return Section("Next steps", [Points(points)]) if points else None


def steps_after(folder: Folder) -> list[Point]:
    """The same, for the terminal."""
    if folder.config is None or (folder.tuned is None and folder.repeat is not None):
        return []
    if living_status(folder.status) != "finished" and folder.tuned is None:
        return _unfinished(folder)
    verdict = _verdict(folder)
    usable = verdict == "better" and too_slow(folder) is None
    found = [first] if usable and (first := use(folder)) else []
    rules: list[Callable[[Folder, str | None], list[Point]]] = [
        *(_loss_rose, _too_slow, _too_few_items, _without_base, _overfit, _worse),
        *(_leak, _failing, _merge, _more, _repeat),
    ]
    for rule in rules:
        found += rule(folder, verdict)
    if not usable and (last := use(folder)):
        found.append(last)
    return found[:MOST]


def again(folder: Folder, settings: str, name: str) -> str:
    """The command that trains the same with other settings, in a folder beside this one."""
    return " ".join(filter(None, [
        f"hone train {typed(folder.path / RESOLVED)}", settings, f"output_dir={typed(beside(folder, name))}"
    ]))  # fmt: skip


def beside(folder: Folder, suffix: str) -> Path:
    """A new folder next to this one; the suffix of an earlier step gives way, so that names do not grow."""
    name = re.sub(rf"(-({'|'.join(SUFFIXES)})(-\d+)?)+$", "", folder.path.name)
    found, number = folder.path.with_name(f"{name}-{suffix}"), 2
    while found.exists():
        found, number = folder.path.with_name(f"{name}-{suffix}-{number}"), number + 1
    return found


def _verdict(folder: Folder) -> str | None:
    found = folder.code_comparison or folder.comparison
    return found.verdict if found else None


def _unfinished(folder: Folder) -> list[Point]:
    if folder.status.get("status") == "failed":
        if "diverged" in str(folder.status.get("error")):
            return [_lower(folder, LOSS_ROSE, 10)]
        return [Point("Read what went wrong in train.log; `hone check` finds mistakes in the settings.",
                      f"hone check {typed(folder.path / RESOLVED)}")]  # fmt: skip
    return [Point("Go on from the last checkpoint.", f"hone train {typed(folder.path / RESOLVED)}")]


def use(folder: Folder) -> Point | None:
    """The command that uses such a model, as its task says; a chat where the model was trained on instructions."""
    run, command = typed(folder.path), str(folder.status.get("try_it") or "")
    if command.startswith("hone generate") and folder.template in ("instruction", "chat"):
        return Point("Talk to it.", f"hone chat {run}")
    if "'…'" in command:
        prompt = _prompt(folder)
        if prompt is None and folder.template is not None:  # a model that writes on
            return Point("Try it on texts of your own.", f"hone chat {run}")
        command = command.replace("'…'", shlex.quote(prompt or "a text of your own"))
    return Point("Try it on a text of your own.", command.replace("{run}", run)) if command else None


def _prompt(folder: Folder) -> str | None:
    """The beginning of a held-out text, as it can be typed."""
    lines = [line for one in side_by_side(folder.base, folder.tuned) for line in one.prompt.strip().splitlines()[:1]]
    return next((line for line in lines if line.isprintable() and 0 < len(line) <= SHORT), None)


def _loss_rose(folder: Folder, verdict: str | None) -> list[Point]:
    return [_lower(folder, LOSS_ROSE, 10)] if folder.tuned is not None and loss_rose(folder) else []


def _lower(folder: Folder, why: str, part: int) -> Point:
    config = folder.settings
    rate, words = lower_rate(config.model, config.method, config.train, part)
    command = again(folder, f"learning_rate={rate:.3g}", "lower-rate")
    return Point(f"{why}: begin again with {words}.", command)


def _too_slow(folder: Folder, verdict: str | None) -> list[Point]:
    suits = too_slow(folder)
    if suits is None:
        return []
    command = again(folder, f"learning_rate={suits.start:.3g}", "higher-rate")
    return [Point(f"The learning rate was far too low: {suits.said}.", command)]


def _too_few_items(folder: Folder, verdict: str | None) -> list[Point]:
    """More held-out rows, where there are none, or too few to show what was there."""
    n, few = folder.tuned.n_items if folder.tuned else 0, few_items(folder)
    if n >= FEW or (n and verdict == "better" and not few):
        return []
    item, least = folder.tuned.item if folder.tuned else "row", least_items(folder)
    what = f"{plural(n, f'held-out {item}')} can show large changes only" if n else "Nothing was held out"
    none = f"with {n:,} no change can be shown" if n else "nothing was held out"
    files = folder.settings.data.validation_file
    if files is not None:
        name = (files[0] if isinstance(files, list) else files).name
        if few or not n:
            rows = f"Put at least {least}, better {GOOD}, rows into {name}: {none}."
            return [Point(rows, again(folder, "", "more-held-out"))]
        return [Point(f"{what}: put more rows into {name}, {FEW} or more, and train again.")]
    if isinstance(train := folder.settings.data.train_file, Path) and is_corpus(train):
        return [Point(f"{what}: make the corpus anew with a larger validation_percentage, and train again.")]
    share, total = folder.settings.data.validation_split_percentage, _rows(folder, n)
    needed = math.ceil(100 * least / total) if total else 0
    more = max(needed, min(MOST_HELD_OUT, max(20, 2 * math.ceil(share))))
    if more > MOST_HELD_OUT:
        return [Point(f"Add rows: of {plural(total, 'row')} not enough can be held out; {none}.")]
    if more <= share:
        return [Point(f"Add rows: {none if few else what}.")]
    command = again(folder, f"validation_split_percentage={more}", "more-held-out")
    return [Point(f"{what}: hold out more of your rows.", command)]


def least_items(folder: Folder) -> int:
    """The fewest held-out items that can show a change at all."""
    confidence = folder.settings.eval.confidence_level
    return next(n for n in range(1, FEW) if not too_few(n, confidence))


def _rows(folder: Folder, n: int) -> int:
    """About how many rows there are, training and held out together; 0 where nothing tells."""
    trained = n_trained_on(folder.log)
    counted = 0 if trained is None else trained + n
    share = folder.settings.data.validation_split_percentage
    if not (n and share):
        return counted
    fits = counted and max(1, round(counted * share / 100)) == n
    return counted if fits else round(100 * n / share)  # examples can be pieces of rows


def _without_base(folder: Folder, verdict: str | None) -> list[Point]:
    if folder.base is not None or folder.tuned is None:
        return []
    return [
        Point("Measure the base too: without it nothing can be compared.", again(folder, "eval_base=true", "measured"))
    ]


def _overfit(folder: Folder, verdict: str | None) -> list[Point]:
    course = course_of(folder)
    if course is None or not course.rose or loss_rose(folder):
        return []
    epochs = max(1, round(course.lowest_epoch or 1))
    return [
        Point(
            f"It overfits: the held-out loss was lowest at step {course.lowest_step:,}. Train for fewer epochs.",
            again(folder, f"num_train_epochs={epochs}", "shorter"),
        )
    ]


def _worse(folder: Folder, verdict: str | None) -> list[Point]:
    if verdict != "worse" or loss_rose(folder):
        return []
    return [_lower(folder, "It got worse", 5)]


def _leak(folder: Folder, verdict: str | None) -> list[Point]:
    found = folder.contamination
    if found is None or not found.n_contaminated or folder.settings.data.overlap == "drop":
        return []
    what = f"Of the {plural(found.n_items, f'held-out {found.item}')}, {leaked(found)}: leave these rows out. "
    what += "The numbers will look worse, and be truer."
    return [Point(what, again(folder, "overlap=drop", "clean"))]


def _failing(folder: Folder, verdict: str | None) -> list[Point]:
    """Programs that fail: read them; ask for longer ones where many broke off."""
    code, counts = folder.code.get("tuned"), passing(folder)
    if code is None or counts is None or counts[1] == counts[2]:
        return []
    failing = counts[2] - counts[1]
    points = [
        Point(
            f"{plural(failing, 'task')} still {'fails' if failing == 1 else 'fail'}: read some of the programs, and "
            "add rows of the kinds that fail.",
            f"""grep '"passed": false' {typed(folder.path / "eval" / "tuned.code.jsonl")} | head""",
        )
    ]
    if code.n_at_limit > code.n_samples // 10 and folder.settings.eval.code_tasks:
        longer = f"max_new_tokens={2 * folder.settings.generate.max_new_tokens}"
        command = f"hone eval {typed(folder.path)} --code-tasks {typed(folder.settings.eval.code_tasks)} {longer}"
        points.append(Point(f"{code.n_at_limit:,} answers were cut off by max_new_tokens: allow longer ones.", command))
    return points


def _merge(folder: Folder, verdict: str | None) -> list[Point]:
    if folder.settings.method.method != "lora" or verdict != "better":
        return []
    merged = beside(folder, "merged")
    what = "Make adapter and base one model that loads without PEFT."
    return [Point(what, f"hone export {typed(folder.path)} --to merged -o {typed(merged)}")]


def _more(folder: Folder, verdict: str | None) -> list[Point]:
    """Longer, where the held-out loss still fell or nothing was to be seen."""
    course = course_of(folder)
    epochs = folder.settings.train.num_train_epochs
    if (
        (course is not None and course.rose)
        or too_slow(folder) is not None
        or verdict == "worse"
        or few_items(folder)
        or loss_rose(folder)
        or folder.tuned is None
        or folder.settings.train.max_steps > 0
    ):
        return []
    if few := few_trained_on(folder.log):
        return [Point(f"Add training rows: {few}.")]
    if course is not None and course.falls:
        what = "The held-out loss was still falling: train longer."
    elif verdict == "not distinguishable":
        what = "Train on more rows, or longer, for a larger change."
    else:
        return []
    return [Point(what, again(folder, f"num_train_epochs={2 * epochs:g}", "longer"))]


def _repeat(folder: Folder, verdict: str | None) -> list[Point]:
    if folder.base is None or folder.tuned is None or few_items(folder) or loss_rose(folder):
        return []
    what = "Is it more than the luck of one seed? Train with six."
    seeds = typed(beside(folder, "seeds"))
    return [Point(what, f"hone repeat {typed(folder.path / RESOLVED)} --seeds 6 output_dir={seeds}")]
