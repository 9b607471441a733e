"""The command on corpora: what one would cost, and making it."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from hone.commands.shared import AsJson


class Step(StrEnum):
    """What is to be done."""

    plan = "plan"
    run = "run"


def corpus(
    step: Annotated[Step, typer.Argument(help="plan: what it would cost, from a sample. run: make it, or go on.")],
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file of its own kind.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="They win over it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a sealed corpus of large text collections: filter, deduplicate, tokenise to shards; killed, it goes on."""
    from dataclasses import asdict

    from hone.corpus.blocks import require_datatrove
    from hone.corpus.load import load

    loaded = load(config, settings or [])
    require_datatrove()
    if step is Step.plan:
        from hone.corpus.plan import plan
        from hone.tables.corpus import plan_text

        planned = plan(loaded)
        typer.echo(json.dumps(asdict(planned)) if as_json else plan_text(planned))
        return
    from hone.corpus.run import run
    from hone.tables.corpus import ran_text

    ran = run(loaded, say=lambda line: typer.echo(line, err=True))
    if ran is None:
        return
    typer.echo(json.dumps(ran.manifest.model_dump(mode="json")) if as_json else ran_text(ran))
