"""Commands that let a model answer: generate, chat, predict."""

import functools
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hone
from hone.commands.shared import AsJson, check_output
from hone.errors import HoneError
from hone.imports import importing

if TYPE_CHECKING:
    from hone.inference.generate import SamplingOptions

SAMPLING: dict[str, object] = {  # as `hone.generate` takes them, and what typer is to know of each
    "max_new_tokens": Annotated[
        int | None, typer.Option(min=1, help="At most this many new tokens [128, or as the run has it].")
    ],
    "temperature": Annotated[float | None, typer.Option(min=0.0, help="0 is greedy; higher is more varied [0].")],
    "top_k": Annotated[int | None, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all [0].")],
    "top_p": Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Keep the likeliest tokens up to this mass [1].")
    ],
    "n": Annotated[int | None, typer.Option("-n", min=1, help="How many answers [1].")],
    "seed": Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same text [0].")],
    "stop": Annotated[list[str] | None, typer.Option(help="End before this text (may be repeated).")],
}
Template = Annotated[str | None, typer.Option(help="plain, instruction or chat [as trained].")]


def with_sampling(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options in place of its parameter `sampling`, which holds those that are given.

    typer makes the options of a command from its signature, one a parameter; so the signature is what is changed.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in names}
            sampling = {name: value for name, value in values.items() if value not in (None, [])}
            command(**arguments, sampling=sampling)

        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command).parameters.values():
            if own.name == "sampling":
                parameters += [own.replace(name=name, annotation=SAMPLING[name], default=None) for name in names]
            else:
                parameters.append(own)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


@with_sampling(*SAMPLING)
def generate(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    words: Annotated[
        str | None,
        typer.Argument(metavar="[PROMPT]", help="The prompt; read from stdin without it.", show_default=False),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The prompt, as an option.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file of prompts: lines of a .txt, or rows with prompt, instruction, messages."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write JSON lines to this file: each row and its answers.")
    ] = None,
    *,
    sampling: "SamplingOptions",
    template: Template = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show the text of one prompt while it is written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt, or each one of a file, with a model; formatted as in its training."""
    if sum(given is not None for given in (words, prompt, prompts)) > 1:
        raise HoneError("more than one of PROMPT, --prompt and --prompts is given", fix="give one of them")
    if stream and (prompts or output or as_json):
        fix = "leave --stream out, or give one prompt without --output and --json"
        raise HoneError("--stream shows the answer to one prompt on the screen", fix=fix)
    prompt = words if prompt is None else prompt
    with importing():
        from hone.inference.generate import chosen_settings
        from hone.inference.prompts import Prompt, read_prompts

    chosen_settings(model, sampling)  # a mistake in them is better known before a prompt is typed than after it
    if output is not None:
        check_output(output, prompts)
    if stream:
        _show_pieces(model, _prompt_text(prompt), template, sampling)
        return
    if prompts:
        asked = read_prompts(prompts)
    else:
        text = _prompt_text(prompt)
        asked = [Prompt(text, {"prompt": text}, None)]
    answers = hone.generate_many(model, asked, template=template, **sampling)
    rows = ({**one.columns, "answers": texts} for one, texts in zip(asked, answers))
    if output is not None:
        lines = [json.dumps(row, ensure_ascii=False, default=str) for row in rows]
        from hone.files import write_text_atomic

        write_text_atomic(output, "".join(f"{line}\n" for line in lines))
        typer.echo(f"wrote {output}: {len(lines)} prompts with their answers", err=True)
        return
    _print_answers(rows, [one.where for one in asked], as_json)


def _prompt_text(prompt: str | None) -> str:
    """The prompt of the command line or of stdin; bytes that are no UTF-8 have no tokens."""
    try:
        if prompt is None and sys.stdin.isatty():
            typer.echo("type the prompt; Ctrl-D on a line of its own ends it", err=True)
        text = sys.stdin.read() if prompt is None else prompt
        text.encode("utf-8")
    except UnicodeError as error:
        where = "stdin" if prompt is None else "--prompt"
        raise HoneError("the prompt is not UTF-8 text", where=where, fix="convert it, e.g. with iconv") from error
    return text


def _show_pieces(model: str, prompt: str, template: str | None, sampling: "SamplingOptions") -> None:
    """Ctrl-C leaves what has come, in a line of its own."""
    from hone.inference.generate import pieces
    from hone.inference.terminal import piece_writer

    write = piece_writer()
    try:
        for piece in pieces(model, prompt, template, sampling):
            write(piece)
    finally:
        write("\n")


def _print_answers(rows: Iterator[dict[str, Any]], places: list[str | None], as_json: bool) -> None:
    """Each as soon as it is there; on a terminal, model output must not drive it."""
    from hone.errors import printable

    for row, where in zip(rows, places):
        if as_json:
            typer.echo(json.dumps(row, default=str))
            continue
        if where is not None:
            typer.echo(f"--- {where}")
        text = "\n\n".join(row["answers"])
        typer.echo(printable(text) if sys.stdout.isatty() else text)


@with_sampling(*(name for name in SAMPLING if name != "n"))
def chat(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    system: Annotated[str | None, typer.Option(help="The system message, for models with a chat template.")] = None,
    *,
    sampling: "SamplingOptions",
    template: Template = None,
) -> None:
    """Talk with a model: answers as they come, /help for the commands. Reads a pipe too, one message a line."""
    from hone.errors import printable

    with importing():
        from hone.inference.chat import open_conversation
        from hone.inference.talk import talk
        from hone.inference.terminal import answer_pen, at_terminal, line_reader

    watched = at_terminal()
    talk(
        open_conversation(model, sampling, system=system, template=template),
        read=line_reader(),
        pen=answer_pen,
        note=lambda text: typer.echo(printable(text), err=True),
        watched=watched,
        columns=lambda: shutil.get_terminal_size().columns if watched else 0,
    )


def predict(
    model: Annotated[str, typer.Argument(help="A run of task classification, model folder, adapter or hub name.")],
    file: Annotated[
        Path | None, typer.Argument(help="Rows as those of its training, without labels, or .txt with one text a line.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text (may be repeated).")] = None,
    as_json: AsJson = False,
) -> None:
    """Class and probability of each text: of --text, of a FILE, or of each line of stdin."""
    if text and file is not None:
        raise HoneError("both --text and a file are given", fix="give one of them")

    from hone.models.source import check_source

    check_source(model)  # before the file is read as its training rows were
    texts = list(text) if text else _texts_of(file, Path(model))
    for row in hone.predict(model, texts):
        typer.echo(json.dumps(row, ensure_ascii=False) if as_json else f"{row['label']}\t{row['probability']:.4f}")
        if row["truncated"] and not as_json:
            typer.echo("note: this text was cut to the length the model was trained with", err=True)


def _texts_of(file: Path | None, model: Path) -> list[str]:
    """One text a row of a data file, read as in the training, or one a line of a .txt file or stdin, empty ones not."""
    if file is not None and file.suffix.lower() != ".txt":
        from hone.inference.predict import read_texts

        return read_texts(file, model)
    if file is not None and not file.is_file():
        raise HoneError("no such file", where=str(file), fix="name a file of texts, or give --text")
    try:
        lines = (sys.stdin.read() if file is None else file.read_text(encoding="utf-8")).splitlines()
    except UnicodeError as error:
        where = str(file) if file else "stdin"
        raise HoneError("not UTF-8 text", where=where, fix="convert it, e.g. with iconv") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise HoneError("no texts", where=str(file or "stdin"), fix="give one text a line, or --text '…'")
    return texts
