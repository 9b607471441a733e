"""A 5-gram model over tokens, interpolated Kneser-Ney: the baseline that knows phrases and nothing else.

Grams are numbered order by order, so a gram is (number of the gram before it, last token) and any order fits one
integer. Counts are numpy arrays; 40 million tokens take some 2 GB and a minute or two. The probabilities of the whole
vocabulary after any history sum to one (a test holds it).

>>> model = fit([np.array([1, 2, 3, 1, 2])], vocab_size=4)
>>> bool(log_probs(model, np.array([1, 2]))[1] > np.log(0.5))
True
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDER = 5


@dataclass(frozen=True)
class Grams:
    """All grams of one order k, sorted by key = number of its first k-1 tokens among those grams * vocabulary + last.

    shares: (n,) float64, what a gram's own count gives its last token after its history.
    left: (histories,) float64, what a history leaves to the shorter one; 1 for one that nothing follows.
    """

    keys: np.ndarray
    shares: np.ndarray
    left: np.ndarray


@dataclass(frozen=True)
class NGrams:
    vocab_size: int
    orders: tuple[Grams, ...]


def fit(documents: Sequence[np.ndarray], *, vocab_size: int, order: int = ORDER) -> NGrams:
    """Count documents (T,) of ids; no gram reaches over a border.

    Kneser & Ney 1995 with interpolation (Chen & Goodman 1999): the longest grams count how often they occur, shorter
    ones after how many different tokens they do; each count loses a discount, n1 / (n1 + 2 n2) of its order.
    """
    tokens = np.concatenate(documents).astype(np.int64)
    lengths = np.array([len(document) for document in documents])
    place = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # in its document
    keys: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    numbers = np.zeros(len(tokens), np.int64)  # of the gram that ends here; a document's first tokens end no long one
    for k in range(1, order + 1):
        at = np.flatnonzero(place >= k - 1)
        before = numbers[at - 1] if k > 1 else np.zeros(len(at), np.int64)
        found, first, inverse, count = np.unique(
            before * vocab_size + tokens[at], return_index=True, return_inverse=True, return_counts=True
        )
        if k > 1:  # grams that are one token shorter have been seen after as many different tokens as there are these
            counts[-1] = np.bincount(numbers[at[first]], minlength=len(keys[-1]))
        keys.append(found)
        counts.append(count)
        numbers = np.full(len(tokens), -1, np.int64)
        numbers[at] = inverse
    histories = [1, *map(len, keys)]
    return NGrams(vocab_size, tuple(_discounted(*item, vocab_size) for item in zip(keys, counts, histories)))


def _discounted(keys: np.ndarray, counts: np.ndarray, histories: int, vocab_size: int) -> Grams:
    history = keys // vocab_size
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once and twice else 0.5
    total = np.bincount(history, weights=counts, minlength=histories)
    kinds = np.bincount(history[counts > 0], minlength=histories)
    shares = np.maximum(counts - discount, 0.0) / np.maximum(total[history], 1.0)
    left = np.where(total > 0, discount * kinds / np.maximum(total, 1.0), 1.0)
    return Grams(keys, shares, left)


def log_probs(model: NGrams, ids: np.ndarray) -> np.ndarray:
    """(T,) float64: ln p of each token of a document after those before it; the first one's has no history."""
    ids = ids.astype(np.int64)
    p = np.full(len(ids), 1.0 / model.vocab_size)
    history = np.zeros(len(ids), np.int64)  # number of the gram before each token, -1 where it was never seen
    for grams in model.orders:
        known = np.flatnonzero(history >= 0)
        key = history[known] * model.vocab_size + ids[known]
        at = np.minimum(np.searchsorted(grams.keys, key), len(grams.keys) - 1)
        seen = grams.keys[at] == key
        p[known] = np.where(seen, grams.shares[at], 0.0) + grams.left[history[known]] * p[known]
        number = np.full(len(ids), -1, np.int64)
        number[known[seen]] = at[seen]
        history = np.concatenate([[-1], number[:-1]])
    return np.log(p)
