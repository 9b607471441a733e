"""`hone export`: a run as other programs take it."""

import json
from pathlib import Path
from typing import Annotated

import typer

import hone
from hone.commands.shared import AsJson


def export(
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run, checkpoint, adapter, model folder or hub name.")],
    to: Annotated[str, typer.Option("--to", help="merged: a plain model folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write [RUN-merged, beside the run].")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the weights: float32, bfloat16 or float16 [as the base's files].")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Where an adapter's base is, if not where the adapter says.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run for other programs, read it back and compare it with the run before it gets its name."""
    done = hone.export(source, to, output=output, dtype=dtype, base=base)
    typer.echo(json.dumps(done.as_dict()) if as_json else done.text)
