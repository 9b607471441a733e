"""What a benchmark ran on: processor, instructions, versions."""

import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "tokenizers")


def environment() -> dict[str, Any]:
    """CPU, its instruction sets (AVX512-BF16 and AMX-BF16 among them), cores, versions, date."""
    from hone.hardware import count_cpus, read_cgroup, read_cpu

    model, instructions = read_cpu()
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": model,
        "instructions": instructions,
        "cpus": count_cpus(read_cgroup().cpus).usable,
        "versions": found,
        "date": str(date.today()),
    }
