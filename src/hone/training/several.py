"""Several trainings, each in a run folder of its own, with one measurement of a base that all of them share.

One after the other in this process, or `jobs` at a time in processes of their own. The same call goes on: what is
finished is not trained again.
"""

import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hone.config.dump import resolved_yaml
from hone.config.schema import Config, Where
from hone.errors import HoneError, Interrupted
from hone.files import write_text_atomic
from hone.hardware import count_cpus, read_cgroup
from hone.runs import REPORT, RESOLVED, Run, open_run
from hone.tasks.task import Task
from hone.training.callbacks import interrupted_by_signals
from hone.training.train import train

log = logging.getLogger("hone")

WRITTEN_LAST = ("base.json", "base.code.json")  # of eval/: where they are, what belongs to them is there too
LOOK_EVERY_S = 0.2
THREADS = "OMP_NUM_THREADS"


def train_several(
    configs: Sequence[Config], task: Task | None, *, jobs: int = 1, one_base: bool, measured: Run | None = None
) -> tuple[list[Run], Run | None]:
    """The finished runs, in the order of their configurations; and one that measured the base for all, in this call.

    Args:
        task: one of your own, in the place of the one that the configs name; in this process only.
        one_base: the base's numbers are the same for all: it is measured once.
        measured: a run that has them, of these files and settings.

    Raises:
        HoneError: as `train`, with the name of the run; the others keep what they have.
        Interrupted: a signal came; the same call goes on from there.
    """
    left = [config for config in configs if not _is_finished(config)]
    measures_first = one_base and measured is None and all(config.eval.eval_base for config in left)
    alone = len(left) if jobs == 1 else int(measures_first)  # in this process, before any other
    for number, config in enumerate(left[:alone], 1):
        folder = Path(config.output.output_dir)
        log.info("%s (%d of %d): %s", folder.name, number, len(left), folder)
        is_new = not Run(folder).has("base")
        _share_base(measured, config)
        run = train(config, task)
        gc.collect()  # model and trainer refer to each other: the next one needs their memory
        if measured is None and one_base and is_new and run.has("base"):
            measured = run
    for config in left[alone:]:
        _share_base(measured, config)
    _in_processes({Path(config.output.output_dir): resolved_yaml(config) for config in left[alone:]}, jobs)
    return [Run(Path(config.output.output_dir)) for config in configs], measured


def _is_finished(config: Config) -> bool:
    """Whether this very run is trained, measured and reported; another one's folder is refused."""
    if config.output.overwrite or not (Path(config.output.output_dir) / REPORT).is_file():
        return False
    with open_run(config) as run:
        if run.status.get("stage") != "finished":
            return False
    log.info("%s is finished", run.folder)
    return True


def _share_base(measured: Run | None, config: Config) -> None:
    """Give a run that has not begun the base's numbers; `train` measures no base that is measured."""
    if measured is None or config.output.overwrite:
        return
    with open_run(config) as run:
        if run.status["status"] == "unknown" and not run.has("base"):
            files = sorted((measured.folder / "eval").glob("base.*"), key=lambda file: file.name in WRITTEN_LAST)
            for file in files:
                write_text_atomic(run.folder / "eval" / file.name, file.read_text(encoding="utf-8"))
            log.info("the base is measured already: as in %s", measured.folder.name)


def refuse_single_run(config: Config, task: Task | None, jobs: int) -> None:
    """What several trainings of one config need, and a single one does not; `task`: one of the caller's own."""
    if jobs < 1:
        raise HoneError(f"{jobs} trainings at a time", where="--jobs", fix="give 1 or more")
    if jobs > 1 and task is not None:
        fix = "leave out jobs, or name a task of hone's"
        raise HoneError("a task of your own is not known to other processes", where="jobs", fix=fix)
    if config.train.resume_from_checkpoint not in ("auto", "never"):
        raise HoneError(
            "resume_from_checkpoint names one run's checkpoint, and each of these is a run of its own",
            where=config.where("resume_from_checkpoint"),
            fix="remove it: each run goes on from its own newest checkpoint",
        )
    data = config.data
    if not (data.validation_file or data.dataset_validation_split or data.validation_split_percentage):
        raise nothing_measured(config.where)
    folder = Path(config.output.output_dir)
    if (folder / RESOLVED).is_file():
        fix = f"choose another, in which each training gets a folder: output_dir={folder}-several"
        raise HoneError("the output folder is a single run", where=str(folder), fix=fix)


def nothing_measured(where: Where) -> HoneError:
    return HoneError(
        "there are no validation rows, so that no two runs can be compared",
        where=where("validation_split_percentage"),
        fix="name some: validation_file=…, or hold some out: validation_split_percentage=10",
    )


# ---- processes -----------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """A training in a process of its own, and what it says."""

    folder: Path
    slot: int
    process: "subprocess.Popen[bytes]"
    said: IO[bytes]

    def last_words(self) -> str:
        """The message it ended with, without the lines before it."""
        self.said.seek(0)
        text = self.said.read().decode("utf-8", errors="replace").strip()
        return text[text.rfind("error: ") + 7 :] if "error: " in text else text[-2000:]


def _in_processes(texts: Mapping[Path, str], jobs: int) -> None:
    """Train all of them, run folder -> its whole config, so many at a time."""
    waiting, running = list(texts), list[_Job]()
    try:
        with interrupted_by_signals():
            while waiting or running:
                free = [slot for slot in range(jobs) if all(slot != job.slot for job in running)]
                running += [_begun(folder, texts[folder], slot, jobs) for slot, folder in zip(free, waiting)]
                del waiting[: len(free)]
                time.sleep(LOOK_EVERY_S)
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    _ended(job)
                    log.info(
                        "%s is finished, %d of %d are left", job.folder.name, len(waiting) + len(running), len(texts)
                    )
    except KeyboardInterrupt:
        raise Interrupted("stopped while training: the same command goes on from there") from None
    finally:
        for job in running:
            job.process.terminate()  # it saves a checkpoint
        for job in running:
            job.process.wait()
            job.said.close()


def _begun(folder: Path, text: str, slot: int, jobs: int) -> _Job:
    """Start one: the whole config in a file beside its folder, its share of the processors, one GPU where there are."""
    file = folder.with_name(f"{folder.name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(file, text)
    environ = dict(os.environ)
    environ.setdefault(THREADS, str(max(1, int(count_cpus(read_cgroup().cpus).usable) // jobs)))
    if gpus := _gpus():
        environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    said = tempfile.TemporaryFile()  # noqa: SIM115 whoever waits for the process closes it
    process = subprocess.Popen(
        [sys.executable, "-m", "hone", "train", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env=environ,
        start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
    )
    log.info("%s is begun: %s", folder.name, folder / "train.log")
    return _Job(folder, slot, process, said)


def _gpus() -> list[str]:
    """The names of the GPUs that this process may use."""
    import torch

    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return given or [str(index) for index in range(torch.cuda.device_count())]


def _ended(job: _Job) -> None:
    code = job.process.returncode
    words = job.last_words()
    job.said.close()
    if code == 130:
        raise Interrupted(f"{job.folder.name} was stopped: the same command goes on from there")
    if code:
        raise HoneError(f"{job.folder.name}: {words or f'ended with {code}'}", where=str(job.folder))
