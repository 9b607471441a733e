"""Processes that do tasks. One that is killed is noticed, and those of a run that is killed end themselves.

Datatrove's own local executor is not used: it waits for ever for a worker that was killed, and takes an empty file for
proof that a task is finished.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from hone.corpus.blocks import quiet
from hone.corpus.stages import run_task
from hone.corpus.work import Done
from hone.errors import HoneError, first_line

P = ParamSpec("P")
T = TypeVar("T")
LOOKS_EVERY_S = 0.5


@contextmanager
def processes(n: int) -> "Iterator[ProcessPoolExecutor]":
    """New processes, started when they are needed; killed where what is done with them is interrupted."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each has one processor; inherited
    context = multiprocessing.get_context("spawn")  # a fork would take the threads' locks with it
    executor = ProcessPoolExecutor(n, context, _begin, (os.getpid(),))
    try:
        yield executor
    except HoneError:  # tasks that others are at are finished first
        raise
    except BaseException:
        for process in list(executor._processes.values()):
            process.kill()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class Submits(Protocol):
    """What `results` asks of an executor."""

    def submit(self, call: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> "Future[T]":
        """Begin a call somewhere else."""
        ...


class RayExecutor:
    """The tasks of a Ray cluster: the one of RAY_ADDRESS, or one of this machine that ends with this process.

    Datatrove's own executor for Ray is not used: it takes empty files for proof, and says of a failed task only that
    one is missing.
    """

    def __init__(self) -> None:
        if find_spec("ray") is None:
            raise HoneError("Ray is not installed", where="executor", fix="pip install 'hone-lm[ray]'")
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        try:
            ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            fix = "`ray status` says whether there is one; RAY_ADDRESS names it"
            raise HoneError(f"no Ray cluster: {first_line(error)}", where="executor", fix=fix) from error

    def submit(self, call: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> "Future[T]":
        import ray

        task: Future[T] = ray.remote(call).options(num_cpus=1, max_retries=3).remote(*arguments, **named).future()
        return task


def once(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """A call in a process of its own, which takes all that it imported with it."""
    with processes(1) as executor:
        return _result(executor.submit(call, *arguments, **named))


def results(executor: Submits | None, folder: Path, stage: str, n_tasks: int) -> Iterator[Done]:
    """The results of a stage's tasks, as they come; without an executor they are done here.

    Raises:
        HoneError: the first one that a task raised, or a worker was killed.
    """
    if executor is None:
        for rank in range(n_tasks):
            yield run_task(folder, stage, rank)
        return
    waiting = {executor.submit(run_task, folder, stage, rank) for rank in range(n_tasks)}
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for one in done:
                yield _result(one)
    finally:
        for one in waiting:
            one.cancel()


def _result(one: "Future[T]") -> T:
    try:
        return one.result()
    except HoneError as error:
        raise getattr(error, "cause", error) from None  # Ray's errors hold that of the task
    except BrokenProcessPool:
        raise HoneError(
            "a worker was killed, perhaps because the memory ran out",
            where="hone corpus run",
            fix="set fewer workers, or a smaller task_mb; the same command goes on with what is missing",
        ) from None


def _begin(parent: int) -> None:
    """In a new worker: Ctrl-C is for the process that started it, with which it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOKS_EVERY_S)
    os._exit(1)
