"""What the processes of a group tell each other: what one computes for all, what each computes a part of, and sums.

Waiting asks the group's store a few times a second. A collective would use the processor for it, end after its timeout
and notice neither a signal nor the failure of another process.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from hone.errors import HoneError
from hone.processes.group import (
    FAILED,
    of_this_attempt,
    primary,
    rank,
    said_elsewhere,
    store_of_group,
    torch_group,
    world,
)

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Piece = TypeVar("Piece")
Told = dict[str, Any]  # an answer, or the mistake in its place
LOOK_S = 0.05  # at most so long a process that waits does not look
CALLS, ANSWER, READY = "hone/calls", "hone/answer", "hone/ready"
_ALONE = ContextVar("alone", default=False)  # whether the others wait for what this process computes


def from_primary(compute: Callable[[], T]) -> T:
    """What the primary computes, in JSON's types; the others wait for it and do nothing meanwhile.

    A HoneError or OSError of `compute` is raised by all of them.
    """
    if _is_alone():
        return compute()
    store, key = store_of_group(), _next_key(ANSWER)
    if not primary():
        _wait_for(store, key)
        answer: T = _heard(json.loads(store.get(key)), ())
        return answer
    before = _ALONE.set(True)
    try:
        told, error = _told(compute, (HoneError, OSError))
    finally:
        _ALONE.reset(before)
    store.set(key, json.dumps(told))
    if error:
        raise error
    mine: T = told["answer"]
    return mine


def shared(
    pieces: Sequence[Piece],
    compute: Callable[[Sequence[Piece]], Sequence[T]],
    *,
    mistakes: tuple[type[HoneError], ...] = (),
) -> list[T]:
    """`compute(pieces)`, of which each process computes a part; all of them get all of it, in the order of the pieces.

    Piece i is computed by process i modulo their number. Within `from_primary` the primary computes everything.

    Args:
        compute: pieces to a result for each, in JSON's types.
        mistakes: as in `everybodys`.
    """
    if _is_alone():
        return list(compute(pieces))
    found = everybodys(lambda: list(compute(pieces[rank() :: world()])), mistakes=mistakes)
    return [found[i % world()][i // world()] for i in range(len(pieces))]


def everybodys(compute: Callable[[], T], *, mistakes: tuple[type[HoneError], ...] = ()) -> list[T]:
    """What each process computes, in JSON's types, in the order of their numbers; each waits for all.

    Args:
        mistakes: kinds that the caller can live with: one process's is raised by all. Any other ends the group.
    """
    if _is_alone():
        return [compute()]
    told, _ = _told(compute, mistakes)
    store, key = store_of_group(), _next_key(READY)
    if store.add(f"{key}/count", 1) == world():
        store.set(key, "")
    _wait_for(store, key)  # from here on nobody is waited for long: a collective may do it
    return [_heard(one, mistakes) for one in _gathered(told)]


def _told(compute: Callable[[], T], mistakes: tuple[type[Exception], ...]) -> tuple[Told, Exception | None]:
    """What is said of a computation to other processes, and the mistake that it ended with."""
    try:
        return {"answer": compute()}, None
    except mistakes as error:
        if isinstance(error, OSError):
            return {"disk": [error.errno, error.strerror, str(error.filename or "")]}, error
        assert isinstance(error, HoneError)
        return {"mistake": [error.what, error.where, error.fix], "kind": type(error).__name__}, error


def _heard(told: Told, mistakes: tuple[type[HoneError], ...]) -> Any:
    """The answer of another process, or its mistake raised."""
    if disk := told.get("disk"):
        raise OSError(*disk)
    if mistake := told.get("mistake"):
        kind = next((kind for kind in mistakes if kind.__name__ == told["kind"]), HoneError)
        raise kind(mistake[0], where=mistake[1], fix=mistake[2])
    return told["answer"]


def _gathered(mine: Any) -> list[Any]:
    """What each process says, in JSON's types, by a collective: the store takes no more than 8 MB at once."""
    import torch
    import torch.distributed as dist

    text = torch.frombuffer(bytearray(json.dumps(mine).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor([len(text)]))
    longest = int(max(sizes))
    texts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(texts, torch.nn.functional.pad(text, (0, longest - len(text))))
    return [json.loads(bytes(one[: int(size)].numpy())) for one, size in zip(texts, sizes, strict=True)]


def _is_alone() -> bool:
    """Whether there is nobody to wait for, or the others wait for this process."""
    return world() == 1 or _ALONE.get()


def _next_key(kind: str) -> str:
    """A key for what all processes do next: they do the same, in the same order."""
    return of_this_attempt(f"{kind}/{store_of_group().add(of_this_attempt(f'{CALLS}/{rank()}'), 1)}")


def _wait_for(store: Any, key: str) -> None:
    """Look until the key is there; at once at first, then a few times a second.

    Raises:
        Elsewhere: another process has failed.
    """
    pause = LOOK_S / 50
    while not store.check([key]):
        if store.check([FAILED]):
            raise said_elsewhere(store)
        time.sleep(pause)
        pause = min(LOOK_S, 1.5 * pause)


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
    group = torch_group()
    if group is None:
        return list(numbers)
    import torch

    values = torch.tensor(list(numbers), dtype=torch.float64)
    group.all_reduce(values)
    return [float(value) for value in values]


def union(flags: "np.ndarray") -> "np.ndarray":
    """Which of many flags (n,) are set in any of the processes; a new array."""
    group = torch_group()
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
