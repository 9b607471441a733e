"""What a corpus would cost: bytes, documents, tasks, time and disk, from a sample that goes through every stage.

>>> plan(load("code.yaml")).disk_bytes                                             # doctest: +SKIP
2310000000
"""

import gzip
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from hone.config.fields import as_paths
from hone.corpus.blocks import blocks_of, quiet, require_datatrove
from hone.corpus.inputs import Part, tasks_of
from hone.corpus.languages import refuse_unknown
from hone.corpus.leaks import evaluation_hashes
from hone.corpus.load import Loaded
from hone.corpus.quality import script_pattern
from hone.corpus.schema import CorpusConfig
from hone.corpus.stages import run_task, stages_of
from hone.corpus.tokenizer import described
from hone.corpus.work import Plan, begin_work, merged
from hone.errors import HoneError
from hone.show import duration, plural, size

SAMPLE_BYTES, PIECE_BYTES = 8_000_000, 1_000_000  # of input in all, and of a file that can be cut
WHOLE_BYTES = 32_000_000  # a file that cannot be cut is sampled whole, up to here
SPARE = 1.1  # of the disk


@dataclass(frozen=True)
class Planned:
    """What is to be expected. sampled_bytes: of the input; the figures below it are scaled from them.

    seconds: stage -> of work of one worker. dropped: reason -> share of the documents read. disk_bytes: needed in all;
    free_bytes: there are.
    """

    n_files: int
    n_bytes: int
    n_tasks: int
    workers: int
    sampled_bytes: int
    n_documents: int
    n_kept: int
    n_tokens: int
    seconds: dict[str, float]
    dropped: dict[str, float]
    disk_bytes: int
    free_bytes: int
    folder: str

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values()) / self.workers


def plan(loaded: Loaded) -> Planned:
    """Run a sample through every stage, and scale.

    Raises:
        HoneError: nothing to read, a bad row in the sample, or a setting that names what there is not.
    """
    return estimate(planned_work(loaded))


def planned_work(loaded: Loaded) -> Plan:
    """The settings, looked through, the tasks, and what they depend on besides.

    Raises:
        HoneError: nothing to read, or a setting that names what there is not.
    """
    require_datatrove()
    quiet()
    settings = loaded.config
    blocks_of(settings.filter.blocks)
    if settings.filter.scripts:
        script_pattern(settings.filter.scripts)
    if settings.filter.languages:
        refuse_unknown(settings.filter.languages)
    _, tokenizer = described(settings.tokens.tokenizer_name_or_path)
    if missing := [path for path in as_paths(settings.contamination.evaluation_files) if not path.exists()]:
        raise HoneError("no such file or folder", where=str(missing[0]), fix="check evaluation_files")
    tasks = tasks_of(settings.read, settings.output.task_mb * 1_000_000)
    evaluation = evaluation_hashes(settings.contamination)
    return Plan(settings=settings, tasks=tasks, tokenizer=tokenizer, evaluation=evaluation)


def estimate(whole: Plan) -> Planned:
    settings, parts = whole.settings, whole.parts
    n_bytes = sum(part.n_bytes for part in parts)
    output = settings.output.output_dir
    folder = settings.output.work_dir or output.parent
    with tempfile.TemporaryDirectory(prefix="hone-corpus-") as temporary:
        sample, sampled = sample_of(parts, Path(temporary))
        if not sample:
            fix = "files that cannot be cut are sampled up to 32 MB: name a smaller one to try the settings"
            raise HoneError("nothing here can be sampled", where=parts[0].path, fix=fix)
        work = begin_work(Path(temporary, "work"), whole.model_copy(update={"tasks": [sample]}))
        times: dict[str, float] = {}
        for stage in stages_of(work):
            done = [run_task(work.folder, stage.name, rank) for rank in range(stage.n_tasks)]
            times[stage.name] = sum(one.seconds for one in done)
        written = sum(path.stat().st_size for path in work.folder.rglob("*") if path.is_file())
        found = work.done("documents", 0)
        tokens = work.done("tokens", 0)
        dropped = {one.reason: one.count for one in merged(work, [("documents", 1), ("tokens", 1)])}
    scale = n_bytes / sampled
    n_read = max(1, found.n_read)
    return Planned(
        n_files=len({part.path for part in parts}),
        n_bytes=n_bytes,
        n_tasks=len(whole.tasks),
        workers=workers_of(settings),
        sampled_bytes=sampled,
        n_documents=round(found.n_read * scale),
        n_kept=round(tokens.n_documents * scale),
        n_tokens=round(tokens.n_tokens * scale),
        seconds={name: seconds * scale for name, seconds in times.items()},
        dropped={reason: count / n_read for reason, count in dropped.items()},
        disk_bytes=round(written * scale * SPARE),
        free_bytes=free_bytes(folder),
        folder=str(folder),
    )


def free_bytes(folder: Path) -> int:
    """What is free where a folder is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def refuse_small_disk(planned: Planned) -> None:
    """Raise a HoneError where the disk is too small for what is planned."""
    if planned.disk_bytes > planned.free_bytes:
        raise HoneError(
            f"the disk is too small: about {size(planned.disk_bytes)} are needed, {size(planned.free_bytes)} are free",
            where=planned.folder,
            fix="free some space, or name another place: output_dir=…, and work_dir=… for what lies between",
        )


def summary(planned: Planned) -> str:
    """One line, for the start of a run."""
    return (
        f"planned from a sample of {size(planned.sampled_bytes)}: {plural(planned.n_files, 'file')}, "
        f"{size(planned.n_bytes)}, {plural(planned.n_tasks, 'task')}, about {planned.n_tokens:,} tokens, "
        f"{duration(planned.total_s)} with {plural(planned.workers, 'worker')}, {size(planned.disk_bytes)} of disk"
    )


def sample_of(parts: list[Part], folder: Path) -> tuple[list[Part], int]:
    """Parts of the input, evenly spread, and how many bytes of it they stand for."""
    mean = sum(min(part.n_bytes, PIECE_BYTES) for part in parts) / max(1, len(parts))
    n = min(len(parts), math.ceil(SAMPLE_BYTES / max(1.0, mean)))  # pieces that make about as many bytes
    sample: list[Part] = []
    sampled = 0
    for i in range(n):
        piece = _piece(parts[i * len(parts) // n], folder)
        if piece is not None:
            sample.append(piece[0])
            sampled += piece[1]
        if sampled >= SAMPLE_BYTES:
            break
    return sample, sampled


def _piece(part: Part, folder: Path) -> tuple[Part, int] | None:
    """The beginning of a part, and the bytes of the input that it stands for; None where it cannot be sampled."""
    path = Path(part.path)
    lines = path.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    if part.how in ("groups", "hub"):
        return part.model_copy(update={"end": part.begin + 1}), max(1, part.n_bytes // (part.end - part.begin))
    if part.n_bytes <= PIECE_BYTES:
        return part, part.n_bytes
    if lines and path.suffix.lower() == ".gz":
        return _unpacked(part, folder)
    if lines:
        with path.open("rb") as stream:
            stream.seek(part.begin + PIECE_BYTES)
            stream.readline()
            end = min(stream.tell(), part.begin + part.n_bytes)
        return part.model_copy(update={"how": "lines", "end": end, "n_bytes": end - part.begin}), end - part.begin
    return (part, part.n_bytes) if part.n_bytes <= WHOLE_BYTES else None


def _unpacked(part: Part, folder: Path) -> tuple[Part, int] | None:
    """The first lines of a packed file in a file of their own, and how many packed bytes they were."""
    target = folder / f"{len(list(folder.iterdir()))}.jsonl"
    try:
        with Path(part.path).open("rb") as packed, gzip.GzipFile(fileobj=packed) as stream, target.open("wb") as out:
            while out.tell() < PIECE_BYTES and (line := stream.readline(PIECE_BYTES)):
                out.write(line)
            used = min(packed.tell(), part.n_bytes)
    except (OSError, EOFError):  # damaged: reading it will say so
        return part, part.n_bytes
    about = target.stat()
    update = {"path": str(target), "how": "file", "n_bytes": about.st_size, "mtime_ns": about.st_mtime_ns}
    return part.model_copy(update=update), used


def workers_of(settings: CorpusConfig) -> int:
    process = psutil.Process()
    here = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1
    return settings.output.workers or here
