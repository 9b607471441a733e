"""Products of a few rows by a kernel of our own, compiled where a C compiler is there; PyTorch's own elsewhere.

PyTorch's product of one row reads weights at half the speed of memory. The kernel (`linear.c`) is compiled once for a
machine, in about a second, and kept in the cache. Weights in bfloat16 are read as they are and computed in float32:
half the memory to read, and answers that do not depend on how a batch is rounded.

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

from hone.cache import kernel_cache

log = logging.getLogger("hone")
SOURCE = Path(__file__).with_name("linear.c")
FEW_ROWS = 32  # beyond these PyTorch's product, which is made for many, is as fast
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}  # as linear.c knows them
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-std=gnu11"]


def product_of(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x -> F.linear(x, weight, bias), by the kernel where it can be: then x and the result are float32."""
    columns = not weight.is_contiguous()
    whole = (weight.t() if columns else weight).is_contiguous()
    if not (whole and computes(weight)):
        return functools.partial(_plain, weight, bias)
    return functools.partial(_native, _Product(weight, None if bias is None else bias.float(), columns))


class _Product:
    """What the kernel is called with, found once: a decoded token makes a hundred such calls."""

    def __init__(self, weight: Tensor, bias: Tensor | None, columns: bool) -> None:
        self.weight, self.bias, self.columns = weight, bias, columns  # kept, so that what is pointed at stays
        self.call = _library(weight.dtype).linear
        self.at, self.bias_at = weight.data_ptr(), None if bias is None else bias.data_ptr()
        self.n_out, self.n_in = weight.shape
        self.most = FEW_ROWS if weight.dtype == torch.float32 else sys.maxsize


def computes(weight: Tensor) -> bool:
    """Is there a kernel for such weights?"""
    known = weight.device.type == "cpu" and weight.dtype in NAMES
    return known and _library(weight.dtype) is not None


def _plain(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def _native(product: _Product, x: Tensor) -> Tensor:
    p, n = product, x.shape[0]
    if n > p.most:
        return F.linear(x, p.weight, p.bias)
    x, y = x.contiguous(), torch.empty((n, p.n_out))
    p.call(x.data_ptr(), p.at, p.bias_at, y.data_ptr(), n, p.n_in, p.n_out, p.columns, torch.get_num_threads())
    return y


def attention(q: Tensor, memory: Tensor, lengths: Tensor, scale: float) -> Tensor | None:
    """What one token a row finds, (B, H * D): q (B, H, D) over slots 0, 1, … of memory (slots, room, 2, K, D).

    None where the kernel cannot: the caller computes it then.
    """
    (rows, heads, dim), (_, room, _, kept, _) = q.shape, memory.shape
    if memory.dtype != torch.float32 or dim % 16 or not computes(memory):
        return None
    if q.stride(2) != 1 or q.stride(1) != dim:
        q = q.contiguous()
    y = torch.empty((rows, heads * dim))
    _library(torch.float32).attend(
        q.data_ptr(), q.stride(0), memory.data_ptr(), lengths.data_ptr(), y.data_ptr(),
        rows, kept, heads // kept, dim, room, scale, torch.get_num_threads(),
    )  # fmt: skip
    return y


@functools.cache
def _library(dtype: torch.dtype) -> Any:
    """The compiled functions for weights of this type, None where they cannot be had."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if sys.platform != "linux" or compiler is None or os.environ.get("HONE_NATIVE") == "0":
        return None
    try:
        library = ctypes.CDLL(str(_compiled(compiler, NAMES[dtype])))
    except (OSError, subprocess.SubprocessError) as error:
        log.info("decoding without the compiled kernel: %s", error)
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_long
    library.linear.argtypes = [*[pointer] * 4, *[number] * 3, ctypes.c_int, ctypes.c_int]
    library.attend.argtypes = [pointer, number, *[pointer] * 3, *[number] * 5, ctypes.c_float, ctypes.c_int]
    library.linear.restype = library.attend.restype = None
    return library


def _compiled(compiler: str, name: str) -> Path:
    """The library made from SOURCE for this machine, from the cache or new.

    It is linked with the OpenMP that PyTorch has loaded: two of them would have two sets of threads.
    """
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))[:1]
    identity = [SOURCE.read_text(), compiler, _processor(), str(openmp), torch.__version__, name, *FLAGS]
    path = kernel_cache() / f"linear-{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made, library = Path(folder) / "linear.o", Path(folder) / "linear.so"
        _run([compiler, *FLAGS, f"-D{name}", "-c", str(SOURCE), "-o", str(made)])
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
