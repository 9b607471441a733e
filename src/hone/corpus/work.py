"""The work folder of a corpus: what is planned, and the results of the tasks, each in a folder of its own.

    plan.json              the settings and the tasks' inputs, under a seal
    tokenizer/             as it was when it was planned
    documents/00000/       a result: written aside, brought to the disk, described by size and SHA-256, and renamed

A result counts only if every byte of it is as its description says, and if its key fits: a hash of the settings it
depends on and of the results it was made from. So a task whose inputs are others is done again, whoever did it before.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import Field

from hone.corpus.inputs import Part, rows_before
from hone.corpus.schema import CorpusConfig
from hone.corpus.tokenizer import described, keep
from hone.errors import HoneError
from hone.files import disk_errors, fsync_path, read_sealed
from hone.manifest import describe_files
from hone.publish import META, begin, discard, publish, retire, seal, seal_problems
from hone.results import File, Result, read, write
from hone.results.corpus import DroppedDocuments, InputFile, Shard, TokenizerAbout

FORMAT = 1  # raise when a task would write other bytes: results of before are then made anew
PLAN = "plan.json"
SETTING = "work_dir=…"
NAMED = 10  # places kept of each reason


class Place(Result):
    """Where a document was found: a part of a task, and the line (or row) in it; 0 for a whole text file."""

    part: int
    line: int


class TaskDropped(Result):
    """Documents that a task left out for one reason, and where the first of them are."""

    reason: str
    count: int
    first: list[Place]


class About(Result):
    """What a task says of its result.

    n_documents, n_bytes: written, of text in UTF-8. n_tokens: written.
    """

    n_read: int = 0
    n_documents: int = 0
    n_bytes: int = 0
    n_tokens: int = 0
    inputs: list[InputFile] = Field(default_factory=list)
    dropped: list[TaskDropped] = Field(default_factory=list)
    masked: dict[str, int] = Field(default_factory=dict)
    shards: list[Shard] = Field(default_factory=list)


class Done(About):
    """A finished task: what it said, its key, and the SHA-256 of each file. seconds: of work; fresh: done just now."""

    key: str
    hashes: dict[str, str]
    seconds: float
    fresh: bool = False


class Plan(File):
    """plan.json. settings: of the whole configuration. evaluation: the evaluation items' files, by their SHA-256."""

    settings: CorpusConfig
    tasks: list[list[Part]]
    tokenizer: TokenizerAbout
    evaluation: list[str]

    @property
    def parts(self) -> list[Part]:
        return [part for task in self.tasks for part in task]


@dataclass(frozen=True)
class Work:
    """An opened work folder."""

    folder: Path
    plan: Plan

    @property
    def settings(self) -> CorpusConfig:
        return self.plan.settings

    @property
    def n_tasks(self) -> int:
        return len(self.plan.tasks)

    def result(self, stage: str, rank: int) -> Path:
        return self.folder / stage / f"{rank:05d}"

    def done(self, stage: str, rank: int) -> Done:
        """What a finished task said of its result.

        Raises:
            HoneError: it is not finished.
        """
        found = finished(self.result(stage, rank))
        if found is None:
            fix = "the same command goes on with what is missing"
            raise HoneError("the result of an earlier task is missing", where=str(self.result(stage, rank)), fix=fix)
        return found

    def all_done(self, stage: str, n: int) -> list[Done]:
        return [self.done(stage, rank) for rank in range(n)]

    @cached_property
    def documents(self) -> list[Done]:
        return self.all_done("documents", self.n_tasks)

    def place(self, rank: int, place: Place) -> str:
        """'rows.jsonl:17': lines are counted in the file, whatever part of it was read."""
        part = self.plan.tasks[rank][place.part]
        return f"{part.name}:{place.line + rows_before(part)}" if place.line else part.name


def finished(folder: Path) -> Done | None:
    """What a published result says, without a look at its files; None where there is none that can be read."""
    try:
        found = read_sealed(folder / META)
        found.pop("files")
        return Done.model_validate(found)
    except (HoneError, OSError, ValueError, KeyError):
        return None


def open_work(folder: Path) -> Work:
    """The work folder as it was planned.

    Raises:
        HoneError: nothing was planned here.
    """
    plan = read(Plan, folder / PLAN)
    if plan is None:
        raise HoneError("no plan here", where=str(folder), fix="`hone corpus run CONFIG` plans and runs")
    return Work(folder, plan)


def begin_work(folder: Path, plan: Plan) -> Work:
    """A work folder for a plan; results that are there stay, and count where their keys fit."""
    with disk_errors(folder, SETTING):
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / PLAN, plan)
        keep(described(plan.settings.tokens.tokenizer_name_or_path)[0], folder)
    return Work(folder, plan)


def key_of(stage: str, settings: Mapping[str, object], inputs: Iterable[object]) -> str:
    """The key of a task: what decides the bytes of its result."""
    text = json.dumps([FORMAT, stage, settings, list(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def do(folder: Path, key: str, write_result: Callable[[Path], About]) -> Done:
    """The result of a task: the one that is there if it is whole, or a new one.

    Args:
        write_result: writes the files into a folder and says what they are.

    Raises:
        HoneError: the disk is full, or what the task itself raises.
    """
    there = finished(folder)
    if there is not None and there.key == key and not seal_problems(folder, whole=True):
        return there
    began = time.perf_counter()
    with disk_errors(folder, SETTING):
        if folder.exists():
            retire(folder)
        aside = begin(folder)
        try:
            about = write_result(aside.path)
            for path in aside.path.rglob("*"):
                fsync_path(path)
            files = describe_files(aside.path)
            hashes = {name: one["sha256"] for name, one in files.items()}
            seconds = round(time.perf_counter() - began, 3)
            done = Done(**about.model_dump(), key=key, hashes=hashes, seconds=seconds)
            seal(aside.path, done.model_dump(mode="json"), files)
            publish(aside, folder)
        finally:
            discard(aside)
    return done.model_copy(update={"fresh": True})


class Drops:
    """Documents that a task leaves out, counted by reason."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[Place]] = {}

    def add(self, reason: str, place: Place) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < NAMED:
            first.append(place)

    def listed(self) -> list[TaskDropped]:
        return [TaskDropped(reason=r, count=n, first=self._first[r]) for r, n in self._counts.items()]


def merged(work: Work, stages: Iterable[tuple[str, int]]) -> list[DroppedDocuments]:
    """What tasks left out, in all, with the first places in the order of the tasks."""
    counts: dict[str, int] = {}
    first: dict[str, list[str]] = {}
    for stage, n in stages:
        for rank, done in enumerate(work.all_done(stage, n)):
            for one in done.dropped:
                counts[one.reason] = counts.get(one.reason, 0) + one.count
                named = first.setdefault(one.reason, [])
                named += [work.place(rank, place) for place in one.first[: NAMED - len(named)]]
    return [DroppedDocuments(reason=r, count=n, first=first[r]) for r, n in counts.items()]
