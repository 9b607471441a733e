"""What several commands share: their options, the configuration of a command line, and checks before long work."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import hone
from hone.errors import HoneError

if TYPE_CHECKING:
    from hone.config.schema import Config

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...", help="A YAML file and settings that override it.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def config_of(settings: list[str] | None) -> "Config":
    """Load the configuration of a command line; its notices go to stderr."""
    tokens = list(settings or [])
    path = tokens.pop(0) if tokens and "=" not in tokens[0] and not tokens[0].startswith("--") else None
    config = hone.load_config(path, tokens)
    for notice in config.notices:
        typer.echo(f"note: {notice}", err=True)
    return config


def log_to_stderr() -> None:
    """Show what the library logs, plainly; train.log has it with times."""
    log = logging.getLogger("hone")
    for old in [handler for handler in log.handlers if type(handler) is logging.StreamHandler]:
        log.removeHandler(old)  # of an earlier command of this process, whose stderr may be closed
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)


def check_isolation(isolation: str) -> None:
    if isolation not in ("strict", "none"):
        raise HoneError(f"unknown isolation '{isolation}'", where="--isolation", fix="use strict or none")
    if isolation == "none":
        typer.echo("warning: no isolation: the programs can read and change whatever you can", err=True)


def check_output(output: Path, prompts: Path | None) -> None:
    """Mistakes of the output file that are better known before an hour of generation than after it."""
    if not output.parent.is_dir():
        raise HoneError("no such folder", where=str(output.parent), fix="make it first, or name another with --output")
    if output.is_dir() or (prompts and output.exists() and output.samefile(prompts)):
        what = "is a folder" if output.is_dir() else "is the file of prompts itself"
        raise HoneError(what, where=str(output), fix="name another file with --output")
