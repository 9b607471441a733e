"""Several processes that train together: which one is first, what they agree on, and one message when it ends badly.

A launcher (torchrun, accelerate, or `hone train nproc_per_node=2`) starts the same command several times and tells each
process in its environment which one it is. `joined` makes a group of them. The first one, the primary, holds the run
folder, measures, writes and speaks; the others compute their share of each step, and wait for it everywhere else.

Waiting asks the group's store a few times a second. A collective would use the processor for it, end after its timeout
and notice neither a signal nor the failure of another process.

>>> with joined():                                                                     # doctest: +SKIP
...     bf16 = from_primary(measure_precision)
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hone.errors import HoneError, Interrupted, said

if TYPE_CHECKING:
    import numpy as np
    import torch

T = TypeVar("T")
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # between two steps, or while a checkpoint is written
LOOK_S = 0.05  # how often a process that waits looks
FAILED, WHY = "hone/failed", "hone/why"  # whatever the attempt: a restart does not repair a mistake
CALLS, ANSWER, LOST_ONE = "hone/calls", "hone/answer", "hone/lost"
# How torch says that another process of a collective is not there any more.
LOST = ("connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "timed out",
        "remote process exited", "connectfullmesh failed", "rank ", "socket")  # fmt: skip
BY_HONE = "HONE_LAUNCHED"  # in the environment of processes that `hone train nproc_per_node=…` started
INTERRUPTED, LOST_CODE = 130, 76  # exit codes
GO_ON = "the same command goes on from the last checkpoint; max_restarts=3 starts all of them again by itself"


class Elsewhere(SystemExit):
    """Another process of the group has failed and says why: this one ends without a word."""


def started_together() -> bool:
    """Whether a launcher says that this process is one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ


def world() -> int:
    """How many processes train together; 1 outside `joined`."""
    group = _group()
    return group.get_world_size() if group else 1


def rank() -> int:
    group = _group()
    return group.get_rank() if group else 0


def primary() -> bool:
    """Whether this process holds the run folder and speaks; always where it is alone."""
    return rank() == 0


def on_one_machine() -> bool:
    return world() == int(os.environ.get("LOCAL_WORLD_SIZE") or world())


def _group() -> Any:
    """torch.distributed where there is a group; torch is not imported for the answer that there is none."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None


# ---- a group, from its beginning to its end --------------------------------------------------------------------------


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within it the processes of a launcher are one group; entered again, or by a process that is alone, it is nothing.

    Whatever ends one of them ends all: one says why, with exit code 1 (130 after a signal), and the others are silent.

    Raises:
        Elsewhere: another process says why.
        HoneError: the launcher has started one process where several were asked for, or one has no GPU of its own.
    """
    refuse_a_launcher_of_one()
    if not started_together() or _group():
        yield
        return
    import torch.distributed as dist

    store, number, count = next(dist.rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))
    if store.check([FAILED]):  # an attempt before this one failed by a mistake, which a restart does not repair
        raise Elsewhere(1)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if _own_gpu() else "gloo",
            store=dist.PrefixStore(
                _now("hone/group"), store
            ),  # the launcher's store still has an earlier attempt's keys
            rank=number,
            world_size=count,
            timeout=COLLECTIVE_TIMEOUT,
        )
    except (RuntimeError, HoneError) as error:
        raise _as_it_is_told(error, store) from None
    try:
        with contextlib.nullcontext() if primary() else _silent():
            yield
    except BaseException as error:
        raise _as_it_is_told(error, store) from error.__cause__
    finally:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()


def refuse_a_launcher_of_one() -> None:
    """Raise a HoneError for `accelerate launch` on a CPU: it prepares several processes, and starts one."""
    alone = "RANK" not in os.environ and "MASTER_ADDR" in os.environ
    if alone and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        raise HoneError(
            "accelerate launch starts a single process on CPUs, whatever its --num_processes",
            fix="hone train CONFIG nproc_per_node=2 starts several, and so does torchrun --nproc_per_node 2 -m hone …",
        )


def _own_gpu() -> bool:
    """Whether there are GPUs; this process then uses the one of its number."""
    import torch

    if not torch.cuda.is_available():
        return False
    number, count = int(os.environ.get("LOCAL_RANK") or 0), torch.cuda.device_count()
    if number < count:
        torch.cuda.set_device(number)
        return True
    fix = (
        f"start at most {count} a machine: nproc_per_node={count}; or hide the GPUs: CUDA_VISIBLE_DEVICES= use_cpu=true"
    )
    raise HoneError(f"process {number + 1} of this machine has no GPU of its own: it has {count}", fix=fix)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What the primary says is said once."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _as_it_is_told(error: BaseException, store: Any) -> BaseException:
    """The error as this process is to end with it: the first to fail tells, the others are silent."""
    if isinstance(error, Elsewhere | SystemExit | GeneratorExit):
        return error
    cause = cause_of(error, store)
    if isinstance(cause, Elsewhere):
        return cause
    if isinstance(cause, Interrupted | KeyboardInterrupt):
        return cause if primary() else Elsewhere(INTERRUPTED)
    try:
        if isinstance(cause, Lost) and BY_HONE in os.environ:
            return SystemExit(LOST_CODE)  # who launched knows more of it
        if store.add(_now(LOST_ONE) if isinstance(cause, Lost) else FAILED, 1) > 1:
            return Elsewhere(1)
        if not isinstance(cause, Lost):
            store.set(WHY, said(str(cause)))
    except Exception:  # the launcher has gone, and its store with it
        return cause if primary() else Elsewhere(1)
    return cause


class Lost(HoneError):
    """Another process was killed, or cannot be reached."""


def cause_of(error: BaseException, store: Any = None) -> BaseException:
    """What an error comes from, where processes depend on each other.

    An `Elsewhere` if another process has failed and says so; `Lost` if one does not answer any more; or the error.
    """
    store = store or (_store() if world() > 1 else None)
    if store is None or isinstance(error, Elsewhere):
        return error
    with contextlib.suppress(Exception):  # the store may have gone with the launcher
        if store.check([WHY]):
            gone = Elsewhere(1)
            gone.__cause__ = HoneError(store.get(WHY).decode())
            return gone
    if _is_lost(error):
        return Lost("the training has lost a process: it was killed, or its machine cannot be reached", fix=GO_ON)
    return error


@contextlib.contextmanager
def causes_named() -> Iterator[None]:
    """Raise in the place of an error what it comes from (`cause_of`)."""
    try:
        yield
    except BaseException as error:
        cause = cause_of(error)
        if cause is error:
            raise
        raise cause from cause.__cause__


def _is_lost(error: BaseException) -> bool:
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text) and any(sign in text for sign in LOST)


# ---- what they agree on ----------------------------------------------------------------------------------------------


def from_primary(compute: Callable[[], T]) -> T:
    """What the primary computes, in JSON's types; the others wait for it and do nothing meanwhile.

    A HoneError or OSError of `compute` is raised by all of them.
    """
    if world() == 1:
        return compute()
    store = _store()
    key = _now(f"{ANSWER}/{store.add(_now(f'{CALLS}/{rank()}'), 1)}")
    if primary():
        try:
            answer: Any = compute()
        except HoneError as error:
            store.set(key, json.dumps({"mistake": [error.what, error.where, error.fix]}))
            raise
        except OSError as error:
            store.set(key, json.dumps({"disk": [error.errno, error.strerror, str(error.filename or "")]}))
            raise
        store.set(key, json.dumps({"answer": answer}))
        return answer
    while not store.check([key]):
        if store.check([FAILED]):
            raise Elsewhere(1)
        time.sleep(LOOK_S)
    found = json.loads(store.get(key))
    if mistake := found.get("mistake"):
        raise HoneError(mistake[0], where=mistake[1], fix=mistake[2])
    if disk := found.get("disk"):
        raise OSError(*disk)
    passed_on: T = found["answer"]
    return passed_on


def primary_first(compute: Callable[[], T]) -> T:
    """What each process computes for itself, the primary before the others: they find in the cache what it left."""
    if world() == 1:
        return compute()
    kept: list[T] = []
    from_primary(lambda: kept.append(compute()))
    return kept[0] if primary() else compute()


def any_of(flags: Sequence[bool]) -> list[bool]:
    """For each flag whether it is set in any of the processes."""
    return [total > 0 for total in totals([float(flag) for flag in flags])]


def totals(numbers: Sequence[float]) -> list[float]:
    """The sums over the processes, the same in each."""
    group = _group()
    if group is None:
        return list(numbers)
    import torch

    values = torch.tensor(list(numbers), dtype=torch.float64)
    group.all_reduce(values)
    return [float(value) for value in values]


def union(flags: "np.ndarray") -> "np.ndarray":
    """Which of many flags (n,) are set in any of the processes; a new array."""
    group = _group()
    if group is None:
        return flags
    import torch

    values = torch.from_numpy(flags.astype("uint8"))
    group.all_reduce(values, op=group.ReduceOp.MAX)
    return values.numpy().astype(bool)


def refuse_disagreement(what: str, mine: Sequence[str]) -> None:
    """Raise a HoneError unless all processes have come to the same.

    Args:
        what: they came to, in words.
    """
    theirs = from_primary(lambda: list(mine))
    if any(any_of([list(mine) != theirs])):
        other = f"one has: {'; '.join(mine)}; another: {'; '.join(theirs)}" if list(mine) != theirs else ""
        raise HoneError(f"the processes have come to different {what} {other}", fix="give all of them the same machine")


def refuse_several(what: str) -> None:
    """Raise a HoneError in processes that were started together for something that one does alone."""
    if started_together():
        raise HoneError(
            f"{what} runs in one process, and a launcher has started {os.environ['WORLD_SIZE']}",
            fix="start it without torchrun; `hone train` is what several processes share",
        )


# ---- tensors ---------------------------------------------------------------------------------------------------------

BUCKET_BYTES = 32 << 20  # sent at once


def sum_gradients(parameters: Sequence["torch.nn.Parameter"]) -> None:
    """Replace each gradient by its sum over the processes; one that had no part in a step adds nothing.

    Sums are taken in float32, in the order of the parameters: the same groups send the same bytes in every step, so
    that a resumed training repeats its sums to the last digit.
    """
    import torch
    import torch.distributed as dist

    for bucket in _buckets(parameters):
        whole = torch.cat(
            [
                torch.zeros(p.numel(), device=p.device) if p.grad is None else p.grad.detach().float().flatten()
                for p in bucket
            ]
        )
        dist.all_reduce(whole)
        for p, part in zip(bucket, whole.split([p.numel() for p in bucket]), strict=True):
            if p.grad is None:
                p.grad = torch.empty_like(p)
            p.grad.copy_(part.view_as(p))


def _buckets(parameters: Sequence["torch.nn.Parameter"]) -> Iterator[list["torch.nn.Parameter"]]:
    bucket: list[torch.nn.Parameter] = []
    for p in parameters:
        if bucket and 4 * (sum(q.numel() for q in bucket) + p.numel()) > BUCKET_BYTES:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def same_everywhere(module: "torch.nn.Module") -> None:
    """Give all processes the primary's weights and buffers."""
    import torch
    import torch.distributed as dist

    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.data, src=0)


def _store() -> Any:
    import torch.distributed as dist

    store = dist.distributed_c10d._get_default_store()
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return store


def _now(key: str) -> str:
    """A key of this attempt: torchrun starts the group again, with the same store, after a process was lost."""
    return f"{key}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
