"""Folders of the cache: written aside by one process, published whole by a rename, never changed afterwards.

Two processes that make the same folder at once each write their own; the first to be done publishes. `meta.json` says
what a folder is and holds the manifest of its files, under a seal: any change of any of them is found.

>>> aside = begin(folder)                                                           # doctest: +SKIP
>>> (aside.path / "rows.bin").write_bytes(b"...")                                   # doctest: +SKIP
>>> seal(aside.path, {"format": 1})                                                 # doctest: +SKIP
>>> publish(aside, folder)                                                          # doctest: +SKIP
"""

import errno
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from hone.errors import HoneError
from hone.files import fsync_path, read_sealed, write_sealed
from hone.manifest import FileAbout, damaged, describe_files, problems

if sys.platform != "win32":
    import fcntl

META = "meta.json"
SETTING = "token_cache_dir=… (or HONE_CACHE)"  # what a user would change to have the cache elsewhere
ASIDE = re.compile(r"\.tmp-[0-9a-f]{8}-(\d+)$")  # the end of a name that `_aside_name` gives: of which process
THERE = (errno.EEXIST, errno.ENOTEMPTY, errno.EACCES)  # a rename onto a folder that is not empty; EACCES: Windows
ZEROS = bytes(1 << 20)
TRIES = 10  # of a rename, while others publish and remove the same folder


class Aside(NamedTuple):
    """A folder that this process writes, and the lock that says so as long as the process lives."""

    path: Path
    lock: int | None


def begin(folder: Path) -> Aside:
    """A new folder beside `folder`, under a name of its own; what killed processes left there is removed first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in leftovers(folder.parent):
        shutil.rmtree(path, ignore_errors=True)
    path = _aside_name(folder)
    path.mkdir()
    return Aside(path, _lock(path))


def discard(aside: Aside) -> None:
    """Give a folder up that is not published, or was."""
    shutil.rmtree(aside.path, ignore_errors=True)
    if aside.lock is not None:
        os.close(aside.lock)


def allocate(file: Path, n_bytes: int) -> None:
    """Make a file of zeros whose place on the disk is taken: to write to a map of it cannot fail later.

    Raises:
        OSError: the disk is full.
    """
    with file.open("wb") as stream:
        if sys.platform == "linux":
            try:
                os.posix_fallocate(stream.fileno(), 0, n_bytes)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot
                    raise
        for at in range(0, n_bytes, len(ZEROS)):
            stream.write(ZEROS[: n_bytes - at])


def seal(folder: Path, about: Mapping[str, Any], files: Mapping[str, FileAbout] | None = None) -> None:
    """Write meta.json: what the folder is, and the manifest of its files.

    Args:
        files: those that were described while they were written; None to read all that there are.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != META)
    whole = {**about, "files": describe_files(folder, names) if files is None else files}
    write_sealed(folder / META, json.loads(json.dumps(whole)), SETTING)  # as it will be read back: keys are strings
    fsync_path(folder)


def publish(aside: Aside, folder: Path) -> bool:
    """Give a sealed folder its name, and whether that was done: a whole one that is there by then stays.

    Raises:
        OSError: it cannot be renamed.
    """
    for left in reversed(range(TRIES)):
        try:
            aside.path.rename(folder)
        except OSError as error:
            if error.errno not in THERE or not left:
                raise
            if not seal_problems(folder):
                return False
            retire(folder)
        else:
            fsync_path(folder.parent)
            return True
    return False


def seal_problems(folder: Path, *, whole: bool = False) -> list[str]:
    """What is wrong with a published folder, each problem beginning with its file's name.

    Args:
        whole: read every file, however large; else the contents of a small folder and the sizes of a large one.
    """
    try:
        files = read_sealed(folder / META)["files"]
    except HoneError as error:
        return [f"{META}: {error.what}"]
    except OSError as error:
        return [f"{META}: {'missing' if isinstance(error, FileNotFoundError) else error.strerror}"]
    except KeyError:
        return [f"{META}: it describes no files"]
    return problems(folder, files, hashes=True) if whole else damaged(folder, files)


def retire(folder: Path) -> None:
    """Remove a folder: at once for those who look for it, whereas those who have mapped its files keep them.

    Raises:
        OSError: something may not be removed.
    """
    away = _aside_name(folder)
    with suppress(FileNotFoundError):  # somebody else was first
        folder.rename(away)
        shutil.rmtree(away)


def leftovers(parent: Path) -> list[Path]:
    """The folders that processes left half written or half removed, and that no process is writing."""
    return [path for path in sorted(parent.glob("*.tmp-*")) if _is_abandoned(path)] if parent.is_dir() else []


def _aside_name(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}-{os.getpid()}")


def _lock(path: Path) -> int | None:
    """A lock on a folder that ends with the process; None where the file system knows none."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_abandoned(path: Path) -> bool:
    """No process of this number lives here, and none in another container or on another machine holds the lock."""
    found = ASIDE.search(path.name)
    if not found or path.is_symlink() or not path.is_dir() or psutil.pid_exists(int(found[1])):
        return False
    if sys.platform == "win32":
        return True
    try:
        lock = _lock(path)
    except OSError:  # gone in the meantime
        return False
    if lock is not None:
        os.close(lock)
    return lock is not None
