"""`hone cache`: what hone keeps between runs, how large it is, and how to be rid of it. All of it can be made again.

tokens    rows as ids, and the search for repeated rows       <cache>/tokens/<key>/
prefix    what frozen blocks make of each token               <cache>/tokens/prefix/<key>/
answers   what models have answered to programming tasks      <cache>/answers/<key>.jsonl
kernels   the decoding kernel, compiled for this machine      <cache>/kernels/<key>.so

>>> sum(entry.n_bytes for entry in cache_entries(cache_root()))                 # doctest: +SKIP
81000000
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hone.errors import HoneError
from hone.files import disk_errors, read_json
from hone.publish import leftovers, retire

KINDS = ("tokens", "prefix", "answers", "kernels")
DAY = 24 * 3600


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """What is kept between runs: $HONE_CACHE, else ~/.cache/hone.

    Raises:
        HoneError: $HONE_CACHE begins with the home of a user there is not.
    """
    given = environ.get("HONE_CACHE") or "~/.cache/hone"
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise HoneError(f"{error}: {given}", fix="set HONE_CACHE to a folder") from error


def token_cache(folder: Path | None = None) -> Path:
    """Where token stores live: `data.token_cache_dir` if it is set, else tokens/ in the cache."""
    return Path(folder) if folder else cache_root() / "tokens"


def frozen_cache(folder: Path | None = None) -> Path:
    """Where the outputs of frozen blocks live, beside the token stores they are of."""
    return token_cache(folder) / "prefix"


def answer_cache() -> Path:
    """Where the answers of models to programming tasks live."""
    return cache_root() / "answers"


def kernel_cache() -> Path:
    """Where compiled kernels live."""
    return cache_root() / "kernels"


@dataclass(frozen=True)
class Entry:
    """One thing that can go by itself. used: seconds since the epoch of the last write. about: what it was made of."""

    kind: str
    name: str
    path: Path
    n_bytes: int
    used: float
    about: str


def cache_entries(root: Path) -> list[Entry]:
    """Everything kept below `root`, the largest first; what hone has not put there is not looked at."""
    found = []
    places: list[tuple[str, Path, Callable[[Path], str]]] = [
        ("tokens", root / "tokens", _sources),
        ("prefix", root / "tokens" / "prefix", _model),
    ]
    for kind, place, about in places:
        left = leftovers(place)
        found += [_entry(kind, path.name, path, "left by a run that was killed") for path in left]
        for folder in _listed(place):
            if ".tmp-" not in folder.name and (folder / "meta.json").is_file():
                found.append(_entry(kind, folder.name, folder, about(folder / "meta.json")))
    for kind, suffix in (("answers", ".jsonl"), ("kernels", ".so")):
        for path in _listed(root / kind):
            if path.suffix == suffix and path.is_file():
                found.append(_entry(kind, path.stem, path, ""))
    return sorted(found, key=lambda entry: -entry.n_bytes)


def chosen(entries: Iterable[Entry], kinds: Collection[str], older_than_days: float = 0) -> list[Entry]:
    """Those of these kinds that were not written to for so many days.

    Raises:
        HoneError: a kind that there is not.
    """
    for kind in kinds:
        if kind not in (*KINDS, "all"):
            raise HoneError(f"there is no kind '{kind}'", where="--remove", fix=f"use {', '.join(KINDS)} or all")
    before = time.time() - older_than_days * DAY
    return [entry for entry in entries if ("all" in kinds or entry.kind in kinds) and entry.used <= before]


def remove(entries: Iterable[Entry]) -> int:
    """Delete entries; the bytes that became free. A folder is renamed first: whoever has mapped its files keeps them.

    Raises:
        HoneError: something may not be deleted.
    """
    freed = 0
    for entry in entries:
        with disk_errors(entry.path):
            if entry.path.is_dir():
                retire(entry.path)
            else:
                entry.path.unlink(missing_ok=True)
        freed += entry.n_bytes
    return freed


def _listed(folder: Path) -> list[Path]:
    """What is in a folder of the cache, in order; links lead elsewhere and are left alone."""
    return sorted(path for path in folder.iterdir() if not path.is_symlink()) if folder.is_dir() else []


def _entry(kind: str, name: str, path: Path, about: str) -> Entry:
    files = [file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    stats = [file.stat() for file in files]
    used = max((stat.st_mtime for stat in stats), default=0.0)
    # what a file occupies is what counts
    n_bytes = sum(getattr(stat, "st_blocks", 0) * 512 or stat.st_size for stat in stats)
    return Entry(kind, name, path, n_bytes, used, about)


def _sources(meta: Path) -> str:
    with suppress(HoneError, KeyError, TypeError, AttributeError):
        about = read_json(meta)
        sources = [source["file"] for split in about["sources"].values() for source in split]
        return f"{', '.join(sources[:3])}{' …' if len(sources) > 3 else ''}"
    return "damaged"


def _model(about: Path) -> str:
    with suppress(HoneError, KeyError, TypeError):
        found = read_json(about)
        return f"{Path(found['model']).name}, {found['blocks']} blocks, {found['tokens']:,} tokens"
    return "damaged"
