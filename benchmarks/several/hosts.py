"""Two machines made of network namespaces, joined by a virtual cable: one that is cut, hosts that die, leave and join.

Needs root and iproute2. Each host starts the command as a person would: `hone train CFG nnodes=2 rdzv_endpoint=…`.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from several.equal import differences
from several.world import at_line, hone_train, settings, train_here

PORT = 29511
CUT_S = 5.0  # the cable is out for so long
LATE_S = 240.0  # nothing here takes longer


class Host:
    """A network namespace with one address."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True, capture_output=True)

    def train(self, folder: Path, config: dict[str, Any], *more: str) -> "subprocess.Popen[str]":
        return hone_train(folder, config, *more, prefix=["ip", "netns", "exec", self.name])


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two namespaces and a pair of virtual cards between them, gone afterwards."""
    here = os.getpid()
    hosts = Host(f"hone-{here}-a", "10.77.0.1"), Host(f"hone-{here}-b", "10.77.0.2")
    try:
        for host in hosts:
            subprocess.run(["ip", "netns", "add", host.name], check=True, capture_output=True)
        a, b = hosts
        a.ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b.name)
        for host in hosts:
            host.ip("address", "add", f"{host.address}/24", "dev", "cable")
            host.ip("link", "set", "cable", "up")
            host.ip("link", "set", "lo", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


def why_not() -> str | None:
    """Why there can be no namespaces here."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and iproute2"
    try:
        with two_hosts():
            return None
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.decode().strip()}"


def hosts(folder: Path) -> bool:
    """A training across both, undisturbed; with the cable out for a while; with either host killed."""
    if why := why_not():
        print(f"skipped: {why}")
        return True
    config = settings(folder, "flat", "two-hosts", 2, num_train_epochs=40, save_steps=10, nnodes=2)
    config |= {"save_strategy": "steps", "eval_strategy": "no", "nproc_per_node": 1}
    train_here([settings(folder, "flat", "one-host", 1, num_train_epochs=40, eval_strategy="no")])
    with two_hosts() as pair:
        config["rdzv_endpoint"] = f"{pair[0].address}:{PORT}"
        fine = _undisturbed(folder, pair, config)
        wanted = (folder / "two-hosts" / "model.safetensors").read_bytes()
        fine &= _cut(folder, pair, {**config, "output_dir": str(folder / "cut")}, wanted)
        for dies in (1, 0):
            fine &= _killed(folder, pair, {**config, "output_dir": str(folder / f"killed-{dies}")}, wanted, dies)
        fine &= _replaced(folder, pair, {**config, "output_dir": str(folder / "replaced")}, wanted)
    return fine


def _undisturbed(folder: Path, pair: tuple[Host, Host], config: dict[str, Any]) -> bool:
    codes, _ = _ends([host.train(folder, config) for host in pair])
    if codes != [0, 0]:
        return _said(False, f"undisturbed: exit codes {codes}")
    found = differences(folder / "one-host", folder / "two-hosts")
    good = found["loss"] < 1e-6 and found["weights"] < 1e-5 and not found["files"]
    return _said(good, f"undisturbed: from one host loss {found['loss']:.1e}, weights {found['weights']:.1e}")


def _cut(folder: Path, pair: tuple[Host, Host], config: dict[str, Any], wanted: bytes) -> bool:
    run = Path(config["output_dir"])
    both = [host.train(folder, config) for host in pair]
    at_line(run / "metrics.jsonl", 20, both[0])
    pair[1].ip("link", "set", "cable", "down")
    time.sleep(0.5)
    before = _lines(run)
    time.sleep(CUT_S - 0.5)
    meanwhile = _lines(run) - before
    pair[1].ip("link", "set", "cable", "up")
    codes, texts = _ends(both)
    same = codes == [0, 0] and (run / "model.safetensors").read_bytes() == wanted
    what = f"cable out for {CUT_S:.0f} s at step {before}: {meanwhile} steps meanwhile, then to the end, same bytes"
    return _said(same and not meanwhile, what if same else f"cable out: exit codes {codes}\n{texts}")


def _killed(folder: Path, pair: tuple[Host, Host], config: dict[str, Any], wanted: bytes, dies: int) -> bool:
    """Kill all of a host's processes; the other one says one thing; the same commands go on."""
    run = Path(config["output_dir"])
    both = [host.train(folder, config) for host in pair]
    at_line(run / "metrics.jsonl", 45, both[0])
    step = _lines(run)
    _kill_all(both[dies])
    began = time.monotonic()
    code, text = _end(both[1 - dies])
    seconds = time.monotonic() - began
    both[dies].communicate()
    once = code == 1 and text.count("error:") == 1 and "Traceback" not in text
    which = "that with the meeting point" if dies == 0 else "the second"
    if not once:
        return _said(False, f"host killed ({which}): exit code {code}\n{text}")
    codes, texts = _ends([host.train(folder, config) for host in pair])
    same = codes == [0, 0] and (run / "model.safetensors").read_bytes() == wanted
    what = f"host killed ({which}) at step {step}: one message after {seconds:.1f} s; the same commands: same bytes"
    return _said(same, what if same else f"{what}? exit codes {codes}\n{texts}")


def _replaced(folder: Path, pair: tuple[Host, Host], config: dict[str, Any], wanted: bytes) -> bool:
    """Kill the second host; with `max_restarts` the first one waits until another takes its place."""
    run = Path(config["output_dir"])
    first, second = (host.train(folder, config, "max_restarts=3") for host in pair)
    at_line(run / "metrics.jsonl", 45, first)
    step = _lines(run)
    _kill_all(second)
    second.communicate()
    codes, texts = _ends([first, pair[1].train(folder, config, "max_restarts=3")])
    same = codes == [0, 0] and (run / "model.safetensors").read_bytes() == wanted
    what = f"host killed at step {step}, another started in its place: to the end, same bytes"
    return _said(same, what if same else f"{what}? exit codes {codes}\n{texts}")


# ---- machines that leave and join ------------------------------------------------------------------------------------


def elastic(folder: Path) -> bool:
    """`nnodes=1:4`: two begin, one is killed, the other goes on alone, one joins, and both end."""
    if why := why_not():
        print(f"skipped: {why}")
        return True
    more = {"num_train_epochs": 60, "eval_strategy": "no", "micro_batch_tokens": 20}  # slow enough for one to join
    train_here([settings(folder, "flat", "steady", 1, **more)])
    config = settings(folder, "flat", "elastic", 2, **more, nnodes="1:4", nproc_per_node=1, max_restarts=5)
    config |= {"save_strategy": "steps", "save_steps": 10}
    run = Path(config["output_dir"])
    with two_hosts() as pair:
        config["rdzv_endpoint"] = f"{pair[0].address}:{PORT}"
        stays, leaves = (host.train(folder, config) for host in pair)
        at_line(run / "metrics.jsonl", 20, stays)
        _kill_all(leaves)
        at_line(run / "metrics.jsonl", _lines(run) + 10, stays)
        alone = _lines(run)
        joins = pair[1].train(folder, config)
        codes, texts = _ends([stays, joins])
        leaves.communicate()
    log = (run / "train.log").read_text()
    print("\n".join(line for line in log.splitlines() if "process" in line or "resuming" in line))
    if codes != [0, 0]:
        return _said(False, f"elastic: exit codes {codes}\n{texts}")
    found = differences(folder / "steady", run)
    good = found["loss"] < 1e-5 and found["weights"] < 1e-4 and found["steps"] == 0
    return _said(good, f"elastic: one joins after step {alone}; {found}")


# ---- ends ------------------------------------------------------------------------------------------------------------


def _kill_all(process: "subprocess.Popen[str]") -> None:
    """A host that loses its power."""
    whole = psutil.Process(process.pid)
    for one in [whole, *whole.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def _end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    try:
        text, _ = process.communicate(timeout=LATE_S)
    except subprocess.TimeoutExpired:
        _kill_all(process)
        text, _ = process.communicate()
        text = f"did not end in {LATE_S:.0f} s\n{text}"
    return process.returncode, text


def _ends(processes: list["subprocess.Popen[str]"]) -> tuple[list[int], str]:
    found = [_end(process) for process in processes]
    return [code for code, _ in found], "\n".join(text[-2000:] for _, text in found)


def _lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def _said(good: bool, what: str) -> bool:
    print(what if good else f"WRONG {what}", flush=True)
    return good
