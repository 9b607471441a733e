"""Processes that do tasks. One that is killed is noticed, and those of a run that is killed end themselves.

Datatrove's own local executor is not used: it waits for ever for a worker that was killed, and takes an empty file for
proof that a task is finished.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType

from hone.corpus.blocks import quiet
from hone.corpus.stages import run_task
from hone.corpus.work import Done
from hone.errors import HoneError

LOOKS_EVERY_S = 0.5


class Pool:
    """`workers` processes, started with the first task; one worker is this process itself."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a worker has one processor; inherited by the processes

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if kind is not None and not issubclass(kind, HoneError):  # Ctrl-C: what is half done is not waited for
            for process in list(self._pool._processes.values()):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, folder: Path, stage: str, n_tasks: int) -> Iterator[Done]:
        """The results of a stage's tasks, as they come.

        Raises:
            HoneError: the first one that a task raised; tasks that others are at are finished first.
        """
        if self.workers == 1:
            for rank in range(n_tasks):
                yield run_task(folder, stage, rank)
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork would take the threads' locks with it
            self._pool = ProcessPoolExecutor(self.workers, context, _begin, (os.getpid(),))
        waiting = {self._pool.submit(run_task, folder, stage, rank) for rank in range(n_tasks)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for one in done:
                    yield _result(one)
        finally:
            for one in waiting:
                one.cancel()


def _result(one: "Future[Done]") -> Done:
    try:
        return one.result()
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
