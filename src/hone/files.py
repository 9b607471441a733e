"""Writing files so that a reader never sees half of one: temporary name, fsync, rename.

>>> write_text_atomic(Path("metrics.json"), "{}")      # doctest: +SKIP
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone.errors import HoneError


def fsync_path(path: Path) -> None:
    """Flush a file's data, or a folder's entries, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder; its renames are journalled
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def follow_umask(folder: Path) -> None:
    """Give the weights in a folder the rights that any new file gets there: safetensors writes its own with 600."""
    written = list(folder.glob("*.safetensors"))
    if not written:
        return
    probe = folder / f".rights.tmp-{os.getpid()}"  # os.umask cannot be read without changing it for every thread
    try:
        probe.touch(exist_ok=False)
        mode = probe.stat().st_mode & 0o777
    finally:
        probe.unlink(missing_ok=True)
    for path in written:
        path.chmod(mode)


DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# torch.save, safetensors and numpy report a full disk in exceptions of their own: these words are all that tells it
SAYS_DISK_FULL = (
    *("No space left on device", "Disk quota exceeded"),
    *("file write failed", "unexpected pos", "basic_ios::clear: iostream error", "requested and"),
)


@contextmanager
def disk_errors(path: Path, setting: str = "output_dir=…") -> Iterator[None]:
    """Turn refusals to write (full disk, no permission, no folder) into one clear message naming `path`.

    Args:
        setting: what the user would change to write elsewhere.
    """
    try:
        yield
    except HoneError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _number_in(error)
        full = number in DISK_FULL or (number is None and any(words in str(error) for words in SAYS_DISK_FULL))
        if not full and not isinstance(error, OSError) and number is None:
            raise
        reason = "the disk is full" if full else os.strerror(number) if number else str(error)
        fix = f"{'free some space, or ' if full else ''}choose another place: {setting}"
        raise HoneError(f"cannot write: {reason}", where=str(path), fix=fix) from error


def _number_in(error: Exception) -> int | None:
    """The system's error number in what a library written in Rust (safetensors, tokenizers) says of it."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_text_atomic(path: Path, text: str, setting: str = "output_dir=…") -> None:
    """Replace `path` by `text` (UTF-8) so that a crash leaves either the old file or the new one.

    A link stays and its target is replaced; what is not a file (a device, a pipe) is written into. setting: as of
    `disk_errors`.
    """
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        with disk_errors(path, setting):
            path.write_text(text, encoding="utf-8")
        return
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with disk_errors(path, setting):
        try:
            temporary.write_text(text, encoding="utf-8")
            fsync_path(temporary)
            temporary.replace(path)
            fsync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json_atomic(path: Path, value: Any, setting: str = "output_dir=…") -> None:
    """`write_text_atomic` of indented JSON; NaN is refused because JSON has none."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", setting)


def read_json(path: Path, fix: str | None = None) -> Any:
    """Read a JSON file written by us; `fix` is what to do about a damaged one.

    Raises:
        HoneError: the file is not JSON (damaged, or not ours).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HoneError(f"not readable as JSON ({error})", where=str(path), fix=fix) from error
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise HoneError(f"not readable: {error.strerror}", where=str(path), fix="look at the disk") from error


# ---- JSON that knows whether it is what was written ------------------------------------------------------------------

SEAL = "seal"  # the key with the hash of all other keys


def write_sealed(path: Path, value: Mapping[str, object], setting: str = "output_dir=…") -> None:
    """`write_json_atomic` of an object and its seal: a digit that changes later is noticed by whoever reads it."""
    write_json_atomic(path, {**value, SEAL: _seal(value)}, setting)


def read_sealed(path: Path, fix: str | None = None, *, required: bool = True) -> dict[str, Any]:
    """What `write_sealed` wrote, without the seal.

    Args:
        required: refuse a file without a seal; else only a seal that does not fit is refused.

    Raises:
        HoneError: the file is not JSON, not an object, or not what was sealed.
    """
    value = read_json(path, fix)
    if not isinstance(value, dict):
        raise HoneError("a JSON object was expected: the file is damaged", where=str(path), fix=fix)
    if (required or SEAL in value) and value.pop(SEAL, None) != _seal(value):
        raise HoneError("the content is not what was written: the file is damaged", where=str(path), fix=fix)
    return value


def _seal(value: Mapping[str, object]) -> str:
    text = json.dumps(dict(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
