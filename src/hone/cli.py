"""The `hone` command. Each command parses, calls one function and prints; nothing heavy is imported before it runs.

Exit codes: 0 done, 1 the user's mistake (one message, no traceback), 2 usage, 3 a check failed, 130 interrupted.
"""

import atexit
import errno
import functools
import gc
import inspect
import io
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import hone
from hone.commands import corpus, evaluate, export, generate, launch, serve, tokenizer, tools, train, ui
from hone.commands.examples import examples_text, first_example
from hone.commands.hints import hint_for_command, hint_for_option
from hone.commands.memory import out_of_memory_text
from hone.errors import HoneError, Interrupted, is_out_of_memory, said
from hone.imports import calm_threads

# The panels of `hone --help` and the commands in each, in their order; a command is called as its function is.
PANELS: list[tuple[str, list[Callable[..., None]]]] = [
    (
        "From rows to a run",
        [
            *(train.demo, train.init, train.check, train.explain, train.prepare, train.plan, train.train),
            *(train.repeat, train.search, launch.launch),
        ],
    ),
    ("What it is worth", [evaluate.evaluate, evaluate.grade, evaluate.compare, evaluate.report, evaluate.runs, ui.ui]),
    ("Let it answer", [generate.generate, generate.chat, generate.predict, serve.serve]),
    (
        "Files and the machine",
        [tokenizer.tokenizer, corpus.corpus, tools.convert, export.export, tools.verify, tools.doctor, tools.cache],
    ),
]
NAMES = {evaluate.evaluate: "eval"}  # a function of this name would hide Python's
# A full, read-only or broken disk, no permission, a path too long for the file system, links that lead round in a
# circle, a call that the system interrupted.
USERS_ERRNO = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP),
    errno.EINTR,
)
OF_A_RUN = {"model", "run", "a", "source"}  # arguments that may be a run's folder
# What rich takes for markup, and would leave out of a help text: "plain or chat [as trained]".
MARKUP = re.compile(r"(\[[a-zA-Z#/@][^\[]*?\])")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the user's mistakes into one message and exit code 1, interruptions into 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except HoneError as error:
            typer.echo(f"error: {said(str(error))}", err=True)
            raise typer.Exit(1) from None
        except Interrupted as stopped:
            typer.echo(f"interrupted: {said(str(stopped))}", err=True)
            raise typer.Exit(130) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output has gone, as in `hone explain | head`
            sys.stdout = None
            raise typer.Exit(0) from None
        except (OSError, MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                reason = out_of_memory_text(error, trains="settings" in kwargs)
            elif isinstance(error, OSError) and error.errno in USERS_ERRNO:
                reason = f"{str(error.filename or 'cannot read or write')[:200]}: {error.strerror}"
            else:
                raise
            typer.echo(f"error: {said(reason)}", err=True)
            raise typer.Exit(1) from None

    return run


def refuse_line(what: str, fix: str) -> typer.Exit:
    """A line that is no command: what is wrong with it and what to type, plain, so that it can be copied."""
    typer.echo(f"error: {what}\n  {fix}", err=True)
    return typer.Exit(2)


class Command(TyperCommand):
    """A command whose help ends with examples, and which answers an incomplete line with one."""

    takes_keys = False  # whether it takes keys of the configuration

    def format_help(self, ctx: Any, formatter: Any) -> None:
        parameters: list[Any] = self.params
        written = [(one, one.help) for one in parameters if getattr(one, "help", None)]
        for parameter, text in written:
            parameter.help = MARKUP.sub(r"\\\1", text)
        super().format_help(ctx, formatter)
        for parameter, text in written:
            parameter.help = text
        typer.echo(f"\n{examples_text(str(self.name), self.takes_keys)}\n")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # by name: typer brings a copy of click with it in some of its versions, not in all
            example = first_example(str(self.name))
            if type(error).__name__ == "MissingParameter" and example:
                what = f"hone {self.name}: {error.format_message()[:1].lower()}{error.format_message()[1:]}"  # type: ignore[attr-defined]
                runs = "   (`hone runs` lists your runs)" if OF_A_RUN & {one.name for one in self.params} else ""
                raise refuse_line(what, f"e.g. {example}{runs}") from None
            option = getattr(error, "option_name", "") if type(error).__name__ == "NoSuchOption" else ""
            if option and (hint := hint_for_option(str(self.name), option)):
                raise refuse_line(f"hone {self.name} has no option {option}", hint) from None
            raise


class KeysCommand(Command):
    """A command that takes keys of the configuration: `--learning_rate 1e-4` is as good as `learning_rate=1e-4`."""

    takes_keys = True


class Commands(TyperGroup):
    """All commands; a name from elsewhere is answered with ours."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and (hint := hint_for_command(args[0])):
            raise refuse_line(f"no such command: {args[0]}", hint)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    help="Fine-tune language models on the machine you have, and prove what that changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS:
    for command in commands:
        takes_keys = "settings" in inspect.signature(command).parameters
        more = {"ignore_unknown_options": True, "allow_extra_args": True} if takes_keys else None
        name = NAMES.get(command, command.__name__)
        kind = KeysCommand if takes_keys else Command
        app.command(name, cls=kind, rich_help_panel=panel, context_settings=more)(guarded(command))


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(hone.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune language models on the machine you have, and prove what that changed."""


@app.command("version", cls=Command, hidden=True)
def version_command() -> None:
    """Print the version."""
    print_version(True)


@app.command("help", cls=Command, hidden=True)
def help_command(
    ctx: typer.Context, command: Annotated[str | None, typer.Argument(help="A command's name.")] = None
) -> None:
    """The commands, or the help of one, as `hone COMMAND --help`."""
    whole: Any = ctx.parent
    if command is None:
        typer.echo(whole.get_help())
        return
    name, found, _ = whole.command.resolve_command(whole, [command])
    typer.echo(found.get_help(found.make_context(name, [], parent=whole, resilient_parsing=True)))


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character shows its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    calm_threads()
    gc.freeze()  # what is there stays; see `hone.imports.importing`
    atexit.register(gc.freeze)  # Python would look through millions of objects for garbage, seconds before it ends
    app()


if __name__ == "__main__":
    main()
