"""The section of free samples: a few held-out prompts, continued by base and tuned."""

from hone.report.blocks import Block, Mark, Pieces, Sample, Samples, Section, Table, Text
from hone.report.code_section import first_answers, mark_of
from hone.report.folder import Folder
from hone.report.text import differences, shortened
from hone.results import SideBySide, side_by_side
from hone.show import plural

OPEN_SAMPLES = 3  # the others are folded away
SHOWN_SAMPLES = 24
NOT_GRADED = Mark("not graded")


def samples(folder: Folder) -> Section | None:
    """Texts of base and tuned side by side, what differs marked; of a classifier, rows and their classes."""
    found = side_by_side(folder.base, folder.tuned)
    if not found:
        return None
    if any(one.classes for one in folder.measured.values()):
        rows = [
            [shortened(one.prompt)[:300], *(text or "–" for text in (one.reference, one.base, one.tuned))]
            for one in found[:SHOWN_SAMPLES]
        ]
        return Section("Samples", [Table(["text", "true", "base", "tuned"], rows, "llll")])
    shown = [_sample(folder, one) for one in found[:SHOWN_SAMPLES]]
    how = f"{plural(len(found), 'held-out prompt')}, continued greedily; eval/samples.jsonl has all of them. "
    how += "Marked: what the other text lacks; not marked where the two have little in common."
    blocks: list[Block] = [Text(how), Samples(shown[:OPEN_SAMPLES])]
    if more := shown[OPEN_SAMPLES:]:
        blocks.append(Samples(more, f"{len(more)} more", folded=True))
    return Section("Samples", blocks)


def _sample(folder: Folder, found: SideBySide) -> Sample:
    texts = {name: shortened(text) for name, text in (("base", found.base), ("tuned", found.tuned)) if text is not None}
    answers: dict[str, Pieces] = {name: [(text, False)] for name, text in texts.items()}
    if len(texts) == 2:
        answers["base"], answers["tuned"] = differences(texts["base"], texts["tuned"])
    reference = None if found.reference is None else shortened(found.reference)
    marks = sample_marks(folder, found) if folder.code else {}
    return Sample(f"Item {found.item}", shortened(found.prompt), reference, answers, marks)


def sample_marks(folder: Folder, found: SideBySide) -> dict[str, Mark]:
    """What the unit tests say of a free sample: known where it begins the graded program of the same prompt."""
    same = [task.task_id for task in folder.tasks.values() if task.prompt.strip() and task.prompt in found.prompt]
    marks = {}
    for name, text in (("base", found.base), ("tuned", found.tuned)):
        if text is None:
            continue
        graded = first_answers([one for one in folder.answers.get(name, []) if one.task_id in same])
        known = [one for one in graded.values() if text.strip() and one.text.startswith(text.rstrip())]
        marks[name] = mark_of(known[0]) if len(known) == 1 else NOT_GRADED
    return marks
