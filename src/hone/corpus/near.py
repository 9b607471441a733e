"""Documents that nearly match an earlier one: datatrove's MinHash (Broder 1997), cut into words by hone.

    signatures   of each document: `near_buckets` groups of `near_hashes_per_bucket` hashes, in datatrove's files
    buckets      pairs of documents that agree in a whole group: datatrove's merge of the sorted signatures
    clusters     of documents that such pairs connect; the first of each stays

Two documents that share a part s of their word runs are found with probability 1 - (1 - s^hashes)^buckets: with 14
groups of 8, 0.05 at s = 0.5, 0.56 at 0.7, 0.92 at 0.8, 0.999 at 0.9 (`chance_to_be_found`). Datatrove's own first step
is replaced: it hashes word runs one at a time in Python, and asks for spaCy.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.io import DataFolder, get_datafolder
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from hone.corpus.copies import copies_of, sorted_pairs
from hone.corpus.documents import texts_of
from hone.corpus.schema import NearSection
from hone.corpus.work import About, Work
from hone.data.ngrams import PRIME, StableCodes, plain_tokens, splitmix64

NUMBERS, NEAR = "numbers.npy", "near.npy"
HASHED_AT_ONCE = 512  # word runs: with 112 hashes 0.5 MB, which a processor keeps near; 2,048 take three times as long
SHIFT = np.uint64(4)  # datatrove's hashes are below 2^61
DOCUMENTS_PER_TASK = 20_000_000  # of one bucket: about two minutes
BYTES_PER_DOCUMENT = 2000  # taken for the number of documents before they are read


def chance_to_be_found(share: float, rules: NearSection) -> float:
    """Of two documents that share this part of their word runs.

    >>> [round(chance_to_be_found(s, NearSection()), 3) for s in (0.5, 0.7, 0.8, 0.9)]
    [0.053, 0.565, 0.924, 0.999]
    """
    return 1 - (1 - share**rules.near_hashes_per_bucket) ** rules.near_buckets


def minhash_config(rules: NearSection) -> MinhashConfig:
    return MinhashConfig(
        n_grams=rules.near_ngram,
        num_buckets=rules.near_buckets,
        hashes_per_bucket=rules.near_hashes_per_bucket,
        hash_config=HashConfig(precision=64, hash_fc="sha1"),  # not used for hashing; xxhash would have to be < 4
    )


class _Words(WordTokenizer):
    """Hone's words in the place of spaCy's."""

    def __init__(self) -> None: ...

    def word_tokenize(self, text: str) -> list[str]:
        return plain_tokens(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


class Signatures(MinhashDedupSignature):
    """Datatrove's first step with word runs hashed all at once."""

    def __init__(self, folder: Path, rules: NearSection) -> None:
        super().__init__(str(folder), minhash_config(rules), _Words())
        self._codes = StableCodes()
        seeds = splitmix64(np.arange(2 * self.num_hashes, dtype=np.uint64))
        self._factors, self._shifts = seeds[: self.num_hashes, None] | np.uint64(1), seeds[self.num_hashes :, None]

    def get_shingles(self, text: str) -> np.ndarray:
        """Hashes (n,) uint64 of the different word runs; a text shorter than one run is a run itself."""
        words = plain_tokens(text)
        codes = np.fromiter(map(self._codes.__getitem__, words), np.int64, len(words)).view(np.uint64)
        runs = max(1, len(codes) - self.config.n_grams + 1)
        hashes = np.zeros(runs if len(codes) else 0, np.uint64)
        for j in range(min(self.config.n_grams, len(codes))):
            hashes = hashes * np.uint64(PRIME) + codes[j : j + runs]
        found = np.sort(splitmix64(hashes))  # np.unique takes three times as long
        return found[np.diff(found, prepend=~found[:1]) != 0]

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        """The least of each of the hashes, in groups."""
        least = np.full(self.num_hashes, np.iinfo(np.uint64).max, np.uint64)
        for at in range(0, len(shingles), HASHED_AT_ONCE):
            block = shingles[None, at : at + HASHED_AT_ONCE] * self._factors + self._shifts
            least = np.minimum(least, block.min(axis=1))
        groups: list[list[int]] = (least >> SHIFT).reshape(self.config.num_buckets, -1).tolist()
        return groups


def write_signatures(work: Work, rank: int, out: Path, *, n_copy_tasks: int) -> About:
    """The signatures of a task's documents, copies left out; and the numbers (n,) of these documents in the task."""
    numbers: list[int] = []

    def documents() -> Iterator[Document]:
        for batch in texts_of(work, rank, copies_of(work, rank, n_copy_tasks)):
            numbers.extend(batch.numbers)
            for text in batch.texts:
                yield Document(text=text, id="")

    Signatures(out, work.settings.near).run(documents(), rank, work.n_tasks)
    np.save(out / NUMBERS, np.array(numbers, np.uint32))
    return About(n_documents=len(numbers))


def n_bucket_tasks(rules: NearSection, n_bytes: int) -> int:
    """Tasks of the merge: a multiple of the buckets."""
    return rules.near_buckets * (1 + n_bytes // (BYTES_PER_DOCUMENT * DOCUMENTS_PER_TASK))


class _Results(DataFolder):
    """The signatures of all tasks as one folder, as datatrove expects them."""

    n_tasks = 0

    def list_files(self, subdirectory: str = "", *_: object, **__: object) -> list[str]:
        """The largest first: datatrove cuts the hashes into ranges by the first one."""
        names = [f"{rank:05d}/{subdirectory}/{rank:05d}.minhash.sig" for rank in range(self.n_tasks)]
        return sorted(names, key=lambda name: -int(self.size(name)))


def write_buckets(work: Work, rank: int, out: Path, *, n_tasks: int) -> About:
    """Pairs of documents with an equal group of hashes, in datatrove's file."""
    folder = _Results(str(work.folder / "signatures"))
    folder.n_tasks = work.n_tasks
    step = MinhashDedupBuckets(folder, get_datafolder(str(out)), config=minhash_config(work.settings.near))
    step.run(None, rank, n_tasks)
    return About()


def write_clusters(work: Work, rank: int, out: Path, *, n_bucket_tasks: int) -> About:
    """near.npy, (m, 4) uint32: task and number of each document that is dropped, and of the one that stays for it."""
    from scipy.sparse import coo_array  # here: 26 MB that only this task needs
    from scipy.sparse.csgraph import connected_components

    pairs = [
        np.fromfile(path, "<u4").reshape(-1, 4)
        for task in range(n_bucket_tasks)
        for path in sorted(work.result("buckets", task).glob("*.dups"))
    ]
    found = np.unique(np.concatenate(pairs), axis=0)
    ends = np.concatenate([found[:, :2], found[:, 2:]])
    nodes, places = np.unique(ends, axis=0, return_inverse=True)  # in the order of the documents
    a, b = places.reshape(2, -1)
    n = len(nodes)
    _, labels = connected_components(coo_array((np.ones(len(a), bool), (a, b)), shape=(n, n)), directed=False)
    _, first = np.unique(labels, return_index=True)  # the first document of each cluster
    dropped = np.flatnonzero(first[labels] != np.arange(n))
    numbered = _renumbered(work, nodes)
    near = np.concatenate([numbered[dropped], numbered[first[labels[dropped]]]], axis=1)
    np.save(out / NEAR, near.astype(np.uint32))
    return About(n_documents=len(dropped))


def _renumbered(work: Work, nodes: np.ndarray) -> np.ndarray:
    """(n, 2) task and number among the signatures -> task and number among the documents."""
    nodes = nodes.astype(np.int64).reshape(-1, 2)
    for rank in np.unique(nodes[:, 0]).tolist():
        numbers = np.load(work.result("signatures", rank) / NUMBERS, allow_pickle=False)
        of = nodes[:, 0] == rank
        nodes[of, 1] = numbers[nodes[of, 1]]
    return nodes


def near_of(work: Work, rank: int) -> np.ndarray:
    """(m, 3) int64 of a task's documents that are dropped: number, and task and number of the one that stays."""
    found = np.load(work.result("clusters", 0) / NEAR, allow_pickle=False)
    return sorted_pairs(found[found[:, 0] == rank])[:, 1:].astype(np.int64)
