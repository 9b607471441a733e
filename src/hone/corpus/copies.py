"""Documents that repeat an earlier one word for word: found by the hashes of their texts, a range of hashes a task.

A result holds copies.npy, (m, 2) uint32: task and number of each document that is dropped; the first of equals stays.
"""

from pathlib import Path

import numpy as np

from hone.corpus.documents import digests_of
from hone.corpus.work import About, Work

COPIES = "copies.npy"
TASK_BYTES = 1 << 36  # of input for each task, about 20 million documents and 1 GB of memory


def n_copy_tasks(n_bytes: int) -> int:
    return 1 + n_bytes // TASK_BYTES


def write_copies(work: Work, rank: int, out: Path, *, n_tasks: int) -> About:
    """Find the copies among the documents whose hash lies in this task's range."""
    digests, owners = [], []
    for task in range(work.n_tasks):
        found = digests_of(work, task)
        # the upper 32 bits, scaled to the number of tasks
        here = np.flatnonzero((found[:, 0] >> np.uint64(32)) * np.uint64(n_tasks) >> np.uint64(32) == rank)
        digests.append(np.asarray(found[here]))
        owners.append(np.stack([np.full(len(here), task), here], axis=1).astype(np.uint32))
    all_digests, all_owners = np.concatenate(digests), np.concatenate(owners)
    order = np.lexsort((all_digests[:, 1], all_digests[:, 0]))  # stable: equals stay in the order of the documents
    ordered = all_digests[order]
    repeats = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1)) + 1
    np.save(out / COPIES, sorted_pairs(all_owners[order[repeats]]))
    return About(n_documents=len(repeats))


def copies_of(work: Work, rank: int, n_tasks: int) -> np.ndarray:
    """Numbers (m,) of a task's documents that repeat an earlier one; none where no task looked for them."""
    if not n_tasks:
        return np.zeros(0, np.int64)
    found = [np.load(work.result("copies", k) / COPIES, allow_pickle=False) for k in range(n_tasks)]
    return np.sort(np.concatenate([pairs[pairs[:, 0] == rank, 1] for pairs in found])).astype(np.int64)


def sorted_pairs(pairs: np.ndarray) -> np.ndarray:
    """(m, 2) task and number, in the order of the documents."""
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
