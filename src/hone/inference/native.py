"""Products of a few rows by a kernel of our own, compiled where a C compiler is there; PyTorch's product elsewhere.

PyTorch's product of one row reads weights at half the speed of memory. The kernel (`linear.c`) is compiled once for a
machine, in about a second, and kept in the cache.

>>> product = product_of(weight, bias)                                                     # doctest: +SKIP
>>> product(x)                                                  # as F.linear(x, weight, bias) # doctest: +SKIP
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hone.cache import cache_root

log = logging.getLogger("hone")
SOURCE = Path(__file__).with_name("linear.c")
FEW_ROWS = 32  # beyond these PyTorch's product, which is made for many, is as fast
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-std=gnu11"]


def product_of(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x -> F.linear(x, weight, bias), by the kernel where it can be."""
    plain = functools.partial(_plain, weight, bias)
    columns = not weight.is_contiguous()
    whole = (weight.t() if columns else weight).is_contiguous()
    fits = whole and weight.device.type == "cpu" and weight.dtype == torch.float32
    if not fits or (kernel := _kernel()) is None:
        return plain
    return functools.partial(_native, kernel, plain, weight, bias, columns)


def _plain(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def _native(
    kernel: Any, plain: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor | None, columns: bool, x: Tensor
) -> Tensor:
    n, (n_out, n_in) = len(x), weight.shape
    if n > FEW_ROWS:
        return plain(x)
    x, y = x.contiguous(), torch.empty((n, n_out))
    at = None if bias is None else bias.data_ptr()
    kernel(x.data_ptr(), weight.data_ptr(), at, y.data_ptr(), n, n_in, n_out, columns, torch.get_num_threads())
    return y


@functools.cache
def _kernel() -> Any:
    """The compiled function, None where it cannot be had."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if sys.platform != "linux" or compiler is None or os.environ.get("HONE_NATIVE") == "0":
        return None
    try:
        kernel = ctypes.CDLL(str(_compiled(compiler))).linear
    except (OSError, subprocess.SubprocessError) as error:
        log.info("decoding without the compiled kernel: %s", error)
        return None
    pointer = ctypes.c_void_p
    kernel.argtypes = [*[pointer] * 4, *[ctypes.c_long] * 3, ctypes.c_int, ctypes.c_int]
    kernel.restype = None
    return kernel


def _compiled(compiler: str) -> Path:
    """The library made from SOURCE for this machine, from the cache or new.

    It is linked with the OpenMP that PyTorch has loaded: two of them would have two sets of threads.
    """
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))[:1]
    identity = [SOURCE.read_text(), compiler, _processor(), str(openmp), torch.__version__, *FLAGS]
    path = cache_root() / "native" / f"linear-{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made, library = Path(folder) / "linear.o", Path(folder) / "linear.so"
        _run([compiler, *FLAGS, "-c", str(SOURCE), "-o", str(made)])
        _run([compiler, "-shared", str(made), *(map(str, openmp) if openmp else ["-fopenmp"]), "-o", str(library)])
        library.replace(path)
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _processor() -> str:
    """What -march=native depends on: a cache may lie on a disk that several machines share."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return "\n".join(next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags"))
