"""The verdicts of `hone doctor`, each branch from described facts; one examination of the machine the tests run on."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone import doctor
from hone.doctor import (
    GB,
    Check,
    attempt,
    check_bf16,
    check_cpu,
    check_disk,
    check_gpu,
    check_hub,
    check_memory,
    check_optional,
    check_packages,
    check_sandbox,
    check_threads,
    check_torch,
    declared_requirements,
    examine,
    exit_code,
)
from hone.hardware import Cpus, Limits

NVIDIA = ("NVIDIA L4",)


def facts(build: str = "cpu", device: str = "cpu", **more: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "version": "2.13.0",
        "build": build,
        "toolkit": None,
        "device": device,
        "devices": [],
        "reason": None,
    }
    return plain | {"threads": 2, "cpu_capability": "AVX2"} | more


# --- the whole ---


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "in_reach", lambda: False)


def test_this_machine_is_examined() -> None:
    checks = examine()
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    assert {"torch", "packages", "gpu", "cpu", "threads", "bf16", "memory", "disk", "hub", "sandbox"} < set(names)
    json.dumps([check.data for check in checks], allow_nan=False)  # what --json prints
    assert not [check for check in checks if "could not be examined" in check.value]


def test_without_torch_the_rest_is_still_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # `import torch` now raises ModuleNotFoundError
    checks = {check.name: check for check in examine()}
    assert checks["torch"].status == "fail"
    assert "threads" not in checks and "bf16" not in checks
    assert checks["memory"].value and exit_code(checks.values()) == 1


def test_a_probe_that_crashes_becomes_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Check:
        raise OSError("sensor on fire\ndetails")

    check = attempt("cpu", broken)
    assert (check.status, check.value) == ("warn", "could not be examined (OSError: sensor on fire)")
    monkeypatch.setattr(doctor, "read_memory", broken)
    memory = next(check for check in examine() if check.name == "memory")
    assert memory.status == "warn" and "sensor on fire" in memory.value


def test_exit_code_counts_only_failures() -> None:
    assert exit_code([Check("a", "ok", ""), Check("b", "warn", "")]) == 0
    assert exit_code([Check("a", "ok", ""), Check("b", "fail", "")]) == 1


def test_importing_the_doctor_does_not_import_torch() -> None:
    heavy = "{'torch', 'transformers', 'huggingface_hub'}"
    code = f"import hone.doctor, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- software ---


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "not installed"),
        # torch is there, one of its own imports is not: another repair
        (ModuleNotFoundError("No module named 'sympy'", name="sympy"), "does not work (ModuleNotFoundError: No module"),
        (OSError("libcudart.so.13: cannot open shared object file\nmore"), "does not work (OSError: libcudart.so.13"),
    ],
)
def test_torch_that_cannot_be_imported_fails(error: Exception, value: str) -> None:
    check = check_torch(error, {})
    assert check.status == "fail" and check.value.startswith(value)
    assert (check.advice or "").startswith("pip install")


def test_torch_build_is_named() -> None:
    assert check_torch(object(), facts("cuda", toolkit="13.0")).value == "2.13.0 (CUDA build, 13.0)"
    assert check_torch(object(), facts()).value == "2.13.0 (CPU build)"


def versions(**installed: str) -> Any:
    def version_of(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    return version_of


def test_packages_in_range() -> None:
    wanted = ["torch<3,>=2.9", "peft>=0.19,<1", "winonly>=1; sys_platform == 'none'", "pytest>=8; extra == 'dev'"]
    check = check_packages(wanted, versions(torch="2.13.0+cpu", peft="0.21.2"))
    assert check.status == "ok"
    assert check.data["versions"] == {"torch": "2.13.0+cpu", "peft": "0.21.2"}  # markers that do not hold are not asked


def test_a_nightly_inside_the_range_is_accepted() -> None:
    assert check_packages(["torch>=2.9,<3"], versions(torch="2.14.0.dev20261101+cpu")).status == "ok"


def test_packages_missing_or_out_of_range_fail_with_one_line_that_repairs_all() -> None:
    check = check_packages(["transformers>=5.10,<6", "peft>=0.19,<1", "numpy>=2"], versions(peft="0.15", numpy="2.4"))
    assert check.status == "fail"
    assert check.value == "transformers<6,>=5.10 is not installed; peft<1,>=0.19 is at 0.15"
    assert check.advice == "pip install 'transformers<6,>=5.10' 'peft<1,>=0.19'"


def test_running_from_sources_is_a_warning() -> None:
    assert declared_requirements("no-such-distribution-here") is None
    assert check_packages(None).status == "warn"


def test_the_declared_ranges_of_an_installed_distribution() -> None:
    assert any(line.startswith("numpy") for line in declared_requirements("transformers") or [])


def test_optional_packages_never_warn() -> None:
    check = check_optional({"trackio": "report_to: trackio", "tensorboard": "x"}, versions(tensorboard="2.20"))
    assert check.status == "ok"
    assert check.value == "trackio not installed, tensorboard 2.20"
    assert check.advice == "report_to: trackio needs pip install trackio"


# --- GPU ---


@pytest.mark.parametrize(
    ("names", "problem", "torch_facts", "system", "status", "value", "advice"),
    [
        ((), None, facts(), "linux", "ok", "none: training runs on the CPU", None),
        (NVIDIA, None, facts(), "linux", "warn", "NVIDIA L4 is here, but torch is a CPU build", "--force-reinstall"),
        (NVIDIA, None, facts(), "win32", "warn", "torch is a CPU build", "whl/cu130"),
        (NVIDIA, None, {}, "linux", "ok", "NVIDIA L4", None),
        (NVIDIA, None, facts("cuda", reason="driver too old"), "linux", "warn", "driver too old", "update the driver"),
        ((), None, facts("mps", reason="no MPS"), "darwin", "warn", "no MPS", "macOS"),
        ((), "driver lost", facts(), "linux", "warn", "nvidia-smi fails: driver lost", "driver"),
        ((), None, facts("cuda", reason="no GPU"), "linux", "warn", "none: torch is a CUDA build", "whl/cpu"),
    ],
)
def test_gpu_against_torch_build(
    names: tuple[str, ...],
    problem: str | None,
    torch_facts: dict[str, Any],
    system: str,
    status: str,
    value: str,
    advice: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    check = check_gpu(names, problem, torch_facts, {})
    assert check.status == status
    assert value in check.value
    assert (advice in (check.advice or "")) if advice else check.advice is None


def test_gpu_in_use() -> None:
    devices = [{"name": "NVIDIA L4", "memory_bytes": 24 * GB}, {"name": "Apple GPU", "memory_bytes": None}]
    check = check_gpu(NVIDIA, None, facts("cuda", "cuda", devices=devices), {})
    assert (check.status, check.value) == ("ok", "NVIDIA L4 (24.0 GB) + Apple GPU, used by torch")


@pytest.mark.parametrize(("setting", "status"), [("", "ok"), ("-1", "ok"), ("0", "warn")])
def test_gpu_hidden_on_purpose_is_no_fault(setting: str, status: str) -> None:
    check = check_gpu(NVIDIA, None, facts("cuda", reason="no devices"), {"CUDA_VISIBLE_DEVICES": setting})
    assert check.status == status


# --- CPU, threads, bf16 ---


def test_cpu_line() -> None:
    check = check_cpu("EPYC", ["AVX2", "AVX512"], Cpus(8, 4, 8), "AVX512")
    assert (check.value, check.advice) == ("EPYC, 4 cores, 8 logical, 8 usable; AVX2, AVX512", None)
    limited = check_cpu("EPYC", [], Cpus(1.5, None, 8), "DEFAULT")
    assert limited.value == "EPYC, ? cores, 8 logical, 1.5 usable; DEFAULT"
    assert limited.status == "ok" and "quota" in (limited.advice or "")


@pytest.mark.parametrize(
    ("threads", "cpus", "status", "best"),
    [
        (4, Cpus(8, 4, 8), "ok", 4),  # torch's own choice: one a core
        (8, Cpus(8, 4, 8), "ok", 4),
        (64, Cpus(2, 64, 128), "warn", 2),  # a container's quota that torch does not see
        (2, Cpus(1.5, 8, 16), "ok", 1),
        (1, Cpus(0.5, 8, 16), "ok", 1),
        (1, Cpus(8, 4, 8), "warn", 4),  # OMP_NUM_THREADS=1 left over
        (3, Cpus(8, 4, 8), "ok", 4),
    ],
)
def test_threads(threads: int, cpus: Cpus, status: str, best: int) -> None:
    check = check_threads(threads, cpus)
    assert (check.status, check.data["best"]) == (status, best)
    assert check.advice == (f"export OMP_NUM_THREADS={best}" if status == "warn" else None)


@pytest.mark.parametrize(
    ("bf16", "instructions", "status", "verdict"),
    [
        (210.0, ["AVX512-BF16"], "ok", "bf16 is 2.1x faster here"),
        (0.5, ["AVX2"], "ok", "bf16 runs at 0.005x: use float32"),
        (120.0, ["AVX2"], "ok", "bf16 runs at 1.2x: use float32"),  # as training decides: a quarter is asked for
        (90.0, ["AMX-BF16"], "warn", "bf16 runs at 0.9x: use float32"),
    ],
)
def test_bf16_verdict(
    bf16: float, instructions: list[str], status: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"float32": 100.0, "bfloat16": bf16}
    monkeypatch.setattr("hone.accelerations.precision.product_rates", lambda device: rates)
    check = check_bf16("cpu", instructions)
    assert check.status == status and check.value.startswith(verdict)
    assert check.data["gflops"] == rates and check.data["pays"] == ("faster" in verdict)


def test_bf16_that_training_never_uses_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.accelerations.precision.product_rates", lambda device: 1 / 0)
    assert check_bf16("mps", []).data == {"device": "mps", "pays": False}


# --- memory, disk, caches ---


@pytest.mark.parametrize(
    ("available", "limits", "status", "usable"),
    [
        (20 * GB, Limits(), "ok", 20 * GB),
        (3 * GB, Limits(), "warn", 3 * GB),
        (GB - 1, Limits(), "fail", GB - 1),
        (20 * GB, Limits(8 * GB, 6 * GB), "ok", 6 * GB),
        (20 * GB, Limits(8 * GB, 0), "fail", 0),
        (2 * GB, Limits(8 * GB, 6 * GB), "warn", 2 * GB),
    ],
)
def test_memory(available: int, limits: Limits, status: str, usable: int) -> None:
    check = check_memory(32 * GB, available, limits)
    assert (check.status, check.data["usable_bytes"]) == (status, usable)
    assert ("control group" in check.value) == (limits.memory_bytes is not None)
    assert (check.advice is None) == (status == "ok")


def test_disk_takes_the_smallest_place_and_climbs_to_an_existing_folder(tmp_path: Path) -> None:
    sizes = {tmp_path: 50 * GB, tmp_path / "there": 2 * GB}
    (tmp_path / "there").mkdir()
    check = check_disk({"here": tmp_path, "cache": tmp_path / "there" / "not" / "yet"}, sizes.__getitem__)
    assert (check.status, check.value) == ("warn", "50.0 GB free in the here, 2.0 GB free in the cache")
    assert check_disk({"here": tmp_path}, lambda folder: GB - 1).status == "fail"
    assert check_disk({"here": tmp_path}, lambda folder: 9 * GB).status == "ok"


def test_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)  # root may write everywhere
    check = check_disk({"here": tmp_path}, lambda folder: 9 * GB)
    assert check.status == "warn" and f"not writable: here ({tmp_path})" in check.value


def test_disk_of_this_machine(tmp_path: Path) -> None:
    assert check_disk({"here": tmp_path}).data["free_bytes"]["here"] > 0


def add_model(cache: Path, name: str, size: int) -> None:
    """One model as huggingface_hub lays it out: refs/main -> snapshots/<commit>/file."""
    folder = cache / f"models--{name}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "model.safetensors").write_bytes(b"0" * size)


def test_hub_cache_counts_models(tmp_path: Path) -> None:
    add_model(tmp_path, "gpt2", 10)
    add_model(tmp_path, "tiny", 20)
    check = check_hub(False, {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "secret"}, tmp_path)
    assert (check.status, check.data["models"], check.data["size_bytes"]) == ("ok", ["gpt2", "tiny"], 30)
    assert check.value.startswith("not in reach; 2 models") and "HF_HUB_OFFLINE=1" in check.value
    assert check.advice is None and "secret" not in repr(check)


@pytest.mark.parametrize("reached", [True, False])
def test_absent_hub_cache(tmp_path: Path, reached: bool) -> None:
    check = check_hub(reached, {}, tmp_path / "absent")
    assert (check.status, check.data["models"], check.data["in_reach"]) == ("ok", [], reached)
    assert (check.advice is None) is reached


# --- sandbox ---


def fake_bwrap(folder: Path, monkeypatch: pytest.MonkeyPatch, complaint: str) -> None:
    """A bubblewrap first on PATH that knows all options and always fails."""
    (folder / "bwrap").write_text(
        f'#!/bin/sh\ncase "$*" in *--help*) echo --disable-userns;; *) echo "{complaint}" >&2; exit 1;; esac\n'
    )
    (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin:/usr/sbin:/sbin")


@pytest.mark.parametrize(
    ("complaint", "advice"),
    [
        ("bwrap: setting up uid map: Permission denied", "AppArmor"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "AppArmor"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "inside a container"),
        ("bwrap: No permissions to create new namespace, likely because", "unprivileged_userns_clone"),
    ],
)
def test_sandbox_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict_sandbox: Any, complaint: str, advice: str
) -> None:
    tmp_path.chmod(0o755)
    fake_bwrap(tmp_path, monkeypatch, complaint)
    check = check_sandbox()
    assert check.status == "warn" and check.data["works"] is False
    assert complaint in check.value
    assert advice in (check.advice or "") and "everything else works" in (check.advice or "")


def test_sandbox_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if sys.platform == "linux":
        check = check_sandbox()
        assert check.status == "warn" and "apt-get install bubblewrap" in (check.advice or "")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "not available on" in check_sandbox().value


def test_sandbox_without_its_filter(strict_sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    check = check_sandbox()
    assert check.status == "warn" and (check.advice or "").startswith("pip install pyseccomp; ")


def test_sandbox_that_a_program_gets_out_of(strict_sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.grading.sandbox import selftest

    monkeypatch.setitem(selftest.CANARIES, "write to its own folder", "open('/tmp/own', 'w')")
    check = check_sandbox()
    assert check.status == "warn" and "could write to its own folder" in check.value


def test_sandbox_that_holds(strict_sandbox: Any) -> None:
    check = check_sandbox()
    assert check.status == "ok" and "16 ways out are closed" in check.value
