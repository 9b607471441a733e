"""The one thread that owns the engines: jobs come in through a queue, pieces of answers go out to the event loop.

Engines take their steps in turn, one each, so that many requests to one model do not stop another. A piece carries the
fingerprint of the engine it came from, never the one that was asked for.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hone.errors import HoneError
from hone.inference.engine import Engine, Request, Row, Step
from hone.serve.models import Served
from hone.serve.refusal import JsonObject, Refusal, internal

log = logging.getLogger("hone")

RETRY_S = 1  # what a client is told to wait when the queue is full


@dataclass(frozen=True)
class Piece:
    """A step of one of a job's answers. index: which. ended: why it ended, None while it goes on."""

    index: int
    token: int
    text: str
    logprob: float | None
    top: list[tuple[int, float]] | None
    ended: str | None
    fingerprint: str


@dataclass(eq=False)
class Job:
    """The answers of one request.

    events: pieces, or what ends it before its time; filled on the loop it was made in.
    """

    name: str
    requests: Sequence[Request]
    loop: asyncio.AbstractEventLoop
    events: "asyncio.Queue[Piece | Exception]" = field(default_factory=asyncio.Queue)
    rows: list[Row] = field(default_factory=list)
    n_left: int = 0
    over: bool = False

    def __post_init__(self) -> None:
        self.n_left = len(self.requests)


@dataclass(frozen=True)
class Load:
    """How busy a model is: rows that grow, and rows that wait for a place."""

    growing: int = 0
    waiting: int = 0


class Worker:
    """Starts with `start`, ends with `stop`. `submit` and `cancel` may be called from any thread."""

    def __init__(self, models: Sequence[Served], *, cache_bytes: int, max_rows: int, most_jobs: int) -> None:
        self._models = {one.name: one for one in models}
        self._sizes: JsonObject = {"cache_bytes": cache_bytes, "max_rows": max_rows}
        self._engines = {one.name: Engine(one.model, **self._sizes) for one in models}
        self._most_jobs = most_jobs
        self._inbox: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._owners: dict[Row, tuple[Job, int]] = {}
        self._thread = threading.Thread(target=self._work, name="hone-engines", daemon=True)
        self.load: Mapping[str, Load] = {name: Load() for name in self._engines}

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """End after the step it is in."""
        self._inbox.put(("stop", None))
        self._thread.join(patience_s)

    @property
    def n_jobs(self) -> int:
        """Requests that are being answered or wait."""
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            Refusal: so many are waiting already that another is not worth its wait.
        """
        with self._lock:
            if len(self._jobs) >= self._most_jobs:
                message = f"{self._most_jobs} requests are being answered or wait already; ask again in a moment"
                raise Refusal(429, message, headers={"retry-after": str(RETRY_S)})
            self._jobs.add(job)
        self._inbox.put(("add", job))

    def cancel(self, job: Job) -> None:
        """Let go of a job whose client is gone, or that took too long; of one that is over, nothing happens."""
        if not job.over:
            self._inbox.put(("cancel", job))

    # ---- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._obey():
            for name, engine in self._engines.items():
                if engine.busy:
                    self._step(name, engine)
            self.load = {name: Load(engine.n_rows, engine.n_waiting) for name, engine in self._engines.items()}

    def _obey(self) -> bool:
        """Take what has come in; waits for it where there is nothing else to do. False to end."""
        wait = not any(engine.busy for engine in self._engines.values())
        while True:
            try:
                what, job = self._inbox.get(wait)
            except queue.Empty:
                return True
            wait = False
            if job is None:
                return False
            if what == "add":
                self._add(job)
            else:
                self._drop(job)
            if what != "add" and not any(engine.busy for engine in self._engines.values()):
                self.load = {name: Load() for name in self._engines}
                wait = True

    def _add(self, job: Job) -> None:
        engine = self._engines[job.name]
        try:
            for i, request in enumerate(job.requests):
                row = engine.add(request)
                job.rows.append(row)
                self._owners[row] = (job, i)
        except Exception as error:
            self._fail([job], error)

    def _step(self, name: str, engine: Engine) -> None:
        try:
            steps = engine.step()
        except Exception as error:  # a batch that failed says nothing about its rows: all go, and the engine is new
            jobs = {job for job, _ in self._owners.values() if job.name == name}
            self._fail(sorted(jobs, key=id), error)
            self._engines[name] = Engine(self._models[name].model, **self._sizes)
            return
        pieces: dict[Job, list[Piece | Exception]] = {}
        for step in steps:
            if (owner := self._owners.get(step.row)) is not None:
                job, index = owner
                pieces.setdefault(job, []).append(self._piece(name, step, index))
        for job, found in pieces.items():
            _deliver(job, found)

    def _piece(self, name: str, step: Step, index: int) -> Piece:
        if step.ended is not None:
            job, _ = self._owners.pop(step.row)
            job.n_left -= 1
            if job.n_left == 0:
                self._close(job)
        fingerprint = self._models[name].fingerprint
        return Piece(index, step.token, step.text, step.logprob, step.top, step.ended, fingerprint)

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        log.error("%s", error, exc_info=None if isinstance(error, HoneError) else error)
        refusal = Refusal(500, error.what) if isinstance(error, HoneError) else internal(error)
        for job in jobs:
            self._drop(job)
            _deliver(job, [refusal])

    def _drop(self, job: Job) -> None:
        engine = self._engines[job.name]
        for row in job.rows:
            if self._owners.pop(row, None) is not None:
                engine.remove(row)
        self._close(job)

    def _close(self, job: Job) -> None:
        job.over = True
        with self._lock:
            self._jobs.discard(job)


def _deliver(job: Job, events: "list[Piece | Exception]") -> None:
    """Hand events over to the job's loop."""

    def put() -> None:
        for event in events:
            job.events.put_nowait(event)

    try:
        job.loop.call_soon_threadsafe(put)
    except RuntimeError:  # the loop is closed: the server ends, nobody listens
        job.over = True
