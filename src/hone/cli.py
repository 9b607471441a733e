"""The `hone` command. Each command parses, calls one function and prints; nothing heavy is imported before it runs.

Exit codes: 0 done, 1 the user's mistake (one message, no traceback), 2 usage, 3 a check failed, 130 interrupted.
"""

import errno
import functools
import inspect
import io
import sys
from collections.abc import Callable
from typing import Any

import typer

from hone.commands import evaluate, generate, tools, train
from hone.errors import HoneError, Interrupted
from hone.hardware import calm_threads

# The panels of `hone --help` and the commands in each, in their order; a command is called as its function is.
PANELS: list[tuple[str, list[Callable[..., None]]]] = [
    (
        "From rows to a run",
        [train.demo, train.init, train.check, train.explain, train.prepare, train.plan, train.train, train.repeat],
    ),
    ("What it is worth", [evaluate.evaluate, evaluate.grade, evaluate.compare, evaluate.report, evaluate.runs]),
    ("Let it answer", [generate.generate, generate.chat, generate.predict]),
    ("Files and the machine", [tools.convert, tools.merge, tools.doctor, tools.cache]),
]
NAMES = {evaluate.evaluate: "eval"}  # a function of this name would hide Python's
# A full or read-only disk, no permission, a path too long for the file system, links that lead round in a circle.
USERS_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the user's mistakes into one message and exit code 1, interruptions into 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except HoneError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        except Interrupted as stopped:
            typer.echo(f"interrupted: {stopped}", err=True)
            raise typer.Exit(130) from None
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

    return run


app = typer.Typer(
    help="Fine-tune language models on the machine you have, and prove what that changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS:
    for command in commands:
        # Where config keys are taken, --learning_rate 1e-4 is as good as learning_rate=1e-4.
        takes_keys = "settings" in inspect.signature(command).parameters
        more = {"ignore_unknown_options": True, "allow_extra_args": True} if takes_keys else None
        name = NAMES.get(command, command.__name__)
        app.command(name, rich_help_panel=panel, context_settings=more)(guarded(command))


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character shows its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    calm_threads()
    app()


if __name__ == "__main__":
    main()
