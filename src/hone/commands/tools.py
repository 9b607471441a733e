"""Commands for what lies on the disk and for the machine: convert, verify, doctor, cache."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hone.commands.shared import AsJson
from hone.errors import HoneError
from hone.processes import joined, started_together

if TYPE_CHECKING:
    from hone.doctor import Check


def convert(
    source: Annotated[
        Path,
        typer.Argument(help="A folder of OpenAI's GPT-2 files (hparams.json, model.ckpt…): 124M, 355M, 774M or 1558M."),
    ],
    target: Annotated[Path, typer.Argument(help="The model folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Make a model folder of OpenAI's raw GPT-2 files, checked by loading it again."""
    from dataclasses import asdict

    from hone.convert.openai_gpt2 import convert as convert_files
    from hone.convert.openai_gpt2 import describe

    done = convert_files(source, target)
    typer.echo(json.dumps(asdict(done), default=str) if as_json else describe(done))


def verify(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="A run, checkpoint, model, or folder of the cache.")],
    as_json: AsJson = False,
) -> None:
    """Read every byte of a run, a model or a cache: is it still what was written? Exit code 3 if not."""
    from dataclasses import asdict

    from hone.show import plural, size
    from hone.verify import verify as verify_folder

    found = verify_folder(name)
    if as_json:
        typer.echo(json.dumps(asdict(found), default=str))
    else:
        what = f"{found.folder} ({found.kind}, {plural(found.n_files, 'file')}, {size(found.n_bytes)})"
        said = [f"{what}: {plural(len(found.problems), 'problem')}", *(f"  {problem}" for problem in found.problems)]
        typer.echo("\n".join(said) if found.problems else f"{what}: all as it was written")
    if found.problems:
        raise typer.Exit(3)


def doctor(
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Several processes: do they meet, agree, share a folder; how fast?")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where runs will be written; for --distributed.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """What this machine can do: processor, precision, memory, GPU, sandbox, packages. Or several, together."""
    if distributed:
        _examine_group(settings or [], folder, as_json)
        return
    if settings:
        fix = "hone doctor --distributed nproc_per_node=2; without it there is nothing to set"
        raise HoneError(f"'{settings[0][:60]}' is a setting of several processes", fix=fix)
    from hone.doctor import examine

    raise typer.Exit(_print_checks(examine(), as_json))


def _print_checks(checks: "list[Check]", as_json: bool) -> int:
    """The exit code that they mean."""
    from dataclasses import asdict

    from hone.doctor import exit_code
    from hone.tables.data import checks_table

    typer.echo(json.dumps([asdict(item) for item in checks]) if as_json else checks_table(checks))
    return exit_code(checks)


def _examine_group(settings: list[str], folder: Path, as_json: bool) -> None:
    """The checks of the group that this process is in; one that is alone starts a group, and ends with it."""
    if started_together():
        from hone.doctor_group import examine_group

        with joined():  # of which the first process alone is heard
            code = _print_checks(examine_group(folder), as_json)
        raise typer.Exit(code)
    from hone.config.load import load_config
    from hone.training.launch import launch

    asked = load_config(None, settings).launch
    section = asked if asked.asks_for_several else asked.model_copy(update={"nproc_per_node": 2})
    launch(section, ["doctor", "--distributed", "--folder", str(folder), *(["--json"] if as_json else [])])


def cache(
    remove: Annotated[
        str | None, typer.Option(help="Delete these kinds: tokens, prefix, answers, kernels or all, with commas.")
    ] = None,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Only what was not written for so long.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """What is kept between runs, and its size; all of it can be made again."""
    from hone.cache import cache_entries, cache_root, chosen
    from hone.cache import remove as remove_entries
    from hone.show import size
    from hone.tables.data import cache_text

    root = cache_root()
    entries = chosen(
        cache_entries(root), [kind.strip() for kind in remove.split(",")] if remove is not None else ["all"], older_than
    )
    if remove is not None:
        freed = remove_entries(entries)
        typer.echo(json.dumps({"freed": freed}) if as_json else f"{len(entries)} removed, {size(freed)} free again")
        return
    rows = [{"kind": e.kind, "name": e.name, "bytes": e.n_bytes, "used": e.used, "about": e.about} for e in entries]
    typer.echo(json.dumps(rows) if as_json else cache_text(entries, root))
