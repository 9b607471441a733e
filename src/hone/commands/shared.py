"""What several commands share: their options, the configuration of a command line, and checks before long work."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hone.errors import HoneError, said

if TYPE_CHECKING:
    from hone.config.schema import Config

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG|DATA] [KEY=VALUE]...",
        help="A YAML file, or a file or folder of rows; and settings that override them.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def config_of(
    settings: list[str] | None, data_key: str = "train_file", *, assume: bool = True, quiet: bool = False
) -> "Config":
    """Load the configuration of a command line; its notices go to stderr.

    Args:
        data_key: what a data file without a key is.
        assume: this is about a training: take the bundled model where neither a config nor a model is given, and say
            where the learning rate does not suit it.
        quiet: say none of the notices.
    """
    from hone.commands.given import assumed, assumption_note, words
    from hone.config.load import load_config
    from hone.config.rates import rate_notices

    found = words(settings or [], data_key)
    config = load_config(found.config, found.settings)
    notes = list(found.notes)
    if assume and found.config is None and (extra := assumed(config.model, config.data, config.method, config.lines)):
        config = load_config(None, [*extra, *found.settings])
        config.lines.update({setting.partition("=")[0]: "assumed" for setting in extra})
        notes.append(assumption_note(extra))
    of_training = [] if assume else rate_notices(config.model, config.method, config.train)
    for notice in [] if quiet else [*notes, *(notice for notice in config.notices if notice not in of_training)]:
        typer.echo(f"note: {said(notice)}", err=True)
    return config


class _ToStderr(logging.StreamHandler[Any]):
    """Writes to what stderr is now: several commands of one process may each have their own."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def format(self, record: logging.LogRecord) -> str:
        return said(super().format(record))

    @property
    def stream(self) -> Any:
        return sys.stderr


def log_to_stderr() -> None:
    """Show what the library logs, plainly; train.log has it with times."""
    log = logging.getLogger("hone")
    if not any(isinstance(handler, _ToStderr) for handler in log.handlers):
        log.addHandler(_ToStderr())
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
