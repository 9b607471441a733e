"""Manifests: the size and the SHA-256 of each file of a folder, by which a changed file is known later.

>>> problems(folder, read_json(folder / "meta.json")["files"], hashes=True)          # doctest: +SKIP
['train.bin: the content is not what was written']
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from hone.errors import HoneError
from hone.files import read_sealed, write_sealed

log = logging.getLogger("hone")

MANIFEST = "manifest.json"  # of a run or a model
CARD = "README.md"
# A file this small is read whole at each opening: 64 MB take 40 ms at 1.6 GB/s (two cores with SHA instructions).
READ_WHOLE_BYTES = 64_000_000


class FileAbout(TypedDict):
    """What a manifest says of one file."""

    bytes: int
    sha256: str


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits, read piece by piece."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, FileAbout]:
    """A manifest: name below `folder` (with /) -> {"bytes": size, "sha256": digest}.

    Args:
        names: of the files; None for all there are, in folders below too.
    """
    if names is None:
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: describe_file(folder / name) for name in sorted(names)}


def describe_file(path: Path) -> FileAbout:
    """The size and the digest of one file."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def problems(folder: Path, files: Mapping[str, Any], *, hashes: bool) -> list[str]:
    """What differs from a manifest, each problem beginning with its file's name; none where all is as it was written.

    Args:
        files: as `describe_files` gives it, read back from a file that may itself be damaged.
        hashes: read every file whole; else only names and sizes are compared.
    """
    found = []
    for name, about in files.items():
        path = folder / name
        try:
            size, digest = int(about["bytes"]), str(about["sha256"])
        except (KeyError, TypeError, ValueError):
            found.append(f"{name}: the manifest does not say its size and SHA-256")
            continue
        try:
            if not path.is_file():
                found.append(f"{name}: missing")
            elif (there := path.stat().st_size) != size:
                found.append(f"{name}: {there:,} bytes, expected {size:,}")
            elif hashes and file_digest(path) != digest:
                found.append(f"{name}: the content is not what was written")
        except OSError as error:
            found.append(f"{name}: not readable ({error.strerror or error})")
    return found


def damaged(folder: Path, files: Mapping[str, Any]) -> list[str]:
    """`problems`, by content where that takes less than a blink (`READ_WHOLE_BYTES` in all), else by size."""
    sizes = [about.get("bytes") for about in files.values() if isinstance(about, Mapping)]
    small = sum(size for size in sizes if isinstance(size, int)) <= READ_WHOLE_BYTES
    return problems(folder, files, hashes=small)


# ---- the manifest of a model folder or a run -------------------------------------------------------------------------


def describe_model(folder: Path) -> None:
    """Write the manifest of a model folder: all its files but the card, which may be edited."""
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name not in (MANIFEST, CARD)]
    write_sealed(folder / MANIFEST, {"files": describe_files(folder, names)})


def model_problems(folder: Path, *, whole: bool = False) -> list[str]:
    """What of a model is not as it was written, each beginning with the file's name; none where it has no manifest.

    Args:
        whole: read every file, however large; else the contents of a small model and the sizes of a large one.
    """
    if not (folder / MANIFEST).is_file():
        return []
    try:
        files = read_sealed(folder / MANIFEST)["files"]
    except (HoneError, KeyError) as error:
        return [f"{MANIFEST}: {error.what if isinstance(error, HoneError) else 'it describes no files'}"]
    return problems(folder, files, hashes=True) if whole else damaged(folder, files)


def refuse_damaged(folder: Path) -> None:
    """Raise a HoneError if weights or tokenizer of a model are not as they were written; a changed config is noted.

    A config is edited by hand now and then, as when an adapter's base has moved.
    """
    found = model_problems(folder)
    configs = [problem for problem in found if problem.split(":")[0].endswith("config.json")]
    for problem in configs:
        log.warning("%s", folder / problem)
    if others := [problem for problem in found if problem not in configs]:
        name, _, reason = others[0].partition(": ")
        more = f", and {len(others) - 1} more files" if len(others) > 1 else ""
        raise HoneError(
            f"the model is damaged: {reason}{more}",
            where=str(folder / name),
            fix=f"copy it again, or train again; if you changed the file yourself, delete {folder / MANIFEST}",
        )


def measured_problems(folder: Path) -> list[str]:
    """What of a finished run's configs and measurements is not as it was written; none where it has no manifest.

    The card may be edited, and only has to be there. A damaged manifest is named by `model_problems`.
    """
    try:
        files = read_sealed(folder / MANIFEST).get("measured", {})
    except (HoneError, OSError):
        return []
    card = folder / CARD
    lacks_card = bool(files) and not (card.is_file() and card.stat().st_size)
    return problems(folder, files, hashes=True) + ([f"{CARD}: missing or empty"] if lacks_card else [])
