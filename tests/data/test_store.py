"""The token store: what is written is read back, splits do not leak, interruptions leave nothing."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hone
from hone import manifest
from hone.cache import cache_entries, remove
from hone.data.encode import Encoded
from hone.data.split import Dropped, SplitRule, choose_validation, split_bin
from hone.data.store import open_bin, open_store
from hone.data.store_writer import write_store
from hone.errors import HoneError
from hone.manifest import describe_files
from hone.publish import seal, seal_problems


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
    leftover = tmp_path / "other.tmp-0123abcd-999999999"
    leftover.mkdir()
    (leftover / "all.bin").write_bytes(b"half")
    write(tmp_path / "s", documents([1, 2]))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["train.bin", "train.mask", "train.docs.npy", "val.bin", "val.docs.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["bit", "zeros", "cut", "longer", "gone"])
def test_damage_is_seen_and_named(name: str, damage: str, tmp_path: Path) -> None:
    store, _ = write(tmp_path / "s", documents([1, 2, 3], list(range(1, 900)), masked=1), documents([4, 5]))
    assert seal_problems(store.folder, whole=True) == []
    path = store.folder / name
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    elif damage == "zeros":
        content[-8:] = bytes(min(8, len(content)))
    path.write_bytes({"cut": content[:-2], "longer": content + b"0"}.get(damage, content))
    if damage == "gone":
        path.unlink()
    [problem] = seal_problems(store.folder, whole=True)
    assert problem.startswith(f"{name}: ")
    with pytest.raises(HoneError, match=f"damaged.*{name}") as caught:
        open_store(store.folder)
    assert caught.value.fix == f"delete {store.folder} (it is only a cache) and run again"


def test_a_large_store_is_read_whole_when_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = write(tmp_path / "s", documents([1, 2, 3]))
    monkeypatch.setattr(manifest, "READ_WHOLE_BYTES", 0)
    (store.folder / "train.bin").write_bytes(bytes(6))
    assert open_store(store.folder).train.n_documents == 1, "its sizes are those of the manifest"
    assert seal_problems(store.folder, whole=True) == ["train.bin: the content is not what was written"]


def test_an_index_that_does_not_fit_is_a_problem_whatever_the_manifest_says(tmp_path: Path) -> None:
    store, _ = write(tmp_path / "s", documents([1, 2, 3]))
    np.save(store.folder / "train.docs.npy", np.array([0, 2]))
    meta = json.loads((store.folder / "meta.json").read_text())
    seal(store.folder, {key: value for key, value in meta.items() if key not in ("files", "seal")})
    with pytest.raises(HoneError, match="does not fit") as caught:
        open_store(store.folder)
    assert caught.value.where == str(store.folder / "train.docs.npy")


def test_the_manifest_written_on_the_way_is_that_of_the_files(tmp_path: Path) -> None:
    store, _ = write(tmp_path / "s", documents([1, 2, 3], [4], [5, 6], masked=1), documents([7, 8]))
    found = describe_files(store.folder)
    del found["meta.json"]
    assert store.meta["files"] == found


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


def test_a_damaged_store_is_named_and_written_again(
    model_folder: Path, write_rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows("rows.jsonl", [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(20)])
    config = hone.load_config({"model_name_or_path": str(model_folder), "train_file": str(path)})
    first = hone.prepare(config)
    want = contents(first.store.train)
    tokens = first.store.folder / "train.bin"
    tokens.write_bytes(bytes(len(tokens.read_bytes())))
    again = hone.prepare(config)
    assert (
        not again.cached and contents(again.store.train) == want and seal_problems(again.store.folder, whole=True) == []
    )
    [warning] = [record.getMessage() for record in caplog.records if record.module == "prepare"]
    assert str(again.store.folder) in warning and "train.bin" in warning and "written again" in warning
    assert hone.prepare(config).cached


@pytest.mark.skipif(os.name != "posix", reason="forks processes")
def test_many_cold_starts_at_once_make_one_store(model_folder: Path, write_rows: Any, tmp_path: Path) -> None:
    path = write_rows("rows.jsonl", [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(20)])
    keys = {"model_name_or_path": str(model_folder), "train_file": str(path), "token_cache_dir": str(tmp_path / "t")}
    hone.prepare(hone.load_config({**keys, "token_cache_dir": str(tmp_path / "other")}))  # imports what it needs
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)

    def start() -> None:
        barrier.wait()
        assert hone.prepare(hone.load_config(keys)).store.train.n_documents

    processes = [context.Process(target=start) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    [store] = (tmp_path / "t").iterdir()
    assert seal_problems(store, whole=True) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no file that is open")
def test_removing_the_cache_does_not_disturb_who_reads_it(tmp_path: Path) -> None:
    store, _ = write(tmp_path / "tokens" / "s", documents([1, 2, 3], masked=1))
    [entry] = cache_entries(tmp_path)
    remove([entry])
    assert list((tmp_path / "tokens").iterdir()) == [] and contents(store.train) == [[1, 2, 3]]
