"""Length rules and batches, by hand."""

import numpy as np
import pytest

from hone.data.batches import EpochBatches, flat, pack, packed, padded
from hone.data.store import Split
from hone.data.truncate import TokenDataset, view


def split_of(*documents: list[int], masked: list[int] | None = None) -> Split:
    """Documents, of each of which the first masked[d] tokens are masked."""
    starts = np.cumsum([0, *map(len, documents)])
    tokens = np.array([token for document in documents for token in document], dtype=np.uint16)
    if masked is None:
        return Split(tokens, None, starts)
    flags = np.concatenate([np.arange(len(d)) >= m for d, m in zip(documents, masked, strict=True)]).astype(np.uint8)
    return Split(tokens, flags, starts)


def ids(dataset: TokenDataset) -> list[list[int]]:
    return [dataset[i]["input_ids"].tolist() for i in range(len(dataset))]


def labels(dataset: TokenDataset) -> list[list[int]]:
    return [dataset[i]["labels"].tolist() for i in range(len(dataset))]


DOCUMENTS = ([1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12])


@pytest.mark.parametrize(
    ("rule", "expected", "left_out"),
    [
        (
            "truncate",
            [[1, 2, 3], [8, 9], [10, 11, 12]],
            {"tokens cut off beyond 3": 4, "documents longer than 3 tokens, truncated": 1},
        ),
        ("drop", [[8, 9], [10, 11, 12]], {"documents longer than 3 tokens, dropped": 1}),
        # the piece [7] has no token before it that could predict it: nothing to supervise
        (
            "split",
            [[1, 2, 3], [4, 5, 6], [8, 9], [10, 11, 12]],
            {"examples with nothing to supervise within 3 tokens": 1},
        ),
        ("windows", [[1, 2, 3], [4, 5, 6], [10, 11, 12]], {"tokens in remainders shorter than 3": 3}),
    ],
)
def test_length_rules(rule: str, expected: list[list[int]], left_out: dict[str, int]) -> None:
    dataset = view(split_of(*DOCUMENTS), 3, rule)  # type: ignore[arg-type]
    assert ids(dataset) == expected
    assert dataset.left_out == left_out


def test_labels_are_the_ids_but_for_masks_and_the_first_token() -> None:
    dataset = view(split_of([5, 6, 7, 8], [1, 2, 3], masked=[2, 0]), 10, "truncate")
    assert labels(dataset) == [[-100, -100, 7, 8], [-100, 2, 3]]
    assert dataset.n_supervised().tolist() == [2, 2]


def test_an_example_masked_up_to_max_length_is_left_out_and_counted() -> None:
    dataset = view(split_of([5, 6, 7, 8], [1, 2, 3, 4], masked=[3, 1]), 3, "truncate")
    assert ids(dataset) == [[1, 2, 3]]
    assert dataset.left_out["examples with nothing to supervise within 3 tokens"] == 1


def test_flat_restarts_positions() -> None:
    dataset = view(split_of([1, 2, 3], [4, 5]), 10, "truncate")
    batch = flat([dataset[0], dataset[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]]  # type: ignore[union-attr]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]  # type: ignore[union-attr]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, 5]]  # type: ignore[union-attr]
    assert batch["num_tokens"] == 5


def test_padded_masks_by_position_not_by_id() -> None:
    dataset = view(split_of([1, 2, 9], [4, 9]), 10, "truncate")
    batch = padded([dataset[0], dataset[1]], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 9], [4, 9, 9]]  # type: ignore[union-attr]
    assert batch["labels"].tolist() == [[-100, 2, 9], [-100, 9, -100]]  # type: ignore[union-attr]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]  # type: ignore[union-attr]
    assert batch["num_tokens"] == 5


def test_packed_rows() -> None:
    dataset = view(split_of([1, 2, 3], [4, 5], [6, 7]), 10, "truncate")
    batch = packed([[dataset[0], dataset[1]], [dataset[2]]], max_length=6, pad_token_id=0)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 0], [6, 7, 0, 0, 0, 0]]  # type: ignore[union-attr]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]]  # type: ignore[union-attr]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, 5, -100], [-100, 7, -100, -100, -100, -100]]  # type: ignore[union-attr]
    assert batch["num_tokens"] == 7


def test_pack_fills_rows_and_loses_nothing() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 500)
    rows = pack(lengths, 64)
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert max(int(lengths[row].sum()) for row in rows) <= 64
    assert lengths.sum() / (64 * len(rows)) > 0.97


def test_batches_are_a_pure_function_of_seed_epoch_and_index() -> None:
    def epoch(n: int, seed: int = 0) -> list[list[int]]:
        batches = EpochBatches(10, 4, seed)
        batches.set_epoch(n)
        return list(batches)

    assert epoch(3) == epoch(3)
    assert epoch(3) != epoch(4)
    assert epoch(3) != epoch(3, seed=1)
    assert sorted(i for batch in epoch(3) for i in batch) == list(range(10))
    assert [len(batch) for batch in epoch(3)] == [4, 4, 2]


def test_pieces_of_a_batch_are_cut_between_examples() -> None:
    """By hand: examples of 3, 4, 2 and 6 tokens, at most 7 at once: 3 + 4, 2, 6. A longer one stays whole."""
    from hone.data.batches import cut, flat, padded

    items = [{"input_ids": np.full(n, n), "labels": np.full(n, n)} for n in (3, 4, 2, 6)]
    batch = {name: value for name, value in flat(items).items() if name != "num_tokens"}
    assert [piece["input_ids"].tolist() for piece in cut(batch, 7)] == [[[3] * 3 + [4] * 4], [[2] * 2], [[6] * 6]]
    assert [piece["position_ids"].tolist() for piece in cut(batch, 8)] == [[[0, 1, 2, 0, 1, 2, 3]], [[0, 1, *range(6)]]]
    assert [piece["labels"].shape[1] for piece in cut(batch, 1)] == [3, 4, 2, 6]
    assert cut(batch, 15) == [batch]
    rows = {name: value for name, value in padded(items, 0).items() if name != "num_tokens"}
    assert [len(piece["input_ids"]) for piece in cut(rows, 12)] == [2, 2]
    assert [len(piece["attention_mask"]) for piece in cut(rows, 1)] == [1] * 4
