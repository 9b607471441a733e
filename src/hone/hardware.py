"""Read what this machine is: CPU, memory, control-group limits, GPUs, the torch build. Facts only, no opinion.

Each reader takes the paths or text it reads, so that another machine can be described to it. What these facts mean for
training is for `hone.doctor`; nothing here measures speed or changes anything.

>>> read_cgroup().memory_bytes      # doctest: +SKIP
8589934592
"""

import functools
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import first_line

if TYPE_CHECKING:
    import torch

# What we call an instruction set -> how /proc/cpuinfo (x86, Arm) writes it.
INSTRUCTION_SETS = {
    "AVX2": ("avx2",),
    "AVX512": ("avx512f",),
    "AVX512-BF16": ("avx512_bf16",),
    "AMX-BF16": ("amx_bf16",),
    "NEON": ("asimd", "neon"),
    "SVE": ("sve",),
    "Arm BF16": ("bf16",),
}
BF16_SETS = ("AVX512-BF16", "AMX-BF16", "Arm BF16")


@dataclass(frozen=True)
class Limits:
    """What the control groups around this process allow; None: no limit."""

    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    cpus: float | None = None


@dataclass(frozen=True)
class Cpus:
    """CPU counts: `usable` by this process (affinity and quota applied, may be a fraction), and the machine's own."""

    usable: float
    physical: int | None
    logical: int


# --- CPU ------------------------------------------------------------------------------------------------------------


def read_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, list[str]]:
    """Model name and the instruction sets that matter here, as named in `INSTRUCTION_SETS` (none outside Linux)."""
    model, flags = "", set()
    for line in (read_text(cpuinfo) or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            model = model or value
        elif key in ("flags", "Features"):
            flags.update(value.lower().split())
    instructions = [label for label, names in INSTRUCTION_SETS.items() if flags.intersection(names)]
    # Arm's cpuinfo names no model; the architecture is better than nothing.
    return model or platform.processor() or platform.machine() or "unknown CPU", instructions


def count_cpus(quota: float | None) -> Cpus:
    """CPU counts of this process and machine; `quota` is the control group's, in CPUs."""
    import psutil

    logical = os.cpu_count() or 1
    # macOS and Windows have no affinity call in os
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    return Cpus(min(float(allowed), quota or math.inf), psutil.cpu_count(logical=False), logical)


# --- memory and limits ----------------------------------------------------------------------------------------------


def read_memory() -> tuple[int, int]:
    """(total, available) bytes of the whole machine."""
    import psutil

    memory = psutil.virtual_memory()
    return memory.total, memory.available


def read_cgroup(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Limits:
    """The tightest limits on the way from this process's control group to the root; versions 1 and 2.

    Inside a container the path in /proc may be the host's, of which only the root is mounted: levels that do not
    exist are skipped.
    """
    folders: list[Path] = []
    for line in (read_text(proc) or "").splitlines():
        _, controllers, path = line.split(":", 2)  # "4:memory:/group" in version 1, "0::/group" in version 2
        inner = Path(path.strip("/"))
        folders += [root / controllers / level for level in (inner, *inner.parents)]
    memory = [limit for folder in folders if (limit := _memory_limit(folder))]
    cpus = [quota for folder in folders if (quota := _cpu_quota(folder))]
    tightest, free = min((m for m, _ in memory), default=None), min((f for _, f in memory), default=None)
    return Limits(tightest, free, min(cpus, default=None))


def _memory_limit(group: Path) -> tuple[int, int] | None:
    """(limit, free) bytes of one control group; file cache it could give back counts as free."""
    limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
    if not limit or limit >= 2**60:  # "no limit" is `max` in version 2, a number near 2^63 in version 1
        return None
    used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    stat = read_text(group / "memory.stat") or ""
    cache = re.search(r"^total_inactive_file (\d+)", stat, re.M) or re.search(r"^inactive_file (\d+)", stat, re.M)
    return limit, max(0, limit - max(0, used - int(cache[1] if cache else 0)))


def _cpu_quota(group: Path) -> float | None:
    """CPUs one control group may use: quota over period, both in microseconds; "max" and -1 mean no limit."""
    fields = (read_text(group / "cpu.max") or "").split()
    if not fields:
        fields = [(read_text(group / f"cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period")]
    if not all(field.isdigit() and int(field) > 0 for field in fields):
        return None
    quota, period = map(int, fields)
    return quota / period


# --- GPU and torch --------------------------------------------------------------------------------------------------


def nvidia_gpus(tool: str | None = None) -> tuple[tuple[str, ...], str | None]:
    """Names of the NVIDIA GPUs that the driver shows: of a torch without CUDA one cannot know whether there is one.

    The second is what the driver's tool says when it fails.
    """
    tool = tool or shutil.which("nvidia-smi")
    if tool is None:
        return (), None
    code, output = run_command([tool, "--query-gpu=name", "--format=csv,noheader"])
    if code == 0 and output.strip():
        return tuple(line.strip() for line in output.strip().splitlines()), None
    return (), first_line(output) or f"nvidia-smi ended with code {code}"


def describe_torch(torch: Any) -> dict[str, Any]:
    """What the torch module was built for and can use now, in plain JSON types.

    version; build: cpu, cuda, rocm or mps; toolkit: the CUDA or ROCm version; device: the best usable one; devices:
    name and memory_bytes of each; reason: why the accelerator of this build is not usable; threads; cpu_capability.
    """
    cuda, mps = torch.cuda, torch.backends.mps
    build = "rocm" if torch.version.hip else "cuda" if torch.version.cuda else "mps" if mps.is_built() else "cpu"
    facts: dict[str, Any] = {"version": str(torch.__version__), "build": build}
    facts |= {"toolkit": torch.version.hip or torch.version.cuda, "device": "cpu", "devices": [], "reason": None}
    facts |= {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    if build == "mps" and mps.is_available():
        return facts | {"device": "mps", "devices": [{"name": "Apple GPU", "memory_bytes": None}]}
    if build == "mps":
        return facts | {"reason": "MPS is built in, but this macOS does not offer it"}
    if build == "cpu":
        return facts
    try:
        cuda.init()  # raises the driver's own words, which is_available() swallows
        properties = [cuda.get_device_properties(index) for index in range(cuda.device_count())]
    except Exception as error:
        return facts | {"reason": first_line(str(error)) or type(error).__name__}
    if not properties:
        return facts | {"reason": "the driver shows no GPU"}
    devices = [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in properties]
    return facts | {"device": "cuda", "devices": devices}


# --- small readers --------------------------------------------------------------------------------------------------


def run_command(command: Sequence[str], timeout_s: float = 5.0) -> tuple[int, str]:
    """(exit code, stdout and stderr together); a command that does not start or end in time has code -1."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return -1, f"{Path(command[0]).name} gave no answer within {timeout_s:g} s"
    except OSError as error:
        return -1, f"{command[0]}: {error.strerror or error}"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def read_text(path: Path) -> str | None:
    """A file's text, None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdigit() else None


def best_device(use_cpu: bool = False) -> str:
    """cuda, else mps, else cpu."""
    import torch

    if not use_cpu and torch.cuda.is_available():
        return "cuda"
    return "mps" if not use_cpu and torch.backends.mps.is_available() else "cpu"


def peak_memory_bytes() -> int:
    """Peak memory so far: the GPU allocator's where there is one, else this process's resident set."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


@functools.cache
def matmul_gflops(dtype: "torch.dtype", device: str, n: int = 1024, repeats: int = 7) -> float:
    """GFLOP/s of the dense product (n, n) @ (n, n) -> (n, n), counted as 2 n³ operations (n³ multiplies, n³ adds).

    The median of `repeats` timed runs after one untimed run; an accelerator is synchronised before each clock
    reading. float32 is measured under the precision setting in force (TF32 on or off), because that is what training
    would get. The global random state is left as it was. A GPU needs n >= 4096 to be busy; 1024 suits a CPU.
    Measured once in a process, however many runs it makes.

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
