"""Commands from a config to a run: demo, init, check, explain, prepare, plan, train, repeat, search."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hone
from hone.commands.shared import AsJson, Settings, config_of, log_to_stderr
from hone.errors import HoneError
from hone.processes import BY_HONE, joined, started_together
from hone.progress import stage, stages_shown

Jobs = Annotated[int, typer.Option(min=1, help="Trainings at a time, each in a process of its own.")]

if TYPE_CHECKING:
    from hone.config.sections.data import DataSection
    from hone.data.inputs import FirstLook


def demo(
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the runs are written.")] = Path("out/demo"),
    method: Annotated[str, typer.Option(help="full: all weights train. lora: thin matrices added to them.")] = "full",
    as_json: AsJson = False,
) -> None:
    """Teach the bundled model 413 small functions, and show what changed: loss, unit tests, samples."""
    if settings and "=" not in settings[0] and not settings[0].startswith("--"):
        fix = "it has its own; `hone train CFG.yaml` takes yours"
        raise HoneError(f"the demo takes settings alone, no config: '{settings[0][:60]}'", fix=fix)
    if method not in ("full", "lora"):
        raise HoneError(f"the demo has no method '{method}'", where="--method", fix="use full or lora")
    log_to_stderr()
    from hone.demo import demo as run_demo

    _print_run(run_demo(output, method, settings or []), as_json)


def init(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name; without it, the list.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default RECIPE.yaml.")] = None,
    with_data: Annotated[bool, typer.Option("--with-data", help="Write rows to try it with, beside the file.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
) -> None:
    """Write a commented recipe to start from."""
    from hone.config.explain import recipe_names, recipe_text, recipe_title
    from hone.config.recipes.rows import listed, rows_for

    if recipe is None or list_recipes:
        typer.echo("\n".join(f"{name:22}{recipe_title(name)}" for name in recipe_names()))
        return
    text = recipe_text(recipe)  # first, so that a wrong name is called that
    path = output or Path(f"{recipe}.yaml")
    rows = rows_for(recipe) if with_data else {}
    texts = {path: recipe_text(recipe, rows) if rows else text, **{path.parent / name: rows[name] for name in rows}}
    for one in texts:
        if one.exists():
            fix = f"name {'a file in another folder' if with_data else 'another file'} with --output"
            if one != path:
                fix = f"leave out --with-data to keep your own rows, or {fix}"
            raise HoneError("exists already", where=str(one), fix=fix)
    if not path.parent.is_dir():
        raise HoneError("no such folder", where=str(path.parent), fix="make it first, or name another with --output")
    from hone.files import write_text_atomic

    for one, content in texts.items():
        one.parent.mkdir(exist_ok=True)
        write_text_atomic(one, content)
    if rows:
        typer.echo(f"wrote {listed(rows)}")
    typer.echo(f"wrote {path}: edit it, then `hone check {path}` and `hone train {path}`")


def check(
    settings: Settings = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every key, the defaults included.")] = False,
) -> None:
    """Check a config and the first rows of its files without loading a model; print what is not the default."""
    config = config_of(settings)
    from hone.config.checks import refuse_unknown_task, require_training
    from hone.config.dump import changed_yaml, resolved_yaml
    from hone.data.inputs import check_files
    from hone.errors import placed
    from hone.grading.tasks import tasks_of
    from hone.models.fallback import with_fallback
    from hone.models.source import check_source

    refuse_unknown_task(config)
    require_training(config)
    config = with_fallback(config)
    check_files(config.data)
    tasks_of(config.eval.code_tasks, config.where)
    if config.model.model_name_or_path:
        with placed(config.where("model_name_or_path")):
            check_source(config.model.model_name_or_path)
    if config.train.fp16:
        from hone.accelerations.precision import refuse_fp16

        refuse_fp16(config.train, config.where)
    rows = _first_rows(config)
    typer.echo(resolved_yaml(config) if everything else changed_yaml(config))
    typer.echo(
        f"ok: {rows}" if everything else f"ok: {rows}; all other keys have their defaults (--all shows them)", err=True
    )


def _first_rows(config: Any) -> str:
    """What the first rows are, or what `prepare` would refuse in them."""
    from hone.config.checks import FORMS
    from hone.data.inputs import first_look, label_notes, refuse_two_templates, refuse_unseen_labels
    from hone.data.records import refuse_unknown_names
    from hone.errors import placed

    if config.data.dataset_name:
        return f"the rows of {config.data.dataset_name} are read by `hone prepare`"
    forms: Any = FORMS[config.method.task]
    with placed(config.where("column_mapping")):
        refuse_unknown_names(config.data.column_mapping)
    train, held = (first_look(config.data, side, forms) for side in ("train", "validation"))
    if train and held:
        refuse_two_templates(config.data, train.form, held.form)
        refuse_unseen_labels(config.data, train, held)
    notes = label_notes(train) if train else []
    for side, look in (("training", train), ("held-out", held)):
        notes += [note for note in (look.notes if look else []) if note not in notes]
        if look and look.dropped.counts:
            notes.append(f"of the {side} rows, {look.dropped.summary()}")
    notes += _few_rows(config.data, train) if train and train.complete else []
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    return f"{train or 'token files'}" + (f", {held} held out" if held else "")


def _few_rows(data: "DataSection", train: "FirstLook") -> list[str]:
    """Whether at most so few rows are left to train on; of texts only preparing them tells, which may cut them."""
    from hone.show import few_rows

    if train.form == "text" and (data.on_long_row == "split" or data.batching == "windows"):
        return []
    held = 0 if data.validation_file else round(train.n_rows * data.validation_split_percentage / 100)
    few = few_rows(min(train.n_rows - held, data.max_train_samples or train.n_rows))
    return [few] if few else []


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY|CONCEPT]", help="Without it, all of them in one line each.", show_default=False),
    ] = None,
) -> None:
    """What a config key does, why, and what it costs; or what a word means."""
    from hone.config.explain import explain as explained

    typer.echo(explained(" ".join(words) if words else None))


def prepare(
    settings: Settings = None,
    show: Annotated[int, typer.Option(min=0, help="Print this many rows with supervised and masked tokens.")] = 0,
    save_bin: Annotated[Path | None, typer.Option(help="Copy train.bin and val.bin to this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read, check and tokenise the data, and say what was dropped and why."""
    config = config_of(settings)
    from hone.config.checks import require_training

    require_training(config)
    from hone.data.prepare import copy_bins, describe
    from hone.data.tokenizer import tokenizer_of
    from hone.models.fallback import with_fallback
    from hone.tables.data import colour_tokens, histogram, marked

    with stages_shown():
        stage("loading the libraries")
        config = with_fallback(config)
        data = hone.prepare(config)
    if save_bin is not None:
        copy_bins(data.store, save_bin)
    examples = data.train.head(show)
    if as_json:
        counts = {"train_examples": len(data.train), "validation_examples": len(data.validation)}
        shown = [one._asdict() for one in marked(examples, tokenizer_of(config.model))] if show else []
        more = {"lengths": histogram(data.train.lengths), "shown": shown, "said": describe(data, config.data.batching)}
        stored = {"store": str(data.store.folder), "seconds": data.seconds}
        typer.echo(json.dumps({**stored, **counts, **more, **data.store.meta}))
        return
    if show:
        typer.echo(colour_tokens(examples, tokenizer_of(config.model), colour=sys.stdout.isatty()))
    typer.echo("\n".join([*describe(data, config.data.batching), f"store: {data.store.folder or 'the .bin files'}"]))


def plan(
    settings: Settings = None,
    measure: Annotated[bool, typer.Option("--measure", help="Load everything and time two real steps.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a training will cost, before it starts: parameters, steps, memory, disk, time. Exit code 3: too much."""
    config = config_of(settings)
    from hone.tables.plan import plan_text

    with stages_shown():
        stage("loading the libraries")
        found = hone.plan(config, measure=measure)
    typer.echo(json.dumps(found.as_dict()) if as_json else plan_text(found))
    if not found.fits:
        raise typer.Exit(3)


def train(settings: Settings = None, as_json: AsJson = False) -> None:
    """Measure the base, train, save, measure the tuned model. The same command resumes an interrupted run."""
    with joined():
        config = config_of(settings, quiet=BY_HONE in os.environ)  # who launched has said it
        if config.launch.asks_for_several and not (BY_HONE in os.environ or started_together()):
            from hone.training.launch import launch

            launch(config.launch, ["train", *(settings or []), *(["--json"] if as_json else [])])
            return
        log_to_stderr()
        _print_run(hone.train(config), as_json)


def _print_run(run: Any, as_json: bool) -> None:
    from hone.tables.run import before_after

    if as_json:
        found = {"base": run.base, "tuned": run.tuned, "comparison": run.comparison}
        files = {name: one and one.model_dump(mode="json") for name, one in found.items()}
        typer.echo(json.dumps({"run": str(run.folder), **files}))
    else:
        typer.echo(before_after(run))


def repeat(
    settings: Settings = None,
    seeds: Annotated[
        str, typer.Option(help="How many, from the config's seed on, or which ones: 6, or 1,2,7.", metavar="N|LIST")
    ] = "6",
    jobs: Jobs = 1,
    as_json: AsJson = False,
) -> None:
    """Train with several seeds: is the change larger than seed variance? The same command trains what is missing."""
    config = config_of(settings)
    log_to_stderr()
    from hone.config.grid import parse_seeds
    from hone.results import json_text
    from hone.tables.results import repeat_text

    found = hone.repeat(config, seeds=parse_seeds(seeds, config.train.seed), jobs=jobs)
    typer.echo(json_text(found) if as_json else repeat_text(found, config.output.output_dir))


def search(
    settings: Settings = None,
    trials: Annotated[
        int | None, typer.Option(min=2, help="Settings to try of ranges, key=1e-5..1e-3; lists are tried whole.")
    ] = None,
    jobs: Jobs = 1,
    as_json: AsJson = False,
) -> None:
    """Train with several values of some keys; choose by half of the held-out items, judge by the other half."""
    from hone.config.grid import split_choices

    rest, space = split_choices(settings or [])
    config = config_of(rest)
    log_to_stderr()
    from hone.results import json_text
    from hone.tables.search import search_text

    found = hone.search(config, space, trials=trials, jobs=jobs)
    typer.echo(json_text(found) if as_json else search_text(found, config.output.output_dir))
