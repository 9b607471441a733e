"""`hone export`: a run as other programs take it."""

import json
from pathlib import Path
from typing import Annotated

import typer

import hone
from hone.commands.shared import AsJson


def export(
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run, checkpoint, adapter, model folder or hub name.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="merged (a plain model folder), gguf (for llama.cpp), ollama (with a Modelfile) or hub."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write [beside the run, named RUN-TARGET].")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of the weights: float32, bfloat16, float16 [as the base's]; gguf: f32, f16, bf16, q8_0 [f16]."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Where an adapter's base is, if not where the adapter says.")] = None,
    repo: Annotated[str | None, typer.Option(help="With --to hub: YOUR-NAME/MODEL.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --to hub: readable by everybody.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run for other programs, read it back and compare it with the run before it gets its name."""
    done = hone.export(source, to, output=output, dtype=dtype, base=base, repo=repo, public=public)
    typer.echo(json.dumps(done.as_dict()) if as_json else done.text)
