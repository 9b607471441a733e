"""What this machine can do: one `Check` for each thing that decides whether and how fast hone trains here.

Every probe looks or measures; none installs, changes or fetches anything, and none can crash the others. `fail` is kept
for what stops training at all; `warn` marks what costs speed or one feature, with the step that repairs it.
Does not plan a run: it says nothing of whether a given model fits.

>>> checks = examine(measure=False)      # doctest: +SKIP
>>> raise SystemExit(exit_code(checks))      # doctest: +SKIP
"""

import importlib.metadata
import math
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hone.cache import cache_root
from hone.doctor.check import Check
from hone.doctor.sandbox import check_libseccomp, check_sandbox, check_self_test
from hone.errors import first_line
from hone.hardware import (
    BF16_SETS,
    Cpus,
    Gpus,
    Limits,
    count_cpus,
    describe_torch,
    find_gpus,
    find_nvidia_smi,
    read_cgroup,
    read_cpu,
    read_memory,
)

GB = 10**9
OLDEST_PYTHON = (3, 11)
NEEDED_BYTES = 1 * GB  # below this not even the small bundled model trains
COMFORTABLE_BYTES = 4 * GB  # distilgpt2 with AdamW, 8 rows of 256 tokens, peaks at 3 GB; one full checkpoint takes 1 GB

OPTIONAL_PACKAGES = {  # package -> what needs it
    "trackio": "report_to: trackio",
    "tensorboard": "report_to: tensorboard",
    "lm-eval": "hone eval --tasks",
}
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def examine(*, measure: bool = True) -> list[Check]:
    """Look at this machine; never raises. `measure=False` leaves out the matrix products (1-5 s of work)."""
    system = platform.system()
    torch, facts = load_torch()
    probes: dict[str, Callable[[], Check]] = {
        "python": lambda: check_python(sys.version_info[:3]),
        "torch": lambda: check_torch(torch, facts),
        "packages": lambda: check_packages(declared_requirements("hone-lm")),
        "gpu": lambda: check_gpu(find_gpus(system, platform.machine(), find_nvidia_smi()), facts, os.environ, system),
        "cpu": lambda: check_cpu(*read_cpu(system), count_cpus(read_cgroup().cpus), facts.get("cpu_capability")),
    }
    if facts:  # without torch these two have no answer, and the torch check has said so
        rate = torch_rate(torch, facts["device"]) if measure else None
        probes["threads"] = lambda: check_threads(facts["threads"], count_cpus(read_cgroup().cpus))
        probes["bf16"] = lambda: check_bf16(rate, facts["device"], has_native_bf16(facts, read_cpu(system)[1]))
    probes |= {
        "memory": lambda: check_memory(*read_memory(), read_cgroup()),
        "disk": lambda: check_disk({"current folder": Path.cwd(), "cache": cache_root()}),
        "hub cache": lambda: check_hub_cache(os.environ),
        "sandbox": lambda: check_sandbox(shutil.which("bwrap"), system),
        "libseccomp": lambda: check_libseccomp(system),
        "self-test": lambda: check_self_test(system),
        "optional": lambda: check_optional(OPTIONAL_PACKAGES),
    }
    return [attempt(name, probe) for name, probe in probes.items()]


def exit_code(checks: Iterable[Check]) -> int:
    """0 when hone can train here (warnings included), 1 when something stops it."""
    return int(any(check.status == "fail" for check in checks))


def attempt(name: str, probe: Callable[[], Check]) -> Check:
    """Run one probe; whatever goes wrong in it becomes a warning with the reason."""
    try:
        return probe()
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(str(error))}"
        advice = "training may still work; what this check tells is unknown"
        return Check(name, "warn", f"could not be examined ({reason})", advice, {"error": reason})


# --- software -------------------------------------------------------------------------------------------------------


def check_python(version: Sequence[int]) -> Check:
    """The running interpreter against the oldest one supported."""
    text = ".".join(map(str, version))
    data = {"version": text, "executable": sys.executable}
    if tuple(version) >= OLDEST_PYTHON:
        return Check("python", "ok", text, None, data)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    advice = f"make a new environment with Python {oldest} or later: python{oldest} -m venv .venv"
    return Check("python", "fail", f"{text}, but hone needs {oldest} or later", advice, data)


def load_torch() -> tuple[Any, dict[str, Any]]:
    """(the torch module, its facts), or (the exception it ended in, {}): a missing or broken torch is an answer too."""
    try:
        import torch

        return torch, describe_torch(torch)
    except Exception as error:
        return error, {}


def check_torch(torch: Any, facts: dict[str, Any]) -> Check:
    """Does torch work at all, and which build is it? The arguments are `load_torch`'s answer."""
    if isinstance(torch, ModuleNotFoundError) and torch.name == "torch":
        return Check("torch", "fail", "not installed", "pip install torch", {})
    if isinstance(torch, Exception):
        reason = f"{type(torch).__name__}: {first_line(str(torch))}"
        advice = "pip install --force-reinstall torch"
        return Check("torch", "fail", f"does not work ({reason})", advice, {"error": reason})
    build = f"{facts['build'].upper()} build" + (f", {facts['toolkit']}" if facts["toolkit"] else "")
    return Check("torch", "ok", f"{facts['version']} ({build})", None, facts)


def declared_requirements(distribution: str) -> list[str] | None:
    """The requirement lines of an installed distribution; None when it is not installed (run from its sources)."""
    try:
        return importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None


def check_packages(
    requirements: Sequence[str] | None, version_of: Callable[[str], str] = importlib.metadata.version
) -> Check:
    """The installed packages against the ranges hone's own metadata asks for (`declared_requirements`)."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:  # transformers cannot be imported without it either
        return Check("packages", "fail", "packaging is not installed", "pip install packaging transformers", {})
    if requirements is None:
        return Check("packages", "warn", "unknown: hone runs without being installed", "pip install -e .", {})
    wrong, install = [], []
    versions: dict[str, str | None] = {}
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        version = installed_version(requirement.name, version_of)
        versions[requirement.name] = version
        # prereleases: a nightly build inside the range is the user's choice
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted} is {'not installed' if version is None else f'at {version}'}")
            install.append(f"'{wanted}'")
    if wrong:
        return Check("packages", "fail", "; ".join(wrong), f"pip install {' '.join(install)}", {"versions": versions})
    shown = ", ".join(f"{name} {versions[name]}" for name in ("transformers", "peft", "datasets") if name in versions)
    return Check("packages", "ok", f"{len(versions)} in range ({shown})", None, {"versions": versions})


def check_optional(packages: Mapping[str, str], version_of: Callable[[str], str] = importlib.metadata.version) -> Check:
    """Packages that only one setting needs (name -> setting); a missing one is no fault, so this is always ok."""
    versions = {name: installed_version(name, version_of) for name in packages}
    value = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    missing = [f"{packages[name]} needs pip install {name}" for name, version in versions.items() if version is None]
    return Check("optional", "ok", value, "; ".join(missing) or None, {"versions": versions})


def installed_version(name: str, version_of: Callable[[str], str]) -> str | None:
    """A distribution's version, None when it is not installed."""
    try:
        return version_of(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- GPU ------------------------------------------------------------------------------------------------------------


def check_gpu(gpus: Gpus, facts: dict[str, Any], environ: Mapping[str, str], system: str) -> Check:
    """Does the torch build fit the GPU that is here? `facts` come from `describe_torch` ({}: no torch)."""
    seen = " + ".join(gpus.names)
    data = {"vendor": gpus.vendor, "seen": list(gpus.names), "device": facts.get("device"), "problem": gpus.problem}
    if facts.get("device", "cpu") != "cpu":
        usable = facts["devices"]
        shown = [gpu["name"] + (f" ({_gb(gpu['memory_bytes'])})" if gpu["memory_bytes"] else "") for gpu in usable]
        return Check("gpu", "ok", f"{' + '.join(shown)}, used by torch", None, {**data, "usable": usable})
    build, wanted = facts.get("build"), {"nvidia": "cuda", "amd": "rocm", "apple": "mps"}.get(gpus.vendor or "")
    if gpus.names and build and build != wanted:
        value = f"{seen} is here, but torch is a {build.upper()} build"
        return Check("gpu", "warn", value, torch_install_line(gpus.vendor, system), data)
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    if gpus.names and hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
        return Check("gpu", "ok", f"{seen}, hidden by CUDA_VISIBLE_DEVICES={hidden!r}", None, data)
    if gpus.names and build:
        advice = "update the driver; in a container, hand the GPU in (docker run --gpus all)"
        if gpus.vendor == "apple":
            advice = "update macOS: torch's MPS needs version 14 or later"
        return Check("gpu", "warn", f"{seen} is here, but torch cannot use it: {facts['reason']}", advice, data)
    if gpus.problem:
        return Check("gpu", "warn", f"nvidia-smi fails: {gpus.problem}", "repair or remove the NVIDIA driver", data)
    if build in ("cuda", "rocm"):
        advice = f"training runs on the CPU; a CPU build is several GB smaller: {torch_install_line(None, system)}"
        return Check("gpu", "warn", f"none, but torch is a {build.upper()} build", advice, data)
    return Check("gpu", "ok", seen or "none: training runs on the CPU", None, data)


def torch_install_line(vendor: str | None, system: str) -> str:
    """The command that installs the torch build for this vendor's GPU (None: for no GPU)."""
    if vendor == "amd":
        return "if ROCm supports this GPU, take the ROCm command from https://pytorch.org/get-started/locally"
    line = "run: pip install --force-reinstall torch"
    if vendor == "nvidia" and system == "Windows":  # PyPI's Windows wheels are CPU builds, its Linux wheels CUDA builds
        return f"{line} --index-url https://download.pytorch.org/whl/cu130"
    if vendor is None and system == "Linux":
        return f"{line} --index-url https://download.pytorch.org/whl/cpu"
    return line


# --- CPU ------------------------------------------------------------------------------------------------------------


def check_cpu(model: str, instructions: Sequence[str], cpus: Cpus, capability: str | None) -> Check:
    """The CPU in one line; a quota is often meant, so it is told and not warned of."""
    data: dict[str, Any] = {"model": model, "instructions": list(instructions), "torch_capability": capability}
    data |= {"usable_cpus": cpus.usable, "physical_cores": cpus.physical, "logical_cpus": cpus.logical}
    value = f"{model}, {cpus.physical or '?'} cores, {cpus.logical} logical, {cpus.usable:g} usable; "
    value += ", ".join(instructions) or capability or "no vector instructions known"
    advice = "this process has a quota or affinity (docker --cpus, Slurm --cpus-per-task, taskset)"
    return Check("cpu", "ok", value, advice if cpus.usable < cpus.logical else None, data)


def check_threads(threads: int, cpus: Cpus) -> Check:
    """torch's threads against the CPUs this process may use: too many fight for them, too few leave them idle."""
    whole = max(1, math.floor(cpus.usable))
    best = min(whole, cpus.physical or whole)  # two threads of one core share its multiplier
    data = {"threads": threads, "usable_cpus": cpus.usable, "best": best}
    if threads > math.ceil(cpus.usable):
        value = f"torch uses {threads} threads on {cpus.usable:g} usable CPUs: they wait for each other"
    elif threads * 2 <= best:
        value = f"torch uses {threads} of {best} usable cores"
    else:
        return Check("threads", "ok", f"torch uses {threads}", None, data)
    return Check("threads", "warn", value, f"export OMP_NUM_THREADS={best}", data)


def torch_rate(torch: Any, device: str) -> Callable[[str, int], float]:
    """GFLOP/s as a function of (dtype name, n) on this device."""
    from hone.hardware import matmul_gflops

    return lambda dtype, n: matmul_gflops(getattr(torch, dtype), device, n)


def has_native_bf16(facts: dict[str, Any], instructions: Sequence[str]) -> bool | None:
    """Does the device torch would train on have bf16 instructions? None: it does not tell (MPS)."""
    if facts["device"] != "cpu":
        return facts["bf16_native"]
    return any(name in BF16_SETS for name in instructions)


def check_bf16(rate: Callable[[str, int], float] | None, device: str, native: bool | None) -> Check:
    """Is bfloat16 faster than float32 here? Measured by `rate(dtype, n)` in GFLOP/s; None: judged by instructions."""
    if rate is None:
        has = {True: "has bf16 instructions", False: "has no bf16 instructions", None: "tells nothing of bf16"}[native]
        return Check("bf16", "ok", f"not measured; the hardware {has}", None, {"device": device, "native": native})
    # Emulated bf16 can be hundreds of times slower (pytorch/pytorch#146508): 256 answers in seconds, 1024 in minutes.
    n = 4096 if device != "cpu" else 1024 if native else 256
    # There and back: a machine that slows down meanwhile slows both.
    rates = [(dtype, rate(dtype, n)) for dtype in ("float32", "bfloat16", "bfloat16", "float32")]
    float32, bf16 = (sum(r for dtype, r in rates if dtype == name) / 2 for name in ("float32", "bfloat16"))
    ratio = bf16 / float32
    faster = ratio >= 1.1  # less does not pay for the lost digits
    verdict = f"bf16 is {ratio:.1f}x faster here" if faster else f"bf16 runs at {ratio:.3g}x: use float32"
    data = {"device": device, "native": native, "n": n, "ratio": ratio}
    data |= {"float32_gflops": float32, "bfloat16_gflops": bf16}
    value = f"{verdict} (float32 {float32:,.0f}, bf16 {bf16:,.0f} GFLOP/s, {n}³ on {device})"
    if native and not faster:
        advice = "the hardware has bf16 instructions: is the machine busy, or ONEDNN_MAX_CPU_ISA set?"
        return Check("bf16", "warn", value, advice, data)
    return Check("bf16", "ok", value, None, data)


# --- memory and disk ------------------------------------------------------------------------------------------------


def check_memory(total: int, available: int, limits: Limits) -> Check:
    """Bytes this process can still get: the machine's, or the control group's where that is less."""
    usable = min(available, available if limits.memory_free_bytes is None else limits.memory_free_bytes)
    value = f"{_gb(usable)} free of {_gb(total)}"
    if limits.memory_bytes is not None and limits.memory_bytes < total:
        value += f", limited to {_gb(limits.memory_bytes)} by the control group"
    data = {"total_bytes": total, "available_bytes": available, "limit_bytes": limits.memory_bytes}
    data["usable_bytes"] = usable
    advice = "close other programs, or raise the limit (docker --memory, Slurm --mem)"
    status = _by_size(usable)
    return Check("memory", status, value, advice if status != "ok" else None, data)


def check_disk(places: Mapping[str, Path], free_of: Callable[[Path], int] | None = None) -> Check:
    """Free bytes at each place, or at the nearest folder above it that exists."""
    free_of = free_of or (lambda folder: shutil.disk_usage(folder).free)
    free, locked = {}, []
    for name, path in places.items():
        folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
        free[name] = free_of(folder)
        if not os.access(folder, os.W_OK):
            locked.append(f"{name} ({folder})")
    value = ", ".join(f"{_gb(size)} free in the {name}" for name, size in free.items())
    data = {"free_bytes": free, "paths": {name: str(path) for name, path in places.items()}, "not_writable": locked}
    status = _by_size(min(free.values()))
    if status != "ok":
        advice = "free some space, or set output_dir=... and HONE_CACHE=... to a larger disk"
        return Check("disk", status, value, advice, data)
    if locked:
        advice = "choose a writable folder: output_dir=..., HONE_CACHE=..."
        return Check("disk", "warn", f"{value}; not writable: {', '.join(locked)}", advice, data)
    return Check("disk", "ok", value, None, data)


def check_hub_cache(environ: Mapping[str, str], cache: Path | None = None) -> Check:
    """Which models are here without a network, and whether the offline switches are set."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    cache = cache or Path(constants.HF_HUB_CACHE)
    try:
        repos = scan_cache_dir(cache).repos
    except CacheNotFound:
        repos = frozenset()  # nothing was ever downloaded
    models = sorted(repo.repo_id for repo in repos if repo.repo_type == "model")
    size = sum(repo.size_on_disk for repo in repos)
    offline = {name: environ[name] for name in OFFLINE_VARIABLES if environ.get(name)}
    value = f"{len(models)} model{'' if len(models) == 1 else 's'} ({_gb(size)}) in {cache}"
    value += "".join(f", {name}={setting}" for name, setting in offline.items())
    data: dict[str, Any] = {"path": str(cache), "HF_HOME": environ.get("HF_HOME"), "offline": offline}
    data |= {"models": models, "size_bytes": size}
    advice = None
    if any(setting.upper() in ("1", "ON", "YES", "TRUE") for setting in offline.values()) and not models:
        advice = "offline with an empty cache: name models by folder, use the bundled one, or unset the variable"
    return Check("hub cache", "ok", value, advice, data)


# --- helpers --------------------------------------------------------------------------------------------------------


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB"


def _by_size(size: int) -> Literal["ok", "warn", "fail"]:
    return "fail" if size < NEEDED_BYTES else "warn" if size < COMFORTABLE_BYTES else "ok"
