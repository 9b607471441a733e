"""The verdicts of `hone doctor`, each branch from described facts; one examination of the machine the tests run on."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone.doctor import examine as doctor
from hone.doctor.examine import (
    GB,
    Check,
    attempt,
    check_bf16,
    check_cpu,
    check_disk,
    check_gpu,
    check_hub_cache,
    check_memory,
    check_optional,
    check_packages,
    check_python,
    check_threads,
    check_torch,
    declared_requirements,
    examine,
    exit_code,
    has_native_bf16,
)
from hone.doctor.sandbox import check_libseccomp, check_sandbox, check_self_test
from hone.hardware import Cpus, Gpus, Limits

NVIDIA = Gpus("nvidia", ("NVIDIA L4",))


def facts(build: str = "cpu", device: str = "cpu", **more: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "version": "2.13.0",
        "build": build,
        "toolkit": None,
        "device": device,
        "devices": [],
        "reason": None,
    }
    return plain | {"threads": 2, "cpu_capability": "AVX2", "bf16_native": None} | more


# --- the whole ---


def test_this_machine_is_examined_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_product(*_: Any) -> float:
        raise AssertionError("measured although measure=False")

    monkeypatch.setattr("hone.training.flops.matmul_gflops", no_product)
    checks = examine(measure=False)
    names = [check.name for check in checks]
    assert len(names) == len(set(names)) == 14
    assert {"python", "torch", "packages", "gpu", "cpu", "threads", "bf16", "memory", "disk", "sandbox"} < set(names)
    json.dumps([check.data for check in checks], allow_nan=False)  # what --json prints
    assert not [check for check in checks if "could not be examined" in check.value]
    assert "not measured" in next(check.value for check in checks if check.name == "bf16")


def test_measuring_uses_the_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(doctor, "read_cpu", lambda system: ("CPU", ["AVX512-BF16"]))
    monkeypatch.setattr(doctor, "load_torch", lambda: (torch, facts()))
    rates = {torch.float32: 100.0, torch.bfloat16: 210.0}
    monkeypatch.setattr("hone.training.flops.matmul_gflops", lambda dtype, device, n: rates[dtype])
    bf16 = next(check for check in examine() if check.name == "bf16")
    assert bf16.status == "ok" and bf16.value.startswith("bf16 is 2.1x faster here")


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
    memory = next(check for check in examine(measure=False) if check.name == "memory")
    assert memory.status == "warn" and "sensor on fire" in memory.value


def test_exit_code_counts_only_failures() -> None:
    assert exit_code([Check("a", "ok", ""), Check("b", "warn", "")]) == 0
    assert exit_code([Check("a", "ok", ""), Check("b", "fail", "")]) == 1


def test_importing_the_doctor_does_not_import_torch() -> None:
    heavy = "{'torch', 'transformers', 'huggingface_hub'}"
    code = f"import hone.doctor.examine, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- software ---


def test_python_floor() -> None:
    assert check_python((3, 11, 0)).status == "ok"
    old = check_python((3, 10, 14))
    assert old.status == "fail" and "3.11" in (old.advice or "")


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
    ("gpus", "torch_facts", "system", "status", "value", "advice"),
    [
        (Gpus(), facts(), "Linux", "ok", "none: training runs on the CPU", None),
        (NVIDIA, facts(), "Linux", "warn", "NVIDIA L4 is here, but torch is a CPU build", "--force-reinstall torch"),
        (NVIDIA, facts(), "Windows", "warn", "torch is a CPU build", "whl/cu130"),
        (NVIDIA, {}, "Linux", "ok", "NVIDIA L4", None),
        (NVIDIA, facts("rocm"), "Linux", "warn", "torch is a ROCM build", "--force-reinstall torch"),
        (NVIDIA, facts("cuda", reason="driver too old"), "Linux", "warn", "cannot use it: driver too old", "driver"),
        (Gpus("amd", ("AMD GPU",)), facts(), "Linux", "warn", "torch is a CPU build", "ROCm"),
        (Gpus("apple", ("Apple GPU",)), facts("mps", reason="no MPS"), "Darwin", "warn", "no MPS", "macOS"),
        (Gpus("nvidia", (), "driver lost"), facts(), "Linux", "warn", "nvidia-smi fails: driver lost", "driver"),
        (Gpus(), facts("cuda"), "Linux", "warn", "none, but torch is a CUDA build", "whl/cpu"),
    ],
)
def test_gpu_against_torch_build(
    gpus: Gpus, torch_facts: dict[str, Any], system: str, status: str, value: str, advice: str | None
) -> None:
    check = check_gpu(gpus, torch_facts, {}, system)
    assert check.status == status
    assert value in check.value
    assert (advice in (check.advice or "")) if advice else check.advice is None


def test_gpu_in_use() -> None:
    devices = [{"name": "NVIDIA L4", "memory_bytes": 24 * GB}, {"name": "Apple GPU", "memory_bytes": None}]
    check = check_gpu(NVIDIA, facts("cuda", "cuda", devices=devices), {}, "Linux")
    assert (check.status, check.value) == ("ok", "NVIDIA L4 (24.0 GB) + Apple GPU, used by torch")


@pytest.mark.parametrize(("setting", "status"), [("", "ok"), ("-1", "ok"), ("0", "warn")])
def test_gpu_hidden_on_purpose_is_no_fault(setting: str, status: str) -> None:
    check = check_gpu(NVIDIA, facts("cuda", reason="no devices"), {"CUDA_VISIBLE_DEVICES": setting}, "Linux")
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


def test_native_bf16_is_read_from_the_device_in_use() -> None:
    assert has_native_bf16(facts(), ["AVX2", "AMX-BF16"]) is True
    assert has_native_bf16(facts(), ["AVX2", "AVX512"]) is False
    assert has_native_bf16(facts("cuda", "cuda", bf16_native=False), ["AMX-BF16"]) is False
    assert has_native_bf16(facts("mps", "mps"), []) is None


@pytest.mark.parametrize(
    ("float32", "bf16", "native", "status", "verdict", "n"),
    [
        (100.0, 210.0, True, "ok", "bf16 is 2.1x faster here", 1024),
        (100.0, 0.5, False, "ok", "bf16 runs at 0.005x: use float32", 256),
        (100.0, 105.0, False, "ok", "bf16 runs at 1.05x: use float32", 256),
        (100.0, 90.0, True, "warn", "bf16 runs at 0.9x: use float32", 1024),
    ],
)
def test_bf16_verdict(float32: float, bf16: float, native: bool, status: str, verdict: str, n: int) -> None:
    asked = []

    def rate(dtype: str, side: int) -> float:
        asked.append((dtype, side))
        return {"float32": float32, "bfloat16": bf16}[dtype]

    check = check_bf16(rate, "cpu", native)
    assert check.status == status and check.value.startswith(verdict)
    assert (check.data["float32_gflops"], check.data["bfloat16_gflops"]) == (float32, bf16)
    assert asked == [("float32", n), ("bfloat16", n), ("bfloat16", n), ("float32", n)]


def test_bf16_on_an_accelerator_needs_larger_matrices() -> None:
    assert check_bf16(lambda dtype, n: 1.0 + (dtype == "bfloat16"), "cuda", True).data["n"] == 4096


def test_bf16_drift_of_the_machine_cancels() -> None:
    speeds = iter([100.0, 90.0, 80.0, 70.0])  # every call slower than the one before, no dtype faster
    assert check_bf16(lambda dtype, n: next(speeds), "cpu", False).data["ratio"] == 1.0


@pytest.mark.parametrize("native", [True, False, None])
def test_bf16_unmeasured(native: bool | None) -> None:
    check = check_bf16(None, "cpu", native)
    assert check.status == "ok" and check.value.startswith("not measured") and check.data["native"] is native


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
    check = check_hub_cache({"HF_HUB_OFFLINE": "1", "HF_TOKEN": "secret"}, tmp_path)
    assert (check.status, check.data["models"], check.data["size_bytes"]) == ("ok", ["gpt2", "tiny"], 30)
    assert check.value.startswith("2 models") and "HF_HUB_OFFLINE=1" in check.value
    assert "secret" not in repr(check)


@pytest.mark.parametrize(("setting", "advised"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_absent_hub_cache(tmp_path: Path, setting: str, advised: bool) -> None:
    check = check_hub_cache({"HF_HUB_OFFLINE": setting}, tmp_path / "absent")
    assert (check.status, check.data["models"]) == ("ok", [])
    assert ("offline with an empty cache" in (check.advice or "")) is advised


# --- sandbox ---


def fake_bwrap(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> str | None:
    """Put a script named bwrap first on PATH and find it as the doctor does."""
    (folder / "bwrap").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return shutil.which("bwrap")


def test_sandbox_that_works_is_run_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = fake_bwrap(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/arguments')
    check = check_sandbox(bwrap, "Linux")
    assert (check.status, check.data["works"]) == ("ok", True)
    arguments = (tmp_path / "arguments").read_text().split()
    assert "--unshare-all" in arguments and "--die-with-parent" in arguments and arguments[-1] == "true"


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("bwrap: setting up uid map: Permission denied", "AppArmor"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "AppArmor"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "inside a container"),
        ("bwrap: No permissions to create new namespace, likely because", "unprivileged_userns_clone"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "unprivileged_userns_clone"),
        ("bwrap: something nobody has seen", "inside a container"),
    ],
)
def test_sandbox_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, advice: str
) -> None:
    bwrap = fake_bwrap(tmp_path, monkeypatch, f'echo "{message}" >&2; exit 1')
    check = check_sandbox(bwrap, "Linux")
    assert (check.status, check.data["works"], check.data["reason"]) == ("warn", False, message)
    assert message in check.value
    assert advice in (check.advice or "") and "everything else works" in (check.advice or "")


def test_sandbox_that_fails_in_silence_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = check_sandbox(fake_bwrap(tmp_path, monkeypatch, "exit 7"), "Linux")
    assert silent.data["reason"] == "bwrap ended with code 7"
    slow = check_sandbox(fake_bwrap(tmp_path, monkeypatch, "exec sleep 30"), "Linux", timeout_s=0.2)
    assert slow.status == "warn" and slow.data["reason"] == "bwrap gave no answer within 0.2 s"


def test_sandbox_missing_or_impossible() -> None:
    missing = check_sandbox(None, "Linux")
    assert missing.status == "warn" and "apt-get install bubblewrap" in (missing.advice or "")
    mac = check_sandbox(None, "Darwin")
    assert mac.status == "warn" and mac.value == "not available on macOS"


def test_sandbox_with_the_real_bubblewrap() -> None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("bubblewrap is not installed")
    check = check_sandbox(bwrap, "Linux")
    assert check.data["works"] or check.data["reason"]  # either answer, but an answer


def test_libseccomp_and_self_test_elsewhere() -> None:
    for check in (check_libseccomp("Darwin"), check_self_test("Windows")):
        assert (
            check.status == "warn" and "not available on" in check.value and "everything else" in (check.advice or "")
        )


def test_libseccomp_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    check = check_libseccomp("Linux")
    assert (check.status, check.value) == ("warn", "pyseccomp is not installed")
    assert (check.advice or "").startswith("pip install pyseccomp; ")


def test_self_test_that_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check = check_self_test("Linux")
    assert check.status == "warn" and "bubblewrap" in check.value and check.data["held"] is False


def test_self_test_that_finds_a_way_out(strict_box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.grading.sandbox import selftest

    monkeypatch.setitem(selftest.CANARIES, "write to its own folder", "open('/tmp/own', 'w')")
    check = check_self_test("Linux")
    assert check.status == "warn" and "a program in the box could write to its own folder" in check.value


def test_self_test_that_holds(strict_box: Any) -> None:
    check = check_self_test("Linux")
    assert check.status == "ok" and "16 ways out of the box are closed" in check.value
    assert check_libseccomp("Linux").status == "ok"


# --- the matrix product ---


def test_matmul_gflops_counts_two_n_cubed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from hone.training import flops

    # Every product takes 1 s by this clock, but for the untimed first one (100 s) and one interruption (50 s).
    durations = iter([100.0, 1.0, 50.0, 1.0, 1.0, 1.0])
    now = [0.0]
    real_mm = torch.mm

    def slow_mm(*operands: Any, out: Any) -> Any:
        now[0] += next(durations)
        return real_mm(*operands, out=out)

    monkeypatch.setattr(torch, "mm", slow_mm)
    monkeypatch.setattr(flops, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert flops.matmul_gflops(torch.float32, "cpu", n=10, repeats=5) == 2 * 10**3 / 1e9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matmul_gflops_of_this_machine(dtype: str) -> None:
    import torch

    from hone.hardware import matmul_gflops

    state = torch.random.get_rng_state()
    assert matmul_gflops(getattr(torch, dtype), "cpu", n=64) > 0
    assert torch.equal(state, torch.random.get_rng_state())  # measuring must not shift a run's random numbers


@pytest.mark.parametrize(("n", "repeats"), [(0, 7), (64, 4)])
def test_matmul_gflops_refuses_too_little(n: int, repeats: int) -> None:
    import torch

    from hone.hardware import matmul_gflops

    with pytest.raises(ValueError, match=f"n={n}, repeats={repeats}"):
        matmul_gflops(torch.float32, "cpu", n=n, repeats=repeats)
