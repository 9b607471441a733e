"""What all commands share: the typer app, mistakes turned into messages, the configuration of a command line.

Exit codes: 0 done, 1 the user's mistake (one message, no traceback), 2 usage, 3 a check failed, 130 interrupted.
"""

import errno
import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hone.errors import HoneError

F = TypeVar("F", bound=Callable[..., Any])


KEYS = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
}  # --learning_rate 1e-4 is as good as learning_rate=1e-4


Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [KEY=VALUE]...", help="A YAML file and settings that override it.", show_default=False
    ),
]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


app = typer.Typer(
    help="Fine-tune language models on the machine you have, and prove what that changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# A full or read-only disk, no permission, a path too long for the file system, links that lead round in a circle.
USERS_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)


def guarded(command: F) -> F:
    """Turn the user's mistakes into one message and exit code 1, interruptions into 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except HoneError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output has gone, as in `hone explain | head`
            sys.stdout = None
            raise typer.Exit(0) from None
        except OSError as error:
            if error.errno not in USERS_ERRNO:
                raise
            typer.echo(f"error: {str(error.filename or 'cannot write')[:200]}: {error.strerror}", err=True)
            raise typer.Exit(1) from None

    return run  # type: ignore[return-value]


def config_of(settings: list[str] | None) -> Any:
    """Load the configuration of a command line; its notices go to stderr."""
    from hone.config.load import load_config

    tokens = list(settings or [])
    path = tokens.pop(0) if tokens and "=" not in tokens[0] and not tokens[0].startswith("--") else None
    config = load_config(path, tokens)
    for notice in config.notices:
        typer.echo(f"note: {notice}", err=True)
    return config


def log_to_stderr() -> None:
    """Show what the library says, plainly; train.log has it with times."""
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
