"""Examples to batches: which examples meet in a micro-batch, and how they are laid out.

    flat      examples end to end in one row, no padding; position ids restart, so attention stays within an example
    packed    whole examples packed into rows of at most max_length; the same isolation
    padded    one example a row, padded on the right to the longest; the mask marks padding by position, never by id
    windows   rows of equal length: `padded` with nothing to pad

transformers builds the block-diagonal mask from restarting position ids (`transformers.masking_utils`) when no
attention mask is given; `accelerations/equivalence.py` checks on the first batch that a model really heeds it.

The rows of step s are a pure function of (seed, epoch, s), whatever the number of processes: a resumed run needs no
stored position, and goes on with more or fewer of them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from hone.data.dataset import Dataset
from hone.data.truncate import IGNORE_INDEX, Item


class EpochBatches:
    """Batch sampler: a fresh permutation each epoch, from the seed and the epoch alone.

    The permutation is cut into micro-batches of `batch_size` rows, and these into steps of `slots`; the last of each
    may have fewer. What is in a step depends on nothing else. Its micro-batches are dealt among `world` processes in
    turn; where that does not come out even, the last ones get an empty list, so that all take as many.
    """

    def __init__(
        self, n_items: int, batch_size: int, seed: int, *, slots: int = 1, rank: int = 0, world: int = 1
    ) -> None:
        self.n_items, self.batch_size, self.seed = n_items, batch_size, seed
        self.slots, self.rank, self.world = slots, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def rounds(self) -> int:
        """Micro-batches that each process takes in a full step."""
        return -(-self.slots // self.world)

    @property
    def micro_batches(self) -> int:
        """Those of an epoch, of all processes."""
        return -(-self.n_items // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.n_items // (self.batch_size * self.slots))

    def __len__(self) -> int:
        full, rest = divmod(self.micro_batches, self.slots)
        return full * self.rounds + -(-rest // self.world)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for step in range(self.steps):
            batches = self._cut(order, step)
            for first in range(0, len(batches), self.world):
                yield batches[first + self.rank] if first + self.rank < len(batches) else []

    def of_step(self, step: int) -> list[list[int]]:
        """The micro-batches of a step of this epoch, those of all processes."""
        return self._cut(self._order(), step)

    def _order(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.n_items)

    def _cut(self, order: np.ndarray, step: int) -> list[list[int]]:
        size = self.batch_size
        rows = order[step * self.slots * size : (step + 1) * self.slots * size]
        return [rows[at : at + size].tolist() for at in range(0, len(rows), size)]


def filled(n: int) -> int:
    """A number of rows of a product, filled up by at most 1/32 or to a multiple of 32: 32 sizes between n and 2 n.

    Libraries prepare themselves for every new shape of a product, with time and megabytes; so there are few.

    >>> filled(1), filled(2049), filled(9000)
    (32, 2112, 9216)
    """
    step = max(32, 1 << max(n.bit_length() - 6, 0))
    return -(-n // step) * step


def flat(items: Sequence[Item], size: Callable[[int], int] = int) -> dict[str, torch.Tensor | int]:
    """Examples end to end: input_ids, labels, position_ids (1, sum T). Each example's first label is -100 already.

    size: tokens of all -> those of the row (`filled`), reached by an example of token 0 without a label at its end.
    """
    lengths = [len(item["input_ids"]) for item in items]
    rest = size(sum(lengths)) - sum(lengths)
    positions = np.concatenate([np.arange(n) for n in (*lengths, rest)])
    ids = np.concatenate([item["input_ids"] for item in items])
    labels = np.concatenate([item["labels"] for item in items])
    return {
        "input_ids": torch.from_numpy(np.pad(ids, (0, rest)))[None],
        "labels": torch.from_numpy(np.pad(labels, (0, rest), constant_values=IGNORE_INDEX))[None],
        "position_ids": torch.from_numpy(positions)[None],
        "num_tokens": sum(lengths),
    }


def padded(items: Sequence[Item], pad_token_id: int) -> dict[str, torch.Tensor | int]:
    """One example a row, padded on the right: input_ids, labels (B, T); attention_mask where something is padded."""
    lengths = [len(item["input_ids"]) for item in items]
    rows = np.full((len(items), max(lengths)), pad_token_id, dtype=np.int64)
    labels = np.full_like(rows, IGNORE_INDEX)
    for row, item in enumerate(items):
        rows[row, : lengths[row]] = item["input_ids"]
        labels[row, : lengths[row]] = item["labels"]
    batch: dict[str, torch.Tensor | int] = {
        "input_ids": torch.from_numpy(rows),
        "labels": torch.from_numpy(labels),
        "num_tokens": sum(lengths),
    }
    if min(lengths) < max(lengths):
        mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
        batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    return batch


def cut(batch: dict[str, torch.Tensor], max_tokens: int) -> list[dict[str, torch.Tensor]]:
    """A batch in pieces of at most so many tokens, padding included, cut between examples; each has one at least.

    A flat row (1, T) is cut where positions restart, any other batch (B, T) between rows.
    """
    ids, positions = batch["input_ids"], batch.get("position_ids")
    if ids.numel() <= max_tokens:
        return [batch]
    if len(ids) == 1 and positions is not None:
        axis, borders = 1, [*(positions[0] == 0).nonzero().flatten().tolist(), ids.shape[1]]
        ends = [b for a, b in zip([0, *borders], borders) if b > a]  # of the examples
        kept = max_tokens
    else:
        axis, ends, kept = 0, list(range(1, len(ids) + 1)), max(1, max_tokens // ids.shape[1])
    sizes, begin = [], 0
    for end, following in zip(ends, [*ends[1:], None]):
        if following is None or following - begin > kept:
            sizes.append(end - begin)
            begin = end
    pieces = {name: tensor.split(sizes, dim=axis) for name, tensor in batch.items()}
    return [{name: parts[i] for name, parts in pieces.items()} for i in range(len(sizes))]


def by_length(lengths: np.ndarray, tokens_per_batch: int) -> list[np.ndarray]:
    """Indices of examples of like length, longest first, at most `tokens_per_batch` padded tokens together."""
    order = np.argsort(-lengths, kind="stable")
    batches, at = [], 0
    while at < len(order):
        n = max(1, tokens_per_batch // int(lengths[order[at]]))
        batches.append(order[at : at + n])
        at += n
    return batches


def padded_texts(rows: Sequence[np.ndarray], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Ids (T,) each, one a row, padded on the right: input_ids and attention_mask (B, T), the mask by position."""
    lengths = np.array([len(row) for row in rows])
    ids = np.full((len(rows), lengths.max()), pad_token_id, dtype=np.int64)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)] = row
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


class PackedDataset:
    """Whole examples packed into rows of at most `max_length` tokens; `packed[i]` is the list of examples of row i.

    lengths: (rows,) tokens of each.

    Best-fit decreasing: the longest example first, each into the fullest row that still holds it.
    """

    def __init__(self, dataset: Dataset, max_length: int) -> None:
        self.dataset, self.max_length = dataset, max_length
        self.rows = pack(dataset.lengths, max_length)
        self.lengths = np.array([int(dataset.lengths[row].sum()) for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Item]:
        return [self.dataset[i] for i in self.rows[index]]


def pack(lengths: np.ndarray, max_length: int) -> list[list[int]]:
    """Best-fit decreasing bin packing.

    >>> pack(np.array([6, 4, 5, 3, 2]), 10)
    [[0, 1], [2, 3, 4]]
    """
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(max_length + 1)]  # rows by the room they have left
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[example])
        room = next((r for r in range(length, max_length + 1) if by_room[r]), None)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, max_length
        else:
            row = by_room[room].pop()
        rows[row].append(example)
        by_room[room - length].append(row)
    return rows


def packed(rows: Sequence[Sequence[Item]], max_length: int, pad_token_id: int) -> dict[str, torch.Tensor | int]:
    """Packed rows: input_ids, labels, position_ids (B, max_length).

    The tail of a row is filled with padding as an example of its own, which sees no other and is never supervised.
    """
    shape = (len(rows), max_length)
    ids, labels = np.full(shape, pad_token_id, dtype=np.int64), np.full(shape, IGNORE_INDEX, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    num_tokens = 0
    for row, items in enumerate(rows):
        at = 0
        for item in items:
            n = len(item["input_ids"])
            ids[row, at : at + n], labels[row, at : at + n] = item["input_ids"], item["labels"]
            positions[row, at : at + n] = np.arange(n)
            at += n
        positions[row, at:] = np.arange(max_length - at)
        num_tokens += at
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(positions),
        "num_tokens": num_tokens,
    }
