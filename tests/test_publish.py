"""Folders of the cache: whole or not there, whoever else writes, removes or is killed at the same time."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import SIGNALS
from hone import publish as publishing
from hone.publish import allocate, begin, discard, leftovers, publish, retire, seal, seal_problems

FORKS = pytest.mark.skipif(os.name != "posix", reason="forks processes")


def write(folder: Path, content: bytes) -> bool:
    """Make and publish a folder; whether it was the first."""
    aside = begin(folder)
    (aside.path / "rows.bin").write_bytes(content)
    seal(aside.path, {"format": 1, "counts": (1, 2), "names": {1: "one", 10: "ten", 2: "two"}})
    try:
        return publish(aside, folder)
    finally:
        discard(aside)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_published_folder_is_whole_and_the_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "key"
    assert write(folder, b"first") and not write(folder, b"second")
    assert (folder / "rows.bin").read_bytes() == b"first"
    assert names(tmp_path / "cache") == ["key"] and seal_problems(folder, whole=True) == []


def test_any_flipped_bit_is_found_and_a_damaged_folder_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    write(folder, bytes(range(40)))
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for at in range(len(whole)):
            changed = bytearray(whole)
            changed[at] ^= 1
            file.write_bytes(changed)
            found = seal_problems(folder)
            # a blank of the JSON that becomes another character makes it unreadable; nothing else is without meaning
            assert found and found[0].startswith(file.name), (file.name, at)
        file.write_bytes(whole)
    assert seal_problems(folder) == []
    (folder / "rows.bin").unlink()
    assert seal_problems(folder) == ["rows.bin: missing"]
    assert write(folder, b"anew") and (folder / "rows.bin").read_bytes() == b"anew"
    (folder / "meta.json").unlink()
    assert seal_problems(folder) == ["meta.json: missing"]
    assert write(folder, b"again") and names(tmp_path) == ["key"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"files": 1, "seal": 2}', '{"seal": "x"}'])
def test_whatever_the_manifest_is_it_is_a_problem_and_not_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(text)
    [problem] = seal_problems(tmp_path, whole=True)
    assert problem.startswith("meta.json: ")


def publish_often(folder: Path, number: int) -> None:
    for _ in range(20):
        write(folder, bytes([number]) * 1000)
        if number == 0:
            retire(folder)


@FORKS
def test_many_at_once_publish_and_remove_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    folder = tmp_path / "cache" / "key"
    processes = [context.Process(target=publish_often, args=(folder, number)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    write(folder, b"last")
    assert names(tmp_path / "cache") == ["key"] and seal_problems(folder) == []


def hold(pipe: Any, folder: Path) -> None:
    aside = begin(folder)
    pipe.send(aside.path.name)
    pipe.recv()


@SIGNALS
def test_what_is_being_written_stays_and_what_a_killed_process_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("fork")
    pipe, there = context.Pipe()
    process = context.Process(target=hold, args=(there, tmp_path / "key"))
    process.start()
    name = pipe.recv()
    (tmp_path / "mine.tmp-2024").mkdir()
    (tmp_path / "key.tmp-0000abcd-999999999").write_text("a file that hone has not written")
    write(tmp_path / "key", b"mine")
    assert name in names(tmp_path)
    with monkeypatch.context() as elsewhere:  # in another container its number says nothing: its lock does
        elsewhere.setattr(publishing.psutil, "pid_exists", lambda pid: False)
        assert leftovers(tmp_path) == []
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [path.name for path in leftovers(tmp_path)] == [name]
    write(tmp_path / "other", b"mine")
    assert names(tmp_path) == ["key", "key.tmp-0000abcd-999999999", "mine.tmp-2024", "other"]


def refuse(*arguments: Any) -> None:
    raise OSError(errno.EOPNOTSUPP, "not supported")


@pytest.mark.skipif(os.name != "posix", reason="counts blocks")
@pytest.mark.parametrize("fallocate", [None, refuse])
def test_the_place_on_the_disk_is_taken_before_it_is_used(
    fallocate: Callable[..., None] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fallocate:
        monkeypatch.setattr(os, "posix_fallocate", fallocate, raising=False)
    for size in (1, 5_000_001):
        allocate(tmp_path / "rows", size)
        stat = (tmp_path / "rows").stat()
        assert stat.st_size == size <= stat.st_blocks * 512 and not any((tmp_path / "rows").read_bytes())


ON_A_SMALL_DISK = """
import errno, sys
from pathlib import Path
from hone.publish import allocate
try:
    allocate(Path(sys.argv[1]) / "rows", 1 << 20)
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs mount namespaces")
def test_a_small_disk_says_that_it_is_full(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=256k tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no mounts here")
    command = f'{mount} && exec "$0" -c "$1" {tmp_path}'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command, sys.executable, ON_A_SMALL_DISK], capture_output=True, text=True
    )
    assert done.stdout == "ENOSPC\n", done.stderr  # and no SIGBUS later
