"""A pass over a model by a kernel of our own, compiled where a C compiler is there; PyTorch's operations elsewhere.

PyTorch reads weights at half the speed of memory for one row, and a pass of many small operations pays for each. The
kernel (`kernel/`) is compiled once for a machine, in about two seconds, and kept in the cache. Weights in bfloat16 are
read as they are and computed in float32: half the memory to read. Each number of a row is added up in an order of its
own, so that its scores are the same to the last bit whatever else is in the batch.
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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hone.cache import kernel_cache

if TYPE_CHECKING:
    from hone.inference.fast_step import Plan
    from hone.inference.weights import Linear, Norm, Weights

log = logging.getLogger("hone")
FOLDER = Path(__file__).with_name("kernel")
PARTS = {
    "linear.c": ("F32", "BF16"),
    "attention.c": ("",),
    "step.c": ("",),
    "sample.c": ("",),
}  # what each is compiled for
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-std=gnu11"]
MANY = 1 << 20  # scores for which it is worth waking other threads
BUSY = 0.8  # share of the cores' time below which threads were disturbed
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds of one thread
ACTIVATIONS = ["gelu", "gelu_tanh", "relu", "silu"]  # in the order of step.h

Pointer, Number = ctypes.c_void_p, ctypes.c_long


class _Adapter(ctypes.Structure):
    _fields_ = [("down", Pointer), ("up", Pointer), ("rank", Number)]


class _Product(ctypes.Structure):
    _fields_ = [
        *(("weight", Pointer), ("bias", Pointer), ("n_in", Number), ("n_out", Number)),
        *(("in_columns", Number), ("bf16", Number), ("n_adapters", Number), ("adapters", Pointer)),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [("weight", Pointer), ("bias", Pointer), ("eps", ctypes.c_float), ("rms", ctypes.c_int)]


class _Layer(ctypes.Structure):
    _fields_ = [
        *(("before_attention", _Norm), ("before_mlp", _Norm), ("heads", _Product * 3), ("attention_out", _Product)),
        *(("gate", _Product), ("up", _Product), ("down", _Product), ("n_heads", Number), ("activation", Number)),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *(("embed", Pointer), ("positions", Pointer), ("turns", Pointer), ("layers", Pointer)),
        *(("norm", _Norm), ("head", _Product), ("bf16", Number), ("n_layers", Number), ("width", Number)),
        *(("n_heads", Number), ("n_kept", Number), ("dim", Number), ("inner", Number), ("rank", Number)),
        ("scale", ctypes.c_float),
    ]


class _Rule(ctypes.Structure):
    _fields_ = [
        *(("temperature", ctypes.c_float), ("min_p", ctypes.c_float), ("top_p", ctypes.c_double)),
        *(("draw", ctypes.c_double), ("top_k", Number)),
    ]


class Pace:
    """How many threads a pass is given: all of PyTorch's, or one while other programs want the cores.

    The threads of a pass meet many times, and each meeting waits for the one that is not running. Threads that were
    disturbed did not run all the time of a pass. After two such passes one thread goes on alone for a while, the longer
    the more often that happens.
    """

    def __init__(self) -> None:
        self._alone_until = self._pause = 0.0
        self._disturbed = 0  # passes in a row

    def threads(self) -> int:
        return 1 if time.perf_counter() < self._alone_until else torch.get_num_threads()

    def judge(self, threads: int, seconds: float, of_processor: float) -> None:
        """After a pass of so many threads that took so long, and so much time of the processor."""
        if threads == 1:
            return
        self._disturbed = self._disturbed + 1 if of_processor < BUSY * threads * seconds else 0
        if self._disturbed > 1:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
            self._alone_until = time.perf_counter() + self._pause
        elif not self._disturbed:
            self._pause = 0.0


class Kernel:
    """A model as the kernel reads it: pointers into the weights' own memory."""

    def __init__(self, weights: "Weights") -> None:
        w, bf16 = weights, weights.embed.dtype == torch.bfloat16
        self._pace = Pace()
        self._step = _library().step
        self._kept: list[Any] = []  # what is pointed at stays
        layers = (_Layer * len(w.layers))()
        inner = rank = 0
        for into, layer in zip(layers, w.layers):
            linears = [*layer.heads, layer.attention_out, layer.mlp.up, layer.mlp.down]
            into.before_attention, into.before_mlp = map(
                self._norm, (layer.norm_before_attention, layer.norm_before_mlp)
            )
            for i, head in enumerate(layer.heads):
                into.heads[i] = self._product(head)
            into.n_heads, into.attention_out = len(layer.heads), self._product(layer.attention_out)
            into.up, into.down = self._product(layer.mlp.up), self._product(layer.mlp.down)
            if layer.mlp.gate is not None:
                into.gate = self._product(layer.mlp.gate)
                linears.append(layer.mlp.gate)
            into.activation = ACTIVATIONS.index(layer.mlp.activation)
            inner = max(inner, into.up.n_out)
            rank = max([rank, *(down.shape[0] for linear in linears for down, _ in linear.adapters)])
        rank = max([rank, *(down.shape[0] for down, _ in w.head.adapters)])
        self._model = _Model(
            *(self._at(one) for one in (w.embed, w.positions, w.turns)), ctypes.addressof(layers),
            self._norm(w.norm), self._product(w.head), bf16, len(layers), w.embed.shape[1],
            w.n_heads, w.n_kept, w.head_dim, inner, rank, w.scale,
        )  # fmt: skip
        self._kept.append(layers)
        self._n_scores = w.head.weight.shape[0]

    def scores(self, kept: Tensor, plan: "Plan") -> Tensor:
        """As `fast_step.scores`."""
        grown = [(slot, slot, 1, length - 1) for slot, length in enumerate(plan.lengths)]
        spans = _numbers(
            [n for one in [*grown, *((s.slot, s.first, s.n, s.past) for s in plan.stretches)] for n in one]
        )
        lists = [_numbers(one) for one in (plan.ids, plan.slots, plan.positions, plan.wanted)]
        ids, slots, positions, wanted = (one.ctypes.data for one in lists)
        found = torch.empty((len(plan.wanted), self._n_scores))
        threads, began, worked = self._pace.threads(), time.perf_counter(), time.process_time()
        self._step(
            ctypes.byref(self._model), spans.ctypes.data, len(spans) // 4, ids, slots, positions, len(plan.ids),
            wanted, len(plan.wanted), kept.data_ptr(), kept.shape[1], kept.shape[2], found.data_ptr(),
            threads,
        )  # fmt: skip
        self._pace.judge(threads, time.perf_counter() - began, time.process_time() - worked)
        return found

    def _at(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _norm(self, norm: "Norm") -> _Norm:
        return _Norm(self._at(norm.weight), self._at(norm.bias), norm.eps, norm.rms)

    def _product(self, linear: "Linear") -> _Product:
        adapters = (_Adapter * len(linear.adapters))(
            *(_Adapter(self._at(down), self._at(up), down.shape[0]) for down, up in linear.adapters)
        )
        self._kept.append(adapters)
        n_out, n_in = linear.weight.shape
        bias = None if linear.bias is None else linear.bias.float()
        return _Product(
            self._at(linear.weight), self._at(bias), n_in, n_out, not linear.weight.is_contiguous(),
            linear.weight.dtype == torch.bfloat16, len(adapters), ctypes.addressof(adapters),
        )  # fmt: skip


def computes(weight: Tensor) -> bool:
    """Can the kernel read such weights? Then all is computed in float32."""
    whole = weight.is_contiguous() or weight.t().is_contiguous()
    known = whole and weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)
    return known and _library() is not None


def drawn(scores: Tensor, rules: Sequence[tuple[float, float, float, float, int]]) -> list[int] | None:
    """A token for each row of scores (B, V) as `sampling.next_tokens` draws it; None where a score is NaN.

    rules: of each row its temperature, the logarithm of min_p, top_p, where in [0, 1) the draw is, and top_k.
    """
    rows, size = scores.shape
    tokens = np.empty(rows, dtype=np.int64)
    given = (_Rule * rows)(*(_Rule(*rule) for rule in rules))
    threads = torch.get_num_threads() if scores.numel() > MANY else 1
    bad = _library().draw(scores.data_ptr(), rows, size, given, tokens.ctypes.data, threads)
    return None if bad else tokens.tolist()


def draws_from(scores: Tensor) -> bool:
    """Can `drawn` read them?"""
    whole = scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.is_contiguous()
    return whole and _library() is not None


def _numbers(values: Sequence[int]) -> Any:
    return np.array(values, dtype=np.int64)


@functools.cache
def _library() -> Any:
    """The compiled functions, None where they cannot be had."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if sys.platform != "linux" or compiler is None or os.environ.get("HONE_NATIVE") == "0":
        return None
    try:
        library = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        log.info("decoding without the compiled kernel: %s", error)
        return None
    library.step.argtypes = [
        *(Pointer, Pointer, Number, Pointer, Pointer, Pointer, Number, Pointer, Number, Pointer, Number, Number),
        *(Pointer, ctypes.c_int),
    ]
    library.step.restype = None
    library.draw.argtypes = [Pointer, Number, Number, Pointer, Pointer, ctypes.c_int]
    library.draw.restype = ctypes.c_int
    return library


def _compiled(compiler: str) -> Path:
    """The library made from the kernel's files for this machine, from the cache or new.

    It is linked with the OpenMP that PyTorch has loaded: two of them would have two sets of threads.
    """
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))[:1]
    sources = [path.read_text() for path in sorted(FOLDER.glob("*.[ch]"))]
    identity = [*sources, compiler, _processor(), str(openmp), torch.__version__, *FLAGS]
    path = kernel_cache() / f"step-{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.so"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = []
        for source, kinds in PARTS.items():
            for kind in kinds:
                made.append(str(Path(folder) / f"{source}{kind}.o"))
                _run([compiler, *FLAGS, f"-D{kind or 'ONLY'}", "-c", str(FOLDER / source), "-o", made[-1]])
        library = Path(folder) / "step.so"
        _run([compiler, "-shared", *made, *(map(str, openmp) if openmp else ["-fopenmp"]), "-lm", "-o", str(library)])
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
