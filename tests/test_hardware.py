"""Reading a machine from described files: CPU sheets, control groups of both versions, GPUs, torch builds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone.errors import first_line
from hone.hardware import (
    Cpus,
    Limits,
    count_cpus,
    describe_torch,
    nvidia_gpus,
    read_cgroup,
    read_cpu,
    read_memory,
    run_command,
)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


# --- CPU ---


def test_x86_cpuinfo(tmp_path: Path) -> None:
    sheet = "processor\t: 0\nmodel name\t: Intel Xeon 8480\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16\n"
    write(tmp_path, {"cpuinfo": sheet + sheet.replace("8480", "0000")})
    assert read_cpu(tmp_path / "cpuinfo") == ("Intel Xeon 8480", ["AVX2", "AVX512", "AVX512-BF16", "AMX-BF16"])


def test_arm_cpuinfo_has_features_but_no_model(tmp_path: Path) -> None:
    write(tmp_path, {"cpuinfo": "Features\t: fp asimd sve bf16\nCPU part\t: 0xd40\n"})
    model, instructions = read_cpu(tmp_path / "cpuinfo")
    assert model
    assert instructions == ["NEON", "SVE", "Arm BF16"]


def test_missing_cpuinfo_still_names_something(tmp_path: Path) -> None:
    model, instructions = read_cpu(tmp_path / "absent")
    assert model and instructions == []


def test_quota_caps_the_cpus_of_this_machine() -> None:
    free = count_cpus(None)
    assert 1 <= free.usable <= free.logical
    assert count_cpus(0.5) == Cpus(0.5, free.physical, free.logical)


def test_memory_of_this_machine() -> None:
    total, available = read_memory()
    assert 0 < available <= total


# --- control groups ---


def test_no_cgroup_files_no_limits(tmp_path: Path) -> None:
    assert read_cgroup(tmp_path / "absent", tmp_path) == Limits()


def test_v2_unlimited(tmp_path: Path) -> None:
    write(tmp_path, {"proc": "0::/\n", "memory.max": "max\n", "memory.current": "5\n", "cpu.max": "max 100000\n"})
    assert read_cgroup(tmp_path / "proc", tmp_path) == Limits()


def test_v2_tightest_level_wins_and_file_cache_is_free(tmp_path: Path) -> None:
    files = {
        "proc": "0::/user/job\n",
        "user/memory.max": "9000\n",
        "user/memory.current": "8500\n",
        "user/job/memory.max": "10000\n",
        "user/job/memory.current": "6000\n",
        "user/job/memory.stat": "anon 1\nactive_file 7\ninactive_file 2000\n",
        "user/cpu.max": "150000 100000\n",
        "user/job/cpu.max": "max 100000\n",
    }
    # job: 10000 - (6000 - 2000) = 6000 free, but its parent has only 9000 - 8500 = 500
    assert read_cgroup(write(tmp_path, files) / "proc", tmp_path) == Limits(9000, 500, 1.5)


def test_v1_controllers_apart(tmp_path: Path) -> None:
    files = {
        "proc": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n",
        # inside a container only the root of the group is mounted; /docker/abc does not exist
        "memory/memory.limit_in_bytes": "4000\n",
        "memory/memory.usage_in_bytes": "3000\n",
        "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    assert read_cgroup(write(tmp_path, files) / "proc", tmp_path) == Limits(4000, 1500, 0.5)


def test_v1_unlimited(tmp_path: Path) -> None:
    files = {
        "proc": "4:memory:/\n1:cpu:/\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
    }
    assert read_cgroup(write(tmp_path, files) / "proc", tmp_path) == Limits()


# --- GPUs without torch ---


@pytest.mark.parametrize(
    ("body", "names", "problem"),
    [
        ("echo 'NVIDIA H200'; echo 'NVIDIA L4'", ("NVIDIA H200", "NVIDIA L4"), None),
        ("echo; echo 'could not communicate with the driver'; exit 9", (), "could not communicate with the driver"),
        ("exit 9", (), "nvidia-smi ended with code 9"),
    ],
)
def test_what_nvidia_smi_says(tmp_path: Path, body: str, names: tuple[str, ...], problem: str | None) -> None:
    assert nvidia_gpus(script(tmp_path / "nvidia-smi", body)) == (names, problem)


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_gpus() == ((), None)


# --- torch builds ---


def fake_torch(*, cuda: Any = None, hip: Any = None, mps: tuple[bool, bool] = (False, False), gpus: Any = ()) -> Any:
    """A torch of a given build; `gpus` is a list of (name, bytes) or the error that cuda.init() raises."""

    def init() -> None:
        if isinstance(gpus, Exception):
            raise gpus

    properties = [] if isinstance(gpus, Exception) else [SimpleNamespace(name=n, total_memory=m) for n, m in gpus]
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda, hip=hip),
        get_num_threads=lambda: 8,
        cuda=SimpleNamespace(
            init=init,
            device_count=lambda: len(properties),
            get_device_properties=lambda index: properties[index],
        ),
        backends=SimpleNamespace(
            mps=SimpleNamespace(is_built=lambda: mps[0], is_available=lambda: mps[1]),
            cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2"),
        ),
    )


@pytest.mark.parametrize(
    ("torch", "build", "device", "reason"),
    [
        (fake_torch(), "cpu", "cpu", None),
        (fake_torch(cuda="13.0", gpus=[("NVIDIA L4", 24)]), "cuda", "cuda", None),
        (fake_torch(hip="6.4", gpus=[("AMD MI300", 192)]), "rocm", "cuda", None),
        (fake_torch(cuda="13.0", gpus=RuntimeError("driver too old\nupdate")), "cuda", "cpu", "driver too old"),
        (fake_torch(cuda="13.0"), "cuda", "cpu", "the driver shows no GPU"),
        (fake_torch(mps=(True, True)), "mps", "mps", None),
        (fake_torch(mps=(True, False)), "mps", "cpu", "MPS is built in, but this macOS does not offer it"),
    ],
)
def test_torch_builds(torch: Any, build: str, device: str, reason: str | None) -> None:
    facts = describe_torch(torch)
    assert (facts["build"], facts["device"], facts["reason"], facts["threads"]) == (build, device, reason, 8)


def test_cuda_devices_are_listed() -> None:
    facts = describe_torch(fake_torch(cuda="13.0", gpus=[("NVIDIA L4", 24), ("NVIDIA H200", 141)]))
    assert facts["devices"] == [{"name": "NVIDIA L4", "memory_bytes": 24}, {"name": "NVIDIA H200", "memory_bytes": 141}]


def test_the_installed_torch_is_described() -> None:
    import torch

    facts = describe_torch(torch)
    assert facts["version"] == torch.__version__
    assert (facts["device"] == "cpu") == (not torch.cuda.is_available() and not torch.backends.mps.is_available())


# --- commands ---


def test_commands_that_hang_or_do_not_exist(tmp_path: Path) -> None:
    slow = script(tmp_path / "slow", "exec sleep 30")
    assert run_command([slow], timeout_s=0.2) == (-1, "slow gave no answer within 0.2 s")
    code, message = run_command([str(tmp_path / "absent")])
    assert code == -1 and message.endswith("absent: No such file or directory")


def test_first_line_skips_blank_ones() -> None:
    assert first_line("\n  \n two \nthree") == "two"
    assert first_line("") == ""


# --- the matrix product ---


def test_matmul_gflops_counts_two_n_cubed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from hone import hardware

    # Every product takes 1 s by this clock, but for the untimed first one (100 s) and one interruption (50 s).
    durations = iter([100.0, 1.0, 50.0, 1.0, 1.0, 1.0])
    now = [0.0]
    real_mm = torch.mm

    def slow_mm(*operands: Any, out: Any) -> Any:
        now[0] += next(durations)
        return real_mm(*operands, out=out)

    monkeypatch.setattr(torch, "mm", slow_mm)
    monkeypatch.setattr(hardware, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert hardware.matmul_gflops(torch.float32, "cpu", n=10, repeats=5) == 2 * 10**3 / 1e9


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
