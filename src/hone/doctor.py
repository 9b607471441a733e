"""What this machine can do: one `Check` for each thing that decides whether and how fast hone trains here.

Every probe looks or measures; none installs, changes or fetches anything, and none can crash the others. `fail` is kept
for what stops training at all; `warn` marks what costs speed or one feature, with the step that repairs it.
Does not plan a run: it says nothing of whether a given model fits.

>>> checks = examine()      # doctest: +SKIP
>>> raise SystemExit(exit_code(checks))      # doctest: +SKIP
"""

import importlib.metadata
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hone.cache import cache_root
from hone.errors import HoneError, first_line
from hone.hardware import (
    BF16_SETS,
    Cpus,
    Limits,
    count_cpus,
    describe_torch,
    nvidia_gpus,
    read_cgroup,
    read_cpu,
    read_memory,
)
from hone.hub import in_reach

GB = 10**9
NEEDED_BYTES = 1 * GB  # below this not even the small bundled model trains
COMFORTABLE_BYTES = 4 * GB  # distilgpt2 with AdamW, 8 rows of 256 tokens, peaks at 3 GB; one full checkpoint takes 1 GB

OPTIONAL_PACKAGES = {  # package -> what needs it
    "trackio": "report_to: trackio",
    "tensorboard": "report_to: tensorboard",
    "lm-eval": "hone eval --tasks",
}
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")

CONTAINER_ADVICE = (
    "inside a container, start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined "
    "(Podman: --security-opt unmask=ALL), or grade outside it"
)
# A fragment of bubblewrap's complaint -> the way out; the first that occurs wins.
SANDBOX_ADVICE = (
    (
        ("uid map", "RTM_NEWADDR"),
        "Ubuntu's AppArmor keeps user namespaces from bwrap; load its profile: sudo apt-get install apparmor-profiles "
        "&& sudo ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ "
        "&& sudo systemctl reload apparmor",
    ),
    (("mount proc", "mount tmpfs", "newroot"), CONTAINER_ADVICE),
    (
        ("namespace",),
        f"this kernel or container allows no user namespaces; Debian: sudo sysctl kernel.unprivileged_userns_clone=1; "
        f"{CONTAINER_ADVICE}",
    ),
)
WITHOUT_SANDBOX = "only running generated programs needs it; everything else works"


@dataclass(frozen=True)
class Check:
    """One line of the table: `value` for people, `data` (plain JSON types, bytes and GFLOP/s) for programs."""

    name: str
    status: Literal["ok", "warn", "fail"]
    value: str
    advice: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


def examine() -> list[Check]:
    """Look at this machine; never raises."""
    torch, facts = load_torch()
    probes: dict[str, Callable[[], Check]] = {
        "python": lambda: Check("python", "ok", platform.python_version(), None, {"executable": sys.executable}),
        "torch": lambda: check_torch(torch, facts),
        "packages": lambda: check_packages(declared_requirements("hone-lm")),
        "gpu": lambda: check_gpu(*nvidia_gpus(), facts, os.environ),
        "cpu": lambda: check_cpu(*read_cpu(), count_cpus(read_cgroup().cpus), facts.get("cpu_capability")),
    }
    if facts:  # without torch these two have no answer, and the torch check has said so
        probes["threads"] = lambda: check_threads(facts["threads"], count_cpus(read_cgroup().cpus))
        probes["bf16"] = lambda: check_bf16(facts["device"], read_cpu()[1])
    probes |= {
        "memory": lambda: check_memory(*read_memory(), read_cgroup()),
        "disk": lambda: check_disk({"current folder": Path.cwd(), "cache": cache_root()}),
        "hub": lambda: check_hub(in_reach(), os.environ),
        "sandbox": check_sandbox,
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
        return Check(name, "warn", f"could not be examined ({reason})", "training may still work", {"error": reason})


# --- software -------------------------------------------------------------------------------------------------------


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
        return Check("torch", "fail", "not installed", "pip install torch")
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
    from packaging.requirements import Requirement

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
    """Packages that only one setting needs (name -> setting); a missing one is not a fault, so this is always ok."""
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


# --- processors -----------------------------------------------------------------------------------------------------


def check_gpu(names: Sequence[str], problem: str | None, facts: dict[str, Any], environ: Mapping[str, str]) -> Check:
    """Does the torch build fit the GPU that is here?

    Args:
        names: NVIDIA GPUs that the driver shows. problem: the driver tool's own line when it failed.
        facts: of `describe_torch` ({}: no torch).
    """
    data = {"seen": list(names), "device": facts.get("device"), "problem": problem}
    build, reason, seen = facts.get("build"), facts.get("reason"), " + ".join(names)
    if facts.get("device", "cpu") != "cpu":
        usable = facts["devices"]
        shown = [gpu["name"] + (f" ({_gb(gpu['memory_bytes'])})" if gpu["memory_bytes"] else "") for gpu in usable]
        return Check("gpu", "ok", f"{' + '.join(shown)}, used by torch", None, {**data, "usable": usable})
    if names and build and build != "cuda":
        line = "run: pip install --force-reinstall torch"
        if sys.platform == "win32":  # PyPI's Windows wheels are CPU builds, its Linux wheels CUDA builds
            line += " --index-url https://download.pytorch.org/whl/cu130"
        return Check("gpu", "warn", f"{seen} is here, but torch is a {build.upper()} build", line, data)
    if names and (hidden := environ.get("CUDA_VISIBLE_DEVICES")) is not None and hidden.strip() in ("", "-1"):
        return Check("gpu", "ok", f"{seen}, hidden by CUDA_VISIBLE_DEVICES={hidden!r}", None, data)
    if problem:
        return Check("gpu", "warn", f"nvidia-smi fails: {problem}", "repair or remove the NVIDIA driver", data)
    if reason:  # a build for a GPU, and none that it can use
        value = f"{seen or 'none'}: torch is a {str(build).upper()} build and cannot use one: {reason}"
        advice = "update the driver (of a Mac: macOS); in a container, hand the GPU in (docker run --gpus all)"
        if not names and sys.platform == "linux":
            advice += "; without a GPU, a CPU build is several GB smaller: pip install --force-reinstall torch "
            advice += "--index-url https://download.pytorch.org/whl/cpu"
        return Check("gpu", "warn", value, advice, data)
    return Check("gpu", "ok", seen or "none: training runs on the CPU", None, data)


def check_cpu(model: str, instructions: Sequence[str], cpus: Cpus, capability: str | None) -> Check:
    """The CPU in one line; a quota is often meant, so it is shown and not warned of."""
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


def check_bf16(device: str, instructions: Sequence[str]) -> Check:
    """What `bf16: null` chooses here, by the measurement that training decides with."""
    from hone.accelerations.precision import WORTH, has_bf16, product_rates

    if not has_bf16(device):
        return Check("bf16", "ok", f"not on this {device} device: use float32", None, {"device": device, "pays": False})
    rates = product_rates(device)
    ratio = rates["bfloat16"] / rates["float32"]
    pays = ratio > WORTH
    verdict = f"bf16 is {ratio:.1f}x faster here" if pays else f"bf16 runs at {ratio:.3g}x: use float32"
    value = f"{verdict} (float32 {rates['float32']:,.0f}, bf16 {rates['bfloat16']:,.0f} GFLOP/s on {device})"
    data = {"device": device, "pays": pays, "ratio": ratio, "gflops": rates}
    if device == "cpu" and not pays and set(instructions) & set(BF16_SETS):
        advice = "the processor has bf16 instructions: is the machine busy, or ONEDNN_MAX_CPU_ISA set?"
        return Check("bf16", "warn", value, advice, data)
    return Check("bf16", "ok", value, None, data)


# --- memory, disk, hub ----------------------------------------------------------------------------------------------


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


def check_hub(reached: bool, environ: Mapping[str, str], cache: Path | None = None) -> Check:
    """Can models be fetched (`reached`), and which are here without a network?"""
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
    value = f"{'in reach' if reached else 'not in reach'}; {len(models)} model{'' if len(models) == 1 else 's'} "
    value += f"({_gb(size)}) in {cache}" + "".join(f", {name}={setting}" for name, setting in offline.items())
    data: dict[str, Any] = {"in_reach": reached, "path": str(cache), "HF_HOME": environ.get("HF_HOME")}
    data |= {"offline": offline, "models": models, "size_bytes": size}
    advice = None
    if not reached and not models:
        advice = "name models by folder, or use the bundled one (hone-base)"
    return Check("hub", "ok", value, advice, data)


# --- generated programs ---------------------------------------------------------------------------------------------


def check_sandbox() -> Check:
    """Can generated programs be run safely here? By the self-test of every grading: a program of ours tries to get out.

    A warning, with the step that repairs it: only generated programs need any of this.
    """
    if sys.platform != "linux":
        return Check("sandbox", "warn", f"not available on {platform.system()}", WITHOUT_SANDBOX, {"works": False})
    from hone.grading.sandbox.selftest import CANARIES, KNOWN, ready

    began = time.perf_counter()
    try:
        with ready("strict"):
            seconds = time.perf_counter() - began
    except HoneError as error:
        cause = error.__cause__ if isinstance(error.__cause__, HoneError) else error  # names the step, not this command
        known = (advice for words, advice in SANDBOX_ADVICE if any(word in error.what for word in words))
        advice = f"{next(known, None) or cause.fix or CONTAINER_ADVICE}; {WITHOUT_SANDBOX}"
        return Check("sandbox", "warn", error.what, advice, {"works": False, "reason": error.what})
    tried = len(CANARIES) + 1  # and its environment
    value = f"{tried} ways out are closed, {len(KNOWN)} known programs judged right ({seconds:.1f} s)"
    return Check("sandbox", "ok", value, None, {"works": True, "seconds": seconds})


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB"


def _by_size(size: int) -> Literal["ok", "warn", "fail"]:
    return "fail" if size < NEEDED_BYTES else "warn" if size < COMFORTABLE_BYTES else "ok"
