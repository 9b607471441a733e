"""A group of processes, from its beginning to its end: which one this is, and one message when it ends badly."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from hone.errors import HoneError, Interrupted, said

COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # between two steps, or while a checkpoint is written
FAILED, WHY = "hone/failed", "hone/why"  # whatever the attempt: a restart does not repair a mistake
LOST_ONE = "hone/lost"
# How torch says that another process of a collective is not there any more.
LOST = ("connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "timed out",
        "remote process exited", "connectfullmesh failed", "rank ", "socket")  # fmt: skip
BY_HONE = "HONE_LAUNCHED"  # in the environment of processes that `hone train nproc_per_node=…` started
MEETING = "HONE_MEETING"  # in the same place, of several machines: where they met
INTERRUPTED, LOST_CODE = 130, 76  # exit codes
GO_ON = "the same command goes on from the last checkpoint; max_restarts=3 starts all of them again by itself"


class Elsewhere(SystemExit):
    """Another process of the group has failed and says why: this one ends without a word."""


def started_together() -> bool:
    """Whether a launcher says that this process is one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and "RANK" in os.environ


def world() -> int:
    """How many processes train together; 1 outside `joined`."""
    group = torch_group()
    return group.get_world_size() if group else 1


def rank() -> int:
    group = torch_group()
    return group.get_rank() if group else 0


def primary() -> bool:
    """Whether this process holds the run folder and speaks; always where it is alone."""
    return rank() == 0


def on_this_machine() -> int:
    """How many of them are on this machine; all of them where a launcher does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or world()) if world() > 1 else 1


def on_one_machine() -> bool:
    return world() == on_this_machine()


def torch_group() -> Any:
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
    if not started_together() or torch_group():
        yield
        return
    import torch
    import torch.distributed as dist

    if (lasting := _lasting_store()) and lasting.check([FAILED]):
        raise Elsewhere(1)
    store, number, count = next(dist.rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))
    if store.check([FAILED]):  # an attempt before this one failed by a mistake, which a restart does not repair
        raise Elsewhere(1)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if _own_gpu() else "gloo",
            store=dist.PrefixStore(of_this_attempt("hone/group"), store),
            rank=number,
            world_size=count,
            timeout=COLLECTIVE_TIMEOUT,
        )
    except (RuntimeError, HoneError) as error:
        raise _as_it_is_told(error, store) from None
    try:
        with contextlib.nullcontext() if primary() else _silent():
            yield
            dist.all_reduce(
                torch.zeros(1)
            )  # the first one may hold the store, which others still ask: all leave at once
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


def refuse_several(what: str) -> None:
    """Raise a HoneError in processes that were started together for something that one does alone."""
    if started_together():
        raise HoneError(
            f"{what} runs in one process, and a launcher has started {os.environ['WORLD_SIZE']}",
            fix="start it without torchrun; `hone train` is what several processes share",
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
        if store.add(of_this_attempt(LOST_ONE) if isinstance(cause, Lost) else FAILED, 1) > 1:
            return Elsewhere(1)
        if not isinstance(cause, Lost):
            store.set(WHY, said(str(cause)))
            if lasting := _lasting_store():
                lasting.set(FAILED, "")
    except Exception:  # the launcher has gone, and its store with it
        return cause if primary() else Elsewhere(1)
    return cause


def said_elsewhere(store: Any) -> Elsewhere:
    """The end of a process because of another one, with that one's message as its cause."""
    gone = Elsewhere(1)
    with contextlib.suppress(Exception):  # the store may have gone with the launcher
        store.wait([WHY], timedelta(seconds=5))
        gone.__cause__ = HoneError(store.get(WHY).decode())
    return gone


class Lost(HoneError):
    """Another process was killed, or cannot be reached."""


def cause_of(error: BaseException, store: Any = None) -> BaseException:
    """What an error comes from, where processes depend on each other.

    An `Elsewhere` if another process has failed and says so; `Lost` if one does not answer any more; or the error.
    """
    store = store or (store_of_group() if world() > 1 else None)
    if store is None or isinstance(error, Elsewhere):
        return error
    with contextlib.suppress(Exception):  # the store may have gone with the launcher
        if store.check([WHY]):
            return said_elsewhere(store)
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


# ---- where they leave word for each other ----------------------------------------------------------------------------


def store_of_group() -> Any:
    import torch.distributed as dist

    store = dist.distributed_c10d._get_default_store()
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return store


def of_this_attempt(key: str) -> str:
    """A key of this attempt: torchrun starts the group again, with the same store, after a process was lost.

    Each attempt of several machines has a store of its own (`training/launch.py`), and one that came later counts anew.
    """
    return key if MEETING in os.environ else f"{key}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _lasting_store() -> Any:
    """Where machines met, which lasts longer than an attempt of theirs; None where the group's store does."""
    import torch.distributed as dist

    if MEETING not in os.environ:
        return None
    host, _, port = os.environ[MEETING].rpartition(":")
    return dist.TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=timedelta(seconds=30))
