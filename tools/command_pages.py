"""Write into docs/files what the code knows: examples, arguments and options of each command, and the list of pages.

python tools/command_pages.py            # writes; `make docs` does it
python tools/command_pages.py --check    # names the pages that are out of date, and ends with 1

A page is written by hand but for the part between two comments. The index repeats each page's "Use this page when".
"""

import importlib.util
import inspect
import re
import sys
import textwrap
import types
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from typer.main import get_command

from hone.cli import NAMES, PANELS, app
from hone.commands.examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "files"
INDEX = PAGES / "index.md"
PLAIN_LOOP = PAGES / "plain-loop.md"
BEGIN, END = "<!-- written by `make docs` from the code -->", "<!-- end of what `make docs` writes -->"
VALUES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class Parameter(NamedTuple):
    """An argument or option: how it is typed, what it does, its default ("" where there is none to show)."""

    typed: str
    what: str
    default: str


HELP = Parameter("--help, -h", "Show this message and exit.", "")


def command_names() -> list[tuple[str, list[str]]]:
    """The panels of `hone --help`, with the names of their commands."""
    return [(panel, [NAMES.get(one, one.__name__) for one in commands]) for panel, commands in PANELS]


def command_block(name: str) -> str:
    """A command's examples, docstring, usage line, arguments, options, and where its code is."""
    command: Any = get_command(app).commands[name]  # type: ignore[attr-defined]
    values = {key: value_name(one.annotation) for key, one in inspect.signature(command.callback).parameters.items()}
    parameters = [of_typer(one, values[one.name]) for one in command.params] + [HELP]
    arguments = " ".join(one.typed for one in parameters if not one.typed.startswith("-"))
    summary, usage = str(command.help).split("\n\n")[0], f"hone {name} {arguments} [OPTIONS]"
    examples = ["## Usage", "", "```bash", *example_lines(name), "```", "", "## Arguments and options"]
    return "\n\n".join(["\n".join(examples), block(summary, usage, parameters), f"Code: {code_link(command)}."])


def code_link(command: Any) -> str:
    function = inspect.unwrap(command.callback)
    path = Path(inspect.getfile(function)).relative_to(ROOT).as_posix()
    return f"[{path}](../../{path}), `{function.__name__}`"


def example_lines(name: str) -> list[str]:
    """The lines at the foot of its help, each with what it does."""
    lines = EXAMPLES[name]
    width = max(len(line) for line, _ in lines)
    return [f"{line:{width}}  # {what}" for line, what in lines]


def value_name(annotation: Any) -> str:
    """N for a whole number, PATH for a file or folder … "" for a flag; of `Annotated[int | None, …]`."""
    kind = get_args(annotation)[0]
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next((VALUES[one] for one in kinds if one in VALUES), "TEXT" if list[str] in kinds else "")


def of_typer(one: Any, value: str) -> Parameter:
    if one.param_type_name == "argument":
        name = one.metavar or one.name.upper()
        return Parameter(name if one.required or one.metavar else f"[{name}]", help_of(one), shown(one.default))
    long_first = sorted(one.opts, key=len, reverse=True)
    typed = ", ".join(long_first) + ("" if one.is_flag else f" {one.metavar or value}")
    return Parameter(typed, help_of(one), "" if one.is_flag else shown(one.default))


def help_of(one: Any) -> str:
    """Its help without the strokes that keep `[0]` from being read as a colour."""
    return (one.help or "").replace("\\[", "[")


def shown(default: Any) -> str:
    return "" if default is None or callable(default) else str(default)


def plain_loop_block() -> str:
    """The same of examples/plain_loop.py, from its parser."""
    spec = importlib.util.spec_from_file_location("plain_loop", ROOT / "examples" / "plain_loop.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parser: ArgumentParser = module.parser()
    parameters = []
    for one in parser._actions[1:]:  # the first is --help; argparse has no public list
        value = "" if not one.option_strings else f" {VALUES[one.type]}"  # type: ignore[index]
        typed = ", ".join(one.option_strings) + value or str(one.metavar)
        parameters.append(Parameter(typed, one.help or "", shown(one.default)))
    arguments = " ".join(one.typed for one in parameters if not one.typed.startswith("-"))
    return block(str(parser.description), f"python examples/plain_loop.py {arguments} [OPTIONS]", parameters)


def block(summary: str, usage: str, parameters: list[Parameter]) -> str:
    lines = [*wrapped(" ".join(summary.split())), "", "```text", " ".join(usage.split()), "```", ""]
    for one in parameters:
        what = f": {one.what.removesuffix('.')}." if one.what else ""
        default = f" Default: `{one.default}`." if one.default else ""
        lines += wrapped(f"- `{one.typed}`{what}{default}", indent="  ")
    return "\n".join(lines)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Lines of at most 118 characters; what stands in back-ticks stays on one."""
    kept = re.sub(r"`[^`]+`", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(kept, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def index_block() -> str:
    """Each page with its own words on when to use it, by the panels of `hone --help`."""
    lines: list[str] = []
    for panel, names in [*command_names(), ("Without the command line", ["plain-loop"])]:
        lines += ["", f"### {panel}", ""]
        for name in names:
            title = "examples/plain_loop.py" if name == "plain-loop" else f"hone {name}"
            lines += wrapped(f"- [{title}]({name}.md): {use_when(PAGES / f'{name}.md')}", indent="  ")
    return "\n".join(lines).strip()


def use_when(page: Path) -> str:
    """What follows "Use this page when" in a page's first paragraph, to the end of the sentence."""
    found = re.search(r"^Use this page when (.+?\.)(?:\s|$)", page.read_text(encoding="utf-8"), re.M | re.S)
    assert found, f"{page}: no line begins with 'Use this page when'"
    return " ".join(found[1].split())


def pages() -> Iterator[tuple[Path, str]]:
    """Every page with what stands between its two comments; the index last, as it reads the others."""
    for _, names in command_names():
        yield from ((PAGES / f"{name}.md", command_block(name)) for name in names)
    yield PLAIN_LOOP, plain_loop_block()
    yield INDEX, index_block()


def renewed(page: Path, made: str) -> str:
    """The text of a page with the part between its comments replaced."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{page}: write '{BEGIN}' and '{END}' where the options are to stand"
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def out_of_date() -> Iterator[tuple[Path, str]]:
    """The pages whose written part is not that of the code, with their new text."""
    for page, made in pages():
        if (text := renewed(page, made)) != page.read_text(encoding="utf-8"):
            yield page, text


def main() -> None:
    """Write the pages that are out of date, or with --check only name them."""
    check = sys.argv[1:] == ["--check"]
    found = list(out_of_date())
    for page, text in found:
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"{'out of date' if check else 'wrote'}: {page.relative_to(ROOT)}")
    if check and found:
        sys.exit("run `make docs`")


if __name__ == "__main__":
    main()
