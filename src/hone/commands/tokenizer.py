"""The command on tokenizers: train one, or see how far one shortens a text."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hone import bundled
from hone.commands.shared import AsJson
from hone.errors import HoneError


class Action(StrEnum):
    """What is to be done."""

    train = "train"
    measure = "measure"


def tokenizer(
    action: Annotated[Action, typer.Argument(help="train a new one, or measure one that there is.")],
    names: Annotated[
        list[str],
        typer.Argument(metavar="[NAME] FILE...", help="measure: first the tokenizer (a folder or a hub name)."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="train: the folder to write.")] = None,
    vocab_size: Annotated[int, typer.Option(min=257, help="train: entries, bytes and end token included.")] = 8192,
    against: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="measure: another tokenizer beside it; repeatable.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Of rows, only this column; else text, else every text.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a byte-level BPE tokenizer on files, or measure one: tokens, and bytes per token."""
    if action is Action.train:
        _train([Path(name) for name in names], output, vocab_size, column, as_json)
    elif len(names) < 2:
        raise HoneError("no file to measure on", where=names[0], fix=f"hone tokenizer measure {names[0]} FILE...")
    else:
        others = against or ([] if names[0] == bundled.NAME else [bundled.NAME])
        _measure([names[0], *others], [Path(name) for name in names[1:]], column, as_json)


def _train(files: list[Path], output: Path | None, vocab_size: int, column: str | None, as_json: bool) -> None:
    if output is None:
        raise HoneError("no folder to write", where="--output", fix="name one: -o my-tokenizer")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise HoneError("exists already", where=str(output), fix="name another folder with --output")
    from hone.data.texts import texts
    from hone.data.tokenizer import save_tokenizer, train_bpe

    made = train_bpe(texts(files, column), vocab_size=vocab_size)
    save_tokenizer(made, output)
    if as_json:
        typer.echo(json.dumps({"tokenizer": str(output), "entries": len(made)}))
        return
    fewer = "" if len(made) == vocab_size else f", not {vocab_size:,}: the text holds no more pairs that occur twice"
    typer.echo(f"wrote {output}: {len(made):,} entries{fewer}")
    typer.echo(f"measure it on text it has not seen: hone tokenizer measure {output} FILE")
    typer.echo(f"in a config: tokenizer_name_or_path: {output if output.is_absolute() else './' + str(output)}")


def _measure(names: list[str], files: list[Path], column: str | None, as_json: bool) -> None:
    from hone.data.texts import texts
    from hone.data.tokenizer import load_tokenizer
    from hone.metrics.bytes_per_token import bytes_per_token
    from hone.show import estimate, table

    found = {name: bytes_per_token(load_tokenizer(name), texts(files, column)) for name in names}
    first = found[names[0]]
    if as_json:
        typer.echo(json.dumps({name: {**asdict(one), "ratio": one.ratio.model_dump()} for name, one in found.items()}))
        return
    rows = []
    for name, one in found.items():
        length = f"{one.n_tokens / first.n_tokens:.2f}"
        rows.append([name, f"{one.n_entries:,}", f"{one.n_tokens:,}", estimate(one.ratio, ".3f"), length])
    typer.echo(f"{first.n_texts:,} texts, {first.n_bytes:,} bytes")
    typer.echo(table(["tokenizer", "entries", "tokens", "bytes per token", "length, the first = 1"], rows))
