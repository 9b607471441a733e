"""The token store: what is written is read back, splits do not leak, interruptions leave nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hone
from hone.data.encode import Encoded
from hone.data.split import Dropped, SplitRule, choose_validation, split_bin
from hone.data.store import open_bin, open_store
from hone.data.store_writer import write_store
from hone.errors import HoneError


def documents(*ids: list[int], masked: int = 0) -> list[Encoded]:
    return [Encoded(np.array(i), np.arange(len(i)) >= masked, True) for i in ids]


def write(folder: Path, rows: Any, validation: Any = None, percentage: float = 0.0, **rule: Any) -> Any:
    dropped = Dropped()
    options = SplitRule(percentage, rule.get("seed", 0), rule.get("deduplicate", False))
    store = write_store(folder, rows, validation, options, vocab_size=1000, dropped=dropped, meta={"template": "plain"})
    return store, dropped


def contents(split: Any) -> list[list[int]]:
    return [split.tokens[a:b].tolist() for a, b in zip(split.starts[:-1], split.starts[1:], strict=True)]


def test_documents_come_back(tmp_path: Path) -> None:
    store, _ = write(tmp_path / "s", documents([1, 2, 3], [4], [5, 6], masked=1), documents([7, 8]))
    assert contents(store.train) == [[1, 2, 3], [4], [5, 6]]
    assert store.train.supervised is not None
    assert store.train.supervised.tolist() == [0, 1, 1, 0, 0, 1]
    assert contents(store.val) == [[7, 8]]
    assert store.val.supervised is None, "nothing is masked: no mask is kept"
    again = open_store(tmp_path / "s")
    assert contents(again.train) == contents(store.train)


def test_bin_is_what_nanogpt_reads(tmp_path: Path) -> None:
    store, _ = write(tmp_path / "s", documents([1, 2, 999], [4, 5]))
    assert np.fromfile(store.folder / "train.bin", dtype=np.uint16).tolist() == [1, 2, 999, 4, 5]


@given(
    digests=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    percentage=st.floats(0.1, 50),
    seed=st.integers(0, 5),
)
def test_no_duplicate_straddles_the_split(digests: list[int], percentage: float, seed: int) -> None:
    held = choose_validation(np.array(digests, dtype=np.uint64), percentage, seed)
    train, val = ({d for d, h in zip(digests, held, strict=True) if h == side} for side in (False, True))
    assert not train & val
    if len(set(digests)) > 1:
        assert train
        assert len(val) == min(max(1, round(len(set(digests)) * percentage / 100)), len(set(digests)) - 1)


def test_split_depends_on_the_seed_and_on_nothing_else() -> None:
    digests = np.random.default_rng(0).integers(0, 1 << 63, 500).astype(np.uint64)
    held = choose_validation(digests, 10, seed=1)
    assert held.sum() == 50
    assert (held == choose_validation(digests, 10, seed=1)).all()
    assert (held != choose_validation(digests, 10, seed=2)).any()
    order = np.random.default_rng(1).permutation(500)
    assert (choose_validation(digests[order], 10, seed=1) == held[order]).all(), "the order of rows does not matter"


def test_copies_of_validation_rows_leave_training(tmp_path: Path) -> None:
    store, dropped = write(tmp_path / "s", documents([1, 2], [3, 4], [1, 2]), documents([1, 2]))
    assert contents(store.train) == [[3, 4]]
    assert dropped.counts == {"also in the validation data (left out of training)": 2}


def test_deduplicate_keeps_the_first(tmp_path: Path) -> None:
    store, dropped = write(tmp_path / "s", documents([1, 2], [3, 4], [1, 2]), deduplicate=True)
    assert contents(store.train) == [[1, 2], [3, 4]]
    assert dropped.counts == {"exact duplicate of an earlier row": 1}


def test_one_document_is_cut_by_position(tmp_path: Path) -> None:
    store, _ = write(tmp_path / "s", documents(list(range(100))), percentage=10.0)
    assert contents(store.train) == [list(range(90))]
    assert contents(store.val) == [list(range(90, 100))]


def test_pieces_are_one_document_and_equal_documents_have_equal_hashes(tmp_path: Path) -> None:
    pieces = [Encoded(np.array([1, 2]), np.ones(2, bool), False), Encoded(np.array([3]), np.ones(1, bool), True)]
    store, dropped = write(tmp_path / "s", [*pieces, *documents([9]), *pieces], deduplicate=True)
    assert contents(store.train) == [[1, 2, 3], [9]]
    assert sum(dropped.counts.values()) == 1


def test_an_interrupted_prepare_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Any:
        yield documents([1, 2])[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cache" / "s", rows())
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "other.tmp-999999999"
    leftover.mkdir()
    (leftover / "all.bin").write_bytes(b"half")
    write(tmp_path / "s", documents([1, 2]))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_damage_is_seen(tmp_path: Path) -> None:
    store, _ = write(tmp_path / "s", documents([1, 2, 3]))
    path = store.folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HoneError, match="damaged"):
        open_store(tmp_path / "s")


def test_bin_documents_end_at_the_end_token(tmp_path: Path) -> None:
    path = tmp_path / "train.bin"
    np.array([1, 2, 0, 3, 0, 4], dtype=np.uint16).tofile(path)
    split = open_bin(path, "uint16", end_token_id=0)
    assert contents(split) == [[1, 2, 0], [3, 0], [4]]
    train, val = split_bin(split, SplitRule(34.0, 0, False))
    assert (contents(train), contents(val)) == ([[1, 2, 0], [3, 0]], [[4]])


def test_second_prepare_opens_the_store_and_any_change_makes_another(
    tmp_path: Path, model_folder: Path, write_rows: Any
) -> None:
    path = write_rows("rows.jsonl", [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(20)])
    settings = {"model_name_or_path": str(model_folder), "train_file": str(path)}
    first, second = (hone.prepare(hone.load_config(settings)) for _ in range(2))
    assert (first.cached, second.cached) == (False, True)
    assert contents(first.store.train) == contents(second.store.train)
    assert second.store.meta["splits"] == first.store.meta["splits"]
    for change in ({"append_eos": False}, {"split_seed": 1}, {"completion_only_loss": False}):
        assert not hone.prepare(hone.load_config({**settings, **change})).cached
    for same in ({"max_length": 7}, {"batching": "packed"}, {"learning_rate": 1.0}):
        assert hone.prepare(hone.load_config({**settings, **same})).cached
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": "new", "completion": "row"}) + "\n")
    assert not hone.prepare(hone.load_config(settings)).cached
