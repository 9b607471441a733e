"""A cluster on this machine, and what `hone launch slurm` does on it: an array, a time limit, a node that is killed.

Needs Debian's slurm-wlm and munge, and root: `apt-get install slurm-wlm munge`, then `python benchmarks/slurm.py`. The
controller and two nodes run below a folder of their own and end with the script. Takes about eight minutes, most of
them Slurm's wait before it starts a job again. Prints a line for each trial; exit code 1 if one went wrong.
"""

import argparse
import filecmp
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort=16917
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
MpiDefault=none
NodeName=n[1-2] NodeAddr=127.0.0.1 NodeHostname={host} Port=[17101-17102] CPUs=2 CoresPerSocket=2 RealMemory=8000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
TRAINING = """
model_name_or_path: hone-base
learning_rate: 1e-3
train_file: rows.jsonl
validation_split_percentage: 30
max_length: 64
max_steps: 120
logging_steps: 5
save_strategy: steps
save_steps: 20
eval_strategy: "no"
use_cpu: true
bf16: false
"""
ROWS = "".join(f'{{"prompt": "def add_{i}(a):\\n", "completion": "    return a + {i % 7}\\n"}}\n' for i in range(60))


def run(*command: str, **more: str) -> str:
    return subprocess.run(command, check=True, text=True, capture_output=True, env={**os.environ, **more}).stdout


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """munge, a controller and two nodes; all of them end with it."""
    for name in ("munge", "state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    config, munge = folder / "slurm.conf", folder / "munge"
    config.write_text(CONFIG.format(host=socket.gethostname().split(".")[0], folder=folder))
    os.environ["SLURM_CONF"] = str(config)
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o400)
    shutil.chown(munge, "munge", "munge")
    shutil.chown(munge / "key", "munge", "munge")
    munge.chmod(0o755)
    folder.chmod(0o755)
    places = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = " ".join(f"--{option}={munge}/{name}" for option, name in places.items())
    started = [subprocess.Popen(["su", "-s", "/bin/sh", "munge", "-c", f"exec /usr/sbin/munged -F --force {options}"])]
    time.sleep(1)
    started.append(subprocess.Popen(["slurmctld", "-D", "-f", str(config)], stderr=subprocess.DEVNULL))
    time.sleep(2)
    nodes = {name: node(config, name) for name in ("n1", "n2")}
    try:
        while "idle" not in run("sinfo", "--noheader"):
            time.sleep(0.5)
        yield
    finally:
        for name in nodes:
            subprocess.run(["pkill", "-f", f"slurmd.*{config}.*{name}"], check=False)
        for process in reversed(started):
            process.terminate()
            process.wait()


def node(config: Path, name: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["slurmd", "-D", "-f", str(config), "-N", name], stderr=subprocess.DEVNULL)


def launch(*words: str) -> list[str]:
    return run(sys.executable, "-m", "hone", "launch", "slurm", *words, "--cpus", "1", "--submit").split()


def ended(number: str, timeout: float = 900) -> str:
    """Wait until a job is out of the queue; its last state."""
    until = time.monotonic() + timeout
    state = ""
    while time.monotonic() < until:
        state = run("scontrol", "show", "job", number).partition("JobState=")[2].split()[0]
        if state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"):
            return state
        time.sleep(1)
    return f"{state} after {timeout:.0f} s"


def array() -> str:
    first, together = launch("my.yaml", "max_steps=10", "output_dir=seeds", "--seeds", "3", "--time", "20")
    states = [ended(first), ended(together)]
    done = Path("seeds/repeat.json").is_file()
    return "three runs, put together" if done and set(states) == {"COMPLETED"} else f"WRONG: {states}"


def equal(name: str, number: str) -> str:
    restarts = run("scontrol", "show", "job", number).partition("Restarts=")[2].split()[0]
    same = filecmp.cmp(Path("calm/model.safetensors"), Path(name) / "model.safetensors", shallow=False)
    return f"{restarts} restarts, weights equal to the undisturbed training's: {'yes' if same else 'WRONG: no'}"


def time_limit() -> str:
    """A limit of three minutes, with a warning as soon as two checkpoints are there."""
    (number,) = launch("my.yaml", "output_dir=limit", "--time", "20")
    wait_for("limit/checkpoint-40")
    run("scancel", "--signal=TERM", number)  # what Slurm sends before the limit: to the steps, not to the script
    return f"{ended(number)}, {equal('limit', number)}"


def killed_node() -> str:
    """Everything of a node is killed in the middle of a training, and Slurm is told that it is down."""
    (number,) = launch("my.yaml", "output_dir=killed", "--time", "20")
    wait_for("killed/checkpoint-40")
    name = run("squeue", "--noheader", "--jobs", number, "--format=%N").strip()
    config = os.environ["SLURM_CONF"]
    lines = run("ps", "-eo", "pid,args").splitlines()
    signs = (f"slurmstepd: [{number}.", "output_dir=killed", f"slurmd -D -f {config} -N {name}")
    for line in lines:
        pid, _, arguments = line.strip().partition(" ")
        if any(sign in arguments for sign in signs) and "sbatch" not in arguments:
            os.kill(int(pid), signal.SIGKILL)
    run("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")
    time.sleep(2)
    node(Path(config), name)
    run("scontrol", "update", f"nodename={name}", "state=idle")
    return f"{ended(number)}, {equal('killed', number)}"


def wait_for(path: str, timeout: float = 300) -> None:
    until = time.monotonic() + timeout
    while not Path(path).is_dir():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.2)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.chdir(folder)
        Path("my.yaml").write_text(TRAINING)
        Path("rows.jsonl").write_text(ROWS)
        os.environ["OMP_NUM_THREADS"] = "1"
        run(sys.executable, "-m", "hone", "train", "my.yaml", "output_dir=calm")
        with cluster(folder):
            said = {
                "array of three seeds": array(),
                "signal before the limit": time_limit(),
                "node killed": killed_node(),
            }
    for trial, outcome in said.items():
        print(f"{trial:24} {outcome}")
    raise SystemExit(any("WRONG" in outcome or "COMPLETED" not in outcome for outcome in list(said.values())[1:]))


if __name__ == "__main__":
    main()
