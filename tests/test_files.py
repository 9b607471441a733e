"""Writing whole files: links stay, pipes are written into, and a crash leaves one or the other."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hone.cache import cache_root, token_cache
from hone.config.grid import MOST_SEEDS, parse_seeds
from hone.errors import HoneError
from hone.files import disk_errors, follow_umask, read_json, write_text_atomic
from hone.grading.ask import answers_folder


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    write_text_atomic(tmp_path / "pipe", "text")
    reader.join(10)
    assert read == ["text"] and (tmp_path / "pipe").is_fifo()


def test_json_nested_too_deeply_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(HoneError, match="not readable as JSON"):
        read_json(tmp_path / "deep.json")


@pytest.mark.skipif(os.name == "nt", reason="no umask here")
@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_weights_follow_the_umask(tmp_path: Path, mask: int, rights: int) -> None:
    save_file({"weight": np.zeros(2)}, tmp_path / "model.safetensors")
    before = os.umask(mask)
    try:
        follow_umask(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == rights
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_more_seeds_than_anybody_trains() -> None:
    for text in (str(MOST_SEEDS + 1), "9" * 30):
        with pytest.raises(HoneError, match="more than"):
            parse_seeds(text, 0)


def test_one_rule_for_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root({"HONE_CACHE": "/big/disk"}) == Path("/big/disk")
    assert cache_root({}) == Path.home() / ".cache" / "hone"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HONE_CACHE", "~/kept")
    assert cache_root() == tmp_path / "kept"
    assert token_cache() == tmp_path / "kept" / "tokens"
    assert answers_folder() == tmp_path / "kept" / "answers"
    with pytest.raises(HoneError, match="HONE_CACHE"):
        cache_root({"HONE_CACHE": "~no-such-user/kept"})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Error while serializing: I/O error: Input/output error (os error 5)", "Input/output error"),
        ("No space left on device (os error 28)", "the disk is full"),
        ("basic_ios::clear: iostream error", "the disk is full"),  # torch.save
    ],
)
def test_a_disk_error_that_a_library_reports_in_its_own_words_is_one_message(
    said: str, reason: str, tmp_path: Path
) -> None:
    """safetensors and tokenizers (Rust) have exceptions of their own, the number in their words."""
    with pytest.raises(HoneError, match=f"cannot write: {reason}") as caught, disk_errors(tmp_path):
        raise Exception(said)
    assert caught.value.where == str(tmp_path)


def test_what_the_disk_does_not_return_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(HoneError, match=r"tuned.json: not readable: Input/output error"):
        read_json(tmp_path / "tuned.json")
