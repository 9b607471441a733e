"""The `hone` command. Each command parses, calls one function and prints; nothing heavy is imported before it runs.

Exit codes: 0 done, 1 the user's mistake (one message, no traceback), 2 usage, 3 a check failed, 130 interrupted.
"""

import errno
import functools
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hone.errors import HoneError

app = typer.Typer(
    help="Fine-tune language models on the machine you have, and prove what that changed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character shows its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    app()


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
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise
            typer.echo(f"error: {error.filename or 'cannot write'}: {error.strerror}", err=True)
            raise typer.Exit(1) from None

    return run  # type: ignore[return-value]


def _config(settings: list[str] | None) -> Any:
    """Load the configuration of a command line; its notices go to stderr."""
    from hone.config.load import load_config

    tokens = list(settings or [])
    path = tokens.pop(0) if tokens and "=" not in tokens[0] and not tokens[0].startswith("--") else None
    config = load_config(path, tokens)
    for notice in config.notices:
        typer.echo(f"note: {notice}", err=True)
    return config


def _log_to_stderr() -> None:
    """Show what the library says, plainly; train.log has it with times."""
    log = logging.getLogger("hone")
    for old in [handler for handler in log.handlers if type(handler) is logging.StreamHandler]:
        log.removeHandler(old)  # of an earlier command of this process, whose stderr may be closed
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)


@app.command(context_settings=KEYS)
@guarded
def train(settings: Settings = None, as_json: AsJson = False) -> None:
    """Measure the base, train, save, measure the tuned model. The same command resumes an interrupted run."""
    config = _config(settings)
    _log_to_stderr()
    from hone.training.callbacks import Interrupted
    from hone.training.train import train as train_run

    try:
        run = train_run(config)
    except Interrupted as stopped:
        typer.echo(f"interrupted: {stopped}", err=True)
        raise typer.Exit(130) from None
    _print_run(run, as_json)


def _print_run(run: Any, as_json: bool) -> None:
    from hone.tables import before_after

    if as_json:
        names = ("base", "tuned", "compare")
        typer.echo(json.dumps({"run": str(run.folder), **{name: run.read_eval(name) for name in names}}))
    else:
        typer.echo(before_after(run))


@app.command(context_settings=KEYS)
@guarded
def prepare(
    settings: Settings = None,
    show: Annotated[int, typer.Option(min=0, help="Print this many rows with supervised and masked tokens.")] = 0,
    save_bin: Annotated[Path | None, typer.Option(help="Copy train.bin and val.bin to this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read, check and tokenise the data, and say what was dropped and why."""
    config = _config(settings)
    from hone.config.checks import require_training

    require_training(config)
    import hone
    from hone.data.prepare import copy_bins, describe
    from hone.tables import colour_tokens

    data = hone.prepare(config)
    if save_bin is not None:
        copy_bins(data.store, save_bin)
    if as_json:
        counts = {"train_examples": len(data.train), "validation_examples": len(data.validation)}
        typer.echo(json.dumps({"store": str(data.store.folder), "seconds": data.seconds, **counts, **data.store.meta}))
        return
    if show:
        from hone.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(str(config.model.tokenizer_name_or_path or config.model.model_name_or_path))
        typer.echo(colour_tokens(data.train.head(show), tokenizer, colour=sys.stdout.isatty()))
    typer.echo("\n".join([*describe(data, config.data.batching), f"store: {data.store.folder or 'the .bin files'}"]))


@app.command(name="eval", context_settings=KEYS)
@guarded
def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Loss, perplexity and bits per byte of a model; on a run's own validation data, or that of a config."""
    own = Path(model) / "config.resolved.yaml"
    tokens = list(settings or [])
    if own.is_file() and not (tokens and tokens[0].endswith((".yaml", ".yml"))):
        tokens = [str(own), *tokens]
    config = _config(tokens)
    import hone
    from hone.evaluation.before_after import describe_loss

    result = hone.evaluate(model, config)
    typer.echo(json.dumps(result) if as_json else describe_loss(result))


def _prompt_text(prompt: str | None) -> str:
    """The prompt of the command line or of stdin; bytes that are no UTF-8 have no tokens."""
    try:
        text = sys.stdin.read() if prompt is None else prompt
        text.encode("utf-8")
    except UnicodeError as error:
        where = "stdin" if prompt is None else "--prompt"
        raise HoneError("the prompt is not UTF-8 text", where=where, fix="convert it, e.g. with iconv") from error
    return text


@app.command()
@guarded
def generate(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt; read from stdin without it.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="At most this many new tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy; higher is more varied.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Keep the likeliest tokens up to this mass.")] = 1.0,
    n: Annotated[int, typer.Option("-n", min=1, help="How many answers.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same text.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text (may be repeated).")] = None,
    template: Annotated[str | None, typer.Option(help="plain, instruction or chat; default: as trained.")] = None,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt with a model, spelled as in its training."""
    text = _prompt_text(prompt)
    if template not in (None, "plain", "instruction", "chat"):
        raise HoneError(f"unknown template '{template}'", fix="use plain, instruction or chat")
    import hone

    answers = hone.generate(
        model,
        text,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        n=n,
        seed=seed,
        stop=stop or [],
        template=template,
    )
    typer.echo(json.dumps({"prompt": text, "answers": answers}) if as_json else "\n\n".join(answers))


@app.command(context_settings=KEYS)
@guarded
def check(settings: Settings = None) -> None:
    """Check a config without loading a model: keys, types, conflicts, files."""
    config = _config(settings)
    from hone.config.checks import require_training
    from hone.config.load import resolved_yaml
    from hone.data.prepare import check_files
    from hone.errors import placed
    from hone.models.load import check_source

    require_training(config)
    check_files(config)
    if config.model.model_name_or_path:
        with placed(config.where("model_name_or_path")):
            check_source(config.model.model_name_or_path)
    typer.echo(resolved_yaml(config))
    typer.echo("ok", err=True)


@app.command()
@guarded
def explain(key: Annotated[str | None, typer.Argument(help="A config key; without it, all of them.")] = None) -> None:
    """What a config key does, why, how, what it costs, and typical values."""
    from hone.config.explain import explain as explain_key

    typer.echo(explain_key(key))


@app.command()
@guarded
def init(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name; without it, the list.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default RECIPE.yaml.")] = None,
) -> None:
    """Write a commented recipe to start from."""
    from hone.config.explain import recipe_names, recipe_text, recipe_title

    if recipe is None:
        typer.echo("\n".join(f"{name:22}{recipe_title(name)}" for name in recipe_names()))
        return
    text = recipe_text(recipe)
    path = output or Path(f"{recipe}.yaml")
    if path.exists():
        raise HoneError("exists already", where=str(path), fix="name another file with --output")
    if not path.parent.is_dir():
        raise HoneError("no such folder", where=str(path.parent), fix="make it first, or name another with --output")
    from hone.files import write_text_atomic

    write_text_atomic(path, text)
    typer.echo(f"wrote {path}: edit it, then `hone check {path}` and `hone train {path}`")


@app.command()
@guarded
def doctor(as_json: AsJson = False) -> None:
    """What this machine can do: processor, precision, memory, GPU, sandbox, packages."""
    from dataclasses import asdict

    from hone.doctor import examine, exit_code
    from hone.tables import checks_table

    checks = examine()
    typer.echo(json.dumps([asdict(item) for item in checks]) if as_json else checks_table(checks))
    raise typer.Exit(exit_code(checks))


@app.command()
@guarded
def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, up to three levels down.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """List runs: status, base, data, last loss, before and after, duration."""
    from hone.runs import find_runs
    from hone.tables import run_row, runs_table

    found = find_runs(folder)
    typer.echo(json.dumps([run_row(run) for run in found]) if as_json else runs_table(found))


@app.command()
@guarded
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the runs are written.")] = Path("out/demo"),
    as_json: AsJson = False,
) -> None:
    """Pre-train a small model on Python's own source, fine-tune it on 200 functions, and show what changed."""
    _log_to_stderr()
    from hone.demo import demo as run_demo
    from hone.training.callbacks import Interrupted

    try:
        run = run_demo(output)
    except Interrupted as stopped:
        typer.echo(f"interrupted: {stopped}", err=True)
        raise typer.Exit(130) from None
    _print_run(run, as_json)


if __name__ == "__main__":
    main()
