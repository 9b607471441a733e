"""A Slurm job for a training: the script, and handing it in. Slurm does the rest: machines, queue, requeueing.

The script runs the same command as a person would. A signal before the time limit lets the run save a checkpoint and
end with 130; the job then goes back into the queue, and the same command goes on. Several seeds or settings are the
tasks of a job array, each a run of its own, and a small job afterwards puts them together. Reference: `man sbatch`.

>>> job = Job(["my.yaml"], Resources(time="04:00:00", gpus=2), python="python")
>>> print(next(line for line in script(job).splitlines() if line.startswith("srun")))
srun --kill-on-bad-exit=1 python -m hone train my.yaml nproc_per_node=2
"""

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from hone.errors import HoneError

WARNING_S = 300  # between the signal and the time limit: a step and a checkpoint
PORT = 29500  # torchrun's own
MOST_REQUEUES = 50
TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")  # minutes, minutes:seconds, hours:minutes:seconds, days-hours…
MEMORY = re.compile(r"\d+[KMGT]?")


@dataclass(frozen=True)
class Resources:
    """What is asked of Slurm, each machine's. time: as sbatch reads it. options: further lines for sbatch.

    setup: shell commands before the training, such as `module load cuda`.
    """

    time: str
    nodes: int = 1
    gpus: int = 0
    cpus: int | None = None
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    options: Sequence[str] = ()
    setup: Sequence[str] = ()


@dataclass(frozen=True)
class Job:
    """A training. words: of the command line behind `hone train`.

    points: further words of each task of a job array. gather: words of the command that puts these together.
    log: where the output goes; %j is the job's number.
    """

    words: Sequence[str]
    resources: Resources
    python: str
    name: str = "hone"
    log: str = "slurm-%j.out"
    points: Sequence[Sequence[str]] = ()
    gather: Sequence[str] = ()


def script(job: Job) -> str:
    """The text for sbatch.

    Raises:
        HoneError: a time or an amount of memory that sbatch would not read.
    """
    asked = job.resources
    _refuse_unreadable(asked)
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in _options(job)), ""]
    lines += ["set -u", *asked.setup]
    point = ""
    if job.points:
        lines += ["case $SLURM_ARRAY_TASK_ID in"]
        lines += [f"  {i}) point=({shlex.join(words)}) ;;" for i, words in enumerate(job.points)]
        lines += ["esac", ""]
        point = ' "${point[@]}"'
    if asked.nodes > 1:
        lines += ['head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)', ""]
    lines += [
        f"srun --kill-on-bad-exit=1 {job.python} -m hone train {shlex.join(job.words)}{point}{_processes(asked)}",
        "code=$?",
        "# 130: a signal came before the time limit, and a checkpoint is saved; 143: it came while Python started.",
        "# The same command goes on from there.",
        'case "$code" in 130 | 143)',
        f'  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_REQUEUES} ]; then scontrol requeue "$SLURM_JOB_ID"; fi ;;',
        "esac",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def gather_script(job: Job) -> str:
    """The text for the job after an array: every run is finished, so it only puts them together.

    On a machine like theirs: which precision a run takes is measured, and decides whether it is the same run.
    """
    options = [f"--job-name={job.name}-together", "--time=30", *_machine(job.resources, nodes=1), f"--output={job.log}"]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), "", *job.resources.setup]
    return "\n".join([*lines, f"{job.python} -m hone {shlex.join(job.gather)}"]) + "\n"


def submit(job: Job) -> list[str]:
    """Hand the job in, and the one that puts its runs together; returns the numbers that Slurm gave them.

    Raises:
        HoneError: there is no Slurm here, or it refuses.
    """
    numbers = [_sbatch(script(job))]
    if job.gather:
        numbers.append(_sbatch(gather_script(job), f"--dependency=afterok:{numbers[0]}", "--kill-on-invalid-dep=yes"))
    return numbers


def _sbatch(text: str, *options: str) -> str:
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", *options], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        fix = "run this on a machine of the cluster, or leave out --submit and copy the script there"
        raise HoneError("there is no sbatch here", where="--submit", fix=fix) from None
    if done.returncode:
        reason = done.stderr.strip().removeprefix("sbatch: error: ")
        raise HoneError(f"Slurm refuses the job: {reason}", where="--submit", fix="`sinfo` lists what the cluster has")
    return done.stdout.strip().partition(";")[0]


def _options(job: Job) -> list[str]:
    found = [f"--job-name={job.name}", f"--time={job.resources.time}", *_machine(job.resources, job.resources.nodes)]
    found += [f"--array=0-{len(job.points) - 1}"] if job.points else []
    # the signal goes to the training alone, not to this script, which then puts the job back into the queue
    return [*found, f"--signal=TERM@{WARNING_S}", "--requeue", "--open-mode=append", f"--output={job.log}"]


def _machine(asked: Resources, nodes: int) -> list[str]:
    found = [f"--nodes={nodes}", "--ntasks-per-node=1"]
    found += [f"--gpus-per-node={asked.gpus}"] if asked.gpus else []
    found += [f"--cpus-per-task={asked.cpus}"] if asked.cpus else []
    found += [f"--mem={asked.memory}"] if asked.memory else []
    found += [f"--partition={asked.partition}"] if asked.partition else []
    found += [f"--account={asked.account}"] if asked.account else []
    return [*found, *asked.options]


def _processes(asked: Resources) -> str:
    """The keys that make a process for each GPU of each machine; nothing for one process."""
    each = max(asked.gpus, 1)
    if asked.nodes == 1:
        return f" nproc_per_node={each}" if each > 1 else ""
    place = f'rdzv_endpoint="$head:{PORT}" rdzv_id="$SLURM_JOB_ID"'
    return f" nnodes={asked.nodes} nproc_per_node={each} {place}"


def _refuse_unreadable(asked: Resources) -> None:
    if not TIME.fullmatch(asked.time):
        fix = "write hours:minutes:seconds, 04:00:00, or days-hours, 2-12"
        raise HoneError(f"'{asked.time}' is not a time that sbatch reads", where="--time", fix=fix)
    if asked.memory is not None and not MEMORY.fullmatch(asked.memory):
        raise HoneError(f"'{asked.memory}' is not an amount of memory", where="--mem", fix="write 64G")
    for option in asked.options:
        if not option.startswith("-") or "\n" in option:
            raise HoneError(f"'{option}' is not an option of sbatch", where="--option", fix="write --option=--qos=high")
