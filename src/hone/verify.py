"""`hone verify`: is what lies in a folder still what hone wrote there? Every byte is read and compared.

A run, a checkpoint, a model that hone made or bundles, a corpus, a token store, a frozen cache; a model in the hub's
cache, whose files are named after their hashes. Nothing is loaded.

>>> verify(Path("runs/my")).problems                                            # doctest: +SKIP
['runs/my/model.safetensors: the content is not what was written']
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hone import bundled
from hone.data.shards import CORPUS_CONFIG, corpus_problems
from hone.errors import HoneError
from hone.files import read_sealed
from hone.hub import file_in_cache
from hone.manifest import MANIFEST, measured_problems, model_problems
from hone.publish import META, seal_problems
from hone.runs import COMPLETE, RESOLVED, STATUS, Run, checkpoint_problems

REPEAT = "repeat.json"
HUB_LINKS = "blobs"  # in the hub's cache, what a model's files are links to


@dataclass(frozen=True)
class Verified:
    """What was looked at. folder: where; kind: as what. n_files, n_bytes: below it. problems: each names its file."""

    folder: Path
    kind: str
    n_files: int
    n_bytes: int
    problems: list[str]


def verify(name: str) -> Verified:
    """Compare all that hone wrote in a folder with what it says of its own files.

    Args:
        name: a folder, or a model's name: hone-base, or one in the hub's cache.

    Raises:
        HoneError: there is no such folder, or nothing in it says what it should be.
    """
    folder = _folder(name)
    for marker, kind, look in KINDS:
        if (folder / marker).exists():
            found = [f"{folder / one}" for one in look(folder)]
            return Verified(folder, kind, *_size(folder), found)
    if is_of_the_hub(folder):
        return Verified(folder, "model of the hub", *_size(folder), [f"{folder / one}" for one in _hub(folder)])
    inside = sorted(path.parent for marker, _, _ in KINDS for path in folder.glob(f"*/{marker}"))
    if not inside:
        raise HoneError(
            "nothing here says what its files should be",
            where=str(folder),
            fix="name a run, a checkpoint, a model that hone wrote, or a folder of its cache",
        )
    each = [verify(str(one)) for one in dict.fromkeys(inside)]
    return Verified(
        folder, f"{len(each)} folders", *_size(folder), [problem for one in each for problem in one.problems]
    )


def _folder(name: str) -> Path:
    folder = Path(bundled.resolve(name))
    if folder.is_dir():
        return folder
    there = file_in_cache(name, "config.json") if name.count("/") <= 1 and not folder.exists() else None
    if there is None:
        raise HoneError("no such folder", where=name, fix="name a run or a model folder; `hone runs` lists the runs")
    return Path(there).parent


def _size(folder: Path) -> tuple[int, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


# ---- each kind of folder: what is wrong, each beginning with the name of its file in the folder ----------------------


def _repeat(folder: Path) -> Iterator[str]:
    yield from _sealed(folder, REPEAT)
    for seed in sorted(folder.glob("seed-*")):
        yield from (f"{seed.name}/{problem}" for problem in _run(seed))


def _run(folder: Path) -> Iterator[str]:
    run, stage = Run(folder), None
    for path in (folder / STATUS, folder / "env.json", *sorted(folder.glob("eval/*.json"))):
        if path.is_file():
            yield from _sealed(folder, path.relative_to(folder).as_posix())
    try:
        stage = run.status.get("stage")
        run.metric_lines()
    except HoneError as error:
        yield f"{'metrics.jsonl' if 'metrics.jsonl' in str(error.where) else STATUS}: {error.what}"
    if stage in ("saved", "finished") and not (folder / MANIFEST).is_file():
        yield f"{MANIFEST}: missing"
    yield from model_problems(folder, whole=True)
    yield from measured_problems(folder)
    for checkpoint in run.checkpoints():
        yield from (f"{checkpoint.name}/{problem}" for problem in checkpoint_problems(checkpoint))


def _sealed(folder: Path, name: str) -> Iterator[str]:
    """A JSON file with a hash of itself."""
    try:
        read_sealed(folder / name, required=False)
    except HoneError as error:
        yield f"{name}: {error.what}"


def is_of_the_hub(folder: Path) -> bool:
    """Whether these are a model's files in the hub's cache: links to files that are named after their hashes."""
    return any(path.is_symlink() and path.resolve().parent.name == HUB_LINKS for path in folder.iterdir())


def _hub(folder: Path) -> Iterator[str]:
    """SHA-256 of a large file, git's SHA-1 of a small one: the name of the file that each link leads to."""
    for path in sorted(folder.rglob("*")):
        blob = path.resolve()
        if path.is_symlink() and not blob.is_file():
            yield f"{path.relative_to(folder)}: missing"
        elif path.is_file() and blob.parent.name == HUB_LINKS and _hub_name(blob) != blob.name:
            yield f"{path.relative_to(folder)}: the content is not what was downloaded"


def _hub_name(blob: Path) -> str:
    digest = hashlib.sha256() if len(blob.name) == 64 else hashlib.sha1(f"blob {blob.stat().st_size}\0".encode())
    with blob.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _cached(folder: Path) -> list[str]:
    return seal_problems(folder, whole=True)


def _model(folder: Path) -> list[str]:
    return model_problems(folder, whole=True)


# By the file that marks it; the first that is there decides.
KINDS: tuple[tuple[str, str, Callable[[Path], Iterable[str]]], ...] = (
    (REPEAT, "runs of several seeds", _repeat),
    (STATUS, "run", _run),
    (RESOLVED, "run", _run),
    (COMPLETE, "checkpoint", checkpoint_problems),
    (CORPUS_CONFIG, "corpus", corpus_problems),
    (MANIFEST, "model", _model),
    (META, "cache", _cached),
)
