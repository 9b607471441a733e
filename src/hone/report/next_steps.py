"""What to do after this very run, with the exact commands: two to five lines, the most useful first."""

import math
from collections.abc import Callable

from hone.report.blocks import Point, Points, Section
from hone.report.folder import Folder
from hone.report.paths import typed
from hone.report.takeaways import course_of
from hone.report.verdict import passing
from hone.runs import RESOLVED, living_status
from hone.show import plural

FEW = 100  # held-out items: fewer rarely show a small change
MOST = 5


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
    found = [first] if verdict == "better" and (first := use(folder)) else []
    rules: list[Callable[[Folder, str | None], list[Point]]] = [
        *(_too_few_items, _without_base, _overfit, _worse, _leak, _failing, _merge, _more, _repeat),
    ]
    for rule in rules:
        found += rule(folder, verdict)
    if verdict != "better" and (last := use(folder)):
        found.append(last)
    return found[:MOST]


def again(folder: Folder, settings: str, name: str) -> str:
    """The command that trains the same with other settings, in a folder beside this one."""
    beside = folder.path.with_name(f"{folder.path.name}-{name}")
    return f"hone train {typed(folder.path / RESOLVED)} {settings} output_dir={typed(beside)}"


def _verdict(folder: Folder) -> str | None:
    found = folder.code_comparison or folder.comparison
    return found.verdict if found else None


def _unfinished(folder: Folder) -> list[Point]:
    if folder.status.get("status") == "failed":
        return [Point("Read what went wrong in train.log; `hone check` finds mistakes in the settings.",
                      f"hone check {typed(folder.path / RESOLVED)}")]  # fmt: skip
    return [Point("Go on from the last checkpoint.", f"hone train {typed(folder.path / RESOLVED)}")]


def use(folder: Folder) -> Point | None:
    """The command that uses such a model, as its task says; a chat where the model was trained on instructions."""
    run, command = typed(folder.path), str(folder.status.get("try_it") or "")
    if command.startswith("hone generate") and folder.template in ("instruction", "chat"):
        return Point("Talk to it.", f"hone chat {run}")
    return Point("Try it on a text of your own.", command.replace("{run}", run)) if command else None


def _too_few_items(folder: Folder, verdict: str | None) -> list[Point]:
    """More held-out rows, where there are none, or too few to show what was there."""
    n = folder.tuned.n_items if folder.tuned else 0
    if n >= FEW or (n and verdict == "better"):
        return []
    item = folder.tuned.item if folder.tuned else "row"
    what = f"{plural(n, f'held-out {item}')} can show large changes only" if n else "Nothing was held out"
    if folder.settings.data.validation_file is None:
        share = min(50, max(20, 2 * math.ceil(folder.settings.data.validation_split_percentage)))
        more = again(folder, f"validation_split_percentage={share}", "more-held-out")
        return [Point(f"{what}: hold out more of your rows.", more)]
    return [Point(f"{what}: put more rows into the validation file, {FEW} or more, and train again.")]


def _without_base(folder: Folder, verdict: str | None) -> list[Point]:
    if folder.base is not None or folder.tuned is None:
        return []
    return [
        Point("Measure the base too: without it nothing can be compared.", again(folder, "eval_base=true", "measured"))
    ]


def _overfit(folder: Folder, verdict: str | None) -> list[Point]:
    course = course_of(folder)
    if course is None or not course.rose:
        return []
    epochs = max(1, round(course.lowest_epoch or 1))
    return [
        Point(
            f"It overfits: the held-out loss was lowest at step {course.lowest_step:,}. Train for fewer epochs.",
            again(folder, f"num_train_epochs={epochs}", "shorter"),
        )
    ]


def _worse(folder: Folder, verdict: str | None) -> list[Point]:
    if verdict != "worse":
        return []
    lower = folder.settings.train.learning_rate / 5
    return [Point("It got worse: try a lower learning rate.", again(folder, f"learning_rate={lower:.3g}", "slower"))]


def _leak(folder: Folder, verdict: str | None) -> list[Point]:
    found = folder.contamination
    if found is None or not found.n_contaminated or folder.settings.data.overlap == "drop":
        return []
    what = f"{found.n_contaminated:,} held-out {found.item}s are in the training rows: leave these rows out."
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
    merged = folder.path.with_name(f"{folder.path.name}-merged")
    what = "Make adapter and base one model that loads without PEFT."
    return [Point(what, f"hone merge {typed(folder.path)} {typed(merged)}")]


def _more(folder: Folder, verdict: str | None) -> list[Point]:
    """Longer, where the held-out loss still fell or nothing was to be seen."""
    course = course_of(folder)
    epochs = folder.settings.train.num_train_epochs
    if (
        (course is not None and course.rose)
        or verdict == "worse"
        or folder.tuned is None
        or folder.settings.train.max_steps > 0
    ):
        return []
    if course is not None and course.falls:
        what = "The held-out loss was still falling: train longer."
    elif verdict == "not distinguishable":
        what = "Train on more rows, or longer, for a larger change."
    else:
        return []
    return [Point(what, again(folder, f"num_train_epochs={2 * epochs:g}", "longer"))]


def _repeat(folder: Folder, verdict: str | None) -> list[Point]:
    if folder.base is None or folder.tuned is None:
        return []
    what = "Is it more than the luck of one seed? Train with six."
    beside = typed(folder.path.with_name(f"{folder.path.name}-seeds"))
    return [Point(what, f"hone repeat {typed(folder.path / RESOLVED)} --seeds 6 output_dir={beside}")]
