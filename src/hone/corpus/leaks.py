"""Documents that hold an evaluation item: hone's contamination (`data/contamination.py`), in tasks.

grams   of each task: which n-grams and whole items its documents hold
leaks   all of them together, because an n-gram that many documents hold is nobody's own
"""

from pathlib import Path

import numpy as np

from hone.config.fields import as_paths
from hone.corpus.copies import copies_of
from hone.corpus.documents import texts_of
from hone.corpus.schema import ContaminationSection
from hone.corpus.work import About, Work
from hone.data.contamination import FORMS, Search, matches_of, searches_of
from hone.data.inputs import file_sha256
from hone.data.ngrams import StableCodes
from hone.data.sources import expand
from hone.data.texts import texts

LEAKS, ITEMS = "leaks.npy", "items.npy"


def evaluation_hashes(section: ContaminationSection) -> list[str]:
    """The files of evaluation items by content."""
    paths = as_paths(section.evaluation_files)
    return [file_sha256(path) for path in expand(paths)] if paths else []


def _searches(section: ContaminationSection, codes: StableCodes) -> tuple[dict[str, Search], int]:
    """The evaluation items, indexed; and how many there are."""
    items = [text for text in texts(as_paths(section.evaluation_files)) if text.strip()]
    return searches_of(items, codes.__getitem__), len(items)


def write_grams(work: Work, rank: int, out: Path, *, n_copy_tasks: int) -> About:
    """What of the evaluation items a task's documents hold, as (m, 2) int64 arrays of keys and documents."""
    codes = StableCodes()
    searches, _ = _searches(work.settings.contamination, codes)
    for batch in texts_of(work, rank, copies_of(work, rank, n_copy_tasks)):
        rows, whole = np.array(batch.numbers, np.int64), np.ones(len(batch.texts), bool)
        for name, form in FORMS.items():
            if batch.texts:
                searches[name].look_at(form(batch.texts, codes.__getitem__), rows, whole)
    for name, search in searches.items():
        np.save(out / f"{name}.grams.npy", _stacked(search.gram_hits))
        np.save(out / f"{name}.whole.npy", _stacked(search.digest_hits))
    return About()


def _stacked(hits: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(m, 2) int64: keys and rows."""
    return np.concatenate([np.zeros((0, 2), np.int64), *(np.stack(pair, axis=1) for pair in hits)])


def write_leaks(work: Work, rank: int, out: Path) -> About:
    """leaks.npy, (m, 2) int64: task and number of each document that holds an item; items.npy, (m,): the worst item."""
    searches, n_items = _searches(work.settings.contamination, StableCodes())
    sizes = np.array([done.n_documents for done in work.documents])
    before = np.cumsum(sizes) - sizes  # documents are numbered through all tasks
    for task in range(work.n_tasks):
        for name, search in searches.items():
            grams, whole = (np.load(work.result("grams", task) / f"{name}.{what}.npy") for what in ("grams", "whole"))
            search.gram_hits.append((grams[:, 0], grams[:, 1] + before[task]))
            search.digest_hits.append((whole[:, 0], whole[:, 1] + before[task]))
    found = matches_of(searches, n_items, int(sizes.sum()))
    worst: dict[int, int] = {}
    for pair in found.pairs:  # the worst first
        worst.setdefault(pair.row, pair.item)
    rows = np.array(sorted(worst), np.int64)
    tasks = np.searchsorted(before, rows, side="right") - 1
    # a task without documents begins where the next one does
    np.save(out / LEAKS, np.stack([tasks, rows - before[tasks]], axis=1) if len(rows) else np.zeros((0, 2), np.int64))
    np.save(out / ITEMS, np.array([worst[row] for row in rows.tolist()], np.int64))
    return About(n_documents=len(rows))


def leaks_of(work: Work, rank: int) -> np.ndarray:
    """Numbers (m,) of a task's documents that hold an evaluation item."""
    found = np.load(work.result("leaks", 0) / LEAKS, allow_pickle=False)
    return np.sort(found[found[:, 0] == rank, 1])
