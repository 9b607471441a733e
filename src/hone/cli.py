"""The `hone` command. Each command parses, calls one function and prints; nothing heavy is imported before it runs.

Exit codes: 0 done, 1 the user's mistake (one message, no traceback), 2 usage, 3 a check failed, 130 interrupted.
"""

import errno
import functools
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hone.errors import HoneError
from hone.machine import calm_threads

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
    calm_threads()
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
def repeat(
    settings: Settings = None,
    seeds: Annotated[
        str, typer.Option(help="How many, from the config's seed on, or which ones: 6, or 1,2,7.", metavar="N|LIST")
    ] = "6",
    as_json: AsJson = False,
) -> None:
    """Train with several seeds: is the change larger than their luck? The same command trains only what is missing."""
    config = _config(settings)
    _log_to_stderr()
    from hone.tables import repeat_text
    from hone.training.callbacks import Interrupted
    from hone.training.repeat import parse_seeds
    from hone.training.repeat import repeat as repeat_runs

    try:
        found = repeat_runs(config, parse_seeds(seeds, config.train.seed))
    except Interrupted as stopped:
        typer.echo(f"interrupted: {stopped}", err=True)
        raise typer.Exit(130) from None
    typer.echo(json.dumps(found) if as_json else repeat_text(found, config.output.output_dir))


@app.command(context_settings=KEYS)
@guarded
def plan(
    settings: Settings = None,
    measure: Annotated[bool, typer.Option("--measure", help="Load everything and time two real steps.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a training will cost, before it starts: parameters, steps, memory, disk, time. Exit code 3: too much."""
    config = _config(settings)
    from hone.tables import plan_text
    from hone.training.plan import make_plan

    found = make_plan(config, measure=measure)
    typer.echo(json.dumps(found.as_dict()) if as_json else plan_text(found))
    if not found.fits:
        raise typer.Exit(3)


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
    code_tasks: Annotated[
        Path | None, typer.Option(help="Measure pass@k on these programming tasks: a file as of `hone grade`.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Answers to each programming task [1].")] = None,
    isolation: Annotated[str, typer.Option(help="strict, or none: programs then run as you do.")] = "strict",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answers, as JSON lines.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Public benchmarks by name, as arc_easy,piqa (lm-eval).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many items of each benchmark.")] = None,
    as_json: AsJson = False,
) -> None:
    """Loss, perplexity and bits per byte of a model; on a run's own validation data, or that of a config."""
    if code_tasks is not None and tasks is not None:
        raise HoneError("both --code-tasks and --tasks are given", fix="give one of them")
    own = Path(model) / "config.resolved.yaml"
    tokens = list(settings or [])
    if own.is_file() and not (tokens and tokens[0].endswith((".yaml", ".yml"))):
        tokens = [str(own), *tokens]
    config = _config([*tokens, f"num_return_sequences={samples}"] if samples else tokens)
    if code_tasks is not None:
        _evaluate_code(model, code_tasks, config, isolation, output, as_json)
    elif tasks is not None:
        _evaluate_public(model, tasks, config, limit, as_json)
    else:
        import hone
        from hone.evaluation.before_after import describe

        result = hone.evaluate(model, config)
        typer.echo(json.dumps(result) if as_json else describe(result))


def _evaluate_code(model: str, path: Path, config: Any, isolation: str, output: Path | None, as_json: bool) -> None:
    _check_isolation(isolation)
    if output is not None:
        _check_output(output, path)
    from hone.evaluation.code_eval import evaluate_code, rows_text
    from hone.evaluation.columns import code_notes
    from hone.files import write_text_atomic
    from hone.tables import grades_text

    _log_to_stderr()
    result, rows = evaluate_code(model, path, config, isolation)  # type: ignore[arg-type]
    if output is not None:
        write_text_atomic(output, rows_text(rows))
    typer.echo(json.dumps(result) if as_json else f"{grades_text(result)}\n{code_notes(result)}")


def _evaluate_public(model: str, tasks: str, config: Any, limit: int | None, as_json: bool) -> None:
    from hone.evaluation.public_tasks import evaluate_public, public_rows
    from hone.tables import table

    result = evaluate_public(model, [name.strip() for name in tasks.split(",")], config, limit=limit)
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(table(["task", "metric", "value", "items"], public_rows(result)))
    level = f"in brackets {result['confidence_level']:.0%} intervals; lm-eval {result['versions']['lm-eval']}"
    typer.echo(level + ("" if limit is None else f"; the first {limit} items only: no benchmark result"))


def _check_isolation(isolation: str) -> None:
    if isolation not in ("strict", "none"):
        raise HoneError(f"unknown isolation '{isolation}'", where="--isolation", fix="use strict or none")
    if isolation == "none":
        typer.echo("warning: no isolation: the programs can read and change whatever you can", err=True)


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


# Options of generate and chat; one that is not given is as in the run's configuration, section `generate`.
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="At most this many new tokens [128, or as the run has it].")
]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="0 is greedy; higher is more varied [0].")]
TopK = Annotated[int | None, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all [0].")]
TopP = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Keep the likeliest tokens up to this mass [1].")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same text [0].")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text (may be repeated).")]
Template = Annotated[str | None, typer.Option(help="plain, instruction or chat [as trained].")]


@app.command()
@guarded
def generate(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt; read from stdin without it.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file of prompts: lines of a .txt, or rows with prompt, instruction, messages."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write JSON lines to this file: each row and its answers.")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many answers [1].")] = None,
    seed: Seed = None,
    stop: Stop = None,
    template: Template = None,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt, or each one of a file, with a model; spelled as in its training."""
    if prompts and prompt is not None:
        raise HoneError("both --prompt and --prompts are given", fix="give one of them")
    from hone.inference.generate import chosen_settings, chosen_template, generate_texts, ready_model
    from hone.inference.prompts import Prompt, read_prompts

    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    given |= {"num_return_sequences": n, "sampling_seed": seed, "stop": stop or None}
    settings = chosen_settings(model, given)
    if output is not None:
        _check_output(output, prompts)
    if prompts:
        asked = read_prompts(prompts)
    else:
        text = _prompt_text(prompt)
        asked = [Prompt(text, {"prompt": text}, None)]
    loaded, tokenizer = ready_model(model)
    spelled = chosen_template(model, template, tokenizer)
    answers = generate_texts(
        loaded, tokenizer, [one.example for one in asked], settings, spelled, [one.where for one in asked]
    )
    rows = ({**one.columns, "answers": texts} for one, texts in zip(asked, answers))
    if output is not None:
        lines = [json.dumps(row, ensure_ascii=False, default=str) for row in rows]
        from hone.files import write_text_atomic

        write_text_atomic(output, "".join(f"{line}\n" for line in lines))
        typer.echo(f"wrote {output}: {len(lines)} prompts with their answers", err=True)
        return
    _print_answers(rows, [one.where for one in asked], as_json)


def _print_answers(rows: Iterator[dict[str, Any]], places: list[str | None], as_json: bool) -> None:
    """Each as soon as it is there; on a terminal, model output must not drive it."""
    from hone.tables import printable

    for row, where in zip(rows, places):
        if as_json:
            typer.echo(json.dumps(row, default=str))
            continue
        if where is not None:
            typer.echo(f"--- {where}")
        text = "\n\n".join(row["answers"])
        typer.echo(printable(text) if sys.stdout.isatty() else text)


def _check_output(output: Path, prompts: Path | None) -> None:
    """Mistakes of the output file that are better known before an hour of generation than after it."""
    if not output.parent.is_dir():
        raise HoneError("no such folder", where=str(output.parent), fix="make it first, or name another with --output")
    if output.is_dir() or (prompts and output.exists() and output.samefile(prompts)):
        what = "is a folder" if output.is_dir() else "is the file of prompts itself"
        raise HoneError(what, where=str(output), fix="name another file with --output")


@app.command()
@guarded
def chat(
    model: Annotated[str, typer.Argument(help="A run folder, model folder, adapter or hub name.")],
    system: Annotated[str | None, typer.Option(help="The system message, for models with a chat template.")] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = None,
    stop: Stop = None,
    template: Template = None,
) -> None:
    """Talk with a model: answers as they grow, /help for the commands. Reads a pipe too, one message a line."""
    from hone.inference.chat import open_conversation, talk
    from hone.inference.terminal import at_terminal, line_reader, piece_writer
    from hone.tables import printable

    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    given |= {"sampling_seed": seed, "stop": stop or None}
    talk(
        open_conversation(model, given, system=system, template=template),
        read=line_reader(),
        write=piece_writer(printable),
        note=lambda text: typer.echo(printable(text), err=True),
        watched=at_terminal(),
    )


@app.command()
@guarded
def predict(
    model: Annotated[str, typer.Argument(help="A run of task classification, model folder, adapter or hub name.")],
    file: Annotated[
        Path | None, typer.Argument(help="Rows with a `text` column, or .txt with one text a line.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text (may be repeated).")] = None,
    as_json: AsJson = False,
) -> None:
    """Class and probability of each text: of --text, of a FILE, or of each line of stdin."""
    if text and file is not None:
        raise HoneError("both --text and a file are given", fix="give one of them")
    import hone

    texts = list(text) if text else _texts_of(file)
    for row in hone.predict(model, texts):
        typer.echo(json.dumps(row, ensure_ascii=False) if as_json else f"{row['label']}\t{row['probability']:.4f}")
        if row["truncated"] and not as_json:
            typer.echo("note: this text was cut to the length the model was trained with", err=True)


def _texts_of(file: Path | None) -> list[str]:
    """One text a row of a data file, or one a line of a .txt file or stdin; empty lines have none."""
    if file is not None and file.suffix.lower() != ".txt":
        from hone.data.sources import read_rows

        texts = []
        for row in read_rows([file], on_bad_row="error", on_skip=lambda reason, where: None):
            if not isinstance(row.columns.get("text"), str) or not row.columns["text"].strip():
                raise HoneError("the row has no text", where=row.where, fix="each row needs a column `text`")
            texts.append(row.columns["text"])
        return texts
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


@app.command()
@guarded
def grade(
    tasks: Annotated[Path, typer.Argument(help="Tasks with tests: HumanEval's or MBPP's file, or your own.")],
    samples: Annotated[
        Path | None,
        typer.Argument(
            help="JSON lines of task_id and completion (or solution); without it, the tasks' own solutions."
        ),
    ] = None,
    k: Annotated[str, typer.Option("--k", help="pass@k for these k.")] = "1,10,100",
    workers: Annotated[int | None, typer.Option(min=1, help="Programs at a time; default: processors + 1.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds a program may compute.")] = 3.0,
    isolation: Annotated[str, typer.Option(help="strict, or none: programs then run as you do.")] = "strict",
    as_json: AsJson = False,
) -> None:
    """Run generated programs against the tests of their tasks, isolated, and print pass@k."""
    _check_isolation(isolation)
    if not all(part.strip().isdecimal() and int(part) > 0 for part in k.split(",")):
        raise HoneError(f"'{k}' is no list of numbers", where="--k", fix="for example --k 1,10")
    from hone.evaluation.code_tasks import read_tasks
    from hone.evaluation.grade import grade as grade_samples
    from hone.evaluation.grade import read_samples, references, results_path, summary, write_results
    from hone.tables import grades_text

    known = read_tasks(tasks)
    asked = read_samples(samples) if samples else references(known)
    if not asked:
        raise HoneError("no samples, and the tasks bring no solutions", where=str(tasks), fix="name a file of samples")
    results = grade_samples(known, asked, isolation=isolation, timeout=timeout, workers=workers)  # type: ignore[arg-type]
    found = summary(results, map(int, k.split(",")), known)
    if samples:
        write_results(results_path(samples), results)
    if as_json:
        typer.echo(json.dumps({**found, "results": str(results_path(samples)) if samples else None}))
    else:
        typer.echo(grades_text(found) + (f"\nresults: {results_path(samples)}" if samples else ""))


@app.command()
@guarded
def compare(
    a: Annotated[Path, typer.Argument(help="A run folder, or the results of `hone grade` (*_results.jsonl).")],
    b: Annotated[Path | None, typer.Argument(help="The other; without it, the run's base and its tuned model.")] = None,
    fail_if_worse: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Exit with code 3 if B is distinguishably worse in it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How B is beside A on the same items: difference, interval, test, and what so many items can show."""
    import hone
    from hone.evaluation.compare import failed, notes, table_of
    from hone.tables import printable, table

    result = hone.compare(a, b)
    why = failed(result, fail_if_worse) if fail_if_worse else None
    if as_json:
        typer.echo(json.dumps(result))
    else:
        typer.echo(printable("\n\n".join([result["sentence"], table(*table_of(result)), "\n".join(notes(result))])))
    if why:
        typer.echo(f"failed: {why}", err=True)
        raise typer.Exit(3)


@app.command(context_settings=KEYS)
@guarded
def check(settings: Settings = None) -> None:
    """Check a config without loading a model: keys, types, conflicts, files."""
    config = _config(settings)
    from hone.config.checks import require_training
    from hone.config.load import resolved_yaml
    from hone.data.prepare import check_files
    from hone.errors import placed
    from hone.evaluation.code_eval import tasks_of
    from hone.models.load import check_source

    require_training(config)
    check_files(config)
    tasks_of(config)
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
def convert(
    source: Annotated[Path, typer.Argument(help="A folder of OpenAI's GPT-2 files (hparams.json, model.ckpt…).")],
    target: Annotated[Path, typer.Argument(help="The model folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Make a model folder of OpenAI's raw GPT-2 files, checked by loading it again."""
    from dataclasses import asdict

    from hone.models.openai_gpt2 import convert as convert_files
    from hone.models.openai_gpt2 import describe

    done = convert_files(source, target)
    typer.echo(json.dumps(asdict(done), default=str) if as_json else describe(done))


@app.command()
@guarded
def merge(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A LoRA run or an adapter's folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    base: Annotated[str | None, typer.Option(help="Where the base is, if not where the adapter says.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: the base's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an adapter and its base one model folder that loads without PEFT, and check that it answers the same."""
    from hone.models.merge import DTYPES, merge_folders, read_adapter

    if dtype not in (None, *DTYPES):
        raise HoneError(f"unknown dtype '{dtype}'", where="--dtype", fix=f"use {', '.join(DTYPES)}")
    read_adapter(source)  # before libraries are loaded
    from hone.data.tokenizer import load_tokenizer

    result = merge_folders(source, target, load_tokenizer(source), base=base, dtype=dtype)
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
        return
    typer.echo(f"merged into {result.folder}: {result.n_parameters:,} parameters, {result.dtype}")
    typer.echo(
        f"loaded again without PEFT, its logits differ from base and adapter by at most {result.difference:.1e} of "
        f"their spread (allowed: {result.tolerance:.0e})"
    )
    if not result.base_checked:
        typer.echo("note: the adapter does not say which weights it was trained on; the base is unchecked", err=True)


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
def cache(
    remove: Annotated[
        str | None, typer.Option(help="Delete these kinds: tokens, prefix, answers or all, with commas.")
    ] = None,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Only what was not written for so long.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """What is kept between runs, and its size; all of it can be made again."""
    from hone.cache import cache_entries, cache_root, chosen
    from hone.cache import remove as remove_entries
    from hone.tables import cache_text, size

    root = cache_root()
    entries = chosen(cache_entries(root), remove.split(",") if remove else ["all"], older_than)
    if remove:
        freed = remove_entries(entries)
        typer.echo(json.dumps({"freed": freed}) if as_json else f"{len(entries)} removed, {size(freed)} free again")
        return
    rows = [{"kind": e.kind, "name": e.name, "bytes": e.n_bytes, "used": e.used, "about": e.about} for e in entries]
    typer.echo(json.dumps(rows) if as_json else cache_text(entries, root))


@app.command()
@guarded
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or the folder of `hone repeat`.")],
) -> None:
    """Write report.html and report.md into a run folder, of its files alone; print what they say first."""
    from hone.report.build import write_report
    from hone.report.text import visible

    verdict = write_report(run).verdict
    typer.echo(" ".join(visible(f"{verdict.word}: {verdict.rest}").split()))
    typer.echo(f"wrote {run / 'report.html'} and report.md")


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
