"""Planning, running and sealing a corpus. The same call goes on where an earlier one was ended, however it was.

>>> run(load("code.yaml"), say=print).manifest.total("train")                               # doctest: +SKIP
(120000, 98300000)
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hone.corpus.documents import input_of
from hone.corpus.load import Loaded
from hone.corpus.plan import Planned, estimate, planned_work, refuse_small_disk, summary, workers_of
from hone.corpus.schema import CorpusConfig
from hone.corpus.seal import corpus_key, seal, sealed_already
from hone.corpus.slurm import is_finished, submit
from hone.corpus.stages import Stage, stages_of
from hone.corpus.work import Plan, Work, begin_work
from hone.corpus.workers import RayExecutor, Submits, once, processes, results
from hone.data.shards import READ_WHOLE_BYTES
from hone.errors import HoneError, Interrupted
from hone.files import disk_errors
from hone.publish import leftovers
from hone.results.corpus import CorpusManifest

Say = Callable[[str], None]
SAMPLED_FROM = 50_000_000  # bytes of input: a sample is measured before more than this is begun
SAID_EVERY_S = 5.0


@dataclass(frozen=True)
class StageTime:
    """What a stage took. n_fresh: tasks done now, the others were there. seconds: of work, all workers together."""

    name: str
    n_tasks: int
    n_fresh: int
    n_bytes: int
    seconds: float
    wall_s: float


@dataclass(frozen=True)
class Ran:
    """A sealed corpus. there: it was there already. stages: what each took."""

    folder: Path
    manifest: CorpusManifest
    stages: list[StageTime]
    there: bool = False


def work_folder(settings: CorpusConfig) -> Path:
    output = settings.output
    return output.work_dir or output.output_dir.with_name(f"{output.output_dir.name}.work")


def run(loaded: Loaded, say: Say) -> Ran | None:
    """Make the corpus, or what is missing of it; None where that is for jobs that were submitted.

    Raises:
        HoneError: a bad row, a full disk, a worker that was killed. What is finished stays; the same call goes on.
    """
    settings = loaded.config
    output, folder, workers = settings.output.output_dir, work_folder(settings), workers_of(settings)
    with _alone(folder):
        try:
            begun = once(_begin, loaded, folder) if workers > 1 else _begin(loaded, folder)
            if begun.there is not None:
                shutil.rmtree(folder, ignore_errors=True)
                return Ran(output, begun.there, [], there=True)
            if begun.planned is not None:
                say(summary(begun.planned))
            work = Work(folder, begun.plan)
            stages = stages_of(work)
            _remove_leftovers(work, output)
            if settings.output.executor == "slurm" and not is_finished(work, stages):
                submit(work, stages, say)
                return None
            with _executor(settings, min(workers, work.n_tasks)) as executor:
                took = [_run_stage(work, stage, executor, say) for stage in stages]
        except KeyboardInterrupt:
            raise Interrupted("the same command goes on with what is missing") from None
        manifest = seal(work, stages, loaded, output)
        if not settings.output.keep_work:
            shutil.rmtree(folder, ignore_errors=True)
    return Ran(output, manifest, took)


def _executor(settings: CorpusConfig, workers: int) -> AbstractContextManager[Submits | None]:
    """What does the tasks: processes, Ray's, or with one worker this process."""
    if settings.output.executor == "ray":
        return nullcontext(RayExecutor())
    return processes(workers) if workers > 1 else nullcontext()


@dataclass(frozen=True)
class _Begun:
    """What there is to do. planned: what it will cost, where that was measured; there: the corpus, if it is there."""

    plan: Plan
    planned: Planned | None = None
    there: CorpusManifest | None = None


def _begin(loaded: Loaded, folder: Path) -> _Begun:
    """Plan, and write the plan into the work folder: all that needs the tokenizer by its name, and so torch.

    Raises:
        HoneError: nothing to read, another corpus is there, or the disk is too small.
    """
    plan = planned_work(loaded)
    output = plan.settings.output.output_dir
    if (there := sealed_already(output, corpus_key(plan))) is not None:
        _refuse_other_inputs(output, there, plan)
        return _Begun(plan, there=there)
    planned = None
    if not folder.exists() and sum(part.n_bytes for part in plan.parts) > SAMPLED_FROM:
        planned = estimate(plan)
        refuse_small_disk(planned)
    begin_work(folder, plan)
    return _Begun(plan, planned)


def _refuse_other_inputs(output: Path, there: CorpusManifest, plan: Plan) -> None:
    """Raise a HoneError where an input of the same name and size is another one; large inputs are not read again."""
    parts = plan.parts
    if sum(part.n_bytes for part in parts) > READ_WHOLE_BYTES or len(parts) != len(there.inputs):
        return
    for part, known in zip(parts, there.inputs):
        now = input_of(part, plan.settings)
        if (now.first, now.n_bytes) == (known.first, known.n_bytes) and now != known:
            fix = "delete the corpus, or choose another output_dir, and run again"
            raise HoneError(f"an input has changed since: {known.file}", where=str(output), fix=fix)


def _run_stage(work: Work, stage: Stage, executor: Submits | None, say: Say) -> StageTime:
    """All tasks of a stage, with a line now and then."""
    began = said = time.monotonic()
    fresh = n_bytes = 0
    seconds = 0.0
    for done, found in enumerate(results(executor, work.folder, stage.name, stage.n_tasks), 1):
        if found.fresh:
            fresh, n_bytes, seconds = fresh + 1, n_bytes + found.n_bytes, seconds + found.seconds
        now = time.monotonic()
        if now - said > SAID_EVERY_S and done < stage.n_tasks:
            left = (now - began) / done * (stage.n_tasks - done)
            say(f"{stage.name}: {done:,} of {stage.n_tasks:,} tasks, about {left:.0f} s left")
            said = now
    wall = time.monotonic() - began
    took = StageTime(stage.name, stage.n_tasks, fresh, n_bytes, seconds, wall)
    there = f", {stage.n_tasks - fresh:,} of them there already" if fresh < stage.n_tasks else ""
    say(f"{stage.name}: {stage.n_tasks:,} {'task' if stage.n_tasks == 1 else 'tasks'}{there}, {wall:.1f} s")
    return took


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the work folder: a second process is refused; a dead process's lock does not count."""
    lock = folder.with_name(f"{folder.name}.lock")
    with disk_errors(folder, "work_dir=…"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        try:
            held.acquire(timeout=0)
        except Timeout:
            fix = "wait for it, or choose another work_dir"
            raise HoneError("another `hone corpus run` works here", where=str(folder), fix=fix) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        held.release()


def _remove_leftovers(work: Work, output: Path) -> None:
    """What killed processes left half written, and results of tasks that the plan no longer has."""
    known = {stage.name: stage.n_tasks for stage in stages_of(work)}
    for folder in (output.parent, *(path for path in work.folder.iterdir() if path.is_dir())):
        for path in leftovers(folder):
            if folder != output.parent or path.name.startswith(f"{output.name}.tmp-"):
                shutil.rmtree(path, ignore_errors=True)
    for folder in [path for path in work.folder.iterdir() if path.is_dir()]:
        for path in folder.iterdir():
            if path.name.isdigit() and int(path.name) >= known.get(folder.name, 0):
                shutil.rmtree(path, ignore_errors=True)
