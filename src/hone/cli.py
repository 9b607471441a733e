"""The `hone` command. Each command parses, calls one function and prints; nothing heavy is imported before it runs."""

import io
import sys

# Importing them registers the commands, in the order of `hone --help`.
from hone.commands import training  # noqa: F401

# isort: split
from hone.commands import measuring  # noqa: F401

# isort: split
from hone.commands import writing  # noqa: F401

# isort: split
from hone.commands import keeping  # noqa: F401
from hone.commands.app import app
from hone.hardware import calm_threads


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character shows its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    calm_threads()
    app()


if __name__ == "__main__":
    main()
