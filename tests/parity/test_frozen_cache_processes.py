"""The frozen cache among several processes, on a full disk and when it is damaged: right numbers, or none."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_batching import make_items
from test_frozen_cache import Examples

from conftest import SIGNALS
from hone.accelerations import frozen_cache
from hone.accelerations.attach import Options, attach
from hone.accelerations.frozen_cache import FrozenCache, cache_place, numbered
from hone.config.sections.speed import SpeedKeys
from hone.data.batches import flat
from hone.models.freeze import freeze
from hone.publish import seal_problems

LENGTHS = [5, 9, 3, 7]


@pytest.fixture
def made(tiny_model: Any, tokenizer: Any, tmp_path: Path) -> Callable[[], FrozenCache]:
    """made() -> the cache of one model and data, as each process opens it."""
    data: Any = Examples(make_items(len(tokenizer), LENGTHS))

    def make() -> FrozenCache:
        model = tiny_model("gpt2").train()
        freeze(model, num_unfrozen_layers=1, unfreeze_embeddings=False, unfreeze_head=False)
        cache = FrozenCache(model, data, cache_place(model, data, tmp_path / "prefix", torch.float32), torch.float32)
        assert cache.difference(model, data, 1e-5) is None
        cache.model, cache.data = model, data  # type: ignore[attr-defined]  # for the helpers below
        return cache

    return make


def forward(cache: Any, rows: list[int], use: bool = True) -> torch.Tensor:
    """The logits of some examples in one batch: with the cache, or plainly."""
    starts = np.cumsum(cache.data.lengths) - cache.data.lengths
    batch = numbered([{**cache.data[i], "cache_start": starts[i]} for i in rows], flat)
    with torch.no_grad(), cache.at(batch["cache_rows"] if use else None):
        return cache.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits


def assert_right(cache: Any) -> None:
    for rows in ([0, 1], [2, 3], [3, 0], [1, 2]):
        torch.testing.assert_close(forward(cache, rows), forward(cache, rows, use=False), atol=1e-6, rtol=1e-5)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_a_process(target: Callable[..., None], *arguments: Any) -> tuple[Any, Any]:
    """A forked process and this end of a pipe to it, whose other end `target` is given first."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *arguments))
    process.start()
    return process, here


def half_filled(pipe: Any, made: Callable[[], FrozenCache]) -> None:
    """Another run: it fills half, waits to be told, then fills the rest and publishes."""
    cache = made()
    forward(cache, [0, 1])
    pipe.send("half")
    pipe.recv()
    forward(cache, [2, 3])
    assert_right(cache)
    cache.close()
    pipe.send("done")


@SIGNALS
def test_two_runs_at_once_share_no_rows(made: Callable[[], FrozenCache], tmp_path: Path) -> None:
    other, pipe = in_a_process(half_filled, made)
    assert pipe.recv() == "half"
    cache = made()
    assert not cache.known.any(), "the rows of a run that is not done are its own"
    assert_right(cache)
    assert cache.known.all()
    cache.close()
    [key] = [name for name in names(tmp_path / "prefix") if ".tmp-" not in name]
    first = (tmp_path / "prefix" / key / "rows.bin").read_bytes()
    pipe.send("go on")
    assert pipe.recv() == "done"
    other.join()
    assert other.exitcode == 0 and names(tmp_path / "prefix") == [key], "the first to be done publishes, once"
    assert (tmp_path / "prefix" / key / "rows.bin").read_bytes() == first and seal_problems(
        cache.place.folder, whole=True
    ) == []
    third = made()
    assert third.known.all() and third.aside is None
    assert_right(third)


@SIGNALS
def test_a_killed_run_leaves_nothing_that_counts(made: Callable[[], FrozenCache], tmp_path: Path) -> None:
    other, pipe = in_a_process(half_filled, made)
    assert pipe.recv() == "half"
    assert len(names(tmp_path / "prefix")) == 1
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    cache = made()
    assert not cache.known.any()
    assert names(tmp_path / "prefix") == [cache.aside.path.name], "what the killed run left is removed"  # type: ignore[union-attr]
    assert_right(cache)
    cache.close()
    assert_right(made())


def test_a_run_that_ends_early_keeps_nothing(made: Callable[[], FrozenCache], tmp_path: Path) -> None:
    stopped = made()
    forward(stopped, [0, 1])
    stopped.close()
    assert names(tmp_path / "prefix") == []
    failed = made()
    assert len(names(tmp_path / "prefix")) == 1
    del failed
    assert names(tmp_path / "prefix") == [], "an exception ends a run without close()"


def test_readers_never_write(made: Callable[[], FrozenCache]) -> None:
    cache = made()
    assert_right(cache)
    cache.publish()
    rows = cache.place.folder / "rows.bin"
    before = rows.read_bytes()
    reader = made()
    assert reader.aside is None and rows.read_bytes() == before
    reader.rows[:] = 0
    assert rows.read_bytes() == before and seal_problems(cache.place.folder, whole=True) == []


@SIGNALS
def test_removing_the_cache_does_not_disturb_who_reads_it(made: Callable[[], FrozenCache], tmp_path: Path) -> None:
    from hone.cache import cache_entries, remove

    cache = made()
    assert_right(cache)
    cache.close()
    reader = made()
    (tmp_path / "tokens").mkdir()
    (tmp_path / "prefix").rename(tmp_path / "tokens" / "prefix")
    [entry] = cache_entries(tmp_path)
    assert entry.kind == "prefix" and entry.about.endswith("1 blocks, 24 tokens")
    assert remove([entry]) > 0 and names(tmp_path / "tokens" / "prefix") == []
    assert_right(reader)


@pytest.mark.parametrize("spoil", ["flip", "zeros", "cut", "gone", "manifest"])
def test_a_damaged_cache_is_named_and_written_anew(
    spoil: str, made: Callable[[], FrozenCache], caplog: pytest.LogCaptureFixture
) -> None:
    cache = made()
    assert_right(cache)
    cache.close()
    rows, meta = cache.place.folder / "rows.bin", cache.place.folder / "meta.json"
    whole = bytearray(rows.read_bytes())
    if spoil == "flip":
        whole[1000] ^= 4
    elif spoil == "zeros":
        whole[1024:2048] = bytes(1024)
    elif spoil == "cut":
        del whole[-1:]
    rows.write_bytes(whole)
    if spoil == "gone":
        rows.unlink()
    elif spoil == "manifest":
        meta.write_text(meta.read_text().replace('"blocks": 1', '"blocks": 0'))
    named = "meta.json" if spoil == "manifest" else "rows.bin"
    assert [problem.split(":")[0] for problem in seal_problems(cache.place.folder, whole=True)] == [named]
    again = made()
    assert named in caplog.text and "written anew" in caplog.text and not again.known.any()
    assert_right(again)
    again.close()
    assert seal_problems(cache.place.folder, whole=True) == [] and made().known.all()


def test_a_full_disk_costs_the_cache_and_not_the_run(
    tiny_model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(frozen_cache, "allocate", full)
    model = tiny_model("gpt2")
    freeze(model, num_unfrozen_layers=1, unfreeze_embeddings=False, unfreeze_head=False)
    data: Any = Examples(make_items(len(tokenizer), LENGTHS))
    speed = SpeedKeys(keep_freed_memory=False)
    found = attach(model, data, Options(speed, "cpu", 64, cache_folder=tmp_path / "prefix", several_epochs=True))
    assert found.cache is None
    assert any("no frozen cache" in note and "No space left on device" in note for note in found.notes), found.notes
    assert names(tmp_path / "prefix") == []


def test_what_cannot_be_kept_costs_the_next_run_its_head_start_only(
    made: Callable[[], FrozenCache], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from hone.training.trainer import _CloseCache

    cache = made()
    assert_right(cache)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(frozen_cache, "seal", full)
    callback: Any = _CloseCache(cache)
    callback.on_epoch_end(None, None, None)
    assert "the frozen cache is not kept" in caplog.text
    assert_right(cache)
    callback.on_train_end(None, None, None)
    assert names(tmp_path / "prefix") == []
