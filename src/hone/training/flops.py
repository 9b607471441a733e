"""How fast this device multiplies matrices: the ceiling that training speed (MFU) is quoted against.

Measures one dtype on one device and counts a model's operations for a token; keeps no result: the speed of a shared
machine moves by a factor of two within an hour, so a rate is only worth comparing with numbers of the same minute.

>>> matmul_gflops(torch.bfloat16, "cpu")      # doctest: +SKIP
412.7
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def matmul_gflops(dtype: "torch.dtype", device: str, n: int = 1024, repeats: int = 7) -> float:
    """GFLOP/s of the dense product (n, n) @ (n, n) -> (n, n), counted as 2 n³ operations (n³ multiplies, n³ adds).

    The median of `repeats` timed runs after one untimed run; an accelerator is synchronised before each clock
    reading. float32 is measured under the precision setting in force (TF32 on or off), because that is what training
    would get. The global random state is left as it was. A GPU needs n >= 4096 to be busy; 1024 suits a CPU.

    Args:
        dtype: a floating type the device can multiply.
        device: "cpu", "cuda", "cuda:1", "mps", ...
        n: side of the matrices; three of them are held at once.
        repeats: timed runs, at least 5, so that one interruption cannot move the median.

    Raises:
        ValueError: fewer than 5 repeats, or n < 1.
        RuntimeError: the device is not there, is out of memory, or cannot multiply this dtype (raised by torch).
    """
    if n < 1 or repeats < 5:
        raise ValueError(f"n={n}, repeats={repeats}: expected n >= 1 and at least 5 repeats")
    seconds = _timed_product(dtype, device, n)
    return 2 * n**3 / statistics.median(seconds() for _ in range(repeats)) / 1e9


def best_gflops(dtypes: "Sequence[torch.dtype]", device: str, n: int, seconds: float = 0.4) -> list[float]:
    """GFLOP/s of each type's fastest (n, n) @ (n, n) -> (n, n), the types in turn for so many seconds.

    For comparing types on a machine that others use too: a neighbour slows many runs, seldom all of one type.
    """
    timed = [_timed_product(dtype, device, n) for dtype in dtypes]
    best = [math.inf] * len(timed)
    began, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - began < seconds:
        best = [min(before, run()) for before, run in zip(best, timed)]
        rounds += 1
    return [2 * n**3 / one / 1e9 for one in best]


def _timed_product(dtype: "torch.dtype", device: str, n: int) -> Callable[[], float]:
    """A product that has run once, to be run again and timed: the first call picks and compiles kernels."""
    import torch

    place = torch.device(device)
    generator = torch.Generator().manual_seed(0)  # own generator: measuring must not shift a run's random numbers
    # Random values, not ones: the power drawn, and with it a GPU's clock, depends on the bits that flip.
    left, right = (torch.randn(n, n, generator=generator).to(place, dtype) for _ in range(2))  # (n, n) each
    product = torch.empty(n, n, device=place, dtype=dtype)

    def seconds() -> float:
        _wait(place)
        start = time.perf_counter()
        with torch.no_grad():
            torch.mm(left, right, out=product)
        _wait(place)
        return time.perf_counter() - start

    seconds()
    return seconds


def _wait(device: "torch.device") -> None:
    """Block until the work queued on an accelerator is done; a CPU product is done when it returns."""
    import torch

    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def flops_per_token(model: "torch.nn.Module") -> float:
    """Matrix-product operations for one trained token: 2 for each weight forward, 2 more backward for the activations,
    and 2 more for each weight that trains (Kaplan et al. 2020, arXiv 2001.08361, appendix). Attention's own products,
    a few per cent at these lengths, are left out. Tied weights count once, as the head; other embeddings are look-ups.
    """
    from torch import nn

    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        tables.discard(id(head.weight))
    weights = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in tables]
    return float(sum(p.numel() * (6 if p.requires_grad else 4) for p in weights))
