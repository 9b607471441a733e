"""What several processes can do together: do they meet, agree, share a folder, and how fast do they exchange numbers?

Every process of the group runs `examine_group`, and each is told the same checks. Nothing is trained.

>>> with joined():                                                                     # doctest: +SKIP
...     checks = examine_group(Path("runs"))
"""

import secrets
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from hone.doctor import Check
from hone.errors import HoneError
from hone.processes import everybodys, from_primary, primary, world
from hone.runs import versions

SENT = 32 << 20  # bytes of the all-reduce, as hone sends gradients
TIMES = 5
PATIENCE_S = 10.0  # for a file to be seen by all: network file systems are late
CLOCKS_S = 1.0  # between clocks: more confuses whoever reads two logs


def examine_group(folder: Path) -> list[Check]:
    """Look at the group that this process is in.

    Args:
        folder: where runs will be written.

    Raises:
        HoneError: this process is alone.
    """
    if world() < 2:
        fix = "hone doctor --distributed nproc_per_node=2, or under torchrun"
        raise HoneError("one process is no group", where="--distributed", fix=fix)
    return [check_members(), check_versions(), check_clocks(), check_folder(folder), check_lock(folder), *check_speed()]


def check_members() -> Check:
    """They have met: on which machines, and with which devices."""
    import torch

    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name(torch.cuda.current_device()) if cuda else "CPU"
    members = everybodys(lambda: [socket.gethostname(), device])
    machines = Counter(host for host, _ in members)
    shown = ", ".join(f"{count} on {host}" for host, count in machines.items())
    kinds = " and ".join(dict.fromkeys(device for _, device in members))
    data = {"processes": len(members), "machines": dict(machines), "devices": [device for _, device in members]}
    return Check("processes", "ok", f"{len(members)} have met: {shown}; {kinds}", None, data)


def check_versions() -> Check:
    """The same packages everywhere: other versions round otherwise, and read other files."""
    found = everybodys(versions)
    differing = {
        name: [one.get(name) for one in found] for name in found[0] if len({one.get(name) for one in found}) > 1
    }
    if not differing:
        return Check("packages", "ok", f"the same in all {len(found)}", None, {"versions": found[0]})
    shown = "; ".join(f"{name} {', '.join(map(str, dict.fromkeys(those)))}" for name, those in differing.items())
    advice = "install the same everywhere: pip install -c constraints.txt, or one environment on a shared file system"
    return Check("packages", "fail", f"not the same: {shown}", advice, {"differing": differing})


def check_clocks() -> Check:
    """How far apart the clocks are, as far as a barrier can tell."""
    import torch.distributed as dist

    dist.barrier()
    times = everybodys(time.time)
    spread = max(times) - min(times)
    advice = "logs and file times will not fit together: set the clocks (NTP)" if spread > CLOCKS_S else None
    return Check("clocks", "warn" if advice else "ok", f"at most {spread:.2f} s apart", advice, {"seconds": spread})


def check_folder(folder: Path) -> Check:
    """A file that the first process writes is seen by all."""

    def write() -> str:
        folder.mkdir(parents=True, exist_ok=True)
        name = f".hone-doctor-{secrets.token_hex(6)}"
        (folder / name).write_text(name, encoding="ascii")
        return name

    file = folder / str(from_primary(write))
    until = time.monotonic() + PATIENCE_S
    while not (seen := file.is_file() and file.read_text(encoding="ascii") == file.name) and time.monotonic() < until:
        time.sleep(0.1)
    blind = [number for number, saw in enumerate(everybodys(lambda: seen)) if not saw]
    from_primary(lambda: file.unlink(missing_ok=True))
    if blind:
        advice = "give a folder that all machines share: --folder /shared/runs"
        value = f"{folder} is not the same for all: process {blind[0]} does not see what the first one wrote"
        return Check("folder", "fail", value, advice, {"blind": blind})
    return Check("folder", "ok", f"{folder} is the same for all", None, {"folder": str(folder)})


def check_lock(folder: Path) -> Check:
    """A lock that the first process holds keeps the others out: two trainings in one folder notice each other."""
    file = folder / ".hone-doctor.lock"
    lock = FileLock(file)
    if primary():
        lock.acquire(timeout=0)
    everybodys(lambda: None)
    taken = False
    if not primary():
        try:
            lock.acquire(timeout=0)
            taken = True
        except Timeout:
            taken = False
    broken = any(everybodys(lambda: taken))
    lock.release()
    from_primary(lambda: file.unlink(missing_ok=True))
    if broken:
        advice = "let no two trainings use one folder, or mount the file system with locks"
        return Check("locks", "warn", f"{folder} does not lock between these processes", advice, {"works": False})
    return Check("locks", "ok", "one holder at a time", None, {"works": True})


def check_speed() -> list[Check]:
    """How fast a sum over all travels: with gloo in memory, and with NCCL between GPUs where each has one."""
    import torch

    devices = ["cpu", *(["cuda"] if all(everybodys(torch.cuda.is_available)) else [])]
    return [_speed(device) for device in devices]


def _speed(device: str) -> Check:
    import torch
    import torch.distributed as dist

    large = torch.ones(SENT // 4, device=device)
    small = torch.ones(1, device=device)

    def sum_up(tensor: "torch.Tensor") -> None:
        dist.all_reduce(tensor)
        if device == "cuda":
            torch.cuda.synchronize()

    seconds = _median_seconds(lambda: sum_up(large))
    latency = _median_seconds(lambda: sum_up(small))
    moved = 2 * (world() - 1) / world() * SENT
    rate = moved / seconds / 1e9
    backend = "NCCL" if device == "cuda" else "gloo"
    value = (
        f"a sum of {SENT >> 20} MiB over all takes {1000 * seconds:.1f} ms ({rate:.2f} GB/s each way), of one number "
    )
    value += f"{1000 * latency:.2f} ms"
    data = {"seconds": seconds, "latency_s": latency, "gb_s": rate, "bytes": SENT}
    return Check(backend, "ok", value, None, data)


def _median_seconds(work: Callable[[], None]) -> float:
    """The slowest process's time, at the median over some repetitions; the first one is not counted."""
    work()
    taken: list[float] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(max(each) for each in zip(*everybodys(lambda: taken)))
