"""The command that hands a training to a cluster's scheduler."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hone.commands.shared import Settings, check_output, config_of
from hone.errors import HoneError

if TYPE_CHECKING:
    from hone.config.grid import Space


def launch(
    scheduler: Annotated[str, typer.Argument(help="slurm")],
    settings: Settings = None,
    time: Annotated[str, typer.Option(metavar="HH:MM:SS", help="Time limit; the job goes on after it.")] = "04:00:00",
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each machine, a process for each.")] = 0,
    cpus: Annotated[int | None, typer.Option(min=1, help="Processors of each machine.")] = None,
    mem: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of each machine, such as 64G.")] = None,
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Where to queue.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Who pays.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="OPTION", help="More for sbatch: --option=--qos=high (repeatable).")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(metavar="COMMAND", help="Run before the training: 'module load cuda'.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N|LIST", help="A job for each seed, put together as by `hone repeat`.")
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Hand it in; otherwise the script is printed.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the script to this file.")] = None,
) -> None:
    """Print a job script for a cluster, or hand it in. It queues again at its time limit, and goes on."""
    if scheduler != "slurm":
        fix = "write hone launch slurm my.yaml; elsewhere give the training command itself: docs/cluster.md"
        raise HoneError(f"no scheduler '{scheduler}' is known", fix=fix)
    from hone.config.checks import require_training
    from hone.config.grid import split_choices
    from hone.files import write_text_atomic
    from hone.slurm import Job, Resources, gather_script, script
    from hone.slurm import submit as hand_in

    words, space = split_choices(settings or [])
    config = config_of(words)
    require_training(config)
    points, gather = _points(config.output.output_dir, config.train.seed, space, seeds, words, settings or [])
    resources = Resources(time, nodes, gpus, cpus, mem, partition, account, option or [], setup or [])
    name = f"hone-{config.source_path.stem}" if config.source_path else "hone"
    job = Job(words, resources, sys.executable, name, points=points, gather=gather)
    if submit:
        typer.echo("\n".join(hand_in(job)))
        return
    if output is None:
        typer.echo(script(job), nl=False)
        if gather:
            typer.echo(f"note: afterwards, put the runs together: hone {shlex.join(gather)}", err=True)
        return
    check_output(output, None)
    write_text_atomic(output, script(job))
    typer.echo(f"wrote {output}: hand it in with sbatch {output}", err=True)
    if gather:
        after = output.with_name(f"{output.stem}-together{output.suffix}")
        write_text_atomic(after, gather_script(job))
        typer.echo(f"wrote {after}: hand it in with sbatch --dependency=afterok:NUMBER {after}", err=True)


def _points(
    folder: Path, first_seed: int, space: "Space", seeds: str | None, words: list[str], given: list[str]
) -> tuple[list[list[str]], list[str]]:
    """The words that each job of an array adds, and the command that puts their runs together; two empty lists for one
    training."""
    from hone.config.dump import flow
    from hone.config.grid import grid, parse_seeds, point_name, seed_folders

    if ranges := [leaf for leaf, choices in space.items() if isinstance(choices, tuple)]:
        fix = f"give a list, {ranges[0]}=[…]; or run hone search … --trials N as one job of your own"
        raise HoneError(f"{ranges[0]} has a range: its next value depends on the results before", fix=fix)
    if seeds is not None and space:
        raise HoneError("both seeds and lists of values are given", where="--seeds", fix="give one of them")
    if seeds is not None:
        numbers = parse_seeds(seeds, first_seed)
        names = seed_folders(numbers)
        points = [[f"seed={seed}", f"output_dir={folder / name}"] for seed, name in zip(numbers, names)]
        return points, ["repeat", *words, "--seeds", ",".join(map(str, numbers))]
    found = [
        [*(f"{leaf}={flow(value)}" for leaf, value in point.items()), f"output_dir={folder / point_name(point)}"]
        for point in (grid(space) if space else [])
    ]
    return found, ["search", *given] if found else []
